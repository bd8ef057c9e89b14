"""Two more planes beside the canvas, linked to it by a crosshair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Vectors
from napari.qt import QtViewer
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QSplitter, QVBoxLayout, QWidget

from napari_strata.gui.canvas.canvas import OVERLAY_COLOR
from napari_strata.gui.canvas.layers import (
    OVERLAY_METADATA,
    overlay_kwargs,
    overlay_scale,
    scan_data,
)
from napari_strata.gui.canvas.orientation import (
    PLANES,
    CanvasOrientation,
    Plane,
    plane_order,
)
from napari_strata.gui.canvas.placement import mm_per_unit
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.timers import single_shot

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

CROSSHAIR_NAME = "Strata crosshair"
_LINE_MM = 0.6
"""Width of the crosshair's lines: visible, and thinner than most structures."""
_FIT_MS = 200
"""Delay before the scan is fitted to a canvas that was resized."""
_LETTER_POINTS = 11
"""Font size of the letters on these small canvases."""
_SHARED_ATTRIBUTES = ("contrast_limits", "gamma", "colormap")


class PlaneView(QWidget):
    """One plane of a scan and its regions, on a canvas of its own.

    Parameters
    ----------
    image : napari.layers.Image
        The scan; its array is shared, not copied.
    """

    def __init__(self, image: napari.layers.Image) -> None:
        super().__init__()
        self.model = ViewerModel()
        self._fit_timer = single_shot(self, _FIT_MS, self.model.fit_to_view)
        self.canvas = QtViewer(self.model)
        self.canvas.setMinimumSize(180, 140)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.canvas)
        shown = {
            name: getattr(image, name)
            for name in (*_SHARED_ATTRIBUTES, "interpolation2d")
        }
        self.image = Image(
            scan_data(image),
            name=image.name,
            metadata=image.metadata,
            **overlay_kwargs(image),
            **shown,
        )
        self.model.layers.append(self.image)
        self.labels: Labels | None = None
        self.cross: Vectors | None = None
        self.orientation = CanvasOrientation(self.model)
        self.orientation.set_scan(self.image)
        self.orientation.letters.resize(_LETTER_POINTS)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Fit the scan into the plane once the canvas has its new size."""
        super().resizeEvent(event)
        self._fit_timer.start()

    def show_labels(self, labels: napari.layers.Labels | None) -> None:
        """Show the regions of a labels layer, sharing its array."""
        if self.labels is not None:
            self.model.layers.remove(self.labels)
            self.labels = None
        if labels is not None:
            shown = {name: getattr(labels, name) for name in ("opacity", "colormap")}
            self.labels = Labels(
                labels.data, name=labels.name, **overlay_kwargs(labels), **shown
            )
            self.labels.contour = labels.contour
            self.model.layers.append(self.labels)
        self._put_cross_on_top()

    def show_cross(self, lines: NDArray[np.float64]) -> None:
        """Draw the crosshair: (3, 2, 3) start and direction of three lines, in the scan's world."""
        if self.cross is None:
            self.cross = cross_layer(lines, self.image)
            self.model.layers.append(self.cross)
        else:
            self.cross.data = lines / self.cross.scale[-1]

    def close_down(self) -> None:
        """Take the canvas down."""
        self._fit_timer.stop()
        self.orientation.close()
        self.model.layers.clear()
        self.canvas.close()

    def _put_cross_on_top(self) -> None:
        if self.cross is not None and self.cross in self.model.layers:
            self.model.layers.move(
                self.model.layers.index(self.cross), len(self.model.layers)
            )


class LinkedPlanes(QSplitter):
    """The two planes that the main canvas does not show; a click in one moves the others.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The main viewer.
    image : napari.layers.Image
        The scan.
    """

    undocked = Signal()
    """Emitted when it leaves its dock: all that napari does when it is closed."""

    def __init__(
        self, viewer: napari.viewer.Viewer, image: napari.layers.Image
    ) -> None:
        super().__init__(Qt.Orientation.Vertical)
        self._viewer = viewer
        self._source = image
        self._case: ScanCase | None = None
        self._moving = False
        self.views = (PlaneView(image), PlaneView(image))
        for view in self.views:
            self.addWidget(view)
            view.model.mouse_drag_callbacks.append(self._on_press)
            view.model.dims.events.current_step.connect(self._on_scrolled)
        active = viewer.layers.selection.active
        self.cross = cross_layer(self._lines(), image)
        viewer.add_layer(self.cross)
        viewer.layers.selection.active = active
        self._bindings = ViewerBindings(viewer)
        self._bindings.on_event(viewer.dims.events.current_step, self._on_moved)
        self._bindings.on_event(viewer.dims.events.order, self._on_order)
        for name in _SHARED_ATTRIBUTES:
            self._bindings.on_event(getattr(image.events, name), self._on_appearance)
        self._repaint_timer = single_shot(self, 0, self._repaint)
        self._on_order()

    @property
    def image(self) -> napari.layers.Image:
        """The scan that is shown."""
        return self._source

    def follow_case(self, case: ScanCase | None) -> None:
        """Show the regions of a case, or of none."""
        if self._case is not None:
            self._case.painter.shows_all_planes = False
            self._case.painter.painted.disconnect(self._repaint_timer.start)
        self._case = case
        if case is not None:
            case.painter.shows_all_planes = True
            case.painter.painted.connect(self._repaint_timer.start)
        for view in self.views:
            view.show_labels(
                case.labels if case is not None and case.is_shown else None
            )

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Emit `undocked` when it is left without a parent."""
        super().changeEvent(event)
        if (
            event is not None
            and event.type() == QEvent.Type.ParentChange
            and self.parent() is None
        ):
            self.undocked.emit()

    def close_down(self) -> None:
        """Take both canvases and the crosshair down."""
        self._moving = True
        self.follow_case(None)
        self._bindings.remove()
        if self.cross in self._viewer.layers:
            self._viewer.layers.remove(self.cross)
        for view in self.views:
            view.close_down()

    def _on_order(self, event: object = None) -> None:
        """Show the two planes that the main canvas does not show."""
        main = self._main_plane()
        for view, plane in zip(
            self.views, [plane for plane in PLANES if plane != main], strict=False
        ):
            view.orientation.show_plane(plane)
        self._on_moved()

    def _main_plane(self) -> Plane:
        directions = self.views[0].orientation.directions
        through = self._viewer.dims.order[-3] - (self._viewer.dims.ndim - 3)
        return next(
            (plane for plane in PLANES if plane_order(directions, plane)[0] == through),
            "axial",
        )

    def _point(self) -> NDArray[np.float64]:
        return np.asarray(self._viewer.dims.point[-3:], np.float64)

    def _lines(self) -> NDArray[np.float64]:
        low, high = self._source.extent.world[:, -3:]
        starts = np.repeat(self._point()[None], 3, axis=0)
        lines = np.zeros((3, 2, 3))
        for axis in range(3):
            starts[axis, axis] = low[axis]
            lines[axis, 1, axis] = high[axis] - low[axis]
        lines[:, 0] = starts
        return lines

    def _on_moved(self, event: object = None) -> None:
        if self._moving:
            return
        self._moving = True
        try:
            point, lines = self._point(), self._lines()
            for view in self.views:
                view.model.dims.set_point(range(3), point)
                view.show_cross(lines)
            if self.cross in self._viewer.layers:
                self.cross.data = lines / self.cross.scale[-1]
        finally:
            self._moving = False

    def _on_press(self, model: ViewerModel, event: Any) -> Any:
        """Move every plane to where the mouse is pressed, and follow its drag."""
        if event.button != 1 or event.modifiers:
            return
        while True:
            self._go_to(np.asarray(event.position, np.float64))
            event.handled = True
            yield
            if event.type != "mouse_move":
                return

    def _on_scrolled(self, event: Any) -> None:
        if self._moving:
            return
        for view in self.views:
            if view.model.dims.events is event.source.events:
                self._go_to(np.asarray(view.model.dims.point, np.float64))

    def _go_to(self, point: NDArray[np.float64]) -> None:
        spare = self._viewer.dims.ndim - 3
        self._viewer.dims.set_point(range(spare, spare + 3), point)

    def _on_appearance(self, event: object = None) -> None:
        for view in self.views:
            for name in _SHARED_ATTRIBUTES:
                setattr(view.image, name, getattr(self._source, name))

    def _repaint(self) -> None:
        case = self._case
        if case is None:
            return
        if not case.is_shown:
            for view in self.views:
                view.show_labels(None)
            return
        for view in self.views:
            if view.labels is None or view.labels.data is not case.labels.data:
                view.show_labels(case.labels)
            elif view.labels is not None:
                if view.labels.colormap is not case.labels.colormap:
                    view.labels.colormap = case.labels.colormap
                view.labels.contour = case.labels.contour
                view.labels.refresh(extent=False, thumbnail=False)


def cross_layer(lines: NDArray[np.float64], scan: napari.layers.Layer) -> Vectors:
    """Return the layer that draws a crosshair over a scan.

    It has three long lines, of which a plane shows the two that lie in it.
    """
    size = overlay_scale(scan)
    line_mm = _LINE_MM / float(mm_per_unit(scan.units, CROSSHAIR_NAME).max())
    layer = Vectors(
        lines / size,
        scale=(size, size, size),
        name=CROSSHAIR_NAME,
        metadata=dict(OVERLAY_METADATA),
        edge_color=OVERLAY_COLOR,
        edge_width=line_mm / size,
        opacity=0.7,
        vector_style="line",
        units=scan.units[-3:],
        axis_labels=scan.axis_labels[-3:],
    )
    layer.editable = False
    return layer
