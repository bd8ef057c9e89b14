"""The state before the first edit: a cut of a tree, or given labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError, GeometryError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.history.array_codec import pack, unpack
from napari_strata.refine.history.edit_serialization import row_from_values, row_values
from napari_strata.refine.state.assignment import (
    FOLLOW,
    MAX_REGION_ID,
    State,
    start_state,
    supervoxels_at_voxels,
)
from napari_strata.refine.state.fragments import cut_supervoxels
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.volume import (
    BACKGROUND,
    Geometry,
    Region,
    Segmentation,
    default_regions,
)

_MOST_PAIRS = 50_000_000
"""Most pairs of supervoxel and label counted in a table; more are counted by sorting."""


@dataclass(frozen=True, slots=True, eq=False)
class InitialState:
    """Start of a refinement: a cut, or labels.

    Parameters
    ----------
    tree, n : {"regions", "tissues"}, int
        The cut that fills voxels without a label.
    labels : bytes or None
        Packed labels and rows, if the refinement starts from labels.
    """

    tree: TreeName
    n: int
    labels: bytes | None = None

    @classmethod
    def from_labels(cls, proposal: Proposal, segmentation: Segmentation) -> Self:
        """Start from labels on the proposal's scan.

        Raises
        ------
        GeometryError
            If the labels lie on another grid.
        EditError
            If a label is too large for a region id.
        """
        check_labels(proposal.volume.geometry, segmentation)
        used = set(
            np.flatnonzero(np.bincount(segmentation.labels.ravel())).tolist()
        ) - {BACKGROUND}
        rows = {
            row.id: row
            for row in (*default_regions(sorted(used)), *segmentation.regions)
            if row.id in used
        }
        values = {"rows": [row_values(rows[i]) for i in sorted(rows)]}
        return cls(
            "regions", 0, pack({"labels": segmentation.labels.reshape(-1)}, values)
        )

    def state(self, index: ProposalIndex) -> State:
        """Return the state before the first edit.

        Raises
        ------
        GeometryError
            If the labels belong to a scan of another size.
        """
        state = start_state(index, self.tree, self.n)
        if self.labels is None:
            return state
        arrays, values = unpack(self.labels)
        if arrays["labels"].size != index.proposal.supervoxels.size:
            raise GeometryError(
                "The labels that this case began from belong to a scan of another size."
                " Replay it on its own scan."
            )
        rows = {row.id: row for row in map(row_from_values, values["rows"])}
        return _labelled(state, index, arrays["labels"], rows)


def check_labels(scan: Geometry, segmentation: Segmentation) -> None:
    """Check that a refinement can start from labels.

    Raises
    ------
    GeometryError
        If the labels lie on another grid than the scan.
    EditError
        If a label is too large for a region id.
    """
    check_grid(scan, segmentation.geometry)
    highest = int(segmentation.labels.max(initial=0))
    if highest > MAX_REGION_ID:
        raise EditError(
            f"Label {highest} is too large for a region id. Renumber the labels to at"
            f" most {MAX_REGION_ID}."
        )


def check_grid(scan: Geometry, labels: Geometry) -> None:
    """Check that labels lie on a scan's grid.

    Raises
    ------
    GeometryError
        If a corner of the labels is more than a tenth of a voxel from that of the scan.
    """
    corners = (
        np.array(np.meshgrid(*[(0, n - 1) for n in scan.shape_zyx], indexing="ij"))
        .reshape(3, -1)
        .T
    )
    same = labels.shape_zyx == scan.shape_zyx
    away_mm = (
        np.linalg.norm(
            scan.world_from_voxel(corners) - labels.world_from_voxel(corners), axis=1
        ).max()
        if same
        else np.inf
    )
    if away_mm > 0.1 * scan.spacing_zyx_mm.min():
        where = (
            f"lies up to {away_mm:.1f} mm off"
            if same
            else f"is {labels.shape_zyx}, that of the scan {scan.shape_zyx}"
        )
        raise GeometryError(
            f"The labels' grid {where}. Resample them with `strata convert --like"
            " SCAN`, or give the scan that they were drawn on."
        )


def _labelled(
    state: State, index: ProposalIndex, labels: NDArray[Any], rows: dict[int, Region]
) -> State:
    """Assign to every supervoxel its most frequent label, and cut off voxels of others.

    Voxels without a label follow the current cut.
    """
    ids = np.array([BACKGROUND, *rows], np.int64)
    places = np.zeros(int(ids.max()) + 1, np.int64)
    places[ids] = np.arange(len(ids))
    supervoxels = index.proposal.supervoxels.reshape(-1)
    common = ids[
        _commonest(supervoxels, places[labels], index.proposal.n_supervoxels, len(ids))
    ]
    assigned = np.where(common == BACKGROUND, FOLLOW, common).astype(np.int32)
    state = replace(
        state,
        assigned=assigned,
        rows=rows,
        next_id=max(state.next_id, int(ids.max()) + 1),
    )
    other = np.flatnonzero(common[supervoxels] != labels).astype(np.int64)
    return _cut_off(state, index, other, labels[other].astype(np.int32))


def structure_state(
    index: ProposalIndex, mask: NDArray[np.bool_], row: Region
) -> State:
    """Return the state before the first edit of a case that starts from one structure.

    It is the state of `InitialState.from_labels`, several times faster.

    Parameters
    ----------
    index : ProposalIndex
        Lookups of the proposal.
    mask : (z, y, x) bool array
        The structure.
    row : Region
        Its row.
    """
    inside, supervoxels = mask.reshape(-1), index.proposal.supervoxels.reshape(-1)
    count = np.bincount(supervoxels[inside], minlength=index.proposal.n_supervoxels)
    is_common = 2 * count > index.sizes_vox
    state = start_state(index, "regions", 0)
    state = replace(
        state,
        assigned=np.where(is_common, row.id, FOLLOW).astype(np.int32),
        rows={row.id: row},
        next_id=max(state.next_id, row.id + 1),
    )
    other = np.flatnonzero(is_common[supervoxels] != inside).astype(np.int64)
    ids = np.where(inside[other], row.id, BACKGROUND).astype(np.int32)
    return _cut_off(state, index, other, ids)


def _cut_off(
    state: State,
    index: ProposalIndex,
    voxels: NDArray[np.int64],
    labels: NDArray[np.int32],
) -> State:
    """Cut voxels (flat, ascending) off their supervoxels, and assign them their labels."""
    if len(voxels) == 0:
        return state
    _, places = np.unique(labels, return_inverse=True)
    state = cut_supervoxels(state, index, voxels, places)
    held, at = np.unique(supervoxels_at_voxels(state, index, voxels), return_index=True)
    assigned = state.assigned.copy()
    assigned[held] = np.where(labels[at] == BACKGROUND, FOLLOW, labels[at])
    return replace(state, assigned=assigned)


def _commonest(
    supervoxels: NDArray[np.int32], label: NDArray[np.int64], count: int, labels: int
) -> NDArray[np.int64]:
    keys = supervoxels.astype(np.int64) * labels + label
    if count * labels <= _MOST_PAIRS:
        return (
            np.bincount(keys, minlength=count * labels)
            .reshape(count, labels)
            .argmax(axis=1)
        )
    pairs, voxels = np.unique(keys, return_counts=True)
    order = np.argsort(voxels, kind="stable")
    best = np.zeros(count, np.int64)
    best[pairs[order] // labels] = pairs[order] % labels
    return best
