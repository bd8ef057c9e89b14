"""Keeps a plain napari labels layer equal to the refinement behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_strata.gui.layers import METADATA_KEY, LayerTuple, labels_tuple, matching_grid_kwargs, region_colormap, region_features
from napari_strata.refine.refinement import Change, Refinement
from napari_strata.volume import Segmentation

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

Box = tuple[slice, slice, slice]

SLAB_VOXELS = 2_000_000
"""Voxels written per turn of the event loop when everything changed: a few tens of milliseconds."""


class LabelsPainter(QObject):
    """Shows a refinement in a labels layer and writes its changes there, box by box.

    When everything changes, as it does when the slider moves, the slice on screen is written at once and the rest in
    slabs between other events, so that the slider stays smooth on large scans.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    image : napari.layers.Image
        The scan; the labels lie exactly over it.
    work : Refinement
        What is shown.
    parent : QObject
        Ends the painter with it.
    layer : napari.layers.Labels or None
        A layer that shows `work` already; None adds one.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        image: napari.layers.Image,
        work: Refinement,
        parent: QObject,
        layer: napari.layers.Labels | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._image = image
        self.work = work
        self._capacity = 0
        self._colors: dict[int, tuple[int, int, int]] = {}
        self.layer = self._add_layer() if layer is None else layer
        self._pending: list[Box] = []
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._paint_next)
        self._unsubscribe = work.on_change(self._on_change)

    def close(self) -> None:
        """Stop following the refinement; the layer stays as it is."""
        self.finish()
        self._unsubscribe()

    def finish(self) -> None:
        """Write what is still to be written, now."""
        while self._pending:
            self._paint_next()

    def restore(self) -> None:
        """Show the layer again after somebody deleted it."""
        if self.layer not in self._viewer.layers:
            self.layer = self._add_layer()

    def repaint(self, voxels: NDArray[np.int64]) -> None:
        """Write the refinement's labels over whatever stands in the layer, in the box around some voxels (n, 3)."""
        if len(voxels):
            low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
            self._write((slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])))
            self.layer.refresh(extent=False)

    def changed_by_hand(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Find voxels that were changed in the layer itself, with napari's own brush, fill or polygon.

        Returns
        -------
        (n, 3) int64 array, (n,) uint32 array
            Voxels (z, y, x) and the labels they hold now.
        """
        self.finish()
        shape = self.layer.data.shape
        everywhere = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
        voxels = np.zeros((0, 3), np.int64)
        if self._viewer.dims.ndisplay == 2 and self._viewer.dims.ndim == 3 and self.layer.n_edit_dimensions == 2:
            voxels = self._differences(self._on_screen(everywhere))
        if not len(voxels):
            voxels = self._differences(everywhere)
        return voxels, np.asarray(self.layer.data)[tuple(voxels.T)].astype(np.uint32)

    def _differences(self, box: Box) -> NDArray[np.int64]:
        found = np.argwhere(np.asarray(self.layer.data[box]) != self.work.labels_in(box))
        return found + [part.start for part in box]

    def _on_screen(self, box: Box) -> Box:
        """Give the part of a box that lies in the slice on screen; it may be empty."""
        through = self._viewer.dims.order[0]
        index = round(float(self.layer.world_to_data(self._viewer.dims.point)[through]))
        start = min(max(index, box[through].start), box[through].stop)
        visible = list(box)
        visible[through] = slice(start, start + 1 if box[through].start <= index < box[through].stop else start)
        return visible[0], visible[1], visible[2]

    def _add_layer(self) -> napari.layers.Labels:
        data, kwargs, _ = case_labels_tuple(self.work, name=f"{self._image.name} regions")
        kwargs |= matching_grid_kwargs(self._image, self.work.volume.geometry, {"regions": self.work.regions})
        return self._viewer.add_labels(data, **kwargs)

    def _on_change(self, change: Change) -> None:
        if self.layer not in self._viewer.layers:
            return
        self._follow_table()
        if change.box is not None:
            self._paint_in_turns(change.box)
            self.layer.refresh(extent=False, thumbnail=False)

    def _follow_table(self) -> None:
        regions, layer, top = self.work.regions, self.layer, self.work.next_id - 1
        if top >= 2**16 and layer.data.dtype.itemsize < 4:
            layer.data = np.asarray(layer.data).astype(np.uint32)
        colors = {region.id: region.color for region in regions}
        recolored = any(self._colors.get(number, color) != color for number, color in colors.items())
        if top > self._capacity or recolored:
            self._capacity = color_capacity(top)
            layer.colormap = region_colormap(regions, capacity=self._capacity)
        self._colors.update(colors)
        layer.features = region_features(regions)
        layer.metadata[METADATA_KEY] |= {"regions": regions}

    def _paint_in_turns(self, box: Box) -> None:
        """Write a box: a small one, or 3D, at once; else the slice on screen first, and the rest in slabs."""
        dims = self._viewer.dims
        area = [part.stop - part.start for part in box]
        if np.prod(area) <= SLAB_VOXELS or dims.ndisplay == 3 or dims.ndim != 3:
            self._write(box)
            return
        self._write(self._on_screen(box))
        thickness = max(1, SLAB_VOXELS // (area[1] * area[2]))
        starts = range(box[0].start, box[0].stop, thickness)
        self._pending += [(slice(start, min(start + thickness, box[0].stop)), box[1], box[2]) for start in starts]
        self._pending = list({str(slab): slab for slab in self._pending}.values())
        self._timer.start()

    def _paint_next(self) -> None:
        if self._pending and self.layer in self._viewer.layers:
            self._write(self._pending.pop())
        else:
            self._pending = []
        if not self._pending:
            self._timer.stop()
            self.layer.refresh(extent=False)

    def _write(self, box: Box) -> None:
        self.layer.data[box] = self.work.labels_in(box)


def case_labels_tuple(work: Refinement, *, name: str) -> LayerTuple:
    """Give a refinement as a labels layer tuple whose type leaves room for regions to come."""
    roomy: type[np.unsignedinteger] = np.uint16 if work.next_id < 2**15 else np.uint32
    labels: NDArray[np.unsignedinteger] = work.labels.astype(roomy)
    data, kwargs, kind = labels_tuple(Segmentation(labels, work.regions, work.volume.geometry), name=name)
    kwargs["colormap"] = region_colormap(work.regions, capacity=color_capacity(work.next_id))
    return data, kwargs, kind


def color_capacity(top: int) -> int:
    """Give the next power of two above an id, so that colours are made anew only now and then."""
    return int(2 ** np.ceil(np.log2(max(top, 63) + 1)))
