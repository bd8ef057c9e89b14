"""Ward's tree over a graph (higra)."""

from __future__ import annotations

import higra
import numpy as np
from numpy.typing import NDArray


def ward_tree(
    vectors: NDArray[np.float64], sizes: NDArray[np.float64], edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Run Ward's criterion over a connected graph (higra's binary partition tree).

    Parameters
    ----------
    vectors : (n, channels) float64 array
        Features of the nodes.
    sizes : (n,) float64 array
        Weights of the nodes.
    edges : (m, 2) int64 array
        Pairs of nodes.

    Returns
    -------
    (2n - 1,) int64 array, (2n - 1,) float64 array
        Parent and altitude of every node of the tree, leaves first.
    """
    graph = higra.UndirectedGraph(len(vectors))
    graph.add_edges(edges[:, 0], edges[:, 1])
    tree, altitudes = higra.binary_partition_tree_ward_linkage(
        graph, vectors, sizes, altitude_correction="max"
    )
    return np.asarray(tree.parents(), np.int64), np.asarray(altitudes, np.float64)
