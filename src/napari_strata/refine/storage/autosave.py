"""Autosave: a journal on disk that grows with every edit, beside a case file.

A process that is killed leaves both behind, and `find_unfinished` finds them. Each edit
is appended to the journal and synced to disk before its call returns. Reading ignores an
incomplete last record, so the recovered state is that after the last complete edit. A
lock keeps other processes from opening the same work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from napari_strata.deprecated import moved_names
from napari_strata.errors import CaseError
from napari_strata.filenames import CASE_SUFFIX, JOURNAL_SUFFIX
from napari_strata.io.atomic import flush
from napari_strata.refine.storage.autosave_folders import autosave_folders
from napari_strata.refine.storage.case_file import (
    CaseContents,
    known_hash,
    write_archive,
)
from napari_strata.volume import Volume

logger = logging.getLogger(__name__)

SUFFIX = JOURNAL_SUFFIX
ADD, REPLACE, DROP, MOVE, SNAPSHOT, SAVED = b"A", b"R", b"D", b"M", b"S", b"V"
"""Kinds of record.

A step was added, replaced the last one, or was dropped; the number of done steps changed;
a whole state; the work was saved to a case file.
"""

_MAGIC = b"strata-journal 1\n"
_HEAD = struct.Struct("<cIqI")
"""Kind, number of bytes that follow, next region id, checksum."""
_COUNT = struct.Struct("<q")
_LONGEST_NAME = 80
"""Bytes of a scan's name in file names, which may have 255 bytes with all suffixes."""
_PATIENCE_S = 20.0
"""Time after which the next edit tries again to write a case that failed to be written."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record of a journal on disk.

    Parameters
    ----------
    kind : bytes
        One of the kinds above.
    next_id : int
        The next unused region id after it.
    payload : bytes
        A step, a number of steps, or a number of steps and a state.
    """

    kind: bytes
    next_id: int
    payload: bytes

    @property
    def count(self) -> int:
        """The number of steps of a move or a snapshot."""
        return int(_COUNT.unpack_from(self.payload)[0])


def count_bytes(count: int) -> bytes:
    """Encode a number of steps as a payload."""
    return _COUNT.pack(count)


class Autosave:
    """Writer of a journal. Records that cannot be written are kept and tried again.

    Parameters
    ----------
    journal : Path
        The journal, with its header and complete records.
    size : int
        Bytes of it that are valid.
    lock : FileLock or None
        Lock of the journal and its case file.
    """

    def __init__(self, journal: Path, size: int, lock: FileLock | None) -> None:
        self.journal = journal
        self.case = case_of(journal)
        self._size = size
        self._lock = lock
        self._pending: list[bytes] = []
        self._journal_problem: str | None = None
        self._case_problem: str | None = None
        self._writer: threading.Thread | None = None
        self._unwritten: CaseContents | None = None
        self._again_at = 0.0
        self._turn = threading.Lock()
        self._file = journal.open("r+b", buffering=0)
        if os.fstat(self._file.fileno()).st_size > size:
            self._file.truncate(size)

    @classmethod
    def begin(
        cls,
        contents: CaseContents,
        folder: Path | None = None,
        *,
        is_saved: bool = True,
        keeps_proposal: bool = False,
    ) -> Self:
        """Start a journal in the user's state folder, otherwise beside the scan.

        The case file is written in its own thread. `is_saved` tells whether another file
        contains the edits so far, `keeps_proposal` whether it is kept without edits.

        Raises
        ------
        CaseError
            If neither folder can be written to.
        """
        volume, token = contents.proposal.volume, secrets.token_hex(4)
        header = {
            **_header(contents),
            "unsaved": not is_saved,
            "keeps_proposal": keeps_proposal,
        }
        text = _MAGIC + json.dumps(header).encode() + b"\n"
        problems = []
        name = re.sub(
            r"[^\w.\- ]", "_", Path(volume.path).name or volume.name or "scan"
        )
        name = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
        for place in [folder] if folder is not None else autosave_folders(volume):
            journal = place / f"{name}.{token}{SUFFIX}"
            lock = None
            try:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = _locked(journal)
                with journal.open("xb") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                saver = cls(journal, len(text), lock)
            except OSError as err:
                problems.append(f"{place}: {err.strerror or err}")
                if lock is not None:
                    lock.release()
                remove_pair(journal)
                continue
            saver._write_case(contents)
            return saver
        raise CaseError(
            f"Work cannot be saved as it happens ({'; '.join(problems)}). Save the case"
            " yourself, or free some space."
        )

    @property
    def problem(self) -> str | None:
        """One sentence on why edits are not on disk; None if they are.

        They are kept, and written as soon as possible.
        """
        return self._journal_problem or self._case_problem

    def append(self, kind: bytes, next_id: int, payload: bytes = b"") -> None:
        """Append a record to the journal on disk.

        Failures are reported by `problem` and as a warning, but never raised, because
        the edit itself is done.
        """
        check = zlib.crc32(kind + next_id.to_bytes(8, "little", signed=True) + payload)
        with self._turn:
            was_over = self._journal_problem is not None
            self._pending.append(
                _HEAD.pack(kind, len(payload), next_id, check) + payload
            )
            self._flush()
            was_over &= self._journal_problem is None
        if was_over or time.monotonic() > self._again_at:
            self._write_case_again()

    def _flush(self) -> None:
        data = b"".join(self._pending)
        try:
            if self._file.closed:
                self._file = self.journal.open("r+b", buffering=0)
            self._file.seek(self._size)
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as err:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            problem = (
                f"Edits are not being saved to {self.journal}: {err.strerror or err}."
                " Free some space or save the case elsewhere."
            )
            if problem != self._journal_problem:
                logger.warning("%s", problem)
            self._journal_problem = problem
            return
        self._size += len(data)
        self._pending.clear()
        self._journal_problem = None

    def _write_case(self, contents: CaseContents) -> None:
        self._unwritten, self._again_at = contents, time.monotonic() + _PATIENCE_S

        def write() -> None:
            # a fixed name, unlike `atomic_path`'s: what a killed process leaves of
            # it is found again and removed (`remove_pair`)
            part = self.case.with_name(f"{self.case.name}.part")
            try:
                with part.open("wb") as file:
                    write_archive(file, contents)
                flush(part)
                os.replace(part, self.case)
                self._unwritten = self._case_problem = None
            except OSError as err:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                self._case_problem = (
                    f"The case is not being saved to {self.case}:"
                    f" {err.strerror or err}. Save it elsewhere."
                )
                logger.warning("%s", self._case_problem)

        self._writer = threading.Thread(target=write, name="strata-autosave")
        self._writer.start()

    def _write_case_again(self) -> None:
        """Try again to write the case file."""
        if (
            self._writer is not None
            and not self._writer.is_alive()
            and self._unwritten is not None
        ):
            self._write_case(self._unwritten)

    def wait(self) -> None:
        """Wait until the case file is written."""
        if self._writer is not None:
            self._writer.join()

    def close(self) -> None:
        """Close the files; they stay."""
        self.wait()
        self._write_case_again()
        self.wait()
        with self._turn:
            if self._pending:
                self._flush()
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Close the files and remove them."""
        self.wait()
        self._unwritten = None
        self._pending.clear()
        self.close()
        remove_pair(self.journal)


def case_of(journal: Path) -> Path:
    """Return the case file of a journal."""
    return journal.with_name(
        f"{journal.name.removesuffix(SUFFIX)}.autosave{CASE_SUFFIX}"
    )


def remove_pair(journal: Path) -> None:
    """Remove a journal and its other files."""
    case = case_of(journal)
    for path in (
        case,
        case.with_name(f"{case.name}.part"),
        journal,
        _lock_path(journal),
    ):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _lock_path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


def _locked(journal: Path) -> FileLock | None:
    """Lock a journal, and return the lock; None on disks without locks.

    Raises
    ------
    CaseError
        If another process holds the lock.
    """
    lock = FileLock(_lock_path(journal), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as err:
        raise CaseError(
            f"The work in {journal} goes on in another window. Close that one first."
        ) from err
    except (OSError, NotImplementedError):
        return None
    return lock


def try_lock(journal: Path) -> tuple[bool, FileLock | None]:
    """Try to lock a journal.

    Return whether no other process holds the lock, and the lock if the disk has locks.
    """
    try:
        return True, _locked(journal)
    except CaseError:
        return False, None


def _header(contents: CaseContents) -> dict[str, Any]:
    volume, start = contents.proposal.volume, contents.start
    return {
        "scan": scan_key(volume),
        "name": volume.name,
        "bytes": _file_bytes(volume.path),
        "tree": start.tree,
        "n": start.n,
        "from_labels": start.labels is not None,
        "done": len(contents.journal.done),
        "undone": len(contents.journal.undone),
    }


def _file_bytes(path: str) -> int | None:
    """Return the size of a scan's file, None for a folder or a scan made in memory."""
    file = Path(path)
    try:
        return file.stat().st_size if path and file.is_file() else None
    except OSError:
        return None


def scan_key(volume: Volume) -> dict[str, Any]:
    """Return the identity of a scan: its path, otherwise a hash of its voxels."""
    if volume.path:
        return {
            "path": str(Path(volume.path).absolute()),
            "index": volume.index,
            "series": volume.series,
        }
    return {"hash": known_hash(volume)}


def was_moved(header: dict[str, Any], scan: Path | None) -> bool:
    """Return whether a journal's scan is gone from its place and a file may be that scan.

    They have the same size. `Unfinished.resume` compares their voxels.
    """
    before = str(header["scan"].get("path", ""))
    size = header.get("bytes")
    try:
        is_size = scan is not None and size is not None and scan.stat().st_size == size
        return is_size and bool(before) and not Path(before).exists()
    except OSError:
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """Contents of a journal on disk.

    Parameters
    ----------
    header : dict
        Facts about the scan and the case.
    records : list of Record
        All complete records, oldest first.
    size : int
        Bytes up to the end of the last complete record.
    """

    header: dict[str, Any]
    records: list[Record]
    size: int


def read_journal(journal: Path) -> Logged:
    """Read a journal from disk, up to the first incomplete or damaged record.

    Raises
    ------
    CaseError
        If it cannot be read or is not a journal.
    """
    with _opened(journal) as file:
        header, end = _read_header(file)
        data = b"\n" * end + file.read()
    records = []
    while len(data) - end >= _HEAD.size:
        kind, length, next_id, check = _HEAD.unpack_from(data, end)
        payload = data[end + _HEAD.size : end + _HEAD.size + length]
        if (
            len(payload) < length
            or zlib.crc32(kind + next_id.to_bytes(8, "little", signed=True) + payload)
            != check
        ):
            break
        records.append(Record(kind, next_id, payload))
        end += _HEAD.size + length
    return Logged(header, records, end)


@contextlib.contextmanager
def _opened(journal: Path) -> Iterator[IO[bytes]]:
    try:
        with journal.open("rb") as file:
            yield file
    except OSError as err:
        raise CaseError(
            f"Cannot read {journal}: {err.strerror or err}. Check the path."
        ) from err
    except ValueError as err:
        raise CaseError(
            f"{journal} is not a Strata journal, or was made by a newer version."
        ) from err


def _read_header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Return a journal's header, and the offset of its first record.

    Raises
    ------
    ValueError
        If it is not a journal.
    """
    magic, line = file.readline(), file.readline()
    header = json.loads(line)
    if (
        magic != _MAGIC
        or not isinstance(header, dict)
        or not isinstance(header.get("scan"), dict)
    ):
        raise ValueError("no journal")
    return header, len(magic) + len(line)


def matching(
    folder: Path, fits: Callable[[dict[str, Any]], bool]
) -> list[tuple[Path, Logged]]:
    """Return the journals in a folder whose header fits, newest first."""
    found = []
    try:
        journals = sorted(
            folder.glob(f"*{SUFFIX}"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
    except OSError:
        return []
    for journal in journals:
        try:
            with _opened(journal) as file:
                is_wanted = fits(_read_header(file)[0])
            found += [(journal, read_journal(journal))] if is_wanted else []
        except CaseError as err:
            logger.warning("%s", err)
    return found


__getattr__ = moved_names("refine.storage.autosave")
