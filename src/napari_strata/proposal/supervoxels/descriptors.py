"""Descriptors of supervoxels: pooled features, intensity, texture, boundary and position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.parallel import each
from napari_strata.proposal.supervoxels.clustering import Contacts

_SLAB_VOXELS = 2_000_000
"""Voxels counted at a time, which bounds the memory."""
_QUANTILES = 257
"""Quantiles between which the rank of an intensity is interpolated."""


@dataclass(frozen=True, slots=True, eq=False)
class Descriptors:
    """A table with one row per supervoxel.

    Parameters
    ----------
    features : tuple of (n, channel) float32 arrays
        Mean feature per encoder level, finest first (not standardised, about unit
        length).
    intensity : (n, 5) float32 array
        Mean and standard deviation inside; mean after Gaussian smoothing by 2 mm and by
        4 mm; and mean rank, the share of the body that is darker. All in [0, 1].
    boundary : (n,) float32 array
        Mean intensity step across its faces.
    center_zyx_mm : (n, 3) float32 array
        Centroid in mm along array axes, from the scan's first voxel.
    sizes_vox : (n,) int64 array
        Voxels.
    """

    features: tuple[NDArray[np.float32], ...]
    intensity: NDArray[np.float32]
    boundary: NDArray[np.float32]
    center_zyx_mm: NDArray[np.float32]
    sizes_vox: NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of `table`."""
        level_names = [
            f"feature {k}.{c}"
            for k, level in enumerate(self.features)
            for c in range(level.shape[1])
        ]
        rest = [
            "brightness mean",
            "brightness sd",
            "brightness 2 mm",
            "brightness 4 mm",
            "brightness rank",
            "boundary step",
        ]
        return (*level_names, *rest, "position z", "position y", "position x")

    def table(self, body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return all columns standardised over the supervoxels of the body, (n, d) float32."""
        middle, spread = self.scale(body)
        return ((self._columns() - middle) / spread).astype(np.float32)

    def scale(self, body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the mean and spread by which `table` standardises columns, (2, d) float32."""
        columns = self._columns()
        chosen = columns[body] if body.any() else columns
        spread = chosen.std(axis=0)
        return np.stack(
            [chosen.mean(axis=0), np.where(spread > 1e-6, spread, 1.0)]
        ).astype(np.float32)

    def _columns(self) -> NDArray[np.float32]:
        return np.concatenate(
            [
                *self.features,
                self.intensity,
                self.boundary[:, None],
                self.center_zyx_mm,
            ],
            axis=1,
        )


class Pooler:
    """Averages voxel values over supervoxels in one pass.

    Parameters
    ----------
    labels : integer array
        Supervoxel id of each voxel, any shape.
    n : int
        Number of supervoxels; ids without a voxel get a row of zeros.
    """

    def __init__(self, labels: NDArray[np.integer], n: int) -> None:
        flat = np.ascontiguousarray(labels.reshape(-1), dtype=np.int32)
        ones = np.ones(len(flat), np.float32)
        self._membership = sparse.csc_matrix(
            (ones, flat, np.arange(len(flat) + 1, dtype=np.int32)), shape=(n, len(flat))
        )
        self.counts = np.bincount(flat, minlength=n)

    def mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average values (..., channel) over each supervoxel: (n, channel) float32."""
        columns = values.reshape(-1, values.shape[-1])
        return (
            self._membership @ columns / np.maximum(self.counts, 1)[:, None]
        ).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothedIntensity:
    """Intensity (z, y, x) float32, smoothed by Gaussians of 2 mm (near) and 4 mm (far)."""

    near: NDArray[np.float32]
    far: NDArray[np.float32]

    @classmethod
    def of(
        cls, intensity: NDArray[np.float32], spacing_zyx_mm: NDArray[np.float64]
    ) -> SmoothedIntensity:
        """Smooth intensity (z, y, x) by Gaussians of 2 mm and 4 mm."""
        near = ndimage.gaussian_filter(intensity, 2.0 / spacing_zyx_mm, truncate=2.0)
        return cls(
            near,
            ndimage.gaussian_filter(near, np.sqrt(12.0) / spacing_zyx_mm, truncate=2.0),
        )


def describe_intensity(
    pooler: Pooler,
    intensity: NDArray[np.float32],
    rank: NDArray[np.float32],
    around: SmoothedIntensity,
) -> NDArray[np.float32]:
    """Return the intensity columns of `Descriptors`, (n, 5) float32."""
    columns = [
        pooler.mean(values[..., None])[:, 0]
        for values in (intensity, intensity * intensity, around.near, around.far, rank)
    ]
    mean, square, near, far, above = columns
    return np.stack(
        [mean, np.sqrt(np.maximum(square - mean**2, 0.0)), near, far, above], axis=1
    )


def intensity_quantiles(
    intensity: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return quantiles of the body's intensity, increasing, for `intensity_rank`."""
    sample = intensity[inside]
    quantiles: NDArray[np.float64] = (
        np.quantile(
            sample[:: max(1, sample.size // 500_000)], np.linspace(0, 1, _QUANTILES)
        )
        + np.arange(_QUANTILES) * 1e-9
    )
    return quantiles


def intensity_rank(
    intensity: NDArray[np.float32], quantiles: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the share of the body that is darker than each voxel, (z, y, x) in [0, 1].

    Parameters
    ----------
    intensity : (z, y, x) float32 array
        Intensity of any part of a scan.
    quantiles : (k,) float64 array
        From `intensity_quantiles`, of the whole scan.
    """
    out = np.empty(intensity.shape, np.float32)
    shares = np.linspace(0, 1, len(quantiles))
    for plane, above in zip(intensity, out, strict=True):
        raise_if_cancelled()
        above[...] = np.interp(plane, quantiles, shares)
    return out


def sizes_and_centers(
    labels: NDArray[np.int32], n: int, spacing_zyx_mm: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the size and centroid of each supervoxel of `labels` (z, y, x).

    A few planes are counted at a time, so that a large scan needs little memory.

    Returns
    -------
    (n,) int64 array
        Voxels of each supervoxel.
    (n, 3) float32 array
        Centroids in mm from the first voxel.
    """
    rows, columns = labels.shape[1:]
    y = np.repeat(np.arange(rows, dtype=np.float64), columns)
    x = np.tile(np.arange(columns, dtype=np.float64), rows)
    deep = max(1, _SLAB_VOXELS // max(1, rows * columns))

    def of_slab(begin: int) -> tuple[NDArray[Any], NDArray[Any]]:
        slab = labels[begin : begin + deep]
        flat = slab.ravel()
        z = np.repeat(
            np.arange(begin, begin + len(slab), dtype=np.float64), rows * columns
        )
        places = (z, np.tile(y, len(slab)), np.tile(x, len(slab)))
        return np.bincount(flat, minlength=n), np.stack(
            [np.bincount(flat, weights=place, minlength=n) for place in places], axis=1
        )

    sizes, sums = np.zeros(n, np.int64), np.zeros((n, 3))
    for counted, summed in each(of_slab, range(0, len(labels), deep)):
        sizes += counted
        sums += summed
    return sizes, (sums / np.maximum(sizes, 1)[:, None] * spacing_zyx_mm).astype(
        np.float32
    )


def boundary_step(contacts: Contacts, n: int) -> NDArray[np.float32]:
    """Return the mean intensity step over all faces of each supervoxel, (n,) float32."""
    total, faces = np.zeros(n), np.zeros(n)
    for side in (0, 1):
        total += np.bincount(
            contacts.edges[:, side], weights=contacts.step * contacts.faces, minlength=n
        )
        faces += np.bincount(
            contacts.edges[:, side], weights=contacts.faces, minlength=n
        )
    return (total / np.maximum(faces, 1)).astype(np.float32)
