"""Distinguish CT from MR by the histogram, for files that do not name the modality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_strata.volume import Modality

_SAMPLES = 200_000


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
    sample = flat[:: max(1, flat.size // _SAMPLES)].astype(np.float64)
    if sample.min() > -150 or sample.max() < 100:
        return "mr"
    return "ct" if _has_air_and_tissue(sample) or _is_cropped_ct(sample) else "mr"


def _share(sample: NDArray[np.float64], low: float, high: float) -> float:
    return float(np.mean((sample >= low) & (sample <= high)))


def _has_air_and_tissue(sample: NDArray[np.float64]) -> bool:
    air = _share(sample, -3100, -900)
    tissue_per_hu = _share(sample, -200, 200) / 400
    between_per_hu = _share(sample, -650, -300) / 350
    return (
        air > 0.01
        and 400 * tissue_per_hu > 0.03
        and tissue_per_hu > 1.5 * between_per_hu
    )


def _is_cropped_ct(sample: NDArray[np.float64]) -> bool:
    """Recognise a CT cut to inside the body.

    Whole numbers, fat at -150..-30, soft tissue at 0..100, no more than air below.
    """
    whole = float(np.mean(sample == np.round(sample)))
    fat, tissue = _share(sample, -150, -30), _share(sample, 1, 100)
    return whole > 0.99 and sample.min() >= -1100 and fat > 0.05 and tissue > 0.15
