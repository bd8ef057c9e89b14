"""Two games of the robot: from a proposal to a mean Dice, and where to look next."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from benchmarks.encoder.scans import OTHER
from benchmarks.refine.robot_user import Robot, ball, deepest, dice_by_class, region_of
from numpy.typing import NDArray

from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.assignment import Scope

_MOST_ACTIONS = 80
_RANDOM_GAMES = 3
_MOSTLY = 0.8
"""Share of a region that has to be of a class for a person to name it whole."""


def actions_to(robot: Robot, goal: float) -> Iterator[str]:
    """Actions to a mean Dice.

    Clicks alone from nothing; clicks, merges and names from a proposal of 100 regions.
    """
    work = Refinement(robot.scan.proposal)
    dice, begun = 0.0, len(robot.first)

    def click(voxels: NDArray[np.int64], region: int) -> NDArray[np.integer]:
        work.scribble(voxels, region=region)
        return work.labels

    game = robot.play(click, _MOST_ACTIONS, enough=goal)
    reached = game.until(goal)
    blank = None if reached is None else begun + reached
    dice = max(game.dice)
    yield (
        f"\nFrom nothing to {goal}: {blank} actions ({begun} first clicks; best"
        f" {dice:.3f})"
    )
    ways: tuple[tuple[Scope, bool], ...] = (
        ("everywhere", False),
        ("here", False),
        ("everywhere", True),
        ("here", True),
    )
    for scope, several in ways:
        count, best = _from_proposal(robot, goal, scope, several=several)
        fewer = (
            ""
            if count is None or blank is None
            else f", {100 * (1 - count / blank):.0f} % fewer"
        )
        merges = (
            "one merge takes all rows of a class" if several else "one region a merge"
        )
        yield (
            f"From 100 regions to {goal}, clicks {scope}, {merges}: {count}"
            f" actions{fewer} (best {best:.3f})"
        )


def _from_proposal(
    robot: Robot, goal: float, scope: Scope, *, several: bool
) -> tuple[int | None, float]:
    """Correct a proposal: first one action per class, then where most is wrong.

    An action names or merges a whole region where that mends more than half of what is
    wrong at the place, else it is a click.
    """
    work, region_for = Refinement(robot.scan.proposal, regions=100), {0: 0}
    best, waiting = 0.0, list(robot.classes)
    for actions in range(_MOST_ACTIONS + 1):
        names = np.zeros(work.view.next_id + 1, np.int32)
        for value, region in region_for.items():
            names[region] = value
        labels = names[work.labels].astype(np.uint8)
        score = float(dice_by_class(labels, robot.scan.reference, robot.classes).mean())
        best = max(best, score)
        wanted = robot.next_click(labels, waiting[:1])
        if score >= goal or wanted is None:
            return (actions if score >= goal else None), best
        voxels, said, part = wanted
        gain, chosen, value = _best_name(
            robot, work.view.table, names, waiting[:1] or robot.classes, several=several
        )
        if gain > (0.0 if waiting else 0.5 * part):
            ids = [region_for[value], *chosen] if value in region_for else chosen
            region_for[value] = work.merge(ids) if len(ids) > 1 else ids[0]
            if value not in names:
                work.rename(region_for[value], f"class {value}")
        else:
            region_for[said] = work.scribble(
                voxels, region=region_for.get(said), scope=scope
            )
        waiting = waiting[1:]
    return None, best


def _best_name(
    robot: Robot,
    table: NDArray[np.int32],
    names: NDArray[np.int32],
    classes: list[int],
    *,
    several: bool,
) -> tuple[float, list[int], int]:
    """The class, and its region (or `several` of them), whose naming mends most voxels.

    Gain, regions, class.
    """
    shares = np.stack(
        [
            np.bincount(table, weights=one, minlength=len(names))
            for one in robot.scan.shares.T
        ],
        axis=1,
    )
    column = {int(value): k for k, value in enumerate(robot.scan.taught)}
    right = shares[:, column[OTHER]] if OTHER in column else np.zeros(len(shares))
    can = (names == 0) & (np.arange(len(names)) > 0)
    best: tuple[float, list[int], int] = (0.0, [], 0)
    for value in classes:
        held = shares[:, column[value]]
        gains = np.where(
            can & (held > 0) & (held >= _MOSTLY * shares.sum(axis=1)), held - right, 0.0
        )
        chosen = np.flatnonzero(gains) if several else gains.argmax(keepdims=True)
        if gains[chosen].sum() > best[0]:
            best = (float(gains[chosen].sum()), chosen.tolist(), value)
    return best


Pick = Callable[
    [Robot, Refinement, np.random.Generator, list[NDArray[np.int64]]], NDArray[np.int64]
]


def look_games(robot: Robot, clicks: int) -> Iterator[str]:
    """Looks at suggested places, at random ones and into the largest region.

    Each look is one stroke with what is true there.
    """
    yield (
        "\n| looks | "
        + " | ".join(f"after {k}" for k in range(0, clicks + 1, 5))
        + " |\n|"
        + "---|" * (2 + clicks // 5)
    )
    random = np.mean(
        [_looks(robot, at_random, clicks, seed) for seed in range(_RANDOM_GAMES)],
        axis=0,
    )
    arms = {
        "suggested": _looks(robot, suggested, clicks, 0),
        "largest region": _looks(robot, in_largest, clicks, 0),
        "random": random,
    }
    for name, dice in arms.items():
        yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in dice[::5]) + " |"
    for name in ("suggested", "largest region"):
        reached = np.flatnonzero(arms[name] >= random[-1])
        took = str(reached[0]) if len(reached) else f"more than {clicks}"
        yield (
            f"{name}: what random looks reach after {clicks} ({random[-1]:.3f}) takes"
            f" {took}"
        )


def _looks(robot: Robot, pick: Pick, clicks: int, seed: int) -> NDArray[np.float64]:
    work, rng, seen, dice = (
        Refinement(robot.scan.proposal),
        np.random.default_rng(seed),
        [],
        [],
    )
    reference = robot.scan.reference
    for voxels, region in robot.first:
        work.scribble(voxels, region=region)
    for number in range(clicks + 1):
        dice.append(float(dice_by_class(work.labels, reference, robot.classes).mean()))
        if number < clicks:
            place = pick(robot, work, rng, seen)
            seen.append(place)
            value = reference[tuple(place)]
            work.scribble(ball(place, reference == value), region=region_of(int(value)))
    return np.array(dice)


def suggested(
    robot: Robot,
    work: Refinement,
    rng: np.random.Generator,
    seen: list[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The first suggestion that the reference can judge."""
    for place in work.view.suggestions(12):
        if robot.scan.reference[place.voxel_zyx] > 0:
            return np.array(place.voxel_zyx)
    return at_random(robot, work, rng, seen)


def _to_see(robot: Robot, work: Refinement) -> NDArray[np.bool_]:
    tree = work.proposal.region_tree
    body = np.ones(work.proposal.n_supervoxels, bool)
    body[tree.leaf_order[: tree.n_background]] = False
    return (robot.scan.reference > 0) & body[work.proposal.supervoxels]


def at_random(
    robot: Robot,
    work: Refinement,
    rng: np.random.Generator,
    seen: list[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Any voxel of the body that the reference can judge."""
    places = np.flatnonzero(_to_see(robot, work))
    return np.array(np.unravel_index(rng.choice(places), robot.scan.reference.shape))


def in_largest(
    robot: Robot,
    work: Refinement,
    rng: np.random.Generator,
    seen: list[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The deepest place of the largest region that is far from what was seen."""
    labels, to_see = work.labels, _to_see(robot, work)
    sizes = np.bincount(labels[to_see])
    sizes[0] = 0
    inside = to_see & (labels == sizes.argmax())
    for place in seen:
        inside[tuple(place)] = False
    return deepest(inside) if inside.any() else at_random(robot, work, rng, seen)
