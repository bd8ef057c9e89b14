"""What the system knows of this process.

Its peak memory; and that no other process writes to a folder.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_strata.errors import WriteError

LOCK_NAME = ".batch-lock"


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the command, which stops its workers.

    Dask calls this in each that it starts on this machine.
    """
    with contextlib.suppress(ValueError):  # not in a process's main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def reset_peak() -> None:
    """Forget the peak memory so far; Linux only, elsewhere the process's own peak is told."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float | None:
    """Give the peak of resident memory since `reset_peak`, in GB.

    None where the system does not tell.
    """
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
    """Make sure that one batch at a time writes to a folder.

    The system lets go when the process ends, however it ends.

    The folder is made if need be. Who holds it may ask again: a batch and the tables
    that belong to it are one.

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
