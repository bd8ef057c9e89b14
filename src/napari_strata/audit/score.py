"""How unlikely a structure's measures are, held against the others of its label map.

Measures are turned so that large is suspicious, and held against their median over the
other structures, in robust standard deviations. Few structures say little about what is
usual, so both are drawn towards values measured on maps that people and TotalSegmentator
made, as if ten more structures had those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.audit.border import Border
from napari_strata.audit.shape import Shape


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One way in which a structure can be wrong.

    Parameters
    ----------
    reason : str
        What it means, for people.
    usual, spread : float
        Median and robust standard deviation of the measure in labels without known
        faults; the spread is also the smallest that counts.
    """

    reason: str
    usual: float
    spread: float


SUSPICIONS = (
    Suspicion("fits the scan's borders better when moved", 0.0, 0.02),
    Suspicion("steps of intensity are larger beside its border", 0.0, 0.08),
    Suspicion("fits the supervoxels better than a drawn border would", 0.0, 0.06),
    Suspicion("ends in a flat plane where the scan has no border", 0.03, 0.03),
    Suspicion("has islands", 0.0, 1.0),
    Suspicion("has holes", 0.0, 0.01),
    Suspicion("one slice does not fit its neighbours", 0.0, 0.06),
    Suspicion("cuts no supervoxel, as if made from a proposal", 1.2, 0.4),
)
"""Medians and spreads of the labels in docs/audit.md."""
PRIOR_STRUCTURES = 10
"""Structures that the usual values count for."""
IGNORED = 0.5
"""Standard deviations above the median that count as nothing."""
LARGEST = 8.0
"""Standard deviations above which a measure counts no more."""
_MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution, over its median absolute deviation."""
_MOST_ISLANDS = 4
_SMALLEST = 0.02
"""Smallest share whose logarithm is taken."""


def measures(border: Border, shape: Shape) -> NDArray[np.float64]:
    """Return the measures of a structure in the order of `SUSPICIONS`."""
    return np.array(
        [
            border.edge_gain,
            np.log(max(border.step_gain, 0.1)),
            -border.edge_gain,
            border.flat_share,
            min(shape.islands, _MOST_ISLANDS),
            shape.hole_share,
            shape.odd_slice,
            -np.log(max(border.cut_share, _SMALLEST)),
        ]
    )


def deviations(table: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return how far each structure is from the others, in standard deviations.

    Parameters
    ----------
    table : sequence of (m,) arrays
        Measures of each structure.

    Returns
    -------
    (n, m) array
        At least 0; what lies within `IGNORED` is 0.
    """
    usual = np.array([one.usual for one in SUSPICIONS])
    spread = np.array([one.spread for one in SUSPICIONS])
    rows = np.reshape(np.array(table, np.float64), (-1, len(SUSPICIONS)))
    result = np.zeros_like(rows)
    for number, row in enumerate(rows):
        others = np.delete(rows, number, axis=0)
        center, width = usual, spread
        if len(others):
            share = len(others) / (len(others) + PRIOR_STRUCTURES)
            median = np.median(others, axis=0)
            scatter = _MAD_TO_SD * np.median(np.abs(others - median), axis=0)
            center = share * median + (1 - share) * usual
            width = share * np.maximum(scatter, spread) + (1 - share) * spread
        away = np.clip((row - center) / width, 0, LARGEST)
        result[number] = np.maximum(away - IGNORED, 0)
    return result
