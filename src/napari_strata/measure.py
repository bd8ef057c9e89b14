"""What is in the regions, and how well labels agree with a reference."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from napari_strata.errors import GeometryError
from napari_strata.volume import BACKGROUND, Geometry, Region, Segmentation, Volume, default_regions

_EMPTY = float("nan")


@dataclass(frozen=True, slots=True)
class RegionMeasure:
    """Size, place and intensity of one region.

    Parameters
    ----------
    id, name : int, str
        As in the region table.
    voxels : int
        0 for a region of the table that has no voxel; its statistics are then NaN.
    volume_ml : float
        Volume in mL.
    mean, sd, minimum, p5, median, p95, maximum : float
        Intensity statistics (HU for CT, the scan's own unit for MR); `sd` is the population's.
    centroid_ras_mm : tuple of 3 float
        Centre of mass, RAS+ mm.
    box_start_zyx, box_stop_zyx : tuple of 3 int
        Bounding box in array indices, half open.
    """

    id: int
    name: str
    voxels: int
    volume_ml: float
    mean: float
    sd: float
    minimum: float
    p5: float
    median: float
    p95: float
    maximum: float
    centroid_ras_mm: tuple[float, float, float]
    box_start_zyx: tuple[int, int, int]
    box_stop_zyx: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well labels agree with a reference, over the voxels that are scored.

    Parameters
    ----------
    voxels : int
        Voxels scored.
    n_regions : int
        Distinct labels among them; label 0 counts as a region like any other.
    one_to_one : dict of int to float
        Dice of each reference class under the best one-to-one matching (Hungarian); 0 for a class left without a region.
    many_to_one : dict of int to float
        Dice of each class when every region goes to the class it overlaps most: what naming the regions could reach.
    one_to_one_mean, many_to_one_mean : float
        Means over the classes; NaN without any class.
    ari : float
        Adjusted Rand index; 1 is perfect, about 0 is chance.
    voi_split_bits, voi_merge_bits : float
        The two halves of the variation of information, in bits (log 2): H(labels | reference) grows when classes are
        split over several regions, H(reference | labels) when regions merge several classes.

    Notes
    -----
    Adjusted Rand index: Hubert and Arabie, Journal of Classification 1985. Variation of information: Meila, Journal of
    Multivariate Analysis 2007.
    """

    voxels: int
    n_regions: int
    one_to_one: dict[int, float]
    many_to_one: dict[int, float]
    one_to_one_mean: float
    many_to_one_mean: float
    ari: float
    voi_split_bits: float
    voi_merge_bits: float

    def to_dict(self) -> dict[str, Any]:
        """Give the scores as plain values, for JSON."""
        return asdict(self)


def measure_regions(segmentation: Segmentation, volume: Volume) -> tuple[RegionMeasure, ...]:
    """Measure every region but the background.

    Parameters
    ----------
    segmentation : Segmentation
        Labels (z, y, x) and their table. Ids that the table lacks are measured under a default name.
    volume : Volume
        The scan, on the same grid.

    Returns
    -------
    tuple of RegionMeasure
        In order of id.

    Raises
    ------
    GeometryError
        If the two grids differ.
    """
    require_same_grid(segmentation.geometry, volume.geometry, "The labels", "the scan")
    voxels = np.flatnonzero(segmentation.labels)
    labels = segmentation.labels.ravel()[voxels]
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    starts = np.flatnonzero(np.diff(labels, prepend=labels.dtype.type(0)))
    ids = labels[starts].tolist()
    voxels_of = dict(zip(ids, np.split(voxels[order], starts[1:]), strict=False))
    table = {region.id: region for region in (*default_regions(ids), *segmentation.regions) if region.id != BACKGROUND}
    intensities = volume.data.ravel()
    return tuple(_measure(table[i], voxels_of.get(i), intensities, volume.geometry) for i in sorted(table))


def require_same_grid(geometry: Geometry, other: Geometry, what: str, than: str) -> None:
    """Refuse two grids that differ in shape, or by more than a tenth of a voxel anywhere.

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
            f"{what} are {geometry.shape_zyx} but {than} is {other.shape_zyx} voxels (z, y, x). "
            "Take the scan that they were drawn on, or resample them to its grid."
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(geometry.shape_zyx) - 1)
    apart_mm = np.linalg.norm(geometry.world_from_voxel(corners) - other.world_from_voxel(corners), axis=1).max()
    if apart_mm > 0.1 * geometry.spacing_zyx_mm.min():
        raise GeometryError(
            f"{what} lie up to {apart_mm:.3g} mm away from {than}: their affines differ. "
            "Take the scan that they were drawn on, or resample them to its grid."
        )


def _measure(region: Region, voxels: NDArray[np.intp] | None, intensities: NDArray[np.generic], geometry: Geometry) -> RegionMeasure:
    """Measure one region from the flat indices of its voxels."""
    if voxels is None:
        nothing = (_EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY)
        return RegionMeasure(region.id, region.name, 0, 0.0, *nothing, (_EMPTY, _EMPTY, _EMPTY), (0, 0, 0), (0, 0, 0))
    values = np.sort(intensities[voxels]).astype(np.float64)
    z, y, x = np.unravel_index(voxels, geometry.shape_zyx)
    right, anterior, superior = geometry.world_from_voxel([z.mean(), y.mean(), x.mean()]).tolist()
    return RegionMeasure(
        id=region.id,
        name=region.name,
        voxels=len(voxels),
        volume_ml=len(voxels) * geometry.voxel_volume_mm3 / 1000,
        mean=float(values.mean()),
        sd=float(values.std()),
        minimum=float(values[0]),
        p5=_quantile(values, 0.05),
        median=_quantile(values, 0.5),
        p95=_quantile(values, 0.95),
        maximum=float(values[-1]),
        centroid_ras_mm=(right, anterior, superior),
        box_start_zyx=(int(z.min()), int(y.min()), int(x.min())),
        box_stop_zyx=(int(z.max()) + 1, int(y.max()) + 1, int(x.max()) + 1),
    )


def _quantile(ordered: NDArray[np.float64], fraction: float) -> float:
    """Interpolate linearly between neighbours, as numpy does, in values that are already in order."""
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def compare(
    labels: Segmentation, reference: Segmentation, *, ignore: Collection[int] = (), other: Collection[int] = (BACKGROUND,)
) -> Agreement:
    """Score labels against a reference, voxel by voxel.

    By default the reference is an ordinary label file: its 0 is background, takes part as a class, so that regions which
    leak into it pay, but does not count in the means. A reference whose 0 means "nobody knows" and whose 255 means
    "surely none of the classes" is scored with ``ignore=(0,), other=(255,)``.

    Parameters
    ----------
    labels, reference : Segmentation
        On the same grid.
    ignore : collection of int
        Reference values whose voxels are left out.
    other : collection of int
        Reference values that take part, but are no class of the means.

    Returns
    -------
    Agreement
        The scores.

    Raises
    ------
    GeometryError
        If the grids differ, or nothing is left to score.
    """
    require_same_grid(labels.geometry, reference.geometry, "The labels", "the reference")
    kept = ~np.isin(reference.labels, list(ignore))
    if not kept.any():
        raise GeometryError("The reference has no voxel to score: every value in it is ignored. Check the reference and `ignore`.")
    classes, table = _contingency(labels.labels[kept], reference.labels[kept])
    one, many = _one_to_one(table), _many_to_one(table)
    scored = [k for k, value in enumerate(classes.tolist()) if value not in other]
    split, merge = _variation_of_information(table)
    return Agreement(
        voxels=int(table.sum()),
        n_regions=len(table),
        one_to_one={int(classes[k]): float(one[k]) for k in scored},
        many_to_one={int(classes[k]): float(many[k]) for k in scored},
        one_to_one_mean=float(one[scored].mean()) if scored else _EMPTY,
        many_to_one_mean=float(many[scored].mean()) if scored else _EMPTY,
        ari=_adjusted_rand(table),
        voi_split_bits=split,
        voi_merge_bits=merge,
    )


def _contingency(labels: NDArray[np.unsignedinteger], reference: NDArray[np.unsignedinteger]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Count voxels per pair: the reference's values, and a table (region, class)."""
    regions, row = np.unique(labels, return_inverse=True)
    classes, column = np.unique(reference, return_inverse=True)
    pairs = row.ravel() * len(classes) + column.ravel()
    counts = np.bincount(pairs, minlength=len(regions) * len(classes))
    return classes, counts.reshape(len(regions), len(classes)).astype(np.float64)


def _one_to_one(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dice per class under the one-to-one matching with the highest sum (Kuhn's Hungarian method)."""
    dice = 2 * table / (table.sum(axis=1, keepdims=True) + table.sum(axis=0, keepdims=True))
    region, matched = linear_sum_assignment(dice, maximize=True)
    best = np.zeros(table.shape[1])
    best[matched] = dice[region, matched]
    return best


def _many_to_one(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dice per class when every region is given to the class that it overlaps most."""
    n_classes = table.shape[1]
    owner = table.argmax(axis=1)
    hits = np.bincount(owner, table.max(axis=1), n_classes)
    claimed = np.bincount(owner, table.sum(axis=1), n_classes)
    return 2 * hits / (claimed + table.sum(axis=0))


def _adjusted_rand(table: NDArray[np.float64]) -> float:
    def pairs(n: NDArray[np.float64]) -> float:
        return float((n * (n - 1) / 2).sum())

    together, in_regions, in_classes = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    by_chance = in_regions * in_classes / max(pairs(table.sum(keepdims=True)), 1.0)
    spread = (in_regions + in_classes) / 2 - by_chance
    return (together - by_chance) / spread if spread else 1.0


def _variation_of_information(table: NDArray[np.float64]) -> tuple[float, float]:
    """Give H(labels | reference) and H(reference | labels) in bits."""
    joint = table / table.sum()

    def entropy(p: NDArray[np.float64]) -> float:
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum())

    both = entropy(joint)
    return max(both - entropy(joint.sum(axis=0)), 0.0), max(both - entropy(joint.sum(axis=1)), 0.0)
