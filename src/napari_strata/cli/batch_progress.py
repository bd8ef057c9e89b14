"""Progress of a batch on stderr, with the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_strata.batch.workers.local import FITTING, SAMPLING, WAITING

if TYPE_CHECKING:
    from napari_strata.batch.outputs.results import ScanResult

_MIN_COLUMNS = 20
"""Characters that a line keeps on a terminal, however narrow it is."""
_SECONDS_UP_TO, _MINUTES_UP_TO = 90, 90
"""Durations below are spelled in seconds, or in minutes."""


class BatchProgress:
    """Progress of a batch on stderr, with the time left.

    One line that changes on a terminal; plain lines where stderr is a file.

    Parameters
    ----------
    total : int
        Number of scans.
    quiet : bool
        Show nothing.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._quiet, self._clock = total, quiet, clock
        self._start, self._is_terminal = clock(), sys.stderr.isatty()
        self._last_stage = ""
        self._made = self._failed = self._ended = 0
        self._work_start: float | None = None

    def add_result(self, result: ScanResult) -> None:
        """Count a result; print it where stderr is a file."""
        self._ended += 1
        self._failed += result.status == "failed"
        self._made += result.status != "kept"
        if self._quiet or self._is_terminal:
            return
        seconds = f" in {result.seconds:.0f} s" if result.seconds >= 1 else ""
        print(
            f"{self.line()} {result.scan.id}: {result.status}{seconds}",
            file=sys.stderr,
            flush=True,
        )

    def line(self) -> str:
        """Return how many scans ended and failed, the time so far and the time left."""
        now = self._clock()
        failed = f", {self._failed} failed" if self._failed else ""
        left = ""
        if self._made and self._ended < self._total:
            start = self._start if self._work_start is None else self._work_start
            seconds = (now - start) / self._made * (self._total - self._ended)
            left = f", about {duration(seconds)} left"
        passed = duration(now - self._start)
        return f"[{self._ended}/{self._total}{failed}, {passed}{left}]"

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Show what is going on.

        The time left counts from the first call, when workers have been started and
        earlier results have been found.
        """
        if stage == FITTING:
            # the pass over the sample does not tell how long the second pass takes
            self._work_start = None
        elif self._work_start is None and stage != WAITING:
            self._work_start = self._clock()
        if self._quiet:
            return
        if self._is_terminal:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns - 1
            text = f"{self.line()} {stage}"[: max(_MIN_COLUMNS, columns)]
            print(
                f"\r\033[K{text}",
                end="\n" if stage == "done" else "",
                file=sys.stderr,
                flush=True,
            )
        elif stage != self._last_stage and stage in (SAMPLING, FITTING, WAITING):
            count = f" ({total} scans)" if stage == SAMPLING else ""
            print(f"{self.line()} {stage}{count}", file=sys.stderr, flush=True)
        self._last_stage = stage


def duration(seconds: float) -> str:
    """Return seconds in words: "40 s", "12 min", "3 h 05 min"."""
    if seconds < _SECONDS_UP_TO:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < _MINUTES_UP_TO:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
