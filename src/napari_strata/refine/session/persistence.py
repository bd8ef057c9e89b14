"""Files of a refinement: case files, and the autosave journal."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from napari_strata.errors import CaseError, WriteError
from napari_strata.refine.session.edit_session import EditSession
from napari_strata.refine.storage import autosave as autosaving
from napari_strata.refine.storage.case_file import (
    check_replaceable,
    steps_in,
    write_case,
)


class Storage:
    """Files of a case, `work.storage`.

    Parameters
    ----------
    session : EditSession
        The case.
    path : Path, optional
        The case file that the case was read from.
    once_saved : iterable of tuple of bytes
        Packed steps of other case files that the case continues, which may be replaced.
    """

    def __init__(
        self,
        session: EditSession,
        *,
        path: Path | None = None,
        once_saved: Iterable[tuple[bytes, ...]] = (),
    ) -> None:
        self._session = session
        self._saving = threading.Lock()
        self._on_disk: dict[Path, bytes] = {}
        """Digests of the case files that were read or saved, at that time."""
        if path is not None:
            self._on_disk[path.absolute()] = _digest(session.journal.line)
        self._once_saved = {
            *self._on_disk.values(),
            *(_digest(steps) for steps in once_saved),
        }
        """Digests of the case files that may be replaced."""

    def save(self, path: str | Path) -> None:
        """Save the whole case as one file. See `Refinement.save`."""
        with self._saving:
            self._save(path)

    def _save(self, path: str | Path) -> None:
        session = self._session
        contents = session.contents()
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
        with session.lock:
            self._on_disk[place] = _digest(contents.journal.line)
            self._once_saved.add(self._on_disk[place])
            if session.journal.done == contents.journal.done:
                session.is_saved = True
                if session.autosave is not None:
                    session.autosave.append(autosaving.SAVED, session.state.next_id)

    def check_replaceable(self, path: str | Path) -> None:
        """Check that saving under a name loses no edits.

        An existing case file may only contain edits of this case, or be one that this
        case continues.

        Raises
        ------
        WriteError
            If edits would be lost, or the file cannot be read.
        """
        if _digest_of(Path(path)) not in self._once_saved:
            check_replaceable(path, self._session.contents().journal.line)

    def begin_autosave(
        self, folder: str | Path | None = None, *, keeps_proposal: bool = False
    ) -> Path:
        """Start to write every edit to a journal on disk before the edit returns.

        After a crash, `find_unfinished` finds the journal. It is in the user's state
        folder, or beside the scan if that cannot be written. It stays until
        `end_autosave`; a process that ends without that call counts as crashed.

        Parameters
        ----------
        folder : str, Path or None
            Another folder for the journal.
        keeps_proposal : bool
            Whether the proposal is offered again though nobody edited it, see
            `find_unfinished`.

        Returns
        -------
        Path
            The journal.

        Raises
        ------
        CaseError
            If no journal can be written, as the disk is full or the folder read-only.
        """
        session = self._session
        with session.lock:
            if session.autosave is None:
                place = None if folder is None else Path(folder)
                session.autosave = autosaving.Autosave.begin(
                    session.contents(),
                    place,
                    is_saved=session.is_saved,
                    keeps_proposal=keeps_proposal,
                )
                if session.journal.line or session.start.labels is not None:
                    # The journal does not contain earlier edits and labels, so the case
                    # must be on disk before the next edit.
                    session.autosave.wait()
            return session.autosave.journal

    @property
    def autosave_problem(self) -> str | None:
        """Message on why the last edits are not on disk; None if they are.

        It is also None if autosave is off.
        """
        saver = self._session.autosave
        return None if saver is None else saver.problem

    def end_autosave(self, *, keep: bool = False) -> None:
        """Stop writing edits to disk.

        Parameters
        ----------
        keep : bool
            Keep the journal, so that it is offered again; otherwise it is removed.
        """
        with self._session.lock:
            saver, self._session.autosave = self._session.autosave, None
        if saver is not None:
            saver.close() if keep else saver.discard()


def _digest(steps: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(
        b"".join(hashlib.sha256(step).digest() for step in steps)
    ).digest()


def _digest_of(path: Path) -> bytes | None:
    """Return the digest of the steps of a case file, None if it cannot be read."""
    try:
        return _digest(steps_in(path))
    except CaseError:
        return None
