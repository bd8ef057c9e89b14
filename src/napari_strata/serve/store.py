"""Scans that clients put on the server, and their labels: folders, bounds and clean-up.

Names from clients are only ever keys of tables. Folders and files get names that the
server chose, so no name leads out of the store's folder.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from napari_strata.errors import ServeError
from napari_strata.filenames import json_text
from napari_strata.io.atomic import atomic_path
from napari_strata.settings import ServeSettings

logger = logging.getLogger(__name__)

RECORD = "record.json"
"""File in the folder of a scan that says what it is."""
PROPOSAL = "proposal.strata"
"""File in the folder of a scan with its proposal."""
LOCK = ".strata-serve-lock"
"""Lock file of a server in its folder; the system releases it when the process ends."""
MAY_GO_AFTER_S = 600.0
"""Idle time in seconds after which a scan may be removed to make room for another."""
DISK_RESERVE = 1_000_000_000
"""Bytes that stay free on the disk."""
_STARTING_S = 10.0
"""Age in seconds up to which a folder may belong to a server that only starts."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_SLUG = 40
_LONGEST_ID = 1000
"""Characters of a client's name for a scan or of a tag."""


@dataclass(slots=True)
class StoredLabel:
    """Labels that a client submitted for a scan.

    Parameters
    ----------
    file : str
        Name of the file in the scan's folder.
    info : dict
        What the client says about them: names of the labels and more.
    """

    file: str
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StoredScan:
    """A scan on the server.

    Parameters
    ----------
    id : str
        The client's name for it, or the id of its session.
    folder : Path
        Its folder.
    file : str
        Name of the scan's file, or of the folder with its slices, in `folder`.
    is_session : bool
        Whether it belongs to a session and not to the list of images.
    created, used : float
        When it came and was last used, in seconds since 1970.
    expiry_s : float
        Time after its last use at which it is removed, in seconds.
    info : dict
        What clients store about it.
    labels : dict of StoredLabel
        Labels by tag.
    """

    id: str
    folder: Path
    file: str
    is_session: bool
    created: float
    used: float
    expiry_s: float
    info: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, StoredLabel] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The scan's file, or the folder with its slices."""
        return self.folder / self.file

    @property
    def proposal_path(self) -> Path:
        """Where its proposal is kept."""
        return self.folder / PROPOSAL


class Store:
    """All scans of a server, in one folder.

    Parameters
    ----------
    root : Path
        The folder; see `open_store`.
    settings : ServeSettings
        The bounds.
    keeps : bool
        Whether scans and labels stay when a session or the server ends.
    clock : callable
        Current time in seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        settings: ServeSettings,
        *,
        keeps: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root, self.settings, self.keeps = root, settings, keeps
        self._clock = clock
        self._scans: dict[str, StoredScan] = {}
        self._lock = threading.RLock()
        if keeps:
            self._scans = {scan.id: scan for scan in _kept_scans(root)}

    def scans(self) -> list[StoredScan]:
        """Return all scans, oldest first."""
        with self._lock:
            return sorted(self._scans.values(), key=lambda scan: scan.created)

    def images(self) -> list[StoredScan]:
        """Return the scans that are no sessions, oldest first."""
        return [scan for scan in self.scans() if not scan.is_session]

    def get(self, scan_id: str, *, touch: bool = True) -> StoredScan | None:
        """Return a scan by its id; None if there is none."""
        with self._lock:
            scan = self._scans.get(scan_id)
            if scan is not None and touch:
                scan.used = self._clock()
            return scan

    def new_folder(self, scan_id: str = "") -> Path:
        """Make a folder for an upload; the caller removes it if the upload fails.

        Raises
        ------
        ServeError
            If the disk is nearly full.
        """
        self.check_disk()
        slug = _slug(scan_id) if self.keeps else ""
        folder = self.root / "-".join(filter(None, (slug, secrets.token_hex(16))))
        folder.mkdir(mode=0o700)
        return folder

    def check_disk(self, size: int = 0) -> None:
        """Check that an upload leaves room on the disk.

        Raises
        ------
        ServeError
            If it does not.
        """
        if shutil.disk_usage(self.root).free < DISK_RESERVE + size:
            raise ServeError("The server's disk is nearly full. Free some space.", 507)

    def add(
        self,
        folder: Path,
        file: str,
        *,
        scan_id: str = "",
        expiry_s: float = 0.0,
    ) -> tuple[StoredScan, list[StoredScan]]:
        """Add a scan whose files lie in a folder of `new_folder`.

        Parameters
        ----------
        folder, file : Path, str
            Where it lies.
        scan_id : str
            The client's name for it; "" for a session, which gets an id.
        expiry_s : float
            Time after its last use at which it is removed, in seconds; 0 or more than
            the server allows for the server's own.

        Returns
        -------
        scan : StoredScan
            The scan.
        removed : list of StoredScan
            Scans that made room or had the same name; in a store that keeps, their
            files stay.

        Raises
        ------
        ServeError
            If there are too many scans, all in use, or the id is too long.
        """
        check_name(scan_id)
        now, longest = self._clock(), self.settings.session_minutes * 60
        scan = StoredScan(
            scan_id or str(secrets.token_hex(16)),
            folder,
            file,
            not scan_id,
            now,
            now,
            min(expiry_s, longest) if expiry_s > 0 else longest,
        )
        with self._lock:
            removed = [self._scans[scan.id]] if scan.id in self._scans else []
            removed += self._made_room(extra=not removed)
            for one in removed:
                self._forget(one)
            self._save(scan)
            self._scans[scan.id] = scan
        return scan, removed

    def _made_room(self, *, extra: bool) -> list[StoredScan]:
        """Return the scans that have to go for another one."""
        most = self.settings.max_sessions
        if self.keeps or len(self._scans) + extra <= most:
            return []
        idle = sorted(self._scans.values(), key=lambda scan: scan.used)
        oldest = idle[0]
        if self._clock() - oldest.used < MAY_GO_AFTER_S:
            raise ServeError(
                f"The server holds {most} scans, as many as it may. Try again later, or"
                " start it with a larger --max-sessions.",
                503,
            )
        return [oldest]

    def remove(self, scan_id: str) -> StoredScan | None:
        """Remove a scan with all its files; None if there is none."""
        with self._lock:
            scan = self._scans.pop(scan_id, None)
        if scan is not None:
            shutil.rmtree(scan.folder, ignore_errors=True)
        return scan

    def _forget(self, scan: StoredScan) -> None:
        del self._scans[scan.id]
        if not self.keeps:
            shutil.rmtree(scan.folder, ignore_errors=True)

    def sweep(self) -> list[StoredScan]:
        """Remove the scans whose time is over; a store that keeps removes none."""
        if self.keeps:
            return []
        now = self._clock()
        with self._lock:
            over = [
                scan for scan in self._scans.values() if now - scan.used > scan.expiry_s
            ]
            for scan in over:
                self._forget(scan)
        return over

    def put_label(
        self,
        scan: StoredScan,
        tag: str,
        content: Path,
        suffix: str,
        info: dict[str, Any],
    ) -> StoredLabel:
        """Store labels of a scan; earlier ones with the same tag keep their file.

        Parameters
        ----------
        scan : StoredScan
            The scan.
        tag : str
            The client's word for this kind of labels, such as "final".
        content : Path
            A file in the scan's folder, which is renamed.
        suffix : str
            How the name of the file ends.
        info : dict
            What the client says about them.
        """
        check_name(tag)
        with self._lock:
            number = 1
            while (path := scan.folder / _label_name(tag, number, suffix)).exists():
                number += 1
            content.rename(path)
            label = scan.labels[tag] = StoredLabel(path.name, info)
            self._save(scan)
        return label

    def remove_label(self, scan: StoredScan, tag: str) -> bool:
        """Remove the labels of a tag; return whether there were any."""
        with self._lock:
            label = scan.labels.pop(tag, None)
            if label is None:
                return False
            (scan.folder / label.file).unlink(missing_ok=True)
            self._save(scan)
        return True

    def update_info(
        self, scan: StoredScan, info: dict[str, Any], tag: str = ""
    ) -> None:
        """Add to what is stored about a scan, or about its labels with a tag."""
        with self._lock:
            (scan.labels[tag].info if tag else scan.info).update(info)
            self._save(scan)

    def _save(self, scan: StoredScan) -> None:
        """Write the record of a scan, if scans are kept."""
        if not self.keeps:
            return
        values = asdict(scan)
        del values["folder"]
        with atomic_path(scan.folder / RECORD) as temporary:
            temporary.write_text(json_text(values, indent=1), encoding="utf-8")


def check_name(name: str) -> None:
    """Check the length of a client's name.

    Raises
    ------
    ServeError
        If it is too long.
    """
    if len(name) > _LONGEST_ID:
        raise ServeError(
            f"A name has {len(name)} characters. Use {_LONGEST_ID} at most."
        )


def _slug(name: str) -> str:
    """Return letters, digits and dashes of a name, to find a kept folder by."""
    return _UNSAFE.sub("-", name).strip("-")[:_LONGEST_SLUG]


def _label_name(tag: str, number: int, suffix: str) -> str:
    return f"label-{_slug(tag) or 'labels'}-{number}{suffix}"


def _kept_scans(root: Path) -> Iterator[StoredScan]:
    """Yield the scans that an earlier server kept in a folder, oldest first."""
    scans = []
    for path in root.glob(f"*/{RECORD}"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            labels = {
                tag: StoredLabel(**label) for tag, label in values.pop("labels").items()
            }
            scans.append(StoredScan(folder=path.parent, labels=labels, **values))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
            logger.warning("%s cannot be read (%s); its scan is left out.", path, err)
    yield from sorted(scans, key=lambda scan: scan.created)


@contextmanager
def open_store(keep: Path | None, settings: ServeSettings) -> Iterator[Store]:
    """Open a store; without a folder to keep, all of it is removed when the block ends.

    What a killed server left behind is removed first.

    Parameters
    ----------
    keep : Path or None
        Folder in which everything stays; None for a folder of the user's cache.
    settings : ServeSettings
        The bounds.

    Raises
    ------
    ServeError
        If another server uses the folder, or it cannot be made.
    """
    root = keep
    if root is None:
        parent = platformdirs.user_cache_path("strata") / "serve"
        root = parent / secrets.token_hex(16)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(root / LOCK, timeout=0)
        lock.acquire()
    except Timeout as err:
        raise ServeError(
            f"Another server keeps its scans in {root}. Stop it, or choose another"
            " folder."
        ) from err
    except OSError as err:
        raise ServeError(
            f"Cannot write to {root}: {err.strerror}. Choose another folder."
        ) from err
    try:
        if keep is None:
            remove_left_behind(root.parent)
        yield Store(root, settings, keeps=keep is not None)
    finally:
        lock.release()
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def remove_left_behind(parent: Path) -> None:
    """Remove the folders of servers that do not run any more."""
    for folder in parent.iterdir():
        with suppress(Timeout, OSError):
            if time.time() - folder.stat().st_mtime < _STARTING_S:
                continue
            with FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
