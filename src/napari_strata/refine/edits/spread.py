"""What follows a stroke: the supervoxels beside it that change too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.modes import Evidence
from napari_strata.refine.scribble.reach import (
    Before,
    Reach,
    taken_everywhere,
    taken_here,
)
from napari_strata.refine.scribble.scribble_classifier import (
    CONSTANTS,
    STAY,
    StrokeExamples,
    classify,
    connected,
    within_mm,
    without_air,
)
from napari_strata.refine.scribble.stroke_model import StrokeModel, stroke_model
from napari_strata.refine.state.assignment import (
    FOLLOW,
    NOT_PINNED,
    NOT_SPREAD,
    State,
    base_assigned,
    base_table,
    named_regions,
    of_supervoxels,
    supervoxel_table,
)
from napari_strata.refine.state.fragments import any_supervoxel, by_largest_supervoxel
from napari_strata.refine.state.proposal_index import ProposalIndex

FIRST_REACH_MM = 30.0
"""Reach of a scribble with scope "here" in the first method, between centres.

For a small body it is divided by `Proposal.magnification`.
"""
_LEAST_COVERED = 0.15
"""Least share of a supervoxel that a stroke covers for it to be an example."""
_MODELS_KEPT = 4
"""Models in the cache: the one before a stroke, and those of some strokes in a preview."""


@dataclass(frozen=True, slots=True, eq=False)
class _CaseEvidence:
    """What a case teaches: all evidence, oldest first, and the training data."""

    evidence: tuple[Evidence, ...]
    training: StrokeExamples
    has_latest: bool
    """Whether the latest stroke is among it, and last."""

    @property
    def is_corrected(self) -> bool:
        """Whether a region was shown twice, so that the labels were looked at before."""
        shown = [(one.region, one.is_air) for one in self.evidence]
        return len(set(shown)) < len(shown)


def spread_by_evidence(
    before: State,
    state: State,
    index: ProposalIndex,
    region: int,
    reach: Reach,
    *,
    here: bool,
) -> State:
    """Let the latest stroke take what no earlier evidence speaks against.

    Until a region is shown a second time, all free supervoxels are classified. From then
    on the person corrects, and a stroke takes supervoxels for its own region only.

    Parameters
    ----------
    before, state : State
        The case before the stroke, and after its own supervoxels were assigned.
    index : ProposalIndex
        Lookups of the proposal.
    region : int
        The stroke's region.
    reach : Reach
        How far it goes with scope "here".
    here : bool
        Whether only its surroundings can change.
    """
    case = _case_evidence(state, index)
    if case is None or not case.has_latest:
        # the stroke took only smaller parts of supervoxels, which teach nothing
        return state
    count, space = index.proposal.n_supervoxels, index.feature_space
    table, locked = supervoxel_table(state, index), state.locked_ids()
    free = (state.pinned == NOT_PINNED) & ~np.isin(table, locked)
    if here:
        taken = _taken_here(
            state, index, case, any_supervoxel(state, free, count), reach
        )
        moved = free & of_supervoxels(taken, state) & (table != region)
        return _moved(state, moved, region)
    model = _model(index, case)
    choices = np.full(count, STAY, np.int32)
    result = model.result
    best = without_air(
        space, case.training, result.choices[result.membership.argmax(axis=1)]
    )
    choices[case.training.free] = best[case.training.free]
    choices[np.isin(choices, locked)] = STAY
    if not case.is_corrected:
        return _classified_afresh(state, index, free, choices)
    earlier = _case_evidence(before, index)
    known = Before(
        by_largest_supervoxel(before, index, supervoxel_table(before, index)),
        case.training.own,
        None if earlier is None else _model(index, earlier),
        index.sizes_vox,
    )
    taken = taken_everywhere(space, known, model, choices)
    return _moved(
        state, free & of_supervoxels(taken, state) & (table != region), region
    )


def _moved(state: State, moved: NDArray[np.bool_], region: int) -> State:
    assigned, before_spread = state.assigned.copy(), state.before_spread.copy()
    before_spread[moved] = base_assigned(state)[moved]
    assigned[moved] = region
    return replace(state, assigned=assigned, before_spread=before_spread)


def _classified_afresh(
    state: State,
    index: ProposalIndex,
    free: NDArray[np.bool_],
    chosen: NDArray[np.int32],
) -> State:
    """Return the state with all free supervoxels classified, or given back to their own."""
    base, own = base_assigned(state), base_table(state, index)
    choices = of_supervoxels(chosen, state).copy()
    choices[choices == own] = STAY
    assigned, before_spread = state.assigned.copy(), state.before_spread.copy()
    moved = free & (choices != STAY)
    back = free & (choices == STAY) & (state.before_spread != NOT_SPREAD)
    back &= ~np.isin(own, state.locked_ids())
    assigned[back], before_spread[back] = base[back], NOT_SPREAD
    before_spread[moved], assigned[moved] = base[moved], choices[moved]
    return replace(state, assigned=assigned, before_spread=before_spread)


def _taken_here(
    state: State,
    index: ProposalIndex,
    case: _CaseEvidence,
    allowed: NDArray[np.bool_],
    reach: Reach,
) -> NDArray[np.bool_]:
    last = case.evidence[-1]
    held, touched = np.unique(
        index.supervoxels_at(state.strokes[-1].voxels), return_counts=True
    )
    own = case.training.examples[held] == last.region
    # Supervoxels that it only touches count by the voxels touched.
    stroke = Evidence(held[own].astype(np.intp), last.region, last.is_air)
    rivals = tuple(one for one in case.evidence if one.region != stroke.region)
    reach_mm = reach.mm / index.proposal.magnification
    return taken_here(
        index.feature_space, stroke, touched[own], rivals, allowed, reach, reach_mm
    )


def _case_evidence(state: State, index: ProposalIndex) -> _CaseEvidence | None:
    """Return what a case teaches, None without a stroke that took supervoxels.

    Regions that a person named, and supervoxels that were assigned to a stroked region,
    come before all strokes.
    """
    count, background = index.proposal.n_supervoxels, index.feature_space.background
    taught = sorted({state.current_id(stroke.region) for stroke in state.strokes})
    examples = by_largest_supervoxel(
        state, index, np.where(np.isin(state.pinned, taught), state.pinned, NOT_PINNED)
    )
    named = named_regions(state)[:count]
    crossed = [
        np.unique(index.supervoxels_at(one.voxels), return_counts=True)
        for one in state.strokes
    ]
    given = np.where(examples >= 0, examples, NOT_PINNED)
    for held, _ in crossed:
        given[held] = NOT_PINNED
    found: list[Evidence] = []

    def add(supervoxels: NDArray[np.integer], region: int) -> None:
        if len(supervoxels):
            is_air = bool(background[supervoxels].all())
            found.append(Evidence(supervoxels.astype(np.intp), region, is_air))

    for region in np.union1d(given[given >= 0], named[named >= 0]).tolist():
        members = np.flatnonzero(named == region)
        step = -(-len(members) // CONSTANTS.max_named_examples) or 1
        add(np.union1d(np.flatnonzero(given == region), members[::step]), region)
    before = len(found)
    count_before_last = before
    for (held, covered), stroke in zip(crossed, state.strokes, strict=True):
        count_before_last = len(found)
        region = state.current_id(stroke.region)
        own = examples[held] == region
        add(held[own & _is_typical(covered, own, index.sizes_vox[held])], region)
    if len(found) == before:
        return None
    free = (state.pinned == NOT_PINNED) & ~np.isin(
        supervoxel_table(state, index), state.locked_ids()
    )
    training = StrokeExamples(
        examples,
        base_table(state, index)[:count],
        any_supervoxel(state, free, count),
        named=named,
        unowned=(base_assigned(state) == FOLLOW)[:count],
    )
    has_latest = len(found) > count_before_last
    return _CaseEvidence(tuple(found), training, has_latest)


def _is_typical(
    covered: NDArray[np.integer], own: NDArray[np.bool_], sizes: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return a mask of the supervoxels that a stroke covers enough to be examples.

    One that it only touches may be of another tissue. The one covered most counts anyway.
    """
    typical: NDArray[np.bool_] = (covered >= _LEAST_COVERED * sizes) | (
        covered == covered[own].max(initial=0)
    )
    return typical


def _model(index: ProposalIndex, case: _CaseEvidence) -> StrokeModel:
    """Return the model of some evidence; the last ones are cached by their content."""
    training, digest = case.training, hashlib.sha256()
    for one in case.evidence:
        digest.update(np.append(one.supervoxels, -1 - one.region).tobytes())
    for part in (training.examples, training.own, training.free, training.named):
        digest.update(np.ascontiguousarray(part).tobytes())
    digest.update(np.ascontiguousarray(training.unowned).tobytes())
    key, cache = digest.digest(), index.model_cache
    found: StrokeModel | None = cache.pop(key, None)
    if found is None:
        found = stroke_model(index.feature_space, training, case.evidence)
    cache[key] = found
    while len(cache) > _MODELS_KEPT:
        cache.pop(next(iter(cache)))
    return found


def spread_by_first_method(
    state: State,
    index: ProposalIndex,
    crossed: NDArray[np.integer],
    region: int,
    *,
    here: bool,
) -> State:
    """Classify the unlocked supervoxels that are not pinned, as versions up to 0.19 did.

    With scope "everywhere" they are classified from all strokes; with "here", only those
    near this stroke can change, and only to its region. Whole supervoxels are
    classified, and fragments that are free follow theirs.
    """
    table, base, locked = (
        supervoxel_table(state, index),
        base_assigned(state),
        state.locked_ids(),
    )
    own = table if here else base_table(state, index)
    free = (state.pinned == NOT_PINNED) & ~np.isin(table, locked)
    if here:
        free &= of_supervoxels(
            within_mm(
                index.feature_space,
                crossed,
                FIRST_REACH_MM / index.proposal.magnification,
            ),
            state,
        )
    taught = sorted({state.current_id(s.region) for s in state.strokes})
    examples = np.where(np.isin(state.pinned, taught), state.pinned, NOT_PINNED)
    count = index.proposal.n_supervoxels
    shown = by_largest_supervoxel(state, index, examples)
    unnamed = (base == FOLLOW)[:count]
    training = StrokeExamples(
        shown,
        own[:count],
        any_supervoxel(state, free, count),
        here,
        named_regions(state)[:count],
        unnamed,
    )
    choices = of_supervoxels(classify(index.feature_space, training), state).copy()
    choices[np.isin(choices, locked) | (choices == own)] = STAY
    assigned, before_spread = state.assigned.copy(), state.before_spread.copy()
    if here:
        moved = free & (choices == region)
        moved &= of_supervoxels(
            connected(
                index.feature_space, crossed, any_supervoxel(state, moved, count)
            ),
            state,
        )
    else:
        moved = free & (choices != STAY)
        back = (
            free
            & (choices == STAY)
            & (state.before_spread != NOT_SPREAD)
            & ~np.isin(own, locked)
        )
        assigned[back] = base[back]
        before_spread[back] = NOT_SPREAD
    before_spread[moved] = base[moved]
    assigned[moved] = choices[moved]
    return replace(state, assigned=assigned, before_spread=before_spread)
