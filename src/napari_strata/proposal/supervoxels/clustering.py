"""Break a scan into small connected supervoxels whose edges lie where the tissue has edges.

Voxels grow together into supervoxels (see `merging`), so thin structures survive; the
supervoxels' edges are then moved voxel by voxel to where intensity and smoothness want
them, and crumbs join the neighbour they are most like. Outside the body the supervoxels
are large blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from threadpoolctl import threadpool_limits

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.proposal.hierarchy.region_merging import (
    SupervoxelGraph,
    merge_to,
    most_alike_neighbors,
    touching_pairs,
)
from napari_strata.proposal.supervoxels.boundary_refinement import (
    CRUMB_VOX,
    settle_edges,
)

_JOBLIB_CORES = "LOKY_MAX_CPU_COUNT"
_BLOCK_MM = 30.0
"""Side of the blocks outside the body."""
_SMOOTHING = 0.4
"""Voxels looked at are smoothed by this much.

Of the finest axis' voxel before they grow together.
"""
_SMALL_BODY_SUPERVOXELS, _FEWEST_VOX_IN_SMALL = 1500, 8
"""A body of few voxels gets up to this many supervoxels.

Of at least this many voxels on average.
"""
_SEGMENTS = 16
"""Brightness alone merges down to this many times the supervoxels wanted.

Feature components have a say in the rest.
"""
_PLACE_WEIGHT = 0.004
"""Brightness that one mm is worth: keeps supervoxels compact where nothing else parts them."""


@dataclass(frozen=True, slots=True)
class SupervoxelPlan:
    """What supervoxels to make.

    Parameters
    ----------
    target : int
        Supervoxels to aim for inside the body; small bodies get fewer.
    crumb_vox : int
        Supervoxels smaller than this join a neighbour.
    fewest_vox : int
        Voxels that a supervoxel has on average at least.
    """

    target: int
    crumb_vox: int = CRUMB_VOX
    fewest_vox: int = 36


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Small supervoxels that intensity alone has grown, to be merged further.

    Parameters
    ----------
    segment : (z, y, x) int32 array
        Segment 0 .. n - 1 of each voxel of the body, and n outside.
    graph : SupervoxelGraph
        The n segments: sizes, intensity and position, and which touch.
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
        a like scale.
    inside : (z, y, x) bool array
        The body.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    plan : SupervoxelPlan
        How many and how fine.

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
    """Grow the voxels of the body together by intensity.

    Into several times as many supervoxels as are wanted.

    Parameters are those of `make_supervoxels`; `intensity` is intensity (z, y, x).
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
    edges = touching_pairs(start, n)[0]
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
    """Merge segments into the supervoxels that are wanted, by what else is known of them.

    Settle the edges.

    Parameters
    ----------
    segments : Segments
        From `grow_segments`, of the same block.
    components : sequence of (z, y, x) float32 arrays
        What voxels are compared by besides intensity, on a like scale.

    Returns
    -------
    (z, y, x) int32 array
        As `make_supervoxels` gives them.
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
    return settle_edges(supervoxels, intensity, inside, plan.crumb_vox)


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
    """Keep scikit-learn's k-means to one thread.

    With several, its sums depend on which thread ends first.

    joblib is told the same, or it would look for physical cores and complain where a
    container hides them.
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
    """Cut a grid into blocks of about `side_mm`: block number of each voxel, (z, y, x) int32."""
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
    """Which supervoxels touch.

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
    labels: NDArray[np.int32], intensity: NDArray[np.float32], n: int
) -> Contacts:
    """Find the pairs of touching supervoxels, ids 0 .. n - 1 in `labels` (z, y, x)."""
    pairs, steps = [], []
    for axis in range(3):
        rolled, bright = np.moveaxis(labels, axis, 0), np.moveaxis(intensity, axis, 0)
        touch = rolled[1:] != rolled[:-1]
        ends = np.stack([rolled[1:][touch], rolled[:-1][touch]], axis=1)
        ends.sort(axis=1)
        pairs.append(ends)
        steps.append(np.abs(bright[1:][touch] - bright[:-1][touch]))
    low, high = np.concatenate(pairs).T
    faces = sparse.coo_matrix(
        (np.ones(len(low), np.int32), (low, high)), shape=(n, n)
    ).tocsr()
    step = sparse.coo_matrix(
        (np.concatenate(steps).astype(np.float64), (low, high)), shape=(n, n)
    ).tocsr()
    faces.sum_duplicates()
    step.sum_duplicates()
    found = faces.tocoo()
    edges = np.stack([found.row, found.col], axis=1).astype(np.int32)
    return Contacts(
        edges,
        found.data.astype(np.int32),
        (step.tocoo().data / found.data).astype(np.float32),
    )
