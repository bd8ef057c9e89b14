"""What the edit section does to the case in hand."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QTimer

from napari_strata.errors import StrataError
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tools.cut_line import CutLine, DrawnLine
from napari_strata.gui.tools.region_tools import region_tool
from napari_strata.gui.widgets.edit_section import EditSection
from napari_strata.gui.widgets.region_table import RegionTable
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    import napari.layers


_READY_MS = 30
"""How long after the brush was taken the layer for previews is made.

The canvas is drawn in between.
"""


@contextmanager
def reported() -> Generator[None]:
    """Turn our own errors into a napari notification; anything else is a bug and goes on."""
    try:
        yield
    except StrataError as err:
        show_error(str(err))


class Editor(QObject):
    """Carries out what the edit section asks for, on the regions that the table has selected.

    Parameters
    ----------
    section : EditSection
        Tools and their options.
    table : RegionTable
        Whose selection is edited.
    require_case : callable
        Gives the case in hand, or raises `StrataError`.
    show : callable
        Brings the panel up to date.
    bind_keys : callable
        Called with a new stroke layer.
    """

    def __init__(
        self,
        section: EditSection,
        table: RegionTable,
        *,
        require_case: Callable[[], ScanCase],
        show: Callable[[], None],
        bind_keys: Callable[[napari.layers.Layer], None],
    ) -> None:
        super().__init__(section)
        self._section = section
        self._table = table
        self._require_case = require_case
        self._show = show
        self._bind_keys = bind_keys
        self._stroked: napari.layers.Layer | None = None
        self._line: CutLine | None = None
        # napari tells of a stroke just before it writes the last of it
        self._preview_timer = QTimer(self)
        self._preview_timer.setSingleShot(True)
        self._preview_timer.setInterval(0)
        self._preview_timer.timeout.connect(self.show_preview)
        self._ready_timer = QTimer(self)
        self._ready_timer.setSingleShot(True)
        self._ready_timer.setInterval(_READY_MS)
        self._ready_timer.timeout.connect(self._make_ready)
        section.preview.toggled.connect(self._on_preview_toggled)

    def edit(self, what: str) -> None:
        """Carry out "merge", "split", "update", "clear", "undo" or "redo"."""
        actions = {
            "merge": self._merge,
            "split": self._split,
            "update": self._update,
            "clear": self._clear,
            "undo": lambda case: self._step(case, case.work.undo),
            "redo": lambda case: self._step(case, case.work.redo),
        }
        with reported():
            actions[what](self._require_case())

    def use_region_tool(self, what: str) -> None:
        """Carry out a tool of the menu on the selected regions."""
        with reported():
            case = self._require_case()
            case.submit(region_tool(what, case.work, self._table.selected))

    def jump(self, step: int) -> None:
        """Undo or redo until that many steps are done."""
        with reported():
            case = self._require_case()
            self._step(case, partial(case.work.steps.jump, step))

    def use_tool(self, tool: str) -> None:
        """Take "select", "scribble", "cut" or "paint" in hand.

        "select" where that cannot be done.
        """
        self._put_line_down()
        try:
            self._take(self._require_case(), tool)
        except StrataError as err:
            self._section.show_tool("select")
            show_error(str(err))
        else:
            self._section.show_tool(tool)

    def drop_tools(self, case: ScanCase | None) -> None:
        """Go back to selecting, before another case is taken in hand."""
        self._section.show_tool("select")
        self._put_line_down()
        if case is not None and case.is_shown:
            case.put_down()

    def selection_changed(self) -> None:
        """Let the brush in hand follow the selection."""
        if self._table.selected and self._section.target == "selected":
            self.brush_changed()

    def brush_changed(self) -> None:
        """Let the brush in hand, and the preview, follow their options."""
        if self._section.tool not in ("select", "cut"):
            self.use_tool(self._section.tool)
        self._preview_timer.start()

    def show_preview(self) -> None:
        """Show what the strokes would do, where that is wanted."""
        with reported():
            if self._section.preview.isChecked():
                self._require_case().show_preview(self._section.scope)

    def _take(self, case: ScanCase, tool: str) -> None:
        """Take a tool in hand, or nothing where there is nothing to stroke for."""
        try:
            target = self._target() if tool in ("scribble", "paint") else None
        except StrataError:
            case.put_down()
            raise
        if tool == "scribble":
            self._take_brush(case, target)
        elif tool == "paint":
            case.pick_up_paint(target, size=self._section.brush_size)
        else:
            case.put_down()
        if tool == "cut":
            self._take_line(case)

    def _take_brush(self, case: ScanCase, target: int | None) -> None:
        layer = case.pick_up_brush(target, size=self._section.brush_size).layer
        if layer is not self._stroked:
            self._stroked = layer
            self._bind_keys(layer)
            layer.events.paint.connect(self._on_stroke)
            # a stroke is to be answered at once: what shows the answer is there before
            # it
            self._ready_timer.start()

    def _make_ready(self) -> None:
        with reported():
            if self._section.preview.isChecked() and self._section.tool == "scribble":
                case = self._require_case()
                case.preview.make_layer(over=case.labels)

    def _take_line(self, case: ScanCase) -> None:
        self._line = CutLine(case.viewer, case.labels, partial(self._cut, case))
        case.hooks.on_remove(self._line.put_down)

    def _put_line_down(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.put_down()

    def _cut(self, case: ScanCase, line: DrawnLine) -> None:
        with reported():
            region = line.region_of(np.asarray(case.labels.data), self._table.selected)
            points, direction = line.in_patient(case.work.proposal.volume.geometry)
            act = partial(case.work.edits.split_line, region, points, direction)
            case.submit(act, lambda made: self._select_after([region, *made]))

    def _on_stroke(self, event: object = None) -> None:
        self._preview_timer.start()

    def _on_preview_toggled(self, wanted: bool) -> None:
        with reported():
            if wanted:
                self.show_preview()
            else:
                self._require_case().preview.drop()

    def _selected(self, least: int, verb: str) -> list[int]:
        ids = list(self._table.selected)
        if len(ids) < least:
            raise StrataError(
                f"Select {'a region' if least == 1 else 'two or more regions'} to"
                f" {verb}: click the scan, or the table."
            )
        return ids

    def _target(self) -> int | None:
        target = self._section.target
        if target == "selected":
            return self._selected(1, "stroke for")[-1]
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
        case.apply_strokes(self._section.scope, self._on_taught)

    def _on_taught(self, taught: Sequence[int]) -> None:
        if taught:
            if self._section.target == "new":
                self._section.show_target("selected")
            self._select_after(taught)
        self.brush_changed()

    def _clear(self, case: ScanCase) -> None:
        case.drop_strokes()

    def _step(self, case: ScanCase, act: Callable[[], object]) -> None:
        # the buttons at once, so that no press is lost; the long lists follow when the
        # presses are over
        case.submit(
            act, lambda _name: self._section.show_history(*next_steps(case.work))
        )


def next_steps(work: Refinement) -> tuple[str, str]:
    """Name what undo and redo would do, "" for nothing."""
    done, undone = work.history, work.steps.undone
    return done[-1] if done else "", undone[0] if undone else ""


def split_all(work: Refinement, regions: Sequence[int], into: int) -> list[int]:
    """Split regions one after the other and give the parts, each region's own id first."""
    parts: list[int] = []
    for region in regions:
        parts += [region, *work.split(region, into=into)]
    return parts
