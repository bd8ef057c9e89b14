"""Fit the rounds of a codebook: leaves, and the tissue of each leaf.

From the second round on, leaves are also compared by their context.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import CodebookError
from napari_strata.proposal.codebook.cohort_table import CohortTable, IntensityMap
from napari_strata.proposal.hierarchy.build_trees import region_tree
from napari_strata.proposal.supervoxels.clustering import one_openmp_thread

_ROUNDS = 5
"""Number of rounds."""
_LEAVES = 300
"""Maximum number of leaves of a round."""
_SAMPLED = 12_000
"""Supervoxels of each scan that leaves are fitted to, which bounds the time."""
_INTENSITY, _FEATURES, _CONTEXT = 6.0, 0.5, 2.0
"""Weights of intensity, features and context in the vectors of supervoxels."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One round: leaves, and the tissue of each.

    Parameters
    ----------
    leaves : (leaf, d) float32 array
        Intensity, features and, from the second round on, context.
    tissue : (leaf,) int32 array
        Tissue 1 .. n of each leaf.
    """

    leaves: NDArray[np.float32]
    tissue: NDArray[np.int32]

    def nearest(
        self, vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the nearest leaf of each row, and its distance."""
        found, distance = (
            np.empty(len(vectors), np.int64),
            np.empty(len(vectors), np.float32),
        )
        length = (self.leaves**2).sum(axis=1)
        for begin in range(0, len(vectors), 8192):
            part = vectors[begin : begin + 8192]
            squares = length - 2 * part @ self.leaves.T
            best = squares.argmin(axis=1)
            found[begin : begin + len(part)] = best
            rest = squares[np.arange(len(part)), best] + (part**2).sum(axis=1)
            distance[begin : begin + len(part)] = np.sqrt(np.maximum(rest, 0))
        return found, distance


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Rounds learnt from some of a cohort's scans.

    Parameters
    ----------
    rounds : tuple of Round
        Rounds in order.
    distance : float
        Mean distance of the teachers from their nearest leaves in the first round.
    shared : float
        Least overlap of the tissue shares of two scans, over all pairs; 0 to 1.
    farthest : float
        Largest mean distance of a scan, as a multiple of the teachers'.
    """

    rounds: tuple[Round, ...]
    distance: float
    shared: float
    farthest: float


def fit_rounds(
    tables: Sequence[CohortTable],
    maps: Sequence[IntensityMap],
    teachers: Sequence[int],
    *,
    tissues: int,
    seed: int,
) -> Fit:
    """Fit rounds to the scans numbered `teachers`, and evaluate them on all scans."""
    rounds: list[Round] = []
    tissue: list[NDArray[np.int32] | None] = [None] * len(tables)
    distances, shares = np.zeros(len(tables)), np.zeros((len(tables), tissues + 1))
    for number in range(_ROUNDS):
        vectors = [
            vectors_of(table, mapped, now, tissues)
            for table, mapped, now in zip(tables, maps, tissue, strict=True)
        ]
        one = _fit_round(
            [tables[k] for k in teachers], [vectors[k] for k in teachers], tissues, seed
        )
        rounds.append(one)
        for k, table in enumerate(tables):
            leaf, away = one.nearest(vectors[k])
            now = np.where(table.body, one.tissue[leaf], 0).astype(np.int32)
            shares[k] = np.bincount(
                now, weights=table.sizes_vox * table.body, minlength=tissues + 1
            )
            tissue[k] = now
            if not number:
                distances[k] = mean_distance(away, table)
    shares /= shares.sum(axis=1, keepdims=True)
    overlap = np.minimum(shares[:, None], shares[None]).sum(axis=-1)
    own = float(distances[list(teachers)].mean())
    return Fit(
        tuple(rounds),
        own,
        float(overlap.min()),
        float(distances.max() / max(own, 1e-9)),
    )


def vectors_of(
    table: CohortTable, mapped: IntensityMap, tissue: NDArray[np.int32] | None, n: int
) -> NDArray[np.float32]:
    """Return vectors that are comparable between scans, (n_supervoxels, d) float32."""
    parts = [
        np.float32(_INTENSITY) * mapped(table.intensity[:, :1]),
        np.float32(_FEATURES) * table.features,
    ]
    if tissue is not None:
        parts.append(np.float32(_CONTEXT) * table.tissue_context(tissue, n))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _fit_round(
    tables: Sequence[CohortTable],
    vectors: Sequence[NDArray[np.float32]],
    tissues: int,
    seed: int,
) -> Round:
    """Cluster scans of equal weight: leaves by k-means, tissues of leaves by Ward.

    Raises
    ------
    CodebookError
        If they have fewer distinct supervoxels than tissues.
    """
    rng = np.random.default_rng(seed)
    samples, weights = [], []
    for table, rows in zip(tables, vectors, strict=True):
        sample = rng.permutation(np.flatnonzero(table.body))[:_SAMPLED]
        sizes = table.sizes_vox[sample].astype(np.float64)
        samples.append(rows[sample])
        weights.append(sizes / sizes.sum() * 1e6)
    pooled, weight = np.concatenate(samples), np.concatenate(weights)
    count = min(_LEAVES, max(tissues, len(pooled) // 20))
    # imported here: the import takes longer than a small proposal
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(
        count,
        n_init=1,
        init="random" if count > 100 else "k-means++",
        max_iter=12,
        random_state=seed,
    )
    with one_openmp_thread(), warnings.catch_warnings():
        # k-means warns of fewer distinct supervoxels than leaves; empty ones go below
        warnings.simplefilter("ignore", ConvergenceWarning)
        leaf = means.fit(pooled, sample_weight=weight).labels_
    share = np.bincount(leaf, weights=weight, minlength=count)
    centers, share = (
        means.cluster_centers_[share > 0].astype(np.float32),
        share[share > 0],
    )
    if len(centers) < tissues:
        raise CodebookError(
            f"The scans hold only {len(centers)} kinds of supervoxels, too few for"
            f" {tissues} tissues. Ask for fewer."
        )
    pairs = np.stack(np.triu_indices(len(centers), 1), axis=1)
    whole = np.maximum(np.round(share), 1).astype(np.int64)
    tissue = region_tree(centers, whole, pairs, np.zeros(len(centers), bool)).cut(
        tissues
    )
    total = np.bincount(tissue, weights=share * centers[:, 0], minlength=tissues + 1)[
        1:
    ]
    order = np.argsort(
        total
        / np.maximum(
            np.bincount(tissue, weights=share, minlength=tissues + 1)[1:], 1e-9
        ),
        kind="stable",
    )
    number = np.empty(tissues + 1, np.int32)
    number[order + 1] = np.arange(1, tissues + 1)
    return Round(np.ascontiguousarray(centers), number[tissue])


def mean_distance(distance: NDArray[np.float32], table: CohortTable) -> float:
    """Return the distance of supervoxels averaged over the body's voxels."""
    return float(np.average(distance[table.body], weights=table.sizes_vox[table.body]))
