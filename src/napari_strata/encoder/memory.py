"""Keeping large memory blocks between layers instead of returning them to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGE, _USUAL_MMAP, _USUAL_TRIM = 2_000_000_000, 32 * 1024 * 1024, 64 * 1024 * 1024


@contextmanager
def kept_pages() -> Iterator[None]:
    """Let glibc keep freed memory inside the block, and release it at the end.

    Every layer of a large scan needs blocks of hundreds of megabytes. By default glibc
    maps each one afresh, and clearing the pages took as long as the layers. Other C
    libraries are left as they are.

    Afterwards the thresholds are fixed at the values that glibc usually grows to: a call
    of mallopt switches the dynamic threshold off for the rest of the process. The
    setting holds for the whole process, so if two threads overlap, the first to end also
    ends it for the other. Both effects only cost speed.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_TRIM_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        libc.malloc_trim(0)


def release_memory() -> None:
    """Give freed memory back to the system now (glibc only)."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return (
        libc
        if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt")
        else None
    )
