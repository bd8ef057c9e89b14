"""One job at a time outside the GUI thread, with progress and cancel."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakSet

from napari.qt.threading import FunctionWorker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from qtpy.QtGui import QGuiApplication
from superqt.utils import create_worker

from napari_strata.errors import Cancelled, StrataError
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tasks.worker import JobProgress, ProgressStep

logger = logging.getLogger(__name__)

Place = Literal["scan", "proposal", "explanation", "export"]
"""A section that starts jobs, by its name in `PanelSections`."""

POLL_MS = 80
"""Time between two progress reports: smooth to look at, cheap to draw."""
_CANCELLED = "Cancelled; nothing was changed."
ABANDON_MS = 100
"""A job that has not stopped by then after a cancel is abandoned.

It ends at its next progress report, and nothing waits for it.
"""

_STOPPABLE: WeakSet[JobProgress] = WeakSet()
"""Progress of every running job that writes no file."""


class JobRunner(QObject):
    """Runs one job at a time in a thread and reports its progress in the GUI thread.

    Closing the window or the application cancels the running job; one that writes a
    file is finished first.
    """

    progressed = Signal(object)
    """Emitted with a `ProgressStep`, a few times a second."""
    running_changed = Signal(bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._progress: JobProgress | None = None
        self.place: Place = "scan"
        """The section whose job runs, or ran last."""
        self._on_done: Callable[[Any], None] | None = None
        self._on_fail: Callable[[str], None] | None = None
        self._writes = False
        self._poll = QTimer(self)
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._report)
        self._abandon_timer = single_shot(self, ABANDON_MS, self._abandon)
        self._window_closed = threading.Event()
        application = QGuiApplication.instance()
        if isinstance(application, QGuiApplication):
            # napari waits for its threads when the application quits, so a job must be
            # cancelled before that
            application.lastWindowClosed.connect(self.leave)

    @property
    def is_running(self) -> bool:
        """Whether a job is under way."""
        return self._progress is not None

    @property
    def is_writing(self) -> bool:
        """Whether a job that leaves a file is under way."""
        return self.is_running and self._writes

    def start(
        self,
        body: Callable[[JobProgress], Any],
        on_done: Callable[[Any], None],
        *,
        writes: bool = False,
        on_fail: Callable[[str], None] | None = None,
        place: Place = "scan",
    ) -> None:
        """Run `body(on_progress)` in a thread, then `on_done(result)` in the GUI thread.

        With `writes` the job leaves a file: if it ends well, `on_done` is called even
        if it was cancelled too late. If it ends in a `StrataError` or is cancelled, a
        notification shows the message, and `on_fail` gets the same text. `place` is the
        section in which the progress is shown.

        Raises
        ------
        StrataError
            If another job is still running.
        """
        if self._progress is not None:
            raise StrataError(
                "Another job is still running. Wait for it, or cancel it first."
            )
        progress = JobProgress()
        self.place = place
        self._progress, self._on_done, self._on_fail, self._writes = (
            progress,
            on_done,
            on_fail,
            writes,
        )
        if not writes:
            _STOPPABLE.add(progress)
        if isinstance(parent := self.parent(), QObject):
            parent.destroyed.connect(
                self._window_closed.set if writes else progress.cancel
            )
        self._poll.start()
        self.running_changed.emit(True)
        self.progressed.emit(ProgressStep(0, 0, "Starting"))
        # a child, so that its result goes nowhere once the window is gone
        job_end = _JobEnd(progress, self)
        # superqt's, because napari's own shows the function's name when it closes a window
        create_worker(
            partial(_run_job, body, self._window_closed),
            progress,
            _connect={"returned": job_end.take},
            _worker_class=FunctionWorker,
        )

    def cancel(self) -> None:
        """Ask the running job, if any, to stop."""
        if self._progress is not None:
            self._progress.cancel()
            self.progressed.emit(ProgressStep(0, 0, "Stopping"))
            if not self._writes:
                self._abandon_timer.start()

    def leave(self) -> None:
        """Cancel the running job, unless it writes a file, because the window is closing."""
        self._window_closed.set()
        if self._progress is not None and not self._writes:
            self._progress.cancel()

    def _report(self) -> None:
        if self._progress is not None:
            self.progressed.emit(self._progress.step)

    def _stop(self) -> Callable[[Any], None] | None:
        on_done, self._on_done, self._on_fail = self._on_done, None, None
        self._poll.stop()
        self._abandon_timer.stop()
        self._progress = None
        self.running_changed.emit(False)
        return on_done

    def _abandon(self) -> None:
        if self._progress is not None and self._progress.is_cancelled:
            self._stop()
            show_info(_CANCELLED)

    def finish(self, progress: JobProgress, result: object) -> None:
        """Take the result of a job, unless it was abandoned."""
        if progress is not self._progress:
            return
        on_done = self._stop()
        if progress.is_cancelled and not self._writes:
            show_info(_CANCELLED)
        elif on_done is not None:
            on_done(result)

    def fail(self, progress: JobProgress, error: Exception) -> None:
        """Take the error of a job, unless it was abandoned."""
        if progress is not self._progress:
            return
        on_fail = self._on_fail
        self._stop()
        if on_fail is not None and isinstance(error, StrataError):
            on_fail(str(error))
        if isinstance(error, Cancelled):
            show_info(str(error))
        elif isinstance(error, StrataError):
            show_error(str(error))
        else:
            raise error


class _JobEnd(QObject):
    """Passes the end of one job on to the runner, in the GUI thread."""

    def __init__(self, progress: JobProgress, runner: JobRunner) -> None:
        super().__init__(runner)
        self._progress = progress
        self._runner = runner

    def take(self, result: object) -> None:
        self.deleteLater()
        if isinstance(result, _Failed):
            self._runner.fail(self._progress, result.error)
        else:
            self._runner.finish(self._progress, result)


@dataclass(frozen=True, slots=True)
class _Failed:
    """The error of a job.

    It is returned, not raised: with PySide6, napari's handling of a worker that raises
    fails itself.
    """

    error: Exception


def _run_job(
    body: Callable[[JobProgress], Any], left: threading.Event, progress: JobProgress
) -> Any:
    """Run a job. If its window was closed meanwhile, log its error, since nobody sees it."""
    try:
        return body(progress)
    except Exception as err:  # noqa: BLE001 (the GUI thread raises or shows it)
        if left.is_set() and not isinstance(err, Cancelled):
            logger.error(
                "The window was closed while this was under way, and it failed: %s", err
            )
        return _Failed(err)


@atexit.register
def end_jobs() -> None:
    """Stop the jobs that may be stopped, and wait for the others.

    Python would crash on exit if a thread were still running.
    """
    for progress in list(_STOPPABLE):
        progress.cancel()
    if (pool := QThreadPool.globalInstance()) is not None:
        pool.waitForDone()
