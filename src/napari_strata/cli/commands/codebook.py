"""The command `strata codebook fit`: tissues with the same numbers in several scans."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import add_encoder, add_modality, settings_of
from napari_strata.cli.terminal import (
    check_suffix,
    check_writable,
    print_skipped,
    progress,
)
from napari_strata.filenames import CODEBOOK_SUFFIX, printable
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_strata.batch.inputs.scans import PlannedScan
    from napari_strata.proposal.codebook.cohort_table import CohortTable


def add_command(commands: Any) -> None:
    """Add `codebook` to the command line."""
    parser = commands.add_parser(
        "codebook",
        help=(
            "make a codebook, which gives the same tissue the same number in every scan"
        ),
    )
    below = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    fit = below.add_parser(
        "fit", help="find tissues that mean the same in several scans"
    )
    fit.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help="scan files, folders to search (DICOM: one scan per series), or globs",
    )
    fit.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"codebook to write ({CODEBOOK_SUFFIX}), for --codebook of other commands",
    )
    fit.add_argument(
        "--tissues",
        type=int,
        default=16,
        metavar="N",
        help="how many tissues (default: 16)",
    )
    add_modality(fit)
    add_encoder(fit)
    fit.set_defaults(run=_fit)


def _fit(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    check_writable(arguments.output)
    check_suffix(arguments.output, CODEBOOK_SUFFIX)
    start = time.perf_counter()
    from napari_strata.batch.inputs.plan import plan_batch
    from napari_strata.proposal.codebook.codebook import check_tissues, fit_codebook

    check_tissues(arguments.tissues)
    plan = plan_batch(arguments.scans)
    print_skipped(plan.skipped)
    scans, show = plan.scans, progress(arguments.quiet)
    tables = _cohort_tables(scans, arguments, settings, run, show)
    show(len(scans), len(scans), "fitting the codebook")
    codebook = fit_codebook(tables, tissues=arguments.tissues, seed=run.seed)
    codebook.save(arguments.output)
    show(len(scans), len(scans), "done")
    for scan, table in zip(scans, tables, strict=True):
        assigned = codebook.apply(table)
        note = "" if assigned.fits else f"; note: {assigned.warning()}"
        print(f"{scan.id}: drift {assigned.drift:.2f}{note}", file=sys.stderr)
    print(
        f"{printable(arguments.output)}: {codebook.n} tissues from {len(scans)} scans"
        f" in {time.perf_counter() - start:.1f} s"
    )


def _cohort_tables(
    scans: Sequence[PlannedScan],
    arguments: argparse.Namespace,
    settings: ProposeSettings,
    run: RunSettings,
    show: Callable[[int, int, str], None],
) -> list[CohortTable]:
    """Propose every scan, and return what the codebook needs of each."""
    from napari_strata.io.files import read
    from napari_strata.pipeline import propose_with
    from napari_strata.proposal.codebook.cohort_table import cohort_table

    tables = []
    for number, scan in enumerate(scans):

        def show_stage(
            done: int, total: int, stage: str, number: int = number, name: str = scan.id
        ) -> None:
            if stage != "done":
                show(number, len(scans), f"{name}: {stage}")

        volume = read(scan.path, series=scan.series, modality=arguments.modality)
        proposal = propose_with(
            volume, settings, run, weights=arguments.weights, on_progress=show_stage
        )
        tables.append(cohort_table(proposal))
    return tables
