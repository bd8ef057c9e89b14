"""One piece of work at a time outside the GUI thread, with progress and cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_strata.errors import Cancelled, StrataError
from napari_strata.gui.worker import JobProgress, Step

POLL_MS = 80


class JobRunner(QObject):
    """Runs one job at a time in a thread and tells the GUI thread how it goes.

    Closing the window or the application cancels the job that runs.
    """

    progressed = Signal(object)
    """Emitted with a `Step`, a few times a second."""
    running_changed = Signal(bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._progress: JobProgress | None = None
        self._on_done: Callable[[Any], None] | None = None
        self._writes = False
        self._poll = QTimer(self)
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._report)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.cancel)

    @property
    def is_running(self) -> bool:
        """Whether a job is under way."""
        return self._progress is not None

    def start(self, body: Callable[[JobProgress], Any], on_done: Callable[[Any], None], *, writes: bool = False) -> None:
        """Run `body(on_progress)` in a thread, then `on_done(result)` in the GUI thread.

        With `writes` the job leaves a file: when it ends well, `on_done` says so even if it was cancelled too late.

        Raises
        ------
        StrataError
            If another job is still running.
        """
        if self._progress is not None:
            raise StrataError("Another job is still running. Wait for it, or cancel it first.")
        progress = JobProgress()
        self._progress, self._on_done, self._writes = progress, on_done, writes
        if isinstance(parent := self.parent(), QObject):
            parent.destroyed.connect(progress.cancel)
        self._poll.start()
        self.running_changed.emit(True)
        self.progressed.emit(Step(0, 0, "Starting"))
        create_worker(body, progress, _connect={"returned": self._finish, "errored": self._fail})

    def cancel(self) -> None:
        """Ask the job that runs, if any, to stop."""
        if self._progress is not None:
            self._progress.cancel()

    def _report(self) -> None:
        if self._progress is not None:
            self.progressed.emit(self._progress.step)

    def _stop(self) -> tuple[JobProgress | None, Callable[[Any], None] | None]:
        ended = self._progress, self._on_done
        self._poll.stop()
        self._progress = self._on_done = None
        self.running_changed.emit(False)
        return ended

    def _finish(self, result: object) -> None:
        progress, on_done = self._stop()
        if progress is None or on_done is None:
            return
        if progress.is_cancelled and not self._writes:
            show_info("Cancelled; nothing was changed.")
        else:
            on_done(result)

    def _fail(self, error: Exception) -> None:
        self._stop()
        if isinstance(error, Cancelled):
            show_info(str(error))
        elif isinstance(error, StrataError):
            show_error(str(error))
        else:
            raise error
