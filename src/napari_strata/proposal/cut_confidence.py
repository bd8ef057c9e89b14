"""Confidence of every supervoxel at a few cuts, and between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class CutConfidence:
    """Probability, per cut, that a supervoxel is of its region's majority class.

    Parameters
    ----------
    cuts : tuple of (tree, n)
        Cuts that it was estimated at, coarse to fine in each tree.
    values : (n_supervoxels, cut) float16 array
        In [0, 1], a column per cut.
    """

    cuts: tuple[tuple[str, int], ...]
    values: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.cuts):
            raise ValueError(
                f"{self.values.shape} values do not fit {len(self.cuts)} cuts."
            )

    def at(self, tree: Literal["regions", "tissues"], n: int) -> NDArray[np.float32]:
        """Return the confidence at a cut, (n_supervoxels,) float32.

        Between two cuts it is interpolated over the logarithm of their numbers. Coarser
        or finer cuts than any estimated have that of the nearest one.
        """
        columns = [k for k, (name, _) in enumerate(self.cuts) if name == tree]
        numbers = np.log([self.cuts[k][1] for k in columns])
        place = float(np.interp(np.log(max(n, 1)), numbers, np.arange(len(columns))))
        low = min(int(place), len(columns) - 1)
        high = min(low + 1, len(columns) - 1)
        coarse, fine = (
            self.values[:, columns[k]].astype(np.float32) for k in (low, high)
        )
        return np.asarray(coarse + np.float32(place - low) * (fine - coarse))

    def overall(self) -> NDArray[np.float32]:
        """Return the mean over all cuts, (n_supervoxels,) float32."""
        return np.asarray(self.values.astype(np.float32).mean(axis=1))
