"""The cut that a proposal opens on: each branch of a tree at the level where it is stable.

The nodes of a cut are chosen by dynamic programming over the tree. The tree is then
ordered so that its uniform cut into as many regions is that cut, coarser cuts join its
regions and finer ones split them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.hierarchy.tree import Hierarchy

_SPLITS = 400
"""Highest merges of a tree that may separate regions of a stable cut."""
_SIZE_POWER = 0.5
"""Power of a node's share of the body that its lifetime counts with.

At 1, as for points (Campello et al., 2013), few large regions outweigh every organ.
"""
_COUNT_POWER = 0.3
"""Power of the number of regions that their summed stability is divided by."""
_LEAST_HEIGHT = 1e-9
"""Heights below this share of the highest count as this much."""
STABLE_REGIONS = (50, 150)
"""Fewest and most regions of a stable cut."""
STABLE_TISSUES = (16, 24)
"""Fewest and most tissues of a stable cut."""


@dataclass(frozen=True, slots=True, eq=False)
class StableCut:
    """A tree, and the number of regions at which it is cut into its stable nodes."""

    tree: Hierarchy
    n: int


def stable_count(tree: Hierarchy, fewest: int, most: int) -> int:
    """Return the number of regions in a range at which a tree is most persistent.

    The persistence of a cut is the log ratio of the heights of the merge above it and
    the split below it, times the square root of the number; see `Hierarchy.marks`.
    """
    high = min(most, tree.max_regions - 1)
    low = min(max(fewest, 2), high)
    if low < 2:
        return tree.max_regions
    n = np.arange(low, high + 1)
    heights = _heights(tree)
    stands = np.log(heights[n - 2] / heights[n - 1]) * np.sqrt(n)
    return int(n[int(stands.argmax())])


def stable_cut(
    tree: Hierarchy, sizes: NDArray[np.integer], fewest: int, most: int
) -> StableCut:
    """Choose the nodes that live longest, and order the tree by them.

    A node lives from the height of the merge that joins it to that of its own highest
    split. The sum over the chosen nodes of the log ratio of the two, times a power of
    the node's share of the body, is the greatest that as many nodes can have.

    Parameters
    ----------
    tree : Hierarchy
        The tree.
    sizes : (n_supervoxels,) integer array
        Voxels of each supervoxel.
    fewest, most : int
        Range of the number of nodes.

    Notes
    -----
    Framework for optimal selection of clusters (Campello, Moulavi, Zimek and Sander,
    2013), with lifetimes on a log scale and a bound on the number of clusters.
    """
    nodes = _Nodes.of(tree, sizes)
    most = min(most, len(nodes.split_of) + 1)
    if most < 2:
        return StableCut(tree, tree.max_regions)
    best = _best_sums(nodes, _stability(tree, nodes), most)
    sums, counts = best[0].sums, np.arange(len(best[0].sums))
    usable = (counts >= min(fewest, most)) & np.isfinite(sums)
    worth = np.where(usable, sums / np.maximum(counts, 1) ** _COUNT_POWER, -np.inf)
    n = int(worth.argmax())
    return StableCut(_ordered(tree, _chosen_splits(nodes, best, n)), n)


def _heights(tree: Hierarchy) -> NDArray[np.float64]:
    heights = tree.heights.astype(np.float64)
    top = max(float(heights[np.isfinite(heights)].max(initial=0.0)), 1e-30)
    return np.clip(heights, _LEAST_HEIGHT * top, top)


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """The upper nodes of a tree, parents before children.

    Parameters
    ----------
    spans : list of (int, int)
        Begin and end in the row of leaves.
    parents : list of int
        Node that each one is split from, -1 for the root.
    children : dict of int to (int, int)
        The two parts of each node that is split.
    split_of : dict of int to int
        Rank of the break that splits each node.
    shares : (n,) float64 array
        Share of the body in each node.
    """

    spans: list[tuple[int, int]]
    parents: list[int]
    children: dict[int, tuple[int, int]]
    split_of: dict[int, int]
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, tree: Hierarchy, sizes: NDArray[np.integer]) -> _Nodes:
        """Return the nodes that the highest breaks of a tree make."""
        begin, end = tree.n_background, tree.n_supervoxels
        spans, parents = [(begin, end)], [-1]
        children: dict[int, tuple[int, int]] = {}
        split_of: dict[int, int] = {}
        starts, node_at = [begin], {begin: 0}
        for rank, place in enumerate(tree.breaks[:_SPLITS].tolist()):
            index = bisect_right(starts, place) - 1
            node = node_at[starts[index]]
            first, last = spans[node]
            left, right = len(spans), len(spans) + 1
            spans += [(first, place), (place, last)]
            parents += [node, node]
            children[node], split_of[node] = (left, right), rank
            node_at[first], node_at[place] = left, right
            starts.insert(index + 1, place)
        before = np.concatenate([[0], np.cumsum(sizes[tree.leaf_order])])
        held = [float(before[last] - before[first]) for first, last in spans]
        return cls(
            spans, parents, children, split_of, np.array(held) / max(held[0], 1.0)
        )


def _stability(tree: Hierarchy, nodes: _Nodes) -> NDArray[np.float64]:
    """Return the weighted lifetime of every node, (n,) float64."""
    heights = _heights(tree)
    rank = np.full(tree.n_supervoxels + 1, len(heights), np.int64)
    rank[tree.breaks] = np.arange(len(heights))
    ends = np.append(heights, heights[-1])
    lives = []
    for (first, last), parent in zip(nodes.spans, nodes.parents, strict=True):
        death = ends[int(rank[first + 1 : last].min(initial=len(heights)))]
        birth = heights[nodes.split_of[parent]] if parent >= 0 else death
        lives.append(np.log(max(birth, death) / death))
    return np.array(lives) * nodes.shares**_SIZE_POWER


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Greatest stability of 0, 1, ... nodes under one, and how many lie in its left part."""

    sums: NDArray[np.float64]
    left: NDArray[np.int64]


def _best_sums(
    nodes: _Nodes, stability: NDArray[np.float64], most: int
) -> dict[int, _Sums]:
    best: dict[int, _Sums] = {}
    for node in range(len(nodes.spans) - 1, -1, -1):
        alone = np.array([-np.inf, stability[node]])
        if node not in nodes.children:
            best[node] = _Sums(alone, np.zeros(2, np.int64))
            continue
        left, right = (best[child].sums for child in nodes.children[node])
        length = min(len(left) + len(right) - 1, most + 1)
        sums, chosen = np.full(length, -np.inf), np.zeros(length, np.int64)
        for count in range(1, min(len(left), length - 1)):
            total = left[count] + right[1 : length - count]
            place = slice(count + 1, count + 1 + len(total))
            better = total > sums[place]
            sums[place] = np.where(better, total, sums[place])
            chosen[place] = np.where(better, count, chosen[place])
        sums[1] = stability[node]
        best[node] = _Sums(sums, chosen)
    return best


def _chosen_splits(nodes: _Nodes, best: dict[int, _Sums], n: int) -> list[int]:
    """Return the ranks of the breaks that separate the chosen nodes, in order."""
    splits, pending = [], [(0, n)]
    while pending:
        node, count = pending.pop()
        if count < 2:
            continue
        splits.append(nodes.split_of[node])
        left, right = nodes.children[node]
        in_left = int(best[node].left[count])
        pending += [(left, in_left), (right, count - in_left)]
    return sorted(splits)


def _ordered(tree: Hierarchy, splits: list[int]) -> Hierarchy:
    """Return the tree with some breaks first; later ones are lowered below them."""
    first = np.zeros(len(tree.breaks), bool)
    first[splits] = True
    order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])
    return replace(
        tree,
        breaks=tree.breaks[order],
        heights=np.minimum.accumulate(tree.heights[order]),
    )
