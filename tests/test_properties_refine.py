"""Edits, undo, redo, save, load and replay in any order.

What hypothesis finds no way to break.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Region
from phantoms import phantom_proposal, phantom_volume

SHAPE = (8, 9, 10)
VOXELS = st.lists(
    st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), min_size=1, max_size=12
)
CHOICE = st.integers(0, 11)


@cache
def small_proposal() -> Proposal:
    return phantom_proposal(phantom_volume(SHAPE), block=3)


@dataclass(frozen=True)
class Seen:
    """What a person can notice of a refinement.

    Which voxels were painted and not given to anything else since.
    """

    labels: NDArray[np.unsignedinteger]
    rows: tuple[Region, ...]
    tree: str
    granularity: int
    painted: NDArray[np.bool_]

    def same(self, work: Refinement) -> bool:
        return np.array_equal(self.labels, work.labels) and (
            self.rows,
            self.tree,
            self.granularity,
        ) == (
            work.regions,
            work.view.tree,
            work.view.granularity,
        )


def seen(work: Refinement, painted: NDArray[np.bool_]) -> Seen:
    return Seen(
        work.labels.copy(), work.regions, work.view.tree, work.view.granularity, painted
    )


class Edits(RuleBasedStateMachine):
    """A refinement beside a plain list of everything that was seen.

    One entry per step, and the place in it.
    """

    @initialize(start=st.sampled_from([{"regions": 8}, {"tissues": 3}, {}]))
    def begin(self, start: dict[str, int]) -> None:
        self.work = Refinement(small_proposal(), **start)
        self.steps = [seen(self.work, np.zeros(SHAPE, bool))]
        self.at = 0

    @property
    def now(self) -> Seen:
        return self.steps[self.at]

    def region(self, choice: int) -> int:
        ids = [row.id for row in self.work.regions]
        return ids[choice % len(ids)] if ids else 1

    def edit(
        self, action: object, *, automatic: bool = False, unlocks: bool = False
    ) -> bool:
        """Carry out an edit; what it must never do is checked for every one."""
        before, steps = self.now, len(self.work.history)
        try:
            action()  # type: ignore[operator]
        except EditError as err:
            assert str(err).isprintable()  # noqa: PT017
            assert before.same(self.work), "an edit that was refused changed something"
            assert len(self.work.history) == steps
            return False
        after = self.work.labels
        for row in before.rows:
            if row.locked and not unlocks:
                assert np.array_equal(before.labels == row.id, after == row.id), (
                    "a locked region changed"
                )
        changed = before.labels != after
        if automatic:
            assert not (changed & before.painted).any(), (
                "what nobody pointed at moved painted voxels"
            )
        if before.same(self.work) and len(self.work.history) == steps:
            # nothing to do is no step, and what was undone can still be redone
            return True
        assert not self.work.steps.undone
        self.at = len(self.work.history)
        self.steps = [
            *self.steps[: self.at],
            seen(self.work, before.painted & ~changed),
        ]
        return True

    @rule(n=st.integers(0, 30), tissues=st.booleans())
    def cut(self, n: int, tissues: bool) -> None:
        self.edit(
            lambda: self.work.cut(**{"tissues" if tissues else "regions": n}),
            automatic=True,
        )

    @rule(
        voxels=VOXELS,
        choice=CHOICE,
        scope=st.sampled_from(["here", "everywhere"]),
        new=st.booleans(),
    )
    def scribble(
        self, voxels: list[tuple[int, ...]], choice: int, scope: str, new: bool
    ) -> None:
        target = None if new else self.region(choice)
        self.edit(
            lambda: self.work.scribble(voxels, region=target, scope=scope),
            automatic=True,
        )  # type: ignore[arg-type]

    @rule(
        voxels=VOXELS,
        choice=CHOICE,
        whose=st.sampled_from(["old", "new", "background"]),
    )
    def paint(self, voxels: list[tuple[int, ...]], choice: int, whose: str) -> None:
        region = {"old": self.region(choice), "new": None, "background": 0}[whose]
        where = tuple(np.array(voxels).T)
        free = ~np.isin(
            self.now.labels[where], [row.id for row in self.now.rows if row.locked]
        )
        found: list[int] = []
        if self.edit(lambda: found.append(self.work.paint(voxels, region))):
            assert (self.work.labels[where][free] == found[0]).all(), (
                "painted voxels do not show what was painted"
            )
            painted = self.now.painted.copy()
            painted[tuple(axis[free] for axis in where)] = True
            self.steps[self.at] = seen(self.work, painted)

    @rule(one=CHOICE, other=CHOICE)
    def merge(self, one: int, other: int) -> None:
        first, second = self.region(one), self.region(other)
        both = np.isin(self.now.labels, [first, second])
        if self.edit(lambda: self.work.merge([first, second])):
            assert np.array_equal(self.work.labels == first, both)

    @rule(
        choice=CHOICE,
        into=st.integers(2, 4),
        tree=st.sampled_from([None, "regions", "tissues"]),
    )
    def split(self, choice: int, into: int, tree: str | None) -> None:
        region, new = self.region(choice), []
        before = self.now.labels == region
        if self.edit(lambda: new.extend(self.work.split(region, into=into, tree=tree))):  # type: ignore[arg-type]
            assert np.array_equal(np.isin(self.work.labels, [region, *new]), before)

    @rule(voxels=VOXELS, choice=CHOICE, new=st.booleans())
    def assign(self, voxels: list[tuple[int, ...]], choice: int, new: bool) -> None:
        self.edit(
            lambda: self.work.edits.assign_at(
                voxels, None if new else self.region(choice)
            )
        )

    @rule(
        choice=CHOICE,
        what=st.sampled_from(["lock", "unlock", "accept", "rename", "recolor"]),
    )
    def row(self, choice: int, what: str) -> None:
        region = self.region(choice)
        before = self.now.labels
        more = {"rename": ("a name",), "recolor": ((1, 2, 3),)}.get(what, ())
        if self.edit(
            lambda: getattr(self.work.edits, what)(region, *more),
            unlocks=what == "unlock",
        ):
            assert np.array_equal(self.now.labels, before)

    @rule(one=CHOICE, other=CHOICE, mm=st.floats(0.5, 3), what=st.integers(0, 8))
    def reshape(self, one: int, other: int, mm: float, what: int) -> None:
        work, first, second = self.work, self.region(one), self.region(other)
        centre = work.proposal.volume.geometry.world_from_voxel(np.array(SHAPE) / 2)
        self.edit(
            [
                lambda: work.edits.swap(first, second),
                lambda: work.edits.delete(first),
                lambda: work.edits.fill_holes(first),
                lambda: work.edits.keep_largest(first),
                lambda: work.edits.smooth([first], sd_mm=mm),
                lambda: work.edits.grow(first, mm),
                lambda: work.edits.shrink(first, mm),
                lambda: work.edits.split_plane(first, centre, (mm, 1.0, -1.0)),
                lambda: work.edits.mirror(
                    first,
                    target=second,
                    point_ras_mm=centre,
                    normal_ras=(1.0, 0.0, 0.0),
                ),
            ][what]
        )

    @rule()
    def undo(self) -> None:
        name = self.work.undo()
        assert (name is None) == (self.at == 0)
        self.at = max(self.at - 1, 0)

    @rule()
    def redo(self) -> None:
        name = self.work.redo()
        assert (name is None) == (self.at == len(self.steps) - 1)
        self.at = min(self.at + 1, len(self.steps) - 1)

    @rule(choice=CHOICE)
    def jump(self, choice: int) -> None:
        self.at = choice % len(self.steps)
        self.work.steps.jump(self.at)

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.strata"
            self.work.save(path)
            loaded = Refinement.load(path, volume=self.work.proposal.volume)
        assert (loaded.history, loaded.steps.undone, loaded.view.next_id) == (
            self.work.history,
            self.work.steps.undone,
            self.work.view.next_id,
        )
        self.work = loaded

    @rule()
    def replay(self) -> None:
        again = self.work.replay(self.work.proposal)
        assert self.now.same(again), (
            "the same steps on the same proposal gave something else"
        )

    @invariant()
    def shows_what_the_list_says(self) -> None:
        if hasattr(self, "work"):
            assert self.now.same(self.work)
            assert len(self.work.history) == self.at
            assert len(self.work.steps.undone) == len(self.steps) - 1 - self.at
            assert set(np.unique(self.work.labels)) - {0} <= {
                row.id for row in self.work.regions
            }


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=60, stateful_step_count=25)
