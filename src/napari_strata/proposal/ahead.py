"""Work ahead of the encoder: a scan's body is found and its pieces start to grow in a thread of their own.

That needs brightness only. So a second core has work while torch loads and while the encoder's layers wait for each other;
what comes out is the same as one after the other.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtWorkError
from types import TracebackType
from typing import TypeVar

from napari_strata.errors import Cancelled
from napari_strata.proposal.growing import Sight, Started, fits_beside, see, start
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Progress, Volume
from napari_strata.wanted import watched

_ASK_AGAIN_S = 0.2
"""How often a thread that waits asks whether it should go on."""
Found = TypeVar("Found")


class Ahead:
    """Sees a scan and starts its pieces in another thread, from the first moment until the `with` block is left.

    Parameters
    ----------
    volume : Volume
        The scan.
    settings : ProposeSettings
        Knobs.
    beside : bool
        Start pieces while the encoder works. Otherwise, and where the scan is too large for both at once, for memory, they
        start when `started` asks for them.
    """

    def __init__(self, volume: Volume, settings: ProposeSettings, *, beside: bool = True) -> None:
        self._settings, self._beside = settings, beside
        self._stopped, self._asked = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="strata-ahead")
        self._sight: Future[Sight] = self._thread.submit(self._see, volume)
        self._started: Future[Started] = self._thread.submit(self._start)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._asked.set()
        self._thread.shutdown()

    def sight(self, on_progress: Progress) -> Sight:
        """Give the body and its brightness; `on_progress` is called while they are looked for, and may raise to stop."""
        return _wait(self._sight, on_progress, "finding the body")

    def started(self, on_progress: Progress) -> Started:
        """Give the start of its supervoxels; `on_progress` is called while they grow, and may raise to stop."""
        self._asked.set()
        return _wait(self._started, on_progress, "supervoxels")

    def _see(self, volume: Volume) -> Sight:
        with watched(self._check) as report:
            report(0, 1, "finding the body")
            return see(volume, self._settings)

    def _start(self) -> Started:
        sight = self._sight.result()
        if not (self._beside and fits_beside(sight.grid)):
            self._asked.wait()
        with watched(self._check) as report:
            report(0, 1, "supervoxels")
            return start(sight, self._settings)

    def _check(self, done: int, total: int, stage: str) -> None:
        if self._stopped.is_set():
            raise Cancelled("The proposal was stopped.")


def _wait(future: Future[Found], on_progress: Progress, stage: str) -> Found:
    """Wait for another thread's result, asking now and then whether to go on."""
    while True:
        on_progress(0, 1, stage)
        try:
            return future.result(timeout=_ASK_AGAIN_S)
        except StillAtWorkError:
            if future.done():
                return future.result()
