"""The command `strata convert`: labels and scans from one format to another."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import (
    add_modality,
    add_settings,
    read_scan,
    settings_of,
)
from napari_strata.cli.terminal import line_ended, notes_shown, progress
from napari_strata.errors import ChoiceError, ReadError, SettingsError, WriteError
from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.io.atomic import file_suffix
from napari_strata.settings import ExportSettings

if TYPE_CHECKING:
    from napari_strata.export.base import ExportContext
    from napari_strata.volume import Segmentation, Volume

_OUTPUT_HELP = (
    "labels to write. Label volumes: .nii.gz, .nii, .nrrd, .mha, .mgz, .mgh; "
    "3D Slicer: .seg.nrrd; DICOM SEG: .dcm (with --like SERIES); "
    'meshes: .stl, .obj, .ply ("{id}_{name}.stl" for one file per region); '
    "ITK-SNAP names: .label; measures: .csv, .tsv, .parquet. "
    "Several may be given; all are written, or none"
)


def add_command(commands: Any) -> None:
    """Add `convert` to the command line."""
    parser = commands.add_parser(
        "convert",
        help=(
            "convert labels between formats: NIfTI, 3D Slicer, DICOM SEG, meshes,"
            " tables; or a scan"
        ),
        usage="strata convert INPUT -o FILE [FILE ...] [-o FILE ...] [options]",
    )
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT (before -o, which takes all that follows)",
        help=(
            f"labels (a volume, .seg.nrrd, DICOM SEG), a case ({CASE_SUFFIX}), or with"
            " --scan a scan"
        ),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE",
        help=_OUTPUT_HELP,
    )
    _add_scan_flags(parser)
    _add_label_flags(parser)
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [export] table; flags win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(parser, ExportSettings)
    parser.set_defaults(run=_convert)


def _add_scan_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--like",
        metavar="SCAN",
        help="put labels on the grid of this scan, and measure intensities on it",
    )
    parser.add_argument(
        "--scan",
        action="store_true",
        help="INPUT is a scan: write its intensities (.nii.gz, .nii, .nrrd, .mha)",
    )
    parser.add_argument(
        "--index",
        type=int,
        help=(
            "which volume of a 4D scan, from 0; without --like and --scan: of 4D labels"
        ),
    )
    parser.add_argument("--series", help="which series of a DICOM folder (its UID)")
    add_modality(parser, "scan does")


def _add_label_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--names",
        type=Path,
        metavar="FILE",
        help="take names and colours from an ITK-SNAP label description",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="LABELS",
        help="compare with these labels, in tables (see --match)",
    )


def _convert(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ExportSettings, "export")
    _check_outputs(arguments)
    with notes_shown():
        if arguments.scan:
            _convert_scan(arguments)
        else:
            _convert_labels(arguments, settings)


def _convert_labels(arguments: argparse.Namespace, settings: ExportSettings) -> None:
    from napari_strata.export.files import check_paths, write_together

    segmentation, known = _open(arguments)
    check_paths(arguments.output, known)
    if arguments.names is not None:
        segmentation = _renamed(segmentation, arguments.names)
    with line_ended(progress(arguments.quiet), quiet=arguments.quiet) as show:
        write_together(
            segmentation,
            arguments.output,
            known=known,
            settings=settings,
            on_progress=show,
        )
    for path in arguments.output:
        print(f"{printable(path)}: {len(segmentation.regions)} regions")


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Check every name and option before anything is read."""
    from napari_strata.export.targets import check_distinct, check_inputs_stay

    for path in arguments.output:
        if not path.parent.is_dir():
            raise WriteError(
                f"Cannot write {path}: there is no folder {path.parent}. Create it"
                " first."
            )
    check_distinct(arguments.output)
    _check_options(arguments)
    check_inputs_stay(
        arguments.output,
        (
            arguments.input,
            arguments.like,
            arguments.reference,
            arguments.names,
            arguments.settings,
        ),
    )


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would have no effect."""
    from napari_strata.export.tables import MEASURES_TABLE

    suffixes = MEASURES_TABLE.suffixes
    tables = any(file_suffix(path) in suffixes for path in arguments.output)
    if arguments.reference and not arguments.scan and not tables:
        raise SettingsError(
            "--reference adds columns to a table. Write one too"
            f" ({', '.join(suffixes)}), or leave it out."
        )
    for flag, value in (
        ("--match", arguments.match),
        ("--tolerance-mm", arguments.tolerance_mm),
    ):
        if value is not None and not arguments.reference:
            raise SettingsError(
                f"{flag} needs labels to compare with. Give --reference LABELS, or"
                " leave it out."
            )
    if (
        arguments.index is not None
        and arguments.input.suffix.lower() == CASE_SUFFIX
        and not arguments.like
    ):
        raise SettingsError(
            "--index chooses from a 4D file, but INPUT is a case. Leave it out."
        )
    for flag, value in (
        ("--modality", arguments.modality),
        ("--series", arguments.series),
    ):
        if value is not None and not (arguments.like or arguments.scan):
            raise SettingsError(
                f"{flag} needs a scan. Give --like SCAN, or --scan if INPUT is a scan, or"
                " leave it out."
            )


def _convert_scan(arguments: argparse.Namespace) -> None:
    """Write a scan's intensities to another file format, on its own grid."""
    from napari_strata.io.files import write_scan

    if (
        arguments.like
        or arguments.reference
        or arguments.names
        or len(arguments.output) > 1
    ):
        raise SettingsError(
            "With --scan give one output, and none of --like, --reference and --names,"
            " which belong to labels."
        )
    volume = read_scan(arguments, arguments.input)
    print(
        f"{printable(write_scan(volume, arguments.output[0]))}:"
        f" {' x '.join(map(str, volume.geometry.shape_zyx))} voxels (z, y, x)"
    )


def _open(arguments: argparse.Namespace) -> tuple[Segmentation, ExportContext]:
    """Read the labels, with the scan and the reference labels on the same grid."""
    from napari_strata.export.base import ExportContext
    from napari_strata.export.files import read_labels
    from napari_strata.export.formats import content_without_voxels
    from napari_strata.preprocess.regrid import labels_on_grid

    source = arguments.input
    if source.is_dir():
        raise ChoiceError(
            f"{source} is a folder. Give a file with labels, or --scan to convert the"
            " DICOM series in it."
        )
    if content := content_without_voxels(source):
        raise ReadError(
            f"{source} is {content}, which has no voxels. Give the labels that it was"
            " made from."
        )
    scan = read_scan(arguments, arguments.like) if arguments.like else None
    if source.suffix.lower() == CASE_SUFFIX:
        segmentation, known = _open_case(source, scan)
    else:
        index = None if arguments.like else arguments.index
        segmentation, known = (
            read_labels(source, like=scan, index=index),
            ExportContext(scan),
        )
    if arguments.reference is None:
        return segmentation, known
    reference = labels_on_grid(
        read_labels(arguments.reference),
        segmentation.geometry,
        what="The reference labels",
    )
    return segmentation, replace(known, reference=reference)


def _open_case(path: Path, scan: Volume | None) -> tuple[Segmentation, ExportContext]:
    """Return a case's labels, with its scan, confidence and edits."""
    from napari_strata.export.base import ExportContext
    from napari_strata.refine.session.refinement import Refinement

    work = Refinement.load(path, volume=scan)
    proposal = work.proposal
    provenance = {**proposal.provenance, "edits": list(work.history)}
    return work.segmentation, ExportContext(
        proposal.volume,
        work.view.confidence[proposal.supervoxels],
        provenance=provenance,
    )


def _renamed(segmentation: Segmentation, path: Path) -> Segmentation:
    """Return labels with the names and colours of a label description, by id.

    Labels that the description does not name keep their own.
    """
    from napari_strata.export.itksnap import read_description

    new = {region.id: region for region in read_description(path)}
    if not {region.id for region in segmentation.regions} & set(new):
        raise ReadError(
            f"{path} names none of the labels. Check that it belongs to them."
        )
    regions = tuple(
        replace(new.get(region.id, region), locked=region.locked)
        for region in segmentation.regions
    )
    return segmentation.with_regions(regions)
