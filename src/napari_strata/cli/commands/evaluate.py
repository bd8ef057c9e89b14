"""The command `strata evaluate`: labels against a reference, as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_strata.cli.terminal import notes_shown, print_json
from napari_strata.errors import GeometryError


def add_command(commands: Any) -> None:
    """Add `evaluate` to the command line."""
    parser = commands.add_parser(
        "evaluate", help="score labels against a reference, as JSON"
    )
    parser.add_argument(
        "labels", type=Path, help="a label volume, .seg.nrrd or DICOM SEG"
    )
    parser.add_argument("reference", type=Path, help="reference labels, likewise")
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
            "reference values that count as errors where a region covers them, but are"
            " no class of the mean scores (default: 0)"
        ),
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from napari_strata.export.files import read_labels
    from napari_strata.measure import compare
    from napari_strata.preprocess.regrid import on_one_grid

    with notes_shown():
        labels = read_labels(arguments.labels)
        reference = read_labels(arguments.reference)
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
