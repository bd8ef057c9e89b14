"""Work ahead of the encoder.

A scan's body is found and its supervoxels start to grow in a thread of their own.

That needs intensity only. So a second core has work while torch loads and while the
encoder's layers wait for each other; what comes out is the same as one after the other.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtWorkError
from types import TracebackType
from typing import TypeVar

from napari_strata.cancellation import progress_scope
from napari_strata.errors import Cancelled
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
"""How often a thread that waits asks whether it should go on."""
Result = TypeVar("Result")


class Prefetch:
    """Sees a scan and starts its supervoxels in another thread.

    From the first moment until the `with` block is left.

    Parameters
    ----------
    volume : Volume
        The scan.
    settings : ProposeSettings
        Knobs.
    beside : bool
        Start supervoxels while the encoder works. Otherwise, and where the scan is too
        large for both at once, for memory, they start when `initial` asks for them.
    """

    def __init__(
        self, volume: Volume, settings: ProposeSettings, *, beside: bool = True
    ) -> None:
        self._settings, self._beside = settings, beside
        self._stopped, self._asked = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="strata-prefetch")
        self._prepared: Future[PreparedScan] = self._thread.submit(self._see, volume)
        self._started: Future[InitialSegments] = self._thread.submit(self._start)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._asked.set()
        self._thread.shutdown()

    def prepared_scan(self, on_progress: Progress) -> PreparedScan:
        """Return the body and its intensity.

        `on_progress` is called while they are looked for, and may raise to stop.
        """
        return _wait(self._prepared, on_progress, "finding the body")

    def initial_segments(self, on_progress: Progress) -> InitialSegments:
        """Return the start of its supervoxels.

        `on_progress` is called while they grow, and may raise to stop.
        """
        self._asked.set()
        return _wait(self._started, on_progress, "supervoxels")

    def _see(self, volume: Volume) -> PreparedScan:
        with progress_scope(self._check) as report:
            report(0, 1, "finding the body")
            return prepare_scan(volume, self._settings)

    def _start(self) -> InitialSegments:
        prepared = self._prepared.result()
        if not (self._beside and fits_beside_encoder(prepared.grid)):
            self._asked.wait()
        with progress_scope(self._check) as report:
            report(0, 1, "supervoxels")
            return grow_initial_segments(prepared, self._settings)

    def _check(self, done: int, total: int, stage: str) -> None:
        if self._stopped.is_set():
            raise Cancelled("The proposal was stopped.")


def _wait(future: Future[Result], on_progress: Progress, stage: str) -> Result:
    """Wait for another thread's result, asking now and then whether to go on."""
    while True:
        on_progress(0, 1, stage)
        try:
            return future.result(timeout=_ASK_AGAIN_S)
        except StillAtWorkError:
            if future.done():
                return future.result()
