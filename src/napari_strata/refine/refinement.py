"""The face of refinement: what the window, scripts and the command line hold while a person corrects a proposal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.case import CaseContents, read_case, write_case
from napari_strata.refine.edits import Assign, Cut, Edit, Merge, Outcome, Paint, Scribble, SetRow, Split
from napari_strata.refine.journal import Journal, Step, difference, painted_changes, stepped
from napari_strata.refine.owner import Scope, State, start_state
from napari_strata.refine.pieces import Box, Pieces
from napari_strata.refine.shown import Shown
from napari_strata.volume import Volume

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


class Refinement(Shown):
    """A proposal in a person's hands: edits, undo, and the labels as they stand.

    Every edit is a journal step that can be undone; an edit that fails raises `EditError` and changes nothing.

    Parameters
    ----------
    proposal : Proposal
        What the machine said.
    regions, tissues : int, optional
        Start from this many regions or tissues; with neither, everything is in region 0.

    Raises
    ------
    EditError
        If both are given, or one is negative.
    """

    def __init__(self, proposal: Proposal, *, regions: int | None = None, tissues: int | None = None) -> None:
        pieces = Pieces(proposal)
        self._start = _stop(proposal, "regions", regions=regions, tissues=tissues)
        super().__init__(pieces, start_state(pieces, *self._start))
        self._journal = Journal()
        self._listeners: list[Callable[[Change], None]] = []
        self._changing = threading.RLock()

    # Edits

    def cut(self, *, regions: int | None = None, tissues: int | None = None) -> None:
        """Fill what nobody owns from another cut: move the slider, or change the tree; with neither, nothing is filled.

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
        if last is None or not isinstance(last.edit, Cut):
            self._do(Cut((stop,)))
            return
        before = stepped(self._state, last.delta, back=True)
        if self.next_id == last.delta.values["next_id"] and last.edit.stops[-1][0] == stop[0]:
            # nothing was given an id since this drag began: what it only passed needs none, and ranks get the same ids again
            before, edit = replace(before, next_id=last.first_id), Cut((*last.edit.stops[:-1], stop))
            outcome = edit.apply(before, self._pieces)
        else:
            edit = Cut((*last.edit.stops, stop))
            outcome = Cut((stop,)).apply(self._state, self._pieces)
        step = Step(outcome.name, edit, last.first_id, difference(before, outcome.state))
        self._journal.done.pop()
        self._journal.undone.clear()
        if not step.delta.is_empty:
            self._journal.add(step)
        self._show(outcome.state, outcome.name)

    def merge(self, ids: Sequence[int]) -> int:
        """Make regions one; the first id is kept, and returned. Painted voxels and strokes follow.

        Raises
        ------
        EditError
            If one does not exist or is locked, or there are fewer than two.
        """
        return self._do(Merge(tuple(int(i) for i in ids))).ids[0]

    def split(self, region: int, *, into: int = 2) -> list[int]:
        """Part a region (region 0 too) along the tree in use; the largest part keeps the id, the new ids are returned.

        Fewer parts come back only where the region has fewer supervoxels.

        Raises
        ------
        EditError
            If it does not exist, is locked, or is a single supervoxel.
        """
        return list(self._do(Split(int(region), int(into))).ids)

    def assign(self, supervoxel_ids: ArrayLike, region: int | None = None) -> int:
        """Give supervoxels to a region (None makes a new one); scribbles elsewhere will not move them again.

        Raises
        ------
        EditError
            If an id is not known, or a region involved is locked.
        """
        ids = np.atleast_1d(np.asarray(supervoxel_ids))
        count = self.proposal.n_supervoxels
        if ids.size == 0 or ids.dtype.kind not in "iu" or (ids < 0).any() or (ids >= count).any():
            raise EditError(f"Supervoxel ids must be whole numbers from 0 to {count - 1}, at least one.")
        return self._assign(self._pieces.first_voxels[np.unique(ids)], region)

    def assign_at(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Give the supervoxels at some voxels (n, 3) to a region (None makes a new one).

        Raises
        ------
        EditError
            If voxels lie outside the scan, or a region involved is locked.
        """
        return self._assign(self._pieces.flat_voxels(voxels_zyx), region)

    def _assign(self, flat_voxels: NDArray[np.int64], region: int | None) -> int:
        return self._do(Assign(self._pieces.ras_mm(flat_voxels), self._target(region))).ids[0]

    def rename(self, region: int, name: str) -> None:
        """Give a region a person's word.

        Raises
        ------
        EditError
            If the region does not exist or the name is empty.
        """
        if not name.strip():
            raise EditError("A region's name cannot be empty.")
        self._do(SetRow(int(region), name=name.strip()))

    def recolor(self, region: int, color: tuple[int, int, int]) -> None:
        """Give a region an RGB colour, 0-255.

        Raises
        ------
        EditError
            If the region does not exist or the colour is not three numbers from 0 to 255.
        """
        values = tuple(int(v) for v in color)
        if len(values) != 3 or min(values) < 0 or max(values) > 255:
            raise EditError(f"A colour is three numbers from 0 to 255, got {color}.")
        self._do(SetRow(int(region), color=(values[0], values[1], values[2])))

    def lock(self, region: int) -> None:
        """Keep a region as it is: no edit, cut, scribble or brush changes it until it is unlocked.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._do(SetRow(int(region), locked=True))

    def unlock(self, region: int) -> None:
        """Let a region be changed again.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._do(SetRow(int(region), locked=False))

    def scribble(self, voxels_zyx: ArrayLike, *, region: int | None = None, scope: Scope = "everywhere") -> int:
        """Show some voxels of a region; what is like them follows.

        Parameters
        ----------
        voxels_zyx : (n, 3) integer array
            Voxels of the stroke, as array indices.
        region : int or None
            The region they belong to; None or an unused id makes one, 0 teaches background.
        scope : {"everywhere", "here"}
            "everywhere": every unlocked supervoxel that nobody pointed at follows all strokes so far.
            "here": only supervoxels near this stroke, and only to its region.

        Returns
        -------
        int
            The region's id.

        Raises
        ------
        EditError
            If the stroke leaves the scan or lies wholly in locked regions, or the region is locked or was merged away.
        """
        if scope not in ("everywhere", "here"):
            raise EditError(f'The scope of a scribble is "everywhere" or "here", not {scope!r}.')
        points = self._pieces.ras_mm(self._pieces.flat_voxels(voxels_zyx))
        return self._do(Scribble(points, self._target(region), scope)).ids[0]

    def paint(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Give voxels (n, 3) to a region by hand; they win over everything automatic. None makes a new region.

        Voxels shown as a locked region are skipped; the step's name says how many.

        Raises
        ------
        EditError
            If they leave the scan or lie wholly in locked regions, or the region is locked or was merged away.
        """
        points = self._pieces.ras_mm(self._pieces.flat_voxels(voxels_zyx))
        return self._do(Paint(points, self._target(region))).ids[0]

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
        if not self._journal.done:
            return None
        self.jump(len(self._journal.done) - 1)
        return self.undone[0]

    def redo(self) -> str | None:
        """Do the step that was undone last again and give its name; None when there is none."""
        if not self._journal.undone:
            return None
        self.jump(len(self._journal.done) + 1)
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
        state, names = self._state, [one.name for one in self._journal.done[step:]]
        while len(self._journal.done) > step:
            self._journal.undone.append(self._journal.done.pop())
            state = stepped(state, self._journal.undone[-1].delta, back=True)
        while len(self._journal.done) < step:
            self._journal.done.append(self._journal.undone.pop())
            state = stepped(state, self._journal.done[-1].delta, back=False)
        self._show(state, names[0] if names else self.history[-1] if step else "")

    def replay(self, proposal: Proposal) -> Refinement:
        """Carry out the steps that are done on a proposal from the start; the same proposal gives the same labels.

        Raises
        ------
        EditError
            If a step cannot be carried out there.
        """
        tree, n = self._start
        work = Refinement(proposal, regions=n) if tree == "regions" else Refinement(proposal, tissues=n)
        for step in self._journal.done:
            work._state = replace(work._state, next_id=step.first_id)
            work._do(step.edit)
        return work

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback(change)` after every edit, undo and redo; returns a function that stops it."""
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    # Files

    def save(self, path: str | Path) -> None:
        """Save the whole case (proposal, edits, history) as one file; the scan itself is not in it.

        What is saved is the case as it stands at the call: edits that arrive while the file is written are not in it.

        Raises
        ------
        WriteError
            If the file cannot be written; nothing stands under its name then that was not there before.
        """
        with self._changing:
            journal = Journal(list(self._journal.done), list(self._journal.undone))
            contents = CaseContents(self.proposal, self._start, self._state, journal)
        write_case(path, contents)

    @classmethod
    def load(cls, path: str | Path, *, volume: Volume | None = None) -> Self:
        """Open a saved case; neither the scan nor the encoder's weights are needed.

        Parameters
        ----------
        path : str or Path
            The case file.
        volume : Volume, optional
            The scan; without it, it is read from where it lay when its data are first used.

        Raises
        ------
        CaseError
            If the file is missing or damaged, or `volume` is another scan.
        """
        contents = read_case(path, volume)
        work = cls(contents.proposal)
        work._start, work._state, work._journal = contents.start, contents.state, contents.journal
        return work

    # Inside

    def _target(self, region: int | None) -> int:
        return self._state.next_id if region is None else int(region)

    def _do(self, edit: Edit) -> Outcome:
        with self._changing:
            before = self._state
            outcome = edit.apply(before, self._pieces)
            delta = difference(before, outcome.state)
            if not delta.is_empty:
                self._journal.add(Step(outcome.name, edit, before.next_id, delta))
                self._show(outcome.state, outcome.name)
            return outcome

    def _show(self, state: State, name: str) -> None:
        before, rows = self._state, self.regions if self._listeners else ()
        old_table = self.table
        self._state = state
        if not self._listeners:
            return
        changed = np.flatnonzero(old_table != self.table)
        voxels = painted_changes(before, state)
        change = Change(self._pieces.box_of(changed, voxels), rows != self.regions, name)
        for callback in tuple(self._listeners):
            callback(change)


def _stop(proposal: Proposal, tree: TreeName, *, regions: int | None, tissues: int | None) -> tuple[TreeName, int]:
    """Turn what a person asked for into a tree and a cut; with neither number, everything goes to region 0."""
    if regions is not None and tissues is not None:
        raise EditError("Give a number of regions or of tissues, not both.")
    name: TreeName = "tissues" if tissues is not None else "regions" if regions is not None else tree
    wanted = tissues or regions or 0
    most = proposal.tree(name).max_regions
    if wanted < 0:
        raise EditError(f"The number of {name} cannot be {wanted}. Give 0 or more.")
    if wanted > most:
        logger.warning("Asked for %d %s; the scan has only %d supervoxels in the body, so it gets that many.", wanted, name, most)
    return name, min(int(wanted), most)
