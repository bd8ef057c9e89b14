"""Controller of the edit section: tools, strokes, edits of the selection, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject

from napari_strata.errors import StrataError
from napari_strata.gui.actions import shortcut
from napari_strata.gui.preferences import remember_stroke_reach_mm, stroke_reach_mm
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tools.cut_line import CutLine, DrawnLine
from napari_strata.gui.tools.region_tools import region_tool
from napari_strata.gui.tools.stroke_layer import KEEPS_REGION
from napari_strata.gui.widgets.edit_section import EditSection
from napari_strata.gui.widgets.region_table import RegionTable
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    import napari.layers


_PREVIEW_LAYER_MS = 30
"""Delay before the preview layer is made for a new brush; the canvas is drawn first."""


class Editor(QObject):
    """Carries out the edit section's commands on the regions selected in the table.

    Parameters
    ----------
    section : EditSection
        Tools and their options.
    table : RegionTable
        Whose selection is edited.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    send_cut : callable
        Submits the slider's last cut, so that it comes before an edit.
    show : callable
        Brings the panel up to date.
    """

    def __init__(
        self,
        section: EditSection,
        table: RegionTable,
        *,
        require_case: Callable[[], ScanCase],
        send_cut: Callable[[], None],
        show: Callable[[], None],
    ) -> None:
        super().__init__(section)
        self._section = section
        self._table = table
        self._require_case = require_case
        self._send_cut = send_cut
        self._show = show
        self._stroke_layer: napari.layers.Layer | None = None
        self._paint_layer: napari.layers.Layer | None = None
        self._paint_label = BACKGROUND
        self._cut_line: CutLine | None = None
        # 0 ms: napari emits its paint event just before it writes the last voxels
        self._preview_timer = single_shot(self, 0, self.show_preview)
        self._layer_timer = single_shot(self, _PREVIEW_LAYER_MS, self._make_layer)
        section.asked.connect(self._on_button)
        section.tool_chosen.connect(self.use_tool)
        section.tool_asked.connect(self.use_region_tool)
        section.brush_changed.connect(self.brush_changed)
        section.preview.toggled.connect(self._on_preview_toggled)
        section.show_reach(stroke_reach_mm())

    def edit(self, command: str) -> None:
        """Carry out "merge", "split", "update" or "clear"."""
        self._send_cut()
        edits = {
            "merge": self._merge,
            "split": self._split,
            "update": self._update,
            "clear": self._clear,
        }
        with notify_errors():
            edits[command](self._require_case())

    def undo(self) -> None:
        """Undo the last step."""
        self._send_cut()
        with notify_errors():
            case = self._require_case()
            self._run_step(case, case.work.undo)

    def redo(self) -> None:
        """Redo the step that was undone last."""
        self._send_cut()
        with notify_errors():
            case = self._require_case()
            self._run_step(case, case.work.redo)

    def use_region_tool(self, tool: str) -> None:
        """Apply a tool of the More menu to the selected regions."""
        with notify_errors():
            case = self._require_case()
            case.submit(region_tool(tool, case.work, self._table.selected))

    def jump_to_step(self, step: int) -> None:
        """Undo or redo until the given number of steps is done."""
        with notify_errors():
            case = self._require_case()
            self._run_step(case, partial(case.work.steps.jump, step))

    def use_tool(self, tool: str) -> None:
        """Pick up "select", "scribble", "cut" or "paint".

        Falls back to "select" if the tool cannot be used.
        """
        self._put_cut_line_down()
        try:
            self._pick_up(self._require_case(), tool)
        except StrataError as err:
            self._section.show_tool("select")
            show_error(str(err))
        else:
            self._section.show_tool(tool)

    def drop_tools(self, case: ScanCase | None) -> None:
        """Go back to selecting, before another case is taken in hand."""
        self._section.show_tool("select")
        self._put_cut_line_down()
        if case is not None and case.is_shown:
            case.brushes.put_down()

    def selection_changed(self) -> None:
        """Let the brush follow the selection."""
        if self._table.selected and self._section.target == "selected":
            self.brush_changed()

    def brush_changed(self) -> None:
        """Let the brush and the preview follow their options."""
        if self._section.tool not in ("select", "cut"):
            self.use_tool(self._section.tool)
        self._preview_timer.start()

    def show_preview(self) -> None:
        """Show the result of the strokes, if the preview is switched on."""
        with notify_errors():
            if self._section.preview.isChecked():
                self._require_case().brushes.show_preview(
                    self._section.scope, reach=self._section.reach
                )

    def _on_button(self, command: str) -> None:
        if command == "undo":
            self.undo()
        elif command == "redo":
            self.redo()
        else:
            self.edit(command)

    def _pick_up(self, case: ScanCase, tool: str) -> None:
        """Pick up a tool; put all tools down if no region is selected for the strokes."""
        try:
            target = self._target() if tool in ("scribble", "paint") else None
        except StrataError:
            case.brushes.put_down()
            raise
        if tool == "scribble":
            self._pick_up_brush(case, target)
        elif tool == "paint":
            self._pick_up_paint(case, target)
        else:
            case.brushes.put_down()
        if tool == "cut":
            self._pick_up_cut_line(case)

    def _pick_up_brush(self, case: ScanCase, target: int | None) -> None:
        layer = case.brushes.pick_up_scribble(
            target, size=self._section.brush_size
        ).layer
        if layer is not self._stroke_layer:
            self._stroke_layer = layer
            layer.events.brush_size.connect(self._on_brush_size)
            layer.events.paint.connect(self._on_stroke)
            layer.mouse_wheel_callbacks.append(self._on_wheel)
            # The layer is made before the first stroke, whose preview then shows at once.
            self._layer_timer.start()

    def _pick_up_paint(self, case: ScanCase, target: int | None) -> None:
        if case.labels is not self._paint_layer:
            self._paint_layer = case.labels
            case.labels.events.brush_size.connect(self._on_brush_size)
            case.labels.events.selected_label.connect(self._on_paint_label)
        self._paint_label = case.brushes.pick_up_paint(
            target, size=self._section.brush_size
        )

    def _on_brush_size(self, event: Any) -> None:
        """Show the size that was set on the layer in hand."""
        if str(event.source.mode) == "paint":
            self._section.show_brush_size(event.source.brush_size)

    def _on_paint_label(self, event: Any) -> None:
        """Let the selection follow the label that napari's keys or controls chose."""
        layer = event.source
        is_painting = self._section.tool == "paint" and str(layer.mode) == "paint"
        if not is_painting or layer.selected_label == self._paint_label:
            return
        if layer.selected_label in [row.id for row in self._table.regions.rows]:
            self._paint_label = int(layer.selected_label)
            self._section.show_target("selected")
            self._table.select([self._paint_label])
        else:
            layer.selected_label = self._paint_label
            show_info(KEEPS_REGION)

    def _make_layer(self) -> None:
        with notify_errors():
            if self._section.preview.isChecked() and self._section.tool == "scribble":
                case = self._require_case()
                case.preview.make_layer(over=case.labels)

    def _pick_up_cut_line(self, case: ScanCase) -> None:
        self._cut_line = CutLine(case.viewer, case.labels, partial(self._cut, case))
        case.bindings.on_remove(self._cut_line.put_down)

    def _put_cut_line_down(self) -> None:
        cut_line, self._cut_line = self._cut_line, None
        if cut_line is not None:
            cut_line.put_down()

    def _cut(self, case: ScanCase, line: DrawnLine) -> None:
        with notify_errors():
            region = line.region_of(np.asarray(case.labels.data), self._table.selected)
            points, direction = line.in_patient(case.work.proposal.volume.geometry)
            split = partial(case.work.edits.split_line, region, points, direction)
            case.submit(split, lambda parts: self._select_after([region, *parts]))

    def _on_wheel(self, _layer: object, event: Any) -> None:
        """Change the reach of strokes by Alt+wheel while their preview is shown."""
        if [str(key) for key in event.modifiers] == ["Alt"]:
            step = 1 if event.delta[1] > 0 else -1
            self._section.show_reach(self._section.reach.mm + step)
            event.handled = True

    def _on_stroke(self, event: object = None) -> None:
        self._preview_timer.start()

    def _on_preview_toggled(self, is_on: bool) -> None:
        with notify_errors():
            if is_on:
                self.show_preview()
            else:
                self._require_case().preview.drop()

    def _selected(self, minimum: int, verb: str) -> list[int]:
        ids = list(self._table.selected)
        if len(ids) < minimum:
            raise StrataError(
                f"Select {'a region' if minimum == 1 else 'two or more regions'} to"
                f" {verb}: click the scan, or the table."
            )
        return ids

    def _target(self) -> int | None:
        target = self._section.target
        if target == "selected":
            region = self._selected(1, "stroke for")[-1]
            for row in self._table.regions.rows:
                if row.id == region and row.locked:
                    raise StrataError(
                        f"'{row.name}' is locked, so strokes for it would do nothing."
                        f" Unlock it first ({shortcut('lock')})."
                    )
            return region
        return None if target == "new" else BACKGROUND

    def _select_after(self, ids: Sequence[int]) -> None:
        self._show()
        self._table.select(list(ids))

    def _merge(self, case: ScanCase) -> None:
        case.submit(
            partial(case.work.merge, self._selected(2, "merge")),
            lambda kept: self._select_after([kept]),
        )

    def _split(self, case: ScanCase) -> None:
        case.submit(
            partial(
                split_all,
                case.work,
                self._selected(1, "split"),
                self._section.parts.value(),
            ),
            self._select_after,
        )

    def _update(self, case: ScanCase) -> None:
        case.brushes.apply(
            self._section.scope, self._on_learned, reach=self._section.reach
        )
        remember_stroke_reach_mm(self._section.reach.mm)

    def _on_learned(self, regions: Sequence[int]) -> None:
        if regions:
            if self._section.target == "new":
                self._section.show_target("selected")
            self._select_after(regions)
        self.brush_changed()

    def _clear(self, case: ScanCase) -> None:
        case.brushes.discard()

    def _run_step(self, case: ScanCase, step: Callable[[], object]) -> None:
        # The buttons change at once, so that no click is lost; the long lists follow.
        case.submit(
            step, lambda _name: self._section.show_history(*next_step_names(case.work))
        )


def next_step_names(work: Refinement) -> tuple[str, str]:
    """Return the names of the steps that undo and redo would affect, "" for none."""
    done, undone = work.history, work.steps.undone
    return done[-1] if done else "", undone[0] if undone else ""


def split_all(work: Refinement, regions: Sequence[int], into: int) -> list[int]:
    """Split regions one by one; return the parts, each region's own id first."""
    parts: list[int] = []
    for region in regions:
        parts += [region, *work.split(region, into=into)]
    return parts
