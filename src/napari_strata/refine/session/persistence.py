"""Where work is kept: case files, and the disk as it happens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

from napari_strata.errors import CaseError, WriteError
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.history.journal import Journal
from napari_strata.refine.session.region_editing import ShapeEditing
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.storage import autosave as saving
from napari_strata.refine.storage.case_file import (
    CaseContents,
    check_replaceable,
    read_case,
    steps_in,
    write_case,
)
from napari_strata.volume import Volume


class Persistence(ShapeEditing):
    """A state with its journal, and the files that hold them."""

    @classmethod
    def _started(cls, index: ProposalIndex, start: InitialState) -> Self:
        """Make one that begins from a start of any kind."""
        work = cls.__new__(cls)
        work._begin(index, start)
        return work

    def _begin(self, index: ProposalIndex, start: InitialState) -> None:
        super().__init__(index, start.state(index))
        self._start = start
        self._journal = Journal()
        self._autosave: saving.Autosave | None = None
        self._is_saved = True
        self._changing = threading.RLock()
        self._saving = threading.Lock()
        self._on_disk: dict[Path, bytes] = {}
        """What the case files that this one was opened from or saved to held then."""
        self._once_saved: set[bytes] = set()
        """What those that it went on from held, so that they may be replaced."""

    def save(self, path: str | Path) -> None:
        """Save the whole case (proposal, edits, history) as one file.

        The scan itself is not in it.

        What is saved is the case as it stands at the call: edits that arrive while the
        file is written are not in it.

        Raises
        ------
        WriteError
            If the file cannot be written, its name does not end in .strata, or another
            window saved other edits under that name since this case was opened from it
            or saved to it; what stood under its name stands there still.
        """
        with self._saving:
            self._save(path)

    def _save(self, path: str | Path) -> None:
        contents = self._contents()
        place = Path(path).absolute()
        if place in self._on_disk and _digest_of(place) not in (
            None,
            self._on_disk[place],
        ):
            raise WriteError(
                f"{path} was saved by another window meanwhile. Save under another"
                " name, so that no edits are lost."
            )
        write_case(path, contents)
        with self._changing:
            self._on_disk[place] = _digest(contents.journal.line)
            self._once_saved.add(self._on_disk[place])
            if self._journal.done == contents.journal.done:
                self._is_saved = True
                if self._autosave is not None:
                    self._autosave.append(saving.SAVED, self.next_id)

    def check_replaceable(self, path: str | Path) -> None:
        """Check that saving under a name loses no edits.

        A case of that name holds only edits of this one, or this one went on from it.

        Raises
        ------
        WriteError
            If some would be lost, or what is there cannot be read.
        """
        if _digest_of(Path(path)) not in self._once_saved:
            check_replaceable(path, self._contents().journal.line)

    @classmethod
    def load(cls, path: str | Path, *, volume: Volume | None = None) -> Self:
        """Open a saved case; neither the scan nor the encoder's weights are needed.

        Parameters
        ----------
        path : str or Path
            The case file.
        volume : Volume, optional
            The scan; without it, it is read from where it lay when its data are first
            used.

        Raises
        ------
        CaseError
            If the file is missing or damaged, or `volume` is another scan.
        """
        work = cls._from(read_case(path, volume))
        work._on_disk[Path(path).absolute()] = _digest(work._journal.line)
        work._once_saved = set(work._on_disk.values())
        return work

    @classmethod
    def _from(cls, contents: CaseContents) -> Self:
        work = cls._started(
            ProposalIndex(contents.proposal), replace(contents.start, labels=None)
        )
        work._start, work._state, work._journal = (
            contents.start,
            contents.state,
            contents.journal,
        )
        return work

    @classmethod
    def taken_up(
        cls,
        contents: CaseContents,
        saver: saving.Autosave | None,
        once_saved: Iterable[tuple[bytes, ...]] = (),
    ) -> Self:
        """Go on with work that a journal on the disk holds.

        With that journal if it is given; cases of it held `once_saved`.
        """
        work = cls._from(contents)
        work._autosave, work._is_saved = saver, False
        work._once_saved = {_digest(steps) for steps in once_saved}
        return work

    def _contents(self) -> CaseContents:
        with self._changing:
            return CaseContents(
                self.proposal, self._start, self._state, self._journal.copy()
            )

    def autosave(self, folder: str | Path | None = None) -> Path:
        """From here on put every edit on the disk before its call returns.

        `find_unfinished` finds it after a crash.

        The journal lies beside the scan, or in the user's state folder where the scan's
        folder is read-only or the scan is DICOM or was made in memory. It stays until
        `end_autosave`; leaving without that is what a crash looks like.

        Parameters
        ----------
        folder : str, Path or None
            Another folder.

        Returns
        -------
        Path
            The journal.

        Raises
        ------
        CaseError
            If no journal can be begun: the disk is full, or the folder read-only.
        """
        with self._changing:
            if self._autosave is None:
                place = None if folder is None else Path(folder)
                self._autosave = saving.Autosave.begin(
                    self._contents(), place, is_saved=self._is_saved
                )
                if self._journal.line or self._start.labels is not None:
                    # what came before the journal could not be made again from it: that
                    # is on the disk before the first edit
                    self._autosave.wait()
            return self._autosave.journal

    @property
    def autosave_problem(self) -> str | None:
        """Why the last edits are not on the disk, for people.

        None when they are, or nothing is being saved as it happens.
        """
        return self._autosave.problem if self._autosave is not None else None

    def end_autosave(self, *, keep: bool = False) -> None:
        """Stop saving edits as they happen.

        Parameters
        ----------
        keep : bool
            Whether what was saved stays, to be offered again; otherwise it is removed.
        """
        with self._changing:
            saver, self._autosave = self._autosave, None
        if saver is not None:
            saver.close() if keep else saver.discard()

    def _log(self, kind: bytes, payload: bytes = b"") -> None:
        self._is_saved = False
        if self._autosave is not None:
            self._autosave.append(kind, self.next_id, payload)


def _digest(steps: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(
        b"".join(hashlib.sha256(step).digest() for step in steps)
    ).digest()


def _digest_of(path: Path) -> bytes | None:
    """Tell a case file's steps from those of others; None where there is no case to lose."""
    try:
        return _digest(steps_in(path))
    except CaseError:
        return None
