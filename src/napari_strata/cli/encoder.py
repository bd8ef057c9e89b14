"""The commands that make encoder weights: `strata pretrain` and `strata adapt`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.terminal import (
    add_settings,
    check_writable,
    line_ended,
    progress,
    progress_of_steps,
    settings_of,
)
from napari_strata.errors import AdaptError, WeightsError, WriteError
from napari_strata.filenames import printable
from napari_strata.settings import RECIPES, AdaptSettings, PretrainSettings

if TYPE_CHECKING:
    from napari_strata.volume import Volume

MOST_SCANS = 8
"""More scans than this are not read by `strata adapt`: a few minutes see no more of them."""


def add_commands(commands: Any) -> None:
    """Add `pretrain` and `adapt` to the command line."""
    _add_pretrain(commands)
    _add_adapt(commands)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 takes every core"
    )


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser(
        "pretrain",
        help="pretrain the encoder on synthetic scans; goes on where it stopped",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="weights to write (.safetensors); .state beside it resumes",
    )
    parser.add_argument(
        "--minutes", type=float, help="stop after this long, having saved"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help=(
            "processes that make scans meanwhile, always on the CPU; the weights are"
            " the same"
        ),
    )
    _add_machine(parser)
    base = parser.add_mutually_exclusive_group()
    base.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="a recipe by its name; v1 made the shipped weights; flags win",
    )
    base.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="recipe from the file's [pretrain] table; flags win",
    )
    add_settings(parser, PretrainSettings)
    parser.set_defaults(run=_pretrain)


def _pretrain(arguments: argparse.Namespace) -> None:
    recipe = settings_of(
        arguments, PretrainSettings, "pretrain", RECIPES.get(arguments.recipe)
    )
    _check_weights_name(arguments.output)
    if (
        arguments.output.exists()
        and not arguments.output.with_suffix(".state").exists()
    ):
        raise WriteError(
            f"{arguments.output} exists, without the .state that a run goes on from."
            " Move it away, or choose another name."
        )
    from napari_strata.encoder.pretraining.pretrain import pretrain

    with line_ended(progress_of_steps()) as show:
        pretrain(
            arguments.output,
            recipe,
            device=arguments.device,
            threads=arguments.threads,
            workers=arguments.workers,
            minutes=arguments.minutes,
            on_progress=show,
        )
    print(f"{printable(arguments.output)}: done")


def _add_adapt(commands: Any) -> None:
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
        help=f"scans of one kind; of more than {MOST_SCANS}, {MOST_SCANS} are used",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="weights to write (.safetensors), for --weights of other commands",
    )
    parser.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help="how to read intensities, if the scans do not say",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="weights to start from, other than the shipped ones",
    )
    _add_machine(parser)
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
    _check_weights_name(arguments.output)
    weights = arguments.weights
    if weights is not None and (
        weights.is_dir() or weights.suffix.lower() != ".safetensors"
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


def _check_weights_name(output: Path) -> None:
    check_writable(output)
    if output.suffix != ".safetensors":
        raise WriteError(f"Cannot write {output}: the name must end in .safetensors.")


def _read_some(paths: Sequence[str], modality: Any) -> list[Volume]:
    from napari_strata.io.files import read

    count = min(len(paths), MOST_SCANS)
    chosen = [paths[number * len(paths) // count] for number in range(count)]
    if count < len(paths):
        print(
            f"note: {count} of the {len(paths)} scans are used:"
            f" {printable(', '.join(chosen))}.",
            file=sys.stderr,
        )
    return [read(path, modality=modality) for path in chosen]
