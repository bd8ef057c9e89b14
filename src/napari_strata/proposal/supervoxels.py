"""Break a scan into small connected pieces whose edges lie where the tissue has edges.

Voxels grow together into pieces (see `merging`), so thin structures survive; the pieces' edges are then moved voxel by
voxel to where brightness and smoothness want them, and crumbs join the neighbour they are most like. Outside the body
the pieces are large blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.measure import label as label_parts
from threadpoolctl import threadpool_limits

from napari_strata.proposal.merging import PieceGraph, merge_to, most_alike_neighbors, touching_pairs, unique_pairs
from napari_strata.wanted import check_wanted

_JOBLIB_CORES = "LOKY_MAX_CPU_COUNT"
_STANDS_OUT = 0.1
"""Brightness difference times root of size above which a small piece is kept."""
_SNAP_ROUNDS, _SNAP_SMOOTHNESS, _SNAP_INERTIA = 2, 0.4, 0.01
"""Passes over the pieces' edges; what each of a voxel's six neighbours in a piece is worth, and what a move must gain."""
_NEVER_EATEN_VOX = 8
"""Pieces of this size or less lose no voxel to a neighbour."""
CRUMB_VOX, _CRUMB_ROUNDS = 6, 3
_FACES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
_SLAB = 32
"""Planes that are worked on at a time."""
_BLOCK_MM = 30.0
"""Side of the blocks outside the body."""
_SMOOTHING = 0.4
"""Voxels looked at are smoothed by this much of the finest axis' voxel before they grow together."""
_SMALL_BODY_PIECES, _FEWEST_VOX_IN_SMALL = 1500, 8
"""A body of few voxels gets up to this many pieces, of at least this many voxels on average."""
_PLACE_WEIGHT = 0.004
"""Brightness that one mm is worth: keeps pieces compact where nothing else parts them."""


@dataclass(frozen=True, slots=True)
class SupervoxelPlan:
    """What supervoxels to make.

    Parameters
    ----------
    target : int
        Pieces to aim for inside the body; small bodies get fewer.
    crumb_vox : int
        Pieces smaller than this join a neighbour.
    fewest_vox : int
        Voxels that a piece has on average at least.
    """

    target: int
    crumb_vox: int = CRUMB_VOX
    fewest_vox: int = 36


def make_supervoxels(
    channels: NDArray[np.float32], inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64], plan: SupervoxelPlan
) -> NDArray[np.int32]:
    """Break a block of a scan into supervoxels.

    Parameters
    ----------
    channels : (z, y, x, channel) float32 array
        Channel 0 is brightness in [0, 1]; the others are feature components on a like scale.
    inside : (z, y, x) bool array
        The body.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    plan : SupervoxelPlan
        How many and how fine.

    Returns
    -------
    (z, y, x) int32 array
        Ids 0 .. n - 1, every id in use, each piece connected (by faces, edges or corners, so that layers one voxel thin
        stay whole), none across the body's edge.
    """
    light = np.ascontiguousarray(channels[..., 0])
    finest = float(np.min(spacing_zyx_mm))
    smooth = ndimage.gaussian_filter(light, _SMOOTHING * finest / spacing_zyx_mm, truncate=3.0)
    looks = np.stack([smooth, *(channels[..., k] for k in range(1, channels.shape[-1]))])
    voxels = int(inside.sum())
    target = max(1, min(plan.target, max(voxels // plan.fewest_vox, min(voxels // _FEWEST_VOX_IN_SMALL, _SMALL_BODY_PIECES))))
    pieces = grow_pieces(looks, inside, spacing_zyx_mm, target)
    blocks = block_cells(inside.shape, spacing_zyx_mm, _BLOCK_MM)
    pieces = np.where(inside, pieces, blocks + pieces.max() + 1)
    return settle_edges(pieces, light, inside, plan.crumb_vox)


def settle_edges(
    pieces: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_], crumb_vox: int = CRUMB_VOX
) -> NDArray[np.int32]:
    """Move the edges of pieces to where they suit brightness, make each part a piece of its own, and join crumbs.

    Parameters
    ----------
    pieces : (z, y, x) int32 array
        Pieces from 0; what crosses the body's edge is cut there.
    light : (z, y, x) float32 array
        Brightness.
    inside : (z, y, x) bool array
        The body.
    crumb_vox : int
        Pieces smaller than this join a neighbour.

    Returns
    -------
    (z, y, x) int32 array
        As `make_supervoxels` gives them.
    """
    snapped = snap_edges(pieces * np.int32(2) + inside, light, inside)
    check_wanted()
    parts = _connected(snapped)
    check_wanted()
    return join_crumbs(parts, light, inside, crumb_vox)


def grow_pieces(
    looks: NDArray[np.float32], inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64], target: int
) -> NDArray[np.int32]:
    """Grow the voxels of the body together into `target` pieces: pieces from 0, and the last id for all outside.

    Parameters
    ----------
    looks : (channel, z, y, x) float32 array
        What voxels are compared by, on the scale of brightness.
    """
    check_wanted()
    start = most_alike_neighbors(looks, inside)
    check_wanted()
    n = int(start.max()) + 1
    flat = start.ravel()
    sizes = np.maximum(np.bincount(flat, minlength=n), 1)
    columns = [np.bincount(flat, weights=look.ravel(), minlength=n) / sizes for look in looks]
    for axis, spacing in enumerate(spacing_zyx_mm):
        place = np.arange(start.shape[axis], dtype=np.float64).reshape([-1 if a == axis else 1 for a in range(3)])
        sums = np.bincount(flat, weights=np.broadcast_to(place, start.shape).ravel(), minlength=n)
        columns.append(_PLACE_WEIGHT * spacing * sums / sizes)
    outside = n - 1 if not inside.all() else n
    check_wanted()
    edges = touching_pairs(start, n)[0]
    edges = edges[(edges != outside).all(axis=1)]
    graph = PieceGraph(sizes.astype(np.float32), np.stack(columns, axis=1).astype(np.float32), edges)
    return merge_to(graph, target + 1)[start]


def _connected(pieces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Give every part that is connected by faces, edges or corners a number of its own, from 0."""
    return label_parts(pieces, connectivity=3, background=-1).astype(np.int32) - 1


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Keep scikit-learn's k-means to one thread: with several, its sums depend on which thread ends first.

    joblib is told the same, or it would look for physical cores and complain where a container hides them.
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


def noise_level(light: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of the noise from how voxels differ from the mean of their six neighbours.

    The median keeps edges out of it; on noise alone the difference has a variance of 7/6. Every third axial plane counts.
    """
    found = []
    for z in range(0, light.shape[0], 3):
        plane = light[z]
        around = light[max(z - 1, 0)] + light[min(z + 1, light.shape[0] - 1)]
        for axis in range(2):
            around = around + np.roll(plane, 1, axis) + np.roll(plane, -1, axis)
        found.append(np.abs(plane - around / 6.0)[inside[z]])
    difference = np.concatenate(found)
    if not difference.size:
        return 0.0
    return float(np.median(difference[:: max(1, difference.size // 500_000)])) / 0.6745 / np.sqrt(7.0 / 6.0)


def block_cells(shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64], side_mm: float) -> NDArray[np.int32]:
    """Cut a grid into blocks of about `side_mm`: block number of each voxel, (z, y, x) int32."""
    axes = [np.arange(n) // max(1, round(side_mm / s)) for n, s in zip(shape, spacing_zyx_mm, strict=True)]
    counts = [int(a[-1]) + 1 for a in axes]
    z, y, x = axes
    return ((z[:, None, None] * counts[1] + y[:, None]) * counts[2] + x).astype(np.int32)


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
        Mean absolute difference of brightness across those faces.
    """

    edges: NDArray[np.int32]
    faces: NDArray[np.int32]
    step: NDArray[np.float32]


def find_contacts(labels: NDArray[np.int32], light: NDArray[np.float32], n: int) -> Contacts:
    """Find the pairs of touching supervoxels, ids 0 .. n - 1 in `labels` (z, y, x)."""
    pairs, steps = [], []
    for axis in range(3):
        check_wanted()
        rolled, bright = np.moveaxis(labels, axis, 0), np.moveaxis(light, axis, 0)
        touch = rolled[1:] != rolled[:-1]
        ends = np.stack([rolled[1:][touch], rolled[:-1][touch]], axis=1)
        ends.sort(axis=1)
        pairs.append(ends)
        steps.append(np.abs(bright[1:][touch] - bright[:-1][touch]))
    check_wanted()
    low, high = np.concatenate(pairs).T
    faces = sparse.coo_matrix((np.ones(len(low), np.int32), (low, high)), shape=(n, n)).tocsr()
    step = sparse.coo_matrix((np.concatenate(steps).astype(np.float64), (low, high)), shape=(n, n)).tocsr()
    faces.sum_duplicates()
    step.sum_duplicates()
    found = faces.tocoo()
    edges = np.stack([found.row, found.col], axis=1).astype(np.int32)
    return Contacts(edges, found.data.astype(np.int32), (step.tocoo().data / found.data).astype(np.float32))


def snap_edges(labels: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Move the pieces' edges voxel by voxel: each edge voxel goes to the touching piece that suits it best.

    A piece suits a voxel by how near its mean brightness is, in units of the noise, and by how many of the voxel's six
    neighbours it has. Pieces may fall apart by it; voxels never leave the body. Slab by slab, so that it takes little
    memory.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Pieces from 0, none across the body's edge.
    light : (z, y, x) float32 array
        Brightness.
    inside : (z, y, x) bool array
        The body.
    """
    n = int(labels.max()) + 1
    noise = max(noise_level(light, inside), 0.01)
    body = np.zeros(n, bool)
    for begin in range(0, len(labels), _SLAB):
        part = slice(begin, begin + _SLAB)
        body[labels[part][inside[part]]] = True
    for _ in range(_SNAP_ROUNDS):
        sizes, mean = _sizes_and_means(labels, light, n)
        pieces = _Pieces(mean.astype(np.float32), sizes <= _NEVER_EATEN_VOX, body, noise)
        moved = np.empty_like(labels)
        for begin in range(0, len(labels), _SLAB):
            check_wanted()
            end = min(begin + _SLAB, len(labels))
            planes = labels[max(begin - 1, 0) : end + 1]
            padded = np.pad(planes, [(begin == 0, end == len(labels)), (1, 1), (1, 1)], mode="edge")
            moved[begin:end] = _snap_slab(padded, light[begin:end], inside[begin:end], pieces)
        labels = moved
    return labels


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """What is known of the pieces while their edges move."""

    mean: NDArray[np.float32]
    fixed: NDArray[np.bool_]
    body: NDArray[np.bool_]
    noise: float


def _snap_slab(padded: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_], pieces: _Pieces) -> NDArray[np.int32]:
    """Move the edges in a slab that has one more voxel on every side."""
    z, y, x = light.shape
    labels = padded[1:-1, 1:-1, 1:-1].copy()
    beside = [padded[1 + dz : z + 1 + dz, 1 + dy : y + 1 + dy, 1 + dx : x + 1 + dx] for dz, dy, dx in _FACES]
    edge = np.zeros(light.shape, bool)
    for other in beside:
        edge |= other != labels
    edge &= inside
    value, own = light[edge], labels[edge]
    around = [other[edge] for other in beside]

    def cost(piece: NDArray[np.int32]) -> NDArray[np.float32]:
        company = np.zeros(len(piece), np.float32)
        for other in around:
            company += other == piece
        off = (value - pieces.mean[piece]) / np.float32(pieces.noise)
        found: NDArray[np.float32] = np.float32(0.5) * off * off - np.float32(_SNAP_SMOOTHNESS) * company
        return found

    best, least = own.copy(), cost(own) - np.float32(_SNAP_INERTIA)
    least[pieces.fixed[own]] = -np.inf
    least[~pieces.body[own]] = np.inf
    for other in around:
        asked = cost(other)
        better = (asked < least) & pieces.body[other]
        best[better], least[better] = other[better], asked[better]
    labels[edge] = best
    return labels


def _sizes_and_means(labels: NDArray[np.int32], light: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the voxels of each piece and average its brightness, slab by slab."""
    sizes, sums = np.zeros(n, np.int64), np.zeros(n)
    for begin in range(0, len(labels), _SLAB):
        flat = labels[begin : begin + _SLAB].ravel()
        sizes += np.bincount(flat, minlength=n)
        sums += np.bincount(flat, weights=light[begin : begin + _SLAB].ravel(), minlength=n)
    return sizes, sums / np.maximum(sizes, 1)


def join_crumbs(labels: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_], smallest_vox: int) -> NDArray[np.int32]:
    """Join small pieces to the touching piece of most like brightness, on the same side of the body's edge.

    Joined are single voxels, and pieces under `smallest_vox` voxels that do not stand out: the smaller a piece, the more
    it has to differ from every neighbour to be kept, so that noise goes and thin bright or dark strands stay.
    """
    n = int(labels.max()) + 1
    sizes, mean = _sizes_and_means(labels, light, n)
    body = np.zeros(n, bool)
    body[labels[inside]] = True
    edges, table = touching_pairs(labels, n)[0], np.arange(n, dtype=np.int32)
    for _ in range(_CRUMB_ROUNDS):
        check_wanted()
        if sizes.min() >= smallest_vox:
            break
        both = np.concatenate([edges, edges[:, ::-1]])
        both = both[(sizes[both[:, 0]] < smallest_vox) & (body[both[:, 0]] == body[both[:, 1]])]
        gap = np.abs(mean[both[:, 0]] - mean[both[:, 1]])
        order = np.lexsort((-sizes[both[:, 1]], gap, both[:, 0]))
        source, first = np.unique(both[order, 0], return_index=True)
        chosen, gap = both[order[first], 1], gap[order[first]]
        plain = (sizes[source] < 2) | (gap * np.sqrt(sizes[source]) < _STANDS_OUT)
        graph = sparse.coo_matrix((np.ones(plain.sum()), (source[plain], chosen[plain])), shape=(len(sizes), len(sizes)))
        count, joined = sparse.csgraph.connected_components(graph, directed=False)
        weight = np.bincount(joined, weights=sizes, minlength=count)
        mean = np.bincount(joined, weights=sizes * mean, minlength=count) / weight
        sizes, body = weight.astype(np.int64), np.bincount(joined, weights=body, minlength=count) > 0
        table, edges = joined.astype(np.int32)[table], joined.astype(np.int32)[edges]
        edges = unique_pairs(edges[edges[:, 0] != edges[:, 1]], count)[0]
    return table[labels]
