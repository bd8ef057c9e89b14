"""Edits run one after the other in a thread; their results are shown in the GUI thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Qt, QThread, Signal

from napari_strata.errors import StrataError


@dataclass(frozen=True, slots=True)
class _QueuedEdit:
    edit: Callable[[], Any]
    on_done: Callable[[Any], None] | None
    on_fail: Callable[[], None] | None
    pauses: bool


class EditQueue(QObject):
    """Runs the edits of one case in the order asked for, in a thread of its own.

    A `StrataError` becomes a notification; any other error is a bug and is raised in
    the GUI thread.
    """

    idle = Signal()
    """Emitted when the last edit that waited is done and shown."""
    busy_changed = Signal(bool)
    _woken = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="strata-edits"
        )
        self._waiting: deque[_QueuedEdit] = deque()
        self._running: tuple[_QueuedEdit, Future[Any]] | None = None
        self._posted: deque[Callable[[], None]] = deque()
        self._is_paused = self._is_closed = False
        # Queued even if the edit is done before `submit` returns, because napari emits
        # its paint event before it writes the voxels.
        queued = Qt.ConnectionType.QueuedConnection
        self._woken.connect(self.deliver, queued)  # type: ignore[call-arg]  # PyQt6
        self.destroyed.connect(partial(_hand_over, self._waiting, self._thread))

    @property
    def is_busy(self) -> bool:
        """Whether an edit runs or waits."""
        return self._running is not None or bool(self._waiting)

    def submit(
        self,
        edit: Callable[[], Any],
        on_done: Callable[[Any], None] | None = None,
        on_fail: Callable[[], None] | None = None,
        *,
        pauses: bool = False,
    ) -> None:
        """Run `edit()` in the thread after earlier edits, then `on_done(result)`.

        After an error, `on_fail()` is called instead. Both are called in the GUI thread.
        With `pauses` the queue is paused when the edit ends, before a later edit starts.
        """
        if self._is_closed:
            return
        was_busy = self.is_busy
        self._waiting.append(_QueuedEdit(edit, on_done, on_fail, pauses))
        if not was_busy:
            self.busy_changed.emit(True)
        self._start_next()

    def post(self, show: Callable[[], None]) -> None:
        """Call `show()` in the GUI thread, after what was posted before.

        Called at once if this is the GUI thread.
        """
        if self._is_closed:
            return
        self._posted.append(show)
        if QThread.currentThread() == self.thread():
            self._show_posted()
        else:
            self._wake()

    def deliver(self) -> None:
        """Show what is done so far, and start the next edit."""
        running = self._running
        is_done = running is not None and running[1].done()
        # `is_done` is read first: an edit is shown before the next one starts
        self._show_posted()
        if running is None or not is_done or self._running is not running:
            return
        (queued, future), self._running = running, None
        self._is_paused = self._is_paused or queued.pauses
        self._start_next()
        try:
            self._report_result(queued, future)
        finally:
            if not self.is_busy and not self._is_closed:
                self.busy_changed.emit(False)
                self.idle.emit()

    def finish(self) -> None:
        """Wait for all edits, and show their results.

        A paused queue only finishes the running edit, and stays paused.
        """
        while self._running is not None:
            # waits; `deliver` handles the exception, if any
            self._running[1].exception()
            self.deliver()
        self._show_posted()

    def pause(self) -> None:
        """Start no further edit until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Start edits again after `pause`."""
        self._is_paused = False
        self._start_next()

    def close(self, *, drop: bool = False) -> None:
        """Accept no more edits and show none any more.

        Waiting edits are carried out first, unless they are dropped.
        """
        self._is_closed = True
        self._posted.clear()
        if drop:
            self._waiting.clear()
        _hand_over(self._waiting, self._thread)
        self._thread.shutdown(wait=not drop)

    def _start_next(self) -> None:
        if self._running is None and self._waiting and not self._is_paused:
            queued = self._waiting.popleft()
            future = self._thread.submit(queued.edit)
            self._running = queued, future
            future.add_done_callback(lambda _future: self._wake())

    def _wake(self) -> None:
        try:
            self._woken.emit()
        except RuntimeError:
            # the window was closed, and this object deleted, while the thread worked
            self._is_closed = True

    def _show_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def _report_result(self, queued: _QueuedEdit, future: Future[Any]) -> None:
        if self._is_closed:
            return
        error = future.exception()
        if error is None:
            if queued.on_done is not None:
                queued.on_done(future.result())
            return
        if queued.on_fail is not None:
            queued.on_fail()
        if not isinstance(error, StrataError):
            raise error
        show_error(str(error))


def _hand_over(waiting: deque[_QueuedEdit], thread: ThreadPoolExecutor) -> None:
    """Run the waiting edits in order after the queue was closed.

    Python waits for them when it exits.
    """
    while waiting:
        edit = waiting.popleft().edit
        try:
            thread.submit(edit)
        except RuntimeError:
            # Python is exiting already, and starts no more threads
            edit()
