"""Run any encoder with torch: on a GPU, for adapted weights, for other MONAI networks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.encoder.custom_network import encoder_record
from napari_strata.encoder.memory import kept_pages
from napari_strata.encoder.network import Encoder, pick_device, torch_threads

_LIVE_CHANNELS = 64
"""Full-resolution channels of Strata's own network in a forward pass, feature maps aside."""


class TorchRuntime:
    """An encoder that runs with torch.

    Parameters
    ----------
    encoder : Encoder
        Frozen; moved to the device if it is a module.
    device : {"auto", "cpu", "cuda", "mps"}
        Where it runs.
    threads : int
        CPU threads; 0 takes torch's own choice.

    Raises
    ------
    SettingsError
        If the device is not there.
    """

    name = "torch"

    def __init__(
        self, encoder: Encoder, *, device: str = "auto", threads: int = 0
    ) -> None:
        self._target = pick_device(device)
        self._encoder = encoder
        if isinstance(encoder, nn.Module):
            encoder.to(self._target)
        self.device = self._target.type
        self.threads = threads or torch.get_num_threads()
        self.strides = encoder.strides
        self.channels = encoder.channels
        self.multiple_of = encoder.multiple_of
        self.halo_vox = encoder.halo_vox
        self.live_channels = int(getattr(encoder, "live_channels", _LIVE_CHANNELS))

    @property
    def record(self) -> dict[str, Any]:
        """Network and runtime, as plain values for a sidecar."""
        return {**encoder_record(self._encoder), "runtime": self.name}

    def encode(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the feature maps of (z, y, x); see `Runtime.encode`."""
        with (
            torch.inference_mode(),
            kept_pages(),
            torch_threads(self.threads),
            _cancellable(self._encoder),
        ):
            tile = torch.from_numpy(image)[None, None].to(
                self._target, memory_format=torch.channels_last_3d
            )
            return tuple(
                np.ascontiguousarray(level[0].permute(1, 2, 3, 0).cpu().numpy())
                for level in self._encoder(tile)
            )


@contextmanager
def _cancellable(encoder: Encoder) -> Generator[None]:
    """Check for cancellation before every layer: a large tile takes half a minute."""
    given: object = encoder
    parts = (
        given.modules()
        if isinstance(given, nn.Module)
        and not isinstance(given, torch.jit.ScriptModule)
        else ()
    )
    layers = [part for part in parts if next(part.children(), None) is None]
    hooks = [
        layer.register_forward_pre_hook(lambda _layer, _inputs: raise_if_cancelled())
        for layer in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
