"""Prefetch: find the body and grow initial segments in a thread beside the encoder.

Both need intensity only. A second core works on them while torch loads and the encoder
runs. The result is the same as without the thread.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtWorkError
from types import TracebackType
from typing import TypeVar

from napari_strata.cancellation import progress_scope
from napari_strata.errors import Cancelled
from napari_strata.parallel import worker_threads
from napari_strata.proposal.supervoxels.oversegmentation import (
    InitialSegments,
    PreparedScan,
    fits_beside_encoder,
    grow_initial_segments,
    prepare_scan,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Progress, Volume

_ASK_AGAIN_S = 0.2
"""Interval at which a waiting thread reports progress and can be cancelled."""
Result = TypeVar("Result")


class Prefetch:
    """Prepares a scan and grows its initial segments in another thread.

    The thread starts at once and ends with the `with` block.

    Parameters
    ----------
    volume : Volume
        The scan.
    settings : ProposeSettings
        Settings of the proposal.
    threads : int
        CPU threads; 0 takes every core. With one thread, or if memory is too small for
        both at once, segments do not grow beside the encoder but when
        `initial_segments` is called.
    """

    def __init__(
        self, volume: Volume, settings: ProposeSettings, *, threads: int = 0
    ) -> None:
        self._settings, self._workers = settings, threads
        self._stopped, self._requested = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="strata-prefetch")
        self._prepared: Future[PreparedScan] = self._thread.submit(
            self._prepare, volume
        )
        self._segments: Future[InitialSegments] = self._thread.submit(self._grow)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._requested.set()
        self._thread.shutdown()

    def prepared_scan(self, on_progress: Progress) -> PreparedScan:
        """Return the scan's body and intensity.

        Meanwhile `on_progress` is called; it may raise `Cancelled` to stop.
        """
        return _wait(self._prepared, on_progress, "finding the body")

    def initial_segments(self, on_progress: Progress) -> InitialSegments:
        """Return the scan's initial segments.

        Meanwhile `on_progress` is called; it may raise `Cancelled` to stop.
        """
        self._requested.set()
        return _wait(self._segments, on_progress, "supervoxels")

    def _prepare(self, volume: Volume) -> PreparedScan:
        with progress_scope(self._check) as report, worker_threads(self._workers):
            report(0, 1, "finding the body")
            return prepare_scan(volume, self._settings)

    def _grow(self) -> InitialSegments:
        prepared = self._prepared.result()
        beside = self._workers != 1 and fits_beside_encoder(prepared.grid)
        if not beside:
            self._requested.wait()
        # beside the encoder, which keeps all cores busy, one thread is enough
        workers = 1 if beside else self._workers
        with progress_scope(self._check) as report, worker_threads(workers):
            report(0, 1, "supervoxels")
            return grow_initial_segments(prepared, self._settings)

    def _check(self, done: int, total: int, stage: str) -> None:
        if self._stopped.is_set():
            raise Cancelled("The proposal was stopped.")


def _wait(future: Future[Result], on_progress: Progress, stage: str) -> Result:
    """Wait for another thread's result and call `on_progress` at intervals."""
    while True:
        on_progress(0, 1, stage)
        try:
            return future.result(timeout=_ASK_AGAIN_S)
        except StillAtWorkError:
            if future.done():
                return future.result()
