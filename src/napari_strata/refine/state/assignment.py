"""The assignment table: the region of each supervoxel.

A `State` is never changed in place. Edits return a new one, so an edit that fails
changes nothing, and undo applies the difference between two states. Tables have n + k
rows: n supervoxels, then k fragments that were cut from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import TreeName
from napari_strata.proposal.reading.palette import Color
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.state.sparse_voxels import looked_up, overlaid
from napari_strata.volume import BACKGROUND, Region, default_regions, region_color

FOLLOW = -1
"""Value in `State.assigned` of a supervoxel that follows the current cut."""
NOT_PINNED = -1
"""Value in `State.pinned` of a supervoxel that was neither stroked nor assigned by hand."""
NOT_SPREAD = -2
"""Value in `State.before_spread` of a supervoxel that no scribble elsewhere changed."""
MAX_REGION_ID = 1_000_000
"""Largest region id."""

Scope = Literal["everywhere", "here"]


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """Voxels of one scribble, and their region.

    Parameters
    ----------
    voxels : (k,) int64 array
        Flat voxel indices.
    region : int
        The region's id at that time; `State.current_id` returns today's.
    scope : {"everywhere", "here"}
        How far the scribble spreads.
    """

    voxels: NDArray[np.int64]
    region: int
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that edits change; immutable.

    Parameters
    ----------
    assigned : (n + k,) int32 array
        Region assigned to each supervoxel or fragment by an edit, or `FOLLOW`.
    pinned : (n + k,) int32 array
        Region of those that a user stroked or assigned, otherwise `NOT_PINNED`.
        Scribbles elsewhere never change them.
    before_spread : (n + k,) int32 array
        Value of `assigned` before a scribble elsewhere changed it, otherwise
        `NOT_SPREAD`. Later strokes can restore it.
    tree, n : {"regions", "tissues"}, int
        The cut that supervoxels with `FOLLOW` follow.
    rank_ids : dict of (max_regions,) int32 arrays
        Per tree, the region id of rank 1, 2 ...; 0 for a rank without an id, or whose
        region was edited and no longer follows the cut.
    rows : dict of Region
        Rows of regions that no longer follow the cut.
    merged : dict of int
        Ids that were merged into another region, and its id.
    painted_voxels, painted_regions : (p,) int64 array, (p,) int32 array
        Hand-painted voxels (flat, ascending) and their region ids.
    leaf_parents : (k,) int32 array
        Supervoxel of each fragment. Row i < n of a table is the rest of supervoxel i,
        row n + j the j-th fragment.
    cut_voxels, cut_supervoxels : (m,) int64 array, (m,) int32 array
        Voxels (flat, ascending) that were cut from their supervoxel, and the fragment
        of each.
    strokes : tuple of Stroke
        All strokes, oldest first.
    next_id : int
        The next unused region id.
    colors : dict of tuple of colors
        Per tree, the colours of ranks 1, 2, ...; see `Proposal.colors`. No edit changes
        them and no file holds them.
    """

    assigned: NDArray[np.int32]
    pinned: NDArray[np.int32]
    before_spread: NDArray[np.int32]
    tree: TreeName
    n: int
    rank_ids: dict[TreeName, NDArray[np.int32]]
    rows: dict[int, Region] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    painted_voxels: NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, np.int64)
    )
    painted_regions: NDArray[np.int32] = field(
        default_factory=lambda: np.empty(0, np.int32)
    )
    strokes: tuple[Stroke, ...] = ()
    next_id: int = 1
    leaf_parents: NDArray[np.int32] = field(
        default_factory=lambda: np.empty(0, np.int32)
    )
    cut_voxels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    cut_supervoxels: NDArray[np.int32] = field(
        default_factory=lambda: np.empty(0, np.int32)
    )
    colors: Mapping[TreeName, tuple[Color, ...]] = field(default_factory=dict)

    def current_id(self, region: int) -> int:
        """Return the id of a region, or of the region that absorbed it in a merge."""
        return self.merged.get(region, region)

    def row(self, region: int) -> Region:
        """Return the row of a region: its edited row, or the default one of its tree."""
        if region in self.rows:
            return self.rows[region]
        return self.rows_of([region])[0]

    def rows_of(self, regions: Sequence[int]) -> tuple[Region, ...]:
        """Return the rows of some regions; see `row`."""
        following: dict[int, Region] = {}
        if any(i not in self.rows for i in regions):
            for tree, ids in self.rank_ids.items():
                following |= {row.id: row for row in _following_rows(self, tree, ids)}
        return tuple(
            self.rows.get(i) or following.get(i) or default_regions([i])[0]
            for i in regions
        )

    def expected_rows(self) -> tuple[Region, ...]:
        """Return the rows that finer cuts of the current tree will add, if nothing else does.

        Who paints regions can be ready for their colours.
        """
        ids = self.rank_ids[self.tree][: len(self.colors.get(self.tree, ()))]
        missing = self.n + np.flatnonzero(ids[self.n :] == 0)
        expected = np.zeros_like(ids)
        expected[missing] = np.arange(self.next_id, self.next_id + len(missing))
        return _following_rows(self, self.tree, expected)

    def name(self, region: int) -> str:
        """Return a region's name, "background" for region 0."""
        return "background" if region == BACKGROUND else self.row(region).name

    def locked_ids(self) -> NDArray[np.int32]:
        """Return the ids of locked regions."""
        return np.array(
            sorted(i for i, row in self.rows.items() if row.locked), np.int32
        )


def _following_rows(
    state: State, tree: TreeName, ids: NDArray[np.int32]
) -> tuple[Region, ...]:
    """Return the rows of the ids of ranks 1, 2, ... of a tree, leaving out 0."""
    colors, kind = state.colors.get(tree, ()), tree.removesuffix("s")
    return tuple(
        Region(
            int(ids[rank]),
            f"{kind} {ids[rank]}",
            colors[rank] if rank < len(colors) else region_color(int(ids[rank])),
        )
        for rank in np.flatnonzero(ids).tolist()
    )


def start_state(index: ProposalIndex, tree: TreeName, n: int) -> State:
    """Return the state before the first edit: `tree` cut at n, nothing assigned."""
    count = index.proposal.n_supervoxels
    empty = State(
        assigned=np.full(count, FOLLOW, np.int32),
        pinned=np.full(count, NOT_PINNED, np.int32),
        before_spread=np.full(count, NOT_SPREAD, np.int32),
        tree=tree,
        n=n,
        rank_ids={
            "regions": np.zeros(index.proposal.region_tree.max_regions, np.int32),
            "tissues": np.zeros(index.proposal.tissue_tree.max_regions, np.int32),
        },
        colors=index.colors,
    )
    return with_ids(empty, index)


def of_supervoxels(values: NDArray[Any], state: State) -> NDArray[Any]:
    """Extend values of supervoxels (n, ...) to fragments, (n + k, ...).

    A fragment gets the value of its supervoxel.
    """
    return (
        np.concatenate([values, values[state.leaf_parents]])
        if len(state.leaf_parents)
        else values
    )


def _filled(
    assigned: NDArray[np.int32], state: State, index: ProposalIndex
) -> NDArray[np.int32]:
    ids = np.concatenate([np.array([BACKGROUND], np.int32), state.rank_ids[state.tree]])
    return np.where(
        assigned == FOLLOW,
        of_supervoxels(ids[index.ranks(state.tree, state.n)], state),
        assigned,
    )


def supervoxel_table(state: State, index: ProposalIndex) -> NDArray[np.int32]:
    """Return the region of each supervoxel and fragment, (n + k,).

    It is the assigned region, or that of the current cut.
    """
    return _filled(state.assigned, state, index)


def region_table(state: State, index: ProposalIndex) -> NDArray[np.int32]:
    """Return the region of each supervoxel, (n,), without fragments and painted voxels.

    `loose_voxels` returns those.
    """
    return supervoxel_table(state, index)[: index.proposal.n_supervoxels]


def named_regions(state: State) -> NDArray[np.int32]:
    """Return the region of supervoxels in whole regions that a user named or merged.

    It is -1 for the rest. Regions with their default name count only if they have
    strokes.
    """
    taught = {state.current_id(stroke.region) for stroke in state.strokes}
    named = [row.id for row in state.rows.values() if row.id in taught or row.is_named]
    whole = (
        (state.pinned == NOT_PINNED)
        & (state.before_spread == NOT_SPREAD)
        & np.isin(state.assigned, named)
    )
    return np.where(whole, state.assigned, NOT_PINNED).astype(np.int32)


def base_assigned(state: State) -> NDArray[np.int32]:
    """Return the assigned regions without the effect of scribbles elsewhere."""
    return np.where(
        state.before_spread == NOT_SPREAD, state.assigned, state.before_spread
    )


def base_table(state: State, index: ProposalIndex) -> NDArray[np.int32]:
    """Return the regions without the effect of scribbles elsewhere."""
    return _filled(base_assigned(state), state, index)


def with_ids(state: State, index: ProposalIndex) -> State:
    """Return the state with ids for all regions of the current cut, new ones by rank.

    In the first tree in use, ids therefore equal ranks, as in `Proposal.regions`. A rank
    keeps its id in later cuts, until its region is edited.
    """
    ranks = of_supervoxels(index.ranks(state.tree, state.n), state)
    free = (state.assigned == FOLLOW) | (state.before_spread == FOLLOW)
    shown = np.flatnonzero(np.bincount(ranks[free], minlength=1))
    ids = state.rank_ids[state.tree]
    missing = shown[(shown > 0)]
    missing = missing[ids[missing - 1] == 0]
    if len(missing) == 0:
        return state
    ids = ids.copy()
    ids[missing - 1] = np.arange(
        state.next_id, state.next_id + len(missing), dtype=np.int32
    )
    return replace(
        state,
        rank_ids={**state.rank_ids, state.tree: ids},
        next_id=state.next_id + len(missing),
    )


def own_region(state: State, index: ProposalIndex, region: int) -> State:
    """Return the state with a region made permanent: it no longer follows the cut."""
    if region == BACKGROUND:
        return state
    assigned, before_spread = state.assigned.copy(), state.before_spread.copy()
    before_spread[
        (state.before_spread != NOT_SPREAD) & (base_table(state, index) == region)
    ] = region
    assigned[supervoxel_table(state, index) == region] = region
    rows = {**state.rows, region: state.row(region)}
    rank_ids = {
        tree: np.where(ids == region, 0, ids).astype(np.int32)
        for tree, ids in state.rank_ids.items()
    }
    return replace(
        state,
        assigned=assigned,
        before_spread=before_spread,
        rows=rows,
        rank_ids=rank_ids,
        next_id=max(state.next_id, region + 1),
    )


def assign_supervoxels(
    state: State,
    supervoxel_ids: NDArray[np.integer],
    region: int | NDArray[np.integer],
    *,
    pin: bool,
) -> State:
    """Assign supervoxels or fragments to a region (or one region each).

    With `pin`, scribbles elsewhere no longer change them.
    """
    assigned, pinned, before_spread = (
        state.assigned.copy(),
        state.pinned.copy(),
        state.before_spread.copy(),
    )
    assigned[supervoxel_ids] = region
    before_spread[supervoxel_ids] = NOT_SPREAD
    moved = (
        supervoxel_ids if pin else supervoxel_ids[pinned[supervoxel_ids] != NOT_PINNED]
    )
    pinned[moved] = assigned[moved]
    return replace(state, assigned=assigned, pinned=pinned, before_spread=before_spread)


def paint_voxels(state: State, flat_voxels: NDArray[np.int64], region: int) -> State:
    """Set hand-painted voxels (flat, ascending, each once) to a region."""
    painted = overlaid(
        state.painted_voxels,
        state.painted_regions,
        flat_voxels,
        np.full(len(flat_voxels), region, np.int32),
    )
    return replace(state, painted_voxels=painted[0], painted_regions=painted[1])


def painted_at(state: State, flat_voxels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return the painted region of each voxel, -1 where none is painted."""
    return looked_up(state.painted_voxels, state.painted_regions, flat_voxels)


def supervoxels_at_voxels(
    state: State, index: ProposalIndex, flat_voxels: NDArray[np.integer]
) -> NDArray[np.int32]:
    """Return the supervoxel or fragment of each voxel."""
    found = index.supervoxels_at(flat_voxels)
    if len(state.cut_voxels) == 0:
        return found
    cut = looked_up(state.cut_voxels, state.cut_supervoxels, flat_voxels)
    return np.where(cut >= 0, cut, found)


def loose_voxels(
    state: State, index: ProposalIndex
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return all cut or painted voxels (flat, ascending), and the region of each."""
    cut = state.cut_voxels, supervoxel_table(state, index)[state.cut_supervoxels]
    return overlaid(*cut, state.painted_voxels, state.painted_regions)


def region_of_voxels(
    state: State, index: ProposalIndex, flat_voxels: NDArray[np.integer]
) -> NDArray[np.int32]:
    """Return the region of each voxel."""
    painted = painted_at(state, flat_voxels)
    return np.where(
        painted >= 0,
        painted,
        supervoxel_table(state, index)[
            supervoxels_at_voxels(state, index, flat_voxels)
        ],
    )


def join(state: State, index: ProposalIndex, ids: list[int]) -> State:
    """Merge regions into the first one, with their painted voxels and strokes."""
    for region in ids:
        state = own_region(state, index, region)
    kept, gone = ids[0], ids[1:]

    def renamed(values: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.where(np.isin(values, gone), kept, values).astype(np.int32)

    merged = {
        old: kept if new in gone else new for old, new in state.merged.items()
    } | dict.fromkeys(gone, kept)
    return replace(
        state,
        assigned=renamed(state.assigned),
        pinned=renamed(state.pinned),
        before_spread=renamed(state.before_spread),
        rows={i: row for i, row in state.rows.items() if i not in gone},
        merged=merged,
        painted_regions=renamed(state.painted_regions),
    )


def new_id(state: State) -> tuple[int, State]:
    """Return an unused id, and a state with a row for it."""
    region = state.next_id
    row = Region(region, f"region {region}", region_color(region))
    return region, replace(state, next_id=region + 1, rows={**state.rows, region: row})


def present_ids(state: State, index: ProposalIndex) -> NDArray[np.int32]:
    """Return the ids in use, ascending, without region 0."""
    held = np.bincount(supervoxel_table(state, index))
    held[BACKGROUND] = 0
    return np.union1d(
        np.flatnonzero(held), state.painted_regions[state.painted_regions != BACKGROUND]
    ).astype(np.int32)


def require_regions(state: State, index: ProposalIndex, ids: Iterable[int]) -> None:
    """Check that regions exist.

    Raises
    ------
    EditError
        If one does not exist, or was merged into another.
    """
    present = present_ids(state, index)
    for region in ids:
        if region in state.merged:
            now = state.merged[region]
            raise EditError(
                f"Region {region} was merged into {state.name(now)} (id {now}). Use"
                " that one."
            )
        if (
            region != BACKGROUND
            and region not in state.rows
            and not (present == region).any()
        ):
            raise EditError(
                f"There is no region {region} now. Look at the region table for the ids"
                " in use."
            )


def require_unlocked(state: State, ids: Iterable[int]) -> None:
    """Check that regions are not locked.

    Raises
    ------
    EditError
        If one is locked.
    """
    for region in sorted(set(ids)):
        if region in state.rows and state.rows[region].locked:
            raise EditError(
                f"{state.name(region)} (id {region}) is locked. Unlock it to change it."
            )


def require_target(state: State, index: ProposalIndex, region: int) -> State:
    """Return the state with a region that voxels can be assigned to; a new id creates one.

    Raises
    ------
    EditError
        If it is locked, was merged into another, or the id is out of range.
    """
    if not 0 <= region <= MAX_REGION_ID:
        raise EditError(
            f"Region id {region} is out of range. Use 0 for background or an id from 1"
            f" to {MAX_REGION_ID}."
        )
    if region in state.merged:
        require_regions(state, index, [region])
    require_unlocked(state, [region])
    return own_region(state, index, region)
