"""Refine supervoxel boundaries voxel by voxel, and merge tiny supervoxels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from skimage.measure import label as label_parts

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.parallel import each
from napari_strata.proposal.hierarchy.region_merging import (
    renamed_edges,
    touching_pairs,
)

_STANDS_OUT = 0.1
"""Intensity difference times root of size above which a small supervoxel is kept."""
_SNAP_ROUNDS, _SNAP_SMOOTHNESS, _SNAP_INERTIA = 2, 0.4, 0.01
"""Passes over the boundaries; reward per face neighbour in the same supervoxel; least gain.

Reward and gain are in units of the negative log-likelihood.
"""
_PROTECTED_VOX = 8
"""Supervoxels of at most this many voxels lose no voxel to a neighbour."""
CRUMB_VOX, _CRUMB_ROUNDS = 6, 3
"""Supervoxels under this many voxels may be merged, in this many passes."""
_SLAB = 8
"""Planes processed at a time, so that they stay in the processor's cache."""
_SUMMED = 32
"""Planes whose sums are made at a time."""


def refine_boundaries(
    supervoxels: NDArray[np.int32],
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    crumb_vox: int = CRUMB_VOX,
) -> NDArray[np.int32]:
    """Move supervoxel boundaries to intensity edges, split parts, and merge tiny ones.

    Parameters
    ----------
    supervoxels : (z, y, x) int32 array
        Supervoxels from 0; those that cross the body's edge are cut there.
    intensity : (z, y, x) float32 array
        Intensity.
    inside : (z, y, x) bool array
        The body.
    crumb_vox : int
        Supervoxels smaller than this are merged into a neighbour.

    Returns
    -------
    (z, y, x) int32 array
        Supervoxels as `make_supervoxels` returns them.
    """
    raise_if_cancelled()
    snapped = snap_edges(supervoxels * np.int32(2) + inside, intensity, inside)
    parts = connected_parts(snapped)
    raise_if_cancelled()
    return join_crumbs(parts, intensity, inside, crumb_vox)


def connected_parts(supervoxels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Label the parts that are connected by faces, edges or corners, from 0.

    Parts are numbered in the order of their first voxels. Two halves are labelled at once
    and joined where they meet.
    """
    middle = len(supervoxels) // 2
    # scikit-image numbers the parts of flat arrays in another order
    if min(middle, *supervoxels.shape) < 2:
        return _parts_of(supervoxels)
    front, back = each(_parts_of, (supervoxels[:middle], supervoxels[middle:]))
    back += front.max() + 1
    n = int(back.max()) + 1
    pairs = _pairs_across(
        supervoxels[middle - 1], supervoxels[middle], front[-1], back[0]
    )
    links = sparse.coo_matrix(
        (np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)
    )
    # they are numbered in the order of their first members
    joined = sparse.csgraph.connected_components(links, directed=False)[1]
    table = joined.astype(np.int32)
    return np.concatenate(each(table.take, (front, back)))


def _parts_of(supervoxels: NDArray[np.int32]) -> NDArray[np.int32]:
    parts: NDArray[np.int32] = label_parts(
        supervoxels, connectivity=3, background=-1
    ).astype(np.int32)
    parts -= 1
    return parts


def _pairs_across(
    own: NDArray[np.int32],
    next_own: NDArray[np.int32],
    part: NDArray[np.int32],
    next_part: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Return the parts of two planes that touch and are of one supervoxel, (k, 2)."""
    found = []
    y, x = own.shape
    for dy, dx in product((-1, 0, 1), repeat=2):
        here = np.s_[max(0, -dy) : y - max(0, dy), max(0, -dx) : x - max(0, dx)]
        there = np.s_[max(0, dy) : y - max(0, -dy), max(0, dx) : x - max(0, -dx)]
        same = own[here] == next_own[there]
        found.append(np.stack([part[here][same], next_part[there][same]], axis=1))
    return np.concatenate(found)


def noise_level(intensity: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of the noise.

    Each voxel is compared with the mean of its six neighbours, in every third axial
    plane. The median keeps tissue edges out. On noise alone the difference has a
    variance of 7/6 of the noise's.
    """
    found = []
    for z in range(0, intensity.shape[0], 3):
        plane = intensity[z]
        around = (
            intensity[max(z - 1, 0)] + intensity[min(z + 1, intensity.shape[0] - 1)]
        )
        for axis in range(2):
            around = around + np.roll(plane, 1, axis) + np.roll(plane, -1, axis)
        found.append(np.abs(plane - around / 6.0)[inside[z]])
    difference = np.concatenate(found)
    if not difference.size:
        return 0.0
    return (
        float(np.median(difference[:: max(1, difference.size // 500_000)]))
        / 0.6745
        / np.sqrt(7.0 / 6.0)
    )


def snap_edges(
    labels: NDArray[np.int32], intensity: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Move each boundary voxel to the touching supervoxel of the least cost.

    The cost is half the squared difference from the supervoxel's mean intensity, in
    units of the noise, less a reward for each of the six neighbours in that supervoxel.
    Supervoxels may become disconnected; voxels never leave the body. Slabs are processed
    one after another to save memory.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Supervoxels from 0, none across the body's edge.
    intensity : (z, y, x) float32 array
        Intensity.
    inside : (z, y, x) bool array
        The body.
    """
    n = int(labels.max()) + 1
    noise = max(noise_level(intensity, inside), 0.01)
    body = np.zeros(n, bool)
    for begin in range(0, len(labels), _SLAB):
        part = slice(begin, begin + _SLAB)
        body[labels[part][inside[part]]] = True
    for _ in range(_SNAP_ROUNDS):
        sizes, mean = _sizes_and_means(labels, intensity, n)
        supervoxels = _SupervoxelSums(
            mean.astype(np.float32), sizes <= _PROTECTED_VOX, body, noise
        )
        slabs = each(
            partial(_snap_planes, labels, intensity, inside, supervoxels),
            range(0, len(labels), _SLAB),
        )
        labels = np.concatenate(slabs)
    return labels


def _snap_planes(
    labels: NDArray[np.int32],
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    supervoxels: _SupervoxelSums,
    begin: int,
) -> NDArray[np.int32]:
    """Move the boundaries in the slab that begins at a plane."""
    end = min(begin + _SLAB, len(labels))
    planes = labels[max(begin - 1, 0) : end + 1]
    padded = np.pad(
        planes, [(begin == 0, end == len(labels)), (1, 1), (1, 1)], mode="edge"
    )
    return _snap_slab(padded, intensity[begin:end], inside[begin:end], supervoxels)


@dataclass(frozen=True, slots=True, eq=False)
class _SupervoxelSums:
    """Statistics of the supervoxels during one pass over their boundaries."""

    mean: NDArray[np.float32]
    fixed: NDArray[np.bool_]
    body: NDArray[np.bool_]
    noise: float


def _snap_slab(
    padded: NDArray[np.int32],
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    supervoxels: _SupervoxelSums,
) -> NDArray[np.int32]:
    """Move the boundaries in a slab; `padded` has one more voxel on every side."""
    edge = np.zeros(padded.shape, bool)
    core = (slice(1, -1),) * 3
    edge[core] = _is_boundary(padded) & inside
    at, flat = np.flatnonzero(edge), padded.reshape(-1)
    value, own = intensity[edge[core]], flat.take(at)
    steps = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
    around = [flat.take(at + way * step) for step in steps for way in (1, -1)]

    def cost(supervoxel: NDArray[np.int32]) -> NDArray[np.float32]:
        same = np.zeros(len(supervoxel), np.uint8)
        for other in around:
            same += other == supervoxel
        off = value - supervoxels.mean.take(supervoxel)
        off /= np.float32(supervoxels.noise)
        energy: NDArray[np.float32] = np.float32(0.5) * off
        energy *= off
        energy -= np.float32(_SNAP_SMOOTHNESS) * same
        return energy

    best, least = own.copy(), cost(own) - np.float32(_SNAP_INERTIA)
    least[supervoxels.fixed.take(own)] = -np.inf
    least[~supervoxels.body.take(own)] = np.inf
    for other in around:
        candidate = cost(other)
        better = np.flatnonzero((candidate < least) & supervoxels.body.take(other))
        best[better], least[better] = other.take(better), candidate.take(better)
    labels = padded[core].copy()
    labels[edge[core]] = best
    return labels


def _is_boundary(padded: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which voxels inside `padded` have a face neighbour in another supervoxel."""
    edge = np.zeros([n - 2 for n in padded.shape], bool)
    for axis in range(3):
        core = tuple(slice(None) if a == axis else slice(1, -1) for a in range(3))
        lines = np.moveaxis(padded[core], axis, 0)
        differ, out = lines[1:] != lines[:-1], np.moveaxis(edge, axis, 0)
        out |= differ[1:]
        out |= differ[:-1]
    return edge


def _sizes_and_means(
    labels: NDArray[np.int32], intensity: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the voxels of each supervoxel and average its intensity, slab by slab."""

    def of_slab(begin: int) -> tuple[NDArray[Any], NDArray[Any]]:
        flat = labels[begin : begin + _SUMMED].ravel()
        weights = intensity[begin : begin + _SUMMED].ravel()
        return (
            np.bincount(flat, minlength=n),
            np.asarray(np.bincount(flat, weights=weights, minlength=n), np.float64),
        )

    sizes, sums = np.zeros(n, np.int64), np.zeros(n)
    for counted, summed in each(of_slab, range(0, len(labels), _SUMMED)):
        sizes += counted
        sums += summed
    return sizes, sums / np.maximum(sizes, 1)


def join_crumbs(
    labels: NDArray[np.int32],
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    smallest_vox: int,
) -> NDArray[np.int32]:
    """Merge small supervoxels into the touching one of the most similar intensity.

    Supervoxels are never merged across the body's edge. Single voxels are merged, and
    supervoxels under `smallest_vox` voxels that do not stand out. The smaller a
    supervoxel, the more it must differ from every neighbour to be kept, so that noise
    disappears and thin bright or dark strands stay.
    """
    n = int(labels.max()) + 1
    sizes, mean = _sizes_and_means(labels, intensity, n)
    body = np.zeros(n, bool)
    body[labels[inside]] = True
    edges, table = touching_pairs(labels), np.arange(n, dtype=np.int32)
    for _ in range(_CRUMB_ROUNDS):
        if sizes.min() >= smallest_vox:
            break
        both = np.concatenate([edges, edges[:, ::-1]])
        both = both[
            (sizes[both[:, 0]] < smallest_vox) & (body[both[:, 0]] == body[both[:, 1]])
        ]
        gap = np.abs(mean[both[:, 0]] - mean[both[:, 1]])
        order = np.lexsort((-sizes[both[:, 1]], gap, both[:, 0]))
        source, first = np.unique(both[order, 0], return_index=True)
        chosen, gap = both[order[first], 1], gap[order[first]]
        plain = (sizes[source] < 2) | (gap * np.sqrt(sizes[source]) < _STANDS_OUT)
        graph = sparse.coo_matrix(
            (np.ones(plain.sum()), (source[plain], chosen[plain])),
            shape=(len(sizes), len(sizes)),
        )
        count, joined = sparse.csgraph.connected_components(graph, directed=False)
        weight = np.bincount(joined, weights=sizes, minlength=count)
        mean = np.bincount(joined, weights=sizes * mean, minlength=count) / weight
        sizes, body = (
            weight.astype(np.int64),
            np.bincount(joined, weights=body, minlength=count) > 0,
        )
        joined = joined.astype(np.int32)
        table, edges = joined.take(table), renamed_edges(edges, joined)
    return table[labels]
