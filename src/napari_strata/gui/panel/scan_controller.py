"""Controller of the list of scans: selects the current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_strata.gui.canvas.layers import (
    advice_without_scan,
    is_scan,
    volume_from_layer,
)
from napari_strata.gui.canvas.orientation import CanvasOrientation
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.widgets.sections import ScanSection
from napari_strata.volume import Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_MOVED_MS = 120
"""Delay before a scan that was moved is read again: a drag sends many events."""

_PLACE_EVENTS = ("scale", "translate", "rotate", "shear", "affine", "units", "data")
"""Events of a layer after which it lies elsewhere or holds other data."""


class ScanController(QObject):
    """Lists the scans of a viewer and keeps the one in hand.

    Parameters
    ----------
    section : ScanSection
        Where the scans are listed and chosen.
    viewer : napari.viewer.Viewer
        Whose layers are listed.
    orientation : CanvasOrientation
        Follows the scan in hand.
    before_change : callable
        Called before another scan is taken in hand.
    on_change : callable
        Called after a scan was taken in hand, or read again.
    show : callable
        Called with a scan that a person chose or opened.
    """

    def __init__(
        self,
        section: ScanSection,
        viewer: napari.viewer.Viewer,
        orientation: CanvasOrientation,
        *,
        before_change: Callable[[], None],
        on_change: Callable[[], None],
        show: Callable[[napari.layers.Image], None],
    ) -> None:
        super().__init__(section)
        self._section = section
        self._viewer = viewer
        self._orientation = orientation
        self._before_change = before_change
        self._on_change = on_change
        self._show = show
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._moved_timer = single_shot(self, _MOVED_MS, self._reload)
        self._bindings = ViewerBindings(viewer)
        section.scan_chosen.connect(self._on_chosen)

    @property
    def image(self) -> napari.layers.Image | None:
        """The layer of the scan in hand."""
        return self._image

    @property
    def volume(self) -> Volume | None:
        """The scan in hand; None if there is none, or its layer cannot be used."""
        return self._volume

    @property
    def timer(self) -> QTimer:
        """The timer that runs between a move of the scan and its new reading."""
        return self._moved_timer

    def choose(self, image: napari.layers.Image | None) -> None:
        """Take another scan in hand, or none."""
        if image != self._image:
            self._before_change()
        self._watch(image)
        self._image = image
        self._volume = None
        with notify_errors():
            self._volume = None if image is None else volume_from_layer(image)
        self._orientation.set_scan(image if self._volume is not None else None)
        self.list_scans(choose=False)
        self._on_change()

    def choose_and_show(self, image: napari.layers.Image) -> None:
        """Take a scan in hand that a person chose or opened, and show it alone."""
        if image != self._image:
            self.choose(image)
        self._show(image)

    def list_scans(self, *, choose: bool = True) -> None:
        """List the scans of the viewer.

        With `choose`, the newest one is taken in hand if the one in hand is gone.
        """
        scans = self.all
        if choose and self._image not in scans:
            self.choose(scans[-1] if scans else None)
            return
        current = scans.index(self._image) if self._image in scans else -1
        names = [layer.name for layer in scans]
        self._section.show_scans(
            names, current, **advice_without_scan(self._viewer.layers)
        )

    def reload(self) -> None:
        """Read the scan in hand again, if its layer was just moved."""
        if self._moved_timer.isActive():
            self._reload()

    def reload_now(self) -> None:
        """Read the scan in hand again."""
        self.choose(self._image)

    def close(self) -> None:
        """Stop following the viewer."""
        self._moved_timer.stop()
        self._bindings.remove()

    @property
    def all(self) -> list[napari.layers.Image]:
        """The scans of the viewer."""
        return [layer for layer in self._viewer.layers if is_scan(layer)]

    def _watch(self, image: napari.layers.Image | None) -> None:
        """Read the scan again when its layer is moved, scaled or given other data."""
        self._moved_timer.stop()
        if image is self._image:
            return
        self._bindings.remove()
        if image is not None:
            for name in _PLACE_EVENTS:
                self._bindings.on_event(getattr(image.events, name), self._on_moved)

    def _on_moved(self, event: object = None) -> None:
        self._moved_timer.start()

    def _reload(self) -> None:
        self._moved_timer.stop()
        if self._image is not None and self._image in self._viewer.layers:
            self.choose(self._image)

    def _on_chosen(self, row: int) -> None:
        scans = self.all
        if 0 <= row < len(scans):
            self.choose_and_show(scans[row])
