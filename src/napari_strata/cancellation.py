"""Asking, deep inside long work, whether anybody still waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_PAUSE_S = 0.2
"""How often a progress callable is asked at most; asking in between costs next to nothing."""

_ask: ContextVar[Callable[[], None] | None] = ContextVar(
    "asks whether the work is still wanted", default=None
)


def raise_if_cancelled() -> None:
    """Raise what the progress callable of the work under way raises when it is no longer wanted.

    (`Cancelled`).

    For loops whose turns take tenths of a second, in functions that report no progress
    themselves. Outside `progress_scope` it does nothing.
    """
    ask = _ask.get()
    if ask is not None:
        ask()


@contextmanager
def progress_scope(
    on_progress: Callable[[int, int, str], None],
) -> Generator[Callable[[int, int, str], None]]:
    """Let `raise_if_cancelled` ask a progress callable for as long as the context lasts.

    In this thread: its last report is repeated.

    Parameters
    ----------
    on_progress : callable
        Called as (done, total, stage); raises `Cancelled` to stop.

    Returns
    -------
    callable
        What is to be called in its place.
    """
    last, told_at = (0, 0, ""), time.monotonic()

    def report(done: int, total: int, stage: str) -> None:
        nonlocal last, told_at
        last, told_at = (done, total, stage), time.monotonic()
        on_progress(done, total, stage)

    def ask() -> None:
        if last[2] and time.monotonic() - told_at > _PAUSE_S:
            report(*last)

    token = _ask.set(ask)
    try:
        yield report
    finally:
        _ask.reset(token)
