"""Clocks for the window.

Of the wall, of a thread's own processor time, and of its waiting for a processor that
others hold.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import QEventLoop, QTimer

BEAT_MS = 5


def waited_s(thread: int | None = None) -> float:
    """Give how long a thread of this process (its native id.

    This one by default) was ready to run and had no processor, in s.

    0 where the system does not tell (Linux does).
    """
    try:
        told = Path(
            f"/proc/self/task/{thread or threading.get_native_id()}/schedstat"
        ).read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(told.split()[1]) / 1e9


def edits_s() -> float:
    """Give the processor time of the thread that carries out edits.

    The one made last where there are several, in s.
    """
    named = [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("strata-edits")
    ]
    if not named or named[-1].ident is None:
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(named[-1].ident))


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the clocks stand, in seconds.

    Parameters
    ----------
    wall : float
        By the clock on the wall.
    own : float
        Processor time of the window's thread.
    process : float
        Processor time of the process, its threads that draw in software included.
    edits : float
        Processor time of the thread that edits.
    """

    wall: float
    own: float
    process: float
    edits: float

    @classmethod
    def now(cls) -> Moment:
        """Read the clocks, in the window's thread."""
        return cls(
            time.perf_counter(), time.thread_time(), time.process_time(), edits_s()
        )

    def since(self, earlier: Moment) -> Moment:
        """Give what passed between two moments."""
        return Moment(
            self.wall - earlier.wall,
            self.own - earlier.own,
            self.process - earlier.process,
            self.edits - earlier.edits,
        )


class Heartbeat:
    """Beats in the GUI thread and remembers its longest pauses, in seconds.

    `worst` is by the clock, `worst_held` without the time in which the thread was ready
    and other programs had the processors, `worst_own` the thread's own processor time.
    """

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self.reset()
        self._timer.start()

    def reset(self) -> None:
        """Forget what was."""
        self._last = (time.perf_counter(), time.thread_time(), waited_s())
        self.worst = self.worst_held = self.worst_own = 0.0

    def _beat(self) -> None:
        now = (time.perf_counter(), time.thread_time(), waited_s())
        gap, own, waited = (
            there - here for there, here in zip(now, self._last, strict=True)
        )
        self.worst = max(self.worst, gap)
        self.worst_held = max(self.worst_held, gap - waited)
        self.worst_own = max(self.worst_own, own)
        self._last = now


def pump(seconds: float) -> None:
    """Let Qt work for a while."""
    # a loop of Qt's own sleeps until something happens, as a window does; asking again
    # and again would take Python's lock from the edits
    loop = QEventLoop()
    QTimer.singleShot(max(1, round(1000 * seconds)), loop.quit)
    loop.exec()
