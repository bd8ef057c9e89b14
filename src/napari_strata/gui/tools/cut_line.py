"""The cut line: drawn over a region on a plane, it splits it along the viewing direction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray
from skimage.measure import approximate_polygon

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.canvas import OVERLAY_COLOR, camera_of, has_tool
from napari_strata.gui.canvas.layers import OVERLAY_METADATA, overlay_kwargs
from napari_strata.gui.canvas.placement import lies_straight, world_linear
from napari_strata.volume import BACKGROUND, Geometry

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

CUT_NAME = "Strata cut"
_CLICK_PIXELS = 3
"""A press that moves no further than this is a click, not a line."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnLine:
    """A line on a plane of a scan.

    Parameters
    ----------
    voxels : (n, 3) float64 array
        Its points (z, y, x), two or more.
    through : int
        The axis of the scan nearest to the viewing direction.
    along : (3,) float64 array or None
        The viewing direction in voxels, if the scan is rotated against the screen;
        None for along `through`.
    """

    voxels: NDArray[np.float64]
    through: int
    along: NDArray[np.float64] | None = None

    def region_of(self, labels: NDArray[np.integer], preferred: Collection[int]) -> int:
        """Return the region that most of the line runs through.

        A preferred region wins if the line meets any.

        Raises
        ------
        StrataError
            If it runs through background only.
        """
        # two samples per voxel of length: a slow hand gives many points for a short
        # part of the line
        along = np.concatenate(
            [[0.0], np.linalg.norm(np.diff(self.voxels, axis=0), axis=1).cumsum()]
        )
        at = np.linspace(0, along[-1], max(2, int(along[-1] * 2) + 1))
        dense = np.stack([np.interp(at, along, axis) for axis in self.voxels.T], axis=1)
        index = np.rint(dense).astype(int)
        index = index[((index >= 0) & (index < labels.shape)).all(axis=1)]
        met = labels[tuple(index.T)]
        met = met[met != BACKGROUND]
        chosen = met[np.isin(met, list(preferred))]
        ids, count = np.unique(chosen if len(chosen) else met, return_counts=True)
        if len(ids) == 0:
            raise StrataError(
                "The line crosses no region. Draw it across the region that is to be"
                " split."
            )
        return int(ids[count.argmax()])

    def in_patient(
        self, geometry: Geometry
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the line's points (n, 3) in RAS+ mm, smoothed, and the viewing direction (3,)."""
        flat = [axis for axis in range(3) if axis != self.through]
        along = np.eye(3)[self.through] if self.along is None else self.along
        view = geometry.affine[:3, :3] @ along
        points = geometry.world_from_voxel(self.voxels)
        # the two axes of the screen: a hand draws nothing along the viewing direction
        across = np.linalg.svd(view[None] / np.linalg.norm(view))[2][1:]
        # smoothed by one voxel: a hand that means a straight line strays by that much,
        # and its last twitch must not turn the cut
        drawn = (points - points[0]) @ across.T
        kept = approximate_polygon(
            drawn, tolerance=float(geometry.spacing_zyx_mm[flat].max())
        )
        return points[0] + kept @ across, view


class CutLine:
    """Draws lines with the left mouse button over a labels layer, until it is put down.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        On whose canvas it draws.
    labels : napari.layers.Labels
        What it draws over.
    on_drawn : callable
        Called with each `DrawnLine`.

    Raises
    ------
    StrataError
        If the viewer shows 3D.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        labels: napari.layers.Labels,
        on_drawn: Callable[[DrawnLine], None],
    ) -> None:
        if viewer.dims.ndisplay != 2:
            raise StrataError(
                "The cut line is drawn on a plane. Show one first: Axial, Coronal or"
                " Sagittal."
            )
        self._viewer = viewer
        self._labels = labels
        self._on_drawn = on_drawn
        self.layer = Shapes(
            ndim=3,
            name=CUT_NAME,
            edge_color=OVERLAY_COLOR,
            face_color="transparent",
            metadata=dict(OVERLAY_METADATA),
            **overlay_kwargs(labels),
        )
        viewer.add_layer(self.layer)
        viewer.layers.selection.active = labels
        viewer.mouse_drag_callbacks.append(self.on_drag)

    def put_down(self) -> None:
        """Take the line off the canvas and release the mouse; may be called more than once."""
        if self.on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self.on_drag)
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def on_drag(self, viewer: napari.viewer.Viewer, event: Any) -> Generator[None]:
        """Draw while the left button is held; on release, call `on_drawn` with the line.

        If another tool is in use, the drag is left to it.
        """
        if (
            event.button != 1
            or event.modifiers
            or viewer.dims.ndisplay != 2
            or has_tool(viewer)
        ):
            return
        camera, start = camera_of(viewer), np.asarray(event.pos)
        pans, camera.mouse_pan = camera.mouse_pan, False
        points, moved = [self._voxel(event)], False
        try:
            yield
            while event.type == "mouse_move":
                moved = moved or bool(
                    np.abs(np.asarray(event.pos) - start).max() > _CLICK_PIXELS
                )
                points.append(self._voxel(event))
                self._draw(points)
                event.handled = True
                yield
        finally:
            camera.mouse_pan = pans
            self._draw([])
        if moved:
            shift = viewer.dims.ndim - 3
            shown = next(
                axis for axis in range(3) if axis + shift not in viewer.dims.displayed
            )
            sides = np.linalg.norm(linear := world_linear(self._labels), axis=0)
            through = int(np.abs(linear[shown] / sides).argmax())
            along = (
                None
                if lies_straight(self._labels)
                else np.linalg.inv(linear)[:, shown].astype(np.float64)
            )
            self._on_drawn(DrawnLine(np.array(points), through, along))

    def _voxel(self, event: Any) -> NDArray[np.float64]:
        return np.asarray(self._labels.world_to_data(event.position[-3:]), np.float64)

    def _draw(self, points: list[NDArray[np.float64]]) -> None:
        if self.layer not in self._viewer.layers:
            return
        self.layer.data = []
        if len(points) > 1:
            width = (
                1.5
                / camera_of(self._viewer).zoom
                / float(np.linalg.norm(world_linear(self._labels), axis=0).min())
            )
            self.layer.add_paths(
                [np.array(points)], edge_width=width, edge_color=OVERLAY_COLOR
            )
