"""Replay of a case's edits on another proposal of the same scan.

This is used after new weights or settings. Points in mm stay valid, region ids do not:
another proposal has other regions. Each region of an edit is therefore found by the
voxels it had when the edit was made. Edits without a counterpart are reported.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.edits.basic import (
    Assign,
    Cut,
    Edit,
    EditResult,
    Merge,
    SetRow,
)
from napari_strata.refine.edits.region_edits import Delete, Mirror
from napari_strata.refine.edits.strokes import Paint, Scribble
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.history.journal import (
    Journal,
    JournalStep,
    apply_delta,
    difference,
)
from napari_strata.refine.session.refinement import continue_case
from napari_strata.refine.state.assignment import State, present_ids, require_unlocked
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.state.rendering import labels_in_box, region_box
from napari_strata.refine.storage.case_file import CaseContents
from napari_strata.volume import BACKGROUND, Segmentation

SAME_REGION = 0.7
"""Least overlap (Dice) of a former region with its counterpart."""
_NAMED = ("region", "one", "other", "ids", "into", "target")
"""Fields of edits that hold region ids (`into` only if it is not a number of parts)."""
_GIVEN_TO = {Assign: "region", Paint: "region", Scribble: "region", Mirror: "target"}
"""Fields of edits that hold a region which the edit may create."""

Status = Literal["carried out", "not needed", "not carried out"]


@dataclass(frozen=True, slots=True)
class ReplayedStep:
    """Result of replaying one edit.

    Parameters
    ----------
    number : int
        Position in the history, from 1.
    name : str
        Name in the history of the case.
    status : {"carried out", "not needed", "not carried out"}
        "not needed" means that it changes nothing here, or that it moved the slider and
        the replay starts from other labels.
    why : str
        Reason if it was not carried out, otherwise "".
    """

    number: int
    name: str
    status: Status
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """A case's edits on another proposal.

    Parameters
    ----------
    contents : CaseContents
        A case of the new proposal, with the edits that could be carried out.
    steps : tuple of ReplayedStep
        Result of each edit, oldest first.
    """

    contents: CaseContents
    steps: tuple[ReplayedStep, ...]

    @property
    def lost(self) -> tuple[ReplayedStep, ...]:
        """The edits that could not be carried out."""
        return tuple(step for step in self.steps if step.status == "not carried out")

    @property
    def segmentation(self) -> Segmentation:
        """The labels after the edits."""
        return continue_case(self.contents).segmentation


def replay_edits(
    case: CaseContents, proposal: Proposal, *, shown: Segmentation | None = None
) -> Replayed:
    """Carry out the edits of a case on another proposal of its scan.

    On the same proposal the labels are the same. The counterpart of a region is the one
    that an earlier edit made or changed. Otherwise it is the regions that mostly lie in
    its former voxels, merged, or the single most similar region, if the overlap is large
    enough (`SAME_REGION`).

    Parameters
    ----------
    case : CaseContents
        The case, from `read_case`.
    proposal : Proposal
        The new proposal of the scan.
    shown : Segmentation, optional
        Labels to start from, with ids that are the same in other scans (a codebook's
        tissues). The ids of its `regions` are reserved, even those without voxels here:
        no region of an edit gets one. By default the replay starts as the case did, and
        follows its slider.

    Raises
    ------
    GeometryError
        If the labels that the case started from, or `shown`, do not fit the scan.
    """
    index, old = ProposalIndex(proposal), ProposalIndex(case.proposal)
    if shown is not None:
        start = InitialState.from_labels(proposal, shown)
    else:
        start = replace(
            case.start, n=min(case.start.n, proposal.tree(case.start.tree).max_regions)
        )
    shared = frozenset(() if shown is None else (region.id for region in shown.regions))
    state = start.state(index)
    state = replace(state, next_id=max(state.next_id, 1 + max(shared, default=0)))
    work = _Replay(
        old,
        case.journal.state_at(0, case.state),
        index,
        state,
        shared=None if shown is None else shared,
    )
    work.old = replace(
        work.old,
        next_id=(
            case.journal.done[0].first_id if case.journal.done else case.state.next_id
        ),
    )
    steps = tuple(
        work.step(number, step) for number, step in enumerate(case.journal.done, 1)
    )
    return Replayed(CaseContents(proposal, start, work.state, work.journal), steps)


class _Replay:
    """State of a replay, which carries out one step after another.

    Parameters
    ----------
    before, old : ProposalIndex, State
        The case's own proposal, and its state before the next step.
    index, state : ProposalIndex, State
        The new proposal, and the state so far.
    shared : frozenset of int or None
        Reserved ids, see `shown` of `replay_edits`; None if the replay starts from the
        case's own cut and follows its slider.
    """

    def __init__(
        self,
        before: ProposalIndex,
        old: State,
        index: ProposalIndex,
        state: State,
        *,
        shared: frozenset[int] | None,
    ) -> None:
        self.before, self.old, self.index, self.state = before, old, index, state
        self.moves_slider, self.shared = shared is None, shared or frozenset()
        self.journal = Journal()
        self.known: dict[int, int] = {}
        """Edited regions of the case, and their ids here."""

    def step(self, number: int, step: JournalStep) -> ReplayedStep:
        """Carry out one step, and return the result."""
        try:
            status, why = self._try(step)
        except EditError as err:
            status, why = "not carried out", " ".join(str(err).split())
        self.old = apply_delta(self.old, step.delta, back=False)
        return ReplayedStep(number, step.name, status, why)

    def _try(self, step: JournalStep) -> tuple[Status, str]:
        edit = step.edit
        if isinstance(edit, Cut) and not self.moves_slider:
            return "not needed", "the regions come from a codebook or a teaching"
        state = replace(self.state, next_id=max(step.first_id, self.state.next_id))
        made: list[JournalStep] = []
        now: dict[int, int] = {}
        if isinstance(edit, Merge | Delete):
            merged_ids = self._together(state, edit.ids)
            mapped: Edit = replace(edit, ids=merged_ids)
            into = merged_ids[0] if isinstance(edit, Merge) else BACKGROUND
            now = dict.fromkeys(edit.ids, into)
        else:
            for region, is_target in _regions_in(edit):
                state, now[region] = self._found(
                    state, region, made, is_target=is_target
                )
            mapped = _renumbered(_within(edit, self.index.proposal), now)
        if isinstance(mapped, Merge) and len(mapped.ids) < 2:
            self._keep(state, made, now)
            return "not needed", "they are one region already"
        state = self._done(state, mapped, made)
        state = self._named(state, edit, now, made)
        self._keep(state, made, now)
        return "carried out", ""

    def _keep(self, state: State, made: list[JournalStep], now: dict[int, int]) -> None:
        """Make a state the current one, and remember the new ids of edited regions."""
        for one in made:
            self.journal.add(one)
        self.state = state
        self.known |= {
            old: new for old, new in now.items() if state.current_id(new) in state.rows
        }

    def _done(self, state: State, edit: Edit, made: list[JournalStep]) -> State:
        """Return the state after an edit, and record its step unless nothing changed."""
        outcome: EditResult = edit.apply(state, self.index)
        delta = difference(state, outcome.state)
        if not delta.is_empty:
            made.append(
                JournalStep.of(outcome.name, outcome.edit or edit, state.next_id, delta)
            )
        return outcome.state

    def _together(self, state: State, regions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the counterparts of regions that an edit merges or deletes.

        They are matched together, as the borders between them do not matter.

        Raises
        ------
        EditError
            If there are none.
        """
        known = {
            one: BACKGROUND if one == BACKGROUND else state.current_id(self.known[one])
            for one in regions
            if one in self._sure
        }
        unknown = tuple(one for one in regions if one not in known)
        alike = self._alike(state, unknown) if unknown else ()
        if unknown and not alike:
            names = " + ".join(self.old.name(one) for one in unknown)
            raise EditError(f"{names} has no counterpart on the new proposal.")
        first = (
            (known[regions[0]],)
            if regions[0] in known
            else self._alike(state, regions[:1])
        )
        kept = (
            first
            if regions[0] in known
            else tuple(one for one in first if one in alike)
        )
        return tuple(dict.fromkeys((*kept, *alike, *known.values())))

    @property
    def _sure(self) -> set[int]:
        return {BACKGROUND, *self.known}

    def _found(
        self, state: State, region: int, made: list[JournalStep], *, is_target: bool
    ) -> tuple[State, int]:
        """Return the counterpart of a region, merged from the regions that lie in it.

        Raises
        ------
        EditError
            If there is none, and the edit may not create it.
        """
        if region == BACKGROUND:
            return state, BACKGROUND
        if region in self.known:
            return state, state.current_id(self.known[region])
        was_there = region in self.old.rows or bool(
            (present_ids(self.old, self.before) == region).any()
        )
        alike = self._alike(state, (region,)) if was_there else ()
        if len(alike) > 1:
            require_unlocked(state, alike)
            return self._done(state, Merge(alike), made), alike[0]
        if alike:
            return state, alike[0]
        if not is_target:
            raise EditError(
                f"{self.old.name(region)} (id {region}) has no counterpart on the new"
                " proposal."
            )
        return state, region if self._is_free(state, region) else state.next_id

    def _alike(self, state: State, regions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the regions whose voxels together match those of regions of the case.

        The one with most of the voxels comes first.
        """
        box = region_box(self.old, self.before, np.array(regions))
        inside = (
            None
            if box is None
            else np.isin(labels_in_box(self.old, self.before, box), regions)
        )
        if box is None or inside is None or not inside.any():
            return tuple(region for region in regions if region in state.rows)
        size = int(inside.sum())
        shared = np.bincount(labels_in_box(state, self.index, box)[inside])
        shared[BACKGROUND] = 0
        ids = np.flatnonzero(shared)[
            np.argsort(-shared[np.flatnonzero(shared)], kind="stable")
        ]
        sizes = np.array([self._size(state, one) for one in ids.tolist()])
        held = ids[2 * shared[ids] > sizes]
        if (
            len(held)
            and _dice(shared[held].sum(), size, sizes[np.isin(ids, held)].sum())
            >= SAME_REGION
        ):
            return tuple(held.tolist())
        each = [
            _dice(shared[one], size, total)
            for one, total in zip(ids.tolist(), sizes.tolist(), strict=True)
        ]
        best = int(np.argmax(each)) if each else -1
        return (int(ids[best]),) if best >= 0 and each[best] >= SAME_REGION else ()

    def _size(self, state: State, region: int) -> int:
        box = region_box(state, self.index, np.array([region]))
        return (
            0
            if box is None
            else int((labels_in_box(state, self.index, box) == region).sum())
        )

    def _is_free(self, state: State, region: int) -> bool:
        """Return whether an id was never used here and is not reserved."""
        if region in self.shared:
            return False
        ranks = any((ids == region).any() for ids in state.rank_ids.values())
        return not (
            region in state.rows
            or region in state.merged
            or ranks
            or (present_ids(state, self.index) == region).any()
        )

    def _named(
        self, state: State, edit: Edit, now: dict[int, int], made: list[JournalStep]
    ) -> State:
        """Give a region that the replay created its name and colour from the case."""
        target = _GIVEN_TO.get(type(edit))
        old = self.old.rows.get(getattr(edit, target)) if target else None
        if (
            old is None
            or now[old.id] in self.state.rows
            or now[old.id] not in state.rows
        ):
            return state
        if (present_ids(self.state, self.index) == now[old.id]).any() or state.rows[
            now[old.id]
        ].name == old.name:
            return state
        return self._done(
            state, SetRow(now[old.id], name=old.name, color=old.color), made
        )


def _regions_in(edit: Edit) -> list[tuple[int, bool]]:
    """Return the regions of an edit, each once, and whether the edit may create it."""
    found: dict[int, bool] = {}
    for attribute in fields(edit):  # type: ignore[arg-type]
        for region in _ids(attribute.name, getattr(edit, attribute.name)):
            found[region] = (
                found.get(region, True) and _GIVEN_TO.get(type(edit)) == attribute.name
            )
    return list(found.items())


def _ids(field: str, value: Any) -> tuple[int, ...]:
    if (
        field not in _NAMED
        or value is None
        or (field == "into" and isinstance(value, int))
    ):
        return ()
    return value if isinstance(value, tuple) else (value,)


def _renumbered(edit: Edit, now: dict[int, int]) -> Edit:
    changes: dict[str, Any] = {}
    for attribute in fields(edit):  # type: ignore[arg-type]
        value = getattr(edit, attribute.name)
        if found := _ids(attribute.name, value):
            mapped = tuple(now[region] for region in found)
            changes[attribute.name] = mapped if isinstance(value, tuple) else mapped[0]
    return replace(edit, **changes)  # type: ignore[type-var]


def _within(edit: Edit, proposal: Proposal) -> Edit:
    """Return an edit with the slider's moves limited to the sizes of the trees."""
    if not isinstance(edit, Cut):
        return edit
    return Cut(
        tuple((tree, min(n, proposal.tree(tree).max_regions)) for tree, n in edit.stops)
    )


def _dice(shared: float, one: float, other: float) -> float:
    return 2 * float(shared) / max(float(one + other), 1.0)
