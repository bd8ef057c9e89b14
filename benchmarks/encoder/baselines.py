"""Feature sets: intensity, a filter bank, a network of random weights.

Networks of given weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.encoder.scans import FIRST_SEED
from benchmarks.encoder.working import WorkingScan
from numpy.typing import NDArray
from scipy import ndimage

from napari_strata.encoder.custom_network import open_encoder
from napari_strata.encoder.embed import (
    CODES,
    FeatureMap,
    embed_intensity,
    intensity_codes,
)
from napari_strata.encoder.network import (
    Encoder,
    NetworkShape,
    StrataEncoder,
    fold_norms,
)
from napari_strata.encoder.pretraining.patches import make_batch
from napari_strata.encoder.runtime.torch_runtime import TorchRuntime
from napari_strata.preprocess.intensity import WorkingGrid
from napari_strata.settings import ProposeSettings
from napari_strata.synthesis.synthesiser import Synthesiser

Reader = Callable[[NDArray[np.number]], NDArray[np.float32]]
"""Reads features at (n, 3) indices of the working grid, fractional ones too: (n, channel)."""
FILTER_MM = (1.0, 2.0, 4.0)
_SETTLING_BATCHES = 12
_MEMORY_GB = 4.0
"""Room for the largest working grid in one pass: tiles give the same features, only later."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A way to turn a scan into features.

    Parameters
    ----------
    name : str
        For the table.
    open : callable
        Computes a scan's features once and gives what reads them at points.
    parts : tuple of (str, slice)
        Columns that are worth rows of their own.
    """

    name: str
    open: Callable[[WorkingScan], Reader]
    parts: tuple[tuple[str, slice], ...] = ()


def intensity() -> FeatureSet:
    """Give the percentile-scaled intensity, one channel."""
    return FeatureSet("intensity", lambda scan: _image_reader([scan.scaled]))


def brightness() -> FeatureSet:
    """Give the brightness that the encoder sees.

    (an MR's bias flattened, its median made 0.5), one channel.
    """
    return FeatureSet("brightness", lambda scan: _image_reader([scan.intensity]))


def filter_bank() -> FeatureSet:
    """Give Gaussian, gradient magnitude and Laplacian at 1.

    2 and 4 mm of the percentile-scaled intensity, nine channels.

    Each channel is standardised inside the body. Left as they are, they do better on
    MNI152 (.90 against .88, probe with 20 voxels per class) and worse on the CT (.42
    against .48), where a filter bank has something to say.
    """

    def open_scan(scan: WorkingScan) -> Reader:
        return _image_reader(
            [
                standardised(channel, scan.body)
                for channel in filtered(scan.scaled, scan.grid)
            ]
        )

    return FeatureSet("filter bank", open_scan)


def standardised(
    image: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Give an image with mean 0 and standard deviation 1 inside a mask."""
    values = image[inside]
    scaled: NDArray[np.float32] = (image - values.mean()) / np.float32(
        max(float(values.std()), 1e-6)
    )
    return scaled


def filtered(
    image: NDArray[np.float32], grid: WorkingGrid
) -> list[NDArray[np.float32]]:
    """Filter an image at three scales.

    Derivatives are multiplied by the scale (Lindeberg's normalisation).
    """
    spacing = np.array(grid.spacing_zyx_mm)
    channels: list[NDArray[np.float32]] = []
    for scale in FILTER_MM:
        smooth = ndimage.gaussian_filter(
            image, scale / spacing, mode="nearest", truncate=3.0
        )
        slopes = [
            ndimage.correlate1d(smooth, [-0.5, 0.0, 0.5], axis=a, mode="nearest")
            / np.float32(s)
            for a, s in enumerate(spacing)
        ]
        bends = [
            ndimage.correlate1d(smooth, [1.0, -2.0, 1.0], axis=a, mode="nearest")
            / np.float32(s**2)
            for a, s in enumerate(spacing)
        ]
        channels += [
            smooth,
            np.float32(scale) * np.sqrt(sum(slope**2 for slope in slopes)),
            np.float32(scale**2) * sum(bends),
        ]
    return channels


def random_network(shape: NetworkShape | None = None, seed: int = 0) -> FeatureSet:
    """Give a network that was never trained, with the same brightness codes.

    Its batch norms have seen a few synthetic patches: without, it would give nearly the
    same feature everywhere, and be too easy to beat.
    """
    torch.manual_seed(seed)
    encoder = StrataEncoder(shape)
    encoder.requires_grad_(False)
    with torch.no_grad():
        for number in range(_SETTLING_BATCHES):
            first = FIRST_SEED - 1000 + 4 * number
            encoder.train()(
                make_batch(
                    Synthesiser((48, 48, 48)), list(range(first, first + 4)), views=1
                ).image
            )
    encoder.eval()
    fold_norms(encoder)
    return network("random network", encoder.to(memory_format=torch.channels_last_3d))  # type: ignore[call-overload]


def trained(name: str, weights: Path) -> FeatureSet:
    """Give the network of a weights file, or one that a user brings."""
    return network(name, open_encoder(weights))


def network(name: str, encoder: Encoder) -> FeatureSet:
    """Give an encoder's features as `strata.embed` returns them.

    Its brightness codes and its levels are the parts.
    """

    def open_scan(scan: WorkingScan) -> Reader:
        whole = tuple(slice(0, n) for n in scan.intensity.shape)
        grid = WorkingGrid(whole, scan.grid.shape_zyx, scan.grid.spacing_zyx_mm)  # type: ignore[arg-type]
        return _map_reader(
            embed_intensity(
                scan.intensity,
                grid,
                TorchRuntime(encoder),
                settings=ProposeSettings(memory_gb=_MEMORY_GB),
            )
        )

    first = CODES
    parts = [("codes", slice(0, CODES))]
    for number, channels in enumerate(encoder.channels):
        parts.append((f"level {number}", slice(first, first + channels)))
        first += channels
    return FeatureSet(name, open_scan, tuple(parts))


def _image_reader(channels: list[NDArray[np.float32]]) -> Reader:
    def read(points: NDArray[np.number]) -> NDArray[np.float32]:
        return np.stack([_read(channel, points) for channel in channels], axis=1)

    return read


def _map_reader(features: FeatureMap) -> Reader:
    """Read a feature map level by level.

    The same values as `FeatureMap.data`, without ever making all of it.
    """

    def read(points: NDArray[np.number]) -> NDArray[np.float32]:
        intensity = _read(features.intensity, points)
        columns = [intensity_codes(intensity.reshape(-1, 1, 1)).reshape(CODES, -1).T]
        for level, stride in zip(features.levels, features.strides, strict=True):
            places = (points + 0.5) / stride - 0.5
            columns.append(
                np.stack(
                    [
                        _read(level[..., channel], places)
                        for channel in range(level.shape[-1])
                    ],
                    axis=1,
                )
            )
        return np.concatenate(columns, axis=1)

    return read


def _read(
    image: NDArray[np.float32], points: NDArray[np.number]
) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ndimage.map_coordinates(
        image, points.T, order=1, mode="nearest", output=np.float32
    )
    return found
