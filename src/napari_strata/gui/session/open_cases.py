"""The cases of one viewer, one for each scan with a refinement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_strata.gui.canvas.layers import LayerTuple
from napari_strata.gui.session.layer_marks import mark_layer, marked_cases, unmark_layer
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.refine.session.refinement import Refinement

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class OpenCases(QObject):
    """The open cases of a viewer, at most one per scan.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer with their layers.
    parent : QObject
        Qt parent.
    """

    adopted = Signal(object)
    """Emitted with a `ScanCase` that was opened."""

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._cases: dict[napari.layers.Image, ScanCase] = {}

    def of(self, image: napari.layers.Image | None) -> ScanCase | None:
        """Return the case of a scan, None if it has none."""
        return None if image is None else self._cases.get(image)

    @property
    def in_viewer(self) -> list[ScanCase]:
        """The cases whose labels layer is in the viewer, visible or hidden."""
        return [case for case in self._cases.values() if case.is_shown]

    def count_unsaved(self) -> int:
        """Return the number of edits that no case file holds."""
        return sum(
            len(case.work.history)
            for case in self._cases.values()
            if case.has_unsaved_edits
        )

    def adopt(
        self,
        image: napari.layers.Image,
        work: Refinement,
        labels: napari.layers.Labels | None = None,
        layer_tuple: LayerTuple | None = None,
    ) -> None:
        """Open a case with a refinement of a scan.

        The regions of an earlier case stay as a plain, hidden labels layer. `labels` is
        a layer that already shows the refinement, `layer_tuple` one that is ready to be
        added.
        """
        if image not in self._viewer.layers:
            return
        before = self._cases.pop(image, None)
        if before is not None:
            before.close("leave" if before.work is work else "discard")
            if before.work is not work:
                unmark_layer(before.labels)
                unmark_layer(before.image)
            if before.is_shown:
                before.labels.name = f"{before.labels.name} (before)"
                before.labels.visible = False
        mark_layer(image, work=work)
        case = ScanCase(self._viewer, image, work, self, labels, layer_tuple)
        self._cases[image] = case
        self._viewer.layers.selection.active = case.labels
        self.adopted.emit(case)

    def adopt_marked(self) -> None:
        """Open the cases that a reader added to the viewer, or an earlier panel left."""
        known = {case.work for case in self._cases.values()}
        for image, work, labels in marked_cases(self._viewer.layers):
            if work not in known:
                known.add(work)
                self.adopt(image, work, labels)

    def drop_gone(self) -> None:
        """Close the cases whose scan is no longer in the viewer."""
        for image in [
            image for image in self._cases if image not in self._viewer.layers
        ]:
            self._cases.pop(image).close("keep")

    def close(self) -> None:
        """Finish and close every case."""
        for case in self._cases.values():
            case.finish()
            case.close()
        self._cases.clear()
