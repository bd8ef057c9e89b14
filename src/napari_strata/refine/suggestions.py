"""Where a person's next look is worth most: the largest places of which the machine is least sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.refine.owner import NOT_GIVEN, State, painted_at, region_table
from napari_strata.refine.pieces import Pieces

_PER_REGION = 3


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A place to look at.

    Parameters
    ----------
    region : int
        The region that it is shown as.
    ras_mm : tuple of 3 float
        Where it is, RAS+ mm.
    voxel_zyx : tuple of 3 int
        The same as array indices.
    reason : str
        Why it is worth a look, one sentence.
    """

    region: int
    ras_mm: tuple[float, float, float]
    voxel_zyx: tuple[int, int, int]
    reason: str


def suggest(state: State, pieces: Pieces, n: int) -> list[Suggestion]:
    """Rank uncertain supervoxels of the body by (1 - confidence) x voxels, at most three per region at first.

    Supervoxels that a person pointed at, painted over or locked are left out.
    """
    proposal = pieces.proposal
    table = region_table(state, pieces)
    worth = (1 - proposal.confidence) * pieces.sizes_vox
    background = proposal.region_tree.leaf_order[: proposal.region_tree.n_background]
    worth[background[table[background] == 0]] = 0
    worth[(state.given != NOT_GIVEN) | np.isin(table, state.locked_ids())] = 0
    ranked = np.argsort(-worth, kind="stable")
    ranked = ranked[worth[ranked] > 0]
    turn = np.zeros(len(ranked), np.int64)
    order = np.argsort(table[ranked], kind="stable")
    starts = np.flatnonzero(np.diff(table[ranked][order], prepend=-1))
    turn[order] = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.append(starts, len(ranked))))
    spread = ranked[np.argsort(turn // _PER_REGION > 0, kind="stable")]
    found = [_suggestion(pieces, int(i), int(table[i])) for i in spread[: 2 * n]]
    flat = np.array([np.ravel_multi_index(s.voxel_zyx, proposal.supervoxels.shape) for s in found], np.int64)
    unpainted = painted_at(state, flat) < 0
    return [s for s, keep in zip(found, unpainted, strict=True) if keep][:n]


def _suggestion(pieces: Pieces, supervoxel: int, region: int) -> Suggestion:
    voxel = _inner_voxel(pieces, supervoxel)
    point = pieces.proposal.volume.geometry.world_from_voxel(voxel)
    confidence = float(pieces.proposal.confidence[supervoxel])
    volume_ml = pieces.sizes_vox[supervoxel] * pieces.proposal.volume.geometry.voxel_volume_mm3 / 1000
    reason = f"Confidence {confidence:.2f} over {volume_ml:.2g} mL."
    z, y, x = (int(v) for v in voxel)
    right, anterior, superior = (float(v) for v in point)
    return Suggestion(region, (right, anterior, superior), (z, y, x), reason)


def place_in(state: State, pieces: Pieces, region: int) -> tuple[int, int, int]:
    """Give a voxel (z, y, x) of a region, near its middle.

    Raises
    ------
    EditError
        If no voxel shows it.
    """
    members = np.flatnonzero(region_table(state, pieces) == region)
    if len(members) == 0:
        painted = state.painted_voxels[state.painted_regions == region]
        if len(painted) == 0:
            raise EditError(f"{state.name(region)} (id {region}) has no voxel in the scan.")
        voxel = np.stack(np.unravel_index(painted[len(painted) // 2], pieces.proposal.supervoxels.shape))
    else:
        spacing = pieces.proposal.volume.spacing_zyx_mm
        middles = (pieces.boxes[members, :3] + pieces.boxes[members, 3:]) / 2 * spacing
        centre = np.average(middles, axis=0, weights=pieces.sizes_vox[members])
        voxel = _inner_voxel(pieces, int(members[((middles - centre) ** 2).sum(axis=1).argmin()]))
    z, y, x = (int(v) for v in voxel)
    return z, y, x


def _inner_voxel(pieces: Pieces, supervoxel: int) -> NDArray[np.int64]:
    """Give the voxel of a supervoxel that is nearest to its centre of mass, in mm."""
    start, stop = pieces.boxes[supervoxel, :3], pieces.boxes[supervoxel, 3:]
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    voxels = np.argwhere(pieces.proposal.supervoxels[box] == supervoxel)
    away = (voxels - voxels.mean(axis=0)) * pieces.proposal.volume.spacing_zyx_mm
    return np.asarray(voxels[(away**2).sum(axis=1).argmin()] + start, np.int64)
