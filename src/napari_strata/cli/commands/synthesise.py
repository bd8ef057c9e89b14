"""The command `strata synthesise`: scans with ground truth, or a picture of some."""

from __future__ import annotations

import argparse
from typing import Any

from napari_strata.cli.commands.samples import write_scans
from napari_strata.cli.terminal import check_writable
from napari_strata.filenames import printable
from napari_strata.io.atomic import atomic_path
from napari_strata.synthesis import flags


def add_command(commands: Any) -> None:
    """Add `synthesise` to the command line."""
    parser = commands.add_parser(
        "synthesise",
        help=(
            "draw scans of the synthesiser (--gallery), or write some with their ground"
            " truth"
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
        write_scans(arguments.output, flags.scans_from(arguments))
