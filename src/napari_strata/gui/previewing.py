"""The preview layer: what strokes would do, shown before they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_strata.errors import EditError
from napari_strata.gui.edit_queue import EditQueue
from napari_strata.gui.layers import matching_grid_kwargs, region_colormap
from napari_strata.gui.painter import Box, slabs
from napari_strata.refine.owner import Scope
from napari_strata.refine.preview import Preview, preview_strokes
from napari_strata.refine.refinement import Refinement
from napari_strata.volume import BACKGROUND, Region, region_color

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

PREVIEW_NAME = "Strata preview"
_SHIFT = 1
"""Voxels that would become region r hold r + 1, so that those that would become background can be seen."""

PreviewStrokes = Sequence[tuple[NDArray[np.int64], int | None]]


class StrokePreview(QObject):
    """Shows in a layer of its own which voxels strokes would change, and to which region.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    queue : EditQueue
        Where the preview is computed, between edits.
    work : Refinement
        What would be changed.
    parent : QObject
        Ends it with it.
    """

    shown_changed = Signal(bool)
    """Whether a preview waits for a person's yes."""

    def __init__(self, viewer: napari.viewer.Viewer, queue: EditQueue, work: Refinement, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._queue = queue
        self._work = work
        self.layer: napari.layers.Labels | None = None
        self._preview: Preview | None = None
        self._painted: Box | None = None
        self._dirty: list[Box] = []
        self._serial = 0
        self._screen_changed = False
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._paint_next)

    @property
    def is_shown(self) -> bool:
        """Whether a preview is on the canvas."""
        return self._preview is not None

    @property
    def is_settled(self) -> bool:
        """Whether all of the preview is painted."""
        return not self._dirty

    def show(self, strokes: PreviewStrokes, scope: Scope, *, over: napari.layers.Layer) -> None:
        """Compute what strokes would do, in the thread, and show it; a later call takes the place of an earlier one."""
        self._serial += 1
        if not strokes:
            self.drop()
            return
        serial = self._serial

        def compute() -> Preview | None:
            if serial != self._serial:
                return None
            try:
                return preview_strokes(self._work, strokes, scope=scope)
            except EditError:
                # what cannot be taken is said when it is asked for, not while a person strokes
                return None

        def arrived(preview: Preview | None) -> None:
            if serial == self._serial and preview is not None:
                self._take(preview, over)

        self._queue.submit(compute, arrived)

    def drop(self) -> None:
        """Take the preview off the canvas."""
        self._serial += 1
        self._timer.stop()
        self._dirty = []
        was_shown, self._preview = self._preview is not None, None
        if self.layer is not None and self.layer in self._viewer.layers and self._painted is not None:
            self.layer.data[self._painted] = 0
            self.layer.refresh(extent=False, thumbnail=False)
        self._painted = None
        if was_shown:
            self.shown_changed.emit(False)

    def finish(self) -> None:
        """Paint what is still to be painted, now."""
        while self._dirty:
            self._paint_next()

    def close(self) -> None:
        """Take the layer away."""
        self._serial += 1
        self._timer.stop()
        self._dirty = []
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _take(self, preview: Preview, over: napari.layers.Layer) -> None:
        if self.layer is not None and self._painted is not None and self.layer in self._viewer.layers:
            self.layer.data[self._painted] = 0
        was_shown, self._preview, self._painted = self._preview is not None, preview, preview.box
        if over not in self._viewer.layers:
            return
        if self.layer is None or self.layer not in self._viewer.layers:
            self.layer = self._add_layer(over)
        rows = [Region(row.id + _SHIFT, row.name, row.color) for row in self._work.regions]
        known = {row.id for row in rows}
        rows += [Region(i + _SHIFT, f"region {i}", region_color(i)) for i in preview.regions if i > 0 and i + _SHIFT not in known]
        self.layer.colormap = region_colormap([*rows, Region(BACKGROUND + _SHIFT, "background", (255, 255, 255))])
        if preview.box is not None:
            self._dirty = [*self._screen_first(preview.box), *((slab, *preview.box[1:]) for slab in slabs(preview.box))]
            self._screen_changed = True
            self._timer.start()
        if not was_shown:
            self.shown_changed.emit(True)

    def _add_layer(self, over: napari.layers.Layer) -> napari.layers.Labels:
        active = self._viewer.layers.selection.active
        geometry = self._work.volume.geometry
        kind = np.uint16 if self._work.next_id < 2**15 else np.uint32
        placed = matching_grid_kwargs(over, geometry)
        layer = self._viewer.add_labels(np.zeros(geometry.shape_zyx, kind), name=PREVIEW_NAME, opacity=0.75, **placed)
        if active is not None:
            # a stroke is drawn over the preview
            self._viewer.layers.move(self._viewer.layers.index(layer), self._viewer.layers.index(active))
            self._viewer.layers.selection.active = active
        return layer

    def _screen_first(self, box: Box) -> list[Box]:
        dims, layer = self._viewer.dims, self.layer
        if layer is None or dims.ndisplay == 3 or dims.ndim != 3:
            return []
        axis = dims.order[0]
        index = round(float(layer.world_to_data(dims.point)[axis]))
        if not box[axis].start <= index < box[axis].stop:
            return []
        plane = list(box)
        plane[axis] = slice(index, index + 1)
        return [(plane[0], plane[1], plane[2])]

    def _paint_next(self) -> None:
        layer, preview = self.layer, self._preview
        if layer is None or preview is None or layer not in self._viewer.layers:
            self._dirty = []
        if self._dirty and layer is not None and preview is not None:
            first = self._dirty.pop(0)
            layer.data[first] = preview.changes_in(first)
            if self._screen_changed or not self._dirty:
                layer.refresh(extent=False, thumbnail=False)
            self._screen_changed = False
        if not self._dirty:
            self._timer.stop()
