"""Read-only view of a case: labels, region table, statistics and suggestions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.proposal.reading.mirror_pairs import find_pairs, partners
from napari_strata.refine.edits.morphology import symmetry_plane
from napari_strata.refine.edits.region_edits import Point
from napari_strata.refine.state.assignment import (
    FOLLOW,
    NOT_PINNED,
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
from napari_strata.refine.suggestions.suggest import (
    Suggestion,
    outlier_places,
    place_in,
    suggest,
)
from napari_strata.refine.transfer import Teaching, fit_teaching
from napari_strata.volume import (
    Region,
    Segmentation,
    region_color,
    smallest_label_dtype,
)

Origin = Literal["painted", "shown", "taught", "edited", "proposed"]
"""How a voxel got its region; see `View.origin_at`."""


@dataclass(frozen=True, eq=False)
class View:
    """Read-only view of one state of a case, `work.view`.

    After an edit, `work.view` returns a new view. A view that a caller keeps stays as it
    is.

    Parameters
    ----------
    index : ProposalIndex
        Lookups of the proposal.
    state : State
        The state.
    """

    index: ProposalIndex
    state: State

    @property
    def proposal(self) -> Proposal:
        """The proposal that is refined."""
        return self.index.proposal

    @property
    def tree(self) -> TreeName:
        """The tree that unassigned supervoxels follow: "regions" or "tissues"."""
        return self.state.tree

    @property
    def granularity(self) -> int:
        """The number of regions or tissues of the current cut."""
        return self.state.n

    @property
    def next_id(self) -> int:
        """The next unused region id."""
        return self.state.next_id

    @property
    def table(self) -> NDArray[np.int32]:
        """The region of each supervoxel, (n_supervoxels,).

        Painted voxels and fragments are not considered.
        """
        return region_table(self.state, self.index)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The confidence of each supervoxel at the current cut, (n_supervoxels,)."""
        return self.proposal.confidence_at(self.tree, self.granularity)

    @property
    def label_dtype(self) -> type[np.unsignedinteger]:
        """The dtype of `labels`: the smallest for every id in use."""
        return smallest_label_dtype(
            int(max(present_ids(self.state, self.index), default=0))
        )

    @property
    def labels(self) -> NDArray[np.unsignedinteger]:
        """The region id of every voxel (z, y, x), a new array each time."""
        shape = self.proposal.supervoxels.shape
        return self.labels_in(
            (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
        )

    def labels_in(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Return the region ids in a box of the scan, a new array.

        Parameters
        ----------
        box : tuple of 3 slices
            Part of the scan along z, y, x, in steps of one; `Change.box` fits.
        """
        labels: NDArray[np.unsignedinteger] = labels_in_box(
            self.state, self.index, box, self.label_dtype
        )  # type: ignore[assignment]
        return labels

    def prepare(self) -> None:
        """Compute the lookups that edits need before the first edit.

        This takes about a second on a large scan. Lookups from the scan's intensities
        are skipped if the scan is not available.
        """
        self.index.slow_lookups()

    def region_at(self, voxel_zyx: ArrayLike) -> int:
        """Return the region id of one voxel (z, y, x).

        Raises
        ------
        EditError
            If it lies outside the scan.
        """
        return int(
            region_of_voxels(self.state, self.index, self.index.flat_voxels(voxel_zyx))[
                0
            ]
        )

    def origin_at(self, voxel_zyx: ArrayLike) -> Origin:
        """Return how one voxel (z, y, x) got its region.

        Returns
        -------
        {"painted", "shown", "taught", "edited", "proposed"}
            "painted" by the brush; "shown" by a stroke across its supervoxel, or by
            assigning that; "taught" by strokes elsewhere; "edited" by another edit;
            "proposed" by the current cut.

        Raises
        ------
        EditError
            If it lies outside the scan.
        """
        state, flat = self.state, self.index.flat_voxels(voxel_zyx)
        supervoxel = supervoxels_at_voxels(state, self.index, flat)[0]
        if painted_at(state, flat)[0] >= 0:
            return "painted"
        if state.pinned[supervoxel] != NOT_PINNED:
            return "shown"
        if state.before_spread[supervoxel] != NOT_SPREAD:
            return "taught"
        return "edited" if state.assigned[supervoxel] != FOLLOW else "proposed"

    @property
    def stroked(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """Supervoxels (k,) that strokes crossed or a person assigned, and their regions (k,)."""
        pinned = by_largest_supervoxel(self.state, self.index, self.state.pinned)
        supervoxels = np.flatnonzero(pinned != NOT_PINNED)
        return supervoxels, pinned[supervoxels]

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Rows of the regions in use, named, coloured or locked, in the order of their ids."""
        state = self.state
        ids = set(present_ids(state, self.index).tolist())
        ids |= {
            region
            for region, row in state.rows.items()
            if row.locked or row.accepted or _is_personal(row, state)
        }
        return state.rows_of(sorted(ids))

    @property
    def segmentation(self) -> Segmentation:
        """Labels, the rows of the ids in them, and the geometry, for export."""
        labels = self.labels
        used = np.flatnonzero(np.bincount(labels.ravel()))
        rows = tuple(self.state.row(i) for i in used.tolist() if i > 0)
        return Segmentation(labels, rows, self.proposal.volume.geometry)

    @property
    def sizes_vox(self) -> dict[int, int]:
        """The number of voxels of each region in use, background included."""
        state, table = self.state, self.table
        voxels, regions = loose_voxels(state, self.index)
        counts = np.bincount(
            table, weights=self.index.sizes_vox, minlength=self.next_id
        ).astype(np.int64)
        counts -= np.bincount(
            table[self.index.supervoxels_at(voxels)], minlength=len(counts)
        )
        counts += np.bincount(regions, minlength=len(counts))
        return {
            region: int(counts[region]) for region in np.flatnonzero(counts).tolist()
        }

    def statistics(self) -> dict[int, RegionStatistics]:
        """Return the statistics of every region in use, background included.

        Returns
        -------
        dict
            Volume, mean and standard deviation of the intensity, and confidence, by
            region id.
        """
        return dict(self._statistics)

    @cached_property
    def _statistics(self) -> dict[int, RegionStatistics]:
        return region_statistics(self.state, self.index)

    def place_of(self, region: int) -> tuple[int, int, int]:
        """Return a voxel (z, y, x) of a region, near its middle.

        Raises
        ------
        EditError
            If no voxel has this region.
        """
        return place_in(self.state, self.index, region)

    def suggestions(self, n: int = 10) -> list[Suggestion]:
        """Return up to n places to review, the most useful first."""
        places = suggest(
            whole_supervoxels(self.state, self.proposal.n_supervoxels), self.index, n
        )
        return [
            place for place in places if self.region_at(place.voxel_zyx) == place.region
        ]

    def places_to_review(self, n: int = 10) -> list[Suggestion]:
        """Return up to n places: what is unlike the rest, then the `suggestions`.

        Regions unlike the rest of the scan come first, see `Proposal.outliers`, unless
        they were stroked, assigned or locked.
        """
        unlike = outlier_places(
            whole_supervoxels(self.state, self.proposal.n_supervoxels), self.index
        )
        places = [replace(one, region=self.region_at(one.voxel_zyx)) for one in unlike]
        return [*places, *self.suggestions(max(n - len(places), 0))][:n]

    def pairs(self) -> dict[int, int]:
        """Return the mirror image of every region that has one, by id.

        See `Proposal.pairs`. Painted voxels and fragments are not considered.
        """
        return dict(self._pairs)

    @cached_property
    def _pairs(self) -> dict[int, int]:
        table = self.table[: self.proposal.n_supervoxels]
        return partners(find_pairs(self.index.symmetry, table))

    @property
    def symmetry_plane(self) -> tuple[Point, Point]:
        """Plane of best left-right symmetry of the body: a point in RAS+ mm and a normal."""
        body = ~self.index.background[self.proposal.supervoxels]
        point, normal = symmetry_plane(body, self.proposal.volume.geometry.affine)
        return as_point(point), as_point(normal)

    def teach(self, *, seed: int = 0) -> Teaching:
        """Fit a teaching for other scans. See `Refinement.teach`."""
        return fit_teaching(self.state, self.index, seed=seed)


def as_point(values: ArrayLike) -> Point:
    """Return a point or a direction as three floats.

    Raises
    ------
    EditError
        If `values` are not three finite numbers.
    """
    point = np.asarray(values, np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise EditError(
            f"A point or a direction is three numbers in RAS, got {values!r}."
        )
    right, anterior, superior = (float(value) for value in point)
    return right, anterior, superior


def _is_personal(row: Region, state: State) -> bool:
    """Return whether a person named or coloured a region."""
    return row.is_named or not (
        row.color == region_color(row.id)
        or any(row.color in colors for colors in state.colors.values())
    )
