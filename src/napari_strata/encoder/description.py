"""Descriptions of custom networks: a short TOML or JSON file, or a MONAI bundle.

Both are read as data: nothing in them is evaluated, imported or called.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser

from napari_strata.errors import WeightsError

NETWORKS = (
    "AttentionUnet",
    "BasicUNet",
    "BasicUNetPlusPlus",
    "DynUNet",
    "MedNeXt",
    "SegResNet",
    "SegResNetDS",
    "SwinUNETR",
    "UNet",
    "VNet",
)
"""MONAI networks that are supported as custom encoders.

They run on scans of any size and never download anything.
"""
_HOME = "monai.networks.nets"
_CONFIGS = tuple(
    f"configs/{stem}.{suffix}"
    for stem in ("inference", "evaluate", "train")
    for suffix in ("json", "yaml", "yml")
)
_WEIGHTS = ("models/model.safetensors", "models/model.pt", "models/model.pth")
_TURNS = ("Orientation", "Orientationd", "OrientationD", "OrientationDict")
_DEEPEST = 16
"""Deepest nesting of values and references in a bundle's network definition."""
_WRITE_ONE = "Write a description (.toml) as shown in docs/bring_your_own.md"


@dataclass(frozen=True, slots=True)
class NetworkDescription:
    """A MONAI network and its weights.

    Parameters
    ----------
    network : str
        One of `NETWORKS`; upper and lower case do not matter.
    weights : Path
        A state dict, .safetensors or .pt/.pth.
    arguments : dict
        Arguments of its constructor, as plain values.
    range : (float, float)
        The intensity range that the network expects; ours is [0, 1].
    orientation : str
        Directions of the input's axes: one letter each of R/L, A/P and S/I.
    source : Path or None
        The file that was read.

    Raises
    ------
    WeightsError
        If the network is not one of `NETWORKS`, or a value is invalid.
    """

    network: str
    weights: Path
    arguments: dict[str, Any] = field(default_factory=dict)
    range: tuple[float, float] = (0.0, 1.0)
    orientation: str = "RAS"
    source: Path | None = None

    def __post_init__(self) -> None:
        place = self.source or "The description"
        known = {name.lower(): name for name in NETWORKS}
        if not isinstance(self.network, str) or self.network.lower() not in known:
            raise WeightsError(
                f"{place} asks for the network {self.network!r}. Strata can run"
                f" {', '.join(NETWORKS)}, all of MONAI."
            )
        object.__setattr__(self, "network", known[self.network.lower()])
        if not isinstance(self.arguments, dict):
            raise WeightsError(
                f"{place}: 'arguments' must be a table of the network's arguments, not"
                f" {self.arguments!r}."
            )
        for pair in ("RL", "AP", "SI"):
            if (
                not isinstance(self.orientation, str)
                or len(self.orientation) != 3
                or sum(self.orientation.count(x) for x in pair) != 1
            ):
                raise WeightsError(
                    f"{place}: 'orientation' is {self.orientation!r}. Give three"
                    ' letters, for example "RAS" or "IPL".'
                )
        numbers = isinstance(self.range, list | tuple) and all(
            isinstance(x, int | float) for x in self.range
        )
        if not numbers or len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise WeightsError(
                f"{place}: 'range' is {self.range!r}. Give two numbers, for example"
                " [0.0, 1.0]."
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide the network's output."""
        return (*((self.source,) if self.source else ()), self.weights)


def read_description(path: Path) -> NetworkDescription:
    """Read the description of a custom network.

    Parameters
    ----------
    path : Path
        A .toml or .json description (network, weights, arguments, and range and
        orientation of its input), or the folder of a MONAI bundle.

    Raises
    ------
    WeightsError
        If it cannot be read, lacks an entry, or could only be read by running code.
    """
    if path.is_dir():
        return _read_bundle(path)
    if path.suffix.lower() not in (".toml", ".json"):
        raise WeightsError(
            f"{path} does not say what network it belongs to. {_WRITE_ONE}, and give"
            " that to --encoder; a MONAI bundle's folder works too."
        )
    content = _load(path)
    known = {entry.name for entry in fields(NetworkDescription)} - {"source"}
    if unknown := sorted(set(content) - known):
        raise WeightsError(
            f"{path} has an entry {unknown[0]!r} that is not known. Known:"
            f" {', '.join(sorted(known))}."
        )
    if missing := [
        name
        for name in ("network", "weights")
        if not isinstance(content.get(name), str)
    ]:
        raise WeightsError(f"{path} does not name its {missing[0]!r}. {_WRITE_ONE}.")
    return NetworkDescription(
        **{**content, "weights": path.parent / content["weights"], "source": path}
    )


def _load(path: Path) -> dict[str, Any]:
    """Read a TOML, JSON or YAML file as plain data."""
    try:
        if path.suffix.lower() == ".toml":
            return tomllib.loads(path.read_text(encoding="utf-8"))
        # MONAI reads JSON as it stands, YAML with a safe loader, and evaluates nothing
        # at this point.
        content = (
            ConfigParser.load_config_file(path)
            if path.suffix.lower() == ".json"
            else _load_yaml(path)
        )
    except FileNotFoundError as err:
        raise WeightsError(
            f"Encoder weights: there is no {path}. Check the name that was given to"
            " --encoder."
        ) from err
    except (OSError, ValueError) as err:
        raise WeightsError(f"{path} cannot be read ({err}). Mend the file.") from err
    except ImportError as err:
        raise WeightsError(
            f"{path} is YAML, and PyYAML is not installed. Install it (pip install"
            " pyyaml), or give JSON."
        ) from err
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no table of names and values. {_WRITE_ONE}.")
    return content


def _load_yaml(path: Path) -> Any:
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        return ConfigParser.load_config_file(path)
    except YAMLError as err:
        raise ValueError(f"it is not valid YAML: {err}") from err


def _read_bundle(folder: Path) -> NetworkDescription:
    """Read a bundle's network definition without MONAI's parser, which would run code."""
    configs = [folder / name for name in _CONFIGS if (folder / name).is_file()]
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not configs or not weights:
        missing = (
            "configs/inference.json or configs/train.json"
            if not configs
            else "models/model.pt"
        )
        raise WeightsError(
            f"{folder} is no MONAI bundle: it has no {missing}. Give a bundle's folder,"
            " or a description (.toml)."
        )
    for source in configs:
        config = _load(source)
        if "network_def" in config:
            break
    else:
        raise WeightsError(f"{configs[0]} has no 'network_def'. {_WRITE_ONE}.")
    definition = _plain(config["network_def"], config, source, allowed_target=True)
    target = definition.pop("_target_", None) if isinstance(definition, dict) else None
    if not isinstance(target, str):
        raise WeightsError(f"{source}: 'network_def' names no class. {_WRITE_ONE}.")
    home, _, name = target.rpartition(".")
    if home and home != _HOME and not home.startswith(f"{_HOME}."):
        raise WeightsError(
            f"{source} asks for {target!r}. Strata only builds networks of {_HOME};"
            " nothing was run."
        )
    return NetworkDescription(
        name,
        weights[0],
        definition,
        orientation=_orientation_of(config, source),
        source=source,
    )


def _plain(
    value: Any,
    config: dict[str, Any],
    source: Path,
    *,
    allowed_target: bool = False,
    depth: int = 0,
) -> Any:
    """Return a value with its references resolved; refuse expressions that need code."""
    if depth > _DEEPEST:
        raise WeightsError(
            f"{source}: references in 'network_def' go in a circle. Write a description"
            " (.toml) instead."
        )
    if isinstance(value, str) and value.startswith("@"):
        value = _follow(value, config, source)
        return _plain(
            value, config, source, allowed_target=allowed_target, depth=depth + 1
        )
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise WeightsError(
            f"{source}: 'network_def' needs {value!r} to be run, and Strata runs no"
            " code from a file. Write a description (.toml) with the value itself; see"
            " docs/bring_your_own.md."
        )
    if isinstance(value, list):
        return [_plain(item, config, source, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        kept = {
            key: item
            for key, item in value.items()
            if key not in ("_desc_", "_requires_")
        }
        special = [
            key
            for key in kept
            if key.startswith("_") and not (allowed_target and key == "_target_")
        ]
        if special:
            raise WeightsError(
                f"{source}: {special[0]!r} inside 'network_def' is not supported;"
                " nothing was run. Write a description (.toml)."
            )
        return {
            key: _plain(item, config, source, depth=depth + 1)
            for key, item in kept.items()
        }
    return value


def _follow(reference: str, config: dict[str, Any], source: Path) -> Any:
    """Return the value behind a reference: "@name", "@name::inner" or "@name#0"."""
    found: Any = config
    for step in reference[1:].replace("#", "::").split("::"):
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, TypeError, ValueError) as err:
            raise WeightsError(
                f"{source}: it refers to {reference!r}, which cannot be looked up."
                " Write a description."
            ) from err
    return found


def _orientation_of(config: dict[str, Any], source: Path) -> str:
    """Return the orientation to which a bundle turns its images.

    It is RAS, the custom in MONAI, if the bundle does not define one.
    """
    for part in _tables(config):
        if (
            str(part.get("_target_")).rpartition(".")[2] not in _TURNS
            or part.get("_disabled_") is True
        ):
            continue
        if part.get("as_closest_canonical") is True:
            return "RAS"
        codes = part.get("axcodes")
        if isinstance(codes, str) and codes.startswith("@"):
            codes = _follow(codes, config, source)
        if isinstance(codes, list) and all(isinstance(code, str) for code in codes):
            codes = "".join(codes)
        if not isinstance(codes, str) or codes.startswith(("@", "$", "%")):
            raise WeightsError(
                f"{source}: {part['_target_']} turns images to {codes!r}, which cannot"
                f" be read without running it. {_WRITE_ONE}, with its orientation."
            )
        return codes
    return "RAS"


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every table inside a value, however deep."""
    inner = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else ()
    )
    if isinstance(value, dict):
        yield value
    for item in inner:
        yield from _tables(item)
