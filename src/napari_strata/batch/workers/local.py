"""Executors: run a task on every scan; this one in the same process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.volume import Progress

SAMPLING, FITTING, WAITING = (
    "looking at scans for the codebook",
    "fitting the codebook",
    "waiting for workers",
)
"""What is going on, where it is no scan's own work; for progress."""
LogEvent = Callable[..., None]
"""Takes an event and plain values, as `RunLog.add` does."""


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """Outcome of a task on one scan.

    Parameters
    ----------
    number : int
        Place of the scan.
    value : Any
        What the task returned; None where it never came to an end.
    reason : str
        Why it did not, in one line; "" otherwise.
    worker : str
        Who did it; "" for this process.
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
        Estimates a scan's peak memory; None where nothing is known.
    budget_gb : float
        A scan that needs more is not begun.
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
                if stage != "done":  # the proposal is, the scan is not
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
        " --working-mvox, or run it on a larger machine."
    )
