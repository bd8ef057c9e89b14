"""Labels on another grid (pure)."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.volume import Geometry, Segmentation, label_ids

logger = logging.getLogger(__name__)

_WORTH_SAYING = 0.98
_SAME_VOX = 1e-3


def labels_on_grid(segmentation: Segmentation, geometry: Geometry, *, what: str = "The labels") -> Segmentation:
    """Bring labels onto another grid: every voxel takes the label of the voxel that its centre lies in.

    Where the grids share their voxels, cropped, flipped or not, labels are copied exactly.

    Parameters
    ----------
    segmentation : Segmentation
        On any grid.
    geometry : Geometry
        The grid wanted, usually a scan's.
    what : str
        What a message calls the labels.

    Returns
    -------
    Segmentation
        The same region table; voxels outside the labels' grid are background. Warnings tell where the grids do
        not share their voxels, how much lies outside, and which regions are lost.

    Raises
    ------
    GeometryError
        If no labelled voxel lies on the grid.
    """
    back = np.linalg.inv(segmentation.geometry.affine) @ geometry.affine
    labels, found = segmentation.labels, np.zeros(geometry.shape_zyx, segmentation.labels.dtype)
    size = np.array(labels.shape)
    y, x = np.indices(geometry.shape_zyx[1:])
    plane = back[:3, 1, None, None] * y + back[:3, 2, None, None] * x + back[:3, 3, None, None]
    for z in range(geometry.shape_zyx[0]):
        at = np.floor(plane + back[:3, 0, None, None] * z + (0.5 + 1e-6)).astype(np.int64)
        inside = ((at >= 0) & (at < size[:, None, None])).all(axis=0)
        found[z][inside] = labels[tuple(at[:, inside])]
    if not _shares_voxels(back):
        logger.warning("%s: on another grid, so resampled (nearest neighbour). Check that they are of this patient.", what)
    if labels.any() and not found.any():
        raise GeometryError(f"{what} lie wholly outside the scan. Give the scan that they were drawn on.")
    _tell_lost(segmentation, found, np.linalg.inv(back), what)
    return Segmentation(found, segmentation.regions, geometry)


def _shares_voxels(back: NDArray[np.float64]) -> bool:
    """Say whether every voxel's centre of one grid is one of the other's, given the map between their indices."""
    turned = np.abs(np.rint(back[:3, :3]))
    return bool(np.allclose(back, np.rint(back), atol=_SAME_VOX) and (turned.sum(axis=0) == 1).all() and (turned.sum(axis=1) == 1).all())


def _tell_lost(segmentation: Segmentation, found: NDArray[np.unsignedinteger], onto: NDArray[np.floating], what: str) -> None:
    """Warn of labelled voxels outside the new grid, and of regions that lie outside or between its voxels' centres."""
    labels, size = segmentation.labels, np.array(found.shape)
    had, within = 0, 0
    seen: set[int] = set()
    for z, plane in enumerate(labels):
        y, x = np.nonzero(plane)
        at = onto[:3, :3] @ np.stack([np.full(len(y), z), y, x]) + onto[:3, 3, None]
        inside = ((at >= -0.5) & (at < size[:, None] - 0.5)).all(axis=0)
        had, within = had + len(y), within + int(np.count_nonzero(inside))
        seen.update(label_ids(plane[y[inside], x[inside]]))
    if within < _WORTH_SAYING * had:
        logger.warning("%s: %.0f %% of the labelled volume lies outside the new grid.", what, 100 * (1 - within / had))
    lost = set(label_ids(labels)) - set(label_ids(found))
    for ids, why in ((lost - seen, "lie outside the new grid"), (lost & seen, "are too small for the new grid's voxels")):
        if ids:
            logger.warning("%s: %d regions %s and are lost: %s.", what, len(ids), why, ", ".join(map(str, sorted(ids))))
