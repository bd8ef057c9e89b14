"""Flags that several commands share: the scan, settings, and what decides the labels."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from napari_strata.filenames import printable
from napari_strata.settings import ProposeSettings, RunSettings, names_in

if TYPE_CHECKING:
    from napari_strata.labelling import LabelSource
    from napari_strata.volume import Volume

AUTO = "auto"
"""Value of --tissues and --regions that lets the scan choose the number."""


def add_scan(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name one scan."""
    parser.add_argument("scan", help="NIfTI, NRRD, MHA/MHD, MGH/MGZ, or a DICOM folder")
    parser.add_argument("--index", type=int, help="which volume of a 4D file, from 0")
    parser.add_argument("--series", help="which series of a DICOM folder (its UID)")
    add_modality(parser, "scan does")


def add_modality(parser: argparse.ArgumentParser, who: str = "scans do") -> None:
    """Add the flag that says how intensities are read."""
    parser.add_argument(
        "--modality",
        choices=("ct", "mr"),
        help=f"how to read intensities, if the {who} not say",
    )


def read_scan(arguments: argparse.Namespace, scan: str | Path | None = None) -> Volume:
    """Read the scan that the flags name, or another one with the same choices."""
    from napari_strata.io.files import read

    return read(
        arguments.scan if scan is None else scan,
        index=arguments.index,
        series=arguments.series,
        modality=arguments.modality,
    )


def read_scan_with_notes(arguments: argparse.Namespace) -> Volume:
    """Read the scan that the flags name, and print the reader's notes on stderr."""
    volume = read_scan(arguments)
    for note in volume.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return volume


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the flags of how a scan is proposed on: encoder, settings and machine."""
    parser.add_argument(
        "--encoder",
        "--weights",
        dest="weights",
        type=Path,
        help="another encoder: weights, a description (.toml), or a MONAI bundle",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [propose] and [run] tables; flags win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(parser, RunSettings)
    add_settings(parser, ProposeSettings)


def add_recipe(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """Add what decides the labels besides the scan: cut, codebook or teaching, settings.

    With `auto`, the scan may choose the number of tissues or regions.
    """
    cut = parser.add_mutually_exclusive_group(required=True)
    count, more = (
        (count_or_auto, "; auto takes each branch where it is stable")
        if auto
        else (int, "")
    )
    cut.add_argument(
        "--tissues",
        type=count,
        metavar="N",
        help=f"N tissues: classes of similar regions, anywhere in the scan{more}",
    )
    cut.add_argument(
        "--regions", type=count, metavar="N", help=f"N connected regions{more}"
    )
    cut.add_argument(
        "--codebook",
        type=Path,
        metavar="FILE",
        help="the tissues of a codebook, with the same numbers in every scan",
    )
    cut.add_argument(
        "--taught",
        type=Path,
        metavar="FILE",
        help="the regions that the strokes on another scan taught (strata teach)",
    )
    add_encoder(parser)


def label_source(
    arguments: argparse.Namespace, settings: ProposeSettings
) -> LabelSource:
    """Return the cut, codebook or teaching that the flags of `add_recipe` name.

    Raises
    ------
    SettingsError
        If a cut has less than one region.
    CodebookError, TeachingError
        If the file cannot be read, or belongs to another encoder.
    """
    from napari_strata.labelling import Cut, load_codebook, load_teaching

    if arguments.codebook:
        return load_codebook(arguments.codebook, settings, arguments.weights)
    if arguments.taught:
        return load_teaching(arguments.taught, settings, arguments.weights)
    tree: Literal["tissues", "regions"] = (
        "regions" if arguments.regions is not None else "tissues"
    )
    count = getattr(arguments, tree)
    return Cut(tree, None if count == AUTO else count)


def count_or_auto(text: str) -> int | str:
    """Read a whole number, or the word "auto"."""
    try:
        return AUTO if text == AUTO else int(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a whole number nor {AUTO!r}"
        ) from err


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add one flag per setting of a settings class."""
    group = parser.add_argument_group("settings")
    hints = get_type_hints(settings)
    for setting in fields(settings):
        kind: Any = hints[setting.name]
        unit = f" {setting.metadata['unit']}" if setting.metadata["unit"] else ""
        text = f"{setting.metadata['description']} (default: {setting.default}{unit})"
        text = text.replace("%", "%%")
        flag = "--" + setting.name.replace("_", "-")
        if get_origin(kind) is Literal:
            group.add_argument(flag, choices=get_args(kind), help=text)
        elif setting.metadata.get("names"):
            group.add_argument(flag, nargs="+", metavar="NAME", help=text)
        else:
            group.add_argument(
                flag, type=kind, metavar=kind.__name__.upper(), help=text
            )


def settings_of(
    arguments: argparse.Namespace, settings: Any, table: str, base: Any = None
) -> Any:
    """Return settings: flags over `base`, or over the TOML file, or over the defaults.

    Parameters
    ----------
    arguments : argparse.Namespace
        With one value per setting, None where no flag was given.
    settings : type
        The settings class.
    table : str
        Its table in the TOML file.
    base : settings, optional
        Settings that flags override; the TOML file is then not read.
    """
    if base is None:
        base = (
            settings.from_toml(arguments.settings, table)
            if arguments.settings
            else settings()
        )
    return settings.from_dict({**base.to_dict(), **_flag_values(arguments, settings)})


def _flag_values(arguments: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Return the settings that were given as flags."""
    values = {
        setting.name: getattr(arguments, setting.name) for setting in fields(settings)
    }
    joined = {
        name: ",".join(names_in(" ".join(value))) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return {name: value for name, value in joined.items() if value is not None}
