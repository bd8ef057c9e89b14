"""The `strata` command. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_strata._version import __version__
from napari_strata.cli import (
    batch as commands_batch,
)
from napari_strata.cli import (
    codebook as commands_codebook,
)
from napari_strata.cli import (
    convert as commands_convert,
)
from napari_strata.cli import (
    encoder as commands_encoder,
)
from napari_strata.cli import (
    refine as commands_refine,
)
from napari_strata.cli import (
    teach as commands_teach,
)
from napari_strata.cli.terminal import (
    AUTO,
    add_recipe,
    check_writable,
    notes_shown,
    print_json,
    progress,
    settings_of,
)
from napari_strata.errors import GeometryError, SettingsError, StrataError, WriteError
from napari_strata.filenames import escape_streams, printable
from napari_strata.io.atomic import Together, atomic_path
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.synthesis import flags

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.volume import Segmentation, Volume

USER_ERROR = 2
"""Exit code for anything the user can mend."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 done, 1 when scans of a batch failed or may have been passed over, 2 for an
        error that the user can mend, 130 when interrupted.
    """
    escape_streams()
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.ERROR,
        format="%(message)s",
        stream=sys.stderr,
    )
    try:
        run: Callable[[argparse.Namespace], int | None] = arguments.run
        return run(arguments) or 0
    except StrataError as err:
        print(f"strata: {printable(err)}", file=sys.stderr)
        return USER_ERROR
    except MemoryError:
        print(
            "strata: not enough memory. Close other programs, or give a coarser scan.",
            file=sys.stderr,
        )
        return USER_ERROR
    except KeyboardInterrupt:
        left = (
            "what is done stays, run it again to go on"
            if arguments.run is commands_batch.batch
            else "nothing was written"
        )
        print(f"strata: stopped; {left}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strata",
        description=(
            "Propose tissue regions in 3D MRI and CT scans, refine them, and export"
            " them on the scan's own grid."
        ),
        epilog=(
            "Research software: it proposes, a person decides. Nothing leaves your"
            " machine."
        ),
    )
    parser.add_argument("--version", action="version", version=f"strata {__version__}")
    parser.add_argument(
        "--verbose", action="store_true", help="show what happens inside"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_propose(commands)
    commands_batch.add_commands(commands)
    commands_refine.add_commands(commands)
    _add_view(commands)
    _add_info(commands)
    _add_evaluate(commands)
    commands_encoder.add_commands(commands)
    commands_codebook.add_commands(commands)
    commands_convert.add_commands(commands)
    commands_teach.add_commands(commands)
    _add_samples(commands)
    _add_synthesise(commands)
    return parser


def _add_scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", help="NIfTI, NRRD, MHA/MHD, MGH/MGZ, or a DICOM folder")
    parser.add_argument("--index", type=int, help="which volume of a 4D file, from 0")
    parser.add_argument("--series", help="which series of a DICOM folder (its UID)")
    parser.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help="how to read intensities, if the scan does not say",
    )


def _read(arguments: argparse.Namespace) -> Volume:
    from napari_strata.io.files import read

    volume = read(
        arguments.scan,
        index=arguments.index,
        series=arguments.series,
        modality=arguments.modality,
    )
    for note in volume.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return volume


def _add_propose(commands: Any) -> None:
    parser = commands.add_parser(
        "propose", help="propose regions for one scan and write them"
    )
    _add_scan(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="label file to write, for example labels.nii.gz",
    )
    parser.add_argument(
        "--montage",
        type=Path,
        metavar="PNG",
        help="also write a picture of the labels over the scan",
    )
    parser.add_argument(
        "--case",
        type=Path,
        metavar="CASE",
        help="also write a case (.strata) to refine later",
    )
    cut = add_recipe(parser, auto=True)
    cut.add_argument(
        "--taught",
        type=Path,
        metavar="FILE",
        help="the regions that another scan's strokes taught (strata teach)",
    )
    parser.set_defaults(run=_propose)


def _propose(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    kind: Literal["tissues", "regions"] = (
        "regions" if arguments.regions is not None else "tissues"
    )
    _check_proposal_outputs(arguments)
    codebook = (
        commands_codebook.open_codebook(arguments.codebook, settings, arguments.weights)
        if arguments.codebook
        else None
    )
    teaching = (
        commands_teach.open_teaching(arguments.taught, settings, arguments.weights)
        if arguments.taught
        else None
    )
    wanted = (
        codebook.n
        if codebook
        else len(teaching.regions)
        if teaching
        else getattr(arguments, kind)
    )
    if wanted != AUTO and wanted < 1:
        raise SettingsError(f"Asked for {wanted} regions. Ask for at least 1.")
    begun = time.perf_counter()
    volume = _read(arguments)
    read_seconds = time.perf_counter() - begun
    if codebook is not None:
        codebook.check_modality(volume.modality)
    from napari_strata.pipeline import propose_run

    proposal = propose_run(
        volume,
        settings,
        run,
        weights=arguments.weights,
        on_progress=progress(arguments.quiet),
    )
    if wanted == AUTO:
        wanted = proposal.middle_suggestion(kind)
    said, sure = {}, proposal.confidence
    if codebook is not None:
        segmentation, said["codebook"] = commands_codebook.segment(codebook, proposal)
    elif teaching is not None:
        found = commands_teach.taught_labels(teaching, proposal)
        segmentation, sure = found.segmentation(proposal), found.confidence
        said["taught"] = {"sha256": teaching.sha256, **found.record(proposal)}
    else:
        segmentation = (
            proposal.tissues(wanted) if kind == "tissues" else proposal.regions(wanted)
        )
    if not said and len(segmentation.regions) < wanted:
        print(
            f"note: the scan has only {len(segmentation.regions)} supervoxels in the"
            " body; it got that many.",
            file=sys.stderr,
        )
    provenance = {**proposal.provenance, "cut": {kind: wanted}, **said}
    provenance["seconds"] = {
        "read": round(read_seconds, 2),
        **proposal.provenance["seconds"],
    }
    _write_results(
        arguments, replace(proposal, confidence=sure), segmentation, provenance
    )
    what = kind if teaching is None else "taught regions"
    print(
        f"{printable(arguments.output)}: {len(segmentation.regions)} {what} in"
        f" {time.perf_counter() - begun:.1f} s"
    )


def _check_proposal_outputs(arguments: argparse.Namespace) -> None:
    """Check every name that `propose` would write to."""
    from napari_strata.export.outputs import check_outputs, outputs_beside

    named = outputs_beside(arguments.output)
    check_writable(
        named.labels,
        named.sidecar,
        named.table,
        arguments.montage,
        arguments.case,
        scan=arguments.scan,
    )
    check_outputs(arguments.output)
    if arguments.case and (arguments.codebook or arguments.taught):
        given = "--codebook" if arguments.codebook else "--taught"
        raise SettingsError(
            "A case starts from a cut of the scan's own tree. Leave out --case or"
            f" {given}."
        )
    for path, suffix in ((arguments.montage, ".png"), (arguments.case, ".strata")):
        if path is not None and path.suffix.lower() != suffix:
            raise WriteError(f"Cannot write {path}: the name must end in {suffix}.")
    if arguments.case:
        from napari_strata.refine.storage.case_file import check_replaceable

        check_replaceable(arguments.case)


def _write_results(
    arguments: argparse.Namespace,
    proposal: Proposal,
    segmentation: Segmentation,
    provenance: dict[str, Any],
) -> None:
    """Write labels, sidecar, table, picture and case; all of them or none."""
    from napari_strata.export.outputs import write_outputs

    with Together() as together:
        if arguments.montage:
            from napari_strata.report import montage

            montage(proposal.volume, segmentation, together.file(arguments.montage))
        if arguments.case:
            from napari_strata.refine.session.refinement import Refinement

            work = Refinement(proposal, **provenance["cut"])
            work.save(together.file(arguments.case))
        sure = proposal.confidence[proposal.supervoxels]
        write_outputs(
            segmentation,
            proposal.volume,
            arguments.output,
            provenance,
            confidence=sure,
            together=together,
        )


def _add_view(commands: Any) -> None:
    parser = commands.add_parser(
        "view", help="open a scan in napari with Strata docked"
    )
    _add_scan(parser)
    parser.set_defaults(run=_view)


def _view(arguments: argparse.Namespace) -> None:
    from napari_strata.gui.plugin.contributions import view_scan

    view_scan(
        arguments.scan,
        index=arguments.index,
        series=arguments.series,
        modality=arguments.modality,
    )


def _add_info(commands: Any) -> None:
    parser = commands.add_parser("info", help="say what a scan is, as JSON")
    _add_scan(parser)
    parser.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> None:
    volume = _read(arguments)
    from napari_strata.export.outputs import scan_record

    geometry = volume.geometry
    record = scan_record(volume)
    record["dtype"] = str(volume.data.dtype)
    record["range"] = [float(volume.data.min()), float(volume.data.max())]
    record["size_mm_zyx"] = [
        round(float(n * s), 3)
        for n, s in zip(geometry.shape_zyx, geometry.spacing_zyx_mm, strict=True)
    ]
    if geometry.file is not None:
        record["file_shape"] = list(geometry.file.shape)
        record["file_affine"] = geometry.file.affine.tolist()
    print_json(record)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate", help="score labels against a reference, as JSON"
    )
    parser.add_argument(
        "labels", type=Path, help="a label volume, .seg.nrrd or DICOM SEG"
    )
    parser.add_argument("reference", type=Path, help="the same")
    parser.add_argument(
        "--ignore",
        type=int,
        nargs="*",
        default=[],
        metavar="VALUE",
        help="reference values that are not scored",
    )
    parser.add_argument(
        "--other",
        type=int,
        nargs="*",
        default=[0],
        metavar="VALUE",
        help=(
            "reference values that take part, so that leaks cost, but are no class of"
            " the means (default: 0)"
        ),
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from napari_strata.export.files import read_labels
    from napari_strata.measure import compare
    from napari_strata.preprocess.regrid import on_one_grid

    with notes_shown():
        labels, reference = (
            read_labels(arguments.labels),
            read_labels(arguments.reference),
        )
        labels, reference = on_one_grid(
            labels, reference, names=("The labels", "The reference labels")
        )
    try:
        scores = compare(
            labels, reference, ignore=arguments.ignore, other=arguments.other
        )
    except GeometryError as err:
        raise GeometryError(
            f"{arguments.labels} and {arguments.reference}: {err}"
        ) from err
    print_json(scores.to_dict())


def _add_samples(commands: Any) -> None:
    parser = commands.add_parser(
        "samples", help="make the three sample scans, with their ground truth"
    )
    parser.add_argument("folder", type=Path)
    parser.set_defaults(run=_samples)


def _samples(arguments: argparse.Namespace) -> None:
    from napari_strata.synthesis.samples import SAMPLES, make_sample

    _write_scans(arguments.folder, ((name, *make_sample(name)) for name in SAMPLES))


def _add_synthesise(commands: Any) -> None:
    parser = commands.add_parser(
        "synthesise",
        help=(
            "draw what the synthesiser makes (--gallery), or write scans with their"
            " ground truth"
        ),
    )
    flags.add_flags(parser)
    parser.set_defaults(run=_synthesise)


def _synthesise(arguments: argparse.Namespace) -> None:
    flags.check_flags(arguments)
    check_writable(arguments.gallery)
    if arguments.gallery:
        with atomic_path(arguments.gallery) as path:
            flags.draw_from(arguments).save(path)
        print(printable(arguments.gallery))
    if arguments.output:
        _write_scans(arguments.output, flags.scans_from(arguments))


def _write_scans(
    folder: Path, scans: Iterable[tuple[str, Volume, Segmentation]]
) -> None:
    from napari_strata.io.files import write, write_scan

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise WriteError(
            f"Cannot make the folder {folder}: {err.strerror}. Choose another one."
        ) from err
    for name, volume, truth in scans:
        print(printable(write_scan(volume, folder / f"{name}.nii.gz")))
        write(truth, folder / f"{name}_truth.nii.gz")


if __name__ == "__main__":
    sys.exit(main())
