"""The command `strata teach`: what strokes or labels on some scans teach, for others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import add_encoder, add_modality, settings_of
from napari_strata.cli.terminal import (
    check_suffix,
    check_writable,
    line_ended,
    notes_shown,
    progress,
)
from napari_strata.errors import EditError, GeometryError, TeachingError
from napari_strata.filenames import CASE_SUFFIX, TEACHING_SUFFIX, printable
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.refine.labelled_scans import LabelledProposal
    from napari_strata.refine.transfer import Teaching


def add_command(commands: Any) -> None:
    """Add `teach` to the command line."""
    parser = commands.add_parser(
        "teach",
        help=(
            "save what the strokes on one scan, or the labels of several, teach, to apply"
            " it to other scans (propose --taught)"
        ),
    )
    parser.add_argument(
        "scans",
        nargs="+",
        metavar="CASE",
        help=f"case ({CASE_SUFFIX}) with strokes or named regions; with --labels, scans",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABELS",
        help=(
            "labels of each scan, in the same order: every labelled voxel teaches, and so"
            " does background; several scans add up"
        ),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"teaching to write ({TEACHING_SUFFIX})",
    )
    add_modality(parser)
    add_encoder(parser)
    parser.set_defaults(run=_teach)


def _teach(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    check_suffix(arguments.output, TEACHING_SUFFIX)
    teaching = _from_labels(arguments) if arguments.labels else _from_case(arguments)
    teaching.save(arguments.output)
    print(
        f"{printable(arguments.output)}:"
        f" {', '.join(region.name for region in teaching.regions)}"
    )


def _from_case(arguments: argparse.Namespace) -> Teaching:
    from napari_strata.refine.session.refinement import Refinement

    if len(arguments.scans) > 1 or not arguments.scans[0].lower().endswith(CASE_SUFFIX):
        raise TeachingError(
            f"Give one case ({CASE_SUFFIX}), or scans with the labels of each"
            " (--labels)."
        )
    run = settings_of(arguments, RunSettings, "run")
    return Refinement.load(arguments.scans[0]).teach(seed=run.seed)


def _from_labels(arguments: argparse.Namespace) -> Teaching:
    from napari_strata.refine.labelled_scans import teach_labels

    if len(arguments.scans) != len(arguments.labels):
        raise TeachingError(
            f"There are {len(arguments.scans)} scans and {len(arguments.labels)} labels."
            " Give the labels of each scan, in the same order."
        )
    run = settings_of(arguments, RunSettings, "run")
    pairs = zip(arguments.scans, arguments.labels, strict=True)
    return teach_labels(
        [_labelled(arguments, run, scan, labels) for scan, labels in pairs],
        seed=run.seed,
    )


def _labelled(
    arguments: argparse.Namespace, run: RunSettings, scan: str, labels: str
) -> LabelledProposal:
    """Read a scan and its labels, and propose the scan."""
    from napari_strata.io.files import read, read_labels
    from napari_strata.pipeline import propose_with
    from napari_strata.preprocess.regrid import labels_of_part
    from napari_strata.refine.history.initial_state import check_labels
    from napari_strata.refine.labelled_scans import LabelledProposal

    with notes_shown():
        volume = read(scan, modality=arguments.modality)
        found = labels_of_part(
            read_labels(labels, like=volume.geometry), volume.geometry
        )
    try:
        check_labels(volume.geometry, found)
    except (EditError, GeometryError) as err:
        raise type(err)(f"{labels}: {err}") from err
    with line_ended(progress(arguments.quiet), quiet=arguments.quiet) as show:
        proposal = propose_with(
            volume,
            settings_of(arguments, ProposeSettings, "propose"),
            run,
            weights=arguments.weights,
            on_progress=show,
        )
    return LabelledProposal(proposal, found)
