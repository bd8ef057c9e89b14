"""Executors: run a task on every scan; this one in the same process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.volume import Progress

SAMPLING, FITTING, WAITING = (
    "proposing scans for the codebook",
    "fitting the codebook",
    "waiting for workers",
)
"""Stages of a batch that belong to no single scan, for progress."""
LogEvent = Callable[..., None]
"""Writes an event with plain values to the log, as `RunLog.add` does."""


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """Outcome of a task on one scan.

    Parameters
    ----------
    number : int
        Index of the scan.
    value : Any
        Result of the task; None if it did not end.
    reason : str
        Why it did not end, in one line; "" otherwise.
    worker : str
        Address of the worker; "" for this process.
    """

    number: int
    value: Any
    reason: str = ""
    worker: str = ""


class Executor(Protocol):
    """Runner of a task on scans."""

    def run(
        self,
        task: Callable[..., Any],
        scans: Sequence[PlannedScan],
        on_progress: Progress,
    ) -> Generator[ScanOutcome, None, None]:
        """Yield an outcome per scan, in any order.

        `on_progress` gets (scans ended, scans, stage) and may raise `Cancelled`.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Executor in this process, one scan after another.

    Parameters
    ----------
    needs_gb : callable
        Estimates a scan's peak memory in GB; None if unknown.
    budget_gb : float
        Scans that need more are not started.
    """

    needs_gb: Callable[[PlannedScan], float | None]
    budget_gb: float

    def run(
        self,
        task: Callable[..., Any],
        scans: Sequence[PlannedScan],
        on_progress: Progress,
    ) -> Generator[ScanOutcome, None, None]:
        """Yield an outcome per scan; see `Executor`."""
        for number, scan in enumerate(scans):

            def show(
                done: int,
                total: int,
                stage: str,
                number: int = number,
                scan: PlannedScan = scan,
            ) -> None:
                if stage != "done":  # the proposal is done, the scan is not
                    on_progress(number, len(scans), f"{scan.id}: {stage}")

            show(0, 1, "looking for earlier results")
            need = self.needs_gb(scan)
            if need is not None and need > self.budget_gb:
                yield ScanOutcome(number, None, too_large(scan, need, self.budget_gb))
            else:
                yield ScanOutcome(number, task(scan, show))


def too_large(scan: PlannedScan, need_gb: float, budget_gb: float) -> str:
    """Return the reason why a scan is not started: too little memory."""
    return (
        f"{scan.path} needs about {need_gb:.1f} GB of memory, and {budget_gb:.1f} GB"
        " may be used. Raise --budget-gb if the machine has more, lower"
        " --working-mvox, or use a larger machine."
    )
