"""Bottom-up merging: voxels with their most similar neighbour, then Ward's criterion.

Unlike grid cells of a fixed size, merged supervoxels stay on one side of an edge even in
thin tissue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.parallel import each, each_if

_FEW_PAIRS = 0.02
"""Pairs merged per round, as a share of the supervoxels, below which rounds end."""
_FINE_SHARE = 1 / 8
"""Fine level: share of supervoxels that are left when those of one tissue have merged."""

_ID_BITS = 32
"""Bits of a supervoxel's id in the number that stands for a pair."""
_EDGES_AT_ONCE = 65_536
"""Edges whose costs are computed at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class SupervoxelGraph:
    """Supervoxels with their vectors, and which of them touch.

    Parameters
    ----------
    sizes : (n,) float32 array
        Voxels of each supervoxel.
    vectors : (n, d) float32 array
        Vectors whose squared distances are compared.
    edges : (e, 2) int32 array
        Touching pairs, each once.
    """

    sizes: NDArray[np.float32]
    vectors: NDArray[np.float32]
    edges: NDArray[np.int32]


def most_alike_neighbors(
    channels: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Merge each voxel of the body with its most similar face neighbour.

    This is the first round of Boruvka's minimum spanning forest. It leaves about four
    voxels per supervoxel.

    Parameters
    ----------
    channels : (channel, z, y, x) float32 array
        Values by which voxels are compared.
    inside : (z, y, x) bool array
        The body.

    Returns
    -------
    (z, y, x) int32 array
        Supervoxel 0 .. n - 1 of each voxel, n outside the body.
    """
    shape = inside.shape
    n = int(inside.sum())
    number = np.zeros(shape, np.int32)
    number[inside] = np.arange(n, dtype=np.int32)
    nearest, chosen = np.full(shape, np.inf, np.float32), number.copy()
    for axis in range(3):
        front = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        back = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        squares = np.zeros(number[front].shape, np.float32)
        for channel in channels:
            step = channel[front] - channel[back]
            step *= step
            squares += step
        squares[~(inside[front] & inside[back])] = np.inf
        for own, other in ((front, back), (back, front)):
            closer = squares < nearest[own]
            np.copyto(nearest[own], squares, where=closer)
            np.copyto(chosen[own], number[other], where=closer)
    del nearest, squares, closer
    links = sparse.csr_matrix(
        (np.ones(n, np.int8), chosen[inside], np.arange(n + 1, dtype=np.int32)),
        shape=(n, n),
    )
    del number, chosen
    count, supervoxel = sparse.csgraph.connected_components(links, directed=False)
    del links
    supervoxels = np.full(shape, count, np.int32)
    supervoxels[inside] = supervoxel
    return supervoxels


def touching_pairs(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Find the pairs of supervoxels that share voxel faces.

    Faces are gone through axis by axis to save memory; a large scan has tens of millions.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Supervoxel of each voxel, from 0.

    Returns
    -------
    (e, 2) int32 array
        Pairs, smaller id first, sorted.
    """
    flat = labels.reshape(-1)

    def across(axis: int) -> NDArray[np.int64]:
        lower, upper = facing_voxels(labels, axis)
        return _sorted_once(pair_codes(flat.take(lower), flat.take(upper)))

    found = each(across, range(3))
    return pairs_of(_sorted_once(np.concatenate(found)))


def facing_voxels(
    labels: NDArray[np.int32], axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the voxel faces across an axis that separate two supervoxels.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Supervoxels, contiguous.
    axis : int
        Axis that the faces lie across.

    Returns
    -------
    (m,) int64 array
        Flat index of the voxel on the lower side of each face.
    (m,) int64 array
        That on its upper side.
    """
    flat = labels.reshape(-1)
    step = math.prod(labels.shape[axis + 1 :])
    differ = np.zeros(labels.shape, bool)
    np.not_equal(flat[step:], flat[:-step], out=differ.reshape(-1)[: flat.size - step])
    differ[(slice(None),) * axis + (-1,)] = False  # its next voxel is in another row
    lower = np.flatnonzero(differ)
    return lower, lower + step


def unique_pairs(
    first: NDArray[np.int32], second: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return each unordered pair once, smaller id first, sorted: (e, 2)."""
    return pairs_of(_sorted_once(pair_codes(first, second)))


def _sorted_once(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each code once, in order; `codes` is sorted in place."""
    codes.sort()
    return codes[run_starts(codes)]


def pair_codes(
    first: NDArray[np.int32], second: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return one number per unordered pair of ids; they sort as the pairs do."""
    codes = np.minimum(first, second).astype(np.int64)
    codes <<= _ID_BITS
    codes |= np.maximum(first, second)
    return codes


def pairs_of(codes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the pairs (e, 2) that `pair_codes` made numbers of.

    All first ids lie beside one another in memory, which is what merging reads.
    """
    pairs = np.empty((len(codes), 2), np.int32, order="F")
    pairs[:, 0] = codes >> _ID_BITS
    pairs[:, 1] = codes & ((1 << _ID_BITS) - 1)
    return pairs


def run_starts(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal values begins."""
    changes = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    return np.flatnonzero(changes)


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """Supervoxels after merging.

    Parameters
    ----------
    supervoxel : (n,) int32 array
        The merged supervoxel of each supervoxel, from 0.
    graph : SupervoxelGraph
        The merged supervoxels.
    """

    supervoxel: NDArray[np.int32]
    graph: SupervoxelGraph


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Supervoxels after merging in pairs, and the merges in order.

    Parameters
    ----------
    rows : (m, 2) int64 array
        Merges in order; nodes 0 .. n - 1 are the supervoxels, and row k makes node n +
        k of two earlier ones.
    heights : (m,) float64 array
        Cost of each merge, at least that of the merges below it.
    tops : (n - m,) int64 array
        Node of each supervoxel that is left.
    graph : SupervoxelGraph
        The supervoxels that are left.
    floor : float
        Height that no later merge is below: that of the merges inside classes.
    """

    rows: NDArray[np.int64]
    heights: NDArray[np.float64]
    tops: NDArray[np.int64]
    graph: SupervoxelGraph
    floor: float = 0.0


def merge_in_pairs(
    graph: SupervoxelGraph, target: int, classes: NDArray[np.integer] | None = None
) -> Forest:
    """Merge as `merge_to` does, in disjoint pairs, and keep the tree.

    Merging stops once a round finds few pairs. This happens if many supervoxels are most
    similar to the same one, which can merge with only one of them per round.

    Parameters
    ----------
    graph : SupervoxelGraph
        What is merged.
    target : int
        Number of supervoxels at which merging ends.
    classes : (n,) integer array, optional
        Supervoxels of different classes merge only when an eighth is left, or few
        pairs of equal classes, and higher than all that merged inside classes.
    """
    n = made = len(graph.sizes)
    tops, below = np.arange(n, dtype=np.int64), np.zeros(n)
    rows, heights = [np.empty((0, 2), np.int64)], [np.empty(0)]
    floor, own = 0.0, None if classes is None else np.asarray(classes)
    goal = target if own is None else int(n * _FINE_SHARE)
    while len(graph.sizes) > goal and len(graph.edges):
        edges = graph.edges
        if own is not None:
            edges = edges[own[edges[:, 0]] == own[edges[:, 1]]]
        pairs, cost = _cheapest_pairs(
            graph.sizes, graph.vectors, edges, most=len(graph.sizes) - goal
        )
        alone = _disjoint(pairs, cost, len(graph.sizes))
        pairs, cost = pairs[alone], cost[alone]
        rows.append(tops[pairs])
        least = np.full(len(pairs), floor)
        heights.append(np.maximum(least, np.maximum(cost, below[pairs].max(axis=1))))
        graph, left = _join(graph, pairs)
        tops[pairs[:, 0]], below[pairs[:, 0]] = (
            made + np.arange(len(pairs)),
            heights[-1],
        )
        tops, below, made = tops[left], below[left], made + len(pairs)
        if own is not None:
            own = own[left]
        if len(pairs) < _FEW_PAIRS * len(left):
            if own is None:
                break
            own, floor, goal = None, float(below.max(initial=0.0)), target
    if own is not None:
        floor = float(below.max(initial=0.0))
    return Forest(np.concatenate(rows), np.concatenate(heights), tops, graph, floor)


def _disjoint(
    pairs: NDArray[np.int32], cost: NDArray[np.float32], n: int
) -> NDArray[np.int64]:
    """Choose pairs that share no supervoxel, the cheapest first.

    Equal costs may pair a supervoxel twice.
    """
    order = np.argsort(cost, kind="stable")
    first, turn = np.full(n, len(pairs)), np.arange(len(pairs))
    for end in (0, 1):
        np.minimum.at(first, pairs[order, end], turn)
    return order[(first[pairs[order]] == turn[:, None]).all(axis=1)]


def _join(
    graph: SupervoxelGraph, pairs: NDArray[np.int32]
) -> tuple[SupervoxelGraph, NDArray[np.bool_]]:
    """Merge disjoint pairs, each into its first supervoxel.

    Returns
    -------
    SupervoxelGraph
        The remaining supervoxels.
    (n,) bool array
        Which supervoxels remain.
    """
    one, other = pairs.T
    sizes, vectors = graph.sizes.copy(), graph.vectors.copy()
    sizes[one] += graph.sizes[other]
    share = (graph.sizes[other] / sizes[one])[:, None]
    vectors[one] += share * (graph.vectors[other] - graph.vectors[one])
    left = np.ones(len(sizes), bool)
    left[other] = False
    number = (np.cumsum(left) - 1).astype(np.int32)
    number[other] = number[one]
    return SupervoxelGraph(
        sizes[left], vectors[left], renamed_edges(graph.edges, number)
    ), left


def renamed_edges(
    edges: NDArray[np.int32], number: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return edges under new numbers, each once, without those inside a supervoxel."""
    first, second = each_if(len(edges) >= _EDGES_AT_ONCE, number.take, edges.T)
    apart = np.flatnonzero(first != second)
    return unique_pairs(first.take(apart), second.take(apart))


def merge_to(graph: SupervoxelGraph, target: int) -> Merged:
    """Merge touching supervoxels by Ward's criterion until at most `target` are left.

    Merging also ends if no supervoxels touch. Every round merges all pairs that are each
    other's cheapest merge; the last round, only as many as are needed. The result equals
    that of one merge at a time, except for the order of distant merges.

    Raises
    ------
    ValueError
        If a vector is not finite.

    Notes
    -----
    Ward, Hierarchical Grouping to Optimize an Objective Function, 1963; reciprocal
    nearest neighbours: Murtagh, 1983.
    """
    sizes, vectors, edges = graph.sizes, graph.vectors, graph.edges
    if not np.isfinite(vectors).all():
        raise ValueError(
            "Supervoxels cannot be compared: a feature is NaN or infinite."
        )
    supervoxel = np.arange(len(sizes), dtype=np.int32)
    while len(sizes) > target and len(edges):
        raise_if_cancelled()  # the prefetch thread ends here after Ctrl+C
        pairs = _cheapest_pairs(sizes, vectors, edges, most=len(sizes) - target)[0]
        n = len(sizes)
        links = sparse.coo_matrix(
            (np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)
        )
        count, merged = sparse.csgraph.connected_components(links, directed=False)
        merged = merged.astype(np.int32)
        weight = np.bincount(merged, weights=sizes, minlength=count)
        columns = [
            np.bincount(merged, weights=sizes * column, minlength=count) / weight
            for column in vectors.T
        ]
        sizes, vectors = (
            weight.astype(np.float32),
            np.stack(columns, axis=1).astype(np.float32),
        )
        supervoxel, edges = merged.take(supervoxel), renamed_edges(edges, merged)
    return Merged(supervoxel, SupervoxelGraph(sizes, vectors, edges))


def _cheapest_pairs(
    sizes: NDArray[np.float32],
    vectors: NDArray[np.float32],
    edges: NDArray[np.int32],
    *,
    most: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return edges that are the cheapest of both their ends, at most `most`, and their costs."""
    first, second = (np.ascontiguousarray(end) for end in edges.T)
    cost = np.empty(len(edges), np.float32)

    def find_costs(begin: int) -> None:
        part = slice(begin, begin + _EDGES_AT_ONCE)
        cost[part] = _merge_costs(sizes, vectors, first[part], second[part])

    each(find_costs, range(0, len(edges), _EDGES_AT_ONCE))
    cheapest = _least_at(len(sizes), first, second, cost)
    mutual = np.flatnonzero(cost <= cheapest.take(first))
    mutual = mutual[cost[mutual] <= cheapest[second[mutual]]]
    if most < len(mutual):
        mutual = np.sort(mutual[np.argsort(cost[mutual], kind="stable")[:most]])
    return edges[mutual], cost[mutual]


def _least_at(
    n: int,
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    cost: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the least cost of an edge at each of n supervoxels."""

    def of_end(end: NDArray[np.int32]) -> NDArray[np.float32]:
        least = np.full(n, np.inf, np.float32)
        np.minimum.at(least, end, cost)
        return least

    return np.minimum(*each_if(len(cost) >= _EDGES_AT_ONCE, of_end, (first, second)))


def _merge_costs(
    sizes: NDArray[np.float32],
    vectors: NDArray[np.float32],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Return by how much each merge would raise the sum of squared distances, (e,)."""
    step = vectors.take(first, axis=0)
    step -= vectors.take(second, axis=0)
    one, other = sizes.take(first), sizes.take(second)
    cost: NDArray[np.float32] = np.einsum("ed,ed->e", step, step)
    cost *= one * other / (one + other)
    return cost
