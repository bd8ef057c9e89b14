"""Overlap of labels with a reference as a whole, whatever their numbers.

The measures are matched Dice, the Rand index and the variation of information.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from napari_strata.errors import GeometryError
from napari_strata.measure.regions import require_same_grid
from napari_strata.volume import (
    BACKGROUND,
    Segmentation,
    default_regions,
    smallest_label_dtype,
)

_EMPTY = float("nan")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of labels with a reference, over the scored voxels.

    Parameters
    ----------
    voxels : int
        Voxels scored.
    n_regions : int
        Distinct labels among them; label 0 counts as a region like any other.
    one_to_one : dict of int to float
        Dice of each reference class under the best one-to-one matching (Hungarian); 0
        for a class left without a region.
    many_to_one : dict of int to float
        Dice of each class when every region goes to the class it overlaps most: what
        naming the regions could reach.
    one_to_one_mean, many_to_one_mean : float
        Means over the classes; NaN without any class.
    ari : float
        Adjusted Rand index; 1 is perfect, about 0 is chance.
    voi_split_bits, voi_merge_bits : float
        The two halves of the variation of information, in bits (log 2): H(labels |
        reference) grows when classes are split over several regions, H(reference |
        labels) when regions merge several classes.

    Notes
    -----
    Adjusted Rand index: Hubert and Arabie, Journal of Classification 1985. Variation of
    information: Meila, Journal of Multivariate Analysis 2007.
    """

    voxels: int
    n_regions: int
    one_to_one: dict[int, float]
    many_to_one: dict[int, float]
    one_to_one_mean: float
    many_to_one_mean: float
    ari: float
    voi_split_bits: float
    voi_merge_bits: float

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain values, for JSON."""
        return asdict(self)


def compare(
    labels: Segmentation,
    reference: Segmentation,
    *,
    ignore: Collection[int] = (),
    other: Collection[int] = (BACKGROUND,),
) -> Agreement:
    """Score labels against a reference, voxel by voxel.

    By default the reference is an ordinary label file: its 0 is background, takes part
    as a class, so that regions which leak into it pay, but does not count in the means.
    A reference whose 0 means "nobody knows" and whose 255 means "surely none of the
    classes" is scored with ``ignore=(0,), other=(255,)``.

    Parameters
    ----------
    labels, reference : Segmentation
        On the same grid.
    ignore : collection of int
        Reference values whose voxels are left out.
    other : collection of int
        Reference values that take part, but are no class of the means.

    Returns
    -------
    Agreement
        The scores.

    Raises
    ------
    GeometryError
        If the grids differ, or nothing is left to score.

    Examples
    --------
    >>> labels = np.zeros((24, 24, 24), np.uint8)
    >>> labels[8:16, 8:16, 8:16] = 1
    >>> reference = strata.Segmentation(labels, (), volume.geometry)
    >>> found = strata.Segmentation(7 * labels, (), volume.geometry)  # other numbers
    >>> strata.compare(found, reference).many_to_one
    {1: 1.0}
    """
    require_same_grid(
        labels.geometry, reference.geometry, "The labels", "the reference"
    )
    kept = ~np.isin(reference.labels, list(ignore))
    if not kept.any():
        raise GeometryError(
            "The reference has no voxel to score: every value in it is ignored. Check"
            " the reference and `ignore`."
        )
    classes, table = _contingency(labels.labels[kept], reference.labels[kept])
    one, many = _one_to_one(table), _many_to_one(table)
    scored = [k for k, value in enumerate(classes.tolist()) if value not in other]
    split, merge = _variation_of_information(table)
    return Agreement(
        voxels=int(table.sum()),
        n_regions=len(table),
        one_to_one={int(classes[k]): float(one[k]) for k in scored},
        many_to_one={int(classes[k]): float(many[k]) for k in scored},
        one_to_one_mean=float(one[scored].mean()) if scored else _EMPTY,
        many_to_one_mean=float(many[scored].mean()) if scored else _EMPTY,
        ari=_adjusted_rand(table),
        voi_split_bits=split,
        voi_merge_bits=merge,
    )


def join_by_overlap(labels: Segmentation, reference: Segmentation) -> Segmentation:
    """Return labels in which each region has the id and name of its best reference label.

    The best is the one that it overlaps most, background included; regions with the
    same best label become one.

    Parameters
    ----------
    labels, reference : Segmentation
        On the same grid.

    Returns
    -------
    Segmentation
        Labels with the reference's numbers and region table; label 0 stays background.

    Raises
    ------
    GeometryError
        If the grids differ.
    """
    require_same_grid(
        labels.geometry, reference.geometry, "The labels", "the reference"
    )
    regions, row = np.unique(labels.labels, return_inverse=True)
    classes, table = _contingency(labels.labels, reference.labels)
    owner = classes[table.argmax(axis=1)].astype(
        smallest_label_dtype(int(classes.max()))
    )
    owner[regions == BACKGROUND] = BACKGROUND
    rows = {
        one.id: one for one in (*default_regions(classes.tolist()), *reference.regions)
    }
    return Segmentation(
        owner[row.reshape(labels.labels.shape)],
        tuple(rows[i] for i in sorted(rows)),
        labels.geometry,
    )


def _contingency(
    labels: NDArray[np.unsignedinteger], reference: NDArray[np.unsignedinteger]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Count voxels per pair: the reference's values, and a table (region, class)."""
    regions, row = np.unique(labels, return_inverse=True)
    classes, column = np.unique(reference, return_inverse=True)
    pairs = row.ravel() * len(classes) + column.ravel()
    counts = np.bincount(pairs, minlength=len(regions) * len(classes))
    return classes, counts.reshape(len(regions), len(classes)).astype(np.float64)


def _one_to_one(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Dice per class under the one-to-one matching with the highest sum.

    The matching is found by the Hungarian method (Kuhn 1955).
    """
    dice = (
        2
        * table
        / (table.sum(axis=1, keepdims=True) + table.sum(axis=0, keepdims=True))
    )
    region, matched = linear_sum_assignment(dice, maximize=True)
    best = np.zeros(table.shape[1])
    best[matched] = dice[region, matched]
    return best


def _many_to_one(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Dice per class, with every region in the class that it overlaps most."""
    n_classes = table.shape[1]
    owner = table.argmax(axis=1)
    hits = np.bincount(owner, table.max(axis=1), n_classes)
    claimed = np.bincount(owner, table.sum(axis=1), n_classes)
    return 2 * hits / (claimed + table.sum(axis=0))


def _adjusted_rand(table: NDArray[np.float64]) -> float:
    def pairs(n: NDArray[np.float64]) -> float:
        return float((n * (n - 1) / 2).sum())

    together, in_regions, in_classes = (
        pairs(table),
        pairs(table.sum(axis=1)),
        pairs(table.sum(axis=0)),
    )
    by_chance = in_regions * in_classes / max(pairs(table.sum(keepdims=True)), 1.0)
    spread = (in_regions + in_classes) / 2 - by_chance
    return (together - by_chance) / spread if spread else 1.0


def _variation_of_information(table: NDArray[np.float64]) -> tuple[float, float]:
    """Return H(labels | reference) and H(reference | labels) in bits."""
    joint = table / table.sum()

    def entropy(p: NDArray[np.float64]) -> float:
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum())

    both = entropy(joint)
    return max(both - entropy(joint.sum(axis=0)), 0.0), max(
        both - entropy(joint.sum(axis=1)), 0.0
    )
