"""The flags of `strata synthesise` and their execution. Importing this loads no torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_strata.errors import SettingsError
from napari_strata.settings import names_in

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_strata.synthesis.synthesiser import Synthesiser
    from napari_strata.volume import Segmentation, Volume


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `strata synthesise`."""
    parser.add_argument(
        "--gallery",
        type=Path,
        metavar="PNG",
        help="draw a contact sheet: blocks, contrasts, faults",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write scans and their ground truth as NIfTI",
    )
    parser.add_argument(
        "--count", type=int, default=12, help="how many blocks or scans (default: 12)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first one; the next ones count up (default: 0)",
    )
    parser.add_argument(
        "--family",
        choices=("head", "torso", "shapes"),
        help="only this kind of anatomy",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help="families, contrasts or faults to leave out",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=(64, 64, 64),
        metavar=("Z", "Y", "X"),
        help="voxels (default: 64 64 64)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        metavar="MM",
        help="voxel size along all axes; each draws its own if not given",
    )


def check_flags(arguments: argparse.Namespace) -> None:
    """Check the flags before anything is computed.

    Raises
    ------
    SettingsError
        If no output is requested, or the gallery's name does not end in .png.
    """
    if arguments.gallery is None and arguments.output is None:
        raise SettingsError(
            "Nothing to make. Give --gallery PNG for a picture, or -o DIR for scans."
        )
    if arguments.gallery is not None and arguments.gallery.suffix.lower() != ".png":
        raise SettingsError(
            f"Cannot draw the gallery {arguments.gallery}: the name must end in .png."
        )


def draw_from(arguments: argparse.Namespace) -> Image:
    """Return the gallery that the flags request; see `gallery.draw_gallery`."""
    from napari_strata.synthesis.gallery import draw_gallery

    return draw_gallery(
        _synthesiser(arguments), seed=arguments.seed, count=arguments.count
    )


def scans_from(
    arguments: argparse.Namespace,
) -> Iterator[tuple[str, Volume, Segmentation]]:
    """Yield the scans that the flags request, as (name, scan, tissues)."""
    from napari_strata.synthesis.samples import synthesise_scans

    return synthesise_scans(_synthesiser(arguments), arguments.seed, arguments.count)


def _synthesiser(arguments: argparse.Namespace) -> Synthesiser:
    from napari_strata.synthesis.synthesiser import Synthesiser

    shape = (arguments.shape[0], arguments.shape[1], arguments.shape[2])
    made = Synthesiser(
        shape=shape,
        without=names_in(" ".join(arguments.without)),
        spacing_mm=arguments.spacing,
    )
    if arguments.family is None:
        return made
    return Synthesiser(
        shape=shape,
        families={arguments.family: 1.0},
        without=made.without,
        spacing_mm=made.spacing_mm,
    )
