"""Pairs of regions that are mirror images: two kidneys, two hemispheres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.reading.scan_tables import ScanTables
from napari_strata.proposal.reading.symmetry_plane import Symmetry


@dataclass(frozen=True, slots=True)
class PairConstants:
    """Constants that decide which regions are a pair."""

    one_side: float = 0.8
    """Share of a region that must lie on one side of the plane of symmetry."""
    apart: float = 1.0
    """Distance of a mirrored middle to the partner's, in mean extents of the two: the
    right kidney lies a third of its length below the left one."""
    size_ratio: float = 2.0
    """Largest ratio of the two volumes."""
    unlike: float = 0.25
    """Share of all regions that may be more alike to a region than its partner is."""
    least_fit: float = 0.4
    """Pairs that fit worse are none: in a belly, half of them are chance."""


CONSTANTS = PairConstants()


@dataclass(frozen=True, slots=True)
class MirrorPair:
    """Two regions that are mirror images of each other.

    Parameters
    ----------
    left, right : int
        Their ids, on the patient's left and right.
    fit : float
        1 for perfect mirror images, 0 for a pair that is barely one.
    """

    left: int
    right: int
    fit: float


def find_pairs(
    symmetry: Symmetry, table: NDArray[np.integer]
) -> tuple[MirrorPair, ...]:
    """Find the pairs among the regions of a table.

    Parameters
    ----------
    symmetry : Symmetry
        The scan's tables and plane.
    table : (n_supervoxels,) integer array
        Region of each supervoxel, 0 for none.

    Returns
    -------
    tuple of MirrorPair
        The largest pair first; none if the body has no clear plane of symmetry. Two
        regions are a pair if each fits the other best by place, size and likeness, among
        those that lie on the other side of the plane.
    """
    if not symmetry.plane.is_clear:
        return ()
    regions = _Regions.of(symmetry, np.asarray(table, np.int64))
    fit = _fits(regions)
    best = fit.argmax(axis=1) if fit.size else np.empty(0, np.int64)
    found = [
        (left, int(right))
        for left, right in enumerate(best)
        if fit[left, right] >= CONSTANTS.least_fit
        and fit[:, right].argmax() == left
        and regions.side[left] > 0
    ]
    found.sort(key=lambda pair: -regions.volumes_ml[list(pair)].sum())
    ids = regions.ids
    return tuple(
        MirrorPair(int(ids[one]), int(ids[other]), round(float(fit[one, other]), 3))
        for one, other in found
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Regions:
    """What regions are compared by, one row per region that lies on one side.

    `side` is 1 on the patient's left and -1 on the right.
    """

    ids: NDArray[np.int64]
    side: NDArray[np.int64]
    middles_mm: NDArray[np.float64]
    mirrored_mm: NDArray[np.float64]
    extents_mm: NDArray[np.float64]
    volumes_ml: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, symmetry: Symmetry, table: NDArray[np.int64]) -> _Regions:
        grid, plane, tables = symmetry.tables.grid, symmetry.plane, symmetry.tables
        region = table[grid.supervoxels[tuple(grid.inside.T)]]
        points = (grid.inside * grid.spacing_zyx_mm)[region > 0]
        region = region[region > 0]
        bins = int(table.max(initial=0)) + 1
        count = np.bincount(region, minlength=bins)
        held = np.maximum(count, 1)

        def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
            return np.asarray(np.bincount(region, values, minlength=bins) / held)

        middles = np.column_stack([mean(axis) for axis in points.T])
        spread = ((points - middles[region]) ** 2).sum(axis=1)
        on_left = mean((plane.beyond_mm(points) > 0).astype(np.float64))
        left, right = on_left >= CONSTANTS.one_side, on_left <= 1 - CONSTANTS.one_side
        ids = np.flatnonzero((left | right) & (count > 0))
        return cls(
            ids,
            np.where(left, 1, -1)[ids],
            middles[ids],
            plane.mirrored(middles[ids]),
            np.sqrt(mean(spread)[ids]) + float(grid.spacing_zyx_mm.max()),
            np.asarray(np.bincount(table, tables.sizes_ml, bins)[ids], np.float64),
            _mean_vectors(tables, table, bins)[ids],
        )


def _mean_vectors(
    tables: ScanTables, table: NDArray[np.int64], bins: int
) -> NDArray[np.float64]:
    weight = np.maximum(np.bincount(table, tables.sizes_ml, minlength=bins), 1e-12)
    sums = [
        np.bincount(table, tables.sizes_ml * column, minlength=bins)
        for column in tables.vectors.T
    ]
    return np.column_stack(sums) / weight[:, None]


def _fits(regions: _Regions) -> NDArray[np.float64]:
    """Return how well any two regions fit as mirror images, 0 where they do not."""
    between = regions.mirrored_mm[:, None] - regions.middles_mm[None]
    extent = (regions.extents_mm[:, None] + regions.extents_mm[None]) / 2
    place = np.sqrt((between**2).sum(axis=2)) / extent / CONSTANTS.apart
    logs = np.log(np.maximum(regions.volumes_ml, 1e-12))
    size = np.abs(logs[:, None] - logs[None]) / np.log(CONSTANTS.size_ratio)
    apart = ((regions.vectors[:, None] - regions.vectors[None]) ** 2).sum(axis=2)
    rank = apart.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    unlike = (rank - 1) / max(len(rank) - 1, 1) / CONSTANTS.unlike
    unlike = np.maximum(unlike, unlike.T)
    worst = np.maximum(np.maximum(place, size), unlike)
    fit = 1 - (place + size + np.clip(unlike, 0, None)) / 3
    is_across = regions.side[:, None] * regions.side[None] < 0
    return np.where(is_across & (worst <= 1), np.maximum(fit, 1e-6), 0.0)


def partners(pairs: tuple[MirrorPair, ...]) -> dict[int, int]:
    """Return the partner of every region that has one, by id."""
    return dict(_both_ways(pairs))


def _both_ways(pairs: tuple[MirrorPair, ...]) -> Iterator[tuple[int, int]]:
    for pair in pairs:
        yield pair.left, pair.right
        yield pair.right, pair.left
