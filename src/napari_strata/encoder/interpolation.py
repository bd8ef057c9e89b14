"""Trilinear interpolation of feature maps, with voxel centres at whole indices."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Axes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Positions along z, y and x, in voxel indices of the map."""
_POINTS_AT_ONCE = 65_536


def upsampled_axes(shape_zyx: tuple[int, int, int], stride: int) -> Axes:
    """Return where the voxels of a grid lie in a map that is `stride` times as coarse."""
    z, y, x = ((np.arange(n) + 0.5) / stride - 0.5 for n in shape_zyx)
    return z, y, x


def interpolate_grid(level: NDArray[np.float32], axes: Axes) -> NDArray[np.float32]:
    """Interpolate a map on a rectilinear grid, one axis after the other.

    Parameters
    ----------
    level : (z, y, x, channel) float32 array
        The map.
    axes : tuple of 3 float arrays
        Positions along each axis; beyond its ends the map goes on unchanged.

    Returns
    -------
    (z', y', x', channel) float32 array
        Values at all combinations of the positions.
    """
    out = level
    for axis, positions in enumerate(axes):
        lower, upper, share = _neighbors(positions, level.shape[axis])
        weight = share.reshape([-1 if axis == k else 1 for k in range(4)])
        low = np.take(out, lower, axis=axis)
        out = np.take(out, upper, axis=axis)
        out -= low
        out *= weight
        out += low
    return np.ascontiguousarray(out)


def interpolate_at(
    level: NDArray[np.float32], positions: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Interpolate a map at single points.

    Parameters
    ----------
    level : (z, y, x, channel) float32 array
        The map.
    positions : (n, 3) array
        Voxel indices of the map (z, y, x); beyond its ends the map goes on unchanged.

    Returns
    -------
    (n, channel) float32 array
        Values at the points.
    """
    out = np.zeros((len(positions), level.shape[-1]), np.float32)
    for start in range(0, len(positions), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        sides = []
        for axis in range(3):
            lower, upper, share = _neighbors(positions[part, axis], level.shape[axis])
            sides.append(((lower, 1 - share), (upper, share)))
        for (z, in_z), (y, in_y), (x, in_x) in product(*sides):
            out[part] += level[z, y, x] * (in_z * in_y * in_x)[:, None]
    return out


def _neighbors(
    positions: NDArray[np.floating], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the voxels on either side of positions, and the weight of the upper one."""
    inside = np.clip(positions, 0, size - 1)
    lower = np.floor(inside).astype(np.intp)
    share = (inside - lower).astype(np.float32)
    return lower, np.minimum(lower + 1, size - 1), share
