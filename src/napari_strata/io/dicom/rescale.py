"""Rescale each DICOM slice by its own header, and join all in a type that holds them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_strata.io.dicom.slice import Rescale

_INTEGERS = (np.int16, np.uint16, np.int32, np.uint32, np.int64)
"""Integer types of scans, the smallest first."""
_EXACT_IN_FLOAT32 = 2**22
"""Largest number of steps that float32 holds with two bits to spare (it has 24)."""
_TINY = 1e-30
"""Smallest range of intensities that float32 holds with full precision."""


def join_slices(
    planes: list[NDArray[np.generic]], rescales: list[Rescale]
) -> NDArray[np.generic]:
    """Return all slices, each rescaled by its own header, in one array.

    Its type is the smallest usual one that holds all values: integers if all values are
    whole numbers.
    """
    kinds = {plane.dtype for plane in planes}
    if len(kinds) == 1 and all(
        rescale.is_identity or rescale.table for rescale in rescales
    ):
        return np.stack(planes)
    factors = [_factors(rescale) for rescale in rescales]
    whole = all(plane.dtype.kind in "iu" for plane in planes) and all(
        part.is_integer() for pair in factors for part in pair
    )
    lows, highs = zip(
        *(_range(plane, *pair) for plane, pair in zip(planes, factors, strict=True)),
        strict=True,
    )
    low, high = min(lows), max(highs)
    if whole:
        fitting = [
            kind
            for kind in _INTEGERS
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
        ]
        if fitting:
            return _rescaled(planes, factors, np.dtype(fitting[0]), np.dtype(np.int64))
    return _rescaled(
        planes,
        factors,
        _float_type(planes, factors, float(low), float(high)),
        np.dtype(np.float64),
    )


def _factors(rescale: Rescale) -> tuple[float, float]:
    if rescale.table or rescale.is_identity:
        return 1.0, 0.0
    return rescale.slope or 1.0, rescale.intercept or 0.0


def _range(
    plane: NDArray[np.generic], slope: float, intercept: float
) -> tuple[float, float]:
    """Return the lowest and highest intensity, exact for whole numbers."""
    seen = plane if plane.dtype.kind in "iu" else plane[np.isfinite(plane)]
    ends = [seen.min().item(), seen.max().item()] if seen.size else [0, 0]
    if plane.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        values = [end * int(slope) + int(intercept) for end in ends]
    else:
        values = [end * slope + intercept for end in ends]
    return min(values), max(values)


def _float_type(
    planes: list[NDArray[np.generic]],
    factors: list[tuple[float, float]],
    low: float,
    high: float,
) -> np.dtype[np.generic]:
    """Choose float32 where it keeps neighbouring values apart, else float64."""
    largest, step = max(abs(low), abs(high)), min(abs(slope) for slope, _ in factors)
    stored_floats = {
        plane.dtype.itemsize for plane in planes if plane.dtype.kind == "f"
    }
    wide = 8 in stored_floats or (
        not stored_floats and largest > _EXACT_IN_FLOAT32 * step
    )
    narrow_range = _TINY < largest < float(np.finfo(np.float32).max)
    return np.dtype(np.float64 if wide or not narrow_range else np.float32)


def _rescaled(
    planes: list[NDArray[np.generic]],
    factors: list[tuple[float, float]],
    kind: np.dtype[np.generic],
    through: np.dtype[np.generic],
) -> NDArray[np.generic]:
    """Return the stacked slices as `kind`, rescaled in the type `through`."""
    joined = np.empty((len(planes), *planes[0].shape), kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, (plane, (slope, intercept)) in enumerate(
            zip(planes, factors, strict=True)
        ):
            if (slope, intercept) == (1.0, 0.0):
                joined[k] = plane
            else:
                joined[k] = plane.astype(through) * through.type(slope) + through.type(
                    intercept
                )
    return joined
