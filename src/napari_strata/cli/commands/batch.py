"""The command `strata batch`: many scans, several at once, continued where it stopped."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.batch_progress import BatchProgress
from napari_strata.cli.flags import (
    add_modality,
    add_recipe,
    add_settings,
    label_source,
    settings_of,
)
from napari_strata.cli.terminal import line_ended, print_skipped, skipped_lines
from napari_strata.errors import SettingsError
from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.settings import BatchSettings, ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.batch.inputs.discovery import SkippedPath
    from napari_strata.batch.inputs.scans import PlannedScan
    from napari_strata.batch.recipe import Recipe
    from napari_strata.batch.run import ScanResult

_MAX_NAMED = 40
"""Scans that are named at the end of a run; the tables have all of them."""
_EXAMPLES = 3
"""Labels of other codebooks that are named as examples."""
_INSTALL_HINT_FROM = 3
"""Scans from which it pays to say that Dask would run several at once."""
_ACTIONS = {
    "make": "would make",
    "keep": "would keep",
    "leave": "would leave",
    "fail": "would fail",
}
"""Words of a dry run for what would be done with a scan."""


def add_command(commands: Any) -> None:
    """Add `batch` to the command line."""
    parser = commands.add_parser(
        "batch",
        help=(
            "propose regions for many scans, several at once with Dask; continues where"
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
        help=(
            "folder for labels, tables and page (default for a BIDS data set:"
            " derivatives/strata in it)"
        ),
    )
    add_modality(parser)
    parser.add_argument(
        "--codebook-from",
        type=int,
        default=0,
        metavar="N",
        help="first fit a codebook of --tissues to N of the scans",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        action="append",
        default=[],
        metavar="CASES",
        help=(
            f"repeat the edits of each scan's case ({CASE_SUFFIX}): a case, or a folder"
            " with cases; may be given several times"
        ),
    )
    parser.add_argument(
        "--refit-codebook",
        action="store_true",
        help=(
            "with --codebook-from: fit a new codebook if the one in OUT was fitted"
            " differently"
        ),
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and do nothing"
    )
    add_recipe(parser)
    add_settings(parser, BatchSettings)
    parser.set_defaults(run=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Run a batch; return the exit code."""
    start = time.perf_counter()
    settings = settings_of(arguments, BatchSettings, "batch")
    recipe = _recipe(arguments)
    from napari_strata.batch.inputs.plan import plan_batch
    from napari_strata.batch.outputs.tables_and_page import write_tables_and_page
    from napari_strata.batch.run import run_batch
    from napari_strata.batch.workers.process import only_writer

    output = _output_folder(arguments)
    plan = plan_batch(arguments.inputs, leave_out=output)
    scans = _with_cases(plan.scans, arguments)
    _warn_of_unused_codebook(output, arguments)
    print_skipped(plan.skipped)
    if arguments.dry_run:
        return max(
            _dry_run(scans, output, recipe, settings, arguments),
            _dry_run_skipped(plan.skipped),
        )
    if not arguments.quiet and len(scans) >= _INSTALL_HINT_FROM:
        _suggest_workers(settings)
    recipe.check()  # before the folder is made
    show = BatchProgress(len(scans), quiet=arguments.quiet)
    # no other batch may write between the scans and their tables
    with only_writer(output):
        with line_ended(show, quiet=arguments.quiet) as show_stage:
            results = run_batch(
                scans,
                output,
                recipe,
                settings=settings,
                codebook_from=arguments.codebook_from,
                refit_codebook=arguments.refit_codebook,
                on_progress=show_stage,
                on_result=show.add_result,
            )
        _, page = write_tables_and_page(results, output, plan.skipped)
    if not arguments.quiet:
        _note_one_by_one(settings)
    _print_problems(results)
    if arguments.codebook_from:
        _warn_of_other_numbers(output, results)
    done, kept, failed = (
        sum(result.status == status for result in results)
        for status in ("done", "kept", "failed")
    )
    skipped = f", {len(plan.skipped)} passed over" if plan.skipped else ""
    print(
        f"{printable(page)}: {done} done, {kept} kept, {failed} failed{skipped} in"
        f" {time.perf_counter() - start:.1f} s"
    )
    return int(failed > 0 or any(path.may_be_scan for path in plan.skipped))


def _suggest_workers(settings: BatchSettings) -> None:
    """Print how to run several scans at once, if Dask is missing and no choice was made."""
    from napari_strata.batch.workers.cluster import INSTALL, is_installed

    is_chosen = settings.workers or settings.scheduler or settings.cluster
    if not is_chosen and not is_installed():
        print(
            f"note: one scan at a time. To run several at once: {INSTALL}",
            file=sys.stderr,
        )


def _note_one_by_one(settings: BatchSettings) -> None:
    """Print that the workers that were asked for did not run, if Dask is missing.

    This holds after a run only: with two scans or more to propose, the run is refused.
    """
    from napari_strata.batch.workers.cluster import INSTALL, is_installed

    is_remote = settings.scheduler or settings.cluster
    if settings.workers > 1 and not is_remote and not is_installed():
        print(
            f"note: scans ran one by one, not on {settings.workers} workers: Dask is not"
            f" installed. To run several at once: {INSTALL}",
            file=sys.stderr,
        )


def _dry_run_skipped(skipped: Sequence[SkippedPath]) -> int:
    """Print what the search passed over; return the exit code."""
    for line in skipped_lines(skipped):
        print(f"passed over: {line}")
    possible_scans = sum(path.may_be_scan for path in skipped)
    if skipped:
        print(f"{len(skipped)} passed over, of which {possible_scans} may be scans")
    return int(possible_scans > 0)


def _print_problems(results: Sequence[ScanResult]) -> None:
    """Print the scans that failed, then those with a warning."""
    failed = [result for result in results if result.status == "failed"]
    warned = [
        result for result in results if result.status != "failed" and result.warning
    ]
    problems = failed + warned
    for result in problems[:_MAX_NAMED]:
        text = result.reason or f"note: {result.warning}"
        print(f"{result.scan.id}: {printable(text)}", file=sys.stderr)
    if len(problems) > _MAX_NAMED:
        from napari_strata.batch.outputs.names import FAILURES, SCANS

        print(
            f"and {len(problems) - _MAX_NAMED} more: see {FAILURES} and {SCANS}.",
            file=sys.stderr,
        )


def _warn_of_other_numbers(output: Path, results: Sequence[ScanResult]) -> None:
    """Print which labels in the folder have the numbers of another codebook."""
    from napari_strata.batch.cohort import other_numbers

    if others := other_numbers(output.absolute(), results):
        names = ", ".join(others[:_EXAMPLES]) + (
            ", ..." if len(others) > _EXAMPLES else ""
        )
        print(
            f"note: {printable(output)} holds labels with the numbers of another"
            f" codebook, of scans that this command does not name ({names};"
            f" {len(others)} in all). Name these scans too to make their labels again.",
            file=sys.stderr,
        )


def _with_cases(
    scans: tuple[PlannedScan, ...], arguments: argparse.Namespace
) -> tuple[PlannedScan, ...]:
    """Return the scans with their cases; print which cases belong to no scan."""
    from napari_strata.batch.cases import with_cases

    matched = with_cases(scans, arguments.replay)
    for note in matched.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return matched.scans


def _warn_of_unused_codebook(output: Path, arguments: argparse.Namespace) -> None:
    """Print that the codebook in the folder is not used, so that numbers change."""
    from napari_strata.batch.outputs.names import COHORT_CODEBOOK

    codebook = output / COHORT_CODEBOOK
    if codebook.is_file() and not (
        arguments.codebook_from or arguments.codebook or arguments.taught
    ):
        print(
            f"note: {printable(codebook)} is not used, so a number means another tissue"
            " in every scan. To use it, add --codebook-from as before.",
            file=sys.stderr,
        )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    if arguments.refit_codebook and not arguments.codebook_from:
        raise SettingsError(
            "--refit-codebook needs --codebook-from N: how many scans to fit the"
            " codebook to. Give both."
        )
    if arguments.codebook_from < 0 or (
        arguments.codebook_from and arguments.tissues is None
    ):
        raise SettingsError(
            "--codebook-from needs a number of scans of at least 1, and --tissues N for"
            " the number of tissues. Give both."
        )
    from napari_strata.batch.recipe import Recipe

    return Recipe.of_source(
        label_source(arguments, settings),
        settings,
        run,
        modality=arguments.modality,
        weights=arguments.weights.absolute() if arguments.weights else None,
    )


def _output_folder(arguments: argparse.Namespace) -> Path:
    """Return the output folder; by default derivatives/strata of a BIDS data set."""
    if arguments.output is not None:
        return Path(arguments.output)
    from napari_strata.batch.inputs.bids import is_dataset

    if len(arguments.inputs) == 1 and is_dataset(Path(arguments.inputs[0])):
        return Path(arguments.inputs[0]) / "derivatives" / "strata"
    raise SettingsError(
        "No output folder was given. Name one with -o OUT; it may be left out only if"
        " the input is one BIDS data set."
    )


def _dry_run(
    scans: Sequence[PlannedScan],
    output: Path,
    recipe: Recipe,
    settings: BatchSettings,
    arguments: argparse.Namespace,
) -> int:
    from napari_strata.batch.cohort import kept_codebook, sample_of
    from napari_strata.batch.run import plan_actions

    if arguments.codebook_from:
        codebook = kept_codebook(
            output, recipe, arguments.codebook_from, refit=arguments.refit_codebook
        )
        sample = sample_of(scans, arguments.codebook_from, recipe.run.seed)
        names = ", ".join(scan.id for scan in sample)
        state = "to be fitted to" if codebook is None else "kept, fitted to"
        print(f"codebook of {recipe.n} tissues, {state}: {names}")
        if codebook is not None:
            recipe = recipe.with_codebook(codebook)
    planned = plan_actions(
        scans,
        output,
        recipe,
        settings=settings,
        on_progress=BatchProgress(len(scans), quiet=arguments.quiet),
    )
    for action in planned:
        need = "" if action.need_gb is None else f" [{action.need_gb:.1f} GB]"
        print(
            f"{action.scan.id}: {_ACTIONS[action.action]}"
            f" ({printable(action.reason)}){need} {printable(action.scan.path)}"
        )
    counts = ", ".join(
        f"{text} {sum(action.action == name for action in planned)}"
        for name, text in _ACTIONS.items()
    )
    print(f"{len(planned)} scans: {counts}")
    return int(any(action.action == "fail" for action in planned))
