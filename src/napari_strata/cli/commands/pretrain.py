"""The commands `strata pretrain` and `strata export-encoder`: encoder weights and their export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from napari_strata.cli.bootstrap_scans import bootstrapped_patches
from napari_strata.cli.flags import add_settings, settings_of
from napari_strata.cli.terminal import (
    check_suffix,
    check_writable,
    line_ended,
    progress_of_steps,
)
from napari_strata.errors import SettingsError, WeightsError, WriteError
from napari_strata.filenames import MODEL_SUFFIX, WEIGHTS_SUFFIX, printable
from napari_strata.settings import RECIPES, Device, PretrainSettings


def add_command(commands: Any) -> None:
    """Add `pretrain` and `export-encoder` to the command line."""
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
    parser.add_argument(
        "--scans",
        nargs="+",
        default=[],
        metavar="SCAN",
        help=(
            "scans or folders of them; their own proposed regions serve as labels for a"
            " share of the patches (--bootstrapped-share); kept in OUTPUT.anatomies"
        ),
    )
    parser.add_argument(
        "--start-from",
        metavar="WEIGHTS",
        help=(
            "weights to start from (.safetensors), or 'shipped'; random ones if not given"
        ),
    )
    add_machine(parser)
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
    _add_export(commands)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export-encoder",
        help="export encoder weights to OpenVINO, which runs them faster on a CPU",
    )
    parser.add_argument(
        "weights",
        type=Path,
        nargs="?",
        help="weights of `pretrain` or `adapt` (.safetensors); the shipped ones if not given",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help=(
            "model to write (.xml, and .bin beside it); by default beside the weights,"
            " where other commands look for it"
        ),
    )
    parser.set_defaults(run=_export)


def _pretrain(arguments: argparse.Namespace) -> None:
    recipe = settings_of(
        arguments, PretrainSettings, "pretrain", RECIPES.get(arguments.recipe)
    )
    check_weights_name(arguments.output)
    if (
        arguments.output.exists()
        and not arguments.output.with_suffix(".state").exists()
    ):
        raise WriteError(
            f"{arguments.output} exists, without the .state that a run goes on from."
            " Move it away, or choose another name."
        )
    share = recipe.bootstrapped_share
    if bool(arguments.scans) != (share > 0):
        raise SettingsError(
            "--scans and a --bootstrapped-share above 0 belong together: the share says"
            " how many of the patches come from the scans. Give both, or neither."
        )
    from napari_strata.encoder.pretraining.patches import SyntheticBatches
    from napari_strata.encoder.pretraining.pretrain import pretrain

    bootstrapped = (
        bootstrapped_patches(
            arguments.scans, arguments.output, threads=arguments.threads
        )
        if arguments.scans
        else None
    )
    with line_ended(progress_of_steps()) as show:
        pretrain(
            arguments.output,
            recipe,
            device=arguments.device,
            threads=arguments.threads,
            workers=arguments.workers,
            minutes=arguments.minutes,
            batches=SyntheticBatches(recipe, bootstrapped),
            start_from=_start(arguments.start_from),
            on_progress=show,
        )
    print(f"{printable(arguments.output)}: done")


def _start(given: str | None) -> Path | None:
    """Return the weights file that a run starts from."""
    from napari_strata.encoder.identity import SHIPPED

    return SHIPPED if given == "shipped" else None if given is None else Path(given)


def _export(arguments: argparse.Namespace) -> None:
    weights, output = arguments.weights, arguments.output
    if weights is not None and weights.suffix.lower() != WEIGHTS_SUFFIX:
        raise WeightsError(
            f"Cannot export {weights}: only Strata's own weights (.safetensors) can be"
            " exported."
        )
    if output is not None:
        check_writable(output)
        check_suffix(output, MODEL_SUFFIX)
    from napari_strata.encoder.export_openvino import export_openvino

    print(f"{printable(export_openvino(weights, output))}: done")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the flags of where a training runs."""
    parser.add_argument("--device", choices=get_args(Device), default="auto")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 takes every core"
    )


def check_weights_name(output: Path) -> None:
    """Check that weights can be written under a name.

    Raises
    ------
    WriteError
        If they cannot.
    """
    check_writable(output)
    check_suffix(output, WEIGHTS_SUFFIX)
