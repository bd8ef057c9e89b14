"""`Refinement`: a proposal that a user corrects, for scripts, window and command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.deprecated import moved_attribute
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.edit_session import EditSession, requested_cut
from napari_strata.refine.session.editing import Edits
from napari_strata.refine.session.persistence import Storage
from napari_strata.refine.session.steps import Steps
from napari_strata.refine.session.view import View
from napari_strata.refine.state.assignment import Scope
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.storage.autosave import Autosave
from napari_strata.refine.storage.case_file import CaseContents, read_case
from napari_strata.refine.transfer import Teaching
from napari_strata.volume import Region, Segmentation, Volume


class Refinement:
    """A proposal that a user corrects: edits, undo, and the current labels.

    Every edit is a step that can be undone. An edit that fails raises `EditError` and
    changes nothing. The most common calls are methods of this class. All others are
    methods of its parts:

    - `edits`: every edit, for example `work.edits.grow(3, 2.0)`;
    - `view`: the current state, read-only, for example `work.view.statistics()`;
    - `steps`: the history, for example `work.steps.jump(4)`;
    - `storage`: files, for example `work.storage.begin_autosave()`.

    Parameters
    ----------
    proposal : Proposal
        The proposal to correct.
    regions, tissues : int, optional
        Start from this many regions or tissues; by default, everything is in region 0.

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

    edits: Edits
    """All edits: of supervoxels, regions, their shapes and their rows."""
    steps: Steps
    """The history: steps that are done or undone, and listeners."""
    storage: Storage
    """Case files and autosave."""

    def __init__(
        self,
        proposal: Proposal,
        *,
        regions: int | None = None,
        tissues: int | None = None,
    ) -> None:
        start = InitialState(
            *requested_cut(proposal, "regions", regions=regions, tissues=tissues)
        )
        session = EditSession(ProposalIndex(proposal), start)
        self._hold(session, Storage(session))

    def _hold(self, session: EditSession, storage: Storage) -> None:
        self._session = session
        self.edits, self.steps, self.storage = Edits(session), Steps(session), storage

    @classmethod
    def _of(cls, session: EditSession, storage: Storage | None = None) -> Self:
        work = cls.__new__(cls)
        work._hold(session, Storage(session) if storage is None else storage)
        return work

    # Other ways to begin

    @classmethod
    def from_labels(cls, proposal: Proposal, segmentation: Segmentation) -> Self:
        """Start from existing labels, voxel by voxel.

        Every label keeps its id, name, colour and lock. Voxels without a label follow
        the current cut. All edits can be used on the labels.

        Parameters
        ----------
        proposal : Proposal
            A proposal of the scan.
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
        start = InitialState.from_labels(proposal, segmentation)
        return cls._of(EditSession(ProposalIndex(proposal), start))

    @classmethod
    def load(cls, path: str | Path, *, volume: Volume | None = None) -> Self:
        """Open a case file. Neither the scan nor the encoder's weights are needed.

        Parameters
        ----------
        path : str or Path
            The case file.
        volume : Volume, optional
            The scan. Without it, the scan is read from the place recorded in the case
            when its voxels are first used.

        Raises
        ------
        CaseError
            If the file is missing or damaged, or `volume` is another scan.
        """
        session = _session_of(read_case(path, volume))
        return cls._of(session, Storage(session, path=Path(path)))

    # The current state

    @property
    def view(self) -> View:
        """A read-only view of the current state: labels, table, statistics, suggestions.

        Later edits do not change it; get `work.view` again after an edit.
        """
        return self._session.view

    @property
    def proposal(self) -> Proposal:
        """The proposal that is corrected."""
        return self._session.proposal

    @property
    def labels(self) -> NDArray[np.unsignedinteger]:
        """The region id of every voxel (z, y, x), a new array each time."""
        return self.view.labels

    @property
    def regions(self) -> tuple[Region, ...]:
        """Rows of the regions in use, named, coloured or locked, in the order of their ids."""
        return self.view.regions

    @property
    def segmentation(self) -> Segmentation:
        """Labels, the rows of the ids in them, and the geometry, for export."""
        return self.view.segmentation

    # Edits

    def merge(self, ids: Sequence[int]) -> int:
        """Merge regions into the first one, and return its id.

        Their painted voxels and strokes go to that region too.

        Raises
        ------
        EditError
            If one does not exist or is locked, or there are fewer than two.
        """
        return self.edits.merge(ids)

    def split(
        self, region: int, *, into: int = 2, tree: TreeName | None = None
    ) -> list[int]:
        """Split a region (region 0 too) into its children in a tree.

        The largest part keeps the id. There are fewer parts than requested only if the
        region has fewer supervoxels.

        Parameters
        ----------
        region : int
            The region.
        into : int
            The number of parts.
        tree : {"regions", "tissues"} or None
            Split into connected regions or by tissue; None uses the tree in use.

        Returns
        -------
        list of int
            The new ids.

        Raises
        ------
        EditError
            If it does not exist, is locked, or lies in a single supervoxel.
        """
        return self.edits.split(region, into=into, tree=tree)

    def rename(self, region: int, name: str) -> None:
        """Name a region.

        Raises
        ------
        EditError
            If the region does not exist or the name is empty.
        """
        self.edits.rename(region, name)

    def lock(self, region: int) -> None:
        """Lock a region: no edit, cut, scribble or brush changes it until it is unlocked.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self.edits.lock(region)

    def unlock(self, region: int) -> None:
        """Unlock a region; it is no longer accepted then.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self.edits.unlock(region)

    def accept(self, region: int) -> None:
        """Mark a region as accepted, and lock it.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self.edits.accept(region)

    def scribble(
        self,
        voxels_zyx: ArrayLike,
        *,
        region: int | None = None,
        scope: Scope = "everywhere",
        reach: Reach | None = None,
    ) -> int:
        """Assign the supervoxels under a stroke to a region; similar ones follow.

        Parameters
        ----------
        voxels_zyx : (n, 3) integer array
            Voxels of the stroke, as array indices.
        region : int or None
            The region they belong to; None or an unused id creates one, 0 means
            background.
        scope : {"everywhere", "here"}
            "everywhere": similar supervoxels anywhere change, unless earlier strokes
            speak against it. "here": only supervoxels around this stroke with its own
            range of intensity change.
        reach : Reach, optional
            How far "here" goes; by default 10 mm, and 2 standard deviations of the
            stroke's intensity.

        Returns
        -------
        int
            The region's id.

        Raises
        ------
        EditError
            If the stroke leaves the scan or lies entirely in locked regions, or the
            region is locked or was merged into another.
        """
        return self.edits.scribble(voxels_zyx, region=region, scope=scope, reach=reach)

    def paint(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Paint voxels (n, 3) with a region; they override its supervoxels' regions.

        Voxels of locked regions are skipped; the step's name contains their number.

        Parameters
        ----------
        voxels_zyx : (n, 3) integer array
            The voxels, as array indices.
        region : int or None
            The region; None creates one.

        Returns
        -------
        int
            The region's id.

        Raises
        ------
        EditError
            If they leave the scan or lie entirely in locked regions, or the region is
            locked or was merged into another.
        """
        return self.edits.paint(voxels_zyx, region)

    def cut(self, *, regions: int | None = None, tissues: int | None = None) -> None:
        """Let unassigned supervoxels follow another cut of a tree, as the slider does.

        With neither number, all of them go to region 0. Consecutive cuts are one step of
        the history.

        Raises
        ------
        EditError
            If both are given, or one is negative.
        """
        self.edits.cut(regions=regions, tissues=tissues)

    # History

    @property
    def history(self) -> tuple[str, ...]:
        """Names of the steps that are done, oldest first."""
        return self.steps.done

    def undo(self) -> str | None:
        """Undo the last step. Return its name, or None if there is none."""
        return self.steps.undo()

    def redo(self) -> str | None:
        """Redo the step that was undone last. Return its name, or None if there is none."""
        return self.steps.redo()

    def replay(self, proposal: Proposal) -> Refinement:
        """Return a new refinement of a proposal, with the done steps carried out again.

        On the same proposal the labels are the same.

        Raises
        ------
        EditError
            If a step cannot be carried out there.
        GeometryError
            If the case started from labels that do not fit the scan.
        """
        session = self._session
        work = self._of(EditSession(ProposalIndex(proposal), session.start))
        done = session.journal.done
        work.steps.carry_out(done, done=len(done), next_id=session.state.next_id)
        return work

    # Files and other scans

    def save(self, path: str | Path) -> None:
        """Save the whole case (proposal, edits, history) as one file, without the scan.

        The file contains the case at the time of the call. Edits made while it is
        written are not included.

        Raises
        ------
        WriteError
            If the file cannot be written, its name does not end in .strata, or it has
            edits that another window saved since this case was opened from it or saved
            to it. An existing file stays as it is then.
        """
        self.storage.save(path)

    def teach(self, *, seed: int = 0) -> Teaching:
        """Fit a teaching, which transfers the regions of this case to other scans.

        Raises
        ------
        TeachingError
            If no region was stroked or named, or the case has no raw descriptors.
        """
        return self.view.teach(seed=seed)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return an attribute under its name of the first versions, with a warning."""
            return moved_attribute(self, name)


def continue_case(
    contents: CaseContents,
    saver: Autosave | None = None,
    once_saved: Iterable[tuple[bytes, ...]] = (),
) -> Refinement:
    """Return a refinement that continues a case with unsaved edits.

    Parameters
    ----------
    contents : CaseContents
        The case.
    saver : Autosave, optional
        Writer of its journal on disk.
    once_saved : iterable of tuple of bytes
        Packed steps of case files that it continues, which may be replaced.
    """
    session = _session_of(contents)
    session.autosave, session.is_saved = saver, False
    return Refinement._of(session, Storage(session, once_saved=once_saved))


def _session_of(contents: CaseContents) -> EditSession:
    return EditSession(
        ProposalIndex(contents.proposal),
        contents.start,
        contents.state,
        contents.journal,
    )
