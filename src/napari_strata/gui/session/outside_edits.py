"""Voxels that other tools wrote in the labels layer, handed over to the refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_strata.errors import EditError
from napari_strata.gui.canvas.layers import roomy_dtype
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.session.edit_queue import EditQueue
from napari_strata.gui.session.labels_painter import LabelsPainter
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tools.hand_paint import HandPaint, paint_from_event
from napari_strata.refine.session.refinement import Refinement

if TYPE_CHECKING:
    import napari.viewer

_COMPARE_MS = 300
"""Delay from the last event of the layer to the comparison with the refinement.

Long enough for a stroke of another tool to end.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Absorbed:
    """Voxels that were taken over from other tools.

    Parameters
    ----------
    voxels : (n, 3) int64 array
        All voxels that the tools wrote.
    refusals : tuple of str
        Reasons why some of them could not be taken over.
    """

    voxels: NDArray[np.int64]
    refusals: tuple[str, ...]


class OutsideEdits(QObject):
    """Finds what napari's brushes or other plugins wrote, and makes it an edit.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the labels layer is.
    work : Refinement
        Takes the voxels over.
    painter : LabelsPainter
        Has the labels layer.
    queue : EditQueue
        The comparison waits until it is idle.
    submit : callable
        Submits an edit of the case, see `ScanCase.submit`.
    parent : QObject
        Qt parent.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        work: Refinement,
        painter: LabelsPainter,
        queue: EditQueue,
        submit: Callable[[Callable[[], Any], Callable[[Any], None]], None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._work = work
        self._painter = painter
        self._queue = queue
        self._submit = submit
        self._timer = single_shot(self, _COMPARE_MS, self._compare)

    def watch(self, bindings: ViewerBindings) -> None:
        """Follow the labels layer's events for as long as the bindings last."""
        events = self._painter.layer.events
        bindings.on_event(events.paint, self._on_paint)
        bindings.on_event(events.set_data, self._on_set_data)
        # a stroke that another tool interrupts ends without a paint event
        bindings.on_event(events.mode, self._on_set_data)

    def absorb(self) -> Absorbed:
        """Pass voxels that other tools wrote to the refinement.

        This runs in the thread of the edits, between two edits.
        """
        if not self._is_shown:
            return Absorbed(np.empty((0, 3), np.int64), ())
        return self._take_over(self._painter.all_differences())

    def show_absorbed(self, absorbed: Absorbed) -> None:
        """Show the refinement's labels where other tools wrote, and what was refused."""
        self._painter.repaint(absorbed.voxels)
        for refusal in absorbed.refusals:
            show_error(refusal)

    def restore_shape(self) -> bool:
        """Restore our labels if another tool put an array of another shape in the layer.

        Return whether the shape was right.
        """
        layer = self._painter.layer
        if layer.data.shape == self._work.proposal.volume.geometry.shape_zyx:
            return True
        layer.data = self._work.labels.astype(roomy_dtype(self._work.view.next_id))
        show_error(
            "Another tool gave the labels layer another shape than the scan has. The"
            " labels are as they were before."
        )
        return False

    def stop(self) -> None:
        """Stop comparing."""
        self._timer.stop()

    @property
    def _is_shown(self) -> bool:
        return self._painter.layer in self._viewer.layers

    def _take_over(self, painted: HandPaint) -> Absorbed:
        shape = self._work.proposal.volume.geometry.shape_zyx
        refusals = []
        for value in np.unique(painted.values).tolist():
            try:
                self._work.paint(painted.voxels_of(value, shape), value)
            except EditError as err:
                refusals.append(str(err))
        voxels = np.stack(np.unravel_index(painted.flat, shape), axis=1)
        return Absorbed(voxels, tuple(refusals))

    def _on_paint(self, event: Any) -> None:
        shape = self._painter.layer.data.shape
        painted = paint_from_event(getattr(event, "value", None), shape)
        if painted is None:
            self._timer.start()
        else:
            self._submit(partial(self._take_over, painted), self.show_absorbed)

    def _on_set_data(self, event: object = None) -> None:
        self._timer.start()

    def _compare(self) -> None:
        """Compare the plane on screen with the refinement, when no edit of ours runs."""
        if not self._is_shown or not self.restore_shape():
            return
        is_painting = str(self._painter.layer.mode) not in ("pan_zoom", "transform")
        if self._queue.is_busy or not self._painter.is_settled or is_painting:
            self._timer.start()
        elif self._painter.differs_on_screen():
            self._submit(self.absorb, self.show_absorbed)
