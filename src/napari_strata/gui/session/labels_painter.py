"""Keeps a plain napari labels layer equal to the refinement behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_strata.gui.canvas.layers import (
    LayerTuple,
    case_labels_tuple,
    color_capacity,
    matching_grid_kwargs,
    region_colormap,
    region_features,
    roomy_dtype,
)
from napari_strata.gui.canvas.placement import METADATA_KEY, lies_straight
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tools.hand_paint import HandPaint, differences
from napari_strata.refine.session.edit_session import Change
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import region_color

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

Box = tuple[slice, slice, slice]
View = tuple[int, int, tuple[float, ...]]

OUTLINE_PIXELS = 2
"""Width of region outlines, in screen pixels."""
SLAB_VOXELS = 1_500_000
"""Voxels written per turn of the event loop, about 10 ms: the slider stays smooth."""
_PAUSE_S = 0.03
"""Changes that follow each other within this time are painted together: one frame."""
_NAMES_MS = 200
"""Delay before napari gets the names of regions.

It needs milliseconds for them, and shows them only on hover.
"""


class LabelsPainter(QObject):
    """Shows a refinement in a labels layer and writes its changes there, box by box.

    What is on screen is written first and the rest in slabs between other events, so
    that the slider stays smooth on large scans.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    image : napari.layers.Image
        The scan; the labels lie exactly over it.
    work : Refinement
        What is shown.
    parent : QObject
        Qt parent.
    layer : napari.layers.Labels or None
        A layer that shows `work` already; None adds one.
    layer_tuple : LayerTuple or None
        The result of `case_labels_tuple` for `work`, if it was made outside the GUI
        thread.
    """

    painted = Signal()
    """Emitted after labels on screen were written."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        image: napari.layers.Image,
        work: Refinement,
        parent: QObject,
        layer: napari.layers.Labels | None = None,
        layer_tuple: LayerTuple | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._image = image
        self.work = work
        self.shows_all_planes = False
        self.hidden: frozenset[int] = frozenset()
        self._capacity = 0
        self._colors: dict[int, tuple[int, int, int]] = {}
        self._dirty: Box | None = None
        self._table_changed = self._screen_changed = False
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._paint_next)
        self._painted_at = 0.0
        self._view_written: View | None = None
        self._names_timer = single_shot(self, _NAMES_MS, self._show_names)
        self.layer = self._add_layer(layer_tuple) if layer is None else layer
        self._place = 0
        viewer.layers.events.removing.connect(self._on_removing)

    @property
    def is_settled(self) -> bool:
        """Whether the layer shows every change."""
        return self._dirty is None and not self._table_changed

    @property
    def unwritten(self) -> Box | None:
        """The box in which the layer may still be out of date, None if it is not."""
        return self._dirty

    def finish(self) -> None:
        """Write the rest now."""
        while not self.is_settled:
            self._paint_next()
        if self._names_timer.isActive():
            self._show_names()

    def close(self) -> None:
        """Write the rest; the layer stays as it is."""
        self._viewer.layers.events.removing.disconnect(self._on_removing)
        self.finish()

    def _on_removing(self, event: Any) -> None:
        """Note where the layer was, so that it comes back there."""
        layers = self._viewer.layers
        if event.index is not None and layers[event.index] is self.layer:
            self._place = event.index

    def restore(self) -> None:
        """Show the layer again after somebody deleted it."""
        if self.layer in self._viewer.layers:
            return
        self.layer = self._add_layer(None)
        layers = self._viewer.layers
        place = max(self._place, layers.index(self._image) + 1)
        layers.move(layers.index(self.layer), min(place, len(layers) - 1))

    def show_change(self, change: Change) -> None:
        """Paint a change: what is on screen at once, the rest in the event loop.

        If another change was painted just now, all of it waits for the event loop.
        """
        self._table_changed = self._table_changed or change.regions
        if change.box is not None:
            self._screen_changed = True
            self._dirty = (
                change.box if self._dirty is None else union(self._dirty, change.box)
            )
        if self.is_settled:
            return
        self._timer.start()
        if time.perf_counter() - self._painted_at > _PAUSE_S:
            self._paint_next()

    @property
    def is_outlined(self) -> bool:
        """Whether regions are drawn as outlines."""
        return bool(self.layer.contour)

    def show_outline(self, is_on: bool) -> None:
        """Draw regions as outlines, or filled."""
        if is_on != self.is_outlined:
            self.layer.contour = OUTLINE_PIXELS if is_on else 0

    def hide(self, regions: frozenset[int]) -> None:
        """Draw all regions except these."""
        self.hidden = regions
        self.layer.colormap = region_colormap(
            (*self.work.view.state.expected_rows(), *self.work.regions),
            capacity=self._capacity,
            hidden=regions,
        )
        self.painted.emit()

    def repaint(self, voxels: NDArray[np.int64]) -> None:
        """Write the refinement's labels in the box around some voxels (n, 3).

        This overwrites whatever another tool put there.
        """
        if len(voxels) and self.layer in self._viewer.layers:
            low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
            self._write(
                (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
            )
            self._refresh()

    def differs_on_screen(self) -> bool:
        """Return whether another tool wrote in the part of the layer on screen."""
        all_of_it = self._viewer.dims.ndisplay == 3 or not lies_straight(self.layer)
        boxes = [self.whole_box] if all_of_it else list(self._on_screen(self.whole_box))
        return any(
            bool(
                (
                    np.asarray(self.layer.data[box]) != self.work.view.labels_in(box)
                ).any()
            )
            for box in boxes
        )

    def all_differences(self) -> HandPaint:
        """Return every voxel that another tool wrote, except where our own writing is pending.

        It may be called in any thread between edits.
        """
        shape, unwritten = self.layer.data.shape, self.unwritten
        parts = [HandPaint(np.empty(0, np.int64), np.empty(0, np.int64))]
        for part in (
            (self.whole_box,)
            if unwritten is None
            else outside(self.whole_box, unwritten)
        ):
            for slab in slabs(part):
                box = slab, part[1], part[2]
                start = slab.start, part[1].start, part[2].start
                parts.append(
                    differences(
                        np.asarray(self.layer.data[box]),
                        self.work.view.labels_in(box),
                        start,
                        shape,
                    )
                )
        return HandPaint(
            np.concatenate([part.flat for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    @property
    def whole_box(self) -> Box:
        """The box of the whole scan."""
        z, y, x = self.work.proposal.volume.geometry.shape_zyx
        return slice(0, z), slice(0, y), slice(0, x)

    def _on_screen(self, box: Box) -> Iterator[Box]:
        """Yield the parts of a box that are in the planes on screen.

        There are none if the screen shows no plane of the array.
        """
        dims = self._viewer.dims
        if dims.ndim != 3 or not lies_straight(self.layer):
            return
        middle = np.rint(np.asarray(self.layer.world_to_data(dims.point))).astype(int)
        for axis in range(3) if self.shows_all_planes else (dims.order[0],):
            if box[axis].start <= middle[axis] < box[axis].stop:
                plane = list(box)
                plane[axis] = slice(int(middle[axis]), int(middle[axis]) + 1)
                yield plane[0], plane[1], plane[2]

    def _add_layer(self, layer_tuple: LayerTuple | None) -> napari.layers.Labels:
        data, kwargs, _ = layer_tuple or case_labels_tuple(self.work, name="regions")
        kwargs |= matching_grid_kwargs(
            self._image,
            self.work.proposal.volume.geometry,
            {"regions": self.work.regions},
        )
        self._capacity = color_capacity(self.work.view.next_id)
        expected = self.work.view.state.expected_rows()
        self._colors = {
            region.id: region.color for region in (*expected, *self.work.regions)
        }
        return self._viewer.add_labels(
            data, **{**kwargs, "name": f"{self._image.name} regions"}
        )

    def _paint_next(self) -> None:
        """Do the most urgent step: the table, then the screen, then a slab of the rest."""
        if self.layer not in self._viewer.layers:
            self._dirty, self._table_changed, self._screen_changed = None, False, False
        if self._table_changed:
            self._table_changed = False
            self._follow_table()
        self._painted_at = time.perf_counter()
        if (
            self._dirty is not None
            and self._screen_changed
            and self._viewer.dims.ndisplay == 2
        ):
            for plane in self._on_screen(self._dirty):
                self._write(plane)
            self._view_written = view_of(self._viewer)
            self._refresh()
        elif self._dirty is not None:
            self._paint_slab()
        self._screen_changed = False
        if self.is_settled:
            self._timer.stop()

    def _paint_slab(self) -> None:
        if (dirty := self._dirty) is None:
            return
        slab = next(slabs(dirty))
        self._write((slab, dirty[1], dirty[2]))
        rest = slice(slab.stop, dirty[0].stop)
        self._dirty = (rest, dirty[1], dirty[2]) if rest.start < rest.stop else None
        if self._dirty is None and shows_else(
            self._viewer, self._view_written, self.layer
        ):
            self._refresh()

    def _follow_table(self) -> None:
        regions, layer, top = self.work.regions, self.layer, self.work.view.next_id - 1
        if top > np.iinfo(layer.data.dtype).max:
            layer.data = np.asarray(layer.data).astype(roomy_dtype(top + 1))
        rows = (*self.work.view.state.expected_rows(), *regions)
        colors = {region.id: region.color for region in regions}
        recolored = any(
            self._colors.get(number, region_color(number)) != color
            for number, color in colors.items()
        )
        if top > self._capacity or recolored:
            self._capacity = color_capacity(top)
            layer.colormap = region_colormap(
                rows, capacity=self._capacity, hidden=self.hidden
            )
            self._colors.update({region.id: region.color for region in rows})
        self._colors.update(colors)
        layer.metadata[METADATA_KEY] |= {"regions": regions}
        self._names_timer.start()

    def _show_names(self) -> None:
        self._names_timer.stop()
        if self.layer in self._viewer.layers:
            self.layer.features = region_features(self.work.regions)

    def _refresh(self) -> None:
        self.layer.refresh(extent=False, thumbnail=False)
        self.painted.emit()

    def _write(self, box: Box) -> None:
        self.layer.data[box] = self.work.view.labels_in(box)


def view_of(viewer: napari.viewer.Viewer) -> View:
    """Return a key of the plane that a viewer shows."""
    dims = viewer.dims
    return dims.ndisplay, dims.order[0], tuple(dims.point)


def shows_else(
    viewer: napari.viewer.Viewer, written: View | None, layer: napari.layers.Layer
) -> bool:
    """Return whether a viewer shows more than the plane that was on screen when it was written.

    3D shows everything, and the plane may have changed since. Beside a layer of more
    than three axes, or over a rotated layer, no plane is written first, so all of it
    counts.
    """
    dims = viewer.dims
    return (
        dims.ndisplay == 3
        or dims.ndim != 3
        or view_of(viewer) != written
        or not lies_straight(layer)
    )


def slabs(box: Box) -> Iterator[slice]:
    """Split a box along its first axis into slabs, one per turn of the event loop."""
    thickness = max(
        1,
        SLAB_VOXELS
        // max(1, (box[1].stop - box[1].start) * (box[2].stop - box[2].start)),
    )
    for start in range(box[0].start, box[0].stop, thickness):
        yield slice(start, min(start + thickness, box[0].stop))


def union(one: Box, other: Box) -> Box:
    """Return the smallest box around two boxes."""
    z, y, x = (
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(one, other, strict=True)
    )
    return z, y, x


def outside(box: Box, hole: Box) -> Iterator[Box]:
    """Split the part of a box outside of a hole into boxes."""
    rest = list(box)
    for axis in range(3):
        for part in (
            slice(rest[axis].start, hole[axis].start),
            slice(hole[axis].stop, rest[axis].stop),
        ):
            if part.start < part.stop:
                side = [*rest[:axis], part, *rest[axis + 1 :]]
                yield side[0], side[1], side[2]
        rest[axis] = hole[axis]
