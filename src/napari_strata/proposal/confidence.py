"""How sure the machine is of each supervoxel.

A few signs of doubt, weighed so that 0.9 means right nine times of ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.deprecated import moved_names
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.supervoxels.clustering import Contacts

_TISSUE_CUTS = (8, 16, 32)
_REGION_CUTS = (50, 100, 200)
SIGNS = (
    "margin, tissues",
    "margin, regions",
    "company, tissues",
    "company, regions",
    "size",
)
_WEIGHTS = (0.83, 1.12, 1.14, 0.67, 1.9)
_OFFSET = 0.18
"""Fitted on labelled scans, see docs/proposal.md."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceInputs:
    """What confidence is judged from.

    Parameters
    ----------
    tissue_vectors, region_vectors : (n, d) float32 arrays
        What the two trees were made from.
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
    """Return the chance that a supervoxel is of its region's majority class.

    (n,) float32 in [0, 1].

    A logistic function of the signs. Its weights were fitted on labelled scans,
    averaged over cuts into 50, 100 and 200 regions; docs/proposal.md says on which, and
    how well it holds elsewhere.
    """
    total = signs(inputs) @ np.array(_WEIGHTS, np.float32) + np.float32(_OFFSET)
    return (1.0 / (1.0 + np.exp(-total))).astype(np.float32)


def signs(inputs: ConfidenceInputs) -> NDArray[np.float32]:
    """Return what speaks for or against each supervoxel's place.

    (n, sign) float32, columns named by `SIGNS`.

    Margins: 1 - distance to the own region's mean over that to the runner-up's
    (tissues: any other; regions: any that touches). Company: share of its faces toward
    its own region. Each is averaged over a few cuts. Size: a tenth of the logarithm of
    the voxels.
    """
    tissue_cuts = [_usable(inputs.tissues, n) for n in _TISSUE_CUTS]
    region_cuts = [_usable(inputs.regions, n) for n in _REGION_CUTS]
    apart = [
        _margin_anywhere(inputs.tissue_vectors, inputs.sizes, table)
        for table in tissue_cuts
    ]
    beside = [_margin_beside(inputs, table) for table in region_cuts]
    columns = [
        np.mean(apart, axis=0),
        np.mean(beside, axis=0),
        np.mean([_company(inputs.contacts, table) for table in tissue_cuts], axis=0),
        np.mean([_company(inputs.contacts, table) for table in region_cuts], axis=0),
        np.log(np.maximum(inputs.sizes, 1)) / 10.0,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _usable(tree: Hierarchy, n: int) -> NDArray[np.int32]:
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
    """Compare the own region with the regions that a supervoxel touches.

    1 for one that touches no other.
    """
    vectors = inputs.region_vectors
    means = _means(vectors, inputs.sizes, table)
    own = np.linalg.norm(vectors - means[table], axis=1)
    other = np.full(len(table), np.inf, np.float32)
    for first, second in (inputs.contacts.edges.T, inputs.contacts.edges.T[::-1]):
        border = table[first] != table[second]
        distance = np.linalg.norm(
            vectors[first[border]] - means[table[second[border]]], axis=1
        )
        np.minimum.at(other, first[border], distance)
    return np.clip(1.0 - own / np.maximum(other, 1e-6), -1.0, 1.0)


def _company(contacts: Contacts, table: NDArray[np.int32]) -> NDArray[np.float64]:
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
