"""The command `strata view`: a scan in napari."""

from __future__ import annotations

import argparse
from typing import Any

from napari_strata.cli.flags import add_scan


def add_command(commands: Any) -> None:
    """Add `view` to the command line."""
    parser = commands.add_parser(
        "view", help="open a scan in napari with Strata docked"
    )
    add_scan(parser)
    parser.set_defaults(run=_view)


def _view(arguments: argparse.Namespace) -> None:
    from napari_strata.gui.plugin.window import view_scan

    view_scan(
        arguments.scan,
        index=arguments.index,
        series=arguments.series,
        modality=arguments.modality,
    )
