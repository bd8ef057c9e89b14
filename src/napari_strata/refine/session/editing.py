"""The edits of a refinement, one method each; every one is a step of the history."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import TreeName
from napari_strata.refine.edits.basic import (
    Assign,
    Edit,
    EditResult,
    Merge,
    Paint,
    Scribble,
    SetRow,
    Split,
)
from napari_strata.refine.session.view import View
from napari_strata.refine.state.assignment import Scope, supervoxels_at_voxels
from napari_strata.refine.state.fragments import voxels_of_supervoxel


class Editing(View):
    """What a person does to regions.

    Joining, parting, giving, naming, keeping and showing by strokes.
    """

    _changing: AbstractContextManager[bool]
    """Held while a new region's id is chosen and its step done.

    Of two threads, each gets its own.
    """

    def _do(self, edit: Edit) -> EditResult:
        """Carry out an edit as a step of the history."""
        raise NotImplementedError

    def _target(self, region: int | None) -> int:
        return self._state.next_id if region is None else int(region)

    def merge(self, ids: Sequence[int]) -> int:
        """Make regions one; the first id is kept, and returned.

        Painted voxels and strokes follow.

        Raises
        ------
        EditError
            If one does not exist or is locked, or there are fewer than two.
        """
        return self._do(Merge(tuple(int(i) for i in ids))).ids[0]

    def split(
        self, region: int, *, into: int = 2, tree: TreeName | None = None
    ) -> list[int]:
        """Part a region (region 0 too) into its children in a tree.

        The largest part keeps the id, the new ids are returned.

        Fewer parts come back only where the region has fewer supervoxels.

        Parameters
        ----------
        region : int
            The region.
        into : int
            How many parts.
        tree : {"regions", "tissues"} or None
            Into connected regions or by tissue; None takes the tree in use.

        Raises
        ------
        EditError
            If it does not exist, is locked, or lies in a single supervoxel.
        """
        if tree not in (None, "regions", "tissues"):
            raise EditError(
                'A region is split along the tree of "regions" or of "tissues", not'
                f" {tree!r}."
            )
        return list(self._do(Split(int(region), int(into), tree)).ids)

    def assign(self, supervoxel_ids: ArrayLike, region: int | None = None) -> int:
        """Give supervoxels to a region (None makes a new one).

        Scribbles elsewhere will not move them again.

        Raises
        ------
        EditError
            If an id is not known, or a region involved is locked.
        """
        ids = np.atleast_1d(np.asarray(supervoxel_ids))
        count = self.proposal.n_supervoxels
        if (
            ids.size == 0
            or ids.dtype.kind not in "iu"
            or (ids < 0).any()
            or (ids >= count).any()
        ):
            raise EditError(
                f"Supervoxel ids must be whole numbers from 0 to {count - 1}, at least"
                " one."
            )
        return self._assign(self._first_left(np.unique(ids)), region)

    def assign_at(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Give the supervoxels at some voxels (n, 3) to a region (None makes a new one).

        Raises
        ------
        EditError
            If voxels lie outside the scan, or a region involved is locked.
        """
        return self._assign(self._index.flat_voxels(voxels_zyx), region)

    def _first_left(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Give for each supervoxel a voxel that was not cut from it."""
        first = self._index.first_voxels[ids]
        for i in np.flatnonzero(
            supervoxels_at_voxels(self._state, self._index, first) != ids
        ).tolist():
            first[i] = voxels_of_supervoxel(self._state, self._index, int(ids[i]))[0]
        return np.sort(first)

    def _assign(self, flat_voxels: NDArray[np.int64], region: int | None) -> int:
        with self._changing:
            return self._do(
                Assign(self._index.ras_mm(flat_voxels), self._target(region))
            ).ids[0]

    def rename(self, region: int, name: str) -> None:
        """Give a region a person's word.

        Raises
        ------
        EditError
            If the region does not exist or the name is empty.
        """
        if not name.strip():
            raise EditError("A region's name cannot be empty.")
        self._do(SetRow(int(region), name=name.strip()))

    def recolor(self, region: int, color: tuple[int, int, int]) -> None:
        """Give a region an RGB colour, 0-255.

        Raises
        ------
        EditError
            If the region does not exist or the colour is not three numbers from 0 to
            255.
        """
        values = tuple(int(v) for v in color)
        if len(values) != 3 or min(values) < 0 or max(values) > 255:
            raise EditError(f"A colour is three numbers from 0 to 255, got {color}.")
        self._do(SetRow(int(region), color=(values[0], values[1], values[2])))

    def accept(self, region: int) -> None:
        """Say that a region is right: it is marked as accepted, and locked.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._do(SetRow(int(region), locked=True, accepted=True))

    def lock(self, region: int) -> None:
        """Keep a region as it is.

        No edit, cut, scribble or brush changes it until it is unlocked.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._do(SetRow(int(region), locked=True))

    def unlock(self, region: int) -> None:
        """Let a region be changed again; it is no longer accepted then.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._do(SetRow(int(region), locked=False, accepted=False))

    def scribble(
        self,
        voxels_zyx: ArrayLike,
        *,
        region: int | None = None,
        scope: Scope = "everywhere",
    ) -> int:
        """Show some voxels of a region; what is like them follows.

        Parameters
        ----------
        voxels_zyx : (n, 3) integer array
            Voxels of the stroke, as array indices.
        region : int or None
            The region they belong to; None or an unused id makes one, 0 teaches
            background.
        scope : {"everywhere", "here"}
            "everywhere": every unlocked supervoxel that nobody pointed at follows all
            strokes so far. "here": only supervoxels near this stroke, and only to its
            region.

        Returns
        -------
        int
            The region's id.

        Raises
        ------
        EditError
            If the stroke leaves the scan or lies wholly in locked regions, or the
            region is locked or was merged away.
        """
        if scope not in ("everywhere", "here"):
            raise EditError(
                f'The scope of a scribble is "everywhere" or "here", not {scope!r}.'
            )
        points = self._index.ras_mm(self._index.flat_voxels(voxels_zyx))
        with self._changing:
            return self._do(Scribble(points, self._target(region), scope)).ids[0]

    def paint(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Give voxels (n, 3) to a region by hand; they win over everything automatic.

        None makes a new region.

        Voxels shown as a locked region are skipped; the step's name says how many.

        Raises
        ------
        EditError
            If they leave the scan or lie wholly in locked regions, or the region is
            locked or was merged away.
        """
        points = self._index.ras_mm(self._index.flat_voxels(voxels_zyx))
        with self._changing:
            return self._do(Paint(points, self._target(region))).ids[0]
