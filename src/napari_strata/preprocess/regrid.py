"""Resample labels to another grid."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.volume import Geometry, Segmentation, label_ids

logger = logging.getLogger(__name__)

_WORTH_SAYING = 0.98
_SAME_VOX = 0.1
"""Largest difference in voxels of grids that count as the same; affines are rounded."""
_EXACT_VOX = 1e-3
_CROPPING = ("", ".seg.nrrd")


def labels_on_grid(
    segmentation: Segmentation, geometry: Geometry, *, what: str = "The labels"
) -> Segmentation:
    """Resample labels to another grid by nearest neighbour.

    Labels are copied exactly if the grids share their voxels, even if one is cropped or
    flipped.

    Parameters
    ----------
    segmentation : Segmentation
        On any grid.
    geometry : Geometry
        The new grid, usually a scan's.
    what : str
        What a message calls the labels.

    Returns
    -------
    Segmentation
        The same region table; voxels outside the labels' grid are background. Warnings
        tell where the grids do not share their voxels, how much lies outside, and which
        regions are lost.

    Raises
    ------
    GeometryError
        If no labelled voxel lies on the grid.
    """
    exact = np.linalg.inv(segmentation.geometry.affine) @ geometry.affine
    back, off = _rounded(exact, geometry.shape_zyx)
    labels, found = (
        segmentation.labels,
        np.zeros(geometry.shape_zyx, segmentation.labels.dtype),
    )
    size = np.array(labels.shape)
    y, x = np.indices(geometry.shape_zyx[1:])
    plane = (
        back[:3, 1, None, None] * y
        + back[:3, 2, None, None] * x
        + back[:3, 3, None, None]
    )
    for z in range(geometry.shape_zyx[0]):
        at = np.floor(plane + back[:3, 0, None, None] * z + (0.5 + 1e-6)).astype(
            np.int64
        )
        inside = ((at >= 0) & (at < size[:, None, None])).all(axis=0)
        found[z][inside] = labels[tuple(at[:, inside])]
    if off > _SAME_VOX:
        logger.warning(
            "%s: on another grid, so resampled (nearest neighbour). Check that they are"
            " of this patient.",
            what,
        )
    elif off > _EXACT_VOX:
        logger.warning(
            "%s: their affine differs from the scan's by up to %.2g of a voxel; taken"
            " for the same grid.",
            what,
            off,
        )
    if labels.any() and not found.any():
        raise GeometryError(
            f"{what} lie wholly outside the scan. Give the scan that they were"
            " drawn on."
        )
    _tell_lost(segmentation, found, np.linalg.inv(back), what)
    return Segmentation(found, segmentation.regions, geometry)


def labels_of_part(
    segmentation: Segmentation, geometry: Geometry, *, what: str = "The labels"
) -> Segmentation:
    """Extend labels that leave out empty slices (DICOM SEG, 3D Slicer) to the whole grid.

    Parameters
    ----------
    segmentation : Segmentation
        On any grid.
    geometry : Geometry
        The whole grid.
    what : str
        What a message calls the labels.

    Returns
    -------
    Segmentation
        On the whole grid, background outside; a warning tells that. Labels on another
        grid, or on the same, come back as they were.
    """
    if not _is_part(segmentation.geometry, geometry):
        return segmentation
    shape = " x ".join(map(str, segmentation.labels.shape))
    logger.warning(
        "%s cover a part of the grid (%s voxels); the rest is taken for background.",
        what,
        shape,
    )
    return labels_on_grid(segmentation, geometry, what=what)


def on_one_grid(
    segmentation: Segmentation, other: Segmentation, *, names: tuple[str, str]
) -> tuple[Segmentation, Segmentation]:
    """Bring two segmentations to one grid if one of them leaves out empty slices.

    Other segmentations are returned unchanged.

    Parameters
    ----------
    segmentation, other : Segmentation
        On any grids.
    names : tuple of two str
        What a message calls them.
    """
    mine, theirs = segmentation.geometry, other.geometry
    if _is_part(theirs, mine):
        return segmentation, labels_of_part(other, mine, what=names[1])
    if _is_part(mine, theirs):
        return labels_of_part(segmentation, theirs, what=names[0]), other
    both = _around(mine, theirs)
    if both is None:
        return segmentation, other
    return labels_of_part(segmentation, both, what=names[0]), labels_of_part(
        other, both, what=names[1]
    )


def _corners(shape_zyx: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the corner voxels' indices, homogeneous: shape (8, 4)."""
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape_zyx) - 1)
    return np.column_stack([corners, np.ones(len(corners))])


def _rounded(
    back: NDArray[np.floating], shape_zyx: tuple[int, ...]
) -> tuple[NDArray[np.floating], float]:
    """Round a map between indices to integers if the two grids share their voxels.

    Returns
    -------
    map : (4, 4) array
        Whole where no corner of the grid moves by more than a tenth of a voxel thereby.
    off : float
        The farthest move in voxels; infinite where axes do not run alike.
    """
    whole = np.rint(back)
    turned = np.abs(whole[:3, :3])
    if not ((turned.sum(axis=0) == 1).all() and (turned.sum(axis=1) == 1).all()):
        return back, np.inf
    off = float(np.abs(_corners(shape_zyx) @ (back - whole).T).max())
    return (whole, off) if off <= _SAME_VOX else (back, off)


def _leaves_out(geometry: Geometry) -> bool:
    """Return whether labels come from a format that leaves out slices without labels.

    These are DICOM SEG and 3D Slicer's. Other files that lack slices have probably lost
    them.
    """
    file = geometry.file
    return file is not None and file.kind == "itk" and file.suffix in _CROPPING


def _is_part(part: Geometry, whole: Geometry) -> bool:
    """Return whether one grid is a smaller box of the other's voxels, in any orientation."""
    if part.file is not None and not _leaves_out(part):
        return False
    onto, off = _rounded(np.linalg.inv(whole.affine) @ part.affine, part.shape_zyx)
    if off > _SAME_VOX or np.prod(part.shape_zyx) >= np.prod(whole.shape_zyx):
        return False
    at = _corners(part.shape_zyx) @ onto.T
    return bool((at[:, :3] >= 0).all() and (at[:, :3] < whole.shape_zyx).all())


def _around(one: Geometry, other: Geometry) -> Geometry | None:
    """Return the smallest grid of one's voxels that holds both; None where they share none."""
    if not (_leaves_out(one) and _leaves_out(other)):
        return None
    onto, off = _rounded(np.linalg.inv(one.affine) @ other.affine, other.shape_zyx)
    at = (_corners(other.shape_zyx) @ onto.T)[:, :3]
    top = np.array(one.shape_zyx) - 1
    if (
        off > _SAME_VOX
        or (at.min(axis=0) > top).any()
        or (at.max(axis=0) < 0).any()
        or one.shape_zyx == other.shape_zyx
    ):
        return None
    low, high = np.minimum(at.min(axis=0), 0), np.maximum(at.max(axis=0), top)
    affine = one.affine.copy()
    affine[:3, 3] = one.world_from_voxel(low)
    z, y, x = (int(n) for n in high - low + 1)
    return Geometry((z, y, x), affine)


def _tell_lost(
    segmentation: Segmentation,
    found: NDArray[np.unsignedinteger],
    onto: NDArray[np.floating],
    what: str,
) -> None:
    """Warn of labelled voxels outside the new grid, and of regions that are lost."""
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
        logger.warning(
            "%s: %.0f %% of the labelled volume lies outside the new grid.",
            what,
            100 * (1 - within / had),
        )
    lost = set(label_ids(labels)) - set(label_ids(found))
    for ids, why in (
        (lost - seen, "lie outside the new grid"),
        (lost & seen, "are too small for the new grid's voxels"),
    ):
        if ids:
            logger.warning(
                "%s: %d regions %s and are lost: %s.",
                what,
                len(ids),
                why,
                ", ".join(map(str, sorted(ids))),
            )
