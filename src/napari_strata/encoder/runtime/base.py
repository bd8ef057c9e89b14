"""Interface of an inference runtime: arrays in, arrays out, no torch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ImageShape = tuple[int, int, int]


class Runtime(Protocol):
    """A frozen encoder on one device, ready to run."""

    name: str
    """Runtime in settings, on the command line and in provenance."""
    device: str
    """Kind of device: "cpu", "cuda" or "mps"."""
    threads: int
    """CPU threads in use."""
    strides: tuple[int, ...]
    """Voxels of the input per voxel of each feature map, finest first."""
    channels: tuple[int, ...]
    """Channels of each feature map."""
    multiple_of: int
    """Every side of the input must be a multiple of this."""
    halo_vox: int
    """Receptive field on either side, in voxels: a tile needs this margin."""
    live_channels: int
    """Full-resolution float32 channels in memory at the peak, feature maps aside."""

    @property
    def record(self) -> dict[str, Any]:
        """Network and runtime, as plain values for a sidecar."""
        ...

    def encode(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the feature maps of an image, finest first.

        Parameters
        ----------
        image : (z, y, x) float32 array
            Intensity in [0, 1]; every side is a multiple of `multiple_of`.

        Returns
        -------
        tuple of (z', y', x', channel) float32 arrays
            Unit-length features of every level.

        Raises
        ------
        Cancelled
            If the caller no longer wants the result.
        """
        ...


def map_shape(image: ImageShape, stride: int, channels: int) -> tuple[int, ...]:
    """Return the shape of a feature map of an image of this shape."""
    z, y, x = image
    return z // stride, y // stride, x // stride, channels
