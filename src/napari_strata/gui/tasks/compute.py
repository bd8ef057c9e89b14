"""Proposals for the window, computed in a process of their own (no Qt)."""

from __future__ import annotations

import atexit
import logging
import os

from napari_strata.settings import Device, ProposeSettings, RuntimeName
from napari_strata.volume import Progress, Volume, no_progress
from napari_strata.worker.pool import WorkerPool, WorkerStartError
from napari_strata.worker.tasks import PreparedProposal

logger = logging.getLogger(__name__)

SWITCH = "STRATA_WORKER"
"""Environment variable: with "0" the window computes in its own process, for debuggers."""

WORKERS = WorkerPool()
"""The worker processes of all windows of this program."""
atexit.register(WORKERS.shut_down)


def uses_worker() -> bool:
    """Return whether windows compute in a worker process."""
    return os.environ.get(SWITCH) != "0"


def keep_worker(window: int) -> None:
    """Start a worker process for a window (any number), so that nothing is left to load."""
    if uses_worker():
        WORKERS.open(window)


def drop_worker(window: int) -> None:
    """End the worker process that waits, unless another window keeps it."""
    WORKERS.close(window)


def propose_for_window(
    volume: Volume,
    *,
    settings: ProposeSettings | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int = 0,
    runtime: RuntimeName = "auto",
    on_progress: Progress = no_progress,
) -> PreparedProposal:
    """Propose as `napari_strata.pipeline.propose` does, in a worker process.

    The event loop then never waits for Python's lock, and a cancel kills the process.
    Where no process can be started, it runs in place.

    Raises
    ------
    WorkerError
        If the process ends before the proposal is there.
    StrataError
        What `napari_strata.pipeline.propose` raises.
    """
    arguments = {
        "volume": volume,
        "settings": settings,
        "seed": seed,
        "device": device,
        "threads": threads,
        "runtime": runtime,
    }
    if uses_worker():
        try:
            prepared: PreparedProposal = WORKERS.call(
                "napari_strata.worker.tasks:propose_prepared", arguments, on_progress
            )
            return prepared
        except WorkerStartError as err:
            logger.warning(
                "No worker process can be started (%s); the window may not answer for"
                " some seconds.",
                err,
            )
    on_progress(0, 0, "Loading the engine")
    from napari_strata.pipeline import propose

    return PreparedProposal(
        propose(**arguments, on_progress=on_progress)  # type: ignore[arg-type]
    )
