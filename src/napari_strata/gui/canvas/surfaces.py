"""Surfaces of regions for the 3D view, made outside the GUI thread (no Qt)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import marching_cubes

from napari_strata.errors import EditError
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Progress

MAX_VOXELS = 3_000_000
"""A region with a larger box is averaged down first, which limits the time to a second."""
_SMOOTHING_VOX = 0.7
"""Gaussian sigma, in voxels: removes the steps of a mask and moves no border visibly."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionSurface:
    """The surface of a region in voxel coordinates.

    Parameters
    ----------
    region : int
        The region.
    name : str
        Its name.
    color : tuple of 3 int
        RGB, 0-255.
    vertices : (n, 3) float32 array
        Points (z, y, x), in voxels of the scan.
    faces : (m, 3) int32 array
        Triangles.
    """

    region: int
    name: str
    color: tuple[int, int, int]
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def surfaces_body(
    work: Refinement, regions: Sequence[int], on_progress: Progress
) -> list[RegionSurface]:
    """Make the surfaces of regions, smoothed by less than a voxel.

    Raises
    ------
    EditError
        If a region has no voxel.
    """
    labels, rows = work.labels, {row.id: row for row in work.regions}
    surfaces = []
    for number, region in enumerate(regions):
        on_progress(
            number,
            len(regions),
            f"Surface of {rows[region].name if region in rows else region}",
        )
        box = ndi.find_objects((labels == region).view(np.uint8), max_label=1)[0]
        if box is None or region not in rows:
            raise EditError(
                f"Region {region} has no voxel to make a surface of. The region table has"
                " the ids in use."
            )
        start = np.array([part.start for part in box])
        vertices, faces = surface_of(labels[box] == region)
        surfaces.append(
            RegionSurface(
                region,
                rows[region].name,
                rows[region].color,
                (vertices + start).astype(np.float32),
                faces,
            )
        )
    return surfaces


def surface_of(
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the surface of a mask (z, y, x) by marching cubes (Lewiner).

    The result is vertices (n, 3) in voxels of the mask, and faces (m, 3).
    """
    step = max(1, int(np.ceil((mask.size / MAX_VOXELS) ** (1 / 3))))
    padded = np.pad(
        mask, [(step, step + (-size) % step) for size in mask.shape]
    ).astype(np.float32)
    if step > 1:
        z, y, x = (size // step for size in padded.shape)
        padded = padded.reshape(z, step, y, step, x, step).mean(axis=(1, 3, 5))
    smooth = ndi.gaussian_filter(padded, _SMOOTHING_VOX)
    level = 0.5 if smooth.max() > 0.5 else float(smooth.max()) / 2
    vertices, faces, _, _ = marching_cubes(smooth, level)
    # the middle of a block of `step` voxels, minus the padding
    return (vertices * step + (step - 1) / 2 - step).astype(np.float32), faces.astype(
        np.int32
    )
