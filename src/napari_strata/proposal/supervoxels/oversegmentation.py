"""Oversegment a scan into supervoxels, and describe them by intensity and position.

Initial segments need intensity only, so they can be made before the encoder has run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.parallel import both, each
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import (
    WorkingGrid,
    block_mean,
    choose_grid,
    prepare_intensity,
    resample,
)
from napari_strata.proposal.supervoxels.boundary_refinement import refine_boundaries
from napari_strata.proposal.supervoxels.clustering import (
    Contacts,
    Segments,
    SupervoxelPlan,
    block_cells,
    find_contacts,
    grow_segments,
    merge_segments,
)
from napari_strata.proposal.supervoxels.descriptors import (
    Pooler,
    SmoothedIntensity,
    describe_intensity,
    intensity_quantiles,
    intensity_rank,
    sizes_and_centers,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Volume

if TYPE_CHECKING:
    from napari_strata.encoder.embed import FeatureMap

_COMPONENT_WEIGHT = 0.03
"""Intensity difference that equals one unit of a feature component."""
_AIR_BLOCK_MM = 40.0
"""Side of the blocks outside the body's box."""
_MOST_SEGMENTED_VOXELS = 17_000_000
"""Larger boxes are segmented on a coarser copy.

Boundaries are still refined on the scan's own voxels.
"""
_MOST_BESIDE_VOXELS = 12_000_000
"""Boxes up to this size are segmented while the encoder works.

Larger ones would need too much memory for both at once.
"""
_MOST_DESCRIBED_VOXELS = 24_000_000
"""Scans above this are described from every second or third voxel."""

_DESCRIBED_MARGIN_MM = 7.0
"""Width of the air around the body's box that is described besides it.

Smoothed intensity of the body depends on voxels up to 11 mm away; the box has 6 mm of air.
"""

View = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedScan:
    """A scan with its body, intensity and working grid.

    Parameters
    ----------
    volume : Volume
        The scan, with magnified lengths if the body is small.
    inside : (z, y, x) bool array
        The body.
    intensity : (z, y, x) float32 array
        Intensity on the scan's grid.
    grid : WorkingGrid
        The body's box, and the encoder's grid over it.
    magnification : float
        Factor by which lengths are magnified; 1.0 except for small bodies.
    """

    volume: Volume
    inside: NDArray[np.bool_]
    intensity: NDArray[np.float32]
    grid: WorkingGrid
    magnification: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Supervoxels:
    """Supervoxels, described by intensity and position.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Supervoxel 0 .. n - 1 of every voxel, on the scan's own grid.
    contacts : Contacts
        Which of them touch.
    intensity : (n, 5) float32 array
        As `Descriptors` holds it.
    center_zyx_mm : (n, 3) float32 array
        Centroids in mm from the first voxel.
    sizes_vox : (n,) int64 array
        Voxels.
    body : (n,) bool array
        Which of them lie in the body.
    """

    labels: NDArray[np.int32]
    contacts: Contacts
    intensity: NDArray[np.float32]
    center_zyx_mm: NDArray[np.float32]
    sizes_vox: NDArray[np.int64]
    body: NDArray[np.bool_]


def prepare_scan(volume: Volume, settings: ProposeSettings) -> PreparedScan:
    """Find a scan's body, its intensity, and the grid that the encoder will see it on.

    Raises
    ------
    GeometryError
        If the scan holds nothing but air.
    """
    inside = body_mask(volume)
    seen, times = magnified(volume, inside)
    grid = choose_grid(inside, seen, settings)
    return PreparedScan(
        seen, inside, prepare_intensity(seen, inside, settings), grid, times
    )


def fits_beside_encoder(grid: WorkingGrid) -> bool:
    """Return whether memory allows segmenting a box while the encoder works."""
    return int(np.prod(grid.box_shape)) <= _MOST_BESIDE_VOXELS


@dataclass(frozen=True, slots=True, eq=False)
class InitialSegments:
    """Initial segments of a scan, made from intensity alone.

    Parameters
    ----------
    view : tuple of 3 slices
        Voxels of the scan that supervoxels are described from.
    rank : (z, y, x) float32 array
        Share of the body that is darker, over the view.
    quantiles : (k,) float64 array
        Intensities that ranks are found from.
    features, inside : (z, y, x) float32 and bool arrays
        Values that voxels were compared by, and the body, both over the body's box and
        coarsened by `step`.
    step : tuple of 3 int
        Scan voxels per coarse voxel along each axis.
    segments : Segments
        Small segments of the coarsened box.
    around : SmoothedIntensity
        Smoothed intensity that supervoxels are described from.
    """

    view: View
    rank: NDArray[np.float32]
    quantiles: NDArray[np.float64]
    features: NDArray[np.float32]
    inside: NDArray[np.bool_]
    step: tuple[int, int, int]
    segments: Segments
    around: SmoothedIntensity


def grow_initial_segments(
    prepared: PreparedScan, settings: ProposeSettings
) -> InitialSegments:
    """Segment a scan finely by intensity alone.

    Parameters
    ----------
    prepared : PreparedScan
        The scan, its body and its intensity.
    settings : ProposeSettings
        `supervoxels` is the number of supervoxels to aim for.
    """
    quantiles = intensity_quantiles(prepared.intensity, prepared.inside)
    raise_if_cancelled()
    spacing, box = prepared.volume.spacing_zyx_mm, prepared.grid.box
    step = coarsening(prepared.grid.box_shape, spacing, _MOST_SEGMENTED_VOXELS)
    around = _box_and_air(prepared)
    rank = intensity_rank(prepared.intensity[around], quantiles)
    features, inside = segment_features(prepared, rank[_within(box, around)], step=step)
    plan = SupervoxelPlan(target=settings.supervoxels)
    segments = grow_segments(features, inside, spacing * step, plan)
    view = _thinned_part(prepared.intensity.shape, spacing, around)
    seen = np.ascontiguousarray(prepared.intensity[view])
    return InitialSegments(
        view,
        np.ascontiguousarray(rank[_within(view, around)]),
        quantiles,
        features,
        inside,
        step,
        segments,
        SmoothedIntensity.of(seen, spacing * _steps(view)),
    )


def find_supervoxels(
    prepared: PreparedScan,
    initial: InitialSegments,
    features: FeatureMap,
    settings: ProposeSettings,
    *,
    seed: int = 0,
) -> Supervoxels:
    """Break a scan into supervoxels, and describe them by intensity.

    Parameters
    ----------
    prepared : PreparedScan
        The scan, its body and its intensity.
    initial : InitialSegments
        From `grow_initial_segments`, of the same scan.
    features : FeatureMap
        From the encoder; two principal components of the finest level are used.
    settings : ProposeSettings
        `supervoxels` and `feature_weight` are used.
    seed : int
        Seed of the sample that the components are computed from.
    """
    labels, n = _supervoxels(prepared, initial, features, settings, seed)
    spacing = prepared.volume.spacing_zyx_mm
    view = _thinned(labels.shape, spacing)

    sizes, centers = sizes_and_centers(labels, n, spacing)

    def find_body_and_contacts() -> tuple[NDArray[Any], Contacts]:
        contacts = find_contacts(
            np.ascontiguousarray(labels[view]),
            np.ascontiguousarray(prepared.intensity[view]),
        )
        return np.bincount(labels[prepared.inside], minlength=n), contacts

    intensity, (in_body, contacts) = both(
        lambda: _describe(prepared, initial, labels, centers), find_body_and_contacts
    )
    return Supervoxels(
        labels, contacts, intensity, centers, sizes, in_body > 0.5 * sizes
    )


def _supervoxels(
    prepared: PreparedScan,
    initial: InitialSegments,
    features: FeatureMap,
    settings: ProposeSettings,
    seed: int,
) -> tuple[NDArray[np.int32], int]:
    """Make supervoxels in the body's box and large blocks around it, on the scan's own grid."""
    box, spacing, step = prepared.grid.box, prepared.volume.spacing_zyx_mm, initial.step
    components = _components(features, initial.features.shape, settings, seed)
    plan = SupervoxelPlan(target=settings.supervoxels)
    inner = merge_segments(
        initial.segments,
        initial.features,
        initial.inside,
        spacing * step,
        plan,
        components=components,
    )
    if max(step) > 1:
        for axis, (times, size) in enumerate(
            zip(step, prepared.grid.box_shape, strict=True)
        ):
            inner = np.take(
                np.repeat(inner, times, axis=axis), np.arange(size), axis=axis
            )
        inner = refine_boundaries(inner, prepared.intensity[box], prepared.inside[box])
    outer = block_cells(prepared.intensity.shape, spacing, _AIR_BLOCK_MM)
    outer += inner.max() + 1
    outer[box] = inner
    used = np.bincount(outer.ravel()) > 0
    number = (np.cumsum(used) - 1).astype(np.int32)
    return number[outer], int(used.sum())


def _components(
    features: FeatureMap,
    shape_zyx: tuple[int, int, int],
    settings: ProposeSettings,
    seed: int,
) -> list[NDArray[np.float32]]:
    """Return weighted feature components on a grid of this shape over the body's box."""
    weight = np.float32(_COMPONENT_WEIGHT * settings.feature_weight)
    found = principal_maps(features, 2, seed=seed) if weight else []
    return each(lambda component: resample(weight * component, shape_zyx), found)


def principal_maps(
    features: FeatureMap, count: int, *, seed: int
) -> list[NDArray[np.float32]]:
    """Return principal components of the finest features, each (z, y, x) float32.

    They are on the working grid, centred and not scaled. The largest loading of each is
    positive, which fixes the sign.
    """
    z, y, x = shape = features.grid.shape_zyx
    # the finest level with its padding: cutting that off would copy everything
    level = features.levels[0] if features.strides[0] == 1 else features.at_level(0)
    rng = np.random.default_rng(seed)
    n = math.prod(shape)
    chosen = rng.choice(n, min(n, 50_000), replace=False)
    sample = level[np.unravel_index(chosen, shape)].astype(np.float64)
    center = sample.mean(axis=0)
    sample -= center
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].T[:count]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    maps = level @ axes.T.astype(np.float32)
    maps -= (axes @ center).astype(np.float32)
    return [np.ascontiguousarray(maps[:z, :y, :x, k]) for k in range(len(axes))]


def coarsening(
    shape: Sequence[int], spacing_zyx_mm: NDArray[np.float64], most: int
) -> tuple[int, int, int]:
    """Return the coarsening factor per axis that leaves at most `most` voxels.

    The finest axis is coarsened first.
    """
    step = [1, 1, 1]
    while np.prod([-(-n // k) for n, k in zip(shape, step, strict=True)]) > most:
        left = [
            mm * k if k < n else np.inf
            for mm, k, n in zip(spacing_zyx_mm, step, shape, strict=True)
        ]
        step[int(np.argmin(left))] += 1
    return step[0], step[1], step[2]


def segment_features(
    prepared: PreparedScan,
    rank: NDArray[np.float32],
    *,
    step: tuple[int, int, int] = (1, 1, 1),
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the values by which voxels are compared, and the body, over the body's box.

    For MR, intensity and its rank count half each, which stretches the range in which
    most of the body lies.

    Parameters
    ----------
    rank : (z, y, x) float32 array
        From `intensity_rank`, over the body's box.
    step : tuple of 3 int
        Voxels to average along each axis.

    Returns
    -------
    (z, y, x) float32 array, (z, y, x) bool array
        Intensity in [0, 1], and the body.
    """
    box = prepared.grid.box
    intensity, inside = (
        prepared.intensity[box],
        np.ascontiguousarray(prepared.inside[box]),
    )
    if prepared.volume.modality == "mr":
        intensity = np.float32(0.5) * (intensity + rank)
    if max(step) > 1:
        intensity = block_mean(intensity, step)
        inside = block_mean(inside.astype(np.float32), step) > 0.5
    return np.ascontiguousarray(intensity), inside


def _thinned(shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64]) -> View:
    """Choose the voxels that describe a scan: all, or every k-th of a very large one."""
    z, y, x = (
        slice(k // 2, None, k)
        for k in coarsening(shape, spacing_zyx_mm, _MOST_DESCRIBED_VOXELS)
    )
    return z, y, x


def _box_and_air(prepared: PreparedScan) -> View:
    """Return the body's box and some air around it, which supervoxels are described from."""
    parts = []
    for part, mm in zip(prepared.grid.box, prepared.volume.spacing_zyx_mm, strict=True):
        margin = int(np.ceil(_DESCRIBED_MARGIN_MM / mm))
        parts.append(slice(max(0, part.start - margin), part.stop + margin))
    return parts[0], parts[1], parts[2]


def _thinned_part(
    shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64], part: View
) -> View:
    """Return the voxels of a part of the scan that `_thinned` chooses."""
    z, y, x = (
        slice(
            kept.start + -(-max(0, own.start - kept.start) // kept.step) * kept.step,
            own.stop,
            kept.step,
        )
        for kept, own in zip(_thinned(shape, spacing_zyx_mm), part, strict=True)
    )
    return z, y, x


def _within(part: View, whole: View) -> View:
    """Return a part of the scan in the voxels of a larger part."""
    z, y, x = (
        slice(own.start - outer.start, own.stop - outer.start, own.step)
        for own, outer in zip(part, whole, strict=True)
    )
    return z, y, x


def _steps(view: View) -> NDArray[np.int64]:
    return np.array([s.step for s in view])


def _describe(
    prepared: PreparedScan,
    initial: InitialSegments,
    labels: NDArray[np.int32],
    centers_mm: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Describe each supervoxel by its intensity.

    A supervoxel without a voxel in the view is described by the voxel at its centroid.
    """
    n, spacing = len(centers_mm), prepared.volume.spacing_zyx_mm
    view = initial.view
    seen, intensity = (
        np.ascontiguousarray(labels[view]),
        np.ascontiguousarray(prepared.intensity[view]),
    )
    described = describe_intensity(
        Pooler(seen, n),
        intensity,
        initial.rank,
        initial.around,
    )
    missed = np.flatnonzero(np.bincount(seen.ravel(), minlength=n) == 0)
    middle = tuple(
        np.clip(
            np.round(centers_mm[missed] / spacing).astype(int),
            0,
            np.array(labels.shape) - 1,
        ).T
    )
    there = prepared.intensity[middle]
    rank = np.interp(
        there, initial.quantiles, np.linspace(0, 1, len(initial.quantiles))
    )
    described[missed] = np.stack(
        [there, np.zeros_like(there), there, there, rank.astype(np.float32)], axis=1
    )
    return described
