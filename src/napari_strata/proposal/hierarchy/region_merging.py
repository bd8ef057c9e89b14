"""Bottom-up merging: voxels with their most similar neighbour, then Ward's criterion.

Unlike grid cells of a fixed size, merged supervoxels stay on one side of an edge even in
thin tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_strata.cancellation import raise_if_cancelled

_FEW_PAIRS = 0.02
"""Pairs merged per round, as a share of the supervoxels, below which rounds end."""


_FINE_SHARE = 1 / 8
"""Fine level: share of supervoxels that are left when those of one tissue have merged."""


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
            squares += step * step
        squares[~(inside[front] & inside[back])] = np.inf
        for own, other in ((front, back), (back, front)):
            closer = squares < nearest[own]
            nearest[own][closer] = squares[closer]
            chosen[own][closer] = number[other][closer]
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


def touching_pairs(
    labels: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the pairs of supervoxels 0 .. n - 1 that share voxel faces.

    Faces are counted axis by axis to save memory; a large scan has tens of millions.

    Returns
    -------
    (e, 2) int32 array
        Pairs, smaller id first.
    (e,) int32 array
        Number of shared faces of each pair.
    """
    counts = sparse.csr_matrix((n, n), dtype=np.int32)
    for axis in range(3):
        rolled = np.moveaxis(labels, axis, 0)
        differ = rolled[1:] != rolled[:-1]
        counts = counts + _count_pairs(rolled[1:][differ], rolled[:-1][differ], n)
    found = counts.tocoo()
    return np.stack([found.row, found.col], axis=1).astype(np.int32), found.data.astype(
        np.int32
    )


def unique_pairs(
    pairs: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return each unordered pair once, sorted (e, 2), and its number of occurrences (e,)."""
    found = _count_pairs(pairs[:, 0], pairs[:, 1], n).tocoo()
    return np.stack([found.row, found.col], axis=1).astype(np.int32), found.data.astype(
        np.int32
    )


def _count_pairs(
    first: NDArray[np.int32], second: NDArray[np.int32], n: int
) -> sparse.csr_matrix:
    """Count unordered pairs in an (n, n) matrix whose row is the smaller id."""
    ends = (np.minimum(first, second), np.maximum(first, second))
    counts = sparse.coo_matrix(
        (np.ones(len(first), np.int32), ends), shape=(n, n)
    ).tocsr()
    counts.sum_duplicates()
    return counts


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
    edges = number[graph.edges]
    edges = unique_pairs(edges[edges[:, 0] != edges[:, 1]], int(left.sum()))[0]
    return SupervoxelGraph(sizes[left], vectors[left], edges), left


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
        supervoxel, edges = merged[supervoxel], merged[edges]
        edges = unique_pairs(edges[edges[:, 0] != edges[:, 1]], count)[0]
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
    step = vectors.take(first, axis=0)
    step -= vectors.take(second, axis=0)
    one, other = sizes.take(first), sizes.take(second)
    cost = np.einsum("ed,ed->e", step, step)
    cost *= one * other / (one + other)
    cheapest = np.full(len(sizes), np.inf, np.float32)
    np.minimum.at(cheapest, first, cost)
    np.minimum.at(cheapest, second, cost)
    mutual = np.flatnonzero(cost <= cheapest.take(first))
    mutual = mutual[cost[mutual] <= cheapest[second[mutual]]]
    if most < len(mutual):
        mutual = np.sort(mutual[np.argsort(cost[mutual], kind="stable")[:most]])
    return edges[mutual], cost[mutual]
