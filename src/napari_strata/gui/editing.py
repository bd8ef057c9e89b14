"""What the edit section does to the case in hand."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_strata.errors import StrataError
from napari_strata.gui.case import ScanCase
from napari_strata.gui.edit_section import EditSection
from napari_strata.gui.region_table import RegionTable
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    import napari.layers


@contextmanager
def reported() -> Generator[None]:
    """Turn our own errors into a napari notification; anything else is a bug and goes on."""
    try:
        yield
    except StrataError as err:
        show_error(str(err))


class Editor:
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
        self._section = section
        self._table = table
        self._require_case = require_case
        self._show = show
        self._bind_keys = bind_keys

    def edit(self, what: str) -> None:
        """Carry out "merge", "split", "update", "undo" or "redo"."""
        actions = {"merge": self._merge, "split": self._split, "update": self._update, "undo": self._undo, "redo": self._redo}
        with reported():
            actions[what](self._require_case())

    def use_tool(self, tool: str) -> None:
        """Take "select", "scribble" or "paint" in hand; "select" where that cannot be done."""
        self._section.show_tool("select")
        with reported():
            case = self._require_case()
            case.put_down()
            if tool == "scribble":
                self._bind_keys(case.pick_up_brush(self._target(), size=self._section.brush_size).layer)
            elif tool == "paint":
                case.pick_up_paint(self._target(), size=self._section.brush_size)
            self._section.show_tool(tool)

    def drop_tools(self, case: ScanCase | None) -> None:
        """Go back to selecting, before another case is taken in hand."""
        self._section.show_tool("select")
        if case is not None and case.is_shown:
            case.put_down()

    def selection_changed(self) -> None:
        """Let the brush in hand follow the selection."""
        if self._table.selected and self._section.target == "selected":
            self.brush_changed()

    def brush_changed(self) -> None:
        """Let the brush in hand follow its options."""
        if self._section.tool != "select":
            self.use_tool(self._section.tool)

    def _selected(self, least: int, verb: str) -> list[int]:
        ids = list(self._table.selected)
        if len(ids) < least:
            raise StrataError(f"Select {'a region' if least == 1 else 'two or more regions'} to {verb}: click the scan, or the table.")
        return ids

    def _target(self) -> int | None:
        target = self._section.target
        if target == "selected":
            return self._selected(1, "stroke for")[-1]
        return None if target == "new" else BACKGROUND

    def _merge(self, case: ScanCase) -> None:
        kept = case.work.merge(self._selected(2, "merge"))
        self._show()
        self._table.select([kept])

    def _split(self, case: ScanCase) -> None:
        parts: list[int] = []
        for region in self._selected(1, "split"):
            parts += [region, *case.work.split(region, into=self._section.parts.value())]
        self._show()
        self._table.select(parts)

    def _update(self, case: ScanCase) -> None:
        taught = case.apply_strokes(self._section.scope)
        self._show()
        if self._section.target == "new":
            self._section.show_target("selected")
        self._table.select(list(taught))
        self.brush_changed()

    def _undo(self, case: ScanCase) -> None:
        case.work.undo()
        self._show()

    def _redo(self, case: ScanCase) -> None:
        case.work.redo()
        self._show()
