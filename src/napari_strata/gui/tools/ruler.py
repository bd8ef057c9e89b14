"""A ruler: lines drawn on a plane, each with its length in mm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from numpy.typing import ArrayLike

from napari_strata.gui.canvas.canvas import OVERLAY_COLOR
from napari_strata.gui.canvas.layers import OVERLAY_METADATA, overlay_scale
from napari_strata.gui.canvas.placement import mm_per_unit

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

RULER_NAME = "Strata ruler"
_LINE_MM = 0.8
"""Width of the ruler's lines: visible on a whole head, thin beside a small structure."""


def length_mm(line: ArrayLike) -> float:
    """Return the length of a line through points (n, 3) in mm."""
    return float(
        np.linalg.norm(np.diff(np.asarray(line, np.float64), axis=0), axis=1).sum()
    )


class Ruler:
    """A shapes layer over a scan, in its world, whose lines show their length.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the ruler's layer goes.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.layer: napari.layers.Shapes | None = None
        self._writing = False
        self._mm = np.ones(3)

    @property
    def is_shown(self) -> bool:
        """Whether the ruler's layer is in the viewer."""
        return self.layer is not None and self.layer in self._viewer.layers

    def pick_up(self, scan: napari.layers.Layer | None = None) -> None:
        """Pick up the ruler: press, drag and release draws a line with its length.

        Parameters
        ----------
        scan : napari layer or None
            What is measured. The ruler shares its units: napari ignores units when it
            converts mouse positions for a layer, so a layer in other units would shift
            what is drawn on all of them.
        """
        if not self.is_shown:
            units = ("mm", "mm", "mm") if scan is None else scan.units[-3:]
            size = 1.0 if scan is None else overlay_scale(scan)
            self._mm = mm_per_unit(units, RULER_NAME) * size
            self.layer = Shapes(
                ndim=3,
                scale=(size, size, size),
                name=RULER_NAME,
                metadata=dict(OVERLAY_METADATA),
                units=units,
                axis_labels=("z", "y", "x") if scan is None else scan.axis_labels[-3:],
                edge_color=OVERLAY_COLOR,
                face_color="transparent",
                edge_width=_LINE_MM / float(self._mm.max()),
                features={"length": np.empty(0, object)},
                text={
                    "string": "{length}",
                    "color": OVERLAY_COLOR,
                    "size": 14,
                    "anchor": "upper_left",
                },
            )
            self._viewer.add_layer(self.layer)
            self.layer.events.data.connect(self._on_data)
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_line"

    def put_down(self) -> None:
        """Stop measuring; the lines stay."""
        if self.is_shown:
            self.layer.mode = "pan_zoom"

    def remove(self) -> None:
        """Remove the lines."""
        if self.is_shown:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _on_data(self, event: object = None) -> None:
        if self._writing or self.layer is None:
            return
        lengths = [
            f"{length_mm(np.asarray(line) * self._mm):.1f} mm"
            for line in self.layer.data
        ]
        if list(self.layer.features["length"]) == lengths:
            return
        self._writing = True
        try:
            self.layer.features = {"length": np.array(lengths, object)}
            self.layer.refresh_text()
        finally:
            self._writing = False
