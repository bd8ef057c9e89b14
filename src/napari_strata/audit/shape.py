"""Islands, holes and odd slices of a structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

_ALL_NEIGHBOURS = ndi.generate_binary_structure(3, 3)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is odd about the shape of a structure.

    Parameters
    ----------
    islands : int
        Parts besides the largest.
    island_share : float
        Share of the volume in them, 0 to 1.
    hole_share : float
        Volume of enclosed holes, over that of the structure.
    odd_slice : float
        How much worse the oddest slice fits its neighbours than they fit each other, as
        a difference of overlaps (Jaccard), 0 to 1.
    odd_slice_at : tuple of 2 int
        Its axis (0 to 2) and index in the array.
    """

    islands: int
    island_share: float
    hole_share: float
    odd_slice: float
    odd_slice_at: tuple[int, int]


def measure_shape(mask: NDArray[np.bool_]) -> Shape:
    """Measure islands, holes and slices of a structure that is not empty.

    Parameters
    ----------
    mask : (z, y, x) bool array
        The structure.
    """
    parts, count = ndi.label(mask, _ALL_NEIGHBOURS)
    sizes = np.bincount(parts.ravel())[1:]
    volume = int(sizes.sum())
    holes = int(np.count_nonzero(ndi.binary_fill_holes(mask))) - volume
    odd, place = 0.0, (0, 0)
    for axis in range(3):
        value, index = _odd_slice(np.moveaxis(mask, axis, 0))
        if value > odd:
            odd, place = value, (axis, index)
    return Shape(count - 1, 1.0 - int(sizes.max()) / volume, holes / volume, odd, place)


def _odd_slice(planes: NDArray[np.bool_]) -> tuple[float, int]:
    """Return how odd the oddest slice along the first axis is, and its index."""
    if len(planes) < 3:
        return 0.0, 0
    near = _overlap(planes[1:], planes[:-1])
    far = _overlap(planes[2:], planes[:-2])
    odd = far - np.maximum(near[1:], near[:-1])
    best = int(np.argmax(odd))
    return max(0.0, float(odd[best])), best + 1


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    both = np.count_nonzero(one & other, axis=(1, 2))
    either = np.count_nonzero(one | other, axis=(1, 2))
    overlap: NDArray[np.float64] = both / np.maximum(either, 1)
    return overlap
