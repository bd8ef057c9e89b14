"""Edits by strokes: voxels painted by hand, and scribbles that classify supervoxels.

Points are in RAS+ mm, regions are ids. An edit that cannot be carried out raises
`EditError` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.refine.edits.basic import Edit, EditResult
from napari_strata.refine.edits.spread import (
    spread_by_evidence,
    spread_by_first_method,
)
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.state.assignment import (
    Scope,
    State,
    Stroke,
    assign_supervoxels,
    paint_voxels,
    painted_at,
    region_of_voxels,
    require_target,
    supervoxel_table,
    supervoxels_at_voxels,
    with_ids,
)
from napari_strata.refine.state.fragments import (
    assign_voxels,
    nearer_voxels,
    roots,
)
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.volume import BACKGROUND


@dataclass(frozen=True, slots=True, eq=False)
class Paint:
    """Paint voxels with a region; painted voxels override supervoxels."""

    points_ras_mm: NDArray[np.float64]
    region: int
    kind: ClassVar[str] = "paint"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Paint the voxels that are not in locked regions."""
        voxels = index.flat_from_ras(self.points_ras_mm)
        free = voxels[_unlocked(state, index, voxels)]
        if len(free) == 0:
            raise EditError(
                "All of these voxels lie in locked regions. Unlock them to paint there."
            )
        state = paint_voxels(
            require_target(state, index, self.region), free, self.region
        )
        skipped = (
            f" ({len(voxels) - len(free)} skipped in locked regions)"
            if len(free) < len(voxels)
            else ""
        )
        return EditResult(
            state,
            f"Paint: {state.name(self.region)}, {len(free)} voxels{skipped}",
            (self.region,),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scribble:
    """Assign the supervoxels under a stroke to a region, and classify similar ones.

    Parameters
    ----------
    points_ras_mm, region, scope
        The stroke: points (n, 3) in RAS+ mm, its region, and how far it spreads.
    by_intensity : bool or None
        Whether intensities were used to cut supervoxels; None if none was cut.
    reach : (float, float) or None
        Reach in mm and tolerance in standard deviations, see `Reach`. None in edits of
        versions up to 0.19, which are repeated with their own method.
    """

    points_ras_mm: NDArray[np.float64]
    region: int
    scope: Scope
    by_intensity: bool | None = None
    reach: tuple[float, float] | None = None
    kind: ClassVar[str] = "scribble"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign the supervoxels under the stroke, then classify others within the scope."""
        voxels = index.flat_from_ras(self.points_ras_mm)
        free = voxels[_unlocked(state, index, voxels)]
        if len(free) == 0:
            raise EditError(
                "All of the stroke lies in locked regions. Unlock them to scribble"
                " there."
            )
        state = before = require_target(state, index, self.region)
        state, by_intensity = _take_stroke(
            state, index, Stroke(free, self.region, self.scope), self.by_intensity
        )
        here = self.scope == "here"
        if self.reach is None:
            crossed = np.unique(index.supervoxels_at(free))
            state = spread_by_first_method(
                state, index, crossed, self.region, here=here
            )
        else:
            reach = Reach(*self.reach)
            state = spread_by_evidence(
                before, state, index, self.region, reach, here=here
            )
        skipped = (
            f" ({len(voxels) - len(free)} skipped in locked regions)"
            if len(free) < len(voxels)
            else ""
        )
        name = f"Scribble: {state.name(self.region)}, {len(free)} voxels{skipped}"
        return EditResult(
            with_ids(state, index),
            name,
            (self.region,),
            replace(self, by_intensity=by_intensity),
        )


def previewed_result(
    edit: Edit, state: State, index: ProposalIndex
) -> EditResult | None:
    """Return the result of a preview of the same scribble in the same state, if any."""
    for before, scribble, outcome in index.previewed:
        if before is state and isinstance(edit, Scribble) and _is_same(edit, scribble):
            found: EditResult = outcome
            return found
    return None


def _is_same(one: Scribble, other: Scribble) -> bool:
    asked = (one.region, one.scope, one.by_intensity, one.reach) == (
        other.region,
        other.scope,
        other.by_intensity,
        other.reach,
    )
    return asked and np.array_equal(one.points_ras_mm, other.points_ras_mm)


def _unlocked(
    state: State, index: ProposalIndex, flat_voxels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    free: NDArray[np.bool_] = ~np.isin(
        region_of_voxels(state, index, flat_voxels), state.locked_ids()
    )
    return free


def _evidence(state: State) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return all stroked voxels (flat, ascending) and the region of the latest stroke there."""
    if not state.strokes:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    voxels = np.concatenate([s.voxels for s in reversed(state.strokes)])
    lengths = [len(s.voxels) for s in reversed(state.strokes)]
    regions = np.repeat(
        [state.current_id(s.region) for s in reversed(state.strokes)], lengths
    )
    found, first = np.unique(voxels, return_index=True)
    return found, regions[first].astype(np.int32)


def _take_stroke(
    state: State, index: ProposalIndex, stroke: Stroke, by_intensity: bool | None
) -> tuple[State, bool | None]:
    """Assign the supervoxels that a stroke crosses to its region.

    A supervoxel that is also crossed by strokes of another region is cut between them.
    """
    earlier, earlier_regions = _evidence(state)
    state = replace(state, strokes=(*state.strokes, stroke))
    seen, regions = _evidence(state)
    held, holders = (
        supervoxels_at_voxels(state, index, stroke.voxels),
        supervoxels_at_voxels(state, index, seen),
    )
    crossed = np.unique(held)
    locked = np.isin(supervoxel_table(state, index)[crossed], state.locked_ids())
    taken = ~locked & ~_strayed(index, stroke, roots(state, index, crossed))
    lost = np.isin(held, crossed[~taken])
    rival = (state.pinned[holders] == regions) & (regions != stroke.region)
    contested = np.isin(crossed, holders[rival])
    before = state
    for supervoxel in crossed[taken & contested].tolist():
        by_intensity = index.has_scan if by_intensity is None else by_intensity
        inside = holders == supervoxel
        seeds = seen[inside & (regions == stroke.region)], seen[inside & rival]
        mine = nearer_voxels(
            before, index, supervoxel, *seeds, by_intensity=by_intensity
        )
        state = assign_voxels(
            state, index, mine, np.full(len(mine), stroke.region), pin=True
        )
    state = assign_supervoxels(
        state, crossed[taken & ~contested], stroke.region, pin=True
    )
    # Strokes paint voxels only in blocks of background (see `_strayed`). Voxels painted
    # elsewhere come from the brush and are kept.
    in_air = index.feature_space.background[index.supervoxels_at(stroke.voxels)]
    by_stroke = in_air & _painted_by(state, stroke.voxels, earlier, earlier_regions)
    painted = stroke.voxels[by_stroke | (lost & (painted_at(state, stroke.voxels) < 0))]
    return paint_voxels(state, painted, stroke.region), by_intensity


def _strayed(
    index: ProposalIndex, stroke: Stroke, crossed: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Return a mask of crossed background blocks that a stroke only strays into.

    Such blocks are not assigned; only their voxels under the stroke are painted.
    """
    background = index.feature_space.background
    outside = background[index.supervoxels_at(stroke.voxels)]
    if stroke.region == BACKGROUND or 2 * outside.sum() > len(outside):
        return np.zeros(len(crossed), np.bool_)
    strayed: NDArray[np.bool_] = background[crossed]
    return strayed


def _painted_by(
    state: State,
    voxels: NDArray[np.int64],
    earlier: NDArray[np.int64],
    earlier_regions: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Return a mask of voxels that an earlier stroke painted, not the brush.

    A later stroke may repaint those.
    """
    if len(earlier) == 0:
        return np.zeros(len(voxels), np.bool_)
    place = np.minimum(np.searchsorted(earlier, voxels), len(earlier) - 1)
    same: NDArray[np.bool_] = (earlier[place] == voxels) & (
        painted_at(state, voxels) == earlier_regions[place]
    )
    return same
