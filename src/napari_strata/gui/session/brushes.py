"""The brushes of one case, scribble and paint: how they are picked up and applied."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_strata.errors import EditError
from napari_strata.gui.session.labels_painter import LabelsPainter
from napari_strata.gui.session.stroke_preview import StrokePreview
from napari_strata.gui.tools.stroke_layer import StrokeLayer, Strokes
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.assignment import Scope

if TYPE_CHECKING:
    import napari.viewer

Submit = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""`ScanCase.submit`: an edit, and what to call with its result."""


class Brushes:
    """Picks up and puts down the brushes of a case, and applies their strokes.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the stroke layer goes.
    work : Refinement
        What the strokes teach.
    painter : LabelsPainter
        Has the labels layer, which is painted on.
    preview : StrokePreview
        Shows what the strokes would do.
    submit : callable
        Submits an edit of the case.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        work: Refinement,
        painter: LabelsPainter,
        preview: StrokePreview,
        submit: Submit,
    ) -> None:
        self._viewer = viewer
        self._work = work
        self._painter = painter
        self._preview = preview
        self._submit = submit
        self._stroke_layer: StrokeLayer | None = None

    @property
    def scribble(self) -> StrokeLayer | None:
        """The scribble brush, None if it was not picked up yet or its layer is gone."""
        strokes = self._stroke_layer
        return strokes if strokes is not None and strokes.is_present else None

    def pick_up_scribble(self, region: int | None, *, size: int) -> StrokeLayer:
        """Pick up the scribble brush for a region, None for a new region.

        The stroke layer is added if it is missing.
        """
        self._painter.layer.mode = "pan_zoom"
        strokes = self.scribble
        if strokes is None:
            geometry = self._work.proposal.volume.geometry
            strokes = self._stroke_layer = StrokeLayer(
                self._viewer, self._painter.layer, geometry
            )
        strokes.pick_up(region, self._work.regions, size=size)
        return strokes

    def pick_up_paint(self, region: int | None, *, size: int) -> int:
        """Pick up napari's own paint brush for a region on the labels layer.

        Region 0 erases, None creates a region. Return the label that is painted.
        """
        layer = self._painter.layer
        if (strokes := self.scribble) is not None:
            strokes.put_down()
        layer.brush_size = size
        label = self._work.view.next_id if region is None else region
        layer.mode = "pan_zoom"
        layer.selected_label = label
        layer.mode = "paint"
        self._viewer.layers.selection.active = layer
        return label

    def put_down(self) -> None:
        """Put both brushes down, so that the mouse moves the view and clicks select."""
        self._painter.layer.mode = "pan_zoom"
        if (strokes := self.scribble) is not None:
            strokes.put_down()
            self._viewer.layers.selection.active = self._painter.layer

    def strokes(self) -> tuple[Strokes, ...]:
        """Return the strokes on the canvas, one entry per region."""
        strokes = self.scribble
        return () if strokes is None else strokes.strokes()

    def apply(
        self,
        scope: Scope,
        on_learned: Callable[[tuple[int, ...]], None],
        *,
        reach: Reach | None = None,
    ) -> None:
        """Apply the strokes to the refinement, then call back with their regions.

        Strokes that were refused stay on the canvas.

        Raises
        ------
        EditError
            If there are no strokes.
        """
        strokes = self.strokes()
        if not strokes:
            raise EditError(
                "There are no strokes yet. Choose Scribble, stroke over a region on the"
                " scan, then Update."
            )
        learned: list[int] = []

        def note_learned(one: Strokes, region: int) -> None:
            learned.append(region)
            if (strokes := self.scribble) is not None:
                strokes.erase(one)

        for one in strokes:
            teach = partial(
                self._work.scribble,
                one.voxels,
                region=one.region,
                scope=scope,
                reach=reach,
            )
            self._submit(teach, partial(note_learned, one))
        self._submit(lambda: None, lambda _nothing: on_learned(tuple(learned)))

    def show_preview(self, scope: Scope, *, reach: Reach | None = None) -> None:
        """Show the result of the strokes on the canvas before they are applied."""
        strokes = [(one.voxels, one.region) for one in self.strokes()]
        self._preview.show(strokes, scope, over=self._painter.layer, reach=reach)

    def discard(self) -> None:
        """Take strokes and preview off the canvas."""
        self._preview.drop()
        if (strokes := self.scribble) is not None:
            strokes.clear()

    def close(self) -> None:
        """Take the stroke layer away."""
        if self._stroke_layer is not None:
            self._stroke_layer.remove()
