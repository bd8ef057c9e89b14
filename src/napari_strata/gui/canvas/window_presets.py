"""Grey-value windows: CT presets in HU, MR presets in percentiles (no Qt).

Add or change a preset in `CT_WINDOWS_HU` or `MR_WINDOWS_PERCENT`. The keys Alt+1, Alt+2
and so on follow their order; `gui/actions.py` makes one for each CT preset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_strata.volume import Modality

CT_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "Soft tissue": (40.0, 400.0),
    "Brain": (40.0, 80.0),
    "Lung": (-600.0, 1500.0),
    "Bone": (400.0, 1800.0),
    "Liver": (60.0, 160.0),
    "Mediastinum": (50.0, 350.0),
    "Angiography": (300.0, 600.0),
}
"""Name -> (centre, width) in Hounsfield units, as commonly used in radiology."""

MR_WINDOWS_PERCENT: dict[str, tuple[float, float]] = {
    "Standard (1-99.5 %)": (1.0, 99.5),
    "High contrast (5-95 %)": (5.0, 95.0),
    "Bright structures (50-99.9 %)": (50.0, 99.9),
    "Full range": (0.0, 100.0),
}
"""Name -> (low, high) percentile of the voxels.

The most common value, air or the fill of a mask, does not count.
"""
_SAMPLE_VOXELS = 1e6
"""Voxels that MR percentiles are computed from: enough for a steady percentile."""
_FILL_SHARE = 0.05
"""A value that more than this share of the voxels has is air or fill, and left out."""
_DRAG_WIDTH_PIXELS = 200
"""A drag to the right by this many pixels widens the window by a factor of e."""
_DRAG_CENTER_PIXELS = 300
"""A drag down by this many pixels moves the centre by one window width."""


def preset_names(modality: Modality) -> tuple[str, ...]:
    """Return the names of a modality's presets, the default first."""
    return tuple(CT_WINDOWS_HU if modality == "ct" else MR_WINDOWS_PERCENT)


def default_preset(modality: Modality) -> str:
    """Return the default preset of a modality."""
    return preset_names(modality)[0]


def contrast_limits(
    data: NDArray[np.generic], modality: Modality, preset: str
) -> tuple[float, float]:
    """Return the (low, high) grey values of a preset.

    Parameters
    ----------
    data : (z, y, x) array
        The scan; only MR presets look at it, at about a million voxels of it.
    modality : {"ct", "mr"}
        Whose presets to look in.
    preset : str
        A name from `preset_names`.
    """
    if modality == "ct":
        center, width = CT_WINDOWS_HU[preset]
        return center - width / 2, center + width / 2
    step = max(1, round((data.size / _SAMPLE_VOXELS) ** (1 / 3)))
    sample = data[::step, ::step, ::step].ravel().astype(np.float32)
    values, counts = np.unique(sample, return_counts=True)
    inside = (
        sample[sample != values[counts.argmax()]]
        if len(values) > 1 and counts.max() > _FILL_SHARE * sample.size
        else sample
    )
    low, high = (
        float(limit) for limit in np.percentile(inside, MR_WINDOWS_PERCENT[preset])
    )
    return (low, high) if high > low else (low, low + 1.0)


def dragged_window(
    limits: tuple[float, float], across: float, down: float
) -> tuple[float, float]:
    """Return the window after a drag of the mouse: right is wider, down is brighter.

    Parameters
    ----------
    limits : tuple of 2 float
        (low, high) grey values at the start of the drag.
    across, down : float
        How far the mouse has moved, in pixels.
    """
    width, center = limits[1] - limits[0], (limits[0] + limits[1]) / 2
    wider = width * float(np.exp(across / _DRAG_WIDTH_PIXELS))
    moved = center - down * width / _DRAG_CENTER_PIXELS
    return moved - wider / 2, moved + wider / 2
