"""The command `strata batch`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_strata.batch.workers.local import FITTING, LOOKING, WAITING
from napari_strata.cli.codebook import open_codebook
from napari_strata.cli.teach import open_teaching
from napari_strata.cli.terminal import (
    add_recipe,
    add_settings,
    line_ended,
    passed_lines,
    settings_of,
    tell_passed,
)
from napari_strata.errors import SettingsError
from napari_strata.filenames import printable
from napari_strata.settings import BatchSettings, ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.batch.inputs.discovery import PassedOver
    from napari_strata.batch.inputs.scans import PlannedScan
    from napari_strata.batch.recipe import Recipe
    from napari_strata.batch.run import ScanResult

_MOST_TOLD = 40
"""Scans that are named at the end; the tables have all."""
_FORESEEN = {
    "make": "would make",
    "keep": "would keep",
    "leave": "would leave",
    "fail": "would fail",
}


def add_commands(commands: Any) -> None:
    """Add `batch` to the command line."""
    parser = commands.add_parser(
        "batch",
        help=(
            "propose regions for many scans, several at once with Dask; goes on where"
            " it stopped"
        ),
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help=(
            "scan files, folders to search (DICOM: one scan per series), BIDS data"
            " sets, globs, lists (CSV)"
        ),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="folder for labels, tables and page (BIDS: derivatives/strata in it)",
    )
    parser.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help="how to read intensities, if the scans do not say",
    )
    parser.add_argument(
        "--codebook-from",
        type=int,
        default=0,
        metavar="N",
        help="fit a codebook of --tissues to N of the scans first",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        action="append",
        default=[],
        metavar="CASES",
        help=(
            "carry out the edits of each scan's case (.strata) again: a case, or a"
            " folder with cases; may be repeated"
        ),
    )
    parser.add_argument(
        "--refit-codebook",
        action="store_true",
        help=(
            "with --codebook-from: fit anew where OUT has one that was fitted otherwise"
        ),
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    cut = add_recipe(parser)
    cut.add_argument(
        "--taught",
        type=Path,
        metavar="FILE",
        help="the regions that another scan's strokes taught (strata teach)",
    )
    add_settings(parser, BatchSettings)
    parser.set_defaults(run=batch)


def batch(arguments: argparse.Namespace) -> int:
    """Run a batch; give the exit code."""
    begun = time.perf_counter()
    settings = settings_of(arguments, BatchSettings, "batch")
    recipe = _recipe(arguments)
    from napari_strata.batch.inputs.plan import plan_batch
    from napari_strata.batch.outputs.page import write_page
    from napari_strata.batch.outputs.tables import collect
    from napari_strata.batch.run import run_batch
    from napari_strata.batch.workers.cluster import INSTALL, is_installed
    from napari_strata.batch.workers.process import only_writer

    output = _output(arguments)
    plan = plan_batch(arguments.inputs, leave_out=output)
    scans = _with_cases(plan.scans, arguments)
    _note_codebook(output, arguments)
    tell_passed(plan.passed)
    if arguments.dry_run:
        return max(
            _dry_run(scans, output, recipe, settings, arguments),
            _foretell_passed(plan.passed),
        )
    if not (
        arguments.quiet
        or settings.workers
        or settings.scheduler
        or settings.cluster
        or len(scans) < 3
        or is_installed()
    ):
        print(
            f"note: one scan at a time. To run several at once: {INSTALL}",
            file=sys.stderr,
        )
    recipe.check()  # before the folder is made
    show = BatchProgress(len(scans), quiet=arguments.quiet)
    # no other batch gets in between the scans and their tables
    with only_writer(output):
        with line_ended(show, quiet=arguments.quiet) as shown:
            results = run_batch(
                scans,
                output,
                recipe,
                settings=settings,
                codebook_from=arguments.codebook_from,
                refit_codebook=arguments.refit_codebook,
                on_progress=shown,
                on_result=show.took,
            )
        page = write_page(collect(results, output, plan.passed), output)
    _tell(results)
    if arguments.codebook_from:
        _tell_of_others(output, results)
    done, kept, failed = (
        sum(one.status == status for one in results)
        for status in ("done", "kept", "failed")
    )
    passed = f", {len(plan.passed)} passed over" if plan.passed else ""
    print(
        f"{printable(page)}: {done} done, {kept} kept, {failed} failed{passed} in"
        f" {time.perf_counter() - begun:.1f} s"
    )
    return int(failed > 0 or any(one.may_be_scan for one in plan.passed))


def _foretell_passed(passed: Sequence[PassedOver]) -> int:
    """Name in the plan of a dry run what is passed over; give the exit code."""
    for line in passed_lines(passed):
        print(f"passed over: {line}")
    doubted = sum(one.may_be_scan for one in passed)
    if passed:
        print(f"{len(passed)} passed over, of which {doubted} may be scans")
    return int(doubted > 0)


def _tell(results: Sequence[ScanResult]) -> None:
    """Name scans that failed, and then those that there is something to know of."""
    told = [one for one in results if one.status == "failed"] + [
        one for one in results if one.status != "failed" and one.warning
    ]
    for one in told[:_MOST_TOLD]:
        print(
            f"{one.scan.id}: {printable(one.reason or f'note: {one.warning}')}",
            file=sys.stderr,
        )
    if len(told) > _MOST_TOLD:
        print(
            f"and {len(told) - _MOST_TOLD} more: see failures.tsv and scans.tsv.",
            file=sys.stderr,
        )


def _tell_of_others(output: Path, results: Sequence[ScanResult]) -> None:
    """Tell of labels in the folder whose numbers mean other tissues than those of this run."""
    from napari_strata.batch.cohort import other_numbers

    if others := other_numbers(output.absolute(), results):
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        print(
            f"note: in {printable(output)} there are labels with another codebook's"
            f" numbers, of scans not named by this command ({names}; {len(others)} in"
            " all). Name them, too, to have them made anew.",
            file=sys.stderr,
        )


def _with_cases(
    scans: tuple[PlannedScan, ...], arguments: argparse.Namespace
) -> tuple[PlannedScan, ...]:
    """Give scans the cases that belong to them, and tell of cases that belong to none."""
    from napari_strata.batch.cases import with_cases

    found = with_cases(scans, arguments.replay)
    for note in found.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return found.scans


def _note_codebook(output: Path, arguments: argparse.Namespace) -> None:
    """Tell that a cohort's numbers are about to be lost.

    Where a command leaves out the codebook that was fitted for it.
    """
    from napari_strata.batch.cohort import CODEBOOK_NAME

    kept = output / CODEBOOK_NAME
    if kept.is_file() and not (
        arguments.codebook_from or arguments.codebook or arguments.taught
    ):
        print(
            f"note: {printable(kept)} is not used, so numbers mean something else in"
            " every scan. To use it, add --codebook-from as before.",
            file=sys.stderr,
        )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    if arguments.refit_codebook and not arguments.codebook_from:
        raise SettingsError(
            "--refit-codebook goes with --codebook-from N, for how many scans it is"
            " fitted to. Give both."
        )
    if arguments.codebook_from < 0 or (
        arguments.codebook_from and arguments.tissues is None
    ):
        raise SettingsError(
            "--codebook-from takes the number of scans to fit a codebook to, with"
            " --tissues for how many tissues. Give both."
        )
    from napari_strata.batch.recipe import Recipe

    codebook = (
        open_codebook(arguments.codebook, settings, arguments.weights)
        if arguments.codebook
        else None
    )
    teaching = (
        open_teaching(arguments.taught, settings, arguments.weights)
        if arguments.taught
        else None
    )
    tree: Literal["tissues", "regions"] = (
        "regions" if arguments.regions is not None else "tissues"
    )
    n = (
        codebook.n
        if codebook
        else len(teaching.regions)
        if teaching
        else getattr(arguments, tree)
    )
    weights = arguments.weights.absolute() if arguments.weights else None
    return Recipe(
        tree, n, settings, run, arguments.modality, weights, codebook, teaching
    )


def _output(arguments: argparse.Namespace) -> Path:
    """Give the output folder: derivatives/strata of a BIDS data set, where none was named."""
    if arguments.output is not None:
        return Path(arguments.output)
    from napari_strata.batch.inputs.bids import is_dataset

    if len(arguments.inputs) == 1 and is_dataset(Path(arguments.inputs[0])):
        return Path(arguments.inputs[0]) / "derivatives" / "strata"
    raise SettingsError(
        "Where should the outputs go? Name a folder with -o OUT; only for one BIDS data"
        " set it may be left out."
    )


def _dry_run(
    scans: Sequence[PlannedScan],
    output: Path,
    recipe: Recipe,
    settings: BatchSettings,
    arguments: argparse.Namespace,
) -> int:
    from napari_strata.batch.cohort import kept_codebook, sample_of
    from napari_strata.batch.run import foresee

    if arguments.codebook_from:
        kept = kept_codebook(
            output, recipe, arguments.codebook_from, refit=arguments.refit_codebook
        )
        recipe = recipe if kept is None else recipe.with_codebook(kept)
        names = ", ".join(
            scan.id
            for scan in sample_of(scans, arguments.codebook_from, recipe.run.seed)
        )
        print(
            f"codebook of {recipe.n} tissues,"
            f" {'to be fitted to' if kept is None else 'kept, fitted to'}: {names}"
        )
    found = foresee(
        scans,
        output,
        recipe,
        settings=settings,
        on_progress=BatchProgress(len(scans), quiet=arguments.quiet),
    )
    for one in found:
        need = "" if one.need_gb is None else f" [{one.need_gb:.1f} GB]"
        print(
            f"{one.scan.id}: {_FORESEEN[one.action]} ({printable(one.why)}){need}"
            f" {printable(one.scan.path)}"
        )
    counts = ", ".join(
        f"{text} {sum(one.action == action for one in found)}"
        for action, text in _FORESEEN.items()
    )
    print(f"{len(found)} scans: {counts}")
    return int(any(one.action == "fail" for one in found))


class BatchProgress:
    """Shows how far a batch is on stderr, and when it will be done.

    One line that changes on a terminal, plain lines elsewhere.

    Parameters
    ----------
    total : int
        Scans.
    quiet : bool
        Show nothing.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._quiet, self._clock = total, quiet, clock
        self._begun, self._live, self._last = clock(), sys.stderr.isatty(), ""
        self._made = self._failed = self._ended = 0
        self._work_began: float | None = None

    def took(self, result: ScanResult) -> None:
        """Count a result, and tell of it where lines stay."""
        self._ended += 1
        self._failed += result.status == "failed"
        self._made += result.status != "kept"
        if not self._quiet and not self._live:
            what = (
                f"{result.status} in {result.seconds:.0f} s"
                if result.seconds >= 1
                else result.status
            )
            print(
                f"{self.line()} {result.scan.id}: {what}", file=sys.stderr, flush=True
            )

    def line(self) -> str:
        """Say how many scans ended and failed, and about how long the rest takes."""
        now = self._clock()
        passed = now - self._begun
        failed = f", {self._failed} failed" if self._failed else ""
        left = ""
        if self._made and self._ended < self._total:
            worked = now - (
                self._begun if self._work_began is None else self._work_began
            )
            seconds = worked / self._made * (self._total - self._ended)
            left = f", about {duration(seconds)} left"
        return f"[{self._ended}/{self._total}{failed}, {duration(passed)}{left}]"

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Show what is going on.

        The first call is when the work begins, after workers were started and what
        stands was found.
        """
        if stage == FITTING:
            # the first pass tells nothing of how long the second takes
            self._work_began = None
        elif self._work_began is None and stage != WAITING:
            self._work_began = self._clock()
        if self._quiet:
            return
        if self._live:
            text = f"{self.line()} {stage}"[
                : max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
            ]
            print(
                f"\r\033[K{text}",
                end="\n" if stage == "done" else "",
                file=sys.stderr,
                flush=True,
            )
        elif stage != self._last and stage in (LOOKING, FITTING, WAITING):
            of = f" ({total} scans)" if stage == LOOKING else ""
            print(f"{self.line()} {stage}{of}", file=sys.stderr, flush=True)
        self._last = stage


def duration(seconds: float) -> str:
    """Spell seconds as a person would: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min"
        if minutes < 90
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
