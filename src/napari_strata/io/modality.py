"""Distinguish CT from MR by the histogram, for files that do not name the modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.volume import Modality


@dataclass(frozen=True, slots=True)
class ModalityConstants:
    """Histogram limits, in HU, and shares of voxels that identify a CT."""

    samples: int = 200_000
    """Voxels looked at: shares are then known to about 0.1 %."""
    darkest_hu: float = -150
    """A CT has voxels below this (fat or air)."""
    brightest_hu: float = 100
    """A CT has voxels above this (contrast, bone or dense tissue)."""
    air_hu: tuple[float, float] = (-3100, -900)
    """Air, with the padding outside the scanner's circle down to -3024."""
    tissue_hu: tuple[float, float] = (-200, 200)
    """Fat and soft tissue."""
    between_hu: tuple[float, float] = (-650, -300)
    """Between air and tissue, where a whole-body CT has few voxels."""
    least_air: float = 0.01
    """Smallest share of air around a body."""
    least_tissue: float = 0.03
    """Smallest share of tissue."""
    tissue_over_between: float = 1.5
    """Smallest ratio of densities (voxels per HU) of tissue and of the valley below it."""
    whole_numbers: float = 0.99
    """Share of whole numbers in a CT cropped to inside the body."""
    air_hu_cropped: float = -1100
    """A CT cropped to inside the body has no value below air."""
    fat_hu: tuple[float, float] = (-150, -30)
    """Fat."""
    soft_tissue_hu: tuple[float, float] = (1, 100)
    """Soft tissue; 0 is left out, because masked MR scans have many zeros."""
    least_fat: float = 0.05
    """Smallest share of fat in a cropped CT."""
    least_soft_tissue: float = 0.15
    """Smallest share of soft tissue in a cropped CT."""


_CONSTANTS = ModalityConstants()


def guess_modality(data: NDArray[np.generic]) -> Modality:
    """Guess whether intensities are Hounsfield units.

    A CT has air near -1000 HU and soft tissue near 0..100 HU, and little of anything
    between fat and lung. Everything else is MR: positive scans, z-scored and
    skull-stripped ones with small negatives, phase images.

    Parameters
    ----------
    data : (z, y, x) real array
        Finite intensities.

    Returns
    -------
    {"ct", "mr"}
        A guess; the caller may know better.
    """
    flat = data.reshape(-1)
    sample = flat[:: max(1, flat.size // _CONSTANTS.samples)].astype(np.float64)
    if sample.min() > _CONSTANTS.darkest_hu or sample.max() < _CONSTANTS.brightest_hu:
        return "mr"
    return "ct" if _has_air_and_tissue(sample) or _is_cropped_ct(sample) else "mr"


def _share(sample: NDArray[np.float64], low: float, high: float) -> float:
    return float(np.mean((sample >= low) & (sample <= high)))


def _has_air_and_tissue(sample: NDArray[np.float64]) -> bool:
    low, high = _CONSTANTS.tissue_hu
    below, above = _CONSTANTS.between_hu
    air = _share(sample, *_CONSTANTS.air_hu)
    tissue_per_hu = _share(sample, low, high) / (high - low)
    between_per_hu = _share(sample, below, above) / (above - below)
    return (
        air > _CONSTANTS.least_air
        and (high - low) * tissue_per_hu > _CONSTANTS.least_tissue
        and tissue_per_hu > _CONSTANTS.tissue_over_between * between_per_hu
    )


def _is_cropped_ct(sample: NDArray[np.float64]) -> bool:
    """Recognise a CT cut to inside the body.

    It has whole numbers, fat and soft tissue, and no value below air.
    """
    whole = float(np.mean(sample == np.round(sample)))
    fat = _share(sample, *_CONSTANTS.fat_hu)
    tissue = _share(sample, *_CONSTANTS.soft_tissue_hu)
    return (
        whole > _CONSTANTS.whole_numbers
        and sample.min() >= _CONSTANTS.air_hu_cropped
        and fat > _CONSTANTS.least_fat
        and tissue > _CONSTANTS.least_soft_tissue
    )
