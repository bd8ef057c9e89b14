"""Calibrated confidence of each supervoxel: a logistic regression on a few predictors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.deprecated import moved_names
from napari_strata.parallel import each
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.supervoxels.clustering import Contacts

SIGNS = (
    "margin, tissues",
    "margin, regions",
    "company, tissues",
    "company, regions",
    "size",
)
"""Names of the predictors, the columns of `signs`."""


@dataclass(frozen=True, slots=True)
class ConfidenceConstants:
    """Constants of the logistic regression, fitted on labelled scans (docs/proposal.md)."""

    tissue_cuts: tuple[int, ...] = (8, 16, 32)
    """Numbers of tissues over which predictors are averaged: the usual 16, half, double."""
    region_cuts: tuple[int, ...] = (50, 100, 200)
    """Numbers of regions over which predictors are averaged: the usual 100, half, double."""
    weights: tuple[float, ...] = (0.83, 1.12, 1.14, 0.67, 1.9)
    """Fitted coefficient of each predictor, in the order of `SIGNS`."""
    offset: float = 0.18
    """Fitted intercept."""
    size_unit: float = 10.0
    """Divisor of the log of the voxels, which brings it to the range of the others."""


_CONSTANTS = ConfidenceConstants()
_ROWS_AT_ONCE = 4096
"""Supervoxels compared at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceInputs:
    """Inputs of `estimate_confidence`.

    Parameters
    ----------
    tissue_vectors, region_vectors : (n, d) float32 arrays
        Vectors that the two trees were built from.
    tissues, regions : Hierarchy
        The trees.
    contacts : Contacts
        Which supervoxels touch, and over how many faces.
    sizes : (n,) integer array
        Voxels.
    """

    tissue_vectors: NDArray[np.float32]
    region_vectors: NDArray[np.float32]
    tissues: Hierarchy
    regions: Hierarchy
    contacts: Contacts
    sizes: NDArray[np.integer]


def estimate_confidence(inputs: ConfidenceInputs) -> NDArray[np.float32]:
    """Return the probability that a supervoxel is of its region's majority class.

    It is a logistic function of the predictors in `signs`. The weights were fitted on
    labelled scans, averaged over cuts into 50, 100 and 200 regions. docs/proposal.md
    lists the scans and the calibration on others.

    Returns
    -------
    (n,) float32 array
        Probabilities in [0, 1].
    """
    weights = np.array(_CONSTANTS.weights, np.float32)
    total = signs(inputs) @ weights + np.float32(_CONSTANTS.offset)
    return (1.0 / (1.0 + np.exp(-total))).astype(np.float32)


def signs(inputs: ConfidenceInputs) -> NDArray[np.float32]:
    """Return the predictors of confidence per supervoxel.

    Margin: 1 minus the distance to the own region's mean over that to the runner-up's
    (tissues: any other; regions: any that touches). Company: share of the supervoxel's
    faces that border on its own region. Both are averaged over a few cuts. Size: a tenth
    of the logarithm of the voxels.

    Returns
    -------
    (n, sign) float32 array
        Predictors; columns are named by `SIGNS`.
    """
    tissue_cuts = [_cut_at_most(inputs.tissues, n) for n in _CONSTANTS.tissue_cuts]
    region_cuts = [_cut_at_most(inputs.regions, n) for n in _CONSTANTS.region_cuts]
    apart = each(
        lambda table: _margin_anywhere(inputs.tissue_vectors, inputs.sizes, table),
        tissue_cuts,
    )
    beside = each(lambda table: _margin_beside(inputs, table), region_cuts)
    columns = [
        np.mean(apart, axis=0),
        np.mean(beside, axis=0),
        _mean_same_region_share(inputs.contacts, tissue_cuts),
        _mean_same_region_share(inputs.contacts, region_cuts),
        np.log(np.maximum(inputs.sizes, 1)) / _CONSTANTS.size_unit,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _cut_at_most(tree: Hierarchy, n: int) -> NDArray[np.int32]:
    return tree.cut(min(n, tree.max_regions))


def _means(
    vectors: NDArray[np.float32], sizes: NDArray[np.integer], table: NDArray[np.int32]
) -> NDArray[np.float32]:
    count = int(table.max(initial=0)) + 1
    weight = np.maximum(np.bincount(table, weights=sizes, minlength=count), 1)
    sums = [
        np.bincount(table, weights=sizes * column, minlength=count)
        for column in vectors.T
    ]
    return (np.stack(sums, axis=1) / weight[:, None]).astype(np.float32)


def _distances(
    vectors: NDArray[np.float32], means: NDArray[np.float32]
) -> NDArray[np.float32]:
    squares = (
        (vectors**2).sum(axis=1)[:, None]
        + (means**2).sum(axis=1)[None]
        - 2.0 * vectors @ means.T
    )
    return np.sqrt(np.maximum(squares, 0.0))


def _distance_to(
    vectors: NDArray[np.float32],
    rows: NDArray[np.integer],
    means: NDArray[np.float32],
    regions: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Return the distance of each chosen vector from the mean of a region, (k,) float32."""
    out = np.empty(len(rows), np.float32)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        step = vectors.take(rows[part], axis=0)
        step -= means.take(regions[part], axis=0)
        out[part] = np.linalg.norm(step, axis=1)
    return out


def _margin_anywhere(
    vectors: NDArray[np.float32], sizes: NDArray[np.integer], table: NDArray[np.int32]
) -> NDArray[np.float32]:
    distance = _distances(vectors, _means(vectors, sizes, table))
    rows = np.arange(len(table))
    own = distance[rows, table]
    distance[rows, table] = np.inf
    other = (
        distance.min(axis=1)
        if distance.shape[1] > 1
        else np.full(len(table), 2.0, np.float32)
    )
    return np.clip(1.0 - own / np.maximum(other, 1e-6), -1.0, 1.0)


def _margin_beside(
    inputs: ConfidenceInputs, table: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the margin over touching regions; 1 for supervoxels that touch no other."""
    vectors = inputs.region_vectors
    means = _means(vectors, inputs.sizes, table)
    own = _distance_to(vectors, np.arange(len(table)), means, table)
    first, second = inputs.contacts.edges.T
    border = np.flatnonzero(table.take(first) != table.take(second))
    first, second = first.take(border), second.take(border)
    # each supervoxel with each region that it touches, once; sorting is faster than
    # numpy.unique
    beside = np.sort(
        np.concatenate([first, second]).astype(np.int64) * len(means)
        + table.take(np.concatenate([second, first]))
    )
    beside = beside[np.append(True, beside[1:] != beside[:-1])[: len(beside)]]
    supervoxel, region = np.divmod(beside, len(means))
    distance = _distance_to(vectors, supervoxel, means, region)
    other = np.full(len(table), np.inf, np.float32)
    np.minimum.at(other, supervoxel, distance)
    return np.clip(1.0 - own / np.maximum(other, 1e-6), -1.0, 1.0)


def _mean_same_region_share(
    contacts: Contacts, tables: list[NDArray[np.int32]]
) -> NDArray[np.float64]:
    shares = [_same_region_share(contacts, table) for table in tables]
    return np.asarray(np.mean(shares, axis=0), np.float64)


def _same_region_share(
    contacts: Contacts, table: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the share of each supervoxel's faces that border on its own region."""
    same = np.where(
        table[contacts.edges[:, 0]] == table[contacts.edges[:, 1]], contacts.faces, 0
    )
    own, faces = np.zeros(len(table)), np.zeros(len(table))
    for side in (0, 1):
        own += np.bincount(contacts.edges[:, side], weights=same, minlength=len(table))
        faces += np.bincount(
            contacts.edges[:, side], weights=contacts.faces, minlength=len(table)
        )
    return np.where(faces > 0, own / np.maximum(faces, 1), 1.0)


__getattr__ = moved_names("proposal.confidence")
