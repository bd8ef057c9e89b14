"""What the values of a DICOM series mean: Hounsfield units, MR intensities or unknown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_strata.io.dicom.pixels import named
from napari_strata.io.dicom.slice import Slice
from napari_strata.io.modality import guess_modality
from napari_strata.volume import Modality

_MODALITIES: dict[str, Modality] = {"CT": "ct", "MR": "mr"}
_HU_TYPES = ("", "HU", "HU_MOD", "US")
"""Rescale types that leave a CT in HU; "US" (unspecified) is what ITK writes beside its own."""
_UNSHIFTED_WATER = (900, 1200)
"""Stored values of soft tissue if 1024 stands for 0 HU."""
_WATER = (-150, 150)
"""Soft tissue in HU."""
_AIR_AT_MOST = -150
"""HU; a CT with air around the body has voxels below this."""
_SAMPLES = 200_000
"""Voxels looked at: shares are then known to about 0.1 %."""
_LEAST_UNSHIFTED = 20
"""At least one in this many voxels has to be unshifted soft tissue."""


def describe_intensities(
    slices: Sequence[Slice], data: NDArray[np.generic]
) -> tuple[Modality | None, list[str]]:
    """Return the modality of the values, and notes for the person who reads them.

    The modality is None if it is unknown.
    """
    notes = []
    inverted = [one.path for one in slices if one.pixels.photometric == "MONOCHROME1"]
    if inverted:
        which = (
            "Slices are"
            if len(inverted) == len(slices)
            else f"{named(inverted)} {'is' if len(inverted) == 1 else 'are'}"
        )
        notes.append(
            f"{which} meant to be shown inverted (MONOCHROME1); values are as stored."
        )
    modalities = sorted({one.modality for one in slices})
    if len(modalities) > 1:
        notes.append(f"Slices are of different modalities ({', '.join(modalities)}).")
        return None, notes
    modality = _MODALITIES.get(modalities[0])
    without = [one.path for one in slices if not one.rescale.is_given]
    if modality != "ct":
        if (
            without
            and len(without) < len(slices)
            and any(not one.rescale.is_identity for one in slices)
        ):
            notes.append(
                f"{named(without)} {'has' if len(without) == 1 else 'have'} no rescale,"
                " which other slices have; values are as stored."
            )
        return modality, notes
    kinds = sorted({one.rescale.kind for one in slices} - set(_HU_TYPES))
    if kinds:
        notes.append(
            f"The header says that values are {', '.join(kinds)}, not Hounsfield units."
        )
        return guess_modality(data), notes
    if not without:
        if all(one.rescale.is_identity for one in slices) and _is_unshifted(data):
            notes.append(
                "Values are no Hounsfield units, though the header says so: soft tissue"
                " lies near 1024, air near 0."
            )
            return guess_modality(data), notes
        return modality, notes
    guess = guess_modality(data)
    end = (
        "look like it and are taken for that"
        if guess == "ct"
        else "are taken as stored, and are no Hounsfield units"
    )
    notes.append(
        f"This CT does not say how to rescale to Hounsfield units; its values {end}."
    )
    return guess, notes


def _is_unshifted(data: NDArray[np.generic]) -> bool:
    """Return whether a CT is stored without its offset to HU.

    It has no air below zero, and soft tissue near 1024 rather than near 0.
    """
    flat = data.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLES)]
    if sample.min() < _AIR_AT_MOST:
        return False
    inside = sample[sample > sample.min()]
    unshifted, plain = (
        np.count_nonzero((inside >= low) & (inside <= high))
        for low, high in (_UNSHIFTED_WATER, _WATER)
    )
    return unshifted > max(plain, inside.size // _LEAST_UNSHIFTED)
