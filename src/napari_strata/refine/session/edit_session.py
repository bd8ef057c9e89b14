"""The mutable core of a refinement: its state, its journal, and its listeners."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.edits.basic import Cut, Edit, EditResult
from napari_strata.refine.edits.strokes import previewed_result
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.history.journal import (
    SNAPSHOT_EVERY,
    Journal,
    JournalStep,
    apply_delta,
    difference,
    painted_changes,
)
from napari_strata.refine.history.snapshot import state_bytes
from napari_strata.refine.session.view import View
from napari_strata.refine.state.assignment import State, supervoxel_table
from napari_strata.refine.state.fragments import roots
from napari_strata.refine.state.proposal_index import Box, ProposalIndex
from napari_strata.refine.storage import autosave as autosaving
from napari_strata.refine.storage.case_file import CaseContents

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """Message to listeners after an edit, an undo or a redo.

    Parameters
    ----------
    box : tuple of 3 slices or None
        The part of the scan (z, y, x) in which labels changed; None if none changed.
    regions : bool
        Whether rows of the region table were changed, added or removed.
    name : str
        The step that was done or undone.
    """

    box: Box | None
    regions: bool
    name: str


class EditSession:
    """State of one case while it is edited. The parts of a `Refinement` share it.

    Parameters
    ----------
    index : ProposalIndex
        Lookups of the proposal.
    start : InitialState
        The state before the first edit.
    state : State, optional
        The current state; None for the initial one.
    journal : Journal, optional
        The steps that led to the current state; None for none.

    Attributes
    ----------
    lock : threading.RLock
        Held while the state changes, so that no two threads use the same new id.
    autosave : Autosave or None
        Writer of the journal on disk, if autosave is on.
    is_saved : bool
        Whether a case file contains all edits.
    """

    def __init__(
        self,
        index: ProposalIndex,
        start: InitialState,
        state: State | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.index, self.start = index, start
        self.state = (
            start.state(index) if state is None else replace(state, colors=index.colors)
        )
        self.journal = Journal() if journal is None else journal
        self.lock = threading.RLock()
        self.autosave: autosaving.Autosave | None = None
        self.is_saved = True
        self._listeners: list[Callable[[Change], None]] = []
        self._view = View(index, self.state)

    @property
    def proposal(self) -> Proposal:
        """The proposal that is refined."""
        return self.index.proposal

    @property
    def view(self) -> View:
        """A read-only view of the current state; later edits do not change it."""
        view, state = self._view, self.state
        if view.state is not state:
            view = self._view = View(self.index, state)
        return view

    def contents(self) -> CaseContents:
        """Return the content of a case file for the current state."""
        with self.lock:
            return CaseContents(
                self.proposal, self.start, self.state, self.journal.copy()
            )

    def listen(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback(change)` after every edit, undo and redo.

        Returns
        -------
        callable
            A function that stops the calls.
        """
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    def do(self, edit: Edit) -> EditResult:
        """Carry out an edit as a step of the history.

        Raises
        ------
        EditError
            If the edit cannot be carried out; nothing is changed then.
        """
        with self.lock:
            before = self.state
            outcome = previewed_result(edit, before, self.index) or edit.apply(
                before, self.index
            )
            delta = difference(before, outcome.state)
            if not delta.is_empty:
                if not self.journal.done:
                    self.journal.snapshots[0] = state_bytes(before)
                step = JournalStep.of(
                    outcome.name, outcome.edit or edit, before.next_id, delta
                )
                self.journal.add(step)
                self._show(outcome.state, outcome.name, autosaving.ADD, step.packed)
                self._take_snapshot()
            return outcome

    def cut(self, tree: TreeName, n: int) -> None:
        """Cut a tree at n regions. Consecutive cuts are one step of the history."""
        with self.lock:
            if (tree, n) == (self.state.tree, self.state.n):
                return
            last = self.journal.done[-1] if self.journal.done else None
            if last is None or not isinstance(last.edit, Cut):
                self.do(Cut(((tree, n),)))
            else:
                self._extend_cut(last, last.edit, (tree, n))

    def _extend_cut(
        self, last: JournalStep, edit: Cut, stop: tuple[TreeName, int]
    ) -> None:
        """Replace the last step, a cut, by one that continues to another stop."""
        delta = last.delta
        before = apply_delta(self.state, delta, back=True)
        if (
            self.state.next_id == delta.values["next_id"]
            and edit.stops[-1][0] == stop[0]
        ):
            # No other edit used an id since this drag began. Stops in between need no
            # ids, so ranks get the same ids again.
            before = replace(before, next_id=last.first_id)
            edit = Cut((*edit.stops[:-1], stop))
            outcome = edit.apply(before, self.index)
        else:
            edit = Cut((*edit.stops, stop))
            outcome = Cut((stop,)).apply(self.state, self.index)
        delta = difference(before, outcome.state)
        self.journal.take_last()
        if delta.is_empty:
            self._show(outcome.state, outcome.name, autosaving.DROP)
            return
        step = JournalStep.of(outcome.name, edit, last.first_id, delta)
        self.journal.add(step)
        self._show(outcome.state, outcome.name, autosaving.REPLACE, step.packed)

    def jump(self, count: int) -> None:
        """Undo or redo until exactly `count` steps are done.

        Raises
        ------
        EditError
            If the history has no such step.
        """
        with self.lock:
            journal = self.journal
            last = len(journal.done) + len(journal.undone)
            if not 0 <= count <= last:
                raise EditError(f"The history has steps 0 to {last}, not {count}.")
            if count == len(journal.done):
                return
            names = [step.name for step in journal.done[count:]]
            state = journal.state_at(count, self.state)
            journal.move(count)
            if not names:
                names = [step.name for step in journal.done[-1:]]
            self._show(state, names[0], autosaving.MOVE, autosaving.count_bytes(count))

    def carry_out(self, steps: list[JournalStep], *, done: int, next_id: int) -> None:
        """Carry out the steps of another journal, then undo those past the first `done`.

        Parameters
        ----------
        steps : list of JournalStep
            The steps, oldest first.
        done : int
            Number of steps that stay done.
        next_id : int
            The next unused region id in that journal's case.

        Raises
        ------
        EditError
            If a step cannot be carried out here.
        """
        with self.lock:
            for step in steps:
                self.state = replace(self.state, next_id=step.first_id)
                self.do(step.edit)
            self.jump(done)
            self.state = replace(self.state, next_id=max(next_id, self.state.next_id))

    def _take_snapshot(self) -> None:
        count = len(self.journal.done)
        if count % SNAPSHOT_EVERY == 0:
            packed = self.journal.snapshots[count] = state_bytes(self.state)
            self._log(autosaving.SNAPSHOT, autosaving.count_bytes(count) + packed)

    def _show(self, state: State, name: str, kind: bytes, payload: bytes = b"") -> None:
        """Make a state the current one, write its step to disk, and call the listeners."""
        before = self.view
        self.state = state
        self._log(kind, payload)
        if not self._listeners:
            return
        change = Change(
            changed_box(before.state, state, self.index),
            before.regions != self.view.regions,
            name,
        )
        for callback in tuple(self._listeners):
            callback(change)

    def _log(self, kind: bytes, payload: bytes = b"") -> None:
        self.is_saved = False
        if self.autosave is not None:
            self.autosave.append(kind, self.state.next_id, payload)


def changed_box(before: State, after: State, index: ProposalIndex) -> Box | None:
    """Return a box that contains every voxel whose label differs between two states."""
    tables = [supervoxel_table(state, index) for state in (before, after)]
    shared = min(len(table) for table in tables)
    changed = np.flatnonzero(tables[0][:shared] != tables[1][:shared])
    longer = before if len(tables[0]) > shared else after
    return index.box_of(
        np.unique(roots(longer, index, changed)), painted_changes(before, after)
    )


def requested_cut(
    proposal: Proposal, tree: TreeName, *, regions: int | None, tissues: int | None
) -> tuple[TreeName, int]:
    """Return the tree and the number of regions of a requested cut.

    Parameters
    ----------
    proposal : Proposal
        The proposal whose trees are cut.
    tree : {"regions", "tissues"}
        The tree if neither number is given. It is cut at 0, so all is in region 0.
    regions, tissues : int or None
        The requested number.

    Raises
    ------
    EditError
        If both are given, or one is negative.
    """
    if regions is not None and tissues is not None:
        raise EditError("Give a number of regions or of tissues, not both.")
    name: TreeName = (
        "tissues" if tissues is not None else "regions" if regions is not None else tree
    )
    requested = tissues or regions or 0
    most = proposal.tree(name).max_regions
    if requested < 0:
        raise EditError(f"The number of {name} cannot be {requested}. Give 0 or more.")
    if requested > most:
        logger.warning(
            "Asked for %d %s; the scan has only %d supervoxels in the body, so it gets"
            " that many.",
            requested,
            name,
            most,
        )
    return name, min(int(requested), most)
