"""Edits of supervoxels and regions: small records that turn one state into the next.

Points are in RAS+ mm, regions are ids. An edit that cannot be carried out raises
`EditError` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_strata.deprecated import moved_names
from napari_strata.errors import EditError
from napari_strata.proposal.proposal import TreeName
from napari_strata.refine.state.assignment import (
    State,
    assign_supervoxels,
    join,
    new_id,
    own_region,
    require_regions,
    require_target,
    require_unlocked,
    supervoxel_table,
    supervoxels_at_voxels,
    with_ids,
)
from napari_strata.refine.state.fragments import (
    roots,
    supervoxel_sizes,
)
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.volume import BACKGROUND


@dataclass(frozen=True, slots=True, eq=False)
class EditResult:
    """Result of an edit.

    Parameters
    ----------
    state : State
        The state after the edit.
    name : str
        The step's name in the history.
    ids : tuple of int
        The regions that the edit made or kept.
    edit : Edit or None
        The edit to replay instead, if a choice had to be recorded in it.
    """

    state: State
    name: str
    ids: tuple[int, ...] = ()
    edit: Edit | None = None


class Edit(Protocol):
    """Protocol of every edit record."""

    kind: ClassVar[str]

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Return the state after the edit."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut a tree at each stop of one drag of the slider.

    Every stop is carried out, as each assigns ids to its regions.
    """

    stops: tuple[tuple[TreeName, int], ...]
    kind: ClassVar[str] = "cut"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Let unassigned supervoxels follow another cut."""
        for tree, n in self.stops:
            state = with_ids(replace(state, tree=tree, n=n), index)
        return EditResult(state, f"Cut: {state.n} {state.tree}")


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge regions into the first one."""

    ids: tuple[int, ...]
    kind: ClassVar[str] = "merge"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Merge the regions; the first keeps id, name and colour."""
        ids = list(dict.fromkeys(self.ids))
        if len(ids) < 2:
            raise EditError("Merging needs at least two different regions.")
        require_regions(state, index, ids)
        require_unlocked(state, ids)
        if BACKGROUND in ids[1:]:
            raise EditError(
                "Region 0 is background and cannot be merged into a region. Name 0"
                " first to make regions background."
            )
        name = "Merge: " + " + ".join(state.name(i) for i in ids)
        return EditResult(join(state, index, ids), name, (ids[0],))


@dataclass(frozen=True, slots=True)
class Split:
    """Split a region along the highest merges of a tree; None is the tree in use."""

    region: int
    into: int
    tree: TreeName | None = None
    kind: ClassVar[str] = "split"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign a new id to every part except the largest (in voxels)."""
        require_regions(state, index, [self.region])
        require_unlocked(state, [self.region])
        if self.into < 2:
            raise EditError(f"A region is split into 2 parts or more, not {self.into}.")
        members = np.flatnonzero(supervoxel_table(state, index) == self.region)
        leaves, leaf = np.unique(roots(state, index, members), return_inverse=True)
        if len(leaves) < 2:
            raise EditError(
                f"{state.name(self.region)} lies in one supervoxel and cannot be split"
                " so. Split it along a line, or paint."
            )
        by = "" if self.tree is None else f" by {self.tree}"
        name = (
            f"Split: {state.name(self.region)} into {min(self.into, len(leaves))}{by}"
        )
        parts = index.proposal.tree(self.tree or state.tree).split(leaves, self.into)[
            leaf
        ]
        sizes = np.bincount(parts, weights=supervoxel_sizes(state, index)[members])
        state, made = own_region(state, index, self.region), []
        for part in np.argsort(-sizes, kind="stable")[1:]:
            region, state = new_id(state)
            state = assign_supervoxels(state, members[parts == part], region, pin=False)
            made.append(region)
        return EditResult(state, name, tuple(made))


@dataclass(frozen=True, slots=True, eq=False)
class Assign:
    """Assign the supervoxels at some points to a region."""

    points_ras_mm: NDArray[np.float64]
    region: int
    kind: ClassVar[str] = "assign"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign the supervoxels; scribbles elsewhere no longer change them."""
        ids = np.unique(
            supervoxels_at_voxels(state, index, index.flat_from_ras(self.points_ras_mm))
        )
        require_unlocked(state, supervoxel_table(state, index)[ids].tolist())
        state = require_target(state, index, self.region)
        state = assign_supervoxels(state, ids, self.region, pin=True)
        return EditResult(
            state,
            f"Assign: {state.name(self.region)}, {len(ids)} supervoxels",
            (self.region,),
        )


@dataclass(frozen=True, slots=True)
class SetRow:
    """Change a region's name, colour, lock or acceptance; None keeps a value."""

    region: int
    name: str | None = None
    color: tuple[int, int, int] | None = None
    locked: bool | None = None
    accepted: bool | None = None
    kind: ClassVar[str] = "row"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Change the row of the region, which no longer follows the cut."""
        if self.region == BACKGROUND:
            raise EditError(
                "Region 0 is background: it has no name, colour or lock of its own."
            )
        require_regions(state, index, [self.region])
        old = state.name(self.region)
        state = own_region(state, index, self.region)
        changes = {
            "name": self.name,
            "color": self.color,
            "locked": self.locked,
            "accepted": self.accepted,
        }
        given = {key: value for key, value in changes.items() if value is not None}
        row = replace(state.rows[self.region], **given)  # type: ignore[arg-type]
        state = replace(state, rows={**state.rows, self.region: row})
        if self.name is not None:
            return EditResult(state, f"Rename: {old} to {self.name}")
        if self.accepted:
            return EditResult(state, f"Accept: {old}")
        if self.locked is not None:
            return EditResult(state, f"{'Lock' if self.locked else 'Unlock'}: {old}")
        return EditResult(state, f"Recolor: {old}")


__getattr__ = moved_names("refine.edits.basic")
