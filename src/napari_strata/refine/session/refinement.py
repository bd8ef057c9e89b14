"""The face of refinement.

What the window, scripts and the command line hold while a person corrects a proposal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.edits.basic import Cut, Edit, EditResult, foreseen
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.history.journal import (
    SNAPSHOT_EVERY,
    JournalStep,
    difference,
    painted_changes,
    stepped,
)
from napari_strata.refine.history.snapshot import state_bytes
from napari_strata.refine.session.persistence import Persistence
from napari_strata.refine.state.assignment import State, supervoxel_table
from napari_strata.refine.state.fragments import roots
from napari_strata.refine.state.proposal_index import Box, ProposalIndex
from napari_strata.refine.storage import autosave as saving
from napari_strata.volume import Segmentation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What listeners are told after an edit, an undo or a redo.

    Parameters
    ----------
    box : tuple of 3 slices or None
        The part of the scan (z, y, x) in which labels changed; None when none did.
    regions : bool
        Whether rows of the region table changed, came or went.
    name : str
        The step that was done or undone.
    """

    box: Box | None
    regions: bool
    name: str


class Refinement(Persistence):
    """A proposal in a person's hands: edits, undo, and the labels as they stand.

    Every edit is a journal step that can be undone; an edit that fails raises
    `EditError` and changes nothing.

    Parameters
    ----------
    proposal : Proposal
        What the machine said.
    regions, tissues : int, optional
        Start from this many regions or tissues; with neither, everything is in region
        0.

    Raises
    ------
    EditError
        If both are given, or one is negative.

    Examples
    --------
    >>> work = strata.Refinement(proposal, tissues=4)
    >>> kept = work.merge([1, 2])
    >>> work.rename(kept, "muscle")
    >>> parts = work.split(3, into=2)
    >>> work.undo() is not None
    True
    >>> work.segmentation.regions[0].name
    'muscle'
    >>> work.save("case.strata")
    >>> strata.Refinement.load("case.strata").history == work.history
    True
    """

    def __init__(
        self,
        proposal: Proposal,
        *,
        regions: int | None = None,
        tissues: int | None = None,
    ) -> None:
        self._begin(
            ProposalIndex(proposal),
            InitialState(*_stop(proposal, "regions", regions=regions, tissues=tissues)),
        )

    @classmethod
    def from_labels(cls, proposal: Proposal, segmentation: Segmentation) -> Self:
        """Start from labels that somebody or something else made, voxel by voxel.

        Repair them with the same edits.

        Every label keeps its id, name, colour and lock. Voxels without a label are
        free: the slider fills them.

        Parameters
        ----------
        proposal : Proposal
            What the machine says of the scan.
        segmentation : Segmentation
            Labels on the scan's grid, for example
            `read_labels("totalsegmentator.nii.gz")`.

        Raises
        ------
        GeometryError
            If the labels lie on another grid.
        EditError
            If a label is too large for a region id.
        """
        return cls._started(
            ProposalIndex(proposal), InitialState.from_labels(proposal, segmentation)
        )

    def _begin(self, index: ProposalIndex, start: InitialState) -> None:
        self._listeners: list[Callable[[Change], None]] = []
        super()._begin(index, start)

    # Edits

    def cut(self, *, regions: int | None = None, tissues: int | None = None) -> None:
        """Fill what nobody owns from another cut.

        Move the slider, or change the tree; with neither, nothing is filled.

        Consecutive cuts are one step of the history.

        Raises
        ------
        EditError
            If both are given, or one is negative.
        """
        with self._changing:
            self._cut(_stop(self.proposal, self.tree, regions=regions, tissues=tissues))

    def _cut(self, stop: tuple[TreeName, int]) -> None:
        last = self._journal.done[-1] if self._journal.done else None
        if stop == (self._state.tree, self._state.n):
            return
        edit = last.edit if last is not None else None
        if last is None or not isinstance(edit, Cut):
            self._do(Cut((stop,)))
            return
        delta = last.delta
        before = stepped(self._state, delta, back=True)
        if self.next_id == delta.values["next_id"] and edit.stops[-1][0] == stop[0]:
            # nothing was given an id since this drag began: what it only passed needs
            # none, and ranks get the same ids again
            before, edit = (
                replace(before, next_id=last.first_id),
                Cut((*edit.stops[:-1], stop)),
            )
            outcome = edit.apply(before, self._index)
        else:
            edit = Cut((*edit.stops, stop))
            outcome = Cut((stop,)).apply(self._state, self._index)
        delta = difference(before, outcome.state)
        self._journal.take_last()
        if delta.is_empty:
            self._show(outcome.state, outcome.name, saving.DROP)
            return
        step = JournalStep.of(outcome.name, edit, last.first_id, delta)
        self._journal.add(step)
        self._show(outcome.state, outcome.name, saving.REPLACE, step.packed)

    # History

    @property
    def history(self) -> tuple[str, ...]:
        """Names of the steps that are done, oldest first."""
        return tuple(step.name for step in self._journal.done)

    @property
    def undone(self) -> tuple[str, ...]:
        """Names of the steps that `redo` would bring back, next first."""
        return tuple(step.name for step in reversed(self._journal.undone))

    def undo(self) -> str | None:
        """Take back the last step and give its name; None when there is none."""
        with self._changing:
            if not self._journal.done:
                return None
            self._jump(len(self._journal.done) - 1)
            return self.undone[0]

    def redo(self) -> str | None:
        """Do the step that was undone last again and give its name; None when there is none."""
        with self._changing:
            if not self._journal.undone:
                return None
            self._jump(len(self._journal.done) + 1)
            return self.history[-1]

    def jump(self, step: int) -> None:
        """Undo or redo until exactly `step` steps are done; 0 is the start.

        Raises
        ------
        EditError
            If the history has no such step.
        """
        with self._changing:
            self._jump(step)

    def _jump(self, step: int) -> None:
        last = len(self._journal.done) + len(self._journal.undone)
        if not 0 <= step <= last:
            raise EditError(f"The history has steps 0 to {last}, not {step}.")
        if step == len(self._journal.done):
            return
        names = [one.name for one in self._journal.done[step:]]
        state = self._journal.state_at(step, self._state)
        self._journal.move(step)
        name = names[0] if names else self.history[-1] if step else ""
        self._show(state, name, saving.MOVE, saving.count_bytes(step))

    def replay(self, proposal: Proposal) -> Refinement:
        """Carry out the steps that are done on a proposal from the start.

        The same proposal gives the same labels.

        Raises
        ------
        EditError
            If a step cannot be carried out there.
        GeometryError
            If it began from labels that do not fit the scan.
        """
        work = self._started(ProposalIndex(proposal), self._start)
        return work.with_steps(
            self._journal.done, done=len(self._journal.done), next_id=self.next_id
        )

    def with_steps(self, steps: list[JournalStep], *, done: int, next_id: int) -> Self:
        """Carry out steps of another journal, all of them.

        Then undo those past the first `done`; gives itself.

        `next_id` is the id that came next there.

        Raises
        ------
        EditError
            If a step cannot be carried out here.
        """
        with self._changing:
            for step in steps:
                self._state = replace(self._state, next_id=step.first_id)
                self._do(step.edit)
            self.jump(done)
            self._state = replace(self._state, next_id=max(next_id, self.next_id))
        return self

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback(change)` after every edit, undo and redo.

        Returns a function that stops it.
        """
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    # Inside

    def _do(self, edit: Edit) -> EditResult:
        with self._changing:
            before = self._state
            outcome = foreseen(edit, before, self._index) or edit.apply(
                before, self._index
            )
            delta = difference(before, outcome.state)
            if not delta.is_empty:
                if not self._journal.done:
                    self._journal.snapshots[0] = state_bytes(before)
                step = JournalStep.of(
                    outcome.name, outcome.edit or edit, before.next_id, delta
                )
                self._journal.add(step)
                self._show(outcome.state, outcome.name, saving.ADD, step.packed)
                self._take_snapshot()
            return outcome

    def _take_snapshot(self) -> None:
        count = len(self._journal.done)
        if count % SNAPSHOT_EVERY == 0:
            packed = self._journal.snapshots[count] = state_bytes(self._state)
            self._log(saving.SNAPSHOT, saving.count_bytes(count) + packed)

    def _show(self, state: State, name: str, kind: bytes, payload: bytes = b"") -> None:
        """Let a state stand, put on the disk what led to it, and tell listeners."""
        before, rows = self._state, self.regions if self._listeners else ()
        self._state = state
        self._log(kind, payload)
        if not self._listeners:
            return
        change = Change(
            changed_box(before, state, self._index), rows != self.regions, name
        )
        for callback in tuple(self._listeners):
            callback(change)


def changed_box(before: State, after: State, index: ProposalIndex) -> Box | None:
    """Give a box that holds every voxel whose label differs between two states."""
    tables = [supervoxel_table(state, index) for state in (before, after)]
    shared = min(len(table) for table in tables)
    changed = np.flatnonzero(tables[0][:shared] != tables[1][:shared])
    longer = before if len(tables[0]) > shared else after
    return index.box_of(
        np.unique(roots(longer, index, changed)), painted_changes(before, after)
    )


def _stop(
    proposal: Proposal, tree: TreeName, *, regions: int | None, tissues: int | None
) -> tuple[TreeName, int]:
    """Turn what a person asked for into a tree and a cut.

    With neither number, everything goes to region 0.
    """
    if regions is not None and tissues is not None:
        raise EditError("Give a number of regions or of tissues, not both.")
    name: TreeName = (
        "tissues" if tissues is not None else "regions" if regions is not None else tree
    )
    wanted = tissues or regions or 0
    most = proposal.tree(name).max_regions
    if wanted < 0:
        raise EditError(f"The number of {name} cannot be {wanted}. Give 0 or more.")
    if wanted > most:
        logger.warning(
            "Asked for %d %s; the scan has only %d supervoxels in the body, so it gets"
            " that many.",
            wanted,
            name,
            most,
        )
    return name, min(int(wanted), most)
