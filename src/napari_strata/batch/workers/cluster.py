"""Executor on Dask workers: one scan at a time on each, with a memory budget.

Dask is imported only here, and only when it is used. The client assigns scans to free
workers itself, rather than Dask's scheduler. So it knows how much memory is in use, and
which scan is lost when a worker dies.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.workers.local import WAITING, LogEvent, ScanOutcome, too_large
from napari_strata.batch.workers.memory import IDLE_GB, machine_gb
from napari_strata.errors import ClusterError
from napari_strata.pipeline import versions
from napari_strata.settings import BatchSettings
from napari_strata.volume import Progress

INSTALL = 'python -m pip install "napari-strata[cluster]"'
_TICK_S = 0.5
"""Seconds between two looks at the queue, if nothing ends before."""
_ANSWER_S = 5.0
"""Seconds to wait for the result of a finished task: its worker may have died."""
_FIRST_WORKER_S = 60
"""Seconds to wait for the first worker; a cluster's queue may take any time."""
_SAME_EVERYWHERE = ("napari-strata", "openvino", "torch", "numpy")
"""Packages whose versions change labels: they must be the same on all workers."""
_LOCAL_CONFIG = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.admin.low-level-log-length": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.preload": ["napari_strata.batch.workers.process"],
    "distributed.scheduler.worker-ttl": "1 hour",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.comm.timeouts.connect": "60s",
}
"""Dask's configuration for workers on this machine.

No spilling and no pausing (there is nothing to spill, and a paused worker would never
continue), no profiling, patience with a worker that is busy in one long call, Ctrl-C left
to the command (see `dask_setup`), and no status page for other users.
"""


def is_installed() -> bool:
    """Return whether Dask's package distributed is installed."""
    return importlib.util.find_spec("distributed") is not None


@contextmanager
def open_workers(
    settings: BatchSettings, *, workers: int, budget_gb: float
) -> Iterator[Any]:
    """Connect to workers: of a running scheduler, of a cluster, or on this machine.

    Parameters
    ----------
    settings : BatchSettings
        `scheduler` and `cluster` choose which.
    workers : int
        Number of workers to start.
    budget_gb : float
        On this machine, a worker that takes more is stopped.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If Dask is not installed, no worker answers, or the workers have other versions.
    """
    try:
        import dask
        import distributed
    except ImportError as err:
        raise ClusterError(
            "Running scans on several workers needs Dask, which is not installed."
            f" Install it: {INSTALL}"
        ) from err
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if not settings.scheduler and not settings.cluster:
            stack.enter_context(dask.config.set(_LOCAL_CONFIG))
        try:
            client = stack.enter_context(
                _connect(distributed, settings, workers, budget_gb)
            )
            client.wait_for_workers(
                1, timeout=None if settings.cluster else _FIRST_WORKER_S
            )
        except (OSError, TimeoutError) as err:
            where = settings.scheduler or settings.cluster or "this machine"
            raise ClusterError(
                f"No worker answers at {where}: {err or 'timed out'}. Check the"
                " address, and that workers run."
            ) from err
        _check_alike(client)
        yield client


@contextmanager
def _connect(
    distributed: Any, settings: BatchSettings, workers: int, budget_gb: float
) -> Iterator[Any]:
    if settings.scheduler:
        try:
            with distributed.Client(settings.scheduler, set_as_default=False) as client:
                yield client
        except ValueError as err:
            raise ClusterError(
                f"{settings.scheduler} is not the address of a scheduler. Give one like"
                " tcp://host:8786."
            ) from err
        return
    started = (
        _start_named(settings.cluster, workers)
        if settings.cluster
        else _start_here(distributed, workers, budget_gb)
    )
    with (
        started as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _start_here(distributed: Any, workers: int, budget_gb: float) -> Any:
    """Start worker processes on this machine; their traffic is encrypted."""
    try:
        security: Any = distributed.Security.temporary()
    except ImportError as err:
        raise ClusterError(
            "Workers on this machine need the package cryptography, which is not"
            f" installed. Install it: {INSTALL}"
        ) from err
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=int(budget_gb * 1e9),
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        security=security,
        silence_logs=logging.CRITICAL,
    )


def _start_named(name: str, workers: int) -> Any:
    """Start a cluster of a named class, as the user's Dask configuration describes it."""
    module, _, kind = name.replace(":", ".").rpartition(".")
    try:
        made = getattr(importlib.import_module(module), kind)()
    except (ImportError, AttributeError, ValueError) as err:
        raise ClusterError(
            f"Cannot start the cluster {name}: {err}. Name a class such as"
            " dask_jobqueue.SLURMCluster, install its package, and describe the"
            " cluster in your Dask configuration."
        ) from err
    made.scale(max(workers, 1))
    return made


def _check_alike(client: Any) -> None:
    """Refuse workers with other package versions: their labels would differ."""
    here = versions()
    for address, there in client.run(versions, on_error="return").items():
        if isinstance(there, BaseException):
            raise ClusterError(
                f"Worker {address} cannot load Strata ({there}). Install the same"
                " Strata there as here."
            )
        other = [
            f"{name} {there[name]} (here {here[name]})"
            for name in _SAME_EVERYWHERE
            if there[name] != here[name]
        ]
        if other:
            raise ClusterError(
                f"Worker {address} runs {', '.join(other)}. Install the same versions"
                " there as here."
            )


@dataclass(frozen=True, slots=True)
class Workers:
    """Executor on the workers of a Dask client; see `Executor`.

    Parameters
    ----------
    client : distributed.Client
        A connected client.
    needs_gb : callable
        Estimates a scan's peak memory in GB; None if unknown.
    budget_gb : float or None
        Memory for all scans at work together; None if only each worker has a limit.
    attempts : int
        Workers that may die on one scan.
    log_event : callable
        Writes events to the log.
    """

    client: Any
    needs_gb: Callable[[PlannedScan], float | None]
    budget_gb: float | None
    attempts: int
    log_event: LogEvent

    def run(
        self,
        task: Callable[..., Any],
        scans: Sequence[PlannedScan],
        on_progress: Progress,
    ) -> Generator[ScanOutcome, None, None]:
        """Yield an outcome per scan, the largest scans first.

        Raises
        ------
        ClusterError
            If the scheduler no longer answers.
        """
        needs = [self.needs_gb(scan) for scan in scans]
        order = sorted(range(len(scans)), key=lambda number: -(needs[number] or 0.0))
        queue = _Round(self, task, scans, needs, order)
        ended = 0
        try:
            while queue.waiting or queue.running:
                try:
                    outcomes = queue.step()
                except OSError as err:
                    raise ClusterError(
                        f"Dask's scheduler no longer answers ({err or 'timed out'})."
                        " What is done stays: start it, and run this again."
                    ) from err
                for outcome in outcomes:
                    ended += 1
                    yield outcome
                on_progress(ended, len(scans), queue.in_work())
        finally:
            with contextlib.suppress(OSError):  # the scheduler may not answer
                self.client.cancel(list(queue.running), force=True)


@dataclass(slots=True)
class _Round:
    """Queue of a run: scans that wait, and scans at work with their workers."""

    workers: Workers
    task: Callable[..., Any]
    scans: Sequence[PlannedScan]
    needs: Sequence[float | None]
    waiting: list[int]
    running: dict[Any, tuple[int, str]] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    limits: dict[str, float] = field(default_factory=dict)

    def step(self) -> list[ScanOutcome]:
        """Collect finished scans, assign new ones to free workers, and wait a little."""
        client = self.workers.client
        # from the scheduler itself: client.scheduler_info may be outdated, without any
        # workers
        scheduled = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        self.limits = {
            address: (worker.get("memory_limit") or float("inf")) / 1e9
            for address, worker in scheduled.items()
        }
        outcomes = [*self._ended(), *self._too_large()]
        self._assign()
        self._wait()
        return outcomes

    def in_work(self) -> str:
        """Return which scans are at work, in words."""
        if not self.running:
            return WAITING if self.waiting else "done"
        names = ", ".join(self.scans[number].id for number, _ in self.running.values())
        return names if len(names) < 60 else f"{len(self.running)} scans in work"

    def _ended(self) -> Iterator[ScanOutcome]:
        """Yield finished scans; those of dead workers wait again, or fail."""
        for future, (number, address) in list(self.running.items()):
            if future.status == "pending" and address in self.limits:
                continue
            if future.status == "finished":
                try:
                    value = future.result(timeout=_ANSWER_S)
                # its worker died before it sent the result: the next step knows, and
                # assigns the scan to another
                except (TimeoutError, CancelledError):
                    if address in self.limits:
                        continue
                else:
                    del self.running[future]
                    yield ScanOutcome(number, value, worker=address)
                    continue
            del self.running[future]
            if future.status == "error" and not _died(future):
                err = future.exception()
                yield ScanOutcome(
                    number,
                    None,
                    f"Unexpected {type(err).__name__} on {address}:"
                    f" {' '.join(str(err).split())}",
                    address,
                )
            else:
                yield from self._lost(future, number, address)

    def _lost(self, future: Any, number: int, address: str) -> Iterator[ScanOutcome]:
        status, gone = future.status, address not in self.limits
        self.workers.client.cancel([future], force=True)
        self.deaths[number] += 1
        times = self.deaths[number]
        self.workers.log_event(
            "worker died",
            scan=self.scans[number].id,
            worker=address,
            times=times,
            state="gone" if gone else status,
        )
        if times < self.workers.attempts:
            self.waiting.insert(0, number)
            return
        died = {1: "its worker", 2: "its worker twice"}.get(
            times, f"its worker {times} times"
        )
        advice = (
            "too little memory is the usual cause. Run it alone with --workers 1, or on"
            " a larger machine"
        )
        yield ScanOutcome(
            number,
            None,
            f"{self.scans[number].path} killed {died} and was given up; {advice}.",
            address,
        )

    def _too_large(self) -> Iterator[ScanOutcome]:
        """Yield failures for scans that are too large for every worker."""
        if self.running or not self.limits:
            return
        most = max(self._room(address, 0.0) for address in self.limits)
        for number in [one for one in self.waiting if (self.needs[one] or 0.0) > most]:
            self.waiting.remove(number)
            yield ScanOutcome(
                number,
                None,
                too_large(self.scans[number], self.needs[number] or 0.0, most),
            )

    def _room(self, address: str, used_gb: float) -> float:
        """Return the memory that a scan may take on a free worker, in GB."""
        budget = self.workers.budget_gb
        idle = len(self.limits) - len(self.running) - 1
        return (
            self.limits[address]
            if budget is None
            else min(self.limits[address], budget - used_gb - idle * IDLE_GB)
        )

    def _assign(self) -> None:
        """Assign to each free worker the first waiting scan that fits in memory."""
        busy = {address for _, address in self.running.values()}
        for address in sorted(set(self.limits) - busy):
            used = sum(
                self.needs[number] or IDLE_GB for number, _ in self.running.values()
            )
            room = self._room(address, used)
            number = next(
                (
                    one
                    for one in self.waiting
                    if (self.needs[one] or IDLE_GB) <= room or self.needs[one] is None
                ),
                None,
            )
            if number is None:
                continue
            self.waiting.remove(number)
            future = self.workers.client.submit(
                self.task, self.scans[number], workers=[address], pure=False, retries=0
            )
            self.running[future] = (number, address)
            self.workers.log_event(
                "started",
                scan=self.scans[number].id,
                worker=address,
                need_gb=self.needs[number],
            )

    def _wait(self) -> None:
        from distributed import wait

        # `step` asks what was lost, and why
        with (
            contextlib.suppress(TimeoutError, CancelledError),
            self.workers.client.as_current(),
        ):
            if self.running:
                wait(list(self.running), timeout=_TICK_S, return_when="FIRST_COMPLETED")
            else:
                self.workers.client.wait_for_workers(1, timeout=_TICK_S)


def _died(future: Any) -> bool:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    return isinstance(future.exception(), KilledWorker | FutureCancelledError)


def workers_here(
    settings: BatchSettings, needs_gb: Sequence[float], *, threads: int, cores: int
) -> int:
    """Return how many workers this machine takes: by cores, memory and scans.

    Parameters
    ----------
    settings : BatchSettings
        `workers` and `budget_gb`.
    needs_gb : sequence of float
        Estimates for the scans, in GB.
    threads : int
        Threads of each worker.
    cores : int
        Cores of the machine.
    """
    n_most = settings.workers or max(1, cores // max(threads, 1))
    budget = budget_here(settings)
    fitting_gb = [need for need in needs_gb if need <= budget] or [IDLE_GB]
    beside_largest = 1 + int((budget - max(fitting_gb)) / IDLE_GB)
    return max(
        1, min(n_most, len(needs_gb), int(budget / min(fitting_gb)), beside_largest)
    )


def budget_here(settings: BatchSettings) -> float:
    """Return the memory that may be used on this machine, in GB."""
    return settings.budget_gb or machine_gb()
