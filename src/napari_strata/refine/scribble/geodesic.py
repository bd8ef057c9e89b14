"""Geodesic distances from scribbles on the supervoxel adjacency graph."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from napari_strata.refine.scribble.dissimilarity import nearest

_STEP = 0.1
"""Constant cost of a step, in median differences of touching supervoxels."""
_FARTHEST = 200.0
"""Distance without a path, in the same unit; longer than any real path."""
_KEPT = 128
"""Results in the cache: two per region, enough for some dozen regions."""


class GeodesicDistances:
    """Geodesic distances and dissimilarities from seeds, with a cache.

    Distances are shortest paths over touching supervoxels (Dijkstra, 1959). A stroke
    changes the seeds of one region only, so the results of the others are reused.

    Parameters
    ----------
    points : (n, k) float32 array
        Supervoxels in feature space, without position.
    edges : (e, 2) integer array
        Touching pairs.
    borders : (e,) array, optional
        Added length of each pair, in median differences of touching supervoxels.
    described : (n, m) float32 array, optional
        Other points for dissimilarities, for example with the position.
    """

    def __init__(
        self,
        points: NDArray[np.float32],
        edges: NDArray[np.integer],
        borders: NDArray[np.floating] | None = None,
        described: NDArray[np.float32] | None = None,
    ) -> None:
        a, b = edges.reshape(-1, 2).astype(np.int64).T
        apart = np.sqrt(((points[a] - points[b]) ** 2).sum(axis=1))
        usual = float(np.median(apart)) if len(apart) else 1.0
        length = apart / max(usual, 1e-6) + _STEP
        length = length if borders is None else length + borders
        one_way = csr_array((length, (a, b)), shape=(len(points), len(points)))
        both = csr_array(one_way + one_way.T)
        # In the types that `dijkstra` needs, so that it does not convert the graph in
        # every call.
        parts = (
            both.data.astype(np.float64),
            both.indices.astype(np.int32),
            both.indptr.astype(np.int32),
        )
        self._graph = csr_array(parts, shape=both.shape)
        self._points = points if described is None else described
        self._found: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self._keeping = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process: all but the lock and the results."""
        return {"_graph": self._graph, "_points": self._points}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what another process sent."""
        vars(self).update(state)
        self._found, self._keeping = OrderedDict(), threading.Lock()

    def distance(self, seeds: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the geodesic distance to the nearest seed, (n,).

        The unit is the median difference of touching supervoxels.
        """
        return self._kept("way", np.unique(seeds), self._search)

    def dissimilarity(self, seeds: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the dissimilarity to the nearest seed, (n,); see `dissimilarity.nearest`."""
        return self._kept("unlike", seeds, lambda at: nearest(self._points, at))

    def _kept(
        self,
        what: str,
        seeds: NDArray[np.integer],
        find: Callable[[NDArray[np.integer]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        key = what, hashlib.sha256(seeds.astype(np.int64).tobytes()).digest()
        with self._keeping:
            kept = self._found.get(key)
        if kept is None:
            kept = find(seeds)
            kept.flags.writeable = False
        with self._keeping:
            self._found[key] = kept
            self._found.move_to_end(key)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return kept

    def _search(self, seeds: NDArray[np.integer]) -> NDArray[np.float32]:
        far: NDArray[np.float64] = dijkstra(
            self._graph, directed=True, indices=seeds, min_only=True
        )
        return np.minimum(far, _FARTHEST).astype(np.float32)
