"""The command `strata codebook fit`, and what `--codebook` needs in other commands."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.terminal import (
    add_settings,
    check_writable,
    progress,
    settings_of,
    tell_passed,
)
from napari_strata.errors import WriteError
from napari_strata.filenames import printable
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.proposal.codebook.codebook import Codebook
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.volume import Segmentation

_SUFFIX = ".strata-codebook"


def add_commands(commands: Any) -> None:
    """Add `codebook` to the command line."""
    parser = commands.add_parser(
        "codebook",
        help=(
            "make a codebook, which gives the same tissue the same number in every scan"
        ),
    )
    below = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    fit = below.add_parser(
        "fit", help="find tissues that mean the same in all of some scans"
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
        help=f"codebook to write ({_SUFFIX}), for --codebook of other commands",
    )
    fit.add_argument(
        "--tissues",
        type=int,
        default=16,
        metavar="N",
        help="how many tissues (default: 16)",
    )
    fit.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help="how to read intensities, if the scans do not say",
    )
    fit.add_argument(
        "--encoder",
        "--weights",
        dest="weights",
        type=Path,
        help="other weights, a description (.toml), a MONAI bundle",
    )
    fit.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [propose] and [run] tables; flags win",
    )
    fit.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(fit, RunSettings)
    add_settings(fit, ProposeSettings)
    fit.set_defaults(run=_fit)


def open_codebook(
    path: Path, settings: ProposeSettings, weights: Path | None
) -> Codebook:
    """Read a codebook, and refuse another encoder before a scan is read.

    Raises
    ------
    CodebookError
        If it cannot be used.
    """
    from napari_strata.pipeline import encoder_in_use
    from napari_strata.proposal.codebook.codebook import Codebook, check_encoder

    codebook = Codebook.load(path)
    check_encoder(codebook, encoder_in_use(settings, weights))
    return codebook


def segment(
    codebook: Codebook, proposal: Proposal
) -> tuple[Segmentation, dict[str, Any]]:
    """Give a scan the codebook's tissues and the sidecar's record of it.

    Say so on stderr where the scan does not fit.
    """
    assigned = codebook.apply(proposal)
    if not assigned.fits:
        print(f"warning: {assigned.warning()}", file=sys.stderr)
    return assigned.segmentation(proposal), {
        "sha256": codebook.sha256,
        **assigned.record(),
    }


def _fit(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    check_writable(arguments.output)
    if arguments.output.suffix != _SUFFIX:
        raise WriteError(
            f"Cannot write {arguments.output}: the name must end in {_SUFFIX}."
        )
    begun = time.perf_counter()
    from napari_strata.batch.inputs.plan import plan_batch
    from napari_strata.io.files import read
    from napari_strata.pipeline import propose_run
    from napari_strata.proposal.codebook.codebook import check_tissues, fit_codebook
    from napari_strata.proposal.codebook.cohort_table import cohort_table

    check_tissues(arguments.tissues)
    plan = plan_batch(arguments.scans)
    tell_passed(plan.passed)
    scans = plan.scans
    show, tables = progress(arguments.quiet), []
    for number, scan in enumerate(scans):

        def shown(
            done: int, total: int, stage: str, number: int = number, name: str = scan.id
        ) -> None:
            show(number, len(scans), f"{name}: {stage}") if stage != "done" else None

        volume = read(scan.path, series=scan.series, modality=arguments.modality)
        proposal = propose_run(
            volume,
            settings,
            run,
            weights=arguments.weights,
            on_progress=shown,
        )
        tables.append(cohort_table(proposal))
    show(len(scans), len(scans), "fitting the codebook")
    codebook = fit_codebook(tables, tissues=arguments.tissues, seed=run.seed)
    codebook.save(arguments.output)
    show(len(scans), len(scans), "done")
    for scan, table in zip(scans, tables, strict=True):
        drift = codebook.apply(table)
        print(
            f"{scan.id}: drift {drift.drift:.2f}"
            + ("" if drift.fits else f"; note: {drift.warning()}"),
            file=sys.stderr,
        )
    print(
        f"{printable(arguments.output)}: {codebook.n} tissues from {len(scans)} scans"
        f" in {time.perf_counter() - begun:.1f} s"
    )
