"""Read a state dict in the common formats, and load it into a network."""

from __future__ import annotations

# Only for the name of an error. Files are unpickled by torch's restricted loader.
import pickle  # noqa: TID251
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.networks.nets.swin_unetr import filter_swinunetr
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_strata.encoder.description import NetworkDescription
from napari_strata.errors import WeightsError
from napari_strata.filenames import WEIGHTS_SUFFIX, plain_name

_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("", "model.", "network.", "net.", "backbone.", "student.")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How a state dict fitted its network.

    Parameters
    ----------
    part : {"whole", "swinViT"}
        Whether features are read from the whole network or only from a SwinUNETR's
        transformer.
    loaded : tuple of str
        Names of the network's values that were loaded.
    missing : tuple of str
        Names of its values that were not (none of them is needed).
    unused : tuple of str
        Names in the file that the network does not have.
    """

    part: Literal["whole", "swinViT"]
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def fill(
    network: nn.Module, needed_modules: frozenset[str], description: NetworkDescription
) -> LoadReport:
    """Load the weights that a description names into a network.

    Parameters
    ----------
    network : nn.Module
        The network, changed in place.
    needed_modules : frozenset of str
        Names of the modules that features depend on; their values must be in the file.
    description : NetworkDescription
        Names the weights file.

    Returns
    -------
    LoadReport
        What was loaded.

    Raises
    ------
    WeightsError
        If a value that the features need is not in the file, or has another shape
        there.
    """
    wanted = network.state_dict()
    state = _renamed(_read_state(description.weights), wanted)
    fits = {
        name: value
        for name, value in state.items()
        if name in wanted and value.shape == wanted[name].shape
    }
    lacking = [
        name
        for name, value in wanted.items()
        if value.is_floating_point() and name not in fits
    ]
    named = [name for name in state if name in wanted]
    part: Literal["whole", "swinViT"] = "whole"
    needed = [name for name in lacking if name.rpartition(".")[0] in needed_modules]
    if (
        hasattr(network, "swinViT")
        and named
        and all(name.startswith("swinViT.") for name in named)
    ):
        part, needed = (
            "swinViT",
            [name for name in lacking if name.startswith("swinViT.")],
        )
    if needed:
        shown = [
            f"{name}: the network has {tuple(wanted[name].shape)}, the file"
            f" {tuple(state[name].shape) if name in state else 'nothing'}"
            for name in sorted(needed, key=lambda name: name not in state)[:3]
        ]
        floating = sum(value.is_floating_point() for value in wanted.values())
        raise WeightsError(
            f"The weights in {description.weights} do not fit MONAI's"
            f" {description.network} as {description.source} describes it:"
            f" {len(needed)} of {floating} values are missing or of another shape, for"
            f" example {'; '.join(shown)}. Give the arguments that the weights were"
            " trained with."
        )
    if broken := [
        name
        for name, value in fits.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]:
        raise WeightsError(
            f"The weights in {description.weights} hold values that are no numbers,"
            f" first in {broken[0]}. Copy or train them again."
        )
    network.load_state_dict(fits, strict=False)
    return LoadReport(
        part,
        tuple(sorted(fits)),
        tuple(lacking),
        tuple(sorted(name for name in state if name not in fits)),
    )


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from .pt/.pth with torch's restricted loader.

    No code from the file is run.
    """
    try:
        with plain_name(path) as name:
            if path.suffix.lower() == WEIGHTS_SUFFIX:
                content: Any = load_file(name)
            else:
                content = torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError as err:
        raise WeightsError(
            f"Encoder weights not found at {path}. Check the name that the description"
            " gives."
        ) from err
    except pickle.UnpicklingError as err:
        raise WeightsError(
            f"{path} holds more than plain weights, or is damaged. Strata runs no code"
            " from a file. Save the network's state dict alone:"
            " torch.save(network.state_dict(), path)."
        ) from err
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as err:
        raise WeightsError(
            f"Encoder weights in {path} cannot be read ({shorten(err)}). Give a state"
            " dict, .safetensors or .pt."
        ) from err
    while isinstance(content, dict) and not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        content = next(
            (
                content[name]
                for name in _WRAPPERS
                if isinstance(content.get(name), dict)
            ),
            None,
        )
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds no state dict. Save one with"
            " torch.save(network.state_dict(), path)."
        )
    return {
        str(name): value for name, value in content.items() if isinstance(value, Tensor)
    }


def _renamed(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with names as in current MONAI, without trainers' prefixes.

    Of several renamings, the one that matches most names is used.
    """
    while any(name.startswith(("module.", "_orig_mod.")) for name in state):
        state = {
            name.removeprefix("module.").removeprefix("_orig_mod."): value
            for name, value in state.items()
        }
    state = {
        name.replace("mlp.fc", "mlp.linear"): value for name, value in state.items()
    }
    choices = [
        {name.removeprefix(prefix): value for name, value in state.items()}
        for prefix in _PREFIXES
    ]
    choices.append(
        {
            f"swinViT.{name}" if f"swinViT.{name}" in wanted else name: value
            for name, value in state.items()
        }
    )
    choices.append(
        dict(
            pair
            for name, value in state.items()
            if (pair := filter_swinunetr(name, value))
        )
    )
    return max(choices, key=lambda choice: sum(name in wanted for name in choice))


def shorten(err: BaseException) -> str:
    """Return the message of an error on one line, cut to 200 characters."""
    text = " ".join(str(err).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."
