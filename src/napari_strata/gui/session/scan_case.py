"""One scan being worked on: its layers, its refinement, and what brushes do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.utils.notifications import show_error, show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_strata.errors import CaseError, EditError, StrataError
from napari_strata.gui.canvas.canvas import camera_of, canvas_size
from napari_strata.gui.canvas.layers import (
    LayerTuple,
    is_scan,
    layer_facts,
    level_shape,
    roomy_dtype,
)
from napari_strata.gui.canvas.placement import (
    METADATA_KEY,
    place,
    placing_of,
    same_place,
)
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.preferences import autosave_folder
from napari_strata.gui.session.edit_queue import EditQueue
from napari_strata.gui.session.labels_painter import LabelsPainter
from napari_strata.gui.session.stroke_preview import StrokePreview
from napari_strata.gui.tools.brush import Brush, Strokes
from napari_strata.gui.tools.hand_paint import HandPaint, paint_from_event
from napari_strata.refine.session.edit_session import Change
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.assignment import Scope
from napari_strata.refine.state.statistics import RegionStatistics

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

Ending = Literal["leave", "keep", "discard"]
OUTLINE_PIXELS = 2
_LOOK_MS = 300
"""How long after the last event the plane on screen is compared with the refinement."""


@dataclass(frozen=True, slots=True, eq=False)
class Absorbed:
    """What was taken over from other tools.

    Parameters
    ----------
    voxels : (n, 3) int64 array
        Every voxel that they wrote.
    refusals : tuple of str
        Why some of it could not be taken.
    """

    voxels: NDArray[np.int64]
    refusals: tuple[str, ...]


class ScanCase(QObject):
    """Ties an image layer to a refinement and to the layers that show it.

    Edits run in a thread, in the order in which they were asked for; `changed` tells of
    them in the GUI thread.

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
    made : LayerTuple or None
        The layer to add, where it was made outside the GUI thread.
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
        made: LayerTuple | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.image = image
        self.work = work
        self.queue = EditQueue(self)
        self.painter = LabelsPainter(viewer, image, work, self, labels, made)
        self.preview = StrokePreview(viewer, self.queue, work, self)
        self.brush: Brush | None = None
        self.hooks = ViewerBindings(viewer)
        self._look_timer = QTimer(self)
        self._look_timer.setSingleShot(True)
        self._look_timer.setInterval(_LOOK_MS)
        self._look_timer.timeout.connect(self._look_for_other_hands)
        self._unsubscribe = work.steps.on_change(
            lambda change: self.queue.post(partial(self._show, change))
        )
        self._waiting_keys = ViewerBindings(viewer)
        self._is_prepared = False
        self._told: str | None = None
        self.queue.submit(work.view.prepare, self._on_prepared)
        self.queue.submit(partial(begin_autosave, work, autosave_folder()), self._tell)
        self.mark_layers()
        self._watch_labels()

    @property
    def labels(self) -> napari.layers.Labels:
        """The layer that shows the regions."""
        return self.painter.layer

    @property
    def viewer(self) -> napari.viewer.Viewer:
        """Where the layers are."""
        return self._viewer

    @property
    def is_shown(self) -> bool:
        """Whether the labels layer is still in the viewer."""
        return self.labels in self._viewer.layers

    @property
    def has_unsaved_edits(self) -> bool:
        """Whether something was done that no case file holds."""
        return bool(self.work.history) and self.work.history != layer_facts(
            self.image
        ).get("saved")

    @property
    def is_outlined(self) -> bool:
        """Whether regions are drawn as outlines."""
        return bool(self.labels.contour)

    def show_outline(self, wanted: bool) -> None:
        """Draw regions as outlines, or filled."""
        if wanted != self.is_outlined:
            self.labels.contour = OUTLINE_PIXELS if wanted else 0

    def go_to(self, voxel_zyx: Sequence[float]) -> None:
        """Show the planes through a voxel (z, y, x)."""
        dims = self._viewer.dims
        dims.set_point(
            range(dims.ndim - 3, dims.ndim),
            [float(at) for at in self.labels.data_to_world(voxel_zyx)],
        )
        if dims.ndisplay == 2:
            world = np.asarray(self.labels.data_to_world(voxel_zyx))
            camera, canvas = camera_of(self._viewer), canvas_size(self._viewer)
            middle, wanted = (
                np.asarray(camera.center)[-2:],
                world[[axis - (dims.ndim - 3) for axis in dims.displayed]],
            )
            # the view is left where it is as long as the place can be seen
            if (
                canvas is None
                or (
                    np.abs(wanted - middle) > 0.45 * np.asarray(canvas) / camera.zoom
                ).any()
            ):
                camera.center = (camera.center[0], float(wanted[0]), float(wanted[1]))

    def accept_keys(
        self, wanted: bool, keys: Mapping[str, Callable[[], None]] | None = None
    ) -> None:
        """Bind keys for as long as something waits for a person's yes.

        After that they are napari's again.
        """
        self._waiting_keys.remove()
        if wanted and keys:
            self._waiting_keys.on_keys(self._viewer, keys.items())

    def statistics(self) -> Mapping[int, RegionStatistics]:
        """Measure every region in use; nothing as long as the sums behind it are not made."""
        return (
            self.work.view.statistics() if self._is_prepared and self.is_shown else {}
        )

    def submit(
        self, act: Callable[[], Any], on_done: Callable[[Any], None] | None = None
    ) -> None:
        """Run an edit in the thread when its turn comes.

        Then `on_done(result)` in the GUI thread.
        """
        self.preview.drop()
        self.queue.submit(act, on_done)

    def finish(self) -> None:
        """Wait until every edit is done and shown."""
        self.queue.finish()
        self.painter.finish()
        self.preview.finish()

    def note_saved(self, history: tuple[str, ...]) -> None:
        """Remember the history that a case file holds."""
        self.image.metadata[METADATA_KEY] = {
            **layer_facts(self.image),
            "saved": history,
        }

    def check_place(self) -> None:
        """Check that scan and labels still lie where they lay when the regions were made.

        Is what an export says.

        Raises
        ------
        StrataError
            If one was moved, turned or scaled since.
        """
        geometry = self.work.proposal.volume.geometry
        for layer in (self.image, self.labels):
            now = place(level_shape(layer), placing_of(layer)).geometry
            if not same_place(now, geometry):
                raise StrataError(
                    f"Layer '{layer.name}' was moved or scaled after its regions were"
                    " made, so sizes and places would be wrong. Undo that, or press"
                    " Propose regions again."
                )

    def mark_layers(self) -> None:
        """Note the refinement on the layers, so that a panel opened later goes on with it."""
        self.labels.metadata[METADATA_KEY] = {
            **layer_facts(self.labels),
            "work": self.work,
        }

    def show_again(self) -> None:
        """Bring a deleted labels layer back."""
        self.painter.restore()
        self.mark_layers()
        self._watch_labels()

    def unmark_layers(self) -> None:
        """Forget the refinement: another one takes its place."""
        for layer in (self.labels, self.image):
            layer.metadata[METADATA_KEY] = {
                key: fact
                for key, fact in layer_facts(layer).items()
                if key not in ("work", "saved")
            }

    def close(self, ending: Ending = "leave") -> None:
        """Stop following the refinement and take our own layers away.

        The labels stay as a plain layer.

        Parameters
        ----------
        ending : {"leave", "keep", "discard"}
            What becomes of the edits on the disk that no case file holds: they go on
            being saved, for a panel that is opened again or a program that is started
            again; they stay and are offered when the scan is opened again; or they go.
        """
        self._look_timer.stop()
        self._waiting_keys.remove()
        self.hooks.remove()
        self._unsubscribe()
        self.queue.close(drop=ending == "discard")
        if ending != "leave" or not self.has_unsaved_edits:
            self.work.storage.end_autosave(
                keep=ending == "keep" and self.has_unsaved_edits
            )
        self.painter.close()
        self.preview.close()
        if self.brush is not None:
            self.brush.remove()

    # Brushes

    def pick_up_brush(self, region: int | None, *, size: int) -> Brush:
        """Put the scribble brush in hand for a region, None for a new one.

        Makes the stroke layer when it is missing.
        """
        self.labels.mode = "pan_zoom"
        if self.brush is None or not self.brush.is_present:
            self.brush = Brush(
                self._viewer, self.labels, self.work.proposal.volume.geometry
            )
        self.brush.pick_up(region, self.work.regions, size=size)
        return self.brush

    def pick_up_paint(self, region: int | None, *, size: int) -> None:
        """Put napari's own paint brush in hand on the labels layer.

        0 erases, None starts a new region.
        """
        layer = self.labels
        if self.brush is not None and self.brush.is_present:
            self.brush.put_down()
        layer.brush_size = size
        layer.selected_label = self.work.view.next_id if region is None else region
        layer.mode = "paint"
        self._viewer.layers.selection.active = layer

    def put_down(self) -> None:
        """Put brushes down, so that the mouse moves the view and clicks select."""
        self.labels.mode = "pan_zoom"
        if self.brush is not None and self.brush.is_present:
            self.brush.put_down()
            self._viewer.layers.selection.active = self.labels

    def strokes(self) -> tuple[Strokes, ...]:
        """Give what was stroked and not yet taken.

        Raises
        ------
        EditError
            If nothing was stroked.
        """
        taken = (
            self.brush.strokes()
            if self.brush is not None and self.brush.is_present
            else ()
        )
        if not taken:
            raise EditError(
                "There are no strokes yet. Choose Scribble, stroke over a region on the"
                " scan, then Update."
            )
        return taken

    def apply_strokes(
        self, scope: Scope, on_taught: Callable[[tuple[int, ...]], None]
    ) -> None:
        """Teach the refinement what was stroked, then tell which regions learned.

        Strokes that taught nothing stay on the canvas.

        Raises
        ------
        EditError
            If nothing was stroked.
        """
        taught: list[int] = []

        def learned(strokes: Strokes, region: int) -> None:
            taught.append(region)
            if self.brush is not None and self.brush.is_present:
                self.brush.erase(strokes)

        for strokes in self.strokes():
            self.submit(
                partial(
                    self.work.scribble,
                    strokes.voxels,
                    region=strokes.region,
                    scope=scope,
                ),
                partial(learned, strokes),
            )
        self.submit(lambda: None, lambda _nothing: on_taught(tuple(taught)))

    def show_preview(self, scope: Scope) -> None:
        """Show what the strokes on the canvas would do."""
        strokes = (
            self.brush.strokes()
            if self.brush is not None and self.brush.is_present
            else ()
        )
        self.preview.show(
            [(one.voxels, one.region) for one in strokes], scope, over=self.labels
        )

    def drop_strokes(self) -> None:
        """Take strokes and preview off the canvas."""
        self.preview.drop()
        if self.brush is not None and self.brush.is_present:
            self.brush.clear()

    # Other hands

    def absorb(self) -> Absorbed:
        """Hand what other tools wrote in the labels layer over to the refinement.

        Runs in the thread of the edits, between them.
        """
        return (
            self._take(self.painter.all_differences())
            if self.is_shown
            else Absorbed(np.empty((0, 3), np.int64), ())
        )

    def show_absorbed(self, absorbed: Absorbed) -> None:
        """Show the refinement's labels where another tool wrote, and say what was refused."""
        self.painter.repaint(absorbed.voxels)
        for refusal in absorbed.refusals:
            show_error(refusal)

    def _take(self, painted: HandPaint) -> Absorbed:
        shape = self.work.proposal.volume.geometry.shape_zyx
        refusals = []
        for value in np.unique(painted.values).tolist():
            try:
                self.work.paint(painted.voxels_of(value, shape), value)
            except EditError as err:
                refusals.append(str(err))
        return Absorbed(
            np.stack(np.unravel_index(painted.flat, shape), axis=1), tuple(refusals)
        )

    def _on_paint(self, event: Any) -> None:
        painted = paint_from_event(
            getattr(event, "value", None), self.labels.data.shape
        )
        if painted is None:
            self._look_timer.start()
        else:
            self.submit(partial(self._take, painted), self.show_absorbed)

    def _on_seen(self, event: object = None) -> None:
        self._look_timer.start()

    def _look_for_other_hands(self) -> None:
        """Compare the plane on screen with the refinement, when nothing of ours is under way."""
        if not self.is_shown or not self.keep_our_array():
            return
        if (
            self.queue.is_busy
            or not self.painter.is_settled
            or str(self.labels.mode) not in ("pan_zoom", "transform")
        ):
            self._look_timer.start()
        elif self.painter.differs_on_screen():
            self.submit(self.absorb, self.show_absorbed)

    def keep_our_array(self) -> bool:
        """Put our labels back where a tool put an array of another shape in their place.

        Say so.
        """
        if self.labels.data.shape == self.work.proposal.volume.geometry.shape_zyx:
            return True
        self.labels.data = self.work.labels.astype(roomy_dtype(self.work.view.next_id))
        show_error(
            "Another tool gave the labels layer another shape than the scan has. The"
            " labels are as they were before."
        )
        return False

    def _watch_labels(self) -> None:
        self.hooks.on_event(self.labels.events.paint, self._on_paint)
        self.hooks.on_event(self.labels.events.set_data, self._on_seen)

    def _on_prepared(self, _nothing: None) -> None:
        self._is_prepared = True
        self.changed.emit(Change(None, True, ""))

    def _tell(self, problem: str | None) -> None:
        if problem and problem != self._told:
            show_warning(f"Edits are kept in memory only: {problem}")
        self._told = problem

    def _show(self, change: Change) -> None:
        self._tell(self.work.storage.autosave_problem)
        if self.is_shown:
            self.painter.show_change(change)
        self.changed.emit(change)

    # What is where

    def region_under(
        self,
        world_point: np.ndarray,
        view_direction: np.ndarray | None,
        displayed: list[int],
    ) -> int | None:
        """Give the region under the mouse, in 2D or 3D; None outside the scan."""
        value = self.labels.get_value(
            world_point,
            view_direction=view_direction,
            dims_displayed=displayed,
            world=True,
        )
        return None if value is None else int(value)

    def name_of(self, region: int) -> str:
        """Give a region's name."""
        return next(
            (row.name for row in self.work.regions if row.id == region),
            "background" if region == 0 else f"region {region}",
        )


def begin_autosave(work: Refinement, folder: Path | None) -> str | None:
    """Put every edit on the disk from here on; gives the reason where that cannot be done."""
    try:
        work.storage.begin_autosave(folder)
    except CaseError as err:
        return str(err)
    return None


def marked_work(
    layers: Iterable[napari.layers.Layer],
) -> Iterator[tuple[napari.layers.Image, Refinement, napari.layers.Labels]]:
    """Find every scan and labels layer that share a refinement.

    As a case file or an earlier panel left them.
    """
    here = list(layers)
    for labels in here:
        work = layer_facts(labels).get("work")
        if isinstance(work, Refinement) and not is_scan(labels):
            image = next(
                (
                    scan
                    for scan in here
                    if is_scan(scan) and layer_facts(scan).get("work") is work
                ),
                None,
            )
            if image is not None:
                yield image, work, labels
