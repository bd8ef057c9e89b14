"""The command `strata adapt`: encoder weights adapted to a person's own scans."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.commands.pretrain import add_machine, check_weights_name
from napari_strata.cli.flags import add_modality, add_settings, settings_of
from napari_strata.cli.terminal import line_ended, progress
from napari_strata.errors import AdaptError, WeightsError
from napari_strata.filenames import WEIGHTS_SUFFIX, printable
from napari_strata.settings import AdaptSettings

if TYPE_CHECKING:
    from napari_strata.volume import Modality, Volume

MAX_SCANS = 8
"""Scans that are read at most: a few minutes of training see no more of them."""


def add_command(commands: Any) -> None:
    """Add `adapt` to the command line."""
    parser = commands.add_parser(
        "adapt",
        help=(
            "adapt the encoder to your own scans, without labels; refuses what makes it"
            " worse"
        ),
    )
    parser.add_argument(
        "scans",
        nargs="+",
        metavar="SCAN",
        help=f"scans of one kind; of more than {MAX_SCANS}, {MAX_SCANS} are used",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="weights to write (.safetensors), for --weights of other commands",
    )
    add_modality(parser)
    parser.add_argument(
        "--weights",
        type=Path,
        help="weights to start from, other than the shipped ones",
    )
    add_machine(parser)
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [adapt] table; flags win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(parser, AdaptSettings)
    parser.set_defaults(run=_adapt)


def _adapt(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, AdaptSettings, "adapt")
    check_weights_name(arguments.output)
    weights = arguments.weights
    if weights is not None and (
        weights.is_dir() or weights.suffix.lower() != WEIGHTS_SUFFIX
    ):
        raise WeightsError(
            f"Cannot start from {weights}: adapt works on Strata's own weights"
            " (.safetensors) only."
        )
    scans = _read_some(arguments.scans, arguments.modality)
    from napari_strata.encoder.adapt import adapt

    try:
        with line_ended(progress(arguments.quiet), quiet=arguments.quiet) as show:
            report = adapt(
                scans,
                arguments.output,
                settings=settings,
                weights=weights,
                device=arguments.device,
                threads=arguments.threads,
                on_progress=show,
            )
    except AdaptError as err:
        print(err.table, file=sys.stderr)
        raise
    print(report.table())
    print(f"{printable(arguments.output)}: {report.summary()}")


def _read_some(paths: Sequence[str], modality: Modality | None) -> list[Volume]:
    """Read at most `MAX_SCANS` scans, evenly spread over the paths."""
    from napari_strata.io.files import read

    count = min(len(paths), MAX_SCANS)
    chosen = [paths[number * len(paths) // count] for number in range(count)]
    if count < len(paths):
        print(
            f"note: {count} of the {len(paths)} scans are used:"
            f" {printable(', '.join(chosen))}.",
            file=sys.stderr,
        )
    return [read(path, modality=modality) for path in chosen]
