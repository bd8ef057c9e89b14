"""Scans in memory: their proposals, made one at a time, and their strokes.

Requests for the same scan wait for each other. As many proposals as the settings allow
stay in memory; those of scans that were not used for longer go to the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from napari_strata.errors import CaseError, ServeError, StrataError
from napari_strata.io.files import read
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.serve.store import StoredScan
from napari_strata.serve.strokes import StrokeWork
from napari_strata.settings import ServeSettings
from napari_strata.volume import Progress, Volume

logger = logging.getLogger(__name__)

Proposer = Callable[[Volume, Progress], Proposal]
"""Makes a proposal; the progress callable raises `ServeError` to stop it."""


@dataclass(slots=True, eq=False)
class OpenScan:
    """A scan in memory.

    Parameters
    ----------
    stored : StoredScan
        Where it lies.
    lock : threading.RLock
        Held by the request that works on it.
    proposal : Proposal or None
        Its proposal, once there is one.
    work : StrokeWork or None
        Its strokes, once there is a proposal.
    is_removed : bool
        Whether it was removed, so that nobody waits for it any more.
    """

    stored: StoredScan
    lock: threading.RLock = field(default_factory=threading.RLock)
    proposal: Proposal | None = None
    work: StrokeWork | None = None
    is_removed: bool = False


class OpenScans:
    """The scans in memory of a server.

    Parameters
    ----------
    proposer : callable
        Makes a proposal of a volume.
    settings : ServeSettings
        The bounds.
    keeps : bool
        Whether every proposal is kept on the disk.
    """

    def __init__(
        self, proposer: Proposer, settings: ServeSettings, *, keeps: bool = False
    ) -> None:
        self._proposer, self._settings, self._keeps = proposer, settings, keeps
        self._open: OrderedDict[str, OpenScan] = OrderedDict()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(settings.max_waiting)
        self._worker = ThreadPoolExecutor(1, "strata-proposal")
        self._is_closed = False

    @contextmanager
    def use(self, stored: StoredScan) -> Iterator[OpenScan]:
        """Work on a scan, after other requests for it.

        Raises
        ------
        ServeError
            If too many requests wait.
        """
        if not self._places.acquire(blocking=False):
            raise ServeError("The server is busy. Try again in a minute.", 503)
        try:
            with self._lock:
                scan = self._open.setdefault(str(stored.folder), OpenScan(stored))
                self._open.move_to_end(str(stored.folder))
            with scan.lock:
                if scan.is_removed:
                    raise ServeError("The scan was removed. Send it again.", 404)
                yield scan
            self._shrink()
        finally:
            self._places.release()

    def proposal(self, scan: OpenScan) -> Proposal:
        """Return the proposal of a scan that `use` gave; it is made if there is none.

        Raises
        ------
        StrataError
            If the scan cannot be read or proposed on, or was removed meanwhile.
        """
        if scan.proposal is None:
            proposal = self._worker.submit(self._made, scan).result()
            scan.proposal, scan.work = proposal, StrokeWork(proposal)
            # while the client looks at the first labels
            self._worker.submit(scan.work.prepare)
        return scan.proposal

    def _made(self, scan: OpenScan) -> Proposal:
        """Read the proposal of a scan from the disk, or make it."""

        def stop_if_removed(_done: int, _total: int, _stage: str) -> None:
            if self._is_closed or scan.is_removed:
                raise ServeError("The scan was removed, or the server stops.", 410)

        stop_if_removed(0, 0, "")
        volume = read(scan.stored.path)
        kept = scan.stored.proposal_path
        if kept.exists():
            try:
                return Refinement.load(kept, volume=volume).proposal
            except CaseError as err:
                logger.warning("A proposal is made again: %s", err)
                kept.unlink()
        start = time.perf_counter()
        proposal = self._proposer(volume, stop_if_removed)
        logger.info("proposed in %.1f s", time.perf_counter() - start)
        if self._keeps:
            Refinement(proposal).save(kept)
        return proposal

    def _shrink(self) -> None:
        """Let proposals of scans that were not used for longest go to the disk."""
        with self._lock:
            in_memory = [scan for scan in self._open.values() if scan.proposal]
            extra = in_memory[: -self._settings.proposals_in_memory]
        for scan in extra:
            if scan.lock.acquire(blocking=False):
                try:
                    self._put_away(scan)
                finally:
                    scan.lock.release()

    def _put_away(self, scan: OpenScan) -> None:
        if scan.proposal is None or scan.is_removed:
            return
        kept = scan.stored.proposal_path
        try:
            if not kept.exists():
                Refinement(scan.proposal).save(kept)
        except StrataError as err:
            logger.warning("A proposal is dropped: %s", err)
        scan.proposal = scan.work = None

    def is_busy(self, stored: StoredScan) -> bool:
        """Return whether a request works on a scan."""
        with self._lock:
            scan = self._open.get(str(stored.folder))
        if scan is None:
            return False
        if scan.lock.acquire(blocking=False):
            scan.lock.release()
            return False
        return True

    def drop(self, stored: StoredScan) -> None:
        """Forget a scan that was removed; work on it ends."""
        with self._lock:
            scan = self._open.pop(str(stored.folder), None)
        if scan is not None:
            scan.is_removed = True
            with scan.lock:
                scan.proposal = scan.work = None

    def close(self) -> None:
        """End all work."""
        self._is_closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
