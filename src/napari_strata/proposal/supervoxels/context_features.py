"""What lies around a supervoxel.

Averages over its neighbours, and tissues found in rounds by what surrounds them.

Muscle and grey matter may be equally bright and have like features, but only one of
them lies beside white matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.proposal.hierarchy.build_trees import tissue_tree
from napari_strata.proposal.hierarchy.tree import Hierarchy

SMOOTHED_MM = 4.5
"""Features are averaged over neighbours about this far, weighted by size.

Single supervoxels are noisy.
"""
AROUND_MM = 14.0
"""How far around a supervoxel its surroundings reach."""
_HOP_SHARE = 0.8
"""How far averaging once over neighbours reaches, in widths of a supervoxel."""
_MOST_HOPS = 40
_ROUNDS, _TISSUES = 3, 24
"""Rounds before the last, and tissues that each finds."""
_SHARED_TISSUES = 16
"""Tissues whose shares in and beside a supervoxel are given."""
_FEATURES, _SURROUNDINGS = 0.5, 2.0
"""What averaged features and the shares of tissues around weigh beside intensity."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighborhood:
    """Averages over the supervoxels around each supervoxel of the body.

    Parameters
    ----------
    matrix : (n, n) sparse array
        Gives each supervoxel of the body the mean over itself and those it touches,
        sizes counted.
    width_mm : float
        About how wide a supervoxel is.
    """

    matrix: Any
    width_mm: float

    @classmethod
    def of(
        cls,
        edges: NDArray[np.integer],
        sizes: NDArray[np.integer],
        body: NDArray[np.bool_],
        voxel_volume_mm3: float,
    ) -> Neighborhood:
        """Make it from touching pairs (e, 2), voxels (n,), who is in the body (n,).

        The volume of a voxel in mm3.
        """
        n, own = len(sizes), np.arange(len(sizes))
        inner = edges[body[edges[:, 0]] & body[edges[:, 1]]]
        row = np.concatenate([inner[:, 0], inner[:, 1], own])
        column = np.concatenate([inner[:, 1], inner[:, 0], own])
        links = sparse.coo_array(
            (sizes[column].astype(np.float32), (row, column)), shape=(n, n)
        ).tocsr()
        total = np.asarray(links.sum(axis=1)).ravel()
        matrix = (
            sparse.dia_array(
                ((1 / np.maximum(total, 1e-9))[None].astype(np.float32), [0]),
                shape=(n, n),
            ).tocsr()
            @ links
        )
        width = (
            (float(sizes[body].mean()) * voxel_volume_mm3) ** (1 / 3)
            if body.any()
            else AROUND_MM
        )
        return cls(matrix, width)

    def hops(self, reach_mm: float) -> int:
        """Return how many times to average to look about so far around."""
        return min(round((reach_mm / (_HOP_SHARE * self.width_mm)) ** 2), _MOST_HOPS)

    def averaged(self, values: NDArray[np.float32], times: int) -> NDArray[np.float32]:
        """Average (n, d) values over neighbours, so many times over."""
        for _ in range(times):
            raise_if_cancelled()
            values = self.matrix @ values
        return np.asarray(values, np.float32)

    def shares(
        self, tissue: NDArray[np.integer], n: int, times: int
    ) -> NDArray[np.float32]:
        """Return the share of each of tissues 0 .. n around each supervoxel.

        (n_supervoxels, n + 1) float32.
        """
        return self.averaged(np.eye(n + 1, dtype=np.float32)[tissue], times)


@dataclass(frozen=True, slots=True, eq=False)
class Tissues:
    """The tissue tree, and what led to it.

    Parameters
    ----------
    tree : Hierarchy
        Of alike supervoxels, wherever they lie.
    vectors : (n, d) float32 array
        What the last round compared.
    shares : (n, tissue) float32 array
        How much each of 16 tissues is found in a supervoxel and those it touches.
    """

    tree: Hierarchy
    vectors: NDArray[np.float32]
    shares: NDArray[np.float32]


def tissues_in_rounds(
    intensity: NDArray[np.float32],
    features: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.integer],
    body: NDArray[np.bool_],
    neighborhood: Neighborhood,
    *,
    weight: float,
) -> Tissues:
    """Find tissues by intensity and features.

    Then again by these and by which tissues lie around, a few times.

    Parameters
    ----------
    intensity : (n,) float32 array
        Weighted intensity.
    features : (n, channel) float32 array
        All levels.
    sizes, edges, body : arrays
        As for `tissue_tree`; `body` is what is not background.
    neighborhood : Neighborhood
        Who lies around whom.
    weight : float
        Weight of features and surroundings against intensity; 0 leaves intensity
        alone.
    """
    parts = [intensity[:, None]]
    if weight and features.shape[1]:
        parts.append(
            np.float32(weight * _FEATURES)
            * neighborhood.averaged(features, neighborhood.hops(SMOOTHED_MM))
        )
    vectors = np.concatenate(parts, axis=1).astype(np.float32)
    times = max(1, neighborhood.hops(AROUND_MM))
    for _ in range(_ROUNDS if weight else 0):
        found = tissue_tree(vectors, sizes, edges, ~body, groups=_TISSUES).cut(_TISSUES)
        around = np.float32(weight * _SURROUNDINGS) * neighborhood.shares(
            found, _TISSUES, times
        )
        vectors = np.concatenate([*parts, around], axis=1).astype(np.float32)
    tree = tissue_tree(vectors, sizes, edges, ~body)
    return Tissues(
        tree,
        vectors,
        neighborhood.shares(tree.cut(_SHARED_TISSUES), _SHARED_TISSUES, 1),
    )
