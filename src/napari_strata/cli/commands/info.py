"""The command `strata info`: what a scan is, as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from napari_strata.cli.flags import add_scan, read_scan_with_notes
from napari_strata.cli.terminal import print_json


def add_command(commands: Any) -> None:
    """Add `info` to the command line."""
    parser = commands.add_parser("info", help="describe a scan, as JSON")
    add_scan(parser)
    parser.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> None:
    volume = read_scan_with_notes(arguments)
    from napari_strata.export.outputs import scan_record

    geometry = volume.geometry
    record = scan_record(volume)
    record["dtype"] = str(volume.data.dtype)
    record["range"] = [float(volume.data.min()), float(volume.data.max())]
    record["size_mm_zyx"] = [
        round(float(n * spacing), 3)
        for n, spacing in zip(geometry.shape_zyx, geometry.spacing_zyx_mm, strict=True)
    ]
    if geometry.file is not None:
        record["file_shape"] = list(geometry.file.shape)
        record["file_affine"] = geometry.file.affine.tolist()
    print_json(record)
