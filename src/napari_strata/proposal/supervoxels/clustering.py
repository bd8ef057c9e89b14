"""Cluster voxels into small connected supervoxels whose boundaries follow the tissue's.

Voxels are merged bottom-up (see `region_merging`), so thin structures survive. The
boundaries are then refined voxel by voxel (see `boundary_refinement`). Outside the body,
supervoxels are large blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from threadpoolctl import threadpool_limits

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.parallel import each
from napari_strata.proposal.hierarchy.region_merging import (
    SupervoxelGraph,
    facing_voxels,
    merge_to,
    most_alike_neighbors,
    pair_codes,
    pairs_of,
    run_starts,
    touching_pairs,
)
from napari_strata.proposal.supervoxels.boundary_refinement import (
    CRUMB_VOX,
    refine_boundaries,
)

_JOBLIB_CORES = "LOKY_MAX_CPU_COUNT"
_BLOCK_MM = 30.0
"""Side of the blocks outside the body."""
_SMOOTHING = 0.4
"""Gaussian sigma, in voxels of the finest axis, applied before voxels are merged."""
_SMALL_BODY_SUPERVOXELS, _FEWEST_VOX_IN_SMALL = 1500, 8
"""Supervoxels that a small body gets at most, and their least mean size in voxels."""
_SEGMENTS = 16
"""Segments per supervoxel that intensity alone merges down to.

The remaining merges use feature components too.
"""
_PLACE_WEIGHT = 0.004
"""Intensity difference that equals a distance of 1 mm, which keeps supervoxels compact."""


@dataclass(frozen=True, slots=True)
class SupervoxelPlan:
    """Number and sizes of the supervoxels to make.

    Parameters
    ----------
    target : int
        Supervoxels to aim for inside the body; small bodies get fewer.
    crumb_vox : int
        Supervoxels smaller than this are merged into a neighbour.
    fewest_vox : int
        Least mean number of voxels per supervoxel.
    """

    target: int
    crumb_vox: int = CRUMB_VOX
    fewest_vox: int = 36


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Small segments made from intensity alone, to be merged into supervoxels.

    Parameters
    ----------
    segment : (z, y, x) int32 array
        Segment 0 .. n - 1 of each voxel of the body, and n outside.
    graph : SupervoxelGraph
        The n segments: sizes, intensity and position, and which of them touch.
    """

    segment: NDArray[np.int32]
    graph: SupervoxelGraph


def make_supervoxels(
    channels: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    plan: SupervoxelPlan,
) -> NDArray[np.int32]:
    """Break a block of a scan into supervoxels.

    Parameters
    ----------
    channels : (z, y, x, channel) float32 array
        Channel 0 is intensity in [0, 1]; the others, if any, are feature components on
        a similar scale.
    inside : (z, y, x) bool array
        The body.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    plan : SupervoxelPlan
        Number and sizes of the supervoxels.

    Returns
    -------
    (z, y, x) int32 array
        Ids 0 .. n - 1, every id in use, each supervoxel connected (by faces, edges or
        corners, so that layers one voxel thin stay whole), none across the body's edge.
    """
    intensity = np.ascontiguousarray(channels[..., 0])
    segments = grow_segments(intensity, inside, spacing_zyx_mm, plan)
    return merge_segments(
        segments,
        intensity,
        inside,
        spacing_zyx_mm,
        plan,
        components=[*np.moveaxis(channels[..., 1:], -1, 0)],
    )


def grow_segments(
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    plan: SupervoxelPlan,
) -> Segments:
    """Merge the voxels of the body by intensity into several segments per supervoxel.

    Parameters are those of `make_supervoxels`; `intensity` has shape (z, y, x).
    """
    finest = float(np.min(spacing_zyx_mm))
    smooth = ndimage.gaussian_filter(
        intensity, _SMOOTHING * finest / spacing_zyx_mm, truncate=3.0
    )
    raise_if_cancelled()
    start = most_alike_neighbors(smooth[None], inside)
    raise_if_cancelled()
    n = int(start.max()) + 1
    sizes = np.maximum(np.bincount(start.ravel(), minlength=n), 1)
    columns = [_mean_of(smooth, start, sizes)]
    for axis, spacing in enumerate(spacing_zyx_mm):
        place = np.arange(start.shape[axis], dtype=np.float64).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        columns.append(
            _PLACE_WEIGHT
            * spacing
            * _mean_of(np.broadcast_to(place, start.shape), start, sizes)
        )
    raise_if_cancelled()
    edges = touching_pairs(start)
    raise_if_cancelled()
    outside = n - 1 if not inside.all() else n
    edges = edges[(edges != outside).all(axis=1)]
    graph = SupervoxelGraph(
        sizes.astype(np.float32), np.stack(columns, axis=1).astype(np.float32), edges
    )
    merged = merge_to(graph, _SEGMENTS * _count(inside, plan) + 1)
    return Segments(merged.supervoxel[start], merged.graph)


def merge_segments(
    segments: Segments,
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    plan: SupervoxelPlan,
    *,
    components: Sequence[NDArray[np.float32]] = (),
) -> NDArray[np.int32]:
    """Merge segments into supervoxels by intensity and features, and refine boundaries.

    Parameters
    ----------
    segments : Segments
        From `grow_segments`, of the same block.
    components : sequence of (z, y, x) float32 arrays
        Feature components that are compared besides intensity, on a similar scale.

    Returns
    -------
    (z, y, x) int32 array
        Supervoxels as `make_supervoxels` returns them.
    """
    graph = segments.graph
    known = [
        _mean_of(part, segments.segment, np.maximum(graph.sizes, 1))
        for part in components
    ]
    vectors = np.concatenate(
        [graph.vectors, *(column.astype(np.float32)[:, None] for column in known)],
        axis=1,
    )
    grown = merge_to(
        SupervoxelGraph(graph.sizes, vectors, graph.edges), _count(inside, plan) + 1
    )
    supervoxels = grown.supervoxel[segments.segment]
    blocks = block_cells(inside.shape, spacing_zyx_mm, _BLOCK_MM)
    supervoxels = np.where(inside, supervoxels, blocks + supervoxels.max() + 1)
    return refine_boundaries(supervoxels, intensity, inside, plan.crumb_vox)


def _count(inside: NDArray[np.bool_], plan: SupervoxelPlan) -> int:
    """Return how many supervoxels a body of this size gets."""
    voxels = int(inside.sum())
    return max(
        1,
        min(
            plan.target,
            max(
                voxels // plan.fewest_vox,
                min(voxels // _FEWEST_VOX_IN_SMALL, _SMALL_BODY_SUPERVOXELS),
            ),
        ),
    )


def _mean_of(
    values: NDArray[np.floating],
    supervoxels: NDArray[np.int32],
    sizes: NDArray[np.number],
) -> NDArray[np.float64]:
    """Average values (z, y, x) over supervoxels of known sizes, (n,)."""
    sums = np.bincount(
        supervoxels.ravel(), weights=values.ravel(), minlength=len(sizes)
    )
    return np.asarray(sums / sizes, np.float64)


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Limit scikit-learn's k-means to one thread inside the block.

    With several threads its sums depend on which thread ends first. joblib is limited
    too, because it warns if a container hides the physical cores.
    """
    before = os.environ.get(_JOBLIB_CORES)
    os.environ[_JOBLIB_CORES] = "1"
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        if before is None:
            del os.environ[_JOBLIB_CORES]
        else:
            os.environ[_JOBLIB_CORES] = before


def block_cells(
    shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64], side_mm: float
) -> NDArray[np.int32]:
    """Return block numbers (z, y, x) of a grid cut into blocks of about `side_mm`."""
    axes = [
        np.arange(n) // max(1, round(side_mm / s))
        for n, s in zip(shape, spacing_zyx_mm, strict=True)
    ]
    counts = [int(a[-1]) + 1 for a in axes]
    z, y, x = axes
    return ((z[:, None, None] * counts[1] + y[:, None]) * counts[2] + x).astype(
        np.int32
    )


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """Pairs of touching supervoxels.

    Parameters
    ----------
    edges : (e, 2) int32 array
        Pairs, first id smaller, sorted.
    faces : (e,) int32 array
        Voxel faces that they share.
    step : (e,) float32 array
        Mean absolute difference of intensity across those faces.
    """

    edges: NDArray[np.int32]
    faces: NDArray[np.int32]
    step: NDArray[np.float32]


def find_contacts(
    labels: NDArray[np.int32], intensity: NDArray[np.float32]
) -> Contacts:
    """Find the pairs of touching supervoxels of `labels` (z, y, x), numbered from 0."""
    tables = each(partial(_contacts_across, labels, intensity), range(3))
    codes, faces, steps = (np.concatenate(part) for part in zip(*tables, strict=True))
    codes, order, start = _grouped(codes)
    edges = np.ascontiguousarray(pairs_of(codes))
    if not len(start):
        return Contacts(edges, faces.astype(np.int32), steps.astype(np.float32))
    total = np.add.reduceat(faces.take(order), start)
    step = np.add.reduceat(steps.take(order), start) / total
    return Contacts(edges, total.astype(np.int32), step.astype(np.float32))


def _contacts_across(
    labels: NDArray[np.int32], intensity: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs that touch across an axis, their faces, and their sums of steps."""
    lower, upper = facing_voxels(labels, axis)
    flat, bright = labels.reshape(-1), intensity.reshape(-1)
    codes = pair_codes(flat.take(lower), flat.take(upper))
    steps = np.abs(bright.take(upper) - bright.take(lower))
    codes, order, start = _grouped(codes)
    faces = np.diff(start, append=len(order))
    if not len(start):
        return codes, faces, np.empty(0)
    return codes, faces, np.add.reduceat(steps.take(order), start, dtype=np.float64)


def _grouped(
    codes: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.intp]]:
    """Return the codes that occur, the order that sorts all, and where each one's run begins."""
    order = np.argsort(codes)
    ordered = codes.take(order)
    start = run_starts(ordered)
    return ordered.take(start), order, start
