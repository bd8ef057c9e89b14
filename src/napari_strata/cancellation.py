"""Cooperative cancellation for long computations."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_PAUSE_S = 0.2
"""Least interval between two calls of a progress callable by `raise_if_cancelled`."""

_ask: ContextVar[Callable[[], None] | None] = ContextVar(
    "asks whether the work is still wanted", default=None
)


def raise_if_cancelled() -> None:
    """Raise `Cancelled` if the progress callable of the enclosing `progress_scope` does.

    Call it in loops whose passes take tenths of a second, in functions that report no
    progress themselves. Outside `progress_scope` it does nothing.
    """
    ask = _ask.get()
    if ask is not None:
        ask()


@contextmanager
def progress_scope(
    on_progress: Callable[[int, int, str], None],
) -> Generator[Callable[[int, int, str], None]]:
    """Connect `raise_if_cancelled` to a progress callable inside the block.

    `raise_if_cancelled` repeats the last report to the callable, which may then raise.
    This holds for the current thread only.

    Parameters
    ----------
    on_progress : callable
        Called as (done, total, stage); raises `Cancelled` to stop.

    Returns
    -------
    callable
        Callable to report progress with, in place of `on_progress`.
    """
    last, reported_at = (0, 0, ""), time.monotonic()

    def report(done: int, total: int, stage: str) -> None:
        nonlocal last, reported_at
        last, reported_at = (done, total, stage), time.monotonic()
        on_progress(done, total, stage)

    def ask() -> None:
        if last[2] and time.monotonic() - reported_at > _PAUSE_S:
            report(*last)

    token = _ask.set(ask)
    try:
        yield report
    finally:
        _ask.reset(token)
