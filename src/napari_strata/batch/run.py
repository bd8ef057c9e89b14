"""A batch: every scan through the same work, here or on workers.

Past failures and what is done, into tables and a page.
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
from napari_strata.batch.inputs.bids import write_description
from napari_strata.batch.inputs.plan import PlannedScan
from napari_strata.batch.log import RunLog
from napari_strata.batch.one_scan import Work
from napari_strata.batch.outputs.results import (
    ScanResult,
    check_names,
    layout_of,
    outputs_of,
    sweep,
)
from napari_strata.batch.recipe import Recipe
from napari_strata.batch.resume import EarlierResult, look
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
    Say,
    ScanOutcome,
    too_large,
)
from napari_strata.batch.workers.memory import IDLE_GB, core_count, estimate_gb
from napari_strata.batch.workers.process import only_writer
from napari_strata.errors import StrataError
from napari_strata.io.header import header_shape
from napari_strata.pipeline import versions
from napari_strata.proposal.methods.registry import find_method
from napari_strata.settings import BatchSettings
from napari_strata.volume import Progress, no_progress

__all__ = ["Foreseen", "Recipe", "ScanResult", "foresee", "run_batch"]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a batch would do with a scan.

    Parameters
    ----------
    scan : PlannedScan
        The scan.
    action : {"make", "keep", "leave", "fail"}
        "leave": labels changed by hand, which stay; "fail": the scan cannot be read or
        is too large.
    why : str
        In a few words.
    need_gb : float or None
        Memory that it is expected to take.
    """

    scan: PlannedScan
    action: str
    why: str
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

    Each scan gives ID_labels.nii.gz on its own grid, with ID_labels.json and
    ID_labels.csv; scans of one BIDS data set give a derivative data set. A scan is
    passed over where these stand, and the sidecar names the same contents of scan and
    labels, settings, seed, weights, cut, codebook or teaching, modality, series and
    version. The device and the number of threads are not compared. What happens is told
    in batch.jsonl.

    Parameters
    ----------
    scans : sequence of PlannedScan
        From `plan_scans`.
    folder, recipe : str or Path, Recipe
        Where the outputs go, made if need be (one batch at a time may write there); and
        what is done with every scan.
    settings : BatchSettings, optional
        How many scans run at once, and where. Without it one after another in this
        process, which needs no Dask; with it a script has to guard its main part (``if
        __name__ == "__main__":``), as for any worker processes.
    codebook_from, refit_codebook : int, bool
        Fit a codebook of the recipe's `n` tissues to so many of the scans first (0:
        none), and let it take the place of another.
    on_progress, on_result : callable
        Called as (scans ended, scans, what is going on); raise `Cancelled` in it to
        stop. And with each result as it comes.

    Returns
    -------
    tuple of ScanResult
        One per scan, in order. A scan that cannot be read, proposed or written is
        "failed", and the rest goes on.

    Raises
    ------
    WriteError
        If the folder cannot be made, another batch is writing there, or two scans would
        have one name.
    WeightsError, SettingsError, CodebookError
        If the weights, the device or the codebook cannot be used for any scan, or the
        folder has a codebook that was fitted otherwise.
    ClusterError
        If workers are asked for and cannot be had.
    Cancelled
        From `on_progress`.
    """
    recipe.check()
    target = Path(folder).absolute()
    with only_writer(target):
        sweep(target)
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
    """A batch in a folder that nobody else writes to."""

    scans: tuple[PlannedScan, ...]
    folder: Path
    recipe: Recipe
    settings: BatchSettings
    log: RunLog
    on_result: Callable[[ScanResult], None]

    def run(
        self, codebook_from: int, refit: bool, on_progress: Progress
    ) -> tuple[ScanResult, ...]:
        """Fit a codebook if asked, and work on the scans.

        Workers are started only when there is something for them to do.
        """
        recipe, engine = self.recipe, None
        with contextlib.ExitStack() as stack:
            if codebook_from:
                book = kept_codebook(self.folder, recipe, codebook_from, refit=refit)
                if book is None:
                    engine = stack.enter_context(
                        _engine(self.scans, recipe, self.settings, self.log.add)
                    )
                    chosen = sample_of(self.scans, codebook_from, recipe.run.seed)
                    book = cohort_codebook(
                        chosen,
                        self.folder,
                        recipe,
                        engine,
                        count=codebook_from,
                        say=self.log.add,
                        on_progress=on_progress,
                    )
                recipe = recipe.with_codebook(book)
            layout = layout_of(self.scans)
            check_names(self.scans, self.folder, layout)
            if layout == "bids" and self.scans[0].bids is not None:
                write_description(
                    self.folder, self.scans[0].bids.root, recipe.in_words()
                )
            work = Work(self.folder, recipe, layout)
            results = self._standing(work)
            rest = [
                number for number in range(len(self.scans)) if number not in results
            ]
            if rest and engine is None:
                left = [self.scans[number] for number in rest]
                engine = stack.enter_context(
                    _engine(left, recipe, self.settings, self.log.add)
                )
            if engine is not None:
                results |= self._made(rest, work, engine, on_progress)
        return tuple(results[number] for number in range(len(self.scans)))

    def _standing(self, work: Work) -> dict[int, ScanResult]:
        """Find what stands, before workers are started.

        A cluster's workers, which may read faster, find it themselves.
        """
        if self.settings.scheduler or self.settings.cluster:
            return {}
        with ThreadPoolExecutor(core_count()) as readers:
            found = {
                number: one
                for number, one in enumerate(readers.map(work.standing, self.scans))
                if one is not None
            }
        for one in found.values():
            self._took(one)
        return found

    def _made(
        self, rest: list[int], work: Work, engine: Executor, on_progress: Progress
    ) -> dict[int, ScanResult]:
        before, scans, results = (
            len(self.scans) - len(rest),
            [self.scans[number] for number in rest],
            {},
        )

        def show(done: int, total: int, stage: str) -> None:
            on_progress(before + done, before + total, stage)

        with contextlib.closing(engine.run(work, scans, show)) as outcomes:
            for outcome in outcomes:
                result = results[rest[outcome.number]] = _result(
                    outcome, scans[outcome.number], work
                )
                self._took(result)
        return results

    def _took(self, result: ScanResult) -> None:
        """Write a line about a scan, without what is empty; and pass it on."""
        said: dict[str, Any] = {
            "path": str(result.scan.path),
            "series": result.scan.series,
        }
        for name in ("reason", "warning", "seconds", "peak_gb", "worker", "traceback"):
            said[name] = getattr(result, name)
        self.log.add(
            result.status,
            scan=result.scan.id,
            **{key: value for key, value in said.items() if value},
        )
        self.on_result(result)


@contextmanager
def _engine(
    scans: Sequence[PlannedScan], recipe: Recipe, settings: BatchSettings, say: Say
) -> Iterator[Executor]:
    """Choose where scans run.

    Here, where one worker is asked for or nothing else is there; else on workers.
    """
    needs = {
        scan: estimate_gb(scan, recipe.settings, threads=recipe.threads)
        for scan in scans
    }
    away = bool(settings.scheduler or settings.cluster)
    budget = settings.budget_gb or (None if away else budget_here(settings))
    if not away and (
        settings.workers == 1
        or len(scans) < 2
        or (settings.workers == 0 and not _workers_pay(recipe))
    ):
        say("engine", kind="this process", threads=recipe.threads, budget_gb=budget)
        yield LocalExecutor(needs.__getitem__, budget or 0.0)
        return
    known = [need or IDLE_GB for need in needs.values()]
    count = (
        settings.workers
        if away
        else workers_here(settings, known, threads=recipe.threads, cores=core_count())
    )
    with open_workers(settings, workers=count, budget_gb=budget or 0.0) as client:
        where = settings.scheduler or settings.cluster or "this machine"
        say(
            "engine",
            kind="dask",
            where=where,
            workers=count or None,
            threads=recipe.threads,
            budget_gb=budget,
        )
        yield Workers(client, needs.__getitem__, budget, settings.attempts, say)


def _workers_pay(recipe: Recipe) -> bool:
    """Say whether to start workers unasked.

    Not without Dask, and not where all would share one GPU.
    """
    if not is_installed():
        return False
    method = find_method(recipe.settings.method)
    if recipe.run.device == "cpu" or not method.needs_encoder:
        return True
    from napari_strata.encoder.network import pick_device

    return pick_device(recipe.run.device).type == "cpu"


def _result(outcome: ScanOutcome, scan: PlannedScan, work: Work) -> ScanResult:
    if isinstance(outcome.value, ScanResult):
        return replace(outcome.value, worker=outcome.worker)
    return ScanResult(
        scan,
        outputs_of(scan, work.folder, work.layout),
        "failed",
        outcome.reason,
        worker=outcome.worker,
    )


def foresee(
    scans: Sequence[PlannedScan],
    folder: str | Path,
    recipe: Recipe,
    *,
    settings: BatchSettings | None = None,
    on_progress: Progress = no_progress,
) -> tuple[Foreseen, ...]:
    """Say what `run_batch` would do, and do nothing.

    Contents are compared, so every scan that has labels is read through.

    Parameters
    ----------
    scans, folder, recipe, settings
        As `run_batch` takes them.
    on_progress : callable
        Called as (scans looked at, scans, id).

    Raises
    ------
    WeightsError, SettingsError, CodebookError
        If nothing could start.
    WriteError
        If two scans would have one name.
    """
    recipe.check()
    target, layout = Path(folder).absolute(), layout_of(scans)
    check_names(scans, target, layout)
    chosen = settings or BatchSettings()
    budget = chosen.budget_gb or (
        float("inf") if chosen.scheduler or chosen.cluster else budget_here(chosen)
    )
    found = []
    for number, scan in enumerate(scans):
        on_progress(number, len(scans), scan.id)
        need = estimate_gb(scan, recipe.settings, threads=recipe.threads)
        try:
            seen = look(scan, outputs_of(scan, target, layout), recipe.of(scan))
            if seen.action == "make" and need is None:
                header_shape(scan.path, series=scan.series)
            elif seen.action == "make" and need is not None and need > budget:
                seen = EarlierResult("fail", too_large(scan, need, budget))
        except StrataError as err:
            seen = EarlierResult("fail", " ".join(str(err).split()))
        found.append(Foreseen(scan, seen.action, seen.why, need))
    return tuple(found)
