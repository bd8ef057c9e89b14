"""Peak memory of this process, and the lock on the output folder."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_strata.errors import WriteError

LOCK_NAME = ".batch-lock"
"""Name of the lock file in the output folder."""


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C in workers: the command stops them.

    Dask calls this in each worker on this machine.
    """
    with contextlib.suppress(ValueError):  # not in a process's main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def reset_peak() -> None:
    """Reset the peak memory (Linux only; elsewhere the peak counts from the start)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float | None:
    """Return the peak of resident memory since `reset_peak` in GB, None if unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return (
        round(int(rows["VmHWM"].split()[0]) * 1024 / 1e9, 3)
        if "VmHWM" in rows
        else None
    )


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder for this batch; it is made if need be.

    The system releases the lock when the process ends. The same process may lock it
    again: a batch and its tables belong together.

    Raises
    ------
    WriteError
        If another batch is writing there, or the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise WriteError(
            f"Cannot make the folder {folder}: {err.strerror}. Choose another one."
        ) from err
    lock = FileLock(folder.resolve() / LOCK_NAME, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as err:
        raise WriteError(
            f"Another batch is writing to {folder}. Wait for it, or choose another"
            " folder."
        ) from err
    except OSError as err:
        raise WriteError(
            f"Cannot write to {folder}: {err.strerror}. Choose another folder."
        ) from err
    try:
        yield
    finally:
        lock.release()
