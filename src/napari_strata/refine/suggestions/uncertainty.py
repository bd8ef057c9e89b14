"""Uncertainty of a supervoxel's region, from reasons weighted by the user's corrections.

Every stroke either corrects the label there or confirms it. A reason that was strong at
a correction gains weight, one that was strong at a confirmation loses weight. This is a
bandit over reasons, with Thompson sampling (1933) of beta distributions. Weights are
recomputed from the strokes of the case each time, so undo reverts them and a case file
keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.scribble_classifier import (
    STAY,
    FeatureSpace,
    StrokeExamples,
    region_memberships,
)
from napari_strata.refine.state.assignment import State, Stroke, region_table
from napari_strata.refine.state.proposal_index import ProposalIndex

REASONS = ("strokes", "unlike", "neighbours", "confidence")
"""Reasons for uncertainty.

The strokes support two regions about equally; the supervoxel is dissimilar to all
strokes; its neighbours are in other regions; the proposal's confidence is low.
"""
_PRIOR_CORRECTIONS = np.array([4.0, 2.5, 2.0, 1.0])
"""Prior of each reason: corrections predicted out of `_PRIOR_STROKES`; set by hand."""
_PRIOR_STROKES = 5.0
_RECENT_STROKES = 24
"""Number of latest strokes that count."""
_HOPS = 2
"""Reach of a place in touching supervoxels."""
_KEPT = 64
"""Most entries of `ProposalIndex.answer_cache`."""


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """Uncertainty of every supervoxel, with its reasons.

    Parameters
    ----------
    at_risk_vox : (n,) float32 array
        Estimated number of wrong voxels at and around each supervoxel.
    main_reason : (n,) int array
        Index of the strongest reason in `REASONS`.
    rival : (n,) int32 array
        The second most likely region by the strokes.
    """

    at_risk_vox: NDArray[np.float32]
    main_reason: NDArray[np.intp]
    rival: NDArray[np.int32]


def estimate_uncertainty(
    state: State, index: ProposalIndex, *, seed: int = 0
) -> Uncertainty:
    """Return the uncertainty of every supervoxel; deterministic for a case and seed."""
    table = region_table(state, index)
    strengths, rival = _reason_strengths(
        index, _examples(state, index, state.strokes), table
    )
    weighed = strengths * _weights(state, index, seed)
    space = index.feature_space
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
    """Draw the weight of each reason, (reasons,); they sum to one."""
    right, wrong = _PRIOR_CORRECTIONS.copy(), _PRIOR_STROKES - _PRIOR_CORRECTIONS
    for number in range(
        max(1, len(state.strokes) - _RECENT_STROKES), len(state.strokes)
    ):
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
    """Return whether a stroke was a correction, and the rank of each reason there.

    Ranks are 0 to 1. The labels are those that the earlier strokes alone would give.
    Return None if these have fewer than two regions.
    """
    stroke = state.strokes[number]
    key = (
        tuple(id(one) for one in state.strokes[: number + 1]),
        tuple(sorted(state.merged.items())),
    )
    kept = index.answer_cache.get(key)
    if kept is None:
        examples = _examples(state, index, state.strokes[:number])
        if len(np.unique(examples)) < 3:
            return None
        strengths, _, chosen = _strengths_from_strokes(index, examples)
        at = np.unique(index.supervoxels_at(stroke.voxels))
        corrected = bool((chosen[at] != state.current_id(stroke.region)).mean() > 0.5)
        strength = np.array(
            [(column <= column[at].max()).mean() for column in strengths.T]
        )
        if len(index.answer_cache) >= _KEPT:
            index.answer_cache.clear()
        kept = index.answer_cache[key] = (
            state.strokes[: number + 1],
            (corrected, strength),
        )
    return kept[1]


def _examples(
    state: State, index: ProposalIndex, strokes: tuple[Stroke, ...]
) -> NDArray[np.int32]:
    """Return the region of the latest stroke on each supervoxel, (n,), -1 for none."""
    shown = np.full(index.proposal.n_supervoxels, -1, np.int32)
    for stroke in strokes:
        shown[index.supervoxels_at(stroke.voxels)] = state.current_id(stroke.region)
    return shown


def _strengths_from_strokes(
    index: ProposalIndex, examples: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
    """Return reason strengths, rivals and regions if strokes alone decided the labels."""
    space = index.feature_space
    training = StrokeExamples(examples, np.zeros(len(examples), np.int32), examples < 0)
    result = region_memberships(space, training)
    chosen = result.choices[result.membership.argmax(axis=1)]
    chosen = np.where(chosen == STAY, 0, chosen).astype(np.int32)
    strengths, rival = _reason_strengths(index, examples, chosen)
    return strengths, rival, chosen


def _reason_strengths(
    index: ProposalIndex, examples: NDArray[np.int32], table: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the strength (0 to 1) of each reason, (n, reasons), and the rival region, (n,)."""
    space = index.feature_space
    strengths = np.zeros((len(table), len(REASONS)))
    rival = table.copy()
    shown = np.flatnonzero(examples >= 0)
    if len(np.unique(examples[shown])) > 1:
        training = StrokeExamples(
            examples, np.zeros(len(table), np.int32), examples < 0
        )
        result = region_memberships(space, training)
        order = np.argsort(-result.membership, axis=1, kind="stable")[:, :2]
        best, second = (
            np.take_along_axis(result.membership, order[:, k : k + 1], axis=1)[:, 0]
            for k in (0, 1)
        )
        strengths[:, 0] = 1 - (best - second)
        two = result.choices[order]
        rival = np.where(two[:, 0] == table, two[:, 1], two[:, 0]).astype(np.int32)
        rival = np.where(rival == STAY, 0, rival).astype(np.int32)
        strengths[:, 1] = result.novelty**2 / (1 + result.novelty**2)
    strengths[:, 2] = 1 - _agreeing_share(space, table)
    strengths[:, 3] = 1 - index.proposal.confidence
    return strengths, rival


def _agreeing_share(
    space: FeatureSpace, table: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the similarity-weighted share of each supervoxel's neighbours in its region."""
    links = space.neighbours
    row = np.repeat(np.arange(len(table)), np.diff(links.indptr))
    same = table[row] == table[links.indices]
    share: NDArray[np.float64] = np.bincount(
        row, weights=links.data * same, minlength=len(table)
    ).astype(np.float64)
    return share
