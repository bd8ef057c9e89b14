"""The commands `strata refine`.

(repeats, starts or takes up work on a scan, without a window) and `strata explain`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.cli.terminal import (
    add_settings,
    check_writable,
    notes_shown,
    print_json,
    progress,
    settings_of,
)
from napari_strata.errors import (
    CaseError,
    EditError,
    GeometryError,
    RegionError,
    SettingsError,
    WriteError,
)
from napari_strata.filenames import printable
from napari_strata.io.atomic import Together
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.refine.session.refinement import Refinement
    from napari_strata.volume import Volume

_SUFFIX = ".strata"


def add_commands(commands: Any) -> None:
    """Add `refine` and `explain` to the command line."""
    _add_explain(commands)
    parser = commands.add_parser(
        "refine",
        help="repeat a case's edits, start from labels, or take up work after a crash",
    )
    parser.add_argument("scan", help="NIfTI, NRRD, MHA/MHD, MGH/MGZ, or a DICOM folder")
    parser.add_argument("--index", type=int, help="which volume of a 4D file, from 0")
    parser.add_argument("--series", help="which series of a DICOM folder (its UID)")
    parser.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help="how to read intensities, if the scan does not say",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--replay",
        type=Path,
        metavar="CASE",
        help="carry out the edits of a case of this scan again, from the start",
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
        help="take up the newest work on this scan that a crash left behind",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="label file to write, with its table and sidecar",
    )
    parser.add_argument(
        "--case", type=Path, metavar="CASE", help=f"case to write ({_SUFFIX})"
    )
    parser.add_argument(
        "--propose-again",
        action="store_true",
        help="with --replay: propose anew with the case's settings first",
    )
    parser.add_argument(
        "--encoder",
        "--weights",
        dest="weights",
        type=Path,
        help="other weights, a description (.toml), a MONAI bundle",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [propose] and [run] tables; flags win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(parser, RunSettings)
    add_settings(parser, ProposeSettings)
    parser.set_defaults(run=_refine)


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser(
        "explain", help="say why a voxel or a region of a case is what it is, as JSON"
    )
    parser.add_argument(
        "case", type=Path, help=f"case ({_SUFFIX}); the scan is not needed"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--at", type=float, nargs=3, metavar=("R", "A", "S"), help="a place in RAS+ mm"
    )
    what.add_argument(
        "--voxel",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="a voxel, toward Inferior, Posterior and Left",
    )
    what.add_argument("--region", type=int, metavar="ID", help="a region")
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> None:
    from napari_strata.explain import explain_region, explain_voxel
    from napari_strata.refine.session.refinement import Refinement

    work = Refinement.load(arguments.case)
    if arguments.region is not None:
        told = explain_region(work.proposal, work.table, arguments.region)
        names = _names(work)
        said = {
            "name": names.get(told.id),
            "neighbor_name": (
                names.get(told.neighbor) if told.neighbor is not None else None
            ),
        }
        print_json({**asdict(told), **said})
        return
    voxel = arguments.voxel or _voxel_at(work, arguments.at)
    region, origin = work.region_at(voxel), work.origin_at(voxel)
    card = explain_voxel(
        work.proposal, work.table, voxel, region=region, strokes=work.stroked
    )
    names = _names(work)
    said = {
        "name": names.get(region),
        "origin": origin,
        "runner_up_name": (
            names.get(card.runner_up) if card.runner_up is not None else None
        ),
    }
    print_json({**asdict(card), **said})


def _names(work: Refinement) -> dict[int, str]:
    return {row.id: row.name for row in work.regions} | {BACKGROUND: "background"}


def _voxel_at(work: Refinement, place_ras_mm: list[float]) -> list[int]:
    """Give the voxel (z, y, x) that holds a place."""
    found = np.rint(work.volume.geometry.voxel_from_world(place_ras_mm))
    if not (
        np.isfinite(found).all()
        and (found >= 0).all()
        and (found < work.volume.geometry.shape_zyx).all()
    ):
        raise RegionError(
            f"{tuple(place_ras_mm)} mm lies outside the scan. Give a place in it as"
            " --at R A S."
        )
    return [int(v) for v in found]


def _refine(arguments: argparse.Namespace) -> None:
    _check_outputs(arguments)
    begun = time.perf_counter()
    from napari_strata.io.files import read

    volume = read(
        arguments.scan,
        index=arguments.index,
        series=arguments.series,
        modality=arguments.modality,
    )
    for note in volume.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if arguments.replay:
        work = _replayed(arguments, volume)
    elif arguments.from_labels:
        work = _from_labels(arguments, volume)
    else:
        work = _recovered(volume)
    is_saved = False
    try:
        if arguments.case:
            work.check_replaceable(arguments.case)
        _write(arguments, work)
        is_saved = bool(arguments.case)
    finally:
        if arguments.recover:
            work.end_autosave(keep=not is_saved)
    for number, name in enumerate(work.history, start=1):
        print(f"{number}. {name}")
    written = (
        " and ".join(
            printable(path) for path in (arguments.output, arguments.case) if path
        )
        or "nothing written"
    )
    print(
        f"{written}: {len(work.history)} edits, {len(work.regions)} regions in"
        f" {time.perf_counter() - begun:.1f} s"
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    if not (arguments.output or arguments.case or arguments.replay):
        raise SettingsError(
            "Say what to write: labels with -o, a case with --case, or both."
        )
    if arguments.case and arguments.case.suffix.lower() != _SUFFIX:
        raise WriteError(
            f"Cannot write {arguments.case}: the name must end in {_SUFFIX}."
        )
    if arguments.propose_again and not arguments.replay:
        raise SettingsError("--propose-again goes with --replay. Leave it out.")
    named: list[Path] = []
    if arguments.output:
        from napari_strata.export.outputs import check_outputs, outputs_beside

        check_outputs(arguments.output)
        beside = outputs_beside(arguments.output)
        named = [beside.labels, beside.sidecar, beside.table]
    check_writable(*named, arguments.case, scan=arguments.scan)
    if arguments.case and arguments.from_labels:
        from napari_strata.refine.storage.case_file import check_replaceable

        check_replaceable(arguments.case)


def _propose(
    arguments: argparse.Namespace, volume: Volume, base: Proposal | None = None
) -> Proposal:
    """Propose with the settings of the command line over those of another proposal.

    If there is one.
    """
    from napari_strata.pipeline import propose_run

    settings = (
        ProposeSettings.from_dict(base.provenance.get("settings", {}))
        if base is not None
        else None
    )
    ran = base.provenance.get("run", {}) if base is not None else {}
    run = settings_of(
        arguments,
        RunSettings,
        "run",
        RunSettings(seed=int(ran.get("seed", 0))) if base is not None else None,
    )
    chosen = settings_of(arguments, ProposeSettings, "propose", settings)
    return propose_run(
        volume,
        chosen,
        run,
        weights=arguments.weights,
        on_progress=progress(arguments.quiet),
    )


def _replayed(arguments: argparse.Namespace, volume: Volume) -> Refinement:
    from napari_strata.refine.session.refinement import Refinement

    case = Refinement.load(arguments.replay, volume=volume)
    proposal = case.proposal
    if arguments.propose_again:
        proposal = _propose(arguments, volume, case.proposal)
        if proposal.provenance.get("weights_sha256") != case.proposal.provenance.get(
            "weights_sha256"
        ):
            print(
                "note: the case was proposed with other weights, so regions may"
                " differ.",
                file=sys.stderr,
            )
    work = (
        _carried_over(arguments.replay, proposal)
        if arguments.propose_again
        else case.replay(proposal)
    )
    differing = int((work.labels != case.labels).sum())
    if differing:
        share = differing / work.labels.size
        print(
            f"note: {differing} voxels ({share:.2%}) differ from the labels in"
            f" {printable(arguments.replay)}.",
            file=sys.stderr,
        )
    else:
        print(f"The labels are those of {printable(arguments.replay)}.")
    if not differing and not np.array_equal(
        proposal.supervoxels, case.proposal.supervoxels
    ):
        print(
            "note: the proposal differs from the case's, the labels do not.",
            file=sys.stderr,
        )
    return work


def _carried_over(case: Path, proposal: Proposal) -> Refinement:
    """Carry out a case's edits on another proposal; say which could not be."""
    from napari_strata.refine.session.refinement import Refinement
    from napari_strata.refine.session.replay import replay_edits
    from napari_strata.refine.storage.case_file import read_case

    found = replay_edits(read_case(case, proposal.volume), proposal)
    for step in found.lost:
        print(
            f"note: edit {step.number} ({step.name}) was not carried out: {step.why}",
            file=sys.stderr,
        )
    return Refinement.taken_up(found.contents, None)


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
    from napari_strata.refine.session.recovery import find_unfinished

    found = find_unfinished(volume)
    if not found:
        raise CaseError(
            f"There is no unfinished work on {volume.path or volume.name}. Check the"
            " scan's path."
        )
    for one in found[1:]:
        print(
            f"note: there is older work too, {one.edits} edits until"
            f" {one.changed:%Y-%m-%d %H:%M}: {printable(one.journal)}",
            file=sys.stderr,
        )
    return found[0].resume(volume=volume)


def _write(arguments: argparse.Namespace, work: Refinement) -> None:
    """Write labels and case; both or neither."""
    provenance = {**work.proposal.provenance, "edits": list(work.history)}
    with Together() as together:
        if arguments.case:
            work.save(together.file(arguments.case))
        if arguments.output:
            from napari_strata.export.outputs import write_outputs

            write_outputs(
                work.segmentation,
                work.volume,
                arguments.output,
                provenance,
                together=together,
            )
