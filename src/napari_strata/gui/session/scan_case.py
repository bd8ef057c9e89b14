"""One scan that is being edited: its layers, its refinement and its queue of edits."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_strata.errors import CaseError, StrataError
from napari_strata.gui.canvas.canvas import camera_of, canvas_size
from napari_strata.gui.canvas.layers import LayerTuple, layer_facts, level_shape
from napari_strata.gui.canvas.placement import place, placing_of, same_place
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.preferences import autosave_folder
from napari_strata.gui.session.brushes import Brushes
from napari_strata.gui.session.edit_queue import EditQueue
from napari_strata.gui.session.labels_painter import LabelsPainter
from napari_strata.gui.session.layer_marks import mark_layer
from napari_strata.gui.session.outside_edits import OutsideEdits
from napari_strata.gui.session.stroke_preview import StrokePreview
from napari_strata.refine.session.edit_session import Change
from napari_strata.refine.session.recovery import find_unfinished
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_KEPT_DAYS = 14
"""Days for which a proposal that nobody edited is kept: about 20 MB on the disk each."""

Ending = Literal["leave", "keep", "discard"]
"""What happens to unsaved edits on the disk when a case is closed, see `ScanCase.close`."""

_VISIBLE_PART = 0.45
"""Part of the canvas, from its middle, in which a place counts as visible."""


class ScanCase(QObject):
    """Connects an image layer to a refinement and to the layers that show it.

    Edits run in a thread, in the order in which they were asked for; `changed` is
    emitted for each of them in the GUI thread.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers are.
    image : napari.layers.Image
        The scan.
    work : Refinement
        What is edited.
    parent : QObject
        Qt parent.
    labels : napari.layers.Labels or None
        A layer that shows the refinement already; None adds one.
    layer_tuple : LayerTuple or None
        The layer to add, if it was made outside the GUI thread.
    """

    changed = Signal(object)
    """Emitted with a `Change` after every edit, undo and redo, in the GUI thread."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        image: napari.layers.Image,
        work: Refinement,
        parent: QObject,
        labels: napari.layers.Labels | None = None,
        layer_tuple: LayerTuple | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.image = image
        self.work = work
        self.queue = EditQueue(self)
        self.painter = LabelsPainter(viewer, image, work, self, labels, layer_tuple)
        self.preview = StrokePreview(viewer, self.queue, work, self)
        self.brushes = Brushes(viewer, work, self.painter, self.preview, self.submit)
        self.outside_edits = OutsideEdits(
            viewer, work, self.painter, self.queue, self.submit, self
        )
        self.bindings = ViewerBindings(viewer)
        self._unsubscribe = work.steps.on_change(
            lambda change: self.queue.post(partial(self._show, change))
        )
        self._is_prepared = False
        self._autosave_problem: str | None = None
        self.queue.submit(work.view.prepare, self._on_prepared)
        self.queue.submit(
            partial(begin_autosave, work, autosave_folder()), self._warn_unsaved
        )
        mark_layer(self.labels, work=work)
        self.outside_edits.watch(self.bindings)

    @property
    def labels(self) -> napari.layers.Labels:
        """The layer that shows the regions."""
        return self.painter.layer

    @property
    def layers(self) -> tuple[napari.layers.Layer, ...]:
        """The layers that show the case: regions, preview and strokes."""
        strokes = self.brushes.scribble
        parts = (self.labels, self.preview.layer, strokes and strokes.layer)
        return tuple(part for part in parts if part in self._viewer.layers)

    @property
    def viewer(self) -> napari.viewer.Viewer:
        """Where the layers are."""
        return self._viewer

    @property
    def is_shown(self) -> bool:
        """Whether the labels layer is still in the viewer."""
        return self.labels in self._viewer.layers

    @property
    def is_prepared(self) -> bool:
        """Whether the lookups that edits and statistics need are made."""
        return self._is_prepared

    @property
    def has_unsaved_edits(self) -> bool:
        """Whether there are edits that no case file holds."""
        saved = layer_facts(self.image).get("saved")
        return bool(self.work.history) and self.work.history != saved

    @property
    def is_worth_keeping(self) -> bool:
        """Whether closing would lose something: unsaved edits, or minutes of proposing."""
        saved = layer_facts(self.image).get("saved")
        return self.has_unsaved_edits or (saved is None and not self.work.history)

    def go_to(self, voxel_zyx: Sequence[float]) -> None:
        """Show the planes through a voxel (z, y, x).

        The view is moved only if the voxel would lie off the canvas.
        """
        dims = self._viewer.dims
        point = self.labels.data_to_world(voxel_zyx)
        dims.set_point(
            range(dims.ndim - 3, dims.ndim), [float(value) for value in point]
        )
        if dims.ndisplay != 2:
            return
        camera, canvas = camera_of(self._viewer), canvas_size(self._viewer)
        middle = np.asarray(camera.center)[-2:]
        shown_axes = [axis - (dims.ndim - 3) for axis in dims.displayed]
        target = np.asarray(point)[shown_axes]
        if canvas is not None:
            visible = _VISIBLE_PART * np.asarray(canvas) / camera.zoom
            if (np.abs(target - middle) <= visible).all():
                return
        camera.center = (camera.center[0], float(target[0]), float(target[1]))

    def statistics(self) -> Mapping[int, RegionStatistics]:
        """Measure every region in use; empty until the lookups for it are made."""
        return (
            self.work.view.statistics() if self._is_prepared and self.is_shown else {}
        )

    def submit(
        self, edit: Callable[[], Any], on_done: Callable[[Any], None] | None = None
    ) -> None:
        """Run an edit in the thread, after earlier edits.

        Afterwards `on_done(result)` is called in the GUI thread.
        """
        self.preview.drop()
        self.queue.submit(edit, on_done)

    def finish(self) -> None:
        """Wait until every edit is done and shown."""
        self.queue.finish()
        self.painter.finish()
        self.preview.finish()

    def note_saved(self, history: tuple[str, ...]) -> None:
        """Remember the history that a case file holds."""
        mark_layer(self.image, saved=history)

    def check_place(self) -> None:
        """Check that scan and labels were not moved since the regions were made.

        An export places its labels by the scan's position at that time.

        Raises
        ------
        StrataError
            If one was moved, turned or scaled since.
        """
        geometry = self.work.proposal.volume.geometry
        for layer in (self.image, self.labels):
            current = place(level_shape(layer), placing_of(layer)).geometry
            if not same_place(current, geometry):
                raise StrataError(
                    f"Layer '{layer.name}' was moved or scaled after its regions were"
                    " made, so sizes and places would be wrong. Undo that, or press"
                    " Propose regions again."
                )

    def show_again(self) -> None:
        """Bring a deleted labels layer back."""
        self.painter.restore()
        mark_layer(self.labels, work=self.work)
        self.outside_edits.watch(self.bindings)

    def close(self, ending: Ending = "leave") -> None:
        """Stop following the refinement, and remove the auxiliary layers.

        The labels stay as a plain layer.

        Parameters
        ----------
        ending : {"leave", "keep", "discard"}
            What happens to the unsaved edits on disk. "leave": autosave continues, for a
            panel that is opened later. "keep": autosave ends, and the edits are offered
            when the scan is opened again. "discard": they are removed.
        """
        self.outside_edits.stop()
        self.bindings.remove()
        self._unsubscribe()
        self.queue.close(drop=ending == "discard")
        if ending != "leave" or not self.is_worth_keeping:
            self.work.storage.end_autosave(
                keep=ending == "keep" and self.is_worth_keeping
            )
        self.painter.close()
        self.preview.close()
        self.brushes.close()

    def region_under(
        self,
        world_point: np.ndarray,
        view_direction: np.ndarray | None,
        displayed: list[int],
    ) -> int | None:
        """Return the region under the mouse, in 2D or 3D; None outside the scan."""
        value = self.labels.get_value(
            world_point,
            view_direction=view_direction,
            dims_displayed=displayed,
            world=True,
        )
        return None if value is None else int(value)

    def name_of(self, region: int) -> str:
        """Return a region's name."""
        unknown = "background" if region == BACKGROUND else f"region {region}"
        return next(
            (row.name for row in self.work.regions if row.id == region), unknown
        )

    def _on_prepared(self, _nothing: None) -> None:
        self._is_prepared = True
        self.changed.emit(Change(None, True, ""))

    def _warn_unsaved(self, problem: str | None) -> None:
        """Warn that edits are not kept on the disk, once per reason."""
        if problem and problem != self._autosave_problem:
            show_warning(f"Edits are kept in memory only: {problem}")
        self._autosave_problem = problem

    def _show(self, change: Change) -> None:
        self._warn_unsaved(self.work.storage.autosave_problem)
        if self.is_shown:
            self.painter.show_change(change)
        self.changed.emit(change)


def begin_autosave(work: Refinement, folder: Path | None) -> str | None:
    """Save every edit to the disk from now on; return the reason if that fails."""
    try:
        work.storage.begin_autosave(folder, keeps_proposal=True)
        _drop_older_proposals(work, folder)
    except CaseError as err:
        return str(err)
    return None


def _drop_older_proposals(work: Refinement, folder: Path | None) -> None:
    """Remove kept proposals of the scan that nobody edited: a newer one takes their place."""
    volume, now = work.proposal.volume, datetime.datetime.now()
    with suppress(CaseError, OSError):
        same = find_unfinished(volume, folder=folder, proposals=True)
        journals = {left.journal for left in same}
        for left in find_unfinished(None, folder=folder, proposals=True):
            is_old = (now - left.changed).days > _KEPT_DAYS
            if not left.edits and (left.journal in journals or is_old):
                left.discard()
