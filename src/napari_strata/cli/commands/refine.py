"""The command `strata refine`: repeat, start or recover work on a scan without a window."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.cli.flags import (
    add_encoder,
    add_scan,
    read_scan_with_notes,
    settings_of,
)
from napari_strata.cli.terminal import (
    check_suffix,
    check_writable,
    notes_shown,
    progress,
)
from napari_strata.errors import CaseError, EditError, GeometryError, SettingsError
from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.io.atomic import Together
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.refine.session.refinement import Refinement
    from napari_strata.volume import Volume


def add_command(commands: Any) -> None:
    """Add `refine` to the command line."""
    parser = commands.add_parser(
        "refine",
        help=(
            "repeat a case's edits, start from labels, or recover work after a crash"
        ),
    )
    add_scan(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--replay",
        type=Path,
        metavar="CASE",
        help="repeat the edits of a case of this scan, from the start",
    )
    what.add_argument(
        "--from-labels",
        type=Path,
        metavar="LABELS",
        help=(
            "start a case from labels (volume, .seg.nrrd, DICOM SEG) on the scan's grid"
        ),
    )
    what.add_argument(
        "--recover",
        action="store_true",
        help="recover the newest work on this scan that a crash left behind",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="label file to write, with its table and sidecar",
    )
    parser.add_argument(
        "--case", type=Path, metavar="CASE", help=f"case to write ({CASE_SUFFIX})"
    )
    parser.add_argument(
        "--propose-again",
        action="store_true",
        help="with --replay: first propose again with the case's settings",
    )
    add_encoder(parser)
    parser.set_defaults(run=_refine)


def _refine(arguments: argparse.Namespace) -> None:
    _check_outputs(arguments)
    start = time.perf_counter()
    volume = read_scan_with_notes(arguments)
    if arguments.replay:
        work = _replayed(arguments, volume)
    elif arguments.from_labels:
        work = _from_labels(arguments, volume)
    else:
        work = _recovered(volume)
    is_saved = False
    try:
        if arguments.case:
            work.storage.check_replaceable(arguments.case)
        _write_outputs(arguments, work)
        is_saved = bool(arguments.case)
    finally:
        if arguments.recover:
            work.storage.end_autosave(keep=not is_saved)
    for number, name in enumerate(work.history, start=1):
        print(f"{number}. {name}")
    outputs = [path for path in (arguments.output, arguments.case) if path]
    written = " and ".join(printable(path) for path in outputs) or "nothing written"
    print(
        f"{written}: {len(work.history)} edits, {len(work.regions)} regions in"
        f" {time.perf_counter() - start:.1f} s"
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Check flags and the names of outputs before anything is read."""
    if not (arguments.output or arguments.case or arguments.replay):
        raise SettingsError(
            "Name what to write: labels with -o, a case with --case, or both."
        )
    if arguments.case:
        check_suffix(arguments.case, CASE_SUFFIX)
    if arguments.propose_again and not arguments.replay:
        raise SettingsError("--propose-again goes with --replay. Leave it out.")
    outputs: list[Path] = []
    if arguments.output:
        from napari_strata.export.outputs import check_outputs, outputs_beside

        check_outputs(arguments.output)
        beside = outputs_beside(arguments.output)
        outputs = [beside.labels, beside.sidecar, beside.table]
    check_writable(*outputs, arguments.case, scan=arguments.scan)
    if arguments.case and arguments.from_labels:
        from napari_strata.refine.storage.case_file import check_replaceable

        check_replaceable(arguments.case)


def _propose(
    arguments: argparse.Namespace, volume: Volume, base: Proposal | None = None
) -> Proposal:
    """Propose with the flags, over the settings and the seed of another proposal."""
    from napari_strata.pipeline import propose_with

    base_settings = base_run = None
    if base is not None:
        base_settings = ProposeSettings.from_dict(base.provenance.get("settings", {}))
        run_record = base.provenance.get("run", {})
        base_run = RunSettings(seed=int(run_record.get("seed", 0)))
    run = settings_of(arguments, RunSettings, "run", base_run)
    settings = settings_of(arguments, ProposeSettings, "propose", base_settings)
    return propose_with(
        volume,
        settings,
        run,
        weights=arguments.weights,
        on_progress=progress(arguments.quiet),
    )


def _replayed(arguments: argparse.Namespace, volume: Volume) -> Refinement:
    """Repeat the edits of a case; print how the labels differ from the case's."""
    from napari_strata.refine.session.refinement import Refinement

    case = Refinement.load(arguments.replay, volume=volume)
    proposal = case.proposal
    if arguments.propose_again:
        proposal = _propose(arguments, volume, case.proposal)
        weights, case_weights = (
            one.provenance.get("weights_sha256") for one in (proposal, case.proposal)
        )
        if weights != case_weights:
            print(
                "note: the case was proposed with other weights, so regions may"
                " differ.",
                file=sys.stderr,
            )
        work = _replay_on(arguments.replay, proposal)
    else:
        work = case.replay(proposal)
    n_differing = int((work.labels != case.labels).sum())
    if n_differing:
        share = n_differing / work.labels.size
        print(
            f"note: {n_differing} voxels ({share:.2%}) differ from the labels in"
            f" {printable(arguments.replay)}.",
            file=sys.stderr,
        )
        return work
    print(f"The labels are those of {printable(arguments.replay)}.")
    if not np.array_equal(proposal.supervoxels, case.proposal.supervoxels):
        print(
            "note: the proposal differs from the case's, the labels do not.",
            file=sys.stderr,
        )
    return work


def _replay_on(case: Path, proposal: Proposal) -> Refinement:
    """Repeat a case's edits on another proposal; print which ones were not possible."""
    from napari_strata.refine.session.refinement import continue_case
    from napari_strata.refine.session.replay import replay_edits
    from napari_strata.refine.storage.case_file import read_case

    replayed = replay_edits(read_case(case, proposal.volume), proposal)
    for step in replayed.lost:
        print(
            f"note: edit {step.number} ({step.name}) was not carried out: {step.why}",
            file=sys.stderr,
        )
    return continue_case(replayed.contents)


def _from_labels(arguments: argparse.Namespace, volume: Volume) -> Refinement:
    from napari_strata.io.files import read_labels
    from napari_strata.preprocess.regrid import labels_of_part
    from napari_strata.refine.history.initial_state import check_labels
    from napari_strata.refine.session.refinement import Refinement

    with notes_shown():
        labels = read_labels(arguments.from_labels, like=volume.geometry)
        labels = labels_of_part(labels, volume.geometry)
    try:
        check_labels(volume.geometry, labels)
    except (EditError, GeometryError) as err:
        raise type(err)(f"{arguments.from_labels}: {err}") from err
    return Refinement.from_labels(_propose(arguments, volume), labels)


def _recovered(volume: Volume) -> Refinement:
    """Resume the newest unfinished work on a scan; print what older work there is."""
    from napari_strata.refine.session.recovery import find_unfinished

    unfinished = find_unfinished(volume)
    if not unfinished:
        raise CaseError(
            f"There is no unfinished work on {volume.path or volume.name}. Check the"
            " scan's path."
        )
    newest, *older = unfinished
    for work in older:
        print(
            f"note: there is also older work, {work.edits} edits until"
            f" {work.changed:%Y-%m-%d %H:%M}: {printable(work.journal)}",
            file=sys.stderr,
        )
    return newest.resume(volume=volume)


def _write_outputs(arguments: argparse.Namespace, work: Refinement) -> None:
    """Write labels and case: both or neither."""
    provenance = {**work.proposal.provenance, "edits": list(work.history)}
    with Together() as together:
        if arguments.case:
            work.save(together.file(arguments.case))
        if arguments.output:
            from napari_strata.export.outputs import write_outputs

            write_outputs(
                work.segmentation,
                work.proposal.volume,
                arguments.output,
                provenance,
                together=together,
            )
