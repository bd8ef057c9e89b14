"""How far the way is from strokes to every supervoxel: through like neighbours it is short, across edges long."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

_STEP = 0.1
"""What a step costs besides the difference, in usual differences of touching supervoxels."""
_FARTHEST = 200.0
"""Length of a way where there is none."""
_KEPT = 64


class Ways:
    """Shortest ways over touching supervoxels (geodesic distances; Dijkstra, 1959), the last ones kept: a click changes one region's.

    Parameters
    ----------
    points : (n, k) float32 array
        What supervoxels are like.
    edges : (e, 2) integer array
        Touching pairs.
    """

    def __init__(self, points: NDArray[np.float32], edges: NDArray[np.integer]) -> None:
        a, b = edges.reshape(-1, 2).astype(np.int64).T
        apart = np.sqrt(((points[a] - points[b]) ** 2).sum(axis=1))
        usual = float(np.median(apart)) if len(apart) else 1.0
        self._graph = csr_array((apart / max(usual, 1e-6) + _STEP, (a, b)), shape=(len(points), len(points)))
        self._found: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._keeping = threading.Lock()

    def length(self, seeds: NDArray[np.integer]) -> NDArray[np.float32]:
        """Give the length of the way to the nearest seed, (n,), in usual differences of touching supervoxels."""
        key = hashlib.sha256(np.sort(seeds).astype(np.int64).tobytes()).digest()
        with self._keeping:
            kept = self._found.get(key)
        if kept is None:
            kept = self._search(np.unique(seeds))
            kept.flags.writeable = False
        with self._keeping:
            self._found[key] = kept
            self._found.move_to_end(key)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return kept

    def _search(self, seeds: NDArray[np.integer]) -> NDArray[np.float32]:
        far: NDArray[np.float64] = dijkstra(self._graph, directed=False, indices=seeds, min_only=True)
        return np.minimum(far, _FARTHEST).astype(np.float32)
