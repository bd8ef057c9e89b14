"""Checks and conversions of intensities, for scans from files and from layers.

Afterwards intensities are finite, vary, and have a known type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ReadError


def finite(data: NDArray[Any], source: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Replace voxels that are NaN, infinite or too large for float32 by the lowest other value.

    Return a note on them too.

    Parameters
    ----------
    data : real array
        Intensities.
    source : str
        Names the scan in messages.

    Raises
    ------
    ReadError
        If no voxel is a number.
    """
    if data.dtype.kind != "f":
        return data, ()
    bad, what = ~np.isfinite(data), "NaN or infinite"
    if data.dtype.itemsize > 4:
        limit = float(np.finfo(np.float32).max)
        beyond = ((data > limit) | (data < -limit)) & ~bad
        if beyond.any():
            bad, what = bad | beyond, "NaN, infinite or too large (beyond float32)"
    count = int(bad.sum())
    if not count:
        return data, ()
    if count == data.size:
        raise ReadError(
            f"{source} holds no number: every voxel is {what}. Export the scan again."
        )
    lowest = data[~bad].min()
    noun = f"1 {what} voxel was" if count == 1 else f"{count} {what} voxels were"
    return np.where(bad, lowest, data), (
        f"{noun} set to the lowest value ({lowest:g}).",
    )


def check_varies(data: NDArray[Any], source: str) -> None:
    """Raise if all voxels are equal, because nothing can be segmented then.

    Raises
    ------
    ReadError
        `source` names the scan.
    """
    lowest, highest = data.min(), data.max()
    if lowest == highest:
        raise ReadError(
            f"{source} is empty: every voxel is {lowest:g}. Check that it is the right"
            " scan."
        )


def plain_type(data: NDArray[Any], source: str) -> NDArray[Any]:
    """Return intensities in a real type that numpy and ITK can compute with.

    Native byte order; no bool, half or long double.

    Raises
    ------
    ReadError
        If they are complex, structured or no numbers.
    """
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind not in "iuf":
        raise ReadError(
            f"{source} has {data.dtype} voxels. Strata needs real intensities: give the"
            " magnitude, or one grey value a voxel."
        )
    if data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        return data.astype(np.float32 if data.dtype.itemsize < 4 else np.float64)
    return data.astype(data.dtype.newbyteorder("="), copy=False)
