"""Sparse layers over the volume: flat voxels (ascending, each once) and their values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Layer = tuple[NDArray[np.int64], NDArray[np.int32]]
"""Voxels and their values."""


def looked_up(
    voxels: NDArray[np.int64], values: NDArray[np.int32], at: NDArray[np.integer]
) -> NDArray[np.int32]:
    """Return the value of each voxel of `at`, -1 where the layer has none."""
    if len(voxels) == 0:
        return np.full(len(at), -1, np.int32)
    place = np.minimum(np.searchsorted(voxels, at), len(voxels) - 1)
    return np.where(voxels[place] == at, values[place], -1).astype(np.int32)


def overlaid(
    voxels: NDArray[np.int64],
    values: NDArray[np.int32],
    at: NDArray[np.int64],
    new: NDArray[np.int32],
) -> Layer:
    """Return the layer with new values of some voxels (ascending, each once).

    A new value of -1 removes the voxel.
    """
    place = np.searchsorted(voxels, at)
    known = place < len(voxels)
    known[known] = voxels[place[known]] == at[known]
    values = values.copy()
    values[place[known]] = new[known]
    fresh = ~known & (new >= 0)
    if fresh.any():
        voxels = np.insert(voxels, place[fresh], at[fresh])
        values = np.insert(values, place[fresh], new[fresh])
    gone = values < 0
    return (voxels[~gone], values[~gone]) if gone.any() else (voxels, values)


def layer_changes(old: Layer, new: Layer) -> NDArray[np.int64]:
    """Return the voxels (ascending) that differ between two layers or lie in only one."""
    if old[0] is new[0] and old[1] is new[1]:
        return np.empty(0, np.int64)
    gone = looked_up(*new, old[0]) != old[1]
    came = looked_up(*old, new[0]) != new[1]
    return merged(old[0][gone], new[0][came])


def merged(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the union of two ascending arrays of voxels.

    This is much faster than `numpy.union1d`, which does not use the order.
    """
    both = np.concatenate([one, other])
    both.sort(kind="stable")
    return both[np.append(True, np.diff(both) > 0)] if len(both) else both
