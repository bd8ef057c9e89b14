"""Encoder weights on disk: safetensors with the training recipe in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_strata.deprecated import moved_names
from napari_strata.encoder.identity import SHIPPED
from napari_strata.encoder.network import NetworkShape, StrataEncoder, fold_norms
from napari_strata.errors import WeightsError, WriteError
from napari_strata.filenames import plain_name
from napari_strata.io.atomic import atomic_path

FORMAT = "strata-encoder-2"
"""Format name in the header of weights files of this version."""


def write_weights(encoder: StrataEncoder, path: Path, recipe: dict[str, Any]) -> None:
    """Write an encoder as float16 safetensors with its recipe in the header."""
    tensors = {}
    for name, value in encoder.state_dict().items():
        stored = value.detach().cpu()
        tensors[name] = (
            stored.half()
            if stored.is_floating_point() and "running" not in name
            else stored
        ).contiguous()
    header = {
        "format": FORMAT,
        "network": json.dumps(encoder.shape.to_dict()),
        "recipe": json.dumps(recipe),
    }
    write_tensors(tensors, path, header)


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]
) -> None:
    """Write a safetensors file under a temporary name, then rename it.

    Raises
    ------
    WriteError
        If it cannot be written; no file is left under `path` then.
    """
    with atomic_path(path) as temporary:
        try:
            with plain_name(temporary) as name:
                save_file(tensors, name, metadata=metadata)
        except SafetensorError as err:
            raise WriteError(
                f"Cannot write {path} ({err}). Check the disk's space and your rights"
                " there."
            ) from err


def load_encoder(path: Path | None = None, *, fold: bool = True) -> StrataEncoder:
    """Load an encoder, frozen and ready to run on the CPU in float32.

    Parameters
    ----------
    path : Path, optional
        A safetensors file; the shipped weights if not given.
    fold : bool
        Fold the batch norms into the convolutions: faster, but no longer trainable.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or made for another network.
    """
    source = path or SHIPPED
    try:
        with plain_name(source) as name, safe_open(name, framework="pt") as store:
            header = store.metadata() or {}
            tensors = {key: store.get_tensor(key) for key in store.keys()}  # noqa: SIM118
    except FileNotFoundError as err:
        raise WeightsError(
            f"Encoder weights not found at {source}. Reinstall napari-strata, or make"
            " them with `strata pretrain`."
        ) from err
    except (SafetensorError, OSError) as err:
        raise WeightsError(
            f"Encoder weights in {source} cannot be read ({err}). Copy the file again."
        ) from err
    try:
        encoder = StrataEncoder(NetworkShape(**json.loads(header["network"])))
        encoder.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        )
    except (RuntimeError, KeyError, TypeError, ValueError) as err:
        raise WeightsError(
            f"The weights in {source} do not fit this network. Use weights made by this"
            " version's `strata pretrain`."
        ) from err
    encoder.requires_grad_(False)
    encoder.eval()
    if fold:
        fold_norms(encoder)
    return encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


__getattr__ = moved_names("encoder.weights")
