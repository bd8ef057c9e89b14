"""The scribble layer: strokes that teach, painted with napari's own brush."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.gui.hand_paint import paint_from_event
from napari_strata.gui.layers import matching_grid_kwargs, region_colormap
from napari_strata.volume import BACKGROUND, Geometry, Region

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

STROKES_NAME = "Strata strokes"
_NEW = 1
"""Strokes for a region that does not exist yet are stored as this: its id is only known once they are taken."""
_SHIFT = 2
"""A stroke for region r is stored as r + 2, so that strokes for background can be seen and `_NEW` is nobody's."""


@dataclass(frozen=True, slots=True, eq=False)
class Strokes:
    """The voxels stroked for one region.

    Parameters
    ----------
    region : int or None
        Region id, 0 for background, None for a region that does not exist yet.
    voxels : (n, 3) int64 array
        Indices (z, y, x).
    """

    region: int | None
    voxels: NDArray[np.int64]


class Brush:
    """A labels layer over the scan that collects strokes until they are taken.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    reference : napari layer
        The layer it lies over.
    geometry : Geometry
        Of the scan.
    """

    def __init__(self, viewer: napari.viewer.Viewer, reference: napari.layers.Layer, geometry: Geometry) -> None:
        self._viewer = viewer
        self.layer = viewer.add_labels(
            np.zeros(geometry.shape_zyx, np.uint16),
            name=STROKES_NAME,
            opacity=0.9,
            **matching_grid_kwargs(reference, geometry),
        )
        self._touched: list[NDArray[np.int64]] = []
        self._is_fully_known = True
        self.layer.events.paint.connect(self._on_paint)

    @property
    def is_present(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    def pick_up(self, region: int | None, regions: tuple[Region, ...], *, size: int) -> None:
        """Make the layer active with a brush of `size` voxels for `region`, None for a new one."""
        shown = {row.id + _SHIFT: row for row in regions}
        rows = [Region(value, row.name, row.color) for value, row in shown.items()]
        rows += [Region(BACKGROUND + _SHIFT, "background", (255, 255, 255)), Region(_NEW, "new region", (255, 255, 0))]
        if max(shown, default=0) >= 2**16 and self.layer.data.dtype.itemsize == 2:
            self.layer.data = np.asarray(self.layer.data).astype(np.uint32)
        self.layer.colormap = region_colormap(rows)
        self.layer.selected_label = _NEW if region is None else region + _SHIFT
        self.layer.brush_size = size
        self.layer.mode = "paint"
        self._viewer.layers.selection.active = self.layer

    def put_down(self) -> None:
        """Stop painting."""
        self.layer.mode = "pan_zoom"

    def strokes(self) -> tuple[Strokes, ...]:
        """Give the strokes, one entry per region; those for a new region come last."""
        data = self.layer.data
        touched = np.unique(np.concatenate(self._touched)) if self._touched else np.empty(0, np.int64)
        flat = touched if self._is_fully_known else np.flatnonzero(data)
        values = data.reshape(-1)[flat]
        flat, values = flat[values > 0], values[values > 0]
        self._touched, self._is_fully_known = [flat], True
        if len(flat) == 0:
            return ()
        voxels = np.stack(np.unravel_index(flat, data.shape), axis=1)
        stored = sorted(np.unique(values).tolist(), key=lambda value: (value == _NEW, value))
        return tuple(Strokes(None if value == _NEW else value - _SHIFT, voxels[values == value]) for value in stored)

    def erase(self, strokes: Strokes) -> None:
        """Take strokes off the layer."""
        self.layer.data[tuple(strokes.voxels.T)] = 0
        self.layer.refresh(extent=False)

    def clear(self) -> None:
        """Take every stroke off the layer."""
        for strokes in self.strokes():
            self.erase(strokes)

    def _on_paint(self, event: Any) -> None:
        """Remember which voxels were written, so that strokes are found without a look at the whole scan."""
        painted = paint_from_event(getattr(event, "value", None), self.layer.data.shape)
        if painted is None:
            self._is_fully_known = False
        else:
            self._touched.append(painted.flat)

    def remove(self) -> None:
        """Take the layer away."""
        if self.is_present:
            self._viewer.layers.remove(self.layer)
