"""One scan being worked on: its layers, its refinement, and what brushes do to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject

from napari_strata.errors import EditError
from napari_strata.gui.brush import Brush
from napari_strata.gui.hooks import ViewerHooks
from napari_strata.gui.layers import METADATA_KEY, is_scan, layer_facts
from napari_strata.gui.painter import LabelsPainter
from napari_strata.refine.owner import Scope
from napari_strata.refine.refinement import Refinement

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class ScanCase:
    """Ties an image layer to a refinement and to the layers that show it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers are.
    image : napari.layers.Image
        The scan.
    work : Refinement
        What is edited.
    parent : QObject
        Ends the painting with it.
    labels : napari.layers.Labels or None
        A layer that shows the refinement already; None adds one.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        image: napari.layers.Image,
        work: Refinement,
        parent: QObject,
        labels: napari.layers.Labels | None = None,
    ) -> None:
        self._viewer = viewer
        self.image = image
        self.work = work
        self.painter = LabelsPainter(viewer, image, work, parent, labels)
        self.brush: Brush | None = None
        self.hooks = ViewerHooks(viewer)
        self.mark_layers()

    @property
    def labels(self) -> napari.layers.Labels:
        """The layer that shows the regions."""
        return self.painter.layer

    @property
    def is_shown(self) -> bool:
        """Whether the labels layer is still in the viewer."""
        return self.labels in self._viewer.layers

    @property
    def has_unsaved_edits(self) -> bool:
        """Whether something was done that no case file holds."""
        return bool(self.work.history) and self.work.history != layer_facts(self.image).get("saved")

    def note_saved(self, history: tuple[str, ...]) -> None:
        """Remember the history that a case file holds."""
        self.image.metadata[METADATA_KEY] = {**layer_facts(self.image), "saved": history}

    def mark_layers(self) -> None:
        """Note the refinement on the layers, so that a panel opened later goes on with it."""
        self.labels.metadata[METADATA_KEY] = {**layer_facts(self.labels), "work": self.work}

    def show_again(self) -> None:
        """Bring a deleted labels layer back."""
        self.painter.restore()
        self.mark_layers()

    def unmark_layers(self) -> None:
        """Forget the refinement: another one takes its place."""
        for layer in (self.labels, self.image):
            layer.metadata[METADATA_KEY] = {key: fact for key, fact in layer_facts(layer).items() if key not in ("work", "saved")}

    def close(self) -> None:
        """Stop following the refinement and take the stroke layer away; the labels stay as a plain layer."""
        self.hooks.remove()
        self.painter.close()
        if self.brush is not None:
            self.brush.remove()

    def pick_up_brush(self, region: int | None, *, size: int) -> Brush:
        """Put the scribble brush in hand for a region, None for a new one; makes the stroke layer when it is missing."""
        if self.brush is None or not self.brush.is_present:
            self.brush = Brush(self._viewer, self.labels, self.work.volume.geometry)
        self.brush.pick_up(region, self.work.regions, size=size)
        return self.brush

    def pick_up_paint(self, region: int | None, *, size: int) -> None:
        """Put napari's own paint brush in hand on the labels layer: 0 erases, None starts a new region."""
        layer = self.labels
        layer.brush_size = size
        layer.selected_label = self.work.next_id if region is None else region
        layer.mode = "paint"
        self._viewer.layers.selection.active = layer

    def put_down(self) -> None:
        """Put brushes down, so that the mouse moves the view and clicks select."""
        self.labels.mode = "pan_zoom"
        if self.brush is not None and self.brush.is_present:
            self.brush.put_down()
            self._viewer.layers.selection.active = self.labels

    def apply_strokes(self, scope: Scope) -> tuple[int, ...]:
        """Teach the refinement what was stroked; gives the regions that learned.

        Raises
        ------
        EditError
            If nothing was stroked, or a region is locked; the strokes that taught nothing stay on the canvas then.
        """
        taken = self.brush.strokes() if self.brush is not None and self.brush.is_present else ()
        if self.brush is None or not taken:
            raise EditError("There are no strokes yet. Choose Scribble, stroke over a region on the scan, then Update.")
        taught = []
        for strokes in taken:
            taught.append(self.work.scribble(strokes.voxels, region=strokes.region, scope=scope))
            self.brush.erase(strokes)
        return tuple(taught)

    def take_hand_paint(self) -> None:
        """Hand what was painted into the labels layer over to the refinement.

        Raises
        ------
        EditError
            If a locked region was painted on; the layer shows the refinement's labels again.
        """
        voxels, values = self.painter.changed_by_hand()
        try:
            for value in np.unique(values).tolist():
                self.work.paint(voxels[values == value], value)
        finally:
            self.painter.repaint(voxels)

    def region_under(self, world_point: np.ndarray, view_direction: np.ndarray | None, displayed: list[int]) -> int | None:
        """Give the region under the mouse, in 2D or 3D; None outside the scan."""
        value = self.labels.get_value(world_point, view_direction=view_direction, dims_displayed=displayed, world=True)
        return None if value is None else int(value)

    def volumes_ml(self) -> Mapping[int, float]:
        """Give the volume of each region in millilitres."""
        voxel_ml = self.work.volume.geometry.voxel_volume_mm3 / 1000
        return {region: size * voxel_ml for region, size in self.work.sizes_vox.items()}


def marked_work(layers: Iterable[napari.layers.Layer]) -> Iterator[tuple[napari.layers.Image, Refinement, napari.layers.Labels]]:
    """Find every scan and labels layer that share a refinement, as a case file or an earlier panel left them."""
    here = list(layers)
    for labels in here:
        work = layer_facts(labels).get("work")
        if isinstance(work, Refinement) and not is_scan(labels):
            image = next((scan for scan in here if is_scan(scan) and layer_facts(scan).get("work") is work), None)
            if image is not None:
                yield image, work, labels
