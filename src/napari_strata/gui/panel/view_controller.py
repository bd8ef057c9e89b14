"""How the scan in hand is shown: window, planes, position, ruler and surfaces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QDockWidget, QMainWindow

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.canvas import camera_of, canvas_size, grid_of, has_tool
from napari_strata.gui.canvas.layers import layer_facts, overlay_kwargs
from napari_strata.gui.canvas.orientation import PLANES, CanvasOrientation
from napari_strata.gui.canvas.placement import METADATA_KEY
from napari_strata.gui.canvas.position import position_from_text
from napari_strata.gui.canvas.surfaces import RegionSurface, surfaces_body
from napari_strata.gui.canvas.window_presets import (
    contrast_limits,
    default_preset,
    dragged_window,
    preset_names,
)
from napari_strata.gui.panel.linked_planes import LinkedPlanes
from napari_strata.gui.preferences import (
    default_view,
    has_equal_planes,
    wheel_moves_slices,
)
from napari_strata.gui.session.followup import FollowUp
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tools.ruler import Ruler
from napari_strata.gui.widgets.sections import ScanSection
from napari_strata.volume import Modality, Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_MAX_SURFACES = 40
"""Surfaces made at once if no region is selected: about as many as a view can show."""
_FILLED = 0.95
"""Part of the canvas that a scan fills after it was chosen, as napari does."""
_ZOOM_STEP = 1.1
"""Zoom of one step of the wheel."""
_ARRANGE_MS = 60
"""Delay before docks are put in order: they have their places only once laid out."""
_FIT_MS = 300
"""Delay before the scan is fitted to canvases whose docks were just laid out."""


class ViewController(QObject):
    """Changes how the scan in hand is shown.

    Parameters
    ----------
    section : ScanSection
        The widgets with the requests.
    viewer : napari.viewer.Viewer
        The viewer to change.
    orientation : CanvasOrientation
        Planes and letters.
    jobs : JobRunner
        Makes surfaces outside the GUI thread.
    selected : callable
        Returns the selected regions.
    cases : OpenCases
        The cases of the viewer.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    """

    modality_changed = Signal()
    tool_taken = Signal()
    """Emitted before the ruler is picked up or surfaces are shown: other tools go."""

    def __init__(
        self,
        section: ScanSection,
        viewer: napari.viewer.Viewer,
        orientation: CanvasOrientation,
        jobs: JobRunner,
        *,
        selected: Callable[[], Sequence[int]],
        cases: OpenCases,
        require_case: Callable[[], ScanCase],
    ) -> None:
        super().__init__(section)
        self._section, self._viewer, self._orientation, self._jobs = (
            section,
            viewer,
            orientation,
            jobs,
        )
        self._selected, self._cases = selected, cases
        self._require_case = require_case
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._wheel_is_ours = False
        self._scrolling: list[Callable[..., object]] = []
        self.ruler = Ruler(viewer)
        self.planes: LinkedPlanes | None = None
        self._arrange_timer = single_shot(self, _ARRANGE_MS, self._arrange_docks)
        self._fit_timer = single_shot(self, _FIT_MS, viewer.fit_to_view)
        section.modality_chosen.connect(self._on_modality)
        section.window_chosen.connect(self.show_window)
        section.plane_asked.connect(orientation.show_plane)
        section.volume_view_asked.connect(orientation.show_3d)
        section.planes_asked.connect(self.show_planes)
        section.ruler_asked.connect(self._on_ruler)
        section.surfaces_asked.connect(self.show_surfaces)
        section.position_asked.connect(self.go_to)
        section.compare_asked.connect(self.compare)

    def follow(self, image: napari.layers.Image | None, volume: Volume | None) -> None:
        """Show another scan, or none."""
        self._image, self._volume = image, volume
        if volume is not None:
            self._section.show_modality(volume.modality)
        if self.planes is not None and self.planes.image is not image:
            self.show_planes(False)
            self._section.buttons["planes"].setChecked(False)

    def follow_case(self, case: ScanCase) -> None:
        """Show the regions of a case in the other planes too."""
        if self.planes is not None and self.planes.image is case.image:
            self.planes.follow_case(case)

    def close(self) -> None:
        """Take everything off the viewer."""
        self.show_planes(False)
        self._arrange_timer.stop()
        self._fit_timer.stop()
        if self._wheel_is_ours:
            camera_of(self._viewer).mouse_zoom = True
            self._swap_scrolling(self._viewer, False)

    def show_window(self, preset: str) -> None:
        """Apply a window preset."""
        if self._image is not None and self._volume is not None:
            self._set_limits(
                contrast_limits(self._volume.data, self._volume.modality, preset)
            )

    def show_window_number(self, number: int) -> None:
        """Apply the window preset with a number from 1."""
        if self._volume is not None and number <= len(
            names := preset_names(self._volume.modality)
        ):
            self._section.preset.setCurrentText(names[number - 1])
            self.show_window(names[number - 1])

    def go_to(self, text: str) -> None:
        """Show the planes through a position that a person typed."""
        with notify_errors():
            if self._image is None or self._volume is None:
                raise StrataError("Open a scan first.")
            geometry = self._volume.geometry
            point = self._viewer.dims.point[-3:]
            here = geometry.world_from_voxel(self._image.world_to_data(point)[-3:])
            voxel = geometry.voxel_from_world(position_from_text(text, here))
            if (voxel < -0.5).any() or (
                voxel > np.array(geometry.shape_zyx) - 0.5
            ).any():
                raise StrataError(f"'{text}' lies outside the scan.")
            dims = self._viewer.dims
            dims.set_point(
                range(dims.ndim - 3, dims.ndim),
                [float(at) for at in self._image.data_to_world(voxel)[-3:]],
            )

    def show_planes(self, is_on: bool) -> None:
        """Show the two other planes beside the canvas, or remove them."""
        if is_on and self.planes is None and self._image is not None:
            self.planes = LinkedPlanes(self._viewer, self._image)
            self.planes.follow_case(self._cases.of(self._image))
            self._viewer.window.add_dock_widget(
                self.planes, name="Other planes", area="right"
            )
            # docks have their sizes only once they were laid out
            self._arrange_timer.start()
            self.planes.undocked.connect(
                partial(self._section.buttons["planes"].setChecked, False)
            )
        elif not is_on and self.planes is not None:
            planes, self.planes = self.planes, None
            self._fit_timer.start()
            planes.close_down()
            if planes.parent() is not None:
                self._viewer.window.remove_dock_widget(planes)
            panel = dock_of(self._section)
            if panel is not None and isinstance(panel.parentWidget(), QMainWindow):
                panel.parentWidget().resizeDocks(
                    [panel], [panel.minimumWidth()], Qt.Orientation.Horizontal
                )

    def _arrange_docks(self) -> None:
        """Put the other planes in a column between canvas and panel, and fit the scan."""
        if self.planes is None:
            return
        planes, panel = dock_of(self.planes), dock_of(self._section)
        window = None if planes is None else planes.parentWidget()
        if (
            isinstance(window, QMainWindow)
            and planes is not None
            and panel is not None
            and not panel.isFloating()
        ):
            window.splitDockWidget(planes, panel, Qt.Orientation.Horizontal)
            width = window.width() // 4
            if has_equal_planes() and self.planes is not None:
                self.planes.setOrientation(Qt.Orientation.Horizontal)
                canvas = window.centralWidget()
                left = 0 if canvas is None else canvas.x()
                width = (window.width() - left - panel.minimumWidth()) * 2 // 3
            window.resizeDocks(
                [planes, panel],
                [width, panel.minimumWidth()],
                Qt.Orientation.Horizontal,
            )
        self._fit_timer.start()

    def show_scan(
        self, image: napari.layers.Image, scans: Sequence[napari.layers.Image]
    ) -> None:
        """Show a scan with its regions, hide the others, and bring it onto the canvas.

        Scans that are compared side by side stay.
        """
        if grid_of(self._viewer).enabled:
            return
        for scan in scans:
            case = self._cases.of(scan)
            for layer in [scan] if case is None else [scan, *case.layers]:
                if layer.visible != (scan == image):
                    layer.visible = scan == image
        low, high = (ends[-3:] for ends in image.extent.world)
        dims = self._viewer.dims
        point = np.asarray(dims.point[-3:])
        if ((point < low) | (point > high)).any():
            spare = dims.ndim - 3
            dims.set_point(range(spare, dims.ndim), [*((low + high) / 2)])
        self._center_on(low, high)

    def _center_on(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Move the camera to a box of the world, unless its middle is in view."""
        shown = [
            axis - (self._viewer.dims.ndim - 3) for axis in self._viewer.dims.displayed
        ]
        middle, camera = (low + high) / 2, camera_of(self._viewer)
        center = np.asarray(camera.center)[-len(shown) :]
        if (center < low[shown]).any() or (center > high[shown]).any():
            camera.center = (
                *[0.0] * (3 - len(shown)),
                *(float(middle[axis]) for axis in shown),
            )
            size = canvas_size(self._viewer)
            if size is not None and len(shown) == 2:
                extent = np.maximum(high - low, 1e-6)[shown]
                camera.zoom = float((np.asarray(size) / extent).min() * _FILLED)

    def show_default_view(self) -> None:
        """Show the view that is set in napari's preferences."""
        view = default_view()
        self._orientation.show_plane(view if view in PLANES else "axial")
        if view == "three planes":
            self._section.buttons["planes"].setChecked(True)

    def show_surfaces(self) -> None:
        """Show the selected regions, or all if none is selected, as surfaces in 3D."""
        with notify_errors():
            case = self._require_case()
            regions = (
                list(self._selected())
                or [row.id for row in case.work.regions][:_MAX_SURFACES]
            )
            self._jobs.start(
                partial(surfaces_body, case.work, regions),
                partial(self._on_surfaces, case),
            )

    def compare(self) -> None:
        """Show the case in hand beside that of an earlier scan, with the volume changes."""
        with notify_errors():
            case = self._require_case()
            others = [other for other in self._cases.in_viewer if other is not case]
            if not others:
                raise StrataError(
                    "Open the other scan in this window too, and propose regions or"
                    " open its case there."
                )
            FollowUp(self._viewer, case, others, self._section).show()

    def on_drag(self, viewer: napari.viewer.Viewer, event: Any) -> Generator[None]:
        """Change the intensity window while the right mouse button is held.

        In 3D, and while a brush is in use, napari handles the drag.
        """
        if (
            event.button != 2
            or event.modifiers
            or viewer.dims.ndisplay != 2
            or self._image is None
            or has_tool(viewer)
        ):
            return
        start, limits = (
            np.asarray(event.pos, np.float64),
            tuple(self._image.contrast_limits),
        )
        camera = camera_of(viewer)
        zooms, camera.mouse_zoom = camera.mouse_zoom, False
        try:
            yield
            while event.type == "mouse_move":
                across, down = np.asarray(event.pos, np.float64) - start
                self._set_limits(
                    dragged_window((limits[0], limits[1]), float(across), float(down))
                )
                event.handled = True
                yield
        finally:
            camera.mouse_zoom = zooms

    def on_wheel(self, viewer: napari.viewer.Viewer, event: Any) -> None:
        """Go to the next slice, and zoom with Ctrl, if a person prefers it that way."""
        is_on = wheel_moves_slices() and viewer.dims.ndisplay == 2
        camera = camera_of(viewer)
        if self._wheel_is_ours != is_on:
            self._wheel_is_ours = is_on
            camera.mouse_zoom = not is_on
            self._swap_scrolling(viewer, is_on)
        if not is_on or "Alt" in event.modifiers:
            return
        if "Control" in event.modifiers:
            camera.zoom *= _ZOOM_STEP ** float(np.clip(event.delta[1], -1, 1))
        else:
            axis = viewer.dims.order[-3]
            step = viewer.dims.current_step[axis] - int(np.sign(event.delta[1]))
            viewer.dims.set_current_step(axis, step)
        event.handled = True

    def _swap_scrolling(self, viewer: napari.viewer.Viewer, is_ours: bool) -> None:
        """Take napari's own Ctrl+wheel off the canvas, or put it back."""
        callbacks = viewer.mouse_wheel_callbacks
        if not is_ours:
            callbacks.extend(self._scrolling)
            self._scrolling = []
            return
        self._scrolling = [one for one in callbacks if one.__name__ == "dims_scroll"]
        for one in self._scrolling:
            callbacks.remove(one)

    def _set_limits(self, limits: tuple[float, float]) -> None:
        image = self._image
        if image is None:
            return
        low, high = image.contrast_limits_range
        if limits[0] < low or limits[1] > high:
            image.contrast_limits_range = (min(low, limits[0]), max(high, limits[1]))
        image.contrast_limits = limits

    def _on_modality(self, modality: Modality) -> None:
        if self._image is not None:
            self._image.metadata[METADATA_KEY] = {
                **layer_facts(self._image),
                "modality": modality,
            }
            self.modality_changed.emit()
            self.show_window(default_preset(modality))

    def _on_ruler(self, is_on: bool) -> None:
        if is_on:
            self.tool_taken.emit()
            self.ruler.pick_up(self._image)
        else:
            self.ruler.put_down()
            if (case := self._cases.of(self._image)) is not None and case.is_shown:
                self._viewer.layers.selection.active = case.labels

    def _on_surfaces(self, case: ScanCase, surfaces: Sequence[RegionSurface]) -> None:
        if not case.is_shown:
            return
        self.tool_taken.emit()
        for surface in surfaces:
            self._add_surface(case, surface)
        case.labels.visible = False
        self._orientation.show_3d()

    def _add_surface(self, case: ScanCase, surface: RegionSurface) -> None:
        labels, name = case.labels, f"{surface.name} surface"
        color = np.array([[*surface.color, 255]], np.float32) / 255
        surface_key = (case.image.unique_id, surface.region)
        for layer in [
            layer
            for layer in self._viewer.layers
            if layer_facts(layer).get("surface_of") == surface_key
        ]:
            self._viewer.layers.remove(layer)
        self._viewer.add_surface(
            (surface.vertices, surface.faces),
            name=name,
            vertex_colors=np.repeat(color, len(surface.vertices), axis=0),
            shading="smooth",
            opacity=0.9,
            metadata={METADATA_KEY: {"surface_of": surface_key}},
            **overlay_kwargs(labels),
        )


def dock_of(widget: QObject | None) -> QDockWidget | None:
    """Return the dock that a widget is in, None if there is none."""
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parent()
    return widget
