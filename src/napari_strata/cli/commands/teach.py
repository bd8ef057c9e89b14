"""The command `strata teach`: what the strokes on one scan taught, for other scans."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_strata.cli.terminal import check_suffix, check_writable
from napari_strata.filenames import CASE_SUFFIX, TEACHING_SUFFIX, printable


def add_command(commands: Any) -> None:
    """Add `teach` to the command line."""
    parser = commands.add_parser(
        "teach",
        help=(
            "save what the strokes on one scan taught, to apply it to other scans"
            " (propose --taught)"
        ),
    )
    parser.add_argument(
        "case", type=Path, help=f"case ({CASE_SUFFIX}) with strokes or named regions"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"teaching to write ({TEACHING_SUFFIX})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the choice of examples (default: 0)",
    )
    parser.set_defaults(run=_teach)


def _teach(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    check_suffix(arguments.output, TEACHING_SUFFIX)
    from napari_strata.refine.session.refinement import Refinement

    teaching = Refinement.load(arguments.case).teach(seed=arguments.seed)
    teaching.save(arguments.output)
    print(
        f"{printable(arguments.output)}:"
        f" {', '.join(region.name for region in teaching.regions)}"
    )
