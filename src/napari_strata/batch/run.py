"""Run of a batch: every scan through the same task, here or on workers.

A scan that fails does not stop the others; finished ones are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_strata.batch.cohort import cohort_codebook, kept_codebook, sample_of
from napari_strata.batch.inputs.plan import PlannedScan
from napari_strata.batch.log import RunLog
from napari_strata.batch.one_scan import ScanTask
from napari_strata.batch.outputs.bids_derivative import write_description
from napari_strata.batch.outputs.results import (
    ScanResult,
    check_names,
    layout_of,
    outputs_of,
    remove_unfinished,
)
from napari_strata.batch.recipe import Recipe
from napari_strata.batch.resume import EarlierResult, check_earlier
from napari_strata.batch.workers.cluster import (
    Workers,
    budget_here,
    is_installed,
    open_workers,
    workers_here,
)
from napari_strata.batch.workers.local import (
    Executor,
    LocalExecutor,
    LogEvent,
    ScanOutcome,
    too_large,
)
from napari_strata.batch.workers.memory import IDLE_GB, estimate_gb
from napari_strata.batch.workers.process import only_writer
from napari_strata.deprecated import moved_names
from napari_strata.errors import StrataError
from napari_strata.io.header import header_shape
from napari_strata.machine import core_count
from napari_strata.pipeline import versions
from napari_strata.proposal.methods.registry import find_method
from napari_strata.settings import BatchSettings
from napari_strata.volume import Progress, no_progress

__all__ = ["PlannedAction", "Recipe", "ScanResult", "plan_actions", "run_batch"]


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """What a batch would do with a scan.

    Parameters
    ----------
    scan : PlannedScan
        The scan.
    action : {"make", "keep", "leave", "fail"}
        "leave": labels changed by hand, which stay; "fail": the scan cannot be read or
        is too large.
    reason : str
        Reason, in a few words.
    need_gb : float or None
        Estimated peak memory; None if unknown.
    """

    scan: PlannedScan
    action: str
    reason: str
    need_gb: float | None


def run_batch(
    scans: Sequence[PlannedScan],
    folder: str | Path,
    recipe: Recipe,
    *,
    settings: BatchSettings | None = None,
    codebook_from: int = 0,
    refit_codebook: bool = False,
    on_progress: Progress = no_progress,
    on_result: Callable[[ScanResult], None] = lambda result: None,
) -> tuple[ScanResult, ...]:
    """Propose regions for every scan and write them to a folder.

    Each scan gets ID_labels.nii.gz on its own grid, with ID_labels.json and
    ID_labels.csv; scans of one BIDS data set get a derivative data set. Outputs are kept
    if the sidecar has the same contents of scan and labels, settings, seed, weights, cut,
    codebook or teaching, modality, series and version. The device and the number of
    threads are not compared. Events are logged in batch.jsonl.

    Parameters
    ----------
    scans : sequence of PlannedScan
        From `plan_scans`.
    folder, recipe : str or Path, Recipe
        Output folder, made if need be (one batch at a time may write there); and what
        is done with every scan.
    settings : BatchSettings, optional
        How many scans run at once, and where. Without settings, one after another in
        this process, which needs no Dask. With settings, a script must guard its main
        part (``if __name__ == "__main__":``), as for any worker processes.
    codebook_from, refit_codebook : int, bool
        First fit a codebook of the recipe's `n` tissues to this many of the scans (0:
        no codebook); and whether it may replace one that was fitted differently.
    on_progress, on_result : callable
        Called as (scans ended, scans, stage); raise `Cancelled` in it to stop.
        And called with each result when it is ready.

    Returns
    -------
    tuple of ScanResult
        One per scan, in order. A scan that cannot be read, proposed or written is
        "failed"; the others continue.

    Raises
    ------
    WriteError
        If the folder cannot be made, another batch is writing there, or two scans would
        have the same name.
    WeightsError, SettingsError, CodebookError
        If the weights, the device or the codebook cannot be used for any scan, or the
        folder has a codebook that was fitted differently.
    ClusterError
        If workers cannot be started.
    Cancelled
        From `on_progress`.
    """
    recipe.check()
    target = Path(folder).absolute()
    with only_writer(target):
        remove_unfinished(target)
        log = RunLog(target)
        log.add(
            "run started",
            scans=len(scans),
            cut={recipe.tree: recipe.n},
            settings=recipe.settings.to_dict(),
            versions=versions(),
        )
        batch = _Batch(
            tuple(scans),
            target,
            recipe,
            settings or BatchSettings(workers=1),
            log,
            on_result,
        )
        results = batch.run(codebook_from, refit_codebook, on_progress)
        log.add(
            "run ended",
            **{
                status: sum(one.status == status for one in results)
                for status in ("done", "kept", "failed")
            },
        )
    on_progress(len(scans), len(scans), "done")
    return results


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch in a folder that only this process writes to."""

    scans: tuple[PlannedScan, ...]
    folder: Path
    recipe: Recipe
    settings: BatchSettings
    log: RunLog
    on_result: Callable[[ScanResult], None]

    def run(
        self, codebook_from: int, refit: bool, on_progress: Progress
    ) -> tuple[ScanResult, ...]:
        """Fit a codebook if asked, then label the scans.

        Workers are started only if there is something to do.
        """
        recipe, executor = self.recipe, None
        with contextlib.ExitStack() as stack:
            if codebook_from:
                codebook = kept_codebook(
                    self.folder, recipe, codebook_from, refit=refit
                )
                if codebook is None:
                    executor = stack.enter_context(
                        _executor(self.scans, recipe, self.settings, self.log.add)
                    )
                    chosen = sample_of(self.scans, codebook_from, recipe.run.seed)
                    codebook = cohort_codebook(
                        chosen,
                        self.folder,
                        recipe,
                        executor,
                        count=codebook_from,
                        log_event=self.log.add,
                        on_progress=on_progress,
                    )
                recipe = recipe.with_codebook(codebook)
            layout = layout_of(self.scans)
            check_names(self.scans, self.folder, layout)
            if layout == "bids" and self.scans[0].bids is not None:
                write_description(
                    self.folder, self.scans[0].bids.root, recipe.in_words()
                )
            task = ScanTask(self.folder, recipe, layout)
            results = self._earlier_results(task)
            rest = [
                number for number in range(len(self.scans)) if number not in results
            ]
            if rest and executor is None:
                left = [self.scans[number] for number in rest]
                executor = stack.enter_context(
                    _executor(left, recipe, self.settings, self.log.add)
                )
            if executor is not None:
                results |= self._run_tasks(rest, task, executor, on_progress)
        return tuple(results[number] for number in range(len(self.scans)))

    def _earlier_results(self, task: ScanTask) -> dict[int, ScanResult]:
        """Return the results that are up to date, before workers are started.

        Workers of a cluster, which may read faster, check it themselves.
        """
        if self.settings.scheduler or self.settings.cluster:
            return {}
        with ThreadPoolExecutor(core_count()) as readers:
            results = {
                number: one
                for number, one in enumerate(
                    readers.map(task.earlier_result, self.scans)
                )
                if one is not None
            }
        for one in results.values():
            self._record_result(one)
        return results

    def _run_tasks(
        self, rest: list[int], task: ScanTask, executor: Executor, on_progress: Progress
    ) -> dict[int, ScanResult]:
        before, scans, results = (
            len(self.scans) - len(rest),
            [self.scans[number] for number in rest],
            {},
        )

        def show(done: int, total: int, stage: str) -> None:
            on_progress(before + done, before + total, stage)

        with contextlib.closing(executor.run(task, scans, show)) as outcomes:
            for outcome in outcomes:
                result = results[rest[outcome.number]] = _result(
                    outcome, scans[outcome.number], task
                )
                self._record_result(result)
        return results

    def _record_result(self, result: ScanResult) -> None:
        """Log a result without empty values, and pass it on."""
        values: dict[str, Any] = {
            "path": str(result.scan.path),
            "series": result.scan.series,
        }
        for name in ("reason", "warning", "seconds", "peak_gb", "worker", "traceback"):
            values[name] = getattr(result, name)
        self.log.add(
            result.status,
            scan=result.scan.id,
            **{key: value for key, value in values.items() if value},
        )
        self.on_result(result)


@contextmanager
def _executor(
    scans: Sequence[PlannedScan],
    recipe: Recipe,
    settings: BatchSettings,
    log_event: LogEvent,
) -> Iterator[Executor]:
    """Yield the executor: this process for one worker or without Dask, else workers."""
    needs = {
        scan: estimate_gb(scan, recipe.settings, threads=recipe.threads)
        for scan in scans
    }
    is_remote = bool(settings.scheduler or settings.cluster)
    budget = settings.budget_gb or (None if is_remote else budget_here(settings))
    if not is_remote and (
        settings.workers == 1
        or len(scans) < 2
        or (settings.workers == 0 and not _workers_pay(recipe))
    ):
        log_event(
            "engine", kind="this process", threads=recipe.threads, budget_gb=budget
        )
        yield LocalExecutor(needs.__getitem__, budget or 0.0)
        return
    known_gb = [need or IDLE_GB for need in needs.values()]
    count = (
        settings.workers
        if is_remote
        else workers_here(
            settings, known_gb, threads=recipe.threads, cores=core_count()
        )
    )
    with open_workers(settings, workers=count, budget_gb=budget or 0.0) as client:
        where = settings.scheduler or settings.cluster or "this machine"
        log_event(
            "engine",
            kind="dask",
            where=where,
            workers=count or None,
            threads=recipe.threads,
            budget_gb=budget,
        )
        yield Workers(client, needs.__getitem__, budget, settings.attempts, log_event)


def _workers_pay(recipe: Recipe) -> bool:
    """Return whether to start workers by default.

    Not without Dask, and not if all would share one GPU.
    """
    if not is_installed():
        return False
    method = find_method(recipe.settings.method)
    if recipe.run.device == "cpu" or not method.needs_encoder:
        return True
    from napari_strata.encoder.runtime.select import device_in_use

    run = recipe.run
    return (
        device_in_use(recipe.weights, runtime=run.runtime, device=run.device) == "cpu"
    )


def _result(outcome: ScanOutcome, scan: PlannedScan, work: ScanTask) -> ScanResult:
    if isinstance(outcome.value, ScanResult):
        return replace(outcome.value, worker=outcome.worker)
    return ScanResult(
        scan,
        outputs_of(scan, work.folder, work.layout),
        "failed",
        outcome.reason,
        worker=outcome.worker,
    )


def plan_actions(
    scans: Sequence[PlannedScan],
    folder: str | Path,
    recipe: Recipe,
    *,
    settings: BatchSettings | None = None,
    on_progress: Progress = no_progress,
) -> tuple[PlannedAction, ...]:
    """Return what `run_batch` would do with each scan, and do nothing.

    Contents are compared, so every scan that has labels is read.

    Parameters
    ----------
    scans, folder, recipe, settings
        As for `run_batch`.
    on_progress : callable
        Called as (scans checked, scans, id).

    Raises
    ------
    WeightsError, SettingsError, CodebookError
        If no scan could be started.
    WriteError
        If two scans would have the same name.
    """
    recipe.check()
    target, layout = Path(folder).absolute(), layout_of(scans)
    check_names(scans, target, layout)
    chosen = settings or BatchSettings()
    budget = chosen.budget_gb or (
        float("inf") if chosen.scheduler or chosen.cluster else budget_here(chosen)
    )
    actions = []
    for number, scan in enumerate(scans):
        on_progress(number, len(scans), scan.id)
        need = estimate_gb(scan, recipe.settings, threads=recipe.threads)
        try:
            earlier = check_earlier(
                scan, outputs_of(scan, target, layout), recipe.of(scan)
            )
            if earlier.action == "make" and need is None:
                header_shape(scan.path, series=scan.series)
            elif earlier.action == "make" and need is not None and need > budget:
                earlier = EarlierResult("fail", too_large(scan, need, budget))
        except StrataError as err:
            earlier = EarlierResult("fail", " ".join(str(err).split()))
        actions.append(PlannedAction(scan, earlier.action, earlier.reason, need))
    return tuple(actions)


__getattr__ = moved_names("batch.run")
