"""Fine regions of a tree, the nodes above them, and how alike they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.reading.scan_tables import ScanTables


@dataclass(frozen=True, slots=True, eq=False)
class FineRegions:
    """A fine cut of a tree, its regions in the order of the row of leaves.

    Parameters
    ----------
    starts, stops : (f,) int64 arrays
        The leaves of each region: ``tree.leaf_order[start:stop]``.
    volumes_ml : (f,) float64 array
        Volumes.
    apart : (f, f) float32 array
        Distance of the mean vectors of any two.
    of_supervoxel : (n,) int64 array
        Region of each supervoxel, -1 outside the body.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    volumes_ml: NDArray[np.float64]
    apart: NDArray[np.float32]
    of_supervoxel: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FineNodes:
    """Nodes of a tree as runs of fine regions, [begin, end) each."""

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]


def fine_regions(tables: ScanTables, count: int) -> FineRegions:
    """Cut the tree finely, and compare all its regions.

    Parameters
    ----------
    tables : ScanTables
        The proposal's tables.
    count : int
        Number of regions, at most as many as the tree has.
    """
    tree = tables.tree
    breaks = np.sort(tree.breaks[: max(count, 1) - 1]).astype(np.int64)
    starts = np.concatenate([[tree.n_background], breaks]).astype(np.int64)
    stops = np.append(breaks, tree.n_supervoxels)
    row = tree.leaf_order[tree.n_background :]
    weight = tables.sizes_ml[row]
    volumes = np.add.reduceat(weight, starts - tree.n_background)
    weighted = tables.vectors[row] * weight[:, None]
    sums = np.add.reduceat(weighted, starts - tree.n_background, axis=0)
    of_supervoxel = np.full(tree.n_supervoxels, -1, np.int64)
    of_supervoxel[row] = np.repeat(np.arange(len(starts)), stops - starts)
    return FineRegions(
        starts,
        stops,
        volumes,
        _distances(sums / np.maximum(volumes, 1e-12)[:, None]),
        of_supervoxel,
    )


def fine_nodes(tree: Hierarchy, regions: FineRegions) -> FineNodes:
    """Return every node of a tree from its fine regions up to the root.

    A merge reaches from the nearest higher break on its left to the nearest higher one
    on its right.
    """
    n = len(regions.starts)
    highest = tree.breaks[: n - 1]
    ranks = np.argsort(highest).tolist()
    left, right = [0] * (n - 1), [n] * (n - 1)
    pending: list[int] = []
    for place, rank in enumerate(ranks):
        while pending and ranks[pending[-1]] > rank:
            right[pending.pop()] = place + 1
        if pending:
            left[place] = pending[-1] + 1
        pending.append(place)
    alone = np.arange(n)
    return FineNodes(
        np.concatenate([alone, np.array(left, np.int64)]),
        np.concatenate([alone + 1, np.array(right, np.int64)]),
    )


def _distances(points: NDArray[np.float64]) -> NDArray[np.float32]:
    squares = (points**2).sum(axis=1)
    between = squares[:, None] + squares[None] - 2 * points @ points.T
    return np.sqrt(np.maximum(between, 0.0)).astype(np.float32)
