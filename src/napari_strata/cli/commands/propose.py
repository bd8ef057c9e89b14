"""The command `strata propose`: regions for one scan."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import (
    add_recipe,
    add_scan,
    label_source,
    read_scan_with_notes,
    settings_of,
)
from napari_strata.cli.terminal import check_suffix, check_writable, progress
from napari_strata.errors import SettingsError
from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.io.atomic import Together
from napari_strata.parallel import worker_threads
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.labelling import LabelledScan
    from napari_strata.proposal.proposal import Proposal


def add_command(commands: Any) -> None:
    """Add `propose` to the command line."""
    parser = commands.add_parser(
        "propose", help="propose regions for one scan and write them"
    )
    add_scan(parser)
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
        help=f"also write a case ({CASE_SUFFIX}) to refine later",
    )
    add_recipe(parser, auto=True)
    parser.set_defaults(run=_propose)


def _propose(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    _check_outputs(arguments)
    source = label_source(arguments, settings)
    start = time.perf_counter()
    volume = read_scan_with_notes(arguments)
    read_seconds = time.perf_counter() - start
    from napari_strata.labelling import label_proposal
    from napari_strata.pipeline import propose_with
    from napari_strata.proposal.codebook.codebook import Codebook

    if isinstance(source, Codebook):
        source.check_modality(volume.modality)
    proposal = propose_with(
        volume,
        settings,
        run,
        weights=arguments.weights,
        on_progress=progress(arguments.quiet),
    )
    labelled = label_proposal(proposal, source)
    ((tree, asked_for),) = labelled.cut.items()
    n_regions = len(labelled.segmentation.regions)
    if labelled.warning:
        print(f"warning: {labelled.warning}", file=sys.stderr)
    if not labelled.provenance and n_regions < asked_for:
        print(
            f"note: the scan has only {n_regions} supervoxels in the body; it got that"
            " many regions.",
            file=sys.stderr,
        )
    provenance = {
        **proposal.provenance,
        "cut": labelled.cut,
        **labelled.provenance,
        "seconds": {
            "read": round(read_seconds, 2),
            **proposal.provenance["seconds"],
        },
    }
    with worker_threads(run.threads):
        _write_outputs(arguments, proposal, labelled, provenance)
    what = "taught regions" if arguments.taught else tree
    print(
        f"{printable(arguments.output)}: {n_regions} {what} in"
        f" {time.perf_counter() - start:.1f} s"
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Check the name of every file that `propose` would write."""
    from napari_strata.export.outputs import check_outputs, outputs_beside

    outputs = outputs_beside(arguments.output)
    check_writable(
        outputs.labels,
        outputs.sidecar,
        outputs.table,
        arguments.montage,
        arguments.case,
        scan=arguments.scan,
    )
    check_outputs(arguments.output)
    if arguments.case and (arguments.codebook or arguments.taught):
        flag = "--codebook" if arguments.codebook else "--taught"
        raise SettingsError(
            "A case starts from a cut of the scan's own tree. Leave out --case or"
            f" {flag}."
        )
    for path, suffix in ((arguments.montage, ".png"), (arguments.case, CASE_SUFFIX)):
        if path is not None:
            check_suffix(path, suffix)
    if arguments.case:
        from napari_strata.refine.storage.case_file import check_replaceable

        check_replaceable(arguments.case)


def _write_outputs(
    arguments: argparse.Namespace,
    proposal: Proposal,
    labelled: LabelledScan,
    provenance: dict[str, Any],
) -> None:
    """Write labels, sidecar, table, picture and case: all of them or none."""
    from napari_strata.export.outputs import write_outputs

    segmentation = labelled.segmentation
    with Together() as together:
        if arguments.montage:
            from napari_strata.report import montage

            montage(proposal.volume, segmentation, together.file(arguments.montage))
        if arguments.case:
            from napari_strata.refine.session.refinement import Refinement

            work = Refinement(proposal, **provenance["cut"])
            work.save(together.file(arguments.case))
        write_outputs(
            segmentation,
            proposal.volume,
            arguments.output,
            provenance,
            confidence=labelled.confidence[proposal.supervoxels],
            together=together,
        )
