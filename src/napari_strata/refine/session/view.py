"""The read side of a refinement: table, labels, rows and what is exported, as they stand."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.state.assignment import (
    FOLLOW,
    NOT_GIVEN,
    NOT_SPREAD,
    State,
    loose_voxels,
    painted_at,
    present_ids,
    region_of_voxels,
    region_table,
    supervoxels_at_voxels,
)
from napari_strata.refine.state.fragments import (
    by_largest_supervoxel,
    whole_supervoxels,
)
from napari_strata.refine.state.proposal_index import Box, ProposalIndex
from napari_strata.refine.state.rendering import labels_in_box
from napari_strata.refine.state.statistics import RegionStatistics, region_statistics
from napari_strata.refine.suggestions.suggest import Suggestion, place_in, suggest
from napari_strata.refine.transfer import Teaching, fit_teaching
from napari_strata.volume import (
    Region,
    Segmentation,
    Volume,
    region_color,
    smallest_label_dtype,
)

Origin = Literal["painted", "shown", "taught", "edited", "proposed"]
"""How a voxel came to its region."""


class View:
    """What a state over a proposal looks like.

    Parameters
    ----------
    index : Pieces
        Lookups of the proposal.
    state : State
        The state that is shown.
    """

    def __init__(self, index: ProposalIndex, state: State) -> None:
        self._index = index
        self._state = state
        self._rows: tuple[State, tuple[Region, ...]] | None = None
        self._measured: tuple[State, dict[int, RegionStatistics]] | None = None

    @property
    def proposal(self) -> Proposal:
        """The proposal that is being refined."""
        return self._index.proposal

    @property
    def volume(self) -> Volume:
        """The scan. In a case that was opened without it, its data are read when first used."""
        return self.proposal.volume

    @property
    def tree(self) -> TreeName:
        """The tree that fills what nobody owns: "regions" or "tissues"."""
        return self._state.tree

    @property
    def granularity(self) -> int:
        """The number of regions or tissues that the slider asks for."""
        return self._state.n

    @property
    def next_id(self) -> int:
        """The id that the next new region gets."""
        return self._state.next_id

    @property
    def table(self) -> NDArray[np.int32]:
        """The region of each supervoxel, (n_supervoxels,).

        Voxels that were painted by hand or cut from it are not in it.
        """
        return region_table(self._state, self._index)

    @property
    def label_dtype(self) -> type[np.unsignedinteger]:
        """The type of `labels`: the smallest that holds every id in use."""
        return smallest_label_dtype(
            int(max(present_ids(self._state, self._index), default=0))
        )

    @property
    def labels(self) -> NDArray[np.unsignedinteger]:
        """The region id of every voxel (z, y, x), a new array each time."""
        shape = self.proposal.supervoxels.shape
        return self.labels_in(
            (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
        )

    def labels_in(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Give the region ids in a box of the scan, a new array.

        Parameters
        ----------
        box : tuple of 3 slices
            Part of the scan along z, y, x, in steps of one; `Change.box` fits.
        """
        labels: NDArray[np.unsignedinteger] = labels_in_box(
            self._state, self._index, box, self.label_dtype
        )  # type: ignore[assignment]
        return labels

    def prepare(self) -> None:
        """Make the lookups that edits need, ahead of the first of them.

        A second or so on a large scan.

        Those that read the scan are left out where it is not at hand.
        """
        index = self._index
        for made in (
            index.sizes_vox,
            index.first_voxels,
            index.boxes,
            index.teaching,
            index.has_scan and index.intensity_sums,
        ):
            del made

    def region_at(self, voxel_zyx: ArrayLike) -> int:
        """Give the region id of one voxel (z, y, x).

        Raises
        ------
        EditError
            If it lies outside the scan.
        """
        return int(
            region_of_voxels(
                self._state, self._index, self._index.flat_voxels(voxel_zyx)
            )[0]
        )

    def origin_at(self, voxel_zyx: ArrayLike) -> Origin:
        """Say how one voxel (z, y, x) came to its region.

        Returns
        -------
        {"painted", "shown", "taught", "edited", "proposed"}
            By the brush; by a stroke across it or by assigning it; by strokes
            elsewhere; by another edit; or by the slider's cut.

        Raises
        ------
        EditError
            If it lies outside the scan.
        """
        state, flat = self._state, self._index.flat_voxels(voxel_zyx)
        supervoxel = supervoxels_at_voxels(state, self._index, flat)[0]
        if painted_at(state, flat)[0] >= 0:
            return "painted"
        if state.given[supervoxel] != NOT_GIVEN:
            return "shown"
        if state.before[supervoxel] != NOT_SPREAD:
            return "taught"
        return "edited" if state.owner[supervoxel] != FOLLOW else "proposed"

    @property
    def stroked(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """Supervoxels (k,) that strokes crossed or a person assigned, and their regions (k,).

        What was shown.
        """
        given = by_largest_supervoxel(self._state, self._index, self._state.given)
        found = np.flatnonzero(given != NOT_GIVEN)
        return found, given[found]

    @property
    def regions(self) -> tuple[Region, ...]:
        """Rows of the regions that are in use or that a person named, coloured or locked.

        By id.
        """
        state, kept = self._state, self._rows
        if kept is None or kept[0] is not state:
            ids = set(present_ids(state, self._index).tolist())
            ids |= {
                i
                for i, row in state.rows.items()
                if row.locked or row.accepted or _is_personal(row)
            }
            kept = self._rows = state, state.rows_of(sorted(ids))
        return kept[1]

    @property
    def segmentation(self) -> Segmentation:
        """What is exported: labels, the rows of the ids in them, and the geometry."""
        labels = self.labels
        used = np.flatnonzero(np.bincount(labels.ravel()))
        rows = tuple(self._state.row(i) for i in used.tolist() if i > 0)
        return Segmentation(labels, rows, self.volume.geometry)

    @property
    def sizes_vox(self) -> dict[int, int]:
        """The number of voxels of each region in use, background too.

        Counted from the table and not from the scan.
        """
        state, table = self._state, self.table
        voxels, regions = loose_voxels(state, self._index)
        counts = np.bincount(
            table, weights=self._index.sizes_vox, minlength=self.next_id
        ).astype(np.int64)
        counts -= np.bincount(
            table[self._index.supervoxels_at(voxels)], minlength=len(counts)
        )
        counts += np.bincount(regions, minlength=len(counts))
        return {
            region: int(counts[region]) for region in np.flatnonzero(counts).tolist()
        }

    def statistics(self) -> dict[int, RegionStatistics]:
        """Measure every region in use, background too.

        Volume, mean and sd of intensity, confidence.
        """
        state, kept = self._state, self._measured
        if kept is None or kept[0] is not state:
            kept = self._measured = state, region_statistics(state, self._index)
        return dict(kept[1])

    def place_of(self, region: int) -> tuple[int, int, int]:
        """Give a voxel (z, y, x) of a region, near its middle.

        Raises
        ------
        EditError
            If no voxel shows it.
        """
        return place_in(self._state, self._index, region)

    def suggestions(self, n: int = 10) -> list[Suggestion]:
        """Give up to n places worth a look, the most worthwhile first."""
        found = suggest(
            whole_supervoxels(self._state, self.proposal.n_supervoxels), self._index, n
        )
        return [
            place for place in found if self.region_at(place.voxel_zyx) == place.region
        ]

    def teach(self, *, seed: int = 0) -> Teaching:
        """Take along what this case taught, for other scans.

        Raises
        ------
        TeachingError
            If nothing was scribbled or named, or the case keeps no raw descriptors.
        """
        return fit_teaching(self._state, self._index, seed=seed)


def _is_personal(row: Region) -> bool:
    return row.name not in (
        f"region {row.id}",
        f"tissue {row.id}",
    ) or row.color != region_color(row.id)
