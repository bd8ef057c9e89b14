"""Recovery of work after a crash."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from napari_strata.errors import CaseError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.history.journal import Journal, JournalStep
from napari_strata.refine.session.refinement import Refinement, continue_case
from napari_strata.refine.storage import autosave, autosave_folders
from napari_strata.refine.storage.case_file import CaseContents, file_name, read_case
from napari_strata.volume import Volume


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Unsaved edits that a crash left behind.

    Parameters
    ----------
    journal : Path
        The journal on disk.
    name : str
        Name of the scan.
    scan : str
        Path of the scan; "" for one made in memory.
    changed : datetime
        Local time of the last edit.
    edits : int
        Number of unsaved edits, undo and redo included; 0 for a kept proposal.
    last : str
        Name of the last step.
    """

    journal: Path
    name: str
    scan: str
    changed: datetime.datetime
    edits: int
    last: str

    def resume(
        self, *, volume: Volume | None = None, proposal: Proposal | None = None
    ) -> Refinement:
        """Open the work with all its edits; further edits go to the same journal.

        Parameters
        ----------
        volume : Volume, optional
            The scan. By default it is read from its recorded path when its voxels are
            first used.
        proposal : Proposal, optional
            A proposal of the same scan with the same settings, on which the edits are
            carried out again. It is only needed if the process died within seconds,
            before the case itself was on disk.

        Raises
        ------
        CaseError
            If the files are damaged or missing, `volume` is another scan, another
            window works on it, or a proposal is needed.
        """
        is_free, lock = autosave.try_lock(self.journal)
        if not is_free:
            raise CaseError(
                f"The work in {self.journal} goes on in another window. Close that one"
                " first."
            )
        try:
            return self._resumed(volume, proposal, lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def _resumed(
        self, volume: Volume | None, proposal: Proposal | None, lock: FileLock | None
    ) -> Refinement:
        logged = autosave.read_journal(self.journal)
        case = autosave.case_of(self.journal)
        if case.exists():
            try:
                begun = read_case(case, volume)
                contents = _followed(begun, logged.records)
            except (KeyError, IndexError, ValueError, TypeError) as err:
                raise CaseError(
                    f"The journal {self.journal} does not follow from its case. Open"
                    f" {case} itself."
                ) from err
            try:
                saver = autosave.Autosave(self.journal, logged.size, lock)
            except OSError:
                saver = None
            work = continue_case(
                contents, saver, _once_saved(begun.journal, logged.records)
            )
            if saver is None:
                # The journal cannot be written to any more, so another one is started.
                work.storage.begin_autosave(autosave_folders.state_folder())
                if lock is not None:
                    lock.release()
            return work
        if logged.header["done"] or logged.header["from_labels"]:
            raise CaseError(
                f"The case that {self.journal} goes on from never reached the disk."
                " Open your own copy of it and repeat the edits."
            )
        if proposal is None:
            raise CaseError(
                f"The case of {self.journal} never reached the disk. Propose the scan"
                " again and pass resume(proposal=...)."
            )
        work = _carried_out(proposal, logged)
        work.storage.begin_autosave(self.journal.parent)
        if lock is not None:
            lock.release()
        if work.storage.autosave_problem is None:
            autosave.remove_pair(self.journal)
        return work

    def discard(self) -> None:
        """Remove the work permanently.

        Raises
        ------
        CaseError
            If another window works on it.
        """
        is_free, lock = autosave.try_lock(self.journal)
        if not is_free:
            raise CaseError(
                f"The work in {self.journal} goes on in another window. Close that one"
                " first."
            )
        if lock is not None:
            lock.release()
        autosave.remove_pair(self.journal)


def find_unfinished(
    scan: str | Path | Volume | None = None,
    *,
    folder: str | Path | None = None,
    proposals: bool = False,
) -> list[Unfinished]:
    """Return the work that a crash left behind, newest first.

    The folder of the scan (also after both were moved) and the user's state folder are
    searched. Work that is open in another process is left out. Journals without unsaved
    edits are removed.

    Parameters
    ----------
    scan : str, Path, Volume or None
        The scan; None finds all work in the state folder (and in `folder`).
    folder : str, Path or None
        Another folder to search.
    proposals : bool
        Whether proposals that the window kept though nobody edited them count too.

    Examples
    --------
    >>> work = strata.Refinement(proposal, tissues=4)
    >>> journal = work.storage.begin_autosave(".")
    >>> work.rename(1, "muscle")
    >>> work.storage.end_autosave()  # without this line the edit would be found
    >>> strata.find_unfinished(folder=".")
    []
    """
    path = (
        Path(scan.path)
        if isinstance(scan, Volume) and scan.path
        else Path(scan)
        if isinstance(scan, str | Path)
        else None
    )
    scan_id = (
        autosave.scan_key(scan)
        if isinstance(scan, Volume)
        else {}
        if path is None
        else {"path": str(path.absolute())}
    )
    beside = autosave_folders.folder_beside(path) if path is not None else None

    def fits(header: dict[str, Any], place: Path) -> bool:
        recorded = header["scan"]
        before = str(recorded.get("path", ""))
        is_same_name = path is not None and file_name(before) == file_name(str(path))
        has_moved = place == beside or autosave.was_moved(header, path)
        if is_same_name and has_moved:
            recorded = {**recorded, "path": scan_id["path"]}
        return all(recorded.get(key) == value for key, value in scan_id.items())

    found = []
    for place in autosave_folders.recovery_folders(beside, folder):
        for journal, logged in autosave.matching(place, partial(fits, place=place)):
            is_free, lock = autosave.try_lock(journal)
            one = _unfinished(journal, logged) if is_free else None
            if one is not None and (one.edits or proposals):
                found.append(one)
            if lock is not None:
                lock.release()
                if one is None:
                    autosave.remove_pair(journal)
    return sorted(found, key=lambda one: one.changed, reverse=True)


def _unfinished(journal: Path, logged: autosave.Logged) -> Unfinished | None:
    since = next(
        (
            i
            for i in range(len(logged.records) - 1, -1, -1)
            if logged.records[i].kind == autosave.SAVED
        ),
        -1,
    )
    edits = [
        record
        for record in logged.records[since + 1 :]
        if record.kind != autosave.SNAPSHOT
    ]
    before = (
        int(logged.header["done"]) if logged.header.get("unsaved") and since < 0 else 0
    )
    is_proposal = bool(logged.header.get("keeps_proposal")) and since < 0
    is_proposal = is_proposal and autosave.case_of(journal).exists()
    if not edits and not before and not is_proposal:
        return None
    steps = [
        record
        for record in logged.records
        if record.kind in (autosave.ADD, autosave.REPLACE)
    ]
    changed = datetime.datetime.fromtimestamp(journal.stat().st_mtime)
    last = JournalStep.from_bytes(steps[-1].payload).name if steps else ""
    return Unfinished(
        journal,
        str(logged.header["name"]),
        str(logged.header["scan"].get("path", "")),
        changed,
        before + len(edits),
        last,
    )


def _follow(
    journal: Journal,
    record: autosave.Record,
    read_step: Callable[[bytes], JournalStep] = JournalStep.from_bytes,
) -> None:
    """Apply a record of a journal on disk to a journal in memory."""
    if record.kind in (autosave.REPLACE, autosave.DROP):
        journal.take_last()
    if record.kind in (autosave.ADD, autosave.REPLACE):
        journal.add(read_step(record.payload))
    elif record.kind == autosave.MOVE:
        journal.move(record.count)
    elif record.kind == autosave.SNAPSHOT:
        journal.snapshots[record.count] = record.payload[8:]


def _followed(contents: CaseContents, records: list[autosave.Record]) -> CaseContents:
    """Return a case after the last record of its journal."""
    journal, floor = contents.journal.copy(), len(contents.journal.done)
    for record in records:
        _follow(journal, record)
        # A step that replaced the last one starts where that one started.
        floor = min(floor, len(journal.done) - (record.kind == autosave.REPLACE))
    # Up to the lowest point reached, the case's own steps are valid; after it, those of
    # the journal.
    before = contents.journal.state_at(floor, contents.state)
    line = [*journal.done, *reversed(journal.undone)]
    ahead = Journal(line[:floor], line[floor:][::-1], journal.snapshots)
    state = ahead.state_at(len(journal.done), before)
    next_id = records[-1].next_id if records else state.next_id
    return replace(contents, state=replace(state, next_id=next_id), journal=journal)


def _once_saved(
    begun: Journal, records: list[autosave.Record]
) -> list[tuple[bytes, ...]]:
    """Return the steps of all case files of this work.

    These are the steps at the start of the journal, and at each save.
    """
    journal = begun.copy()
    found = [journal.line]
    for record in records:
        # Names are not needed here, and reading them takes the longest.
        _follow(journal, record, lambda packed: JournalStep("", 0, packed))
        found += [journal.line] if record.kind == autosave.SAVED else []
    return found


def _carried_out(proposal: Proposal, logged: autosave.Logged) -> Refinement:
    tree, n = logged.header["tree"], logged.header["n"]
    work = (
        Refinement(proposal, regions=n)
        if tree == "regions"
        else Refinement(proposal, tissues=n)
    )
    journal = Journal()
    for record in logged.records:
        _follow(journal, record)
    next_id = logged.records[-1].next_id if logged.records else work.view.next_id
    work.steps.carry_out(
        [*journal.done, *reversed(journal.undone)],
        done=len(journal.done),
        next_id=next_id,
    )
    return work
