"""Export an encoder from MONAI and torch to an OpenVINO model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_strata.encoder.identity import weights_hash
from napari_strata.encoder.network import StrataEncoder
from napari_strata.encoder.runtime.openvino_runtime import (
    METADATA,
    ModelDescription,
    import_openvino,
)
from napari_strata.encoder.runtime.select import exported_model
from napari_strata.encoder.weights import load_encoder
from napari_strata.errors import SettingsError, WriteError
from napari_strata.io.atomic import atomic_path

_TRACED_SIDE = 32
_SMALL = 64
"""Constants of fewer values stay in float32; they take no space."""
_LIVE_CHANNELS = 68
"""Measured: 2.3 GB for 7.0 million voxels, feature maps aside."""


def export_openvino(weights: Path | None = None, output: Path | None = None) -> Path:
    """Write the OpenVINO model of an encoder, with its weights as float16.

    Parameters
    ----------
    weights : Path, optional
        Weights of Strata's own network (.safetensors); the shipped ones if not given.
    output : Path, optional
        The .xml file, a .bin file is written beside it. If not given, both go beside
        the weights, where `open_runtime` looks for them.

    Returns
    -------
    Path
        The .xml file.

    Raises
    ------
    WeightsError
        If the weights cannot be used.
    SettingsError
        If OpenVINO is not installed.
    WriteError
        If the files cannot be written.
    """
    target = output or exported_model(weights)
    # unfolded: every value of a convolution is then one that float16 holds exactly
    encoder = load_encoder(weights, fold=False)
    model = _convert(encoder)
    description = ModelDescription(
        weights_hash(weights),
        encoder.strides,
        encoder.channels,
        encoder.multiple_of,
        encoder.halo_vox,
        _LIVE_CHANNELS,
    )
    model.set_rt_info(description.to_json(), [METADATA])
    _write(model, target)
    return target


class _ChannelsLast(nn.Module):
    """The encoder with its maps as (1, z, y, x, channel)."""

    def __init__(self, encoder: StrataEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # with gradients allowed the network takes its plain path, not the one in slabs
        with torch.enable_grad():
            return tuple(level.permute(0, 2, 3, 4, 1) for level in self.encoder(image))


def _convert(encoder: StrataEncoder) -> Any:
    """Trace the network and convert it; its image may have any size."""
    try:
        openvino = import_openvino()
    except ImportError as err:
        raise SettingsError(
            f"OpenVINO cannot be used ({err}). Install it (pip install openvino)."
        ) from err
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    standard = encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = _ChannelsLast(standard).eval()
    image = torch.zeros(1, 1, _TRACED_SIDE, _TRACED_SIDE, _TRACED_SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on sizes
        # the frontend itself: `convert_model` would fold the batch norms, whose products
        # float16 cannot hold
        decoder = TorchScriptPythonDecoder(plain, example_input=(image,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape([1, 1, -1, -1, -1])
    _halve_constants(model, openvino)
    return model


def _halve_constants(model: Any, openvino: Any) -> None:
    """Store constants as float16 where that changes no value."""
    from openvino import opset13

    for node in model.get_ops():
        if (
            node.get_type_name() != "Constant"
            or node.get_element_type() != openvino.Type.f32
        ):
            continue
        values = node.data
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _SMALL or not np.array_equal(half.astype(np.float32), values):
            continue
        widened = opset13.convert(opset13.constant(half), "f32")
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(widened.output(0))


def _write(model: Any, target: Path) -> None:
    """Write the .bin first: a model is found by its .xml."""
    openvino = import_openvino()
    # the inner file is put in place first, and the .bin has to be there before the .xml
    with atomic_path(target) as xml, atomic_path(target.with_suffix(".bin")) as weights:
        try:
            openvino.serialize(model, str(xml), str(weights))
        except RuntimeError as err:
            raise WriteError(
                f"Cannot write {target} ({err}). Check the disk's space and your rights"
                " there."
            ) from err
