"""The edits of whole regions at voxel level, one method each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from napari_strata.errors import EditError
from napari_strata.refine.edits.morphology import symmetry_plane
from napari_strata.refine.edits.region_edits import (
    Delete,
    FillHoles,
    Grow,
    Mirror,
    Point,
    RemoveIslands,
    Smooth,
    SplitLine,
    SplitParts,
    Swap,
)
from napari_strata.refine.session.editing import Editing


class ShapeEditing(Editing):
    """What a person does to the shape of regions.

    Locked regions and painted voxels stay as they are in all of it.
    """

    def split_parts(self, region: int, *, smallest_ml: float = 0.0) -> list[int]:
        """Give every connected part of a region an id of its own.

        The largest keeps the old one, the new ids are returned.

        Parameters
        ----------
        region : int
            The region.
        smallest_ml : float
            Parts below this volume stay with the largest.

        Raises
        ------
        EditError
            If it does not exist, is locked, hangs together, or falls into more than 200
            parts.
        """
        return list(self._do(SplitParts(int(region), float(smallest_ml))).ids)

    def split_line(
        self, region: int, line_ras_mm: ArrayLike, direction_ras: ArrayLike
    ) -> list[int]:
        """Part a region along a line that was drawn over it.

        The larger side keeps the id, the new one is returned.

        Parameters
        ----------
        region : int
            The region.
        line_ras_mm : (k, 3) array
            Points of the line in RAS+ mm, two or more; it goes on straight beyond its
            ends.
        direction_ras : (3,) array
            The direction in which the person looked: the normal of the plane drawn on.
            The cut runs along it.

        Raises
        ------
        EditError
            If the region does not exist or is locked, or the line has no length or
            misses the region.
        """
        line = tuple(
            _point(point)
            for point in np.atleast_2d(np.asarray(line_ras_mm, np.float64))
        )
        return list(self._do(SplitLine(int(region), line, _point(direction_ras))).ids)

    def split_plane(
        self, region: int, point_ras_mm: ArrayLike, normal_ras: ArrayLike
    ) -> list[int]:
        """Part a region by a plane through a point, across a direction.

        The larger side keeps the id.

        Raises
        ------
        EditError
            If the region does not exist or is locked, the normal is zero, or the plane
            misses the region.
        """
        point, normal = np.array(_point(point_ras_mm)), np.array(_point(normal_ras))
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
        """Let two regions change places.

        Each id gets the other's voxels, and keeps its name and colour.

        Raises
        ------
        EditError
            If one does not exist or is locked, or is background.
        """
        self._do(Swap(int(one), int(other)))

    def delete(self, ids: int | Iterable[int]) -> None:
        """Make regions background, with what was painted of them.

        Raises
        ------
        EditError
            If one does not exist or is locked, or is background.
        """
        self._do(
            Delete(
                tuple(
                    int(i)
                    for i in ([ids] if isinstance(ids, int | np.integer) else ids)
                )
            )
        )

    def fill_holes(self, region: int, *, largest_ml: float | None = None) -> None:
        """Give a region what it encloses on all sides.

        Parameters
        ----------
        region : int
            The region.
        largest_ml : float or None
            Holes above this volume stay; None fills all.

        Raises
        ------
        EditError
            If it does not exist, is locked, or has no hole that can be filled.
        """
        self._do(
            FillHoles(int(region), None if largest_ml is None else float(largest_ml))
        )

    def remove_islands(self, region: int, *, smaller_than_ml: float) -> None:
        """Give parts of a region below a volume to what surrounds them.

        Its largest part always stays.

        Raises
        ------
        EditError
            If it does not exist, is locked, or has no such part.
        """
        self._do(RemoveIslands(int(region), float(smaller_than_ml)))

    def keep_largest(self, region: int) -> None:
        """Give all parts of a region but its largest to what surrounds them.

        Raises
        ------
        EditError
            If it does not exist, is locked, or hangs together.
        """
        self._do(RemoveIslands(int(region)))

    def smooth(self, ids: int | Sequence[int] = (), *, sd_mm: float = 1.5) -> None:
        """Smooth the borders of some regions, or of all, at once.

        Neighbours leave neither gap nor overlap.

        Parameters
        ----------
        ids : int or sequence of int
            Regions; none names all that are not locked.
        sd_mm : float
            Standard deviation of the Gaussian in mm, the same along every axis; finer
            detail than that goes.

        Raises
        ------
        EditError
            If one does not exist or is locked, the length is out of range, or nothing
            would change.
        """
        self._do(
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
        """Move a region's border outward, or inward for a negative length.

        The length is the same along every axis.

        Parameters
        ----------
        region : int
            The region.
        by_mm : float
            How far, between voxel centres. What a shrinking region leaves goes to the
            nearest other region.
        into : iterable of int or None
            Regions that it may take from or give to; None allows all that are not
            locked.

        Raises
        ------
        EditError
            If it does not exist or is locked, or nothing would change.
        """
        allowed = None if into is None else tuple(sorted({int(i) for i in into}))
        self._do(Grow(int(region), float(by_mm), allowed))

    def shrink(
        self, region: int, by_mm: float, *, into: Iterable[int] | None = None
    ) -> None:
        """Move a region's border inward: `grow` by the negative length."""
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
            The region; it keeps all it has.
        target : int or None
            The region that gets the copy; None makes a new one.
        point_ras_mm, normal_ras : (3,) arrays or None
            The plane; without them, the one about which the body is most symmetrical,
            near the patient's own left-right axis.

        Returns
        -------
        int
            The region that has the copy.

        Raises
        ------
        EditError
            If a region does not exist or is locked, only half a plane was given, or
            nothing of the copy has a place.
        """
        if (point_ras_mm is None) != (normal_ras is None):
            raise EditError(
                "A plane needs a point and a normal. Give both, or neither for the"
                " body's own plane of symmetry."
            )
        point, normal = (
            self.symmetry_plane
            if point_ras_mm is None or normal_ras is None
            else (_point(point_ras_mm), _point(normal_ras))
        )
        with self._changing:
            return self._do(
                Mirror(int(region), self._target(target), point, normal)
            ).ids[0]

    @property
    def symmetry_plane(self) -> tuple[Point, Point]:
        """Point and normal in RAS+ mm of the plane about which the body is most symmetrical.

        (mid-sagittal, as a rule).
        """
        body = ~self._index.background[self.proposal.supervoxels]
        point, normal = symmetry_plane(body, self.volume.geometry.affine)
        return _point(point), _point(normal)


def _point(values: ArrayLike) -> Point:
    found = np.asarray(values, np.float64)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise EditError(
            f"A point or a direction is three numbers in RAS, got {values!r}."
        )
    right, anterior, superior = (float(v) for v in found)
    return right, anterior, superior
