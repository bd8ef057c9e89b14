"""The selected regions, outlined on the canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_strata.gui.canvas.layers import (
    TAKES_KEYS,
    color_capacity,
    matching_grid_kwargs,
    region_colormap,
)
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.volume import Region

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

SELECTION_NAME = "Strata selection"
_COLOR = (255, 255, 255)
"""White stands out from every region's colour, on the grey scan too."""
_PIXELS = 1
"""Width of the outline in voxels of the plane: the thinnest there is."""
_LONGEST = 40
"""Characters of the list of names on the canvas."""


class SelectionOutline(QObject):
    """Draws the outline of the selected regions over the labels of the case in hand.

    Its layer shares the array of the labels; only the colours differ.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    show_text : callable
        Called with the names of the selected regions, "" for none.
    parent : QObject
        Qt parent.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        show_text: Callable[[str], None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._show_text = show_text
        self._case: ScanCase | None = None
        self._ids: tuple[int, ...] = ()
        self._drawn: tuple[int, ...] = ()
        self.layer: napari.layers.Labels | None = None
        self._timer = single_shot(self, 0, self._draw)

    def follow(self, case: ScanCase | None) -> None:
        """Outline the regions of another case."""
        if case is self._case:
            self._timer.start()
            return
        if self._case is not None:
            self._case.painter.painted.disconnect(self._on_painted)
        self.remove()
        self._case = case
        if case is not None:
            case.painter.painted.connect(self._on_painted)
            self._timer.start()

    def show(self, ids: Sequence[int]) -> None:
        """Outline these regions."""
        self._ids = tuple(ids)
        self._timer.start()

    def remove(self) -> None:
        """Take outline and text off the canvas."""
        self._timer.stop()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self._drawn = ()
        self._show_text("")

    def close(self) -> None:
        """Follow no case any more."""
        self.follow(None)
        self.remove()

    def forget(self) -> None:
        """Draw nothing more: the canvas is gone."""
        self._timer.stop()
        self._case = self.layer = None

    def _draw(self) -> None:
        case = self._case
        if case is None or not case.is_shown:
            self.remove()
            return
        rows = {row.id: row for row in case.work.regions}
        ids = tuple(region for region in self._ids if region in rows)
        self._show_text(selection_text([rows[region] for region in ids]))
        if not ids:
            if self.layer is not None:
                self.layer.visible = False
            return
        layer = self._layer_over(case)
        if layer.data is not case.labels.data:
            layer.data = case.labels.data
        drawn = (case.work.view.next_id, *ids)
        if drawn != self._drawn:
            self._drawn = drawn
            layer.colormap = _outline_colors(ids, case)
        # a mask in 3D would hide the regions
        layer.visible = case.labels.visible and self._viewer.dims.ndisplay == 2

    def _layer_over(self, case: ScanCase) -> napari.layers.Labels:
        if self.layer is not None and self.layer in self._viewer.layers:
            return self.layer
        active = self._viewer.layers.selection.active
        geometry = case.work.proposal.volume.geometry
        self.layer = self._viewer.add_labels(
            case.labels.data,
            name=SELECTION_NAME,
            opacity=1.0,
            colormap=_outline_colors(self._ids, case),
            **matching_grid_kwargs(case.labels, geometry, {TAKES_KEYS: True}),
        )
        self.layer.contour = _PIXELS
        self.layer.editable = False
        self._drawn = ()
        self._viewer.layers.move(
            self._viewer.layers.index(self.layer),
            self._viewer.layers.index(case.labels) + 1,
        )
        self._viewer.layers.selection.active = active
        return self.layer

    def _on_painted(self) -> None:
        layer, case = self.layer, self._case
        if layer is None or case is None or layer not in self._viewer.layers:
            return
        if layer.data is not case.labels.data:
            layer.data = case.labels.data
        elif layer.visible:
            layer.refresh(extent=False, thumbnail=False)


def selection_text(rows: Sequence[Region]) -> str:
    """Return what is selected in words, such as "3 selected: liver, spleen, tissue 4"."""
    if not rows:
        return ""
    names = ", ".join(row.name for row in rows)
    if len(names) > _LONGEST:
        names = names[: _LONGEST - 1].rstrip(", ") + "…"
    return f"{len(rows)} selected: {names}"


def _outline_colors(ids: Sequence[int], case: ScanCase) -> Any:
    """Return a colormap in which only some regions are drawn."""
    capacity = color_capacity(case.work.view.next_id)
    rows = [Region(region, "", _COLOR) for region in ids]
    hidden = set(range(1, capacity + 1)) - set(ids)
    return region_colormap(rows, capacity=capacity, hidden=hidden)
