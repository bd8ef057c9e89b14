"""Supervoxels at every few voxels, on which symmetry is measured quickly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS_ACROSS = 40
"""Coarse voxels along the cube root of the body's volume: about 4 mm in a head.

Relative to the body, so that a mouse is seen as sharply as a person.
"""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseGrid:
    """Supervoxel ids at every few voxels of a scan.

    Parameters
    ----------
    supervoxels : (z, y, x) int32 array
        Supervoxel id at each coarse voxel.
    steps : (3,) int array
        Voxels of the scan per coarse voxel. Coarse voxel i is the scan's voxel
        ``i * steps + steps // 2``.
    spacing_zyx_mm : (3,) float64 array
        Distance of coarse voxels.
    inside : (k, 3) int array
        Array indices of the coarse voxels of the body.
    """

    supervoxels: NDArray[np.int32]
    steps: NDArray[np.int64]
    spacing_zyx_mm: NDArray[np.float64]
    inside: NDArray[np.intp]

    def scan_voxel(self, place: NDArray[np.integer]) -> tuple[int, int, int]:
        """Return the voxel of the scan at a coarse voxel."""
        z, y, x = (place * self.steps + self.steps // 2).tolist()
        return z, y, x

    def look_up(
        self, places: NDArray[np.floating], values: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Return a value per supervoxel at coarse places (k, 3), -1 outside the grid."""
        nearest = np.round(places).astype(np.int64)
        is_held = ((nearest >= 0) & (nearest < self.supervoxels.shape)).all(axis=1)
        found = np.full(len(places), -1, np.int64)
        found[is_held] = values[self.supervoxels[tuple(nearest[is_held].T)]]
        return found


def coarse_grid(
    supervoxels: NDArray[np.int32],
    spacing_zyx_mm: NDArray[np.floating],
    body: NDArray[np.bool_],
    body_ml: float,
) -> CoarseGrid:
    """Read supervoxel ids at every few voxels.

    Parameters
    ----------
    supervoxels : (z, y, x) int32 array
        Supervoxel id of every voxel.
    spacing_zyx_mm : (3,) float array
        Voxel size in mm.
    body : (n_supervoxels,) bool array
        Which supervoxels belong to the body.
    body_ml : float
        Volume of the body in mL.
    """
    spacing = np.asarray(spacing_zyx_mm, np.float64)
    step_mm = np.cbrt(max(body_ml, 1e-9) * 1000) / _STEPS_ACROSS
    wanted = np.round(step_mm / spacing).astype(np.int64)
    steps = np.clip(wanted, 1, np.array(supervoxels.shape))
    z, y, x = (slice(step // 2, None, step) for step in steps.tolist())
    coarse = np.ascontiguousarray(supervoxels[z, y, x])
    return CoarseGrid(coarse, steps, spacing * steps, np.argwhere(body[coarse]))
