"""The cases of one viewer: which scan has which refinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_strata.gui.canvas.layers import LayerTuple, layer_facts
from napari_strata.gui.canvas.placement import METADATA_KEY
from napari_strata.gui.session.scan_case import ScanCase, marked_work
from napari_strata.gui.tasks.quiet import thaw
from napari_strata.refine.session.refinement import Refinement

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class OpenCases(QObject):
    """Holds one case per scan of a viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers they show.
    parent : QObject
        Ends them with it.
    """

    adopted = Signal(object)
    """Emitted with a `ScanCase` that was taken up."""

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._cases: dict[napari.layers.Image, ScanCase] = {}

    def of(self, image: napari.layers.Image | None) -> ScanCase | None:
        """Give the case of a scan, None where it has none."""
        return None if image is None else self._cases.get(image)

    @property
    def shown(self) -> list[ScanCase]:
        """The cases whose regions are on the canvas, or could be."""
        return [case for case in self._cases.values() if case.is_shown]

    def adopt(
        self,
        image: napari.layers.Image,
        work: Refinement,
        labels: napari.layers.Labels | None = None,
        made: LayerTuple | None = None,
    ) -> None:
        """Go on with a refinement of a scan.

        What was there before stays as a plain, hidden labels layer.

        `labels` is a layer that shows the refinement already, `made` one that is ready
        to be added.
        """
        if image not in self._viewer.layers:
            return
        before = self._cases.pop(image, None)
        if before is not None:
            before.close("leave" if before.work is work else "discard")
            if before.work is not work:
                before.unmark_layers()
            if before.is_shown:
                before.labels.name = f"{before.labels.name} (before)"
                before.labels.visible = False
        image.metadata[METADATA_KEY] = {**layer_facts(image), "work": work}
        case = ScanCase(self._viewer, image, work, self, labels, made)
        self._cases[image] = case
        self._viewer.layers.selection.active = case.labels
        self.adopted.emit(case)

    def adopt_marked(self) -> None:
        """Take up what the reader of case files added, or an earlier panel left.

        A scan and labels that share a refinement.
        """
        owned = {case.work for case in self._cases.values()}
        for image, work, labels in marked_work(self._viewer.layers):
            if work not in owned:
                owned.add(work)
                self.adopt(image, work, labels)

    def drop_gone(self) -> None:
        """Close the cases whose scan is no longer in the viewer."""
        for image in [
            image for image in self._cases if image not in self._viewer.layers
        ]:
            self._cases.pop(image).close("keep")
            thaw()

    def close(self) -> None:
        """Finish and close every case."""
        for case in self._cases.values():
            case.finish()
            case.close()
        self._cases.clear()
        thaw()
