"""Edits of whole regions at voxel level: split, swap, delete, repair, grow, mirror.

Voxels of locked regions and hand-painted voxels stay as they are, except that swapping
and deleting a region take its painted voxels along. Supervoxels are cut where a result
does not follow their borders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.refine.edits import morphology
from napari_strata.refine.edits.basic import EditResult
from napari_strata.refine.state.assignment import (
    State,
    join,
    new_id,
    own_region,
    present_ids,
    require_regions,
    require_target,
    require_unlocked,
)
from napari_strata.refine.state.fragments import assign_voxels, flat_where
from napari_strata.refine.state.proposal_index import Box, ProposalIndex
from napari_strata.refine.state.rendering import (
    labels_in_box,
    painted_in_box,
    region_box,
)
from napari_strata.volume import BACKGROUND

Point = tuple[float, float, float]

MOST_PARTS = 200
"""Most parts that one split makes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A box of the scan around some regions, with its labels and the voxels that may change."""

    box: Box
    labels: NDArray[np.integer]
    free: NDArray[np.bool_]
    spacing_zyx_mm: NDArray[np.float64]


def _scene(
    state: State, index: ProposalIndex, regions: list[int], *, pad_mm: float = 0.0
) -> _Scene:
    box = region_box(state, index, np.array(regions), pad_mm=pad_mm)
    if box is None:
        raise EditError(
            f"{', '.join(state.name(i) for i in regions)}: there are no voxels. Choose"
            " a region of the region table."
        )
    labels = labels_in_box(state, index, box)
    free = ~np.isin(labels, state.locked_ids()) & ~painted_in_box(state, index, box)
    return _Scene(box, labels, free, index.proposal.volume.spacing_zyx_mm)


def _checked(state: State, index: ProposalIndex, region: int, doing: str) -> None:
    if region == BACKGROUND:
        raise EditError(
            f"Region 0 is background: {doing} works on other regions. Choose one of the"
            " region table."
        )
    require_regions(state, index, [region])
    require_unlocked(state, [region])


def _relabelled(
    state: State, index: ProposalIndex, scene: _Scene, labels: NDArray[np.integer]
) -> tuple[State, int]:
    """Assign new labels to the free voxels of a scene; -1 keeps a voxel's label.

    Return the new state and the number of changed voxels.
    """
    changed = scene.free & (labels >= 0) & (labels != scene.labels)
    voxels = flat_where(index, scene.box, changed)
    return assign_voxels(state, index, voxels, labels[changed]), len(voxels)


def _done(
    state: State, name: str, count: int, ids: tuple[int, ...], nothing: str
) -> EditResult:
    if count == 0:
        raise EditError(nothing)
    return EditResult(state, f"{name}, {count} voxels", ids)


def _parted(
    state: State,
    index: ProposalIndex,
    region: int,
    scene: _Scene,
    part: NDArray[np.integer],
) -> tuple[State, tuple[int, ...]]:
    """Assign a new id to every numbered part (1, 2 ...) of a region except the largest."""
    inside = (scene.labels == region) & scene.free
    sizes = np.bincount(part[inside])
    present = np.flatnonzero(sizes)
    if len(present) < 2:
        raise EditError(
            f"{state.name(region)} would stay in one part. Choose another way to"
            " split it."
        )
    if len(present) > MOST_PARTS:
        raise EditError(
            f"{state.name(region)} would fall into {len(present)} parts. Say which are"
            " too small to count."
        )
    state, made, labels = (
        own_region(state, index, region),
        [],
        np.where(inside, region, -1),
    )
    for number in present[np.argsort(-sizes[present], kind="stable")][1:].tolist():
        fresh, state = new_id(state)
        labels[inside & (part == number)] = fresh
        made.append(fresh)
    return _relabelled(state, index, scene, labels)[0], tuple(made)


@dataclass(frozen=True, slots=True)
class SplitParts:
    """Assign a new id to every connected part of a region except the largest.

    Parts below a given volume stay with the largest.
    """

    region: int
    smallest_ml: float = 0.0
    kind: ClassVar[str] = "split parts"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign an id to each part; the largest keeps the region's id."""
        require_regions(state, index, [self.region])
        require_unlocked(state, [self.region])
        scene = _scene(state, index, [self.region])
        parts = morphology.parts_of(scene.labels == self.region)
        sizes_ml = (
            np.bincount(parts.ravel())
            * index.proposal.volume.geometry.voxel_volume_mm3
            / 1000
        )
        number = np.maximum(
            np.where(sizes_ml < self.smallest_ml, 1, np.arange(len(sizes_ml))), 1
        )
        name = f"Split: {state.name(self.region)} into its parts"
        state, made = _parted(state, index, self.region, scene, number[parts])
        return EditResult(state, name, made)


@dataclass(frozen=True, slots=True)
class SplitLine:
    """Split a region along a line drawn on a plane, seen along a direction.

    Two points define a straight cut.
    """

    region: int
    line_ras_mm: tuple[Point, ...]
    direction_ras: Point
    kind: ClassVar[str] = "split line"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign a new id to the smaller side."""
        require_regions(state, index, [self.region])
        require_unlocked(state, [self.region])
        line, direction = (
            np.array(self.line_ras_mm, np.float64).reshape(-1, 3),
            np.array(self.direction_ras, np.float64),
        )
        line = line[
            np.append(True, np.linalg.norm(np.diff(line, axis=0), axis=1) > 1e-6)
        ]
        view = direction / max(float(np.linalg.norm(direction)), 1e-12)
        if (
            len(line) < 2
            or np.linalg.norm(np.cross(line[-1] - line[0], view)) < 1e-6
            or not np.isfinite(line).all()
        ):
            raise EditError(
                "A line that splits needs two points that lie apart as seen along its"
                " direction. Draw it across the region."
            )
        scene = _scene(state, index, [self.region])
        inside = scene.labels == self.region
        points = index.ras_mm(flat_where(index, scene.box, inside))
        side = np.zeros(inside.shape, np.int32)
        side[inside] = 1 + morphology.side_of_line(points, line, direction)
        name = f"Split: {state.name(self.region)} along a line"
        state, made = _parted(state, index, self.region, scene, side)
        return EditResult(state, name, made)


@dataclass(frozen=True, slots=True)
class Swap:
    """Exchange the voxels of two regions; names and colours stay with the ids."""

    one: int
    other: int
    kind: ClassVar[str] = "swap"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Exchange the ids everywhere, also in painted voxels and strokes."""
        if self.one == self.other:
            raise EditError("Swapping needs two different regions.")
        for region in (self.one, self.other):
            _checked(state, index, region, "swapping")
            state = own_region(state, index, region)
        pair = {self.one: self.other, self.other: self.one}

        def exchanged(values: NDArray[np.int32]) -> NDArray[np.int32]:
            return np.select(
                [values == self.one, values == self.other],
                [self.other, self.one],
                values,
            ).astype(np.int32)

        called = [state.current_id(stroke.region) for stroke in state.strokes]
        strokes = tuple(
            replace(stroke, region=pair.get(at, at))
            for stroke, at in zip(state.strokes, called, strict=True)
        )
        state = replace(
            state,
            assigned=exchanged(state.assigned),
            pinned=exchanged(state.pinned),
            before_spread=exchanged(state.before_spread),
            painted_regions=exchanged(state.painted_regions),
            merged={old: pair.get(at, at) for old, at in state.merged.items()},
            strokes=strokes,
        )
        return EditResult(
            state,
            f"Swap: {state.name(self.one)} and {state.name(self.other)}",
            (self.one, self.other),
        )


@dataclass(frozen=True, slots=True)
class Delete:
    """Turn regions into background, with their painted voxels."""

    ids: tuple[int, ...]
    kind: ClassVar[str] = "delete"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Merge the regions into region 0."""
        ids = list(dict.fromkeys(self.ids))
        if not ids:
            raise EditError("Name at least one region to delete.")
        for region in ids:
            _checked(state, index, region, "deleting")
        name = "Delete: " + ", ".join(state.name(i) for i in ids)
        return EditResult(join(state, index, [BACKGROUND, *ids]), name, (BACKGROUND,))


@dataclass(frozen=True, slots=True)
class FillHoles:
    """Fill the holes of a region, up to a given volume each."""

    region: int
    largest_ml: float | None = None
    kind: ClassVar[str] = "fill holes"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Fill the holes, except for locked regions and painted voxels."""
        _checked(state, index, self.region, "filling holes")
        scene = _scene(state, index, [self.region])
        inside = scene.labels == self.region
        holes = morphology.parts_of(morphology.holes_of(inside))
        sizes_ml = (
            np.bincount(holes.ravel())
            * index.proposal.volume.geometry.voxel_volume_mm3
            / 1000
        )
        kept = (
            sizes_ml <= (np.inf if self.largest_ml is None else self.largest_ml)
        ) & (np.arange(len(sizes_ml)) > 0)
        state, count = _relabelled(
            state, index, scene, np.where(kept[holes], self.region, -1)
        )
        name = state.name(self.region)
        return _done(
            state,
            f"Fill holes: {name}",
            count,
            (self.region,),
            f"{name} has no holes that can be filled.",
        )


@dataclass(frozen=True, slots=True)
class RemoveIslands:
    """Assign connected parts of a region below a volume to the regions around them.

    Without a volume these are all parts except the largest.
    """

    region: int
    smaller_than_ml: float | None = None
    kind: ClassVar[str] = "remove islands"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign each part to the unlocked region that it touches most."""
        _checked(state, index, self.region, "removing islands")
        scene = _scene(state, index, [self.region])
        parts = morphology.parts_of(scene.labels == self.region)
        sizes_ml = (
            np.bincount(parts.ravel())
            * index.proposal.volume.geometry.voxel_volume_mm3
            / 1000
        )
        small = np.arange(len(sizes_ml)) > 1
        if self.smaller_than_ml is not None:
            small &= sizes_ml < self.smaller_than_ml
        islands = np.where(small[parts], parts, 0).astype(np.int32)
        allowed = ~np.isin(scene.labels, [*state.locked_ids().tolist(), self.region])
        labels = morphology.most_touching_label(islands, scene.labels, allowed)[islands]
        state, count = _relabelled(
            state, index, scene, np.where(islands > 0, labels, -1)
        )
        name, doing = (
            state.name(self.region),
            ("Keep largest" if self.smaller_than_ml is None else "Remove islands"),
        )
        return _done(
            state,
            f"{doing}: {name}",
            count,
            (self.region,),
            f"{name} has no islands that can be removed.",
        )


@dataclass(frozen=True, slots=True)
class Smooth:
    """Smooth the borders of regions together, without gaps or overlaps."""

    ids: tuple[int, ...]
    sd_mm: float
    kind: ClassVar[str] = "smooth"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign voxels at the borders to the region that is most frequent around them."""
        ids = list(dict.fromkeys(self.ids)) or present_ids(state, index).tolist()
        if not 0 < self.sd_mm <= 50:
            raise EditError(
                "The smoothing is a length in mm above 0 and up to 50, not"
                f" {self.sd_mm}."
            )
        ids = [
            i for i in ids if self.ids or not (i in state.rows and state.rows[i].locked)
        ]
        if not ids:
            raise EditError(
                "There is no unlocked region to smooth. Unlock one, or make one first."
            )
        for region in ids:
            _checked(state, index, region, "smoothing")
        scene = _scene(state, index, ids, pad_mm=3 * self.sd_mm)
        labels = morphology.smoothed(
            scene.labels, self.sd_mm / scene.spacing_zyx_mm, state.locked_ids()
        )
        labels[~(np.isin(scene.labels, ids) | np.isin(labels, ids))] = -1
        state, count = _relabelled(state, index, scene, labels)
        name = ", ".join(state.name(i) for i in ids) if self.ids else "all regions"
        return _done(
            state,
            f"Smooth: {name}, {self.sd_mm:g} mm",
            count,
            tuple(ids),
            f"{name}: the borders are smooth already.",
        )


@dataclass(frozen=True, slots=True)
class Grow:
    """Move a region's border outward by a length, or inward by a negative one.

    `into` limits the regions it may take from.
    """

    region: int
    by_mm: float
    into: tuple[int, ...] | None = None
    kind: ClassVar[str] = "grow"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Reassign the voxels whose centres are within that distance of the border."""
        _checked(state, index, self.region, "growing")
        if not 0 < abs(self.by_mm) <= 200:
            raise EditError(
                f"A region grows or shrinks by up to 200 mm, not by {self.by_mm}."
            )
        scene = _scene(state, index, [self.region], pad_mm=abs(self.by_mm))
        inside = scene.labels == self.region
        reach_mm = abs(self.by_mm) + 1e-3
        if self.by_mm > 0:
            moved = ~inside & (
                morphology.distance_mm(inside, scene.spacing_zyx_mm) <= reach_mm
            )
            labels = np.where(moved, self.region, -1)
            if self.into is not None:
                labels[~np.isin(scene.labels, self.into)] = -1
        else:
            moved = inside & (
                morphology.distance_mm(~inside, scene.spacing_zyx_mm) <= reach_mm
            )
            allowed = ~np.isin(
                scene.labels, [*state.locked_ids().tolist(), self.region]
            )
            if self.into is not None:
                allowed &= np.isin(scene.labels, self.into)
            labels = np.where(
                moved,
                morphology.nearest_label(scene.labels, allowed, scene.spacing_zyx_mm),
                -1,
            )
        state, count = _relabelled(state, index, scene, labels)
        name, doing = state.name(self.region), "Grow" if self.by_mm > 0 else "Shrink"
        nothing = (
            f"{name} cannot {doing.lower()} there: voxels are larger than that, or what"
            " is around is locked or painted."
        )
        return _done(
            state,
            f"{doing}: {name}, {abs(self.by_mm):g} mm",
            count,
            (self.region,),
            nothing,
        )


@dataclass(frozen=True, slots=True)
class Mirror:
    """Copy a region to the other side of a plane, into another region or a new one."""

    region: int
    target: int
    point_ras_mm: Point
    normal_ras: Point
    kind: ClassVar[str] = "mirror"

    def apply(self, state: State, index: ProposalIndex) -> EditResult:
        """Assign the mirrored voxels to the target; the region itself stays as it is."""
        if self.region == BACKGROUND or self.region == self.target:
            raise EditError(
                "Mirroring copies a region to another one. Choose two different"
                " regions, not background."
            )
        require_regions(state, index, [self.region])
        normal = self._unit_normal()
        name = state.name(self.region)
        source = _scene(state, index, [self.region])
        state = self._with_target(state, index, name)
        matrix, offset = _reflection(index, np.array(self.point_ras_mm), normal)
        box = _mirrored_box(
            source.box, matrix, offset, index.proposal.supervoxels.shape
        )
        if box is None:
            raise EditError(
                f"{name} lies outside the scan when mirrored. Choose another plane."
            )
        starts = [
            np.array([part.start for part in one], np.float64)
            for one in (source.box, box)
        ]
        copied = morphology.mirrored(
            source.labels == self.region,
            matrix,
            matrix @ starts[1] + offset - starts[0],
            tuple(part.stop - part.start for part in box),
        )
        labels = labels_in_box(state, index, box)
        free = ~np.isin(
            labels, [*state.locked_ids().tolist(), self.region]
        ) & ~painted_in_box(state, index, box)
        scene = _Scene(box, labels, free, source.spacing_zyx_mm)
        state, count = _relabelled(
            state, index, scene, np.where(copied, self.target, -1)
        )
        nothing = (
            f"{name} mirrored falls on itself, or on locked or painted voxels only."
        )
        return _done(
            state,
            f"Mirror: {name} to {state.name(self.target)}",
            count,
            (self.target,),
            nothing,
        )

    def _unit_normal(self) -> NDArray[np.float64]:
        """Return the normal of the plane with a length of 1.

        Raises
        ------
        EditError
            If the plane has no finite point or no direction.
        """
        normal = np.array(self.normal_ras, np.float64)
        length = float(np.linalg.norm(normal))
        if not (
            np.isfinite(normal).all()
            and length > 1e-9
            and np.isfinite(self.point_ras_mm).all()
        ):
            raise EditError(
                "The plane of a mirror needs a point and a direction in mm that is not"
                " zero."
            )
        return normal / length

    def _with_target(self, state: State, index: ProposalIndex, name: str) -> State:
        """Return a state that has the target; a new one is named after the region."""
        is_new = (
            self.target not in (BACKGROUND, *state.rows)
            and not (present_ids(state, index) == self.target).any()
        )
        state = require_target(state, index, self.target)
        if not is_new:
            return state
        row = replace(state.rows[self.target], name=f"{name} mirrored")
        return replace(state, rows={**state.rows, self.target: row})


def _reflection(
    index: ProposalIndex, point: NDArray[np.float64], normal: NDArray[np.float64]
) -> tuple[Any, Any]:
    """Return the matrix and offset that map voxel indices to their mirror images."""
    affine = index.proposal.volume.geometry.affine
    world = np.eye(4)
    world[:3, :3] -= 2 * np.outer(normal, normal)
    world[:3, 3] = 2 * (point @ normal) * normal
    to_mirror = np.linalg.inv(affine) @ world @ affine
    return to_mirror[:3, :3], to_mirror[:3, 3]


def _mirrored_box(
    box: Box,
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, ...],
) -> Box | None:
    corners = np.stack(
        np.meshgrid(*[(part.start, part.stop - 1) for part in box], indexing="ij"),
        axis=-1,
    ).reshape(-1, 3)
    found = corners @ matrix.T + offset
    low = np.maximum(np.floor(found.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(found.max(axis=0)).astype(int) + 2, shape)
    if (low >= high).any():
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


REGION_EDITS = (
    SplitParts,
    SplitLine,
    Swap,
    Delete,
    FillHoles,
    RemoveIslands,
    Smooth,
    Grow,
    Mirror,
)
