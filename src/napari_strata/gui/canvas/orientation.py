"""Orientation on the canvas: planes, letters, the 3D camera and the position (no Qt)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.gui.canvas.canvas import EdgeText, camera_of, look_along, looks_along
from napari_strata.gui.canvas.layers import layer_facts, level_shape
from napari_strata.gui.canvas.placement import METADATA_KEY, place, placing_of
from napari_strata.volume import Geometry

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

_PLANE_AXES: dict[Plane, tuple[int, int, int]] = {
    "axial": (2, 1, 0),
    "coronal": (1, 2, 0),
    "sagittal": (0, 2, 1),
}
"""World axes that go through, down and across a plane.

0 = right-left, 1 = anterior-posterior, 2 = superior-inferior.
"""
_LETTER_COSINE = 0.82
"""Cosine of 35 degrees: an edge further off every axis has no letter in 3D."""


_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, slots=True)
class EdgeLetters:
    """The letters at the four edges of the canvas."""

    left: str
    right: str
    top: str
    bottom: str


def world_directions(layer: napari.layers.Layer) -> NDArray[np.float64] | None:
    """Return the directions of napari's world axes in the patient.

    Parameters
    ----------
    layer : napari layer
        A scan.

    Returns
    -------
    (3, 3) float64 array or None
        Column i is the RAS+ axis that world axis i runs along, a signed unit vector;
        None if the layer does not define it, or two axes would share one letter.
    """
    placement = place(level_shape(layer), placing_of(layer))
    if not placement.knows_sides:
        return None
    columns = placement.directions
    nearest = np.zeros((3, 3))
    for axis in range(3):
        row = int(np.abs(columns[:, axis]).argmax())
        nearest[row, axis] = np.sign(columns[row, axis])
    return nearest if abs(np.linalg.det(nearest)) > 0.5 else None


def edge_letters(
    directions: NDArray[np.float64],
    displayed: tuple[int, int],
    orientation2d: tuple[str, str],
) -> EdgeLetters:
    """Return the letters at the canvas edges.

    Parameters
    ----------
    directions : (3, 3) array
        From `world_directions`.
    displayed : tuple of 2 int
        World axes shown down and across the canvas, as napari orders them.
    orientation2d : tuple of 2 str
        Where they grow: ("down" or "up", "right" or "left").
    """
    ahead, behind = zip(
        *(_both_ways(directions[:, axis]) for axis in displayed), strict=True
    )
    bottom, top = (
        (ahead[0], behind[0]) if orientation2d[0] == "down" else (behind[0], ahead[0])
    )
    right, left = (
        (ahead[1], behind[1]) if orientation2d[1] == "right" else (behind[1], ahead[1])
    )
    return EdgeLetters(left=left, right=right, top=top, bottom=bottom)


def turned_letters(
    looking_ras: NDArray[np.float64], up_ras: NDArray[np.float64]
) -> EdgeLetters:
    """Return the letters at the canvas edges in 3D.

    An edge that is more than 35 degrees off any axis gets "".

    Parameters
    ----------
    looking_ras, up_ras : (3,) array
        Where the camera looks and what is up on the canvas, as RAS+ directions. The
        view is no mirror image.
    """
    right = np.cross(looking_ras, up_ras)
    ends = []
    for direction in (up_ras, right):
        unit = np.asarray(direction, np.float64) / max(
            float(np.linalg.norm(direction)), 1e-9
        )
        ends.append(
            _both_ways(unit) if np.abs(unit).max() > _LETTER_COSINE else ("", "")
        )
    (top, bottom), (ahead, behind) = ends
    return EdgeLetters(left=behind, right=ahead, top=top, bottom=bottom)


def plane_order(
    directions: NDArray[np.float64] | None, plane: Plane
) -> tuple[int, int, int]:
    """Return napari's dims order (through, down, across) that shows a plane."""
    if directions is None:
        directions = -np.eye(3)[::-1]
    axes = _PLANE_AXES[plane]
    through, down, across = (int(np.abs(directions[axis]).argmax()) for axis in axes)
    return through, down, across


def upright_orientation(
    directions: NDArray[np.float64], order: tuple[int, int, int]
) -> tuple[str, str, str]:
    """Return the camera orientation with the patient upright in 2D and unmirrored in 3D.

    In 2D, feet and back go down and the patient's left goes right (in sagittal planes
    the back does). In 3D napari shows (towards, down, right) as a right-handed frame,
    so the depth axis is reversed if the displayed axes, in the order shown, are
    left-handed in the patient.
    """
    down = "down" if directions[:, order[1]].sum() < 0 else "up"
    across = "right" if directions[:, order[2]].sum() < 0 else "left"
    handedness = (
        np.linalg.det(directions[:, list(order)])
        * (1 if down == "down" else -1)
        * (1 if across == "right" else -1)
    )
    return ("towards" if handedness > 0 else "away"), down, across


def describe_position(
    geometry: Geometry,
    data: NDArray[np.generic],
    voxel_zyx: ArrayLike,
    *,
    unit: str = "",
) -> str:
    """Return a voxel's position in the patient and its value as text, "" outside the scan."""
    index = np.round(np.asarray(voxel_zyx, dtype=np.float64)).astype(int)
    if (index < 0).any() or (index >= geometry.shape_zyx).any():
        return ""
    point = geometry.world_from_voxel(np.asarray(voxel_zyx, dtype=np.float64))
    place = "  ".join(
        f"{_LETTERS[axis][int(point[axis] >= 0)]} {abs(point[axis]):.1f}"
        for axis in range(3)
    )
    value = data[tuple(index)]
    shown = (
        f"{value:.4g}" if data.dtype.kind == "f" and not unit else f"{float(value):.0f}"
    )
    return f"{place} mm   {shown}{' ' + unit if unit else ''}"


_LETTERS_OF = "letters"
"""Key of a scan's orientation whose panel was closed."""


def take_over(viewer: napari.viewer.Viewer) -> CanvasOrientation:
    """Return a new orientation of a viewer, in place of one that an earlier panel left."""
    for layer in viewer.layers:
        left = layer_facts(layer).get(_LETTERS_OF)
        if isinstance(left, CanvasOrientation):
            left._leave()
    return CanvasOrientation(viewer)


class CanvasOrientation:
    """Keeps letters and 3D camera right while planes are rolled, transposed or turned.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Its canvas is kept right until `close`.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._scan: napari.layers.Layer | None = None
        self._directions: NDArray[np.float64] | None = None
        self._updating = self._stays = False
        self.letters = EdgeText(viewer)
        self._camera = camera_of(viewer)
        viewer.dims.events.order.connect(self.update)
        viewer.dims.events.ndisplay.connect(self.update)
        self._point_3d = tuple(viewer.dims.point)
        viewer.dims.events.ndisplay.connect(self._keep_slice, position="last")
        viewer.dims.events.point.connect(self._on_point)
        self._camera.events.orientation.connect(self.update)
        self._camera.events.angles.connect(self._on_turned)

    @property
    def directions(self) -> NDArray[np.float64] | None:
        """Directions of napari's world axes in the patient, see `world_directions`.

        None if they are not known.
        """
        return self._directions

    def set_scan(self, layer: napari.layers.Layer | None) -> None:
        """Follow the orientation of another scan, or of none."""
        self._scan = layer
        self._directions = None if layer is None else world_directions(layer)
        self.update()

    def stay(self) -> None:
        """Keep the letters right without a panel, until the scan is removed.

        A panel that is opened later takes over, see `take_over`.
        """
        if self._scan is None or self._scan not in self._viewer.layers:
            return
        self._stays = True
        # the scan's layer keeps it alive, and no longer
        facts = {**layer_facts(self._scan), _LETTERS_OF: self}
        self._scan.metadata[METADATA_KEY] = facts
        self._viewer.layers.events.removed.connect(self._on_removed)

    def show_plane(self, plane: Plane) -> None:
        """Show a plane, upright, and fit it to the canvas."""
        viewer = self._viewer
        spare = viewer.dims.ndim - 3
        if spare < 0:
            return
        order = plane_order(self._directions, plane)
        viewer.dims.ndisplay = 2
        viewer.dims.order = (*range(spare), *(axis + spare for axis in order))
        if self._directions is not None:
            self._camera.orientation = upright_orientation(self._directions, order)
        viewer.fit_to_view()

    def show_3d(self) -> None:
        """Show 3D, seen from the front, head up."""
        viewer = self._viewer
        viewer.dims.ndisplay = 3
        viewer.fit_to_view()
        self._look_from_the_front()

    def update(self, event: object = None) -> None:
        """Bring letters and camera up to date."""
        if self._updating:
            return
        self._updating = True
        try:
            self._turn_camera()
            self._write_letters()
        finally:
            self._updating = False

    def close(self) -> None:
        """Take the letters off the canvas and stop listening, unless they stay."""
        if self._stays:
            return
        viewer = self._viewer
        viewer.dims.events.order.disconnect(self.update)
        viewer.dims.events.ndisplay.disconnect(self.update)
        viewer.dims.events.ndisplay.disconnect(self._keep_slice)
        viewer.dims.events.point.disconnect(self._on_point)
        self._camera.events.orientation.disconnect(self.update)
        self._camera.events.angles.disconnect(self._on_turned)
        self.letters.close()

    def _on_removed(self, event: object = None) -> None:
        if self._scan not in self._viewer.layers:
            self._leave()

    def _leave(self) -> None:
        if self._scan is not None:
            facts = layer_facts(self._scan)
            left = {key: fact for key, fact in facts.items() if key != _LETTERS_OF}
            self._scan.metadata[METADATA_KEY] = left
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._stays = False
        self.close()

    def _on_point(self, event: object = None) -> None:
        if self._viewer.dims.ndisplay == 3:
            self._point_3d = tuple(self._viewer.dims.point)

    def _keep_slice(self, event: object = None) -> None:
        """Go back to the slice: napari's sliders, gone in 3D, come back at their start."""
        dims = self._viewer.dims
        if dims.ndisplay == 3:
            self._point_3d = tuple(dims.point)
        elif len(self._point_3d) == dims.ndim:
            dims.point = self._point_3d

    def _on_turned(self, event: object = None) -> None:
        if self._viewer.dims.ndisplay == 3 and not self._updating:
            self._write_letters()

    def _order(self) -> tuple[int, int, int] | None:
        dims = self._viewer.dims
        order = tuple(int(axis) - (dims.ndim - 3) for axis in dims.order[-3:])
        return (
            (order[0], order[1], order[2])
            if dims.ndim >= 3 and min(order) >= 0
            else None
        )

    def _turn_camera(self) -> None:
        order, camera = self._order(), self._camera
        if self._viewer.dims.ndisplay != 3 or self._directions is None or order is None:
            return
        down, across = (str(way) for way in camera.orientation2d)
        signs = (1 if down == "down" else -1) * (1 if across == "right" else -1)
        depth = (
            "towards"
            if np.linalg.det(self._directions[:, list(order)]) * signs > 0
            else "away"
        )
        if str(camera.orientation[0]) != depth:
            camera.orientation = (depth, down, across)
        if not np.any(camera.angles):
            self._look_from_the_front()

    def _look_from_the_front(self) -> None:
        order = self._order()
        if self._directions is None or order is None:
            return
        shown = self._directions[:, list(order)]
        back, head = shown.T @ (0, -1, 0), shown.T @ (0, 0, 1)
        look_along(self._viewer, back, head)

    def _write_letters(self) -> None:
        order = self._order()
        letters: EdgeLetters | None = None
        if (
            self._viewer.dims.ndisplay == 2
            and self._directions is not None
            and order is not None
        ):
            down, across = (str(way) for way in self._camera.orientation2d)
            letters = edge_letters(
                self._directions, (order[1], order[2]), (down, across)
            )
        elif (
            self._viewer.dims.ndisplay == 3
            and self._directions is not None
            and order is not None
        ):
            shown = self._directions[:, list(order)]
            ahead, above = looks_along(self._viewer)
            letters = turned_letters(shown @ ahead, shown @ above)
        self.letters.show({} if letters is None else asdict(letters))


def _both_ways(direction: NDArray[np.float64]) -> tuple[str, str]:
    """Return the letters ahead of and behind a signed axis."""
    axis = int(np.abs(direction).argmax())
    ahead = int(direction[axis] > 0)
    return _LETTERS[axis][ahead], _LETTERS[axis][1 - ahead]
