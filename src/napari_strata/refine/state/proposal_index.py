"""Lookups of a proposal for edits: sizes, boxes and voxels of supervoxels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import CaseError, EditError
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.proposal.reading.outliers import Outlier, find_outliers
from napari_strata.proposal.reading.palette import Color
from napari_strata.proposal.reading.symmetry_plane import Symmetry
from napari_strata.refine.scribble.scribble_classifier import (
    FeatureSpace,
    feature_space,
)

Box = tuple[slice, slice, slice]

_OUTLIERS = 5
"""Regions unlike the rest that a person is led to, at most."""


class ProposalIndex:
    """A proposal with the lookups that edits need, each computed when first used.

    Parameters
    ----------
    proposal : Proposal
        The proposal.
    """

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self._last_cut: tuple[TreeName, int, NDArray[np.int32]] | None = None
        self.answer_cache: dict[Any, Any] = {}
        """Cache of `estimate_uncertainty`: whether a stroke was a correction."""
        self.model_cache: dict[bytes, Any] = {}
        """Cache of `spread_by_evidence`: memberships by some evidence."""
        self.previewed: tuple[tuple[Any, Any, Any], ...] = ()
        """Results of the last preview, (state, edit, result) of each stroke.

        They are reused when the strokes are applied.
        """

    def ranks(self, tree: TreeName, n: int) -> NDArray[np.int32]:
        """Return the ranks 0 .. n of a cut, (n_supervoxels,); the last result is cached."""
        last = self._last_cut
        if last is None or last[:2] != (tree, n):
            last = self._last_cut = (tree, n, self.proposal.tree(tree).cut(n))
        return last[2]

    @cached_property
    def has_scan(self) -> bool:
        """Whether the scan's voxels can be read; a case also opens without its scan."""
        try:
            np.asarray(self.proposal.volume.data[0, 0, 0])
        except CaseError:
            return False
        return True

    @cached_property
    def background(self) -> NDArray[np.bool_]:
        """Mask of the proposal's background supervoxels, (n_supervoxels,)."""
        tree, found = (
            self.proposal.region_tree,
            np.zeros(self.proposal.n_supervoxels, np.bool_),
        )
        found[tree.leaf_order[: tree.n_background]] = True
        return found

    @cached_property
    def sizes_vox(self) -> NDArray[np.int64]:
        """Number of voxels of each supervoxel, (n_supervoxels,)."""
        sizes = np.zeros(self.proposal.n_supervoxels, np.int64)
        for plane in self.proposal.supervoxels:
            sizes += np.bincount(plane.ravel(), minlength=len(sizes))
        return sizes

    @cached_property
    def intensity_sums(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Sums of intensities and of their squares in each supervoxel.

        See `sums_per_supervoxel`.
        """
        data = np.asarray(self.proposal.volume.data)
        return sums_per_supervoxel(
            data, self.proposal.supervoxels, self.proposal.n_supervoxels
        )

    @cached_property
    def first_voxels(self) -> NDArray[np.int64]:
        """Flat index of the first voxel of each supervoxel, (n_supervoxels,)."""
        supervoxels = self.proposal.supervoxels
        first, within = (
            np.empty(self.proposal.n_supervoxels, np.int64),
            np.arange(supervoxels[0].size)[::-1],
        )
        # From the last voxel to the first, plane by plane as in `bounding_boxes`.
        for z in range(len(supervoxels) - 1, -1, -1):
            first[supervoxels[z].ravel()[::-1]] = within + z * len(within)
        return first

    @cached_property
    def boxes(self) -> NDArray[np.int32]:
        """Bounding box of each supervoxel, (n_supervoxels, 6): starts zyx, then stops zyx."""
        return bounding_boxes(self.proposal.supervoxels, self.proposal.n_supervoxels)

    @cached_property
    def feature_space(self) -> FeatureSpace:
        """Feature space of the scribble classifier."""
        middle = (self.boxes[:, :3] + self.boxes[:, 3:] - 1) / 2
        return feature_space(
            self.proposal, middle * self.proposal.volume.spacing_zyx_mm
        )

    @cached_property
    def colors(self) -> dict[TreeName, tuple[Color, ...]]:
        """The colours of the ranks 1, 2, ... of each tree."""
        trees: tuple[TreeName, ...] = ("regions", "tissues")
        return {tree: self.proposal.colors(tree) for tree in trees}

    @cached_property
    def symmetry(self) -> Symmetry:
        """The plane of symmetry, and the tables of outliers and pairs."""
        return self.proposal.symmetry()

    @cached_property
    def outliers(self) -> tuple[Outlier, ...]:
        """Regions that are clearly unlike the rest of the scan, the most unlike first."""
        found = find_outliers(self.symmetry, _OUTLIERS)
        return tuple(one for one in found if one.reasons)

    def slow_lookups(self) -> dict[str, Any]:
        """Return the lookups that take long, by name; `adopt_lookups` takes them up."""
        names = ["sizes_vox", "first_voxels", "boxes", "feature_space"]
        if self.has_scan:
            names.append("intensity_sums")
        return {name: getattr(self, name) for name in names}

    def adopt_lookups(self, lookups: Mapping[str, Any]) -> None:
        """Use lookups of the same proposal that another process computed."""
        vars(self).update(lookups)

    def box_of(
        self, supervoxel_ids: NDArray[np.integer], flat_voxels: NDArray[np.integer]
    ) -> Box | None:
        """Return the bounding box of supervoxels and voxels, None if there are neither."""
        starts, stops = [], []
        if len(supervoxel_ids):
            boxes = self.boxes[supervoxel_ids]
            starts.append(boxes[:, :3].min(axis=0))
            stops.append(boxes[:, 3:].max(axis=0))
        if len(flat_voxels):
            zyx = np.stack(
                np.unravel_index(flat_voxels, self.proposal.supervoxels.shape), axis=1
            )
            starts.append(zyx.min(axis=0))
            stops.append(zyx.max(axis=0) + 1)
        if not starts:
            return None
        low, high = np.min(starts, axis=0), np.max(stops, axis=0)
        return (
            slice(int(low[0]), int(high[0])),
            slice(int(low[1]), int(high[1])),
            slice(int(low[2]), int(high[2])),
        )

    def flat_voxels(self, voxels_zyx: ArrayLike) -> NDArray[np.int64]:
        """Return the flat indices, sorted and unique, of (n, 3) integer indices.

        Raises
        ------
        EditError
            If they are not (n, 3) whole numbers inside the scan.
        """
        voxels = np.atleast_2d(np.asarray(voxels_zyx))
        shape = self.proposal.supervoxels.shape
        if voxels.ndim != 2 or voxels.shape[1] != 3 or len(voxels) == 0:
            raise EditError(
                "Voxels must be an (n, 3) list of z, y, x indices, got shape"
                f" {voxels.shape}."
            )
        if voxels.dtype.kind not in "iu":
            raise EditError(
                f"Voxels must be whole numbers, got {voxels.dtype}. Round them to voxel"
                " indices first."
            )
        if (voxels < 0).any() or (voxels >= np.array(shape)).any():
            raise EditError(
                f"Some voxels lie outside the scan, which has shape {shape}. Give"
                " indices as z, y, x."
            )
        return np.unique(np.ravel_multi_index(tuple(voxels.T), shape)).astype(np.int64)

    def ras_mm(self, flat_voxels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the world points (n, 3) of flat voxel indices."""
        zyx = np.stack(
            np.unravel_index(flat_voxels, self.proposal.supervoxels.shape), axis=1
        )
        return self.proposal.volume.geometry.world_from_voxel(zyx)

    def flat_from_ras(self, points_ras_mm: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the sorted flat indices of the voxels at world points (n, 3) in mm.

        This is the inverse of `ras_mm`.
        """
        return self.flat_voxels(
            np.rint(
                self.proposal.volume.geometry.voxel_from_world(points_ras_mm)
            ).astype(np.int64)
        )

    def supervoxels_at(self, flat_voxels: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return the supervoxel of each flat voxel index."""
        ids: NDArray[np.int32] = self.proposal.supervoxels.ravel()[flat_voxels]
        return ids


def bounding_boxes(supervoxels: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Return the bounding box of each supervoxel (z, y, x); see `ProposalIndex.boxes`.

    It is computed plane by plane, over runs of equal voxels. A single call over the whole
    scan would hold Python's lock and block a window.

    Returns
    -------
    (count, 6) int32 array
        Starts z, y, x, then stops z, y, x. Every supervoxel below `count` must occur.
    """
    low, high = (
        np.full((3, count), np.iinfo(np.int32).max, np.int32),
        np.zeros((3, count), np.int32),
    )
    begins = np.ones(supervoxels.shape[1:], np.bool_)
    for z, plane in enumerate(supervoxels):
        np.not_equal(plane[:, 1:], plane[:, :-1], out=begins[:, 1:])
        y, x = (part.astype(np.int32) for part in np.nonzero(begins))
        ids = plane[y, x]
        ends = np.append(x[1:], 0)
        ends[ends == 0] = plane.shape[1]
        low[0, ids] = np.minimum(low[0, ids], z)
        high[0, ids] = z + 1
        for axis, first, stop in ((1, y, y + 1), (2, x, ends)):
            np.minimum.at(low[axis], ids, first)
            np.maximum.at(high[axis], ids, stop)
    return np.concatenate([low, high]).T.copy()


def sums_per_supervoxel(
    data: NDArray[np.generic], supervoxels: NDArray[np.int32], count: int
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of intensities and of their squares in each supervoxel.

    A constant is subtracted from the intensities first, which keeps the squares exact.

    Returns
    -------
    float, (count,) float64 array, (count,) float64 array
        The constant, the sums and the sums of squares.
    """
    shift = float(data.astype(np.float32, copy=False).mean(dtype=np.float64))
    sums, squares = np.zeros(count), np.zeros(count)
    # Plane by plane, so that the whole scan is not copied.
    for plane, ids in zip(data, supervoxels, strict=True):
        grey = plane.ravel().astype(np.float64) - shift
        sums += np.bincount(ids.ravel(), weights=grey, minlength=count)
        squares += np.bincount(ids.ravel(), weights=grey * grey, minlength=count)
    return shift, sums, squares
