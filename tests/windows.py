"""One napari window for many tests.

It is emptied after each test, and replaced if that does not make it as new.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from napari_strata.gui.canvas.canvas import camera_of, grid_of


class SharedWindow:
    """A hidden napari window that is shared by tests, set up like napari's own fixture."""

    def __init__(self) -> None:
        self._viewer: Any = None
        self._new: Any = None
        self._others: set[Any] = set()
        self._patches = ExitStack()

    def open(self) -> Any:
        """Return the window, empty."""
        import napari
        from napari.settings import get_settings
        from qtpy.QtWidgets import QApplication

        if self._viewer is None:
            get_settings().reset()
            self._patch_napari()
            self._viewer = napari.Viewer(show=False, show_welcome_screen=False)
            self._new = _state(self._viewer)
            self._others = set(QApplication.topLevelWidgets())
        return self._viewer

    def _patch_napari(self) -> None:
        from app_model import Application
        from napari._app_model._app import NapariApplication, _napari_names
        from napari._qt._qapp_model.qactions import init_qactions
        from napari.plugins import _initialize_plugins
        from qtpy.QtWidgets import QWidget

        def forget() -> None:
            Application.destroy("shared_window")
            _initialize_plugins.cache_clear()
            init_qactions.cache_clear()

        _initialize_plugins.cache_clear()
        init_qactions.cache_clear()
        app = NapariApplication("shared_window")
        app.injection_store.namespace = _napari_names
        self._patches.callback(forget)
        self._patches.enter_context(
            patch.object(NapariApplication, "get_app_model", return_value=app)
        )
        self._patches.enter_context(
            patch(
                "napari._qt.threads.status_checker.StatusChecker.start", lambda *_: None
            )
        )
        self._patches.enter_context(
            patch("napari._qt.qt_viewer.QtViewer._get_console", lambda *_: QWidget())
        )

    def empty(self) -> None:
        """Remove what a test put into the window; close it if it is not as new then."""
        from napari.settings import get_settings

        viewer = self._viewer
        if viewer is None:
            return
        if not hasattr(viewer.window, "_qt_window"):  # a test closed it
            self.close()
            return
        viewer.window._qt_window.hide()
        viewer.window.remove_dock_widget("all")
        self._delete_what_is_left()
        viewer.layers.clear()
        get_settings().reset()
        viewer.dims.reset()
        viewer.dims.ndisplay, viewer.dims.axis_labels = (
            2,
            self._new["dims"]["axis_labels"],
        )
        for name, value in self._new["camera"].items():
            setattr(camera_of(viewer), name, value)
        viewer.title, viewer.status = self._new["title"], self._new["status"]
        if _state(viewer) != self._new:
            self.close()

    def _delete_what_is_left(self) -> None:
        """Delete docked panels and dialogs.

        Left to Python's garbage collector, their deletion can crash Qt.
        """
        from qtpy.QtCore import QCoreApplication, QEvent
        from qtpy.QtWidgets import QApplication

        for widget in QApplication.topLevelWidgets():
            if (
                widget not in self._others
                and widget is not self._viewer.window._qt_window
            ):
                widget.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)

    def close(self) -> None:
        """Close the window for good."""
        from napari._qt.qt_viewer import QtViewer

        viewer, self._viewer = self._viewer, None
        if viewer is None:
            return
        if hasattr(viewer.window, "_qt_window"):
            with patch.object(
                viewer.window._qt_window, "_save_current_window_settings"
            ):
                viewer.close()
        self._patches.close()
        del viewer
        gc.collect()
        QtViewer._instances.clear()


def bring_to_front(viewer: Any, width: int = 1280, height: int = 720) -> Any:
    """Show a window as a person has it, active and in a given size; return its canvas."""
    from qtpy.QtOpenGLWidgets import QOpenGLWidget
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow

    viewer.window.show()
    viewer.window.resize(width, height)
    docks = list(viewer.window.dock_widgets.values())
    window = docks[0].window()
    while not isinstance(window, QMainWindow):
        window = window.parentWidget().window()
    window.activateWindow()
    QTest.qWaitForWindowActive(window, 3000)
    canvas = next(
        widget
        for widget in window.findChildren(QOpenGLWidget)
        if not any(isinstance(part, QDockWidget) for part in _with_parents(widget))
    )
    canvas.setFocus()
    QApplication.processEvents()
    return canvas


def _with_parents(widget: Any) -> Any:
    while widget is not None:
        yield widget
        widget = widget.parentWidget()


def _state(viewer: Any) -> dict[str, Any]:
    """Return what a test may change of a window, except layers and docked widgets."""
    callbacks = (
        "mouse_drag_callbacks",
        "mouse_move_callbacks",
        "mouse_wheel_callbacks",
        "mouse_double_click_callbacks",
    )
    overlays = viewer.canvas.overlays if hasattr(viewer, "canvas") else {}
    return {
        "title": viewer.title,
        "status": viewer.status,
        "camera": camera_of(viewer).model_dump(),
        "dims": viewer.dims.model_dump(exclude={"last_used"}),
        "grid": grid_of(viewer).model_dump(),
        "keys": sorted(map(str, viewer.keymap)),
        "mouse": [len(getattr(viewer, name)) for name in callbacks],
        "overlays": sorted(
            (name, overlay.visible) for name, overlay in overlays.items()
        ),
        "theme": viewer.theme,
        "docks": sorted(viewer.window.dock_widgets),
    }
