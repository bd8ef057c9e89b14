"""The preview layer: what strokes would change, shown before they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_strata.errors import EditError
from napari_strata.gui.canvas.layers import (
    TAKES_KEYS,
    USUAL_IDS,
    matching_grid_kwargs,
    region_colormap,
)
from napari_strata.gui.canvas.placement import lies_straight
from napari_strata.gui.session.edit_queue import EditQueue
from napari_strata.gui.session.labels_painter import (
    Box,
    View,
    shows_else,
    slabs,
    union,
    view_of,
)
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.preview import Preview, preview_strokes
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.assignment import Scope
from napari_strata.volume import Region, region_color

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

PREVIEW_NAME = "Strata preview"
_BACKGROUND, _OTHERS = USUAL_IDS + 1, USUAL_IDS + 2
"""Layer values for voxels that would become background, or a region with a large id.

Other voxels have the id of their region, or 0 without a change.
"""
_NUMBERS = np.array([0, _BACKGROUND, *range(1, USUAL_IDS + 1), _OTHERS], np.uint16)
"""Layer value for each result of `Preview.changes_in`, which is a region's id plus 1.

The last entry is used for all larger ids.
"""

_AT_ONCE_VOXELS = 200_000
"""Up to this size a preview is painted at once; else the plane on screen comes first."""

PreviewStrokes = Sequence[tuple[NDArray[np.int64], int | None]]


class StrokePreview(QObject):
    """Shows which voxels the strokes would change, and to which region, in a layer of its own.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    queue : EditQueue
        Where the preview is computed, between edits.
    work : Refinement
        What would be changed.
    parent : QObject
        Qt parent.
    """

    shown_changed = Signal(bool)
    """Whether a preview waits to be applied."""
    effect_changed = Signal(object)
    """`StrokeEffect` of a preview that is shown."""
    painted = Signal()
    """Emitted after the plane on screen was written."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        queue: EditQueue,
        work: Refinement,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._queue = queue
        self._work = work
        self.layer: napari.layers.Labels | None = None
        self._preview: Preview | None = None
        self._written: Box | None = None
        self._dirty: list[Box] = []
        self._rows: list[Region] = []
        self._view_written: View | None = None
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

    def show(
        self,
        strokes: PreviewStrokes,
        scope: Scope,
        *,
        over: napari.layers.Layer,
        reach: Reach | None = None,
    ) -> None:
        """Compute the preview of strokes in the thread, and show it.

        It replaces an earlier preview.
        """
        self._serial += 1
        if not strokes:
            self.drop()
            return
        serial = self._serial

        def compute() -> Preview | None:
            if serial != self._serial:
                return None
            try:
                return preview_strokes(self._work, strokes, scope=scope, reach=reach)
            except EditError:
                # a refusal is shown when the strokes are applied, not while stroking
                return None

        def arrived(preview: Preview | None) -> None:
            if serial == self._serial and preview is not None:
                self._take(preview, over)

        self._queue.submit(compute, arrived)

    def drop(self) -> None:
        """Take the preview off the canvas."""
        self._serial += 1
        was_shown, self._preview = self._preview is not None, None
        if was_shown:
            self._paint_in(None)
            self.shown_changed.emit(False)

    def finish(self) -> None:
        """Paint the rest now."""
        while self._dirty:
            self._paint_next()

    def close(self) -> None:
        """Remove the layer."""
        self._serial += 1
        self._forget()
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def make_layer(self, *, over: napari.layers.Layer) -> None:
        """Add the empty layer if it is not there yet."""
        if over in self._viewer.layers and (
            self.layer is None or self.layer not in self._viewer.layers
        ):
            self._forget()
            self._rows = []
            self.layer = self._add_layer(over)

    def _take(self, preview: Preview, over: napari.layers.Layer) -> None:
        if over not in self._viewer.layers:
            return
        was_shown, self._preview = self._preview is not None, preview
        self.make_layer(over=over)
        self._give_colors()
        self._paint_in(preview.box)
        self.effect_changed.emit(preview.effect)
        if not was_shown:
            self.shown_changed.emit(True)

    def _forget(self) -> None:
        self._timer.stop()
        self._dirty, self._written = [], None

    def _paint_in(self, box: Box | None) -> None:
        """Paint the preview in a box, and remove an earlier one.

        What is on screen is painted now, the rest in the event loop.
        """
        if self._written is not None:
            box = self._written if box is None else union(self._written, box)
        self._written = box
        if box is not None:
            is_small = (
                np.prod([part.stop - part.start for part in box]) <= _AT_ONCE_VOXELS
            )
            self._dirty = (
                [box]
                if is_small
                else [
                    *self._screen_first(box),
                    *((slab, *box[1:]) for slab in slabs(box)),
                ]
            )
            self._screen_changed = True
            self._timer.start()
            self._paint_next()

    def _give_colors(self) -> None:
        """Colour the layer like the regions.

        Only if somebody chose a colour, because napari is slow to change a colormap.
        """
        chosen = [
            row
            for row in self._work.regions
            if row.color != region_color(row.id) and row.id <= USUAL_IDS
        ]
        if self.layer is not None and [(row.id, row.color) for row in chosen] != [
            (row.id, row.color) for row in self._rows
        ]:
            self._rows = chosen
            self.layer.colormap = _colormap(chosen)

    def _add_layer(self, over: napari.layers.Layer) -> napari.layers.Labels:
        active = self._viewer.layers.selection.active
        geometry = self._work.proposal.volume.geometry
        placed = matching_grid_kwargs(over, geometry, {TAKES_KEYS: True})
        empty = np.zeros(geometry.shape_zyx, np.uint16)
        layer = self._viewer.add_labels(
            empty, name=PREVIEW_NAME, opacity=0.75, colormap=_colormap(()), **placed
        )
        if active is not None:
            # a stroke is drawn over the preview
            self._viewer.layers.move(
                self._viewer.layers.index(layer), self._viewer.layers.index(active)
            )
            self._viewer.layers.selection.active = active
        return layer

    def _screen_first(self, box: Box) -> list[Box]:
        dims, layer = self._viewer.dims, self.layer
        if (
            layer is None
            or dims.ndisplay == 3
            or dims.ndim != 3
            or not lies_straight(layer)
        ):
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
        if layer is None or layer not in self._viewer.layers:
            self._forget()
        if self._dirty and layer is not None:
            first = self._dirty.pop(0)
            if preview is None:
                layer.data[first] = 0
            else:
                layer.data[first] = _NUMBERS[
                    np.minimum(preview.changes_in(first), len(_NUMBERS) - 1)
                ]
            if self._screen_changed or (
                not self._dirty and shows_else(self._viewer, self._view_written, layer)
            ):
                self._view_written = view_of(self._viewer)
                layer.refresh(extent=False, thumbnail=False)
                self.painted.emit()
            self._screen_changed = False
        if not self._dirty:
            self._timer.stop()
            self._written = None if preview is None else preview.box


def _colormap(chosen: Sequence[Region]) -> Any:
    fixed = (
        Region(_BACKGROUND, "", (255, 255, 255)),
        Region(_OTHERS, "", (128, 128, 128)),
    )
    return region_colormap((*fixed, *chosen), capacity=_OTHERS)
