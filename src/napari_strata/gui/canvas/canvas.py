"""Camera, grid and canvas text, which differ between napari 0.7, 0.8 and 0.9 (no Qt)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    import napari.viewer

OVERLAY_COLOR = "#ffd75a"
"""Yellow of the crosshair, ruler, cut line and review ring: rare in scans and tissues."""

EDGES = {
    "left": "middle_left",
    "right": "middle_right",
    "top": "top_center",
    "bottom": "bottom_center",
}
"""Edge of the canvas -> napari's name for the place in the middle of it."""
_TEXT_COLOR, _BOX_COLOR = (1.0, 0.85, 0.35, 1.0), (0.0, 0.0, 0.0, 0.6)
"""Legible on the scan, on a dark and on a light canvas."""
_NOTE, _NOTE_POINTS = "note", 9
"""Name and font size of the line in the corner, which says what is selected."""
_FONT_SIZE = 16
"""Points; readable from a reading distance, small beside the scan."""
_ANGLE_SIGNS, _ANGLE_OFFSET = np.array([1, -1, 1]), np.array([0.0, 0.0, 90.0])
"""How napari 0.7 and 0.8 turn camera angles (degrees) into what is drawn.

Their own conversion is wrong if an axis is flipped.
"""


def has_tool(viewer: napari.viewer.Viewer) -> bool:
    """Return whether the mouse draws, paints or moves something on the active layer.

    It does not move the view then.
    """
    active = viewer.layers.selection.active
    return active is not None and str(active.mode) not in ("pan_zoom", "transform")


def camera_of(viewer: napari.viewer.Viewer) -> Any:
    """Return the viewer's camera."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def grid_of(viewer: napari.viewer.Viewer) -> Any:
    """Return the grid in which layers can be shown side by side."""
    return viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid


def canvas_size(viewer: napari.viewer.Viewer) -> tuple[int, int] | None:
    """Return the canvas's height and width in pixels.

    None before napari 0.9, which does not expose it.
    """
    return tuple(viewer.canvas.size) if hasattr(viewer, "canvas") else None


def look_along(viewer: napari.viewer.Viewer, view: ArrayLike, up: ArrayLike) -> None:
    """Turn the 3D camera towards one direction, with another one up.

    Both are (3,) vectors along the displayed axes.
    """
    camera = camera_of(viewer)
    if hasattr(viewer, "scene"):
        camera.set_view_direction(tuple(np.asarray(view)), tuple(np.asarray(up)))
        return
    flips = _flips(camera)
    ahead, above = (
        flips * np.asarray(direction, np.float64)[::-1] for direction in (view, up)
    )
    x, y, z, w = Rotation.from_matrix(
        np.stack([np.cross(ahead, above), ahead, above]).T
    ).as_quat()
    with warnings.catch_warnings():
        # the angles of a view along an axis are not unique; any will do
        warnings.filterwarnings("ignore", "Gimbal lock")
        angles = (
            (
                Rotation.from_quat([x, z, y, w]).as_euler("yzx", degrees=True)
                - _ANGLE_OFFSET
            )
            * _ANGLE_SIGNS
            * flips
        )
    camera.angles = tuple(float(angle) for angle in angles)


def looks_along(
    viewer: napari.viewer.Viewer,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the 3D camera looks and which direction is up.

    Both are (3,) vectors along the displayed axes.
    """
    camera = camera_of(viewer)
    if hasattr(viewer, "scene"):
        return np.asarray(camera.view_direction, np.float64), np.asarray(
            camera.up_direction, np.float64
        )
    flips = _flips(camera)
    x, y, z, w = Rotation.from_euler(
        "yzx",
        np.asarray(camera.angles) * flips * _ANGLE_SIGNS + _ANGLE_OFFSET,
        degrees=True,
    ).as_quat()
    rows = Rotation.from_quat([x, z, y, w]).as_matrix().T
    return (flips * rows[1])[::-1], (flips * rows[2])[::-1]


def _flips(camera: Any) -> NDArray[np.int64]:
    """Return -1 for each axis (x, y, z) that runs against vispy's own direction, else 1."""
    directions = (str(direction) for direction in camera.orientation[::-1])
    return np.array(
        [
            1 if direction == usual else -1
            for direction, usual in zip(
                directions, ("right", "down", "away"), strict=True
            )
        ]
    )


class EdgeText:
    """A letter or two at each edge of the canvas.

    napari before 0.9 has one text for plugins only, so there the edges are written as
    words.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Its canvas holds the texts until `close`.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        from napari.components.overlays import TextOverlay

        self._viewer = viewer
        self._shown: dict[str, str] = {}
        self._has_edges = hasattr(viewer, "canvas")
        if self._has_edges:
            for edge, place in EDGES.items():
                viewer.canvas.overlays[_key(edge)] = TextOverlay(
                    position=place,
                    font_size=_FONT_SIZE,
                    color=_TEXT_COLOR,
                    box=True,
                    box_color=_BOX_COLOR,
                    visible=False,
                )
            viewer.canvas.overlays[_key(_NOTE)] = TextOverlay(
                position="top_left",
                font_size=_NOTE_POINTS,
                color=_TEXT_COLOR,
                box=True,
                box_color=_BOX_COLOR,
                visible=False,
            )
        else:
            overlay = viewer.text_overlay
            overlay.position, overlay.font_size, overlay.color = (
                EDGES["top"],
                _FONT_SIZE,
                _TEXT_COLOR,
            )

    @property
    def shown(self) -> Mapping[str, str]:
        """The texts at "left", "right", "top" and "bottom"; edges without text are missing."""
        return self._shown

    def show(self, texts: Mapping[str, str]) -> None:
        """Write at the given edges, and clear the others."""
        self._shown = {edge: texts[edge] for edge in EDGES if texts.get(edge)}
        if not self._has_edges:
            self._write(
                self._viewer.text_overlay,
                " · ".join(f"{edge} {text}" for edge, text in self._shown.items()),
            )
            return
        for edge in EDGES:
            self._write(
                self._viewer.canvas.overlays[_key(edge)], self._shown.get(edge, "")
            )

    def note(self, text: str) -> None:
        """Write a line in the top left corner; "" clears it. Before napari 0.9 it is left out."""
        if self._has_edges and _key(_NOTE) in self._viewer.canvas.overlays:
            self._write(self._viewer.canvas.overlays[_key(_NOTE)], text)

    def resize(self, font_size: float) -> None:
        """Change the font size."""
        overlays = (
            [self._viewer.canvas.overlays[_key(edge)] for edge in EDGES]
            if self._has_edges
            else [self._viewer.text_overlay]
        )
        for overlay in overlays:
            overlay.font_size = font_size

    def close(self) -> None:
        """Take every text off the canvas."""
        self._shown = {}
        if not self._has_edges:
            self._write(self._viewer.text_overlay, "")
            return
        for edge in (*EDGES, _NOTE):
            self._viewer.canvas.overlays.pop(_key(edge), None)

    def _write(self, overlay: Any, text: str) -> None:
        if text:
            overlay.text = text
        overlay.visible = bool(text)


def _key(edge: str) -> str:
    return f"strata_{edge}"
