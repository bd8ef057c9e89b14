"""The layer that holds scribble strokes, painted with napari's own brush.

The brush on the canvas is here. It is picked up and its strokes are applied in
`gui/session/brushes.py`. Its size and options are in
`gui/widgets/edit_section.py`, what follows each stroke in `gui/panel/editing.py`, and what
a stroke does to the labels is `Scribble` in `refine/edits/strokes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from napari_strata.errors import EditError
from napari_strata.gui.canvas.layers import (
    TAKES_KEYS,
    USUAL_IDS,
    matching_grid_kwargs,
    region_colormap,
)
from napari_strata.gui.tools.hand_paint import paint_from_event
from napari_strata.volume import BACKGROUND, Geometry, Region, region_color

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

STROKES_NAME = "Strata strokes"
KEEPS_REGION = (
    "Strokes stay with their region. Select another region in the table or on the scan."
)
_NEW, _BACKGROUND, _FIRST_LARGE = USUAL_IDS + 1, USUAL_IDS + 2, USUAL_IDS + 3
"""Layer values of strokes for a new region, background, and the first very large id.

Strokes for other regions are stored as the region's id, whose colour exists from the
start.
"""
_MAX_VALUE = 2**16 - 1
"""Largest value of the 16-bit stroke layer."""


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


class StrokeLayer:
    """A labels layer over the scan that collects strokes until they are applied.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    reference : napari layer
        The layer it lies over.
    geometry : Geometry
        Of the scan.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        reference: napari.layers.Layer,
        geometry: Geometry,
    ) -> None:
        self._viewer = viewer
        self._colors: dict[int, tuple[int, int, int]] = {
            _NEW: (255, 255, 0),
            _BACKGROUND: (255, 255, 255),
        }
        self.layer = viewer.add_labels(
            np.zeros(geometry.shape_zyx, np.uint16),
            name=STROKES_NAME,
            opacity=0.9,
            colormap=_colormap(self._colors),
            **matching_grid_kwargs(reference, geometry, {TAKES_KEYS: True}),
        )
        self._values: dict[int | None, int] = {None: _NEW, BACKGROUND: _BACKGROUND}
        self._touched: list[NDArray[np.int64]] = []
        self._is_fully_known = True
        self._value = int(self.layer.selected_label)
        self.layer.events.paint.connect(self._on_paint)
        self.layer.events.selected_label.connect(self._on_selected_label)

    @property
    def is_present(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    def pick_up(
        self, region: int | None, regions: tuple[Region, ...], *, size: int
    ) -> None:
        """Make the layer active with a brush of `size` voxels for `region`, None for a new one."""
        value = self._value_for(region)
        rows = {row.id: row.color for row in regions}
        stroked = {
            number: rows[one] for one, number in self._values.items() if one in rows
        }
        news = {
            number: color
            for number, color in stroked.items()
            if self._colors.get(number, region_color(number)) != color
        }
        if news:
            self._colors |= news
            self.layer.colormap = _colormap(self._colors)
        self._value = value
        # each assignment makes napari redraw controls and cursor, even without a change
        if self.layer.selected_label != value:
            self.layer.selected_label = value
        if self.layer.brush_size != size:
            self.layer.brush_size = size
        self.layer.mode = "paint"
        if self._viewer.layers.selection.active is not self.layer:
            self._viewer.layers.selection.active = self.layer

    def put_down(self) -> None:
        """Stop painting."""
        self.layer.mode = "pan_zoom"

    def strokes(self) -> tuple[Strokes, ...]:
        """Return the strokes, one entry per region; those for a new region come last."""
        data = self.layer.data
        touched = (
            np.unique(np.concatenate(self._touched))
            if self._touched
            else np.empty(0, np.int64)
        )
        flat = touched if self._is_fully_known else np.flatnonzero(data)
        values = data.reshape(-1)[flat]
        flat, values = flat[values > 0], values[values > 0]
        self._touched, self._is_fully_known = [flat], True
        if len(flat) == 0:
            return ()
        voxels = np.stack(np.unravel_index(flat, data.shape), axis=1)
        regions = {number: one for one, number in self._values.items()}
        stored = sorted(
            (value for value in np.unique(values).tolist() if value in regions),
            key=lambda value: (value == _NEW, value),
        )
        return tuple(
            Strokes(regions[value], voxels[values == value]) for value in stored
        )

    def erase(self, strokes: Strokes) -> None:
        """Take strokes off the layer."""
        self.layer.data[tuple(strokes.voxels.T)] = 0
        self.layer.refresh(extent=False, thumbnail=False)

    def clear(self) -> None:
        """Take every stroke off the layer."""
        for strokes in self.strokes():
            self.erase(strokes)

    def _value_for(self, region: int | None) -> int:
        """Return the value by which strokes for a region are stored in the layer."""
        if region not in self._values:
            number = (
                region
                if region is not None and region <= USUAL_IDS
                else max(_FIRST_LARGE - 1, *self._values.values()) + 1
            )
            if number > _MAX_VALUE:
                raise EditError(
                    "There are strokes for too many regions. Delete the stroke layer and pick"
                    " the brush up again."
                )
            self._values[region] = number
        return self._values[region]

    def _on_selected_label(self, event: object = None) -> None:
        """Keep strokes for their region: napari's keys =, - and X choose another value."""
        if self.layer.selected_label != self._value:
            self.layer.selected_label = self._value
            show_info(KEEPS_REGION)

    def _on_paint(self, event: Any) -> None:
        """Note which voxels were written, so that strokes are found without searching."""
        painted = paint_from_event(getattr(event, "value", None), self.layer.data.shape)
        if painted is None:
            self._is_fully_known = False
        else:
            self._touched.append(painted.flat)

    def remove(self) -> None:
        """Remove the layer."""
        if self.is_present:
            self._viewer.layers.remove(self.layer)


def _colormap(colors: Mapping[int, tuple[int, int, int]]) -> Any:
    return region_colormap(
        (Region(number, "", color) for number, color in colors.items()),
        capacity=_BACKGROUND,
    )
