"""Context features: averages over neighbouring supervoxels, and tissues found from them.

Muscle and grey matter may have equal intensity and similar features, but only grey
matter lies beside white matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_strata.parallel import each
from napari_strata.proposal.hierarchy.build_trees import SmoothTissues
from napari_strata.proposal.hierarchy.divisive_clustering import Division, divide
from napari_strata.proposal.hierarchy.tissue_division import TissueInputs
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.supervoxels.clustering import Contacts

SMOOTHED_MM = 4.5
"""Radius over which features are averaged, because single supervoxels are noisy."""
AROUND_MM = 14.0
"""Radius of a supervoxel's context."""
_HOP_SHARE = 0.8
"""Reach of one averaging step, in supervoxel widths."""
_MOST_HOPS = 40
"""Maximum number of averaging steps, which bounds the time."""
_ROWS_AT_ONCE = 10_000
"""Supervoxels whose averages are computed at a time."""
_ROUNDS, _TISSUES = 3, 24
"""Iterations before the final tree, and tissues found in each of them."""
_SHARED_TISSUES = 16
"""Tissues whose shares in and beside a supervoxel are used in the region tree."""
_FEATURES, _CONTEXT = 0.5, 2.0
"""Weights of averaged features and of tissue shares in the context, against intensity."""


KNOWN_RANGE = (0.88, 0.92)
"""From features that add much to intensity to features that add little.

Shares of `features_known_from_intensity`: .65 to .87 on whole heads, FLAIR of patients
and an abdominal CT, .94 on MNI152 without its skull.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Neighborhood:
    """Averages over the supervoxels around each supervoxel of the body.

    Parameters
    ----------
    matrix : (n, n) sparse array
        Averages values over each supervoxel of the body and those that touch it,
        weighted by size.
    width_mm : float
        Mean width of a supervoxel in mm.
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
        """Build the averaging matrix of a scan's supervoxels.

        Parameters
        ----------
        edges : (e, 2) integer array
            Pairs of touching supervoxels.
        sizes : (n,) integer array
            Voxels of each supervoxel.
        body : (n,) bool array
            Supervoxels in the body.
        voxel_volume_mm3 : float
            Volume of a voxel in mm3.
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
        """Return how many averaging steps reach about this far."""
        return min(round((reach_mm / (_HOP_SHARE * self.width_mm)) ** 2), _MOST_HOPS)

    def averaged(self, values: NDArray[np.float32], times: int) -> NDArray[np.float32]:
        """Average values (n, d) over neighbours, `times` times in a row."""
        bounds = range(0, self.matrix.shape[0], _ROWS_AT_ONCE)
        rows = [self.matrix[begin : begin + _ROWS_AT_ONCE] for begin in bounds]
        for _ in range(times):
            before = values
            values = np.concatenate(each(lambda part: part @ before, rows))  # noqa: B023
        return np.asarray(values, np.float32)

    def shares(
        self, tissue: NDArray[np.integer], n: int, times: int
    ) -> NDArray[np.float32]:
        """Return the shares (n_supervoxels, n + 1) of tissues 0 .. n around supervoxels."""
        return self.averaged(np.eye(n + 1, dtype=np.float32)[tissue], times)


@dataclass(frozen=True, slots=True, eq=False)
class Tissues:
    """Tissues, their tree, and the vectors that it is built from.

    Parameters
    ----------
    tree : callable
        Returns the tree of similar supervoxels, wherever they lie.
    classes : (n,) int64 array
        Tissue of each supervoxel, 0 in the background.
    vectors : (n, d) float32 array
        Vectors that were compared in the final iteration.
    shares : (n, tissue) float32 array
        Share of each of 16 tissues in a supervoxel and those that touch it.
    """

    tree: Callable[[], Hierarchy]
    classes: NDArray[np.int64]
    vectors: NDArray[np.float32]
    shares: NDArray[np.float32]


def find_tissues_iteratively(
    intensity: NDArray[np.float32],
    features: NDArray[np.float32],
    sizes: NDArray[np.integer],
    contacts: Contacts,
    body: NDArray[np.bool_],
    neighborhood: Neighborhood,
    purity: NDArray[np.floating],
    *,
    weight: float,
    final_weights: tuple[float, float],
) -> Tissues:
    """Find tissues by intensity and features, and refine them by their context.

    The first iteration compares intensity and features. Each later one adds the shares
    of the tissues that the previous iteration found around a supervoxel. The last one
    divides the scan into tissues with few borders.

    Parameters
    ----------
    intensity : (n,) float32 array
        Weighted intensity.
    features : (n, channel) float32 array
        Features of all levels.
    sizes, body : arrays
        As for `tissue_tree`; `body` is the inverse of its `background`.
    contacts : Contacts
        Touching supervoxels.
    neighborhood : Neighborhood
        Averages over neighbouring supervoxels.
    purity : (n,) float array
        From `supervoxel_purity`.
    weight : float
        Weight of features and context against intensity; 0 uses intensity only.
    final_weights : tuple of 2 float
        The same in the last iteration: where features add little to what intensity
        tells, and where they add much.
    """
    edges = contacts.edges
    parts = [intensity[:, None]]
    if weight and features.shape[1]:
        parts.append(
            np.float32(weight * _FEATURES)
            * neighborhood.averaged(features, neighborhood.hops(SMOOTHED_MM))
        )
    vectors = np.concatenate(parts, axis=1).astype(np.float32)
    times = max(1, neighborhood.hops(AROUND_MM))
    for _ in range(_ROUNDS if weight else 0):
        tissue = _coarse_tissues(vectors, sizes, body).cut(_TISSUES)
        around = np.float32(weight * _CONTEXT) * neighborhood.shares(
            _of_all(tissue, body), _TISSUES, times
        )
        vectors = np.concatenate([*parts, around], axis=1).astype(np.float32)
    shared = _coarse_tissues(vectors, sizes, body).cut(_SHARED_TISSUES)
    known = features_known_from_intensity(
        intensity[body],
        np.concatenate([np.empty((len(sizes), 0)), *parts[1:]], axis=1)[body],
        (sizes * purity)[body],
    )
    if weight:
        final = float(np.interp(known, KNOWN_RANGE, final_weights[::-1]))
        vectors[:, 1:] *= np.float32(final / weight)
    inputs = TissueInputs(
        vectors,
        sizes,
        purity,
        edges,
        contacts.faces,
        by_intensity=known >= sum(KNOWN_RANGE) / 2,
    )
    found = SmoothTissues.of(inputs, ~body)
    return Tissues(
        found.tree,
        found.classes(),
        vectors,
        neighborhood.shares(_of_all(shared, body), _SHARED_TISSUES, 1),
    )


def _coarse_tissues(
    vectors: NDArray[np.float32],
    sizes: NDArray[np.integer],
    body: NDArray[np.bool_],
) -> Division:
    """Divide the body by similarity alone."""
    if not body.any():
        nothing = np.empty(0, np.int64)
        return Division(nothing, nothing, np.empty(0))
    return divide(vectors[body], sizes[body], _TISSUES)


def _of_all(group: NDArray[np.integer], body: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return 1 + the group of supervoxels of the body, and 0 of others."""
    table = np.zeros(len(body), np.int64)
    table[body] = 1 + group
    return table


def features_known_from_intensity(
    intensity: NDArray[np.floating],
    features: NDArray[np.floating],
    weights: NDArray[np.floating],
) -> float:
    """Return the share of the variance of intensity that features explain linearly.

    Near 1, features repeat what intensity says, as in a brain without its skull, and
    more weight would only add their noise. 1.0 without features.

    Parameters
    ----------
    intensity : (n,) float array
        Intensity of each supervoxel.
    features : (n, d) float array
        Features and context.
    weights : (n,) float array
        Weight of each supervoxel.
    """
    total = float(weights.sum())
    if not features.shape[1] or total <= 0:
        return 1.0
    centered = features - (weights @ features) / total
    target = intensity - (weights @ intensity) / total
    spread = (centered * weights[:, None]).T @ centered
    spread += 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    shared = centered.T @ (weights * target)
    variance = float(weights @ target**2)
    explained = float(shared @ np.linalg.solve(spread, shared))
    return explained / variance if variance > 0 else 1.0
