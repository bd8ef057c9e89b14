"""What stands in another place in napari 0.7 and 0.8 than in 0.9: camera, grid, and text at the edges of the canvas (no Qt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari.viewer

EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
"""Edge of the canvas -> napari's name for the place in the middle of it."""
_COLOR, _BOX = (1.0, 0.85, 0.35, 1.0), (0.0, 0.0, 0.0, 0.6)
"""Legible on the scan, on a dark and on a light canvas."""
_FONT_SIZE = 16


def camera_of(viewer: napari.viewer.Viewer) -> Any:
    """Give the camera."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def grid_of(viewer: napari.viewer.Viewer) -> Any:
    """Give the grid in which layers can be shown side by side."""
    return viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid


def canvas_size(viewer: napari.viewer.Viewer) -> tuple[int, int] | None:
    """Give the canvas's height and width in pixels; None where napari (before 0.9) does not tell."""
    return tuple(viewer.canvas.size) if hasattr(viewer, "canvas") else None


class EdgeText:
    """A letter or two at each edge of the canvas; napari before 0.9 lets others write one text only, so it says the edges in words.

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
                    position=place, font_size=_FONT_SIZE, color=_COLOR, box=True, box_color=_BOX, visible=False
                )
        else:
            overlay = viewer.text_overlay
            overlay.position, overlay.font_size, overlay.color = EDGES["top"], _FONT_SIZE, _COLOR

    @property
    def shown(self) -> Mapping[str, str]:
        """What stands at "left", "right", "top" and "bottom"; empty where nothing does."""
        return self._shown

    def show(self, texts: Mapping[str, str]) -> None:
        """Write at some edges, and at no other."""
        self._shown = {edge: texts[edge] for edge in EDGES if texts.get(edge)}
        if not self._has_edges:
            self._write(self._viewer.text_overlay, " · ".join(f"{edge} {text}" for edge, text in self._shown.items()))
            return
        for edge in EDGES:
            self._write(self._viewer.canvas.overlays[_key(edge)], self._shown.get(edge, ""))

    def resize(self, font_size: float) -> None:
        """Write larger or smaller."""
        overlays = [self._viewer.canvas.overlays[_key(edge)] for edge in EDGES] if self._has_edges else [self._viewer.text_overlay]
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
