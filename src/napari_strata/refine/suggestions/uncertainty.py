"""Reasons to doubt a supervoxel's region, weighted by this person's corrections.

Every stroke is an answer: it corrects the label there, or confirms it. A reason that
was strong at a correction gains weight, one that was strong at a confirmation loses
some: a bandit over reasons, by Thompson sampling (1933) of beta distributions. It is
recomputed from the strokes of the case each time, so undo reverts it and a case file
keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.scribble_classifier import (
    STAY,
    FeatureSpace,
    StrokeExamples,
    weigh,
)
from napari_strata.refine.state.assignment import State, Stroke, region_table
from napari_strata.refine.state.proposal_index import ProposalIndex

REASONS = ("strokes", "unlike", "neighbours", "confidence")
"""What the strokes leave open.

Far from all strokes; at odds with its neighbours; the machine itself is unsure.
"""
_STANDING = np.array([4.0, 2.5, 2.0, 1.0])
"""How many corrections of 5 each reason starts as having foretold; set by hand."""
_OUT_OF = 5.0
_NOTED = 24
"""Latest strokes that are read."""
_HOPS = 2
_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """Uncertainty of every supervoxel, with its reasons.

    Parameters
    ----------
    worth : (n,) float32 array
        Voxels that may be wrong at and around each supervoxel.
    main : (n,) int array
        Index into `REASONS` of the strongest.
    rival : (n,) int32 array
        The region that the strokes would give it next.
    """

    worth: NDArray[np.float32]
    main: NDArray[np.intp]
    rival: NDArray[np.int32]


def estimate_uncertainty(
    state: State, index: ProposalIndex, *, seed: int = 0
) -> Uncertainty:
    """Weight the reasons to doubt each supervoxel; deterministic for a case and seed."""
    table = region_table(state, index)
    grounds, rival = _grounds(index, _examples(state, index, state.strokes), table)
    weighed = grounds * _weights(state, index, seed)
    space = index.teaching
    worth = index.sizes_vox * weighed.sum(axis=1)
    worth[space.background] = np.minimum(
        worth[space.background], np.median(index.sizes_vox)
    )
    around = worth
    for _ in range(_HOPS):
        around = space.neighbours @ around
    return Uncertainty(
        (worth + around).astype(np.float32), weighed.argmax(axis=1), rival
    )


def _weights(state: State, index: ProposalIndex, seed: int) -> NDArray[np.float64]:
    """Sample the weight of each reason, (reasons,), summing to one."""
    right, wrong = _STANDING.copy(), _OUT_OF - _STANDING
    for number in range(max(1, len(state.strokes) - _NOTED), len(state.strokes)):
        answer = _answer(state, index, number)
        if answer is not None:
            corrected, strength = answer
            right += strength if corrected else 0
            wrong += (1 - strength) if corrected else strength
    drawn = np.random.default_rng((seed, len(state.strokes))).beta(right, wrong)
    return drawn / drawn.sum()


def _answer(
    state: State, index: ProposalIndex, number: int
) -> tuple[bool, NDArray[np.float64]] | None:
    """Return whether a stroke corrected the labels before it, and the reasons' strengths there.

    Strengths are 0 to 1.
    """
    stroke = state.strokes[number]
    key = (
        tuple(id(one) for one in state.strokes[: number + 1]),
        tuple(sorted(state.merged.items())),
    )
    kept = index.answers.get(key)
    if kept is None:
        examples = _examples(state, index, state.strokes[:number])
        if len(np.unique(examples)) < 3:
            return None
        grounds, _, chosen = _judged(index, examples)
        at = np.unique(index.supervoxels_at(stroke.voxels))
        corrected = bool((chosen[at] != state.current_id(stroke.region)).mean() > 0.5)
        strength = np.array(
            [(column <= column[at].max()).mean() for column in grounds.T]
        )
        if len(index.answers) >= _KEPT:
            index.answers.clear()
        kept = index.answers[key] = state.strokes[: number + 1], (corrected, strength)
    return kept[1]


def _examples(
    state: State, index: ProposalIndex, strokes: tuple[Stroke, ...]
) -> NDArray[np.int32]:
    """Return the region of the latest stroke on each supervoxel, (n,), -1 for none."""
    shown = np.full(index.proposal.n_supervoxels, -1, np.int32)
    for stroke in strokes:
        shown[index.supervoxels_at(stroke.voxels)] = state.current_id(stroke.region)
    return shown


def _judged(
    index: ProposalIndex, examples: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Return reasons, rivals and likenesses as if strokes alone decided."""
    space = index.teaching
    training = StrokeExamples(examples, np.zeros(len(examples), np.int32), examples < 0)
    result = weigh(space, training)
    chosen = result.choices[result.likeness.argmax(axis=1)]
    chosen = np.where(chosen == STAY, 0, chosen).astype(np.int32)
    grounds, rival = _grounds(index, examples, chosen)
    return grounds, rival, chosen


def _grounds(
    index: ProposalIndex, examples: NDArray[np.int32], table: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the strength of each reason at every supervoxel, (n, reasons) from 0 to 1.

    And the rival region, (n,).
    """
    space = index.teaching
    grounds = np.zeros((len(table), len(REASONS)))
    rival = table.copy()
    shown = np.flatnonzero(examples >= 0)
    if len(np.unique(examples[shown])) > 1:
        training = StrokeExamples(
            examples, np.zeros(len(table), np.int32), examples < 0
        )
        result = weigh(space, training)
        order = np.argsort(-result.likeness, axis=1, kind="stable")[:, :2]
        best, second = (
            np.take_along_axis(result.likeness, order[:, k : k + 1], axis=1)[:, 0]
            for k in (0, 1)
        )
        grounds[:, 0] = 1 - (best - second)
        two = result.choices[order]
        rival = np.where(two[:, 0] == table, two[:, 1], two[:, 0]).astype(np.int32)
        rival = np.where(rival == STAY, 0, rival).astype(np.int32)
        grounds[:, 1] = result.unlike**2 / (1 + result.unlike**2)
    grounds[:, 2] = 1 - _share_alike(space, table)
    grounds[:, 3] = 1 - index.proposal.confidence
    return grounds, rival


def _share_alike(space: FeatureSpace, table: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the likeness-weighted share of each supervoxel's neighbours in its region."""
    links = space.neighbours
    row = np.repeat(np.arange(len(table)), np.diff(links.indptr))
    same = table[row] == table[links.indices]
    share: NDArray[np.float64] = np.bincount(
        row, weights=links.data * same, minlength=len(table)
    ).astype(np.float64)
    return share
