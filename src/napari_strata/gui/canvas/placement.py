"""Placement of a napari layer in the patient (no Qt).

A layer's position is its data-to-world transform (affine, rotate, shear, scale,
translate), with a unit per world axis. Many readers leave the patient's affine in the
metadata, which relates that world to the patient. As long as the layer is where its
reader put it, the reader's affine is used exactly. If the layer was moved, its new
position is converted to the patient in the same way.

Without such metadata, the world axes z, y and x are assumed to point toward Inferior,
Posterior and Left, and a note says that left and right are a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.volume import FileGrid, Geometry

if TYPE_CHECKING:
    import napari.layers

METADATA_KEY = "strata"
"""Key of our own facts in a layer's metadata."""
PLACING = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""The attributes that place a layer."""

_NOTE_SIDES_GUESSED = (
    "The layer does not say how the patient lies: left and right are a guess."
)
_NOTE_NO_SFORM = (
    "The header does not say how the patient lies (sform and qform codes are 0): left"
    " and right are a guess."
)
_NOTE_NO_UNIT = (
    "The layer gives no unit of length: its sizes were taken for millimetres."
)
_NOTE_MOVED = (
    "The layer was moved, cropped or scaled after it was read; it is taken where it"
    " lies now, not where its file lies."
)
_NOTE_AFFINE_IGNORED = (
    "The affine in the layer's metadata does not fit its transform, or its axis order"
    " is unknown, and was left out."
)

_MATCHES_VOX = 0.01
"""Tolerance between a layer's corners and their position by a reader, in voxels.

The unit is the shortest side of a voxel. Readers round to 1e-6.
"""
_STAYS_VOX = 1e-4
"""The same for layers that we placed ourselves, which differ by floating-point errors only."""

_BOXED_VOX = 0.05
"""How far the boxes of a scan and of labels over it may differ, in voxels of the labels."""

_REVERSED = [2, 1, 0, 3]
_ROWS_REVERSED = np.eye(4)[_REVERSED]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""LPS+ <-> RAS+."""
_FROM_ITK = _LPS @ _ROWS_REVERSED
"""(z, y, x) in ITK's LPS+ -> RAS+."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Position of a layer.

    Parameters
    ----------
    geometry : Geometry
        Position in the patient, in the layer's own axis order.
    world : (4, 4) float64 array
        Transform from array indices (last three axes) to napari's world, in mm.
    knows_sides : bool
        Whether the layer defines the patient's left side.
    notes : tuple of str
        Assumptions that were made, one sentence each.
    """

    geometry: Geometry
    world: NDArray[np.float64]
    knows_sides: bool
    notes: tuple[str, ...] = ()

    @property
    def directions(self) -> NDArray[np.float64]:
        """Directions of napari's world axes in the patient.

        Column i is world axis i in RAS+, with a length close to 1.
        """
        turned: NDArray[np.float64] = self.geometry.affine[:3, :3] @ np.linalg.inv(
            self.world[:3, :3]
        )
        return turned


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A reader's placement of an array.

    `affine` maps array indices to RAS+, `world` maps them to napari's world.
    """

    affine: NDArray[np.float64]
    world: NDArray[np.float64]

    @property
    def patient_from_world(self) -> NDArray[np.float64]:
        patient: NDArray[np.float64] = self.affine @ np.linalg.inv(self.world)
        return patient


def placing_of(layer: napari.layers.Layer) -> dict[str, Any]:
    """Return the attributes of a layer that place it, with its metadata and name."""
    return {
        **{key: getattr(layer, key) for key in PLACING},
        "metadata": layer.metadata,
        "name": layer.name,
    }


def spatial_shape(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    """Return the last three axes of a shape whose other axes have one step.

    Raises
    ------
    GeometryError
        If that is not a 3D scan.
    """
    size = " x ".join(str(int(n)) for n in shape)
    if len(shape) < 3:
        raise GeometryError(
            f"{name} is a 2D image ({size}). Strata needs a 3D scan: open the whole"
            " volume."
        )
    if len(shape) == 4 and shape[-1] == 1 and shape[0] != 1:
        raise GeometryError(
            f"{name} has its time axis last ({size}), where x should be. Open the file"
            " with Strata, or drop that axis."
        )
    if any(int(n) != 1 for n in shape[:-3]):
        raise GeometryError(
            f"{name} holds several volumes ({size}). Choose one: Open scan… takes one"
            " of a file."
        )
    z, y, x = (int(n) for n in shape[-3:])
    return z, y, x


def world_from_parts(
    attributes: Mapping[str, Any], ndim: int
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the transform (4, 4) from a layer's last three indices to napari's world in mm.

    The second value holds notes on its units.

    Raises
    ------
    GeometryError
        If the transform mixes the last three axes with others, or has units other than
        length.
    """
    from napari.utils.transforms import Affine

    name = layer_name(attributes)
    given = {
        key: attributes.get(key) for key in ("scale", "translate", "rotate", "shear")
    }
    try:
        inner = Affine(
            ndim=ndim,
            **{key: value for key, value in given.items() if value is not None},
        )
        outer = attributes.get("affine")
        outer = (
            np.eye(ndim + 1)
            if outer is None
            else np.asarray(getattr(outer, "affine_matrix", outer), np.float64)
        )
        padded = np.eye(ndim + 1)
        start = ndim + 1 - len(outer)
        padded[start:, start:] = outer
        whole = padded @ np.asarray(inner.affine_matrix, np.float64)
    except (ValueError, TypeError, np.linalg.LinAlgError) as err:
        raise GeometryError(
            f"{name} has a transform that cannot be used ({err}). Give it a new affine"
            " in its layer's controls."
        ) from err
    spare = ndim - 3
    if spare and (
        np.abs(whole[spare:ndim, :spare]).max() > 0
        or np.abs(whole[:spare, spare:ndim]).max() > 0
    ):
        raise GeometryError(
            f"{name} mixes its first axis with the three of the scan (affine). Take the"
            " volume out of it first."
        )
    world = whole[spare:, spare:]
    if not np.isfinite(world).all():
        raise GeometryError(
            f"{name} has a transform that is not finite. Set its scale, translate and"
            " affine anew."
        )
    mm, notes = _mm_per_unit(attributes.get("units"), name)
    return np.diag([*mm, 1.0]) @ world, notes


def place(
    shape: Sequence[int],
    attributes: Mapping[str, Any],
    *,
    scans: Sequence[Placement] = (),
) -> Placement:
    """Return the placement of a layer in the patient.

    Parameters
    ----------
    shape : sequence of int
        Shape of the layer's data, all axes.
    attributes : mapping
        Attributes from `placing_of`, or from napari in a writer.
    scans : sequence of Placement
        Placements of the scans in the same viewer. A layer without metadata, such as
        napari's own new labels, is placed by the scan that fills the same box.

    Returns
    -------
    Placement
        Derived from the reader's metadata and the layer's current position; see the
        module.

    Raises
    ------
    GeometryError
        If the shape is not that of a scan, or the transform cannot be used.
    """
    name = layer_name(attributes)
    shape_zyx = spatial_shape(shape, name)
    world, unit_notes = world_from_parts(attributes, len(shape))
    sides = np.linalg.norm(world[:3, :3], axis=0)
    if sides.min() <= 0 or abs(np.linalg.det(world[:3, :3] / sides)) < 1e-6:
        raise GeometryError(
            f"{name} is flat: its scale or affine is singular. Set its scale and affine"
            " anew."
        )
    metadata = attributes.get("metadata") or {}
    ours = _by_our_metadata(metadata, world, shape_zyx)
    if ours is not None:
        return ours
    readers = _by_reader(attributes, world, shape_zyx, unit_notes)
    if isinstance(readers, Placement):
        return readers
    notes = readers
    box = _world_box(world, shape_zyx)
    for scan in scans:
        if (
            np.abs(_world_box(scan.world, scan.geometry.shape_zyx) - box).max()
            <= _BOXED_VOX * sides.min()
        ):
            return _on_scan(scan, world, shape_zyx)
    affine = _assumed_frame(attributes.get("axis_labels")) @ world
    return Placement(
        Geometry(shape_zyx, affine),
        world,
        False,
        (*unit_notes, *notes, _NOTE_SIDES_GUESSED),
    )


def _by_our_metadata(
    metadata: Mapping[str, Any], world: NDArray[np.float64], shape: tuple[int, int, int]
) -> Placement | None:
    """Return the placement of a layer that we made, None for another layer."""
    facts = metadata.get(METADATA_KEY)
    stored = facts.get("geometry") if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not isinstance(stored, Geometry):
        return None
    first_world = np.asarray(facts.get("world", world_of(stored)), np.float64)
    layout = _Layout(stored.affine, first_world)
    knows_sides = bool(facts.get("knows_sides", True))
    shortest_side = np.linalg.norm(world[:3, :3], axis=0).min()
    if stored.shape_zyx == shape and (
        _corner_distance(layout.world, world, shape) <= _STAYS_VOX * shortest_side
        or _never_placed(layout.world, world)
    ):
        return Placement(stored, world, knows_sides)
    geometry = Geometry(shape, layout.patient_from_world @ world)
    return Placement(geometry, world, knows_sides, (_NOTE_MOVED,))


def _by_reader(
    attributes: Mapping[str, Any],
    world: NDArray[np.float64],
    shape: tuple[int, int, int],
    unit_notes: tuple[str, ...],
) -> Placement | tuple[str, ...]:
    """Return the placement by the metadata of another reader, or notes if that fails."""
    metadata = attributes.get("metadata") or {}
    notes: tuple[str, ...] = ()
    mm, header_notes = _header_unit(metadata)
    mm_of_unit = mm_per_unit(attributes.get("units"), layer_name(attributes))
    if (
        metadata.get("header") is None
        and not _is_in_mm(metadata, world, shape)
        and np.ptp(mm_of_unit) == 0
    ):
        # The unit of the affine is unknown, so the layer's own unit is used if it fits.
        mm, header_notes = float(mm_of_unit[0]), unit_notes
    to_mm = np.diag([mm, mm, mm, 1.0])
    has_same_unit = bool(np.allclose(mm_of_unit, mm, rtol=1e-9))
    # In the unit of the reader's affine.
    world_in_unit = np.linalg.inv(to_mm) @ world if has_same_unit else world
    nearest = _MATCHES_VOX * np.linalg.norm(world_in_unit[:3, :3], axis=0).min()
    for find in (_by_affine, _by_direction):
        layout = find(metadata, world_in_unit, shape)
        if not isinstance(layout, _Layout):
            notes += layout
            continue
        if _corner_distance(layout.world, world_in_unit, shape) > nearest:
            moved = Geometry(shape, to_mm @ layout.patient_from_world @ world_in_unit)
            return Placement(moved, world, True, (*header_notes, _NOTE_MOVED))
        geometry = Geometry(shape, to_mm @ layout.affine)
        return Placement(_on_file(geometry, metadata, to_mm), world, True, header_notes)
    return notes


def _is_in_mm(
    metadata: Mapping[str, Any], world: NDArray[np.float64], shape: tuple[int, int, int]
) -> bool:
    """Return whether the reader's metadata fit the layer's place in mm."""
    return any(
        isinstance(find(metadata, world, shape), _Layout)
        for find in (_by_affine, _by_direction)
    )


def _on_file(
    geometry: Geometry, metadata: Mapping[str, Any], to_mm: NDArray[np.float64]
) -> Geometry:
    """Return the geometry on the grid of the file whose NIfTI header the reader left.

    Labels are then written on exactly that grid. Readers reorder axes and round
    (napari-nifti to 1e-6, which is 5e-4 mm over 500 voxels), but the header has the
    file's own numbers.
    """
    header: Any = metadata.get("header")
    shape = _stored_shape(metadata)
    if shape is None or not all(
        hasattr(header, name) for name in ("get_best_affine", "binaryblock")
    ):
        return geometry
    affine = to_mm @ np.array(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return geometry
    file_from_array = np.linalg.inv(affine) @ geometry.affine
    turned = np.rint(file_from_array[:3, :3])
    is_turn = (np.abs(turned).sum(axis=0) == 1).all() and (
        np.abs(turned).sum(axis=1) == 1
    ).all()
    if not is_turn or sorted(shape) != sorted(geometry.shape_zyx):
        return geometry
    exact = np.eye(4)
    exact[:3, :3] = turned
    exact[:3, 3] = [
        size - 1 if row.sum() < 0 else 0
        for size, row in zip(shape, turned, strict=True)
    ]
    matches = (
        _corner_distance(exact, file_from_array, geometry.shape_zyx) <= _MATCHES_VOX
    )
    axes = np.abs(turned).argmax(axis=1)
    if not matches or shape != tuple(geometry.shape_zyx[axis] for axis in axes):
        return geometry
    to_array = np.stack([axes, turned.sum(axis=1)], axis=1).astype(np.float64)
    grid = FileGrid(
        "nifti",
        (shape[0], shape[1], shape[2]),
        affine,
        to_array,
        bytes(header.binaryblock),
        ".nii.gz",
    )
    return Geometry(geometry.shape_zyx, affine @ exact, grid)


def _header_unit(metadata: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Return the length in mm of the unit of a reader's affine, and notes.

    Both come from the NIfTI header beside the affine.
    """
    header: Any = metadata.get("header")
    if not hasattr(header, "get_xyzt_units"):
        return 1.0, ()
    mm = {"micron": 1e-3, "meter": 1e3}.get(header.get_xyzt_units()[0], 1.0)
    notes = (
        ()
        if mm == 1
        else (
            (
                f"The header gives lengths in units of {mm:g} mm; they were turned"
                " into mm."
            ),
        )
    )
    uncoded = header["sform_code"] == 0 and header["qform_code"] == 0
    return mm, (*notes, _NOTE_NO_SFORM) if uncoded else notes


def _never_placed(given: NDArray[np.float64], world: NDArray[np.float64]) -> bool:
    """Return whether a layer with our metadata was made by a script without a transform.

    Such a layer has the identity, or the scan's scale alone.
    """
    at_zero = given.copy()
    at_zero[:3, 3] = 0
    return np.array_equal(world, np.eye(4)) or np.allclose(
        world, at_zero, rtol=1e-9, atol=1e-9
    )


def _on_scan(
    scan: Placement, world: NDArray[np.float64], shape: tuple[int, int, int]
) -> Placement:
    """Return the placement of a layer over a scan, on the scan's grid if they share it."""
    if (
        shape == scan.geometry.shape_zyx
        and _corner_distance(scan.world, world, shape)
        <= _MATCHES_VOX * np.linalg.norm(world[:3, :3], axis=0).min()
    ):
        return Placement(scan.geometry, world, scan.knows_sides)
    affine = scan.geometry.affine @ np.linalg.inv(scan.world) @ world
    return Placement(Geometry(shape, affine), world, scan.knows_sides)


def _world_box(
    world: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Return the lowest and highest world coordinates (2, 3) of an array's voxel edges."""
    ends = (
        np.array(
            [(*corner, 1) for corner in product(*((-0.5, n - 0.5) for n in shape))],
            np.float64,
        )
        @ world.T
    )
    return np.stack([ends[:, :3].min(axis=0), ends[:, :3].max(axis=0)])


def world_of(geometry: Geometry) -> NDArray[np.float64]:
    """Return the world transform (4, 4) by which we place a scan.

    The scan runs along its own axes, and its centre is at its position in the patient.
    """
    spacing = geometry.spacing_zyx_mm
    middle = (np.asarray(geometry.shape_zyx) - 1) / 2
    world = np.diag([*spacing, 1.0])
    world[:3, 3] = -geometry.world_from_voxel(middle)[::-1] - spacing * middle
    return world


def same_place(one: Geometry, other: Geometry) -> bool:
    """Return whether two grids agree to a hundredth of a voxel."""
    far = _MATCHES_VOX * float(one.spacing_zyx_mm.min())
    return (
        one.shape_zyx == other.shape_zyx
        and _corner_distance(one.affine, other.affine, one.shape_zyx) <= far
    )


def lies_straight(layer: napari.layers.Layer) -> bool:
    """Return whether a layer's axes are parallel to napari's world axes.

    A plane on screen is then a plane of its array.
    """
    linear = world_linear(layer)
    off = linear - np.diag(np.diag(linear))
    return bool(np.abs(off).max(initial=0) <= 1e-9 * np.abs(linear).max())


def world_linear(layer: napari.layers.Layer) -> NDArray[np.float64]:
    """Return the linear part (3, 3) of the data-to-world transform of the last three axes.

    It is in the layer's own units.
    """
    origin = np.asarray(layer.data_to_world(np.zeros(3)), np.float64)[-3:]
    return np.column_stack(
        [
            np.asarray(layer.data_to_world(row), np.float64)[-3:] - origin
            for row in np.eye(3)
        ]
    )


def layer_name(attributes: Mapping[str, Any]) -> str:
    """Return the name of a layer for messages."""
    return f"Layer '{attributes['name']}'" if attributes.get("name") else "The layer"


def mm_per_unit(units: Any, name: str) -> NDArray[np.float64]:
    """Return mm per unit of the last three axes.

    Pixels count as mm if no axis has a unit of length.
    """
    return _mm_per_unit(units, name)[0]


def _mm_per_unit(units: Any, name: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    import pint

    known_units = pint.get_application_registry()
    given = (
        [units] * 3
        if units is None or isinstance(units, (str, pint.Unit))
        else list(units)[-3:]
    )
    factors: list[float | None] = []
    words = []
    for unit in given:
        try:
            known = (
                known_units.parse_units(str(unit))
                if unit is not None
                else known_units.pixel
            )
        except (pint.UndefinedUnitError, ValueError) as err:
            raise GeometryError(
                f"{name} has the unit '{unit}', which is no length. Set its units"
                " to mm."
            ) from err
        words.append(str(known))
        if known.is_compatible_with(known_units.mm):
            factors.append(float(known_units.Quantity(1, known).to("mm").magnitude))
        elif str(known) in ("pixel", "dimensionless"):
            factors.append(None)
        else:
            raise GeometryError(
                f"{name} has an axis in {known}, and a scan has three axes of length."
                " Choose a 3D scan, or set units to mm."
            )
    if None not in factors:
        mm = np.array(factors, np.float64)
        if (mm == 1).all():
            return mm, ()
        return mm, (
            (
                f"The layer gives lengths in {' and '.join(dict.fromkeys(words))}; they"
                " were turned into mm."
            ),
        )
    if any(factor is not None for factor in factors):
        raise GeometryError(
            f"{name} gives a length on some axes only ({', '.join(words)}). Set the"
            " units of all three, for example to mm."
        )
    return np.ones(3), (_NOTE_NO_UNIT,)


def _assumed_frame(labels: Any) -> NDArray[np.float64]:
    """Return the transform from napari's world to RAS+ that is assumed without metadata.

    Axes named z, y, x (otherwise the axes in that order) point toward Inferior,
    Posterior and Left.
    """
    names = [str(label).lower() for label in labels or ()][-3:]
    order = (
        [names.index(axis) for axis in "xyz"]
        if sorted(names) == ["x", "y", "z"]
        else [2, 1, 0]
    )
    frame = np.zeros((4, 4))
    frame[[0, 1, 2], order] = -1
    frame[3, 3] = 1
    return frame


def _corner_distance(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, int, int]
) -> float:
    """Return the largest distance between an array's corners under two transforms."""
    corners = np.array(
        [(*corner, 1) for corner in product(*((0, n - 1) for n in shape))], np.float64
    )
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


def _by_affine(
    metadata: Mapping[str, Any], world: NDArray[np.float64], shape: tuple[int, int, int]
) -> _Layout | tuple[str, ...]:
    """Return the layout of an affine that another reader left in the metadata.

    The layer's transform shows how the reader orders axes.
    """
    affine = _given_affine(metadata)
    if affine is None:
        return () if metadata.get("affine") is None else (_NOTE_AFFINE_IGNORED,)
    tolerance = _MATCHES_VOX * float(np.linalg.norm(world[:3, :3], axis=0).min())
    for layout in _whole_layouts(affine, shape):
        if _corner_distance(layout.world, world, shape) <= tolerance:
            return layout
    plain = [
        layout
        for layout in _scale_layouts(affine, world)
        if _corner_distance(layout.world, world, shape) <= tolerance
    ]
    fitting = [
        layout for layout in plain if _fits_header(metadata, layout, affine, shape)
    ] or plain
    if fitting and all(
        _corner_distance(layout.affine, fitting[0].affine, shape) <= tolerance
        for layout in fitting
    ):
        return fitting[0]
    moved = _as_napari_nifti(affine, shape)
    if (
        not fitting
        and {"header", "coordinate_system"} <= metadata.keys()
        and _header_shape(metadata) == sorted(shape)
    ):
        return moved
    return (_NOTE_AFFINE_IGNORED,)


def _given_affine(metadata: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return the affine in the metadata, from x, y, z to RAS+ mm.

    Of a larger affine, with time as the last axis, only the spatial axes are returned.
    """
    given = metadata.get("affine")
    try:
        affine = np.zeros(0) if given is None else np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if (
        affine.ndim != 2
        or affine.shape[0] != affine.shape[1]
        or len(affine) < 4
        or not np.isfinite(affine).all()
    ):
        return None
    affine = affine[np.ix_([0, 1, 2, -1], [0, 1, 2, -1])]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        return None
    return (
        _LPS @ affine
        if "LPS" in str(metadata.get("coordinate_system", "")).upper()
        else affine
    )


def _as_napari_nifti(
    affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> _Layout:
    """Return the layout of napari-nifti since 0.0.19.

    Its order is (z, y, x), with negative scales and the origin at the far corner.
    """
    sides, origin = np.linalg.norm(affine[:3, :3], axis=0)[::-1], affine[2::-1, 3]
    world = np.diag([*-sides, 1.0])
    world[:3, 3] = origin + (np.asarray(shape) - 1) * sides
    return _Layout(affine[:, _REVERSED], world)


def _whole_layouts(
    affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> Iterator[_Layout]:
    """Yield the layouts of readers that use the whole affine, the most likely first."""
    yield _as_napari_nifti(affine, shape)
    for order in ([0, 1, 2, 3], _REVERSED):
        ordered = affine[:, order]
        rows = (
            (np.eye(4), _LPS)
            if order != _REVERSED
            else (_ROWS_REVERSED, _ROWS_REVERSED @ _LPS, np.eye(4), _LPS)
        )
        for basis in rows:
            yield _Layout(ordered, basis @ ordered)


def _scale_layouts(
    affine: NDArray[np.float64], world: NDArray[np.float64]
) -> Iterator[_Layout]:
    """Yield the layouts of readers that use the voxel sizes only.

    They start at zero or at the affine's origin, and axes may be reversed.
    """
    signs, shift = np.sign(np.diag(world)[:3]), world[:3, 3]
    for order in ([0, 1, 2, 3], _REVERSED):
        ordered = affine[:, order]
        sides = np.linalg.norm(ordered[:3, :3], axis=0)
        placed = np.diag([*(signs * sides), 1.0])
        origin = affine[order[:3], 3]
        is_origin = np.allclose(
            np.abs(shift),
            np.abs(origin),
            rtol=0,
            atol=_MATCHES_VOX * float(sides.min()),
        )
        placed[:3, 3] = shift if is_origin else 0
        yield _Layout(ordered, placed)


def _header_shape(metadata: Mapping[str, Any]) -> list[int] | None:
    """Return the sizes in another reader's NIfTI header, sorted; None without a header."""
    shape = _stored_shape(metadata)
    return None if shape is None else sorted(shape)


def _stored_shape(metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the sizes in another reader's NIfTI header along the file's axes.

    None if there is no such header.
    """
    ask: Callable[[], Sequence[int]] | None = getattr(
        metadata.get("header"), "get_data_shape", None
    )
    shape = () if ask is None else tuple(int(n) for n in ask())[:3]
    return shape if len(shape) == 3 else None


def _fits_header(
    metadata: Mapping[str, Any],
    layout: _Layout,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> bool:
    """Return whether the header's sizes, along x, y, z, fit the supposed axis order."""
    stored = _stored_shape(metadata)
    return stored is not None and stored == (
        shape if np.array_equal(layout.affine, affine) else shape[::-1]
    )


def _by_direction(
    metadata: Mapping[str, Any], world: NDArray[np.float64], shape: tuple[int, int, int]
) -> _Layout | tuple[str, ...]:
    """Return the layout of metadata with spacing, origin and direction, without an affine.

    Readers based on ITK (napari-itk-io, and napari-nifti before 0.0.19) leave these, as
    (z, y, x) toward Superior, Posterior and Left. napari-nifti has RAS+ instead if it
    uses medvol 0.0.18 or newer, which the header shows.
    """
    if (
        metadata.get("affine") is not None
        or not {"spacing", "origin", "direction"} <= metadata.keys()
    ):
        return ()
    try:
        spacing, origin = (
            np.asarray(metadata[key], np.float64).ravel()[-3:]
            for key in ("spacing", "origin")
        )
        direction = np.asarray(metadata["direction"], np.float64)
    except (TypeError, ValueError):
        return (_NOTE_AFFINE_IGNORED,)
    if (
        direction.ndim != 2
        or min(direction.shape) < 3
        or len(spacing) < 3
        or len(origin) < 3
        or not (spacing > 0).all()
    ):
        return (_NOTE_AFFINE_IGNORED,)
    direction = direction[-3:, -3:]
    header = metadata.get("header")
    is_ras = hasattr(header, "get_data_shape") or (
        isinstance(header, Mapping) and "space directions" in header
    )
    whole = _affine_from(direction * spacing, origin)
    if not np.isfinite(whole).all() or abs(np.linalg.det(direction)) < 1e-6:
        return (_NOTE_AFFINE_IGNORED,)
    tolerance = _MATCHES_VOX * float(np.linalg.norm(world[:3, :3], axis=0).min())
    for linear in (whole[:3, :3], np.diag(spacing), direction.T * spacing):
        placed = _affine_from(linear, origin)
        # The layer was cropped or moved. Its linear part shows the layout, and the origin
        # is the same in all layouts.
        shifted = _affine_from(linear, world[:3, 3])
        if _corner_distance(shifted, world, shape) <= tolerance:
            return _Layout(whole if is_ras else _FROM_ITK @ whole, placed)
    return (_NOTE_AFFINE_IGNORED,)


def _affine_from(
    linear: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, shift
    return affine
