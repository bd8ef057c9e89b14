"""What stands in another place in napari 0.7 and 0.8 than in 0.9.

Camera, grid, and text at the edges of the canvas (no Qt).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    import napari.viewer

EDGES = {
    "left": "middle_left",
    "right": "middle_right",
    "top": "top_center",
    "bottom": "bottom_center",
}
"""Edge of the canvas -> napari's name for the place in the middle of it."""
_COLOR, _BOX = (1.0, 0.85, 0.35, 1.0), (0.0, 0.0, 0.0, 0.6)
"""Legible on the scan, on a dark and on a light canvas."""
_FONT_SIZE = 16
_HANDS, _TURN = np.array([1, -1, 1]), np.array([0.0, 0.0, 90.0])
"""How napari 0.7 and 0.8 turn their camera's angles into what is drawn.

What they say of it is wrong where an axis is flipped.
"""


def has_tool(viewer: napari.viewer.Viewer) -> bool:
    """Say whether the mouse draws, paints or moves something of the active layer.

    Not the view.
    """
    active = viewer.layers.selection.active
    return active is not None and str(active.mode) not in ("pan_zoom", "transform")


def camera_of(viewer: napari.viewer.Viewer) -> Any:
    """Give the camera."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def grid_of(viewer: napari.viewer.Viewer) -> Any:
    """Give the grid in which layers can be shown side by side."""
    return viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid


def canvas_size(viewer: napari.viewer.Viewer) -> tuple[int, int] | None:
    """Give the canvas's height and width in pixels.

    None where napari (before 0.9) does not tell.
    """
    return tuple(viewer.canvas.size) if hasattr(viewer, "canvas") else None


def look_along(viewer: napari.viewer.Viewer, view: ArrayLike, up: ArrayLike) -> None:
    """Turn the camera in 3D so that the person looks along one direction.

    With another one up; (3,), along the displayed axes.
    """
    camera = camera_of(viewer)
    if hasattr(viewer, "scene"):
        camera.set_view_direction(tuple(np.asarray(view)), tuple(np.asarray(up)))
        return
    flips = _flips(camera)
    ahead, above = (flips * np.asarray(way, np.float64)[::-1] for way in (view, up))
    x, y, z, w = Rotation.from_matrix(
        np.stack([np.cross(ahead, above), ahead, above]).T
    ).as_quat()
    with warnings.catch_warnings():
        # the angles of a view along an axis are not unique; any will do
        warnings.filterwarnings("ignore", "Gimbal lock")
        angles = (
            (Rotation.from_quat([x, z, y, w]).as_euler("yzx", degrees=True) - _TURN)
            * _HANDS
            * flips
        )
    camera.angles = tuple(float(angle) for angle in angles)


def looks_along(
    viewer: napari.viewer.Viewer,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell in which direction the person looks in 3D, and which one is up.

    (3,), along the displayed axes.
    """
    camera = camera_of(viewer)
    if hasattr(viewer, "scene"):
        return np.asarray(camera.view_direction, np.float64), np.asarray(
            camera.up_direction, np.float64
        )
    flips = _flips(camera)
    x, y, z, w = Rotation.from_euler(
        "yzx", np.asarray(camera.angles) * flips * _HANDS + _TURN, degrees=True
    ).as_quat()
    rows = Rotation.from_quat([x, z, y, w]).as_matrix().T
    return (flips * rows[1])[::-1], (flips * rows[2])[::-1]


def _flips(camera: Any) -> NDArray[np.int64]:
    """Tell which of vispy's axes (x, y, z) run the other way than vispy's own: -1, else 1."""
    ways = (str(way) for way in camera.orientation[::-1])
    return np.array(
        [
            1 if way == usual else -1
            for way, usual in zip(ways, ("right", "down", "away"), strict=True)
        ]
    )


class EdgeText:
    """A letter or two at each edge of the canvas.

    Napari before 0.9 lets others write one text only, so it says the edges in words.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        On whose canvas it stands until `close`.
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
                    color=_COLOR,
                    box=True,
                    box_color=_BOX,
                    visible=False,
                )
        else:
            overlay = viewer.text_overlay
            overlay.position, overlay.font_size, overlay.color = (
                EDGES["top"],
                _FONT_SIZE,
                _COLOR,
            )

    @property
    def shown(self) -> Mapping[str, str]:
        """What stands at "left", "right", "top" and "bottom"; empty where nothing does."""
        return self._shown

    def show(self, texts: Mapping[str, str]) -> None:
        """Write at some edges, and at no other."""
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

    def resize(self, font_size: float) -> None:
        """Write larger or smaller."""
        overlays = (
            [self._viewer.canvas.overlays[_key(edge)] for edge in EDGES]
            if self._has_edges
            else [self._viewer.text_overlay]
        )
        for overlay in overlays:
            overlay.font_size = font_size

    def close(self) -> None:
        """Take everything off the canvas."""
        self._shown = {}
        if not self._has_edges:
            self._write(self._viewer.text_overlay, "")
            return
        for edge in EDGES:
            self._viewer.canvas.overlays.pop(_key(edge), None)

    def _write(self, overlay: Any, text: str) -> None:
        if text:
            overlay.text = text
        overlay.visible = bool(text)


def _key(edge: str) -> str:
    return f"strata_{edge}"
