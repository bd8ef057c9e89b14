"""Ranking of places to review, with reasons.

The weight of each reason is learnt from the user's strokes so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.refine.state.assignment import (
    NOT_PINNED,
    State,
    loose_voxels,
    painted_at,
    region_table,
)
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.suggestions.uncertainty import (
    REASONS,
    Uncertainty,
    estimate_uncertainty,
)

_PER_REGION = 3
_APART_MM = 12.0
_PLAUSIBLE = 200


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A place to review.

    Parameters
    ----------
    region : int
        The region that the place has now.
    ras_mm : tuple of 3 float
        Position in RAS+ mm.
    voxel_zyx : tuple of 3 int
        Position as array indices.
    reason : str
        One sentence on why the place should be reviewed.
    kind : str
        The main reason, one of `uncertainty.REASONS` or "outlier".
    """

    region: int
    ras_mm: tuple[float, float, float]
    voxel_zyx: tuple[int, int, int]
    reason: str
    kind: str = "confidence"


def suggest(
    state: State, index: ProposalIndex, n: int, *, seed: int = 0
) -> list[Suggestion]:
    """Return places of the body to review, ranked by the volume that may be wrong there.

    The volume around a supervoxel is weighted by its uncertainty (see
    `estimate_uncertainty`), in which each reason counts by how well it predicted this
    user's corrections. Supervoxels that were stroked, assigned, painted over or locked
    are left out. Places close to a better one, and more than three places of a region,
    come last.
    """
    if n <= 0:
        return []
    proposal = index.proposal
    table = region_table(state, index)
    found = estimate_uncertainty(state, index, seed=seed)
    worth = found.at_risk_vox.copy()
    background = index.feature_space.background
    worth[background & (table == 0)] = 0
    worth[(state.pinned != NOT_PINNED) | np.isin(table, state.locked_ids())] = 0
    ranked = np.argsort(-worth, kind="stable")
    ranked = _apart(ranked[worth[ranked] > 0][: _PLAUSIBLE * n], index)
    spread = _spread(ranked, table)
    places = [
        _suggestion(state, index, found, int(i), int(table[i])) for i in spread[: 2 * n]
    ]
    flat = np.array(
        [np.ravel_multi_index(s.voxel_zyx, proposal.supervoxels.shape) for s in places],
        np.int64,
    )
    unpainted = painted_at(state, flat) < 0
    return [s for s, keep in zip(places, unpainted, strict=True) if keep][:n]


def outlier_places(state: State, index: ProposalIndex) -> list[Suggestion]:
    """Return a place in each region that is unlike the rest, the most unlike first.

    Regions whose place was stroked, assigned, painted over or locked are left out.
    """
    places, locked = [], state.locked_ids()
    table = region_table(state, index)
    for outlier in index.outliers:
        supervoxel = int(index.proposal.supervoxels[outlier.voxel_zyx])
        flat = np.ravel_multi_index(outlier.voxel_zyx, index.proposal.supervoxels.shape)
        is_done = (
            state.pinned[supervoxel] != NOT_PINNED
            or table[supervoxel] in locked
            or painted_at(state, np.array([flat], np.int64))[0] >= 0
        )
        if not is_done:
            places.append(
                Suggestion(
                    int(table[supervoxel]),
                    outlier.ras_mm,
                    outlier.voxel_zyx,
                    outlier.sentence,
                    "outlier",
                )
            )
    return places


def _spread(ranked: NDArray[np.intp], table: NDArray[np.int32]) -> NDArray[np.intp]:
    """Move places beyond the third of their region to the end."""
    turn = np.zeros(len(ranked), np.int64)
    order = np.argsort(table[ranked], kind="stable")
    starts = np.flatnonzero(np.diff(table[ranked][order], prepend=-1))
    turn[order] = np.arange(len(ranked)) - np.repeat(
        starts, np.diff(np.append(starts, len(ranked)))
    )
    return ranked[np.argsort(turn // _PER_REGION > 0, kind="stable")]


def _apart(ranked: NDArray[np.intp], index: ProposalIndex) -> NDArray[np.intp]:
    """Move places close to a better one to the end, as both are visible at once.

    In a small scan, close means an eighth of the body.
    """
    centers, later = (
        index.feature_space.centers_mm[ranked],
        np.zeros(len(ranked), np.bool_),
    )
    apart_mm = min(
        _APART_MM, float(np.ptp(index.feature_space.centers_mm, axis=0).max()) / 8
    )
    for k in range(len(ranked)):
        if not later[k]:
            near = ((centers[k + 1 :] - centers[k]) ** 2).sum(axis=1) < apart_mm**2
            later[k + 1 :] |= near
    return ranked[np.argsort(later, kind="stable")]


def _suggestion(
    state: State, index: ProposalIndex, found: Uncertainty, supervoxel: int, region: int
) -> Suggestion:
    voxel = _inner_voxel(index, supervoxel)
    point = index.proposal.volume.geometry.world_from_voxel(voxel)
    kind = REASONS[int(found.main_reason[supervoxel])]
    z, y, x = (int(v) for v in voxel)
    right, anterior, superior = (float(v) for v in point)
    return Suggestion(
        region,
        (right, anterior, superior),
        (z, y, x),
        _sentence(state, index, found, supervoxel, kind),
        kind,
    )


def _sentence(
    state: State, index: ProposalIndex, found: Uncertainty, supervoxel: int, kind: str
) -> str:
    volume_ml = (
        index.sizes_vox[supervoxel]
        * index.proposal.volume.geometry.voxel_volume_mm3
        / 1000
    )
    if kind == "strokes":
        return (
            f"Could as well be {state.name(int(found.rival[supervoxel]))}, by the"
            " strokes so far."
        )
    if kind == "unlike":
        return "Unlike everything that strokes showed so far."
    if kind == "neighbours":
        return "Most of what touches it is in other regions."
    return (
        f"Confidence {float(index.proposal.confidence[supervoxel]):.2f} over"
        f" {volume_ml:.2g} mL."
    )


def place_in(state: State, index: ProposalIndex, region: int) -> tuple[int, int, int]:
    """Return a voxel (z, y, x) of a region, near its middle.

    Raises
    ------
    EditError
        If the region has no voxel.
    """
    members = np.flatnonzero(region_table(state, index) == region)
    if len(members) == 0:
        voxels, taken = loose_voxels(state, index)
        painted = voxels[taken == region]
        if len(painted) == 0:
            raise EditError(
                f"{state.name(region)} (id {region}) has no voxel in the scan."
            )
        voxel = np.stack(
            np.unravel_index(
                painted[len(painted) // 2], index.proposal.supervoxels.shape
            )
        )
    else:
        spacing = index.proposal.volume.spacing_zyx_mm
        middles = (index.boxes[members, :3] + index.boxes[members, 3:]) / 2 * spacing
        centre = np.average(middles, axis=0, weights=index.sizes_vox[members])
        voxel = _inner_voxel(
            index, int(members[((middles - centre) ** 2).sum(axis=1).argmin()])
        )
    z, y, x = (int(v) for v in voxel)
    return z, y, x


def _inner_voxel(index: ProposalIndex, supervoxel: int) -> NDArray[np.int64]:
    """Return the voxel of a supervoxel nearest to its centre of mass, in mm."""
    start, stop = index.boxes[supervoxel, :3], index.boxes[supervoxel, 3:]
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    voxels = np.argwhere(index.proposal.supervoxels[box] == supervoxel)
    away = (voxels - voxels.mean(axis=0)) * index.proposal.volume.spacing_zyx_mm
    return np.asarray(voxels[(away**2).sum(axis=1).argmin()] + start, np.int64)
