"""Agreement of each region with the same region of a reference.

The measures are Dice, distances between surfaces in mm and the difference of volumes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from napari_strata.errors import SettingsError
from napari_strata.measure.regions import require_same_grid
from napari_strata.volume import (
    BACKGROUND,
    Geometry,
    Region,
    Segmentation,
    default_regions,
    label_ids,
)

_EMPTY = float("nan")
_CORNERS = tuple(np.ndindex(2, 2, 2))
_ALL_INSIDE = 255
"""Code of a cube whose eight corners are inside."""


@dataclass(frozen=True, slots=True)
class RegionAgreement:
    """Agreement of one region with the region of the same id in the reference.

    Parameters
    ----------
    id, name : int, str
        As in the labels' table, else in the reference's.
    voxels, reference_voxels : int
        0 where the region is in one of the two only.
    dice : float
        Overlap in [0, 1]; NaN where neither has the region.
    hd95_mm : float
        The larger of the two directed 95th percentiles (over area) of the distance
        between the surfaces, in mm; infinite where only one of the two has the region,
        NaN where neither has.
    nsd : float
        Normalised surface Dice: the share of both surfaces that lies within
        `tolerance_mm` of the other, in [0, 1]; NaN where neither has the region.
    tolerance_mm : float
        The tolerance of `nsd`.
    volume_difference_ml, volume_difference_percent : float
        Labels minus reference; in percent of the reference, NaN where that has no
        volume.

    Notes
    -----
    Normalised surface Dice and surface elements: Nikolov et al., J Med Internet Res 2021.
    """

    id: int
    name: str
    voxels: int
    reference_voxels: int
    dice: float
    hd95_mm: float
    nsd: float
    tolerance_mm: float
    volume_difference_ml: float
    volume_difference_percent: float


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """Surface elements of a region: centres (n, 3) in RAS+ mm and areas (n,) in mm2."""

    centers_mm: NDArray[np.float64]
    areas_mm2: NDArray[np.float64]


def agree(
    labels: Segmentation,
    reference: Segmentation,
    *,
    ids: Collection[int] | None = None,
    tolerance_mm: float = 2.0,
) -> tuple[RegionAgreement, ...]:
    """Compare every region with the region of the same id in a reference.

    For labels whose numbers mean something else, see `compare`, which matches regions
    to classes first.

    Parameters
    ----------
    labels, reference : Segmentation
        On the same grid.
    ids : collection of int, optional
        Which regions; those of either, the background left out, by default.
    tolerance_mm : float
        Distance up to which surfaces count as the same in `RegionAgreement.nsd`; at
        least 0.

    Returns
    -------
    tuple of RegionAgreement
        In order of id.

    Raises
    ------
    GeometryError
        If the grids differ.
    SettingsError
        If `tolerance_mm` is negative or no number.

    Examples
    --------
    >>> labels = np.zeros((24, 24, 24), np.uint8)
    >>> labels[8:16, 8:16, 8:16] = 1
    >>> box = strata.Region(1, "box", (255, 0, 0))
    >>> one = strata.Segmentation(labels, (box,), volume.geometry)
    >>> other = strata.Segmentation(np.roll(labels, 2, axis=2), (box,), volume.geometry)
    >>> (agreement,) = strata.agree(one, other, tolerance_mm=1.0)
    >>> agreement.dice
    0.75
    """
    require_same_grid(
        labels.geometry, reference.geometry, "The labels", "the reference"
    )
    if not tolerance_mm >= 0:
        raise SettingsError(
            f"tolerance_mm is {tolerance_mm}; give a distance of at least 0 mm."
        )
    if ids is None:
        ids = {i for one in (labels, reference) for i in label_ids(one.labels)} | {
            row.id for row in labels.regions
        }
    region_ids = sorted(set(ids) - {BACKGROUND})
    names = {
        row.id: row.name
        for row in (*default_regions(region_ids), *reference.regions, *labels.regions)
    }
    areas = _areas_mm2(labels.geometry)
    return tuple(
        _agree(Region(i, names[i], (0, 0, 0)), labels, reference, tolerance_mm, areas)
        for i in region_ids
    )


def _agree(
    region: Region,
    labels: Segmentation,
    reference: Segmentation,
    tolerance_mm: float,
    areas: NDArray[np.float64],
) -> RegionAgreement:
    ours, theirs = labels.labels == region.id, reference.labels == region.id
    n, m = int(ours.sum()), int(theirs.sum())
    voxel_ml = labels.geometry.voxel_volume_mm3 / 1000
    hd95_mm, nsd = _EMPTY, _EMPTY
    if n and m:
        hd95_mm, nsd = _surface_scores(
            _index(ours, labels.geometry, areas),
            _index(theirs, labels.geometry, areas),
            tolerance_mm,
        )
    elif n or m:
        hd95_mm, nsd = float("inf"), 0.0
    return RegionAgreement(
        id=region.id,
        name=region.name,
        voxels=n,
        reference_voxels=m,
        dice=2 * int((ours & theirs).sum()) / (n + m) if n or m else _EMPTY,
        hd95_mm=hd95_mm,
        nsd=nsd,
        tolerance_mm=tolerance_mm,
        volume_difference_ml=(n - m) * voxel_ml,
        volume_difference_percent=100 * (n - m) / m if m else _EMPTY,
    )


def _index(
    mask: NDArray[np.bool_], geometry: Geometry, areas: NDArray[np.float64]
) -> _Surface:
    """Return the surface between the voxels of a mask and the others.

    Beyond the array is outside.
    """
    spans = []
    for axis in range(3):
        filled = np.flatnonzero(
            mask.any(axis=tuple(other for other in range(3) if other != axis))
        )
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1))
    inside = np.pad(mask[tuple(spans)], 1).astype(np.uint8)
    size = np.array(inside.shape) - 1
    code = np.zeros(size, np.uint8)
    for bit, (z, y, x) in enumerate(_CORNERS):
        code |= inside[z : z + size[0], y : y + size[1], x : x + size[2]] << bit
    places = np.argwhere((code > 0) & (code < _ALL_INSIDE))
    start = np.array([span.start for span in spans])
    return _Surface(
        geometry.world_from_voxel(places + start - 0.5), areas[code[tuple(places.T)]]
    )


def _areas_mm2(geometry: Geometry) -> NDArray[np.float64]:
    """Return the surface area between eight neighbouring voxels, per inside pattern.

    The bits of a pattern are in the order of `_CORNERS`.
    """
    areas = np.zeros(_ALL_INSIDE + 1)
    for code, triangles in enumerate(_triangles(), 1):
        sides = np.diff(triangles, axis=1) @ geometry.affine[:3, :3].T
        areas[code] = (
            np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2
        )
    return areas


@cache
def _triangles() -> tuple[NDArray[np.float64], ...]:
    """Return the marching-cubes triangles (n, 3, zyx) in a cube of eight voxels.

    There is one array for each of the patterns 1 to 254.
    """
    found = []
    for code in range(1, _ALL_INSIDE):
        cube = np.array([code >> bit & 1 for bit in range(8)], np.float32).reshape(
            2, 2, 2
        )
        vertices, faces, _, _ = marching_cubes(cube, 0.5)
        found.append(vertices[faces].astype(np.float64))
    return tuple(found)


def _surface_scores(
    ours: _Surface, theirs: _Surface, tolerance_mm: float
) -> tuple[float, float]:
    """Return the 95 % Hausdorff distance in mm and the normalised surface Dice."""
    there, _ = KDTree(theirs.centers_mm).query(ours.centers_mm)
    back, _ = KDTree(ours.centers_mm).query(theirs.centers_mm)
    within = tolerance_mm + 1e-6  # distances are sums of rounded millimetres
    near = (
        ours.areas_mm2[there <= within].sum() + theirs.areas_mm2[back <= within].sum()
    )
    farthest = max(
        _percentile_95(there, ours.areas_mm2), _percentile_95(back, theirs.areas_mm2)
    )
    return farthest, float(near / (ours.areas_mm2.sum() + theirs.areas_mm2.sum()))


def _percentile_95(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64]
) -> float:
    """Return the smallest distance within which 95 % of the area lies."""
    order = np.argsort(distances_mm)
    covered = np.cumsum(areas_mm2[order])
    return float(distances_mm[order[np.searchsorted(covered, 0.95 * covered[-1])]])
