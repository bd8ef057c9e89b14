"""Size, surface, position, intensity and confidence of every region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.parallel import both
from napari_strata.volume import (
    BACKGROUND,
    Geometry,
    Region,
    Segmentation,
    Volume,
    default_regions,
    smallest_label_dtype,
)

_EMPTY = float("nan")
_SAME_GRID_VOX = 0.1
"""Largest distance, in voxels, between grids that count as one; rounding is less."""


@dataclass(frozen=True, slots=True)
class RegionMeasure:
    """Size, position and intensity of one region.

    Parameters
    ----------
    id, name : int, str
        As in the region table.
    voxels : int
        0 for a region of the table that has no voxel; its statistics are then NaN.
    volume_ml : float
        Volume in mL.
    surface_mm2 : float
        Area of the region's closed surface in mm2; the scan's border closes a region
        that it cuts.
    mean, sd, minimum, p5, p25, median, p75, p95, maximum : float
        Intensity statistics (HU for CT, the scan's own unit for MR); `sd` is the
        population's. NaN without a scan.
    centroid_ras_mm : tuple of 3 float
        Centre of mass, RAS+ mm.
    box_start_zyx, box_stop_zyx : tuple of 3 int
        Bounding box in array indices, half open.
    box_min_ras_mm, box_max_ras_mm : tuple of 3 float
        Bounding box along the patient's axes, RAS+ mm, out to the voxels' outer edges.
    confidence : float or None
        Mean confidence over the region's voxels, in [0, 1]; None where there is no
        proposal.
    """

    id: int
    name: str
    voxels: int
    volume_ml: float
    surface_mm2: float
    mean: float
    sd: float
    minimum: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    maximum: float
    centroid_ras_mm: tuple[float, float, float]
    box_start_zyx: tuple[int, int, int]
    box_stop_zyx: tuple[int, int, int]
    box_min_ras_mm: tuple[float, float, float]
    box_max_ras_mm: tuple[float, float, float]
    confidence: float | None = None


def measure_regions(
    segmentation: Segmentation,
    volume: Volume | None = None,
    *,
    confidence: NDArray[np.floating] | None = None,
) -> tuple[RegionMeasure, ...]:
    """Measure every region but the background.

    Parameters
    ----------
    segmentation : Segmentation
        Labels (z, y, x) and their table. Ids that the table lacks are measured under a
        default name.
    volume : Volume, optional
        The scan, on the same grid; without it the intensities are NaN.
    confidence : (z, y, x) float array, optional
        Of every voxel, in [0, 1]: ``proposal.confidence[proposal.supervoxels]``.

    Returns
    -------
    tuple of RegionMeasure
        In order of id.

    Raises
    ------
    GeometryError
        If the grids differ.

    Notes
    -----
    Surfaces are estimated by ITK with the Crofton formula (Lehmann and Legland, Insight
    Journal 2012), which takes the voxel's sides into account; a sheared grid (tilted
    gantry) is measured as if it were straight.

    Examples
    --------
    >>> labels = np.zeros((24, 24, 24), np.uint8)
    >>> labels[10:14, 10:15, 10:20] = 1
    >>> box = strata.Region(1, "box", (255, 0, 0))
    >>> segmentation = strata.Segmentation(labels, (box,), volume.geometry)
    >>> (measure,) = strata.measure_regions(segmentation, volume)
    >>> measure.name, measure.voxels, round(measure.volume_ml, 3)
    ('box', 200, 0.4)
    """
    geometry = segmentation.geometry
    if volume is not None:
        require_same_grid(geometry, volume.geometry, "The labels", "the scan")
    if confidence is not None and confidence.shape != segmentation.labels.shape:
        raise GeometryError(
            f"The confidence is {confidence.shape} but the labels are"
            f" {segmentation.labels.shape}. Take their own proposal."
        )
    voxels = np.flatnonzero(segmentation.labels)
    labels = segmentation.labels.ravel()[voxels]
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    starts = np.flatnonzero(np.diff(labels, prepend=labels.dtype.type(0)))
    ids = labels[starts].tolist()
    voxels_of = dict(zip(ids, np.split(voxels[order], starts[1:]), strict=False))
    table = {
        region.id: region
        for region in (*default_regions(ids), *segmentation.regions)
        if region.id != BACKGROUND
    }
    seen = None if volume is None else volume.data.ravel()
    sure = None if confidence is None else confidence.ravel()
    surfaces, measures = both(
        lambda: _surfaces_mm2(segmentation),
        lambda: [
            _measure(table[i], voxels_of.get(i), seen, sure, geometry)
            for i in sorted(table)
        ],
    )
    return tuple(
        replace(found, surface_mm2=surfaces.get(found.id, 0.0)) for found in measures
    )


def _surfaces_mm2(segmentation: Segmentation) -> dict[int, float]:
    """Estimate the area of every region's surface, in mm2."""
    labels = segmentation.labels
    if not labels.any():
        return {}
    spans = []
    for axis in range(3):
        filled = np.flatnonzero(
            labels.any(axis=tuple(other for other in range(3) if other != axis))
        )
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1))
    compact = labels[tuple(spans)].astype(smallest_label_dtype(int(labels.max())))
    image = sitk.GetImageFromArray(compact)
    image.SetSpacing(segmentation.geometry.spacing_zyx_mm[::-1].tolist())
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(image)
    return {
        int(label): float(shapes.GetPerimeter(label)) for label in shapes.GetLabels()
    }


def require_same_grid(
    geometry: Geometry, other: Geometry, what: str, than: str
) -> None:
    """Refuse grids that differ in shape, or anywhere by more than a tenth of a voxel.

    Parameters
    ----------
    geometry, other : Geometry
        The grids.
    what, than : str
        What lies on them, for the message: "The labels", "the scan".

    Raises
    ------
    GeometryError
        If they differ.
    """
    if geometry.shape_zyx != other.shape_zyx:
        raise GeometryError(
            f"{what} are {geometry.shape_zyx} but {than} is {other.shape_zyx} voxels"
            " (z, y, x). Take the scan that they were drawn on, or resample them to"
            " its grid."
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (
        np.array(geometry.shape_zyx) - 1
    )
    apart_mm = np.linalg.norm(
        geometry.world_from_voxel(corners) - other.world_from_voxel(corners), axis=1
    ).max()
    if apart_mm > _SAME_GRID_VOX * geometry.spacing_zyx_mm.min():
        raise GeometryError(
            f"{what} lie up to {apart_mm:.3g} mm away from {than}: their affines"
            " differ. Take the scan that they were drawn on, or resample them to its"
            " grid."
        )


def _measure(
    region: Region,
    voxels: NDArray[np.intp] | None,
    intensities: NDArray[np.generic] | None,
    confidence: NDArray[np.floating] | None,
    geometry: Geometry,
) -> RegionMeasure:
    """Measure one region from the flat indices of its voxels, but for its surface."""
    if voxels is None:
        return _empty_measure(region)
    z, y, x = np.unravel_index(voxels, geometry.shape_zyx)
    right, anterior, superior = geometry.world_from_voxel(
        [z.mean(), y.mean(), x.mean()]
    ).tolist()
    low, high = _world_box(np.stack([z, y, x]), geometry)
    mean, sd, minimum, p5, p25, median, p75, p95, maximum = _statistics(
        None if intensities is None else intensities[voxels]
    )
    return RegionMeasure(
        id=region.id,
        name=region.name,
        voxels=len(voxels),
        volume_ml=len(voxels) * geometry.voxel_volume_mm3 / 1000,
        surface_mm2=0.0,
        mean=mean,
        sd=sd,
        minimum=minimum,
        p5=p5,
        p25=p25,
        median=median,
        p75=p75,
        p95=p95,
        maximum=maximum,
        centroid_ras_mm=(right, anterior, superior),
        box_start_zyx=(int(z.min()), int(y.min()), int(x.min())),
        box_stop_zyx=(int(z.max()) + 1, int(y.max()) + 1, int(x.max()) + 1),
        box_min_ras_mm=low,
        box_max_ras_mm=high,
        confidence=(
            None
            if confidence is None
            else float(confidence[voxels].mean(dtype=np.float64))
        ),
    )


def _empty_measure(region: Region) -> RegionMeasure:
    """Return the measures of a region without voxels."""
    nowhere = (_EMPTY, _EMPTY, _EMPTY)
    return RegionMeasure(
        id=region.id,
        name=region.name,
        voxels=0,
        volume_ml=0.0,
        surface_mm2=0.0,
        mean=_EMPTY,
        sd=_EMPTY,
        minimum=_EMPTY,
        p5=_EMPTY,
        p25=_EMPTY,
        median=_EMPTY,
        p75=_EMPTY,
        p95=_EMPTY,
        maximum=_EMPTY,
        centroid_ras_mm=nowhere,
        box_start_zyx=(0, 0, 0),
        box_stop_zyx=(0, 0, 0),
        box_min_ras_mm=nowhere,
        box_max_ras_mm=nowhere,
    )


def _statistics(found: NDArray[np.generic] | None) -> tuple[float, ...]:
    """Return mean, sd, minimum, p5, p25, median, p75, p95 and maximum."""
    if found is None:
        return (_EMPTY,) * 9
    values = np.sort(found).astype(np.float64)
    return (
        float(values.mean()),
        float(values.std()),
        *(
            _quantile(values, fraction)
            for fraction in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
        ),
    )


def _world_box(
    places_zyx: NDArray[np.intp], geometry: Geometry
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the box along the patient's axes around all voxels and their corners.

    Exact on oblique grids too.
    """
    half = np.abs(
        np.array(list(product((-0.5, 0.5), repeat=3))) @ geometry.affine[:3, :3].T
    ).max(axis=0)
    low, high = [], []
    for row, far, origin in zip(
        geometry.affine[:3, :3], half, geometry.affine[:3, 3], strict=True
    ):
        along = row @ places_zyx
        low.append(float(along.min() + origin - far))
        high.append(float(along.max() + origin + far))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _quantile(ordered: NDArray[np.float64], fraction: float) -> float:
    """Return a quantile of sorted values, by linear interpolation as in numpy."""
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
