"""Labels on another grid (pure)."""

from __future__ import annotations

import logging

import numpy as np

from napari_strata.errors import GeometryError
from napari_strata.volume import Geometry, Segmentation, label_ids

logger = logging.getLogger(__name__)

_WORTH_SAYING = 0.98


def labels_on_grid(segmentation: Segmentation, geometry: Geometry) -> Segmentation:
    """Bring labels onto another grid: every voxel takes the label of the voxel that its centre lies in.

    Where the grids share their voxels, cropped, flipped or not, labels are copied exactly.

    Parameters
    ----------
    segmentation : Segmentation
        On any grid.
    geometry : Geometry
        The grid wanted, usually a scan's.

    Returns
    -------
    Segmentation
        The same region table; voxels outside the labels' grid are background. A warning tells of regions that are lost.

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
    lost = sorted(set(label_ids(labels)) - set(label_ids(found)))
    if labels.any() and not found.any():
        raise GeometryError("The labels lie wholly outside the scan. Give the scan that they were drawn on.")
    kept = np.count_nonzero(found) * geometry.voxel_volume_mm3
    had = np.count_nonzero(labels) * segmentation.geometry.voxel_volume_mm3
    if kept < _WORTH_SAYING * had:
        logger.warning("%.0f %% of the labelled volume lies outside the new grid.", 100 * (1 - kept / had))
    if lost:
        logger.warning("%d regions have no voxel on the new grid: %s.", len(lost), ", ".join(map(str, lost)))
    return Segmentation(found, segmentation.regions, geometry)
