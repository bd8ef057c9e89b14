"""All edits of a refinement, one method each; every edit is a step of the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import TreeName
from napari_strata.refine.edits.basic import (
    Assign,
    Merge,
    SetRow,
    Split,
)
from napari_strata.refine.edits.region_edits import (
    Delete,
    FillHoles,
    Grow,
    Mirror,
    RemoveIslands,
    Smooth,
    SplitLine,
    SplitParts,
    Swap,
)
from napari_strata.refine.edits.strokes import Paint, Scribble
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.edit_session import EditSession, requested_cut
from napari_strata.refine.session.view import as_point
from napari_strata.refine.state.assignment import Scope, supervoxels_at_voxels
from napari_strata.refine.state.fragments import voxels_of_supervoxel


class Edits:
    """Every edit of a case, `work.edits`.

    An edit that fails raises `EditError` and changes nothing. Edits of a region's shape
    change neither locked regions nor painted voxels.

    Parameters
    ----------
    session : EditSession
        The case.
    """

    def __init__(self, session: EditSession) -> None:
        self._session = session

    # Cuts, whole regions and their rows

    def cut(self, *, regions: int | None = None, tissues: int | None = None) -> None:
        """Let unassigned supervoxels follow another cut. See `Refinement.cut`."""
        session = self._session
        with session.lock:
            session.cut(
                *requested_cut(
                    session.proposal,
                    session.state.tree,
                    regions=regions,
                    tissues=tissues,
                )
            )

    def merge(self, ids: Sequence[int]) -> int:
        """Merge regions into the first one, and return its id. See `Refinement.merge`.

        Raises
        ------
        EditError
            If one does not exist or is locked, or there are fewer than two.
        """
        return self._session.do(Merge(tuple(int(i) for i in ids))).ids[0]

    def split(
        self, region: int, *, into: int = 2, tree: TreeName | None = None
    ) -> list[int]:
        """Split a region into its children in a tree, and return the new ids.

        The largest part keeps the id. There are fewer parts than requested only if the
        region has fewer supervoxels.

        Parameters
        ----------
        region : int
            The region.
        into : int
            Number of parts.
        tree : {"regions", "tissues"} or None
            Split into connected regions or by tissue; None uses the tree in use.

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
        return list(self._session.do(Split(int(region), int(into), tree)).ids)

    def assign(self, supervoxel_ids: ArrayLike, region: int | None = None) -> int:
        """Assign supervoxels to a region (None makes a new one), and return its id.

        Scribbles elsewhere no longer change them.

        Raises
        ------
        EditError
            If an id is unknown, or a region involved is locked.
        """
        ids = np.atleast_1d(np.asarray(supervoxel_ids))
        count = self._session.proposal.n_supervoxels
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
        return self._assign(self._first_uncut(np.unique(ids)), region)

    def assign_at(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Assign the supervoxels at voxels (n, 3) to a region (None makes a new one).

        Raises
        ------
        EditError
            If voxels lie outside the scan, or a region involved is locked.
        """
        return self._assign(self._session.index.flat_voxels(voxels_zyx), region)

    def _first_uncut(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return for each supervoxel a voxel that was not cut from it."""
        first = self._session.index.first_voxels[ids]
        for i in np.flatnonzero(
            supervoxels_at_voxels(self._session.state, self._session.index, first)
            != ids
        ).tolist():
            first[i] = voxels_of_supervoxel(
                self._session.state, self._session.index, int(ids[i])
            )[0]
        return np.sort(first)

    def _assign(self, flat_voxels: NDArray[np.int64], region: int | None) -> int:
        with self._session.lock:
            return self._session.do(
                Assign(self._session.index.ras_mm(flat_voxels), self._target(region))
            ).ids[0]

    def rename(self, region: int, name: str) -> None:
        """Name a region.

        Raises
        ------
        EditError
            If the region does not exist or the name is empty.
        """
        if not name.strip():
            raise EditError("A region's name cannot be empty.")
        self._session.do(SetRow(int(region), name=name.strip()))

    def recolor(self, region: int, color: tuple[int, int, int]) -> None:
        """Set the RGB colour (0-255) of a region.

        Raises
        ------
        EditError
            If the region does not exist or the colour is not three numbers from 0 to
            255.
        """
        values = tuple(int(v) for v in color)
        if len(values) != 3 or min(values) < 0 or max(values) > 255:
            raise EditError(f"A colour is three numbers from 0 to 255, got {color}.")
        self._session.do(SetRow(int(region), color=(values[0], values[1], values[2])))

    def accept(self, region: int) -> None:
        """Mark a region as accepted, and lock it.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._session.do(SetRow(int(region), locked=True, accepted=True))

    def lock(self, region: int) -> None:
        """Lock a region: no edit, cut, scribble or brush changes it until it is unlocked.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._session.do(SetRow(int(region), locked=True))

    def unlock(self, region: int) -> None:
        """Unlock a region; it is no longer accepted then.

        Raises
        ------
        EditError
            If the region does not exist.
        """
        self._session.do(SetRow(int(region), locked=False, accepted=False))

    def scribble(
        self,
        voxels_zyx: ArrayLike,
        *,
        region: int | None = None,
        scope: Scope = "everywhere",
        reach: Reach | None = None,
    ) -> int:
        """Assign the supervoxels under a stroke to a region; similar ones follow.

        Parameters
        ----------
        voxels_zyx : (n, 3) integer array
            Voxels of the stroke, as array indices.
        region : int or None
            The region they belong to; None or an unused id creates one, 0 means
            background.
        scope : {"everywhere", "here"}
            "everywhere": similar supervoxels anywhere change, unless earlier strokes
            speak against it. "here": only supervoxels around this stroke with its own
            range of intensity change.
        reach : Reach, optional
            How far "here" goes; by default 10 mm, and 2 standard deviations of the
            stroke's intensity.

        Returns
        -------
        int
            The region's id.

        Raises
        ------
        EditError
            If the stroke leaves the scan or lies entirely in locked regions, or the
            region is locked or was merged into another.
        """
        if scope not in ("everywhere", "here"):
            raise EditError(
                f'The scope of a scribble is "everywhere" or "here", not {scope!r}.'
            )
        points = self._session.index.ras_mm(self._session.index.flat_voxels(voxels_zyx))
        reach = reach or Reach()
        with self._session.lock:
            target = self._target(region)
            scribble = Scribble(
                points, target, scope, reach=(reach.mm, reach.tolerance_sd)
            )
            return self._session.do(scribble).ids[0]

    def paint(self, voxels_zyx: ArrayLike, region: int | None = None) -> int:
        """Paint voxels (n, 3) with a region; they override its supervoxels' regions.

        None creates a region. Voxels of locked regions are skipped; the step's name
        contains their number.

        Raises
        ------
        EditError
            If they leave the scan or lie entirely in locked regions, or the region is
            locked or was merged into another.
        """
        points = self._session.index.ras_mm(self._session.index.flat_voxels(voxels_zyx))
        with self._session.lock:
            return self._session.do(Paint(points, self._target(region))).ids[0]

    # Shapes of regions

    def split_parts(self, region: int, *, smallest_ml: float = 0.0) -> list[int]:
        """Assign a new id to every connected part of a region except the largest.

        Return the new ids.

        Parameters
        ----------
        region : int
            The region.
        smallest_ml : float
            Parts below this volume stay with the largest.

        Raises
        ------
        EditError
            If it does not exist, is locked, is connected, or has more than 200 parts.
        """
        return list(self._session.do(SplitParts(int(region), float(smallest_ml))).ids)

    def split_line(
        self, region: int, line_ras_mm: ArrayLike, direction_ras: ArrayLike
    ) -> list[int]:
        """Split a region along a line drawn over it, and return the id of the smaller side.

        The larger side keeps the region's id.

        Parameters
        ----------
        region : int
            The region.
        line_ras_mm : (k, 3) array
            Points of the line in RAS+ mm, at least two. The line is extended straight
            at both ends.
        direction_ras : (3,) array
            The viewing direction, which is the normal of the plane that was drawn on.
            The cut runs along it.

        Raises
        ------
        EditError
            If the region does not exist or is locked, or the line has no length or
            misses the region.
        """
        line = tuple(
            as_point(point)
            for point in np.atleast_2d(np.asarray(line_ras_mm, np.float64))
        )
        return list(
            self._session.do(SplitLine(int(region), line, as_point(direction_ras))).ids
        )

    def split_plane(
        self, region: int, point_ras_mm: ArrayLike, normal_ras: ArrayLike
    ) -> list[int]:
        """Split a region by a plane. The larger side keeps the id.

        Raises
        ------
        EditError
            If the region does not exist or is locked, the normal is zero, or the plane
            misses the region.
        """
        point, normal = np.array(as_point(point_ras_mm)), np.array(as_point(normal_ras))
        if not np.linalg.norm(normal) > 0:
            raise EditError(
                "The normal of a plane cannot be zero. Give a direction in RAS, such as"
                " (1, 0, 0)."
            )
        view = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
        along = np.cross(view, normal)
        return self.split_line(
            region, [point, point + along / np.linalg.norm(along)], view
        )

    def swap(self, one: int, other: int) -> None:
        """Exchange the voxels of two regions; names and colours stay with the ids.

        Raises
        ------
        EditError
            If one does not exist or is locked, or is background.
        """
        self._session.do(Swap(int(one), int(other)))

    def delete(self, ids: int | Iterable[int]) -> None:
        """Turn regions into background, with their painted voxels.

        Raises
        ------
        EditError
            If one does not exist or is locked, or is background.
        """
        self._session.do(
            Delete(
                tuple(
                    int(i)
                    for i in ([ids] if isinstance(ids, int | np.integer) else ids)
                )
            )
        )

    def fill_holes(self, region: int, *, largest_ml: float | None = None) -> None:
        """Fill the holes of a region.

        Parameters
        ----------
        region : int
            The region.
        largest_ml : float or None
            Holes above this volume are kept; None fills all.

        Raises
        ------
        EditError
            If it does not exist, is locked, or has no hole that can be filled.
        """
        self._session.do(
            FillHoles(int(region), None if largest_ml is None else float(largest_ml))
        )

    def remove_islands(self, region: int, *, smaller_than_ml: float) -> None:
        """Assign connected parts of a region below a volume to the regions around them.

        The largest part always stays.

        Raises
        ------
        EditError
            If it does not exist, is locked, or has no such part.
        """
        self._session.do(RemoveIslands(int(region), float(smaller_than_ml)))

    def keep_largest(self, region: int) -> None:
        """Assign all parts of a region except the largest to the regions around them.

        Raises
        ------
        EditError
            If it does not exist, is locked, or is connected.
        """
        self._session.do(RemoveIslands(int(region)))

    def smooth(self, ids: int | Sequence[int] = (), *, sd_mm: float = 1.5) -> None:
        """Smooth the borders of some regions, or of all, without gaps or overlaps.

        Parameters
        ----------
        ids : int or sequence of int
            The regions; an empty sequence means all unlocked ones.
        sd_mm : float
            Standard deviation of the Gaussian in mm, the same along every axis. Finer
            detail disappears.

        Raises
        ------
        EditError
            If one does not exist or is locked, the length is out of range, or nothing
            would change.
        """
        self._session.do(
            Smooth(
                tuple(
                    int(i)
                    for i in ([ids] if isinstance(ids, int | np.integer) else ids)
                ),
                float(sd_mm),
            )
        )

    def grow(
        self, region: int, by_mm: float, *, into: Iterable[int] | None = None
    ) -> None:
        """Move a region's border outward, or inward by a negative distance.

        Parameters
        ----------
        region : int
            The region.
        by_mm : float
            Distance between voxel centres, the same along every axis. Voxels that a
            shrinking region loses go to the nearest other region.
        into : iterable of int or None
            Regions that may lose voxels to it, or gain voxels from it; None allows all
            unlocked ones.

        Raises
        ------
        EditError
            If it does not exist or is locked, or nothing would change.
        """
        allowed = None if into is None else tuple(sorted({int(i) for i in into}))
        self._session.do(Grow(int(region), float(by_mm), allowed))

    def shrink(
        self, region: int, by_mm: float, *, into: Iterable[int] | None = None
    ) -> None:
        """Move a region's border inward: `grow` by a negative distance."""
        self.grow(region, -by_mm, into=into)

    def mirror(
        self,
        region: int,
        *,
        target: int | None = None,
        point_ras_mm: ArrayLike | None = None,
        normal_ras: ArrayLike | None = None,
    ) -> int:
        """Copy a region to the other side of a plane.

        Parameters
        ----------
        region : int
            The region; it stays as it is.
        target : int or None
            The region that gets the copy; None creates one.
        point_ras_mm, normal_ras : (3,) arrays or None
            Point and normal of the plane; by default the plane of best left-right
            symmetry of the body.

        Returns
        -------
        int
            The region that has the copy.

        Raises
        ------
        EditError
            If a region does not exist or is locked, point or normal is missing, or no
            voxel of the copy can be assigned.
        """
        if (point_ras_mm is None) != (normal_ras is None):
            raise EditError(
                "A plane needs a point and a normal. Give both, or neither for the"
                " body's own plane of symmetry."
            )
        point, normal = (
            self._session.view.symmetry_plane
            if point_ras_mm is None or normal_ras is None
            else (as_point(point_ras_mm), as_point(normal_ras))
        )
        with self._session.lock:
            return self._session.do(
                Mirror(int(region), self._target(target), point, normal)
            ).ids[0]

    def _target(self, region: int | None) -> int:
        return self._session.state.next_id if region is None else int(region)
