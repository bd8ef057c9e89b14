"""The command `strata samples`: the three sample scans with their ground truth."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.errors import WriteError
from napari_strata.filenames import printable

if TYPE_CHECKING:
    from napari_strata.volume import Segmentation, Volume


def add_command(commands: Any) -> None:
    """Add `samples` to the command line."""
    parser = commands.add_parser(
        "samples", help="make the three sample scans, with their ground truth"
    )
    parser.add_argument("folder", type=Path)
    parser.set_defaults(run=_samples)


def _samples(arguments: argparse.Namespace) -> None:
    from napari_strata.synthesis.samples import SAMPLES, make_sample

    write_scans(arguments.folder, ((name, *make_sample(name)) for name in SAMPLES))


def write_scans(
    folder: Path, scans: Iterable[tuple[str, Volume, Segmentation]]
) -> None:
    """Write scans and their ground truth (`NAME_truth.nii.gz`) into a folder.

    Raises
    ------
    WriteError
        If the folder cannot be made, or a file cannot be written.
    """
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
