"""Regions of a scan that are unlike the rest of it. No diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_strata.proposal.reading.coarse_grid import CoarseGrid
from napari_strata.proposal.reading.fine_regions import (
    FineNodes,
    FineRegions,
    fine_nodes,
    fine_regions,
)
from napari_strata.proposal.reading.scan_tables import ScanTables
from napari_strata.proposal.reading.symmetry_plane import (
    CONSTANTS as SYMMETRY,
)
from napari_strata.proposal.reading.symmetry_plane import (
    Symmetry,
    SymmetryPlane,
)


@dataclass(frozen=True, slots=True)
class OutlierConstants:
    """Constants that decide which regions are outliers."""

    fine_regions: int = 1000
    """Regions that are compared with each other: about 1.5 mL each in a brain."""
    least_ml: float = 2.0
    """Smallest outlier, 1.5 cm across; smaller ones are noise and partial volume."""
    least_share: float = 0.0015
    """The same as a share of the body, for small bodies (a mouse's)."""
    most_share: float = 0.25
    """Largest outlier, as a share of the body: half of a brain is no outlier of it."""
    size_power: float = 1 / 3
    """Power of the share of the body that a score counts with: a third counts by extent.
    From 0.15 to 0.33 it ranks the tumours of docs/proposal.md alike."""
    full_symmetry: float = 0.8
    """Symmetry of the body from which asymmetry counts in full, in steps from the least
    that is clear: bellies are less symmetric than heads."""
    reach: float = 2.0
    """Coarse voxels (8 mm in a head) around a mirrored place that are compared too."""
    least_overlap: float = 0.1
    """Share of a region's mirrored places that its partner must hold."""
    alone: float = 1.0
    """Isolation, in usual distances, from which a region is said to be like no other."""
    lopsided: float = 2.0
    """Difference from the mirrored place, in usual ones, that is given as a reason."""
    tail: float = 0.1
    """Share of the body at either end of the intensities that is given as a reason."""


CONSTANTS = OutlierConstants()


@dataclass(frozen=True, slots=True, eq=False)
class Outlier:
    """A region of the tree that is unlike the rest of the scan.

    Parameters
    ----------
    score : float
        Rank order of outliers; 0 for a region like others.
    volume_ml : float
        Volume.
    supervoxels : (k,) int32 array
        Its supervoxels.
    voxel_zyx : tuple of 3 int
        A voxel of it, near its middle.
    ras_mm : tuple of 3 float
        That voxel in RAS+ mm.
    reasons : tuple of str
        What is unlike the rest, plainly; empty if nothing stands out much.
    """

    score: float
    volume_ml: float
    supervoxels: NDArray[np.int32]
    voxel_zyx: tuple[int, int, int]
    ras_mm: tuple[float, float, float]
    reasons: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for a sidecar."""
        return {
            "score": self.score,
            "volume_ml": float(f"{self.volume_ml:.4g}"),
            "center_ras_mm": [round(x, 2) for x in self.ras_mm],
            "reasons": list(self.reasons),
        }

    @property
    def sentence(self) -> str:
        """Why it is shown, in one sentence."""
        why = ", ".join(self.reasons) or "a little"
        return f"Unlike the rest: {why} ({_millilitres(self.volume_ml)})."


def find_outliers(symmetry: Symmetry, n: int) -> tuple[Outlier, ...]:
    """Rank the regions of a tree by how unlike the rest of the scan they are.

    Parameters
    ----------
    symmetry : Symmetry
        The scan's tables and plane of symmetry.
    n : int
        How many to return at most. No two of them overlap.

    Returns
    -------
    tuple of Outlier
        The most unlike first.

    Notes
    -----
    Fine regions are compared by intensity and features. A node of the tree is isolated by
    as much as its parts are farther from everything outside the node than from each
    other (the idea of the silhouette, Rousseeuw 1987, with nearest instead of mean
    distances). Where the body is symmetric, asymmetry is how much more than usual a node
    differs from its mirrored place. The score is ``(1 + isolation) (1 + asymmetry) - 1``
    times the extent, the cube root of the volume, so that a whole lesion comes before a
    part of it.
    """
    tables = symmetry.tables
    if n < 1 or tables.tree.max_regions < 3:
        return ()
    count = min(CONSTANTS.fine_regions, tables.tree.max_regions)
    regions = fine_regions(tables, count)
    measured = _measure(tables, regions, symmetry.plane)
    chosen = list(_apart(measured, n))
    return tuple(_outlier(tables, regions, measured, node) for node in chosen)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Nodes of allowed sizes; distances in those of a usual region to its nearest one."""

    nodes: FineNodes
    volumes_ml: NDArray[np.float64]
    isolation: NDArray[np.float64]
    asymmetry: NDArray[np.float64]
    scores: NDArray[np.float64]


def _measure(
    tables: ScanTables, regions: FineRegions, plane: SymmetryPlane
) -> _Measured:
    nodes = fine_nodes(tables.tree, regions)
    before = np.concatenate([[0.0], np.cumsum(regions.volumes_ml)])
    volumes = before[nodes.ends] - before[nodes.begins]
    body_ml = float(before[-1])
    least = min(CONSTANTS.least_ml, CONSTANTS.least_share * body_ml)
    is_sized = (volumes >= least) & (volumes <= CONSTANTS.most_share * body_ml)
    nodes = FineNodes(nodes.begins[is_sized], nodes.ends[is_sized])
    volumes = volumes[is_sized]
    isolation = _isolation(regions, nodes)
    asymmetry, symmetry = np.ones(len(volumes)), 0.0
    if plane.is_clear:
        lopsided = _asymmetry(tables.grid, regions, plane) * regions.volumes_ml
        total = np.concatenate([[0.0], np.cumsum(lopsided)])
        asymmetry = (total[nodes.ends] - total[nodes.begins]) / volumes
        least = SYMMETRY.least_symmetry
        symmetry = (plane.symmetry - least) / (CONSTANTS.full_symmetry - least)
    excess = min(symmetry, 1.0) * np.maximum(asymmetry - 1, 0.0)
    share = volumes / max(body_ml, 1e-12)
    scores = ((1 + isolation) * (1 + excess) - 1) * share**CONSTANTS.size_power
    return _Measured(nodes, volumes, isolation, asymmetry, scores)


def _isolation(regions: FineRegions, nodes: FineNodes) -> NDArray[np.float64]:
    """Return how much farther a node's parts are from all else than from each other."""
    apart = regions.apart.copy()
    np.fill_diagonal(apart, np.inf)
    usual = float(np.median(apart.min(axis=1)))
    found = np.zeros(len(nodes.begins))
    for k, (begin, end) in enumerate(
        zip(nodes.begins.tolist(), nodes.ends.tolist(), strict=True)
    ):
        weight = regions.volumes_ml[begin:end]
        outside = np.minimum(
            apart[begin:end, :begin].min(axis=1, initial=np.inf),
            apart[begin:end, end:].min(axis=1, initial=np.inf),
        )
        inside = apart[begin:end, begin:end].min(axis=1) if end - begin > 1 else usual
        found[k] = float((weight * (outside - inside)).sum() / weight.sum())
    return np.maximum(found, 0.0) / max(usual, 1e-9)


def _asymmetry(
    grid: CoarseGrid, regions: FineRegions, plane: SymmetryPlane
) -> NDArray[np.float64]:
    """Return how unlike its mirrored place each region is, in usual differences.

    Compared are all regions that hold a tenth of its mirrored places, or of places
    beside them; the most alike counts. 1 for a region whose mirrored place is outside the
    body.
    """
    n = len(regions.volumes_ml)
    reach = CONSTANTS.reach * np.cbrt(np.prod(grid.spacing_zyx_mm))
    around = np.vstack([np.zeros(3), np.eye(3), -np.eye(3)]) * reach
    here = regions.of_supervoxel[grid.supervoxels[tuple(grid.inside.T)]]
    mirrored = plane.mirrored(grid.inside * grid.spacing_zyx_mm)
    there = np.concatenate(
        [
            grid.look_up(
                (mirrored + shift) / grid.spacing_zyx_mm, regions.of_supervoxel
            )
            for shift in around
        ]
    )
    one = np.tile(here, len(around))[there >= 0]
    pairs = sparse.coo_array(
        (np.ones(len(one)), (one, there[there >= 0])), shape=(n, n)
    ).tocsr()
    pairs.sum_duplicates()
    shared = pairs.tocoo()
    row, column = shared.coords
    held = np.bincount(here, minlength=n)
    is_partner = shared.data >= CONSTANTS.least_overlap * held[row]
    least = np.full(n, np.inf)
    np.minimum.at(
        least, row[is_partner], regions.apart[row[is_partner], column[is_partner]]
    )
    is_known = np.isfinite(least)
    usual = float(np.median(least[is_known])) if is_known.any() else 1.0
    return np.where(is_known, least / max(usual, 1e-9), 1.0)


def _apart(measured: _Measured, n: int) -> Iterator[int]:
    """Return the best nodes that do not overlap, best first."""
    begins, ends, found = measured.nodes.begins, measured.nodes.ends, 0
    is_free = measured.scores > 0
    for node in np.argsort(-measured.scores, kind="stable").tolist():
        if found == n:
            return
        if not is_free[node]:
            continue
        found += 1
        is_free &= (ends <= begins[node]) | (begins >= ends[node])
        yield node


def _outlier(
    tables: ScanTables, regions: FineRegions, measured: _Measured, node: int
) -> Outlier:
    first = int(regions.starts[measured.nodes.begins[node]])
    last = int(regions.stops[measured.nodes.ends[node] - 1])
    members = np.sort(tables.tree.leaf_order[first:last])
    voxel = _inner_voxel(tables, members)
    right, anterior, superior = tables.geometry.world_from_voxel(voxel).tolist()
    return Outlier(
        round(float(measured.scores[node]), 4),
        float(measured.volumes_ml[node]),
        members,
        voxel,
        (right, anterior, superior),
        tuple(_reasons(tables, measured, node, members)),
    )


def _inner_voxel(
    tables: ScanTables, members: NDArray[np.integer]
) -> tuple[int, int, int]:
    """Return the coarse voxel of a region that is nearest to its middle."""
    grid = tables.grid
    is_member = np.zeros(len(tables.sizes_ml), np.bool_)
    is_member[members] = True
    places = grid.inside[is_member[grid.supervoxels[tuple(grid.inside.T)]]]
    if not len(places):
        places = grid.inside[:1]
    away = (places - places.mean(axis=0)) * grid.spacing_zyx_mm
    return grid.scan_voxel(places[(away**2).sum(axis=1).argmin()])


def _reasons(
    tables: ScanTables, measured: _Measured, node: int, members: NDArray[np.integer]
) -> Iterator[str]:
    if measured.isolation[node] >= CONSTANTS.alone:
        yield "no other part of the scan looks like it"
    if measured.asymmetry[node] >= CONSTANTS.lopsided:
        yield "its mirrored place looks different"
    darker = float(np.average(tables.rank[members], weights=tables.sizes_ml[members]))
    if darker >= 1 - CONSTANTS.tail:
        yield f"brighter than {darker:.0%} of the body"
    elif darker <= CONSTANTS.tail:
        yield f"darker than {1 - darker:.0%} of the body"


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:.1f} mL" if volume_ml < 10 else f"{volume_ml:.0f} mL"
