"""What is known of each supervoxel: pooled features, brightness, texture, boundary and place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_strata.proposal.supervoxels import Contacts


@dataclass(frozen=True, slots=True, eq=False)
class Descriptors:
    """A table with one row per supervoxel.

    Parameters
    ----------
    features : tuple of (n, channel) float32 arrays
        Mean feature per encoder level, finest first (not standardised, about unit length).
    brightness : (n, 4) float32 array
        Mean and standard deviation inside, mean at 2 mm and at 4 mm around; on the scale of brightness, [0, 1].
    boundary : (n,) float32 array
        Mean brightness step across its faces.
    center_zyx_mm : (n, 3) float32 array
        Centroid in mm along array axes, from the scan's first voxel.
    sizes_vox : (n,) int64 array
        Voxels.
    """

    features: tuple[NDArray[np.float32], ...]
    brightness: NDArray[np.float32]
    boundary: NDArray[np.float32]
    center_zyx_mm: NDArray[np.float32]
    sizes_vox: NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of `table`."""
        level_names = [f"feature {k}.{c}" for k, level in enumerate(self.features) for c in range(level.shape[1])]
        rest = ["brightness mean", "brightness sd", "brightness 2 mm", "brightness 4 mm", "boundary step"]
        return (*level_names, *rest, "position z", "position y", "position x")

    def table(self, body: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give all columns standardised over the supervoxels of the body, (n, d) float32."""
        columns = np.concatenate([*self.features, self.brightness, self.boundary[:, None], self.center_zyx_mm], axis=1)
        chosen = columns[body] if body.any() else columns
        spread = chosen.std(axis=0)
        return ((columns - chosen.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float32)


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
        self._membership = sparse.csc_matrix((ones, flat, np.arange(len(flat) + 1, dtype=np.int32)), shape=(n, len(flat)))
        self.counts = np.bincount(flat, minlength=n)

    def mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average values (..., channel) over each supervoxel: (n, channel) float32."""
        columns = values.reshape(-1, values.shape[-1])
        return (self._membership @ columns / np.maximum(self.counts, 1)[:, None]).astype(np.float32)


def describe_brightness(pooler: Pooler, light: NDArray[np.float32], spacing_zyx_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give mean, standard deviation, and mean at 2 mm and 4 mm around, per supervoxel: (n, 4) float32."""
    near = ndimage.gaussian_filter(light, 2.0 / spacing_zyx_mm, truncate=2.5)
    far = ndimage.gaussian_filter(light, 4.0 / spacing_zyx_mm, truncate=2.0)
    means = pooler.mean(np.stack([light, light * light, near, far], axis=-1))
    deviation = np.sqrt(np.maximum(means[:, 1] - means[:, 0] ** 2, 0.0))
    return np.stack([means[:, 0], deviation, means[:, 2], means[:, 3]], axis=1)


def centers_mm(labels: NDArray[np.int32], n: int, spacing_zyx_mm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the centroid of each supervoxel of `labels` (z, y, x) in mm from the first voxel: (n, 3) float32."""
    counts = np.maximum(np.bincount(labels.ravel(), minlength=n), 1)
    out = np.empty((n, 3), np.float32)
    for axis in range(3):
        place = np.arange(labels.shape[axis], dtype=np.float64).reshape([-1 if a == axis else 1 for a in range(3)])
        weights = np.broadcast_to(place, labels.shape).ravel()
        out[:, axis] = np.bincount(labels.ravel(), weights=weights, minlength=n) / counts * spacing_zyx_mm[axis]
    return out


def boundary_step(contacts: Contacts, n: int) -> NDArray[np.float32]:
    """Give the mean brightness step over all faces of each supervoxel, (n,) float32."""
    total, faces = np.zeros(n), np.zeros(n)
    for side in (0, 1):
        total += np.bincount(contacts.edges[:, side], weights=contacts.step * contacts.faces, minlength=n)
        faces += np.bincount(contacts.edges[:, side], weights=contacts.faces, minlength=n)
    return (total / np.maximum(faces, 1)).astype(np.float32)
