"""The best that one node of a merge tree does for each structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.proposal.overlap import Overlap
from numpy.typing import NDArray

from napari_strata.proposal.hierarchy.tree import Hierarchy


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Every node of a tree's foreground.

    As the run [start, stop) of the leaf row that it covers: two (node,) int64 arrays.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def tree_runs(tree: Hierarchy) -> Runs:
    """Find the runs of all leaves and merges of a tree's foreground.

    A merge reaches from the nearest higher break on its left to the nearest higher one
    on its right.
    """
    order = np.argsort(tree.breaks)
    places, ranks = tree.breaks[order].tolist(), order.tolist()
    left, right = [tree.n_background] * len(places), [tree.n_supervoxels] * len(places)
    open_breaks: list[int] = []
    for number, (place, rank) in enumerate(zip(places, ranks, strict=True)):
        while open_breaks and ranks[open_breaks[-1]] > rank:
            right[open_breaks.pop()] = place
        if open_breaks:
            left[number] = places[open_breaks[-1]]
        open_breaks.append(number)
    leaves = np.arange(tree.n_background, tree.n_supervoxels)
    return Runs(
        np.concatenate([leaves, left]).astype(np.int64),
        np.concatenate([leaves + 1, right]).astype(np.int64),
    )


def best_node_dice(tree: Hierarchy, found: Overlap) -> NDArray[np.float64]:
    """Give, for each class, the Dice of the tree's node that fits it best, (class,).

    Voxels of a class that lie in background pieces are out of every node's reach; what
    is not scored counts nowhere.
    """
    before = np.zeros((tree.n_supervoxels + 1, found.counts.shape[1]), np.int64)
    np.cumsum(found.counts[tree.leaf_order], axis=0, out=before[1:])
    runs = tree_runs(tree)
    held = before[runs.stop] - before[runs.start]
    dice = 2 * held[:, :-1] / (held.sum(axis=1, keepdims=True) + found.class_vox)
    return dice.max(axis=0, initial=0.0)
