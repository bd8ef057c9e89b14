"""Do features stay the same when only the rendering of a scan changes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import adjusted_rand_score

from napari_strata.preprocess.intensity import resample
from napari_strata.volume import Geometry, Volume

CLUSTERS = 10
BIAS, NOISE_SHARE, NOISE_HU, COARSER = 0.4, 0.03, 20.0, 1.5
"""Field of 1 +- this; noise as a share of the intensity range, or in HU.

How much coarser the voxels get.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A changed scan, and where a voxel (n, 3) of the scan it was made from lies on its grid."""

    name: str
    volume: Volume
    place: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def changes(
    volume: Volume, inside: NDArray[np.bool_], seed: int = 0
) -> Iterator[Change]:
    """Give a scan with noise, flipped, resampled.

    For MR with a bias field and with its gamma changed.

    CT has no bias field, and its numbers are defined: no gamma there.
    """
    rng = np.random.default_rng(seed)
    data = volume.data.astype(np.float32)
    low, high = float(data.min()), float(np.percentile(data[inside], 99.5))

    def same(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return points

    if volume.modality == "mr":
        yield Change(
            "bias",
            replace(volume, data=(data - low) * bias_field(volume.geometry, rng) + low),
            same,
        )
        for exponent in (0.7, 1.4):
            bent = ((data - low) / (high - low)) ** np.float32(exponent) * np.float32(
                high - low
            ) + np.float32(low)
            yield Change(f"gamma {exponent}", replace(volume, data=bent), same)
        sigma = np.float32(NOISE_SHARE * (high - low))
        real, imaginary = (
            sigma * rng.standard_normal(data.shape, dtype=np.float32) for _ in range(2)
        )
        yield Change(
            "noise",
            replace(
                volume, data=np.hypot(data - low + real, imaginary) + np.float32(low)
            ),
            same,
        )
    else:
        yield Change(
            "noise",
            replace(
                volume,
                data=data
                + NOISE_HU * rng.standard_normal(data.shape, dtype=np.float32),
            ),
            same,
        )
    last = np.array([0.0, 0.0, data.shape[2] - 1.0])
    yield Change(
        "flip",
        replace(volume, data=np.ascontiguousarray(data[:, :, ::-1])),
        lambda points: np.abs(last - points),
    )
    coarse = coarser(volume)
    yield Change(
        "resample",
        coarse,
        lambda points: coarse.geometry.voxel_from_world(
            volume.geometry.world_from_voxel(points)
        ),
    )


def bias_field(geometry: Geometry, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a smooth field of about 1 - BIAS to 1 + BIAS, (z, y, x).

    Smoothed noise on a 4 x 4 x 4 grid.
    """
    field = ndimage.zoom(
        rng.standard_normal((4, 4, 4)),
        np.array(geometry.shape_zyx) / 4,
        order=3,
        mode="nearest",
        grid_mode=True,
    )
    field -= field.mean()
    return (1 + BIAS * field / np.abs(field).max()).astype(np.float32)


def coarser(volume: Volume) -> Volume:
    """Make every axis at least 1.5 times as coarse as the finest one is; the extent stays."""
    spacing = volume.spacing_zyx_mm
    wanted = np.maximum(spacing, COARSER * spacing.min())
    old = np.array(volume.data.shape)
    new = np.maximum(np.round(old * spacing / wanted), 1).astype(int)
    affine = volume.geometry.affine.copy()
    affine[:3, :3] *= old / new
    affine[:3, 3] = volume.geometry.world_from_voxel((old / new - 1) / 2)
    shape = (int(new[0]), int(new[1]), int(new[2]))
    return replace(
        volume,
        data=resample(volume.data.astype(np.float32), shape),
        geometry=Geometry(shape, affine),
    )


def mean_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Give the mean cosine between rows of two.

    (n, channel) arrays, each array's mean row subtracted.
    """
    one, other = first - first.mean(axis=0), second - second.mean(axis=0)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(axis=1) / np.maximum(lengths, 1e-9)))


def adjusted_rand(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Give the adjusted Rand index of two clusterings of the same voxels."""
    return float(adjusted_rand_score(first, second))
