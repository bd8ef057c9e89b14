"""The command `strata audit`: a second opinion on labels of any program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import (
    add_encoder,
    add_scan,
    read_scan_with_notes,
    settings_of,
)
from napari_strata.cli.terminal import check_writable, notes_shown, progress
from napari_strata.errors import WriteError
from napari_strata.filenames import printable
from napari_strata.settings import ProposeSettings, RunSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_strata.audit.run import Disagreement, StructureAudit
    from napari_strata.volume import Segmentation, Volume

_SHOWN = 10
"""Structures that are printed; the output file has all of them."""


def add_command(commands: Any) -> None:
    """Add `audit` to the command line."""
    parser = commands.add_parser(
        "audit",
        help="find structures that are probably wrong in labels, without a reference",
    )
    add_scan(parser)
    parser.add_argument(
        "labels",
        type=Path,
        nargs="+",
        metavar="LABELS",
        help=(
            "label volume, .seg.nrrd or DICOM SEG of the scan; with two or more, also"
            " where they disagree"
        ),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="table (.tsv) or document (.json) to write",
    )
    add_encoder(parser)
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    check_writable(arguments.output, *arguments.labels, scan=arguments.scan)
    if arguments.output and arguments.output.suffix.lower() not in (".tsv", ".json"):
        raise WriteError(
            f"Cannot write {arguments.output}: the name must end in .tsv or .json."
        )
    volume = read_scan_with_notes(arguments)
    names = [path.name for path in arguments.labels]
    maps = [
        (name if names.count(name) == 1 else str(path), _labels(path, volume))
        for name, path in zip(names, arguments.labels, strict=True)
    ]
    from napari_strata.audit.run import audit_labels
    from napari_strata.audit.tables import write_audit
    from napari_strata.pipeline import propose_with

    proposal = propose_with(
        volume,
        settings,
        run,
        weights=arguments.weights,
        on_progress=progress(arguments.quiet),
    )
    audits, disagreements = audit_labels(proposal, maps)
    if arguments.output:
        write_audit(arguments.output, audits, disagreements)
    _print(audits, disagreements, len(maps) > 1)
    print(
        "note: the order says where to look first; it proves no structure wrong or"
        " right.",
        file=sys.stderr,
    )


def _labels(path: Path, volume: Volume) -> Segmentation:
    from napari_strata.io.files import read_labels
    from napari_strata.preprocess.regrid import labels_on_grid

    with notes_shown():
        labels = read_labels(path, like=volume.geometry)
        return labels_on_grid(labels, volume.geometry, what=f"The labels {path}")


def _print(
    audits: Sequence[StructureAudit],
    disagreements: Sequence[Disagreement],
    has_several: bool,
) -> None:
    """Print the structures to look at first, and the largest disagreements."""
    for one in audits[:_SHOWN]:
        place = ", ".join(f"{value:g}" for value in one.center_ras_mm)
        where = f"{printable(one.labels)}: " if has_several else ""
        reasons = "; ".join(one.reasons) or "nothing stands out"
        print(f"{one.score:6.1f}  {where}{printable(one.name)} ({place}): {reasons}")
    if len(audits) > _SHOWN:
        print(f"and {len(audits) - _SHOWN} more with lower scores")
    for different in disagreements[:_SHOWN]:
        best = printable(different.supported) or "neither clearly"
        print(
            f"disagree on {printable(different.name)} (Dice {different.dice:.2f});"
            f" the scan supports {best}"
        )
