"""The edit section of the panel: tools, and the size, target and scope of the brush."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QGridLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_strata.gui.actions import shortcut
from napari_strata.gui.widgets.sections import (
    Section,
    narrow_combo,
    push_button,
    row_of,
)
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.preview import StrokeEffect
from napari_strata.refine.state.assignment import Scope

TOOLS: dict[str, tuple[str, str]] = {
    "accept": (
        "Accept",
        f"Mark the regions as checked and right, and lock them ({shortcut('accept')})",
    ),
    "grow": (
        "Grow by 1 mm",
        "Move the border outward by 1 mm, the same along every axis",
    ),
    "shrink": (
        "Shrink by 1 mm",
        "Move the border inward by 1 mm, the same along every axis",
    ),
    "smooth": (
        "Smooth borders",
        "Smooth the borders of the regions at once: no gap, no overlap",
    ),
    "fill_holes": ("Fill holes", "Add to a region the holes that it encloses"),
    "keep_largest": (
        "Keep the largest part",
        "Give all parts except the largest to the surrounding regions",
    ),
    "remove_islands": (
        "Remove islands below 0.5 mL",
        "Give small parts to the surrounding regions",
    ),
    "split_parts": (
        "Split into connected parts",
        "Give every connected part an id of its own",
    ),
    "mirror": (
        "Mirror to the other side",
        "Copy a region across the plane of symmetry of the body",
    ),
    "swap": (
        "Swap two regions",
        "Exchange two regions; each keeps its name and colour",
    ),
    "delete": ("Make background", "Make the regions background"),
}
"""Name -> (text, tooltip) of the tools in the More menu."""


BRUSHES: dict[str, tuple[str, str]] = {
    "select": (
        "Select",
        "Click a region on the scan to select it; Ctrl or Shift for several"
        f" ({shortcut('select')})",
    ),
    "scribble": (
        "Scribble",
        "Stroke over what belongs to a region; similar voxels follow"
        f" ({shortcut('scribble')})",
    ),
    "cut": (
        "Cut",
        "Draw a line across a region on a plane: it is split there in every slice"
        f" ({shortcut('cut')})",
    ),
    "paint": (
        "Paint",
        "Paint voxels of the selected region; painted voxels always stay"
        f" ({shortcut('paint')})",
    ),
}
"""Name -> (text, tooltip) of what the mouse does on the canvas."""

_NUMBER_PIXELS = 90
"""Width of the brush size: two digits between its buttons."""
_EFFECT_LINES = 2
"""Lines kept free for what strokes would take; the tooltip holds all of it."""
_MAX_PARTS = 50
"""Most parts of one Split; more would be confusing in the table."""
_MIN_REACH_MM, _MAX_REACH_MM = 2, 60
"""Smallest and largest reach of strokes that stay near, in mm."""
_BRUSH_VOXELS, _MAX_BRUSH_VOXELS = 3, 60
"""Brush diameter at the start, about a thin structure, and the largest one."""


class EditSection(Section):
    """The tools that change regions."""

    asked = Signal(str)
    """"merge", "split", "update", "clear", "undo" or "redo"."""
    tool_chosen = Signal(str)
    """"select", "scribble", "cut" or "paint"."""
    tool_asked = Signal(str)
    """A key of `TOOLS`."""
    brush_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Edit", parent)
        self.merge = self._command(
            "merge",
            "Merge",
            "Merge the selected regions; the first one keeps its name"
            f" ({shortcut('merge')})",
        )
        self.split = self._command(
            "split",
            "Split into",
            "Split each selected region along its strongest boundary"
            f" ({shortcut('split')})",
        )
        self.parts = QSpinBox()
        self.parts.setRange(2, _MAX_PARTS)
        self.parts.setToolTip("Number of parts")
        self.more = self._more_menu()
        self.undo = self._command(
            "undo", "Undo", f"Nothing to undo ({shortcut('undo')})"
        )
        self.redo = self._command(
            "redo", "Redo", f"Nothing to redo ({shortcut('redo')})"
        )
        self.apply = self._command(
            "update",
            "Update",
            "Apply the strokes: similar voxels follow"
            ""
            f" ({shortcut('update', 'preview')} with a preview, or {shortcut('update')})",
        )
        self.clear = self._command(
            "clear",
            "Clear",
            f"Remove the strokes ({shortcut('clear')} while a preview is shown)",
        )
        self.preview = QCheckBox("Preview")
        self.preview.setChecked(True)
        self.preview.setToolTip(
            "Show what the strokes would change, before you apply them with Update or"
            " Space"
        )
        self.tools = {
            name: push_button(text, tooltip, checkable=True)
            for name, (text, tooltip) in BRUSHES.items()
        }
        self._group = QButtonGroup(self)
        for name, button in self.tools.items():
            self._group.addButton(button)
            button.clicked.connect(
                lambda _checked=False, name=name: self.tool_chosen.emit(name)
            )
        self.tools["select"].setChecked(True)
        self._add_brush_options()
        self._lay_out()

    @property
    def buttons(self) -> dict[str, QPushButton]:
        """Every button that has an icon, by its name."""
        return {
            **self.tools,
            "merge": self.merge,
            "split": self.split,
            "undo": self.undo,
            "redo": self.redo,
        }

    @property
    def scope(self) -> Scope:
        """How far scribbles reach: "here" or "everywhere"."""
        return "everywhere" if self._scope.currentData() == "everywhere" else "here"

    @property
    def reach(self) -> Reach:
        """How far scribbles go that stay "here"."""
        return Reach(mm=float(self._reach.value()))

    def show_reach(self, mm: float) -> None:
        """Show a reach in mm."""
        self._reach.setValue(round(mm))

    @property
    def target(self) -> str:
        """The target of strokes: "selected", "new" or "background"."""
        return str(self._target.currentData())

    @property
    def brush_size(self) -> int:
        """Brush diameter in voxels."""
        return int(self._size.value())

    def show_brush_size(self, size: float) -> None:
        """Show a brush size that was set on a layer."""
        self._size.blockSignals(True)
        self._size.setValue(round(size))
        self._size.blockSignals(False)

    def step_brush_size(self, step: int) -> None:
        """Make the brush larger or smaller."""
        self._size.setValue(self._size.value() + step)

    @property
    def tool(self) -> str:
        """The chosen tool."""
        return next(
            (name for name, button in self.tools.items() if button.isChecked()),
            "select",
        )

    def show_target(self, target: str) -> None:
        """Show the target of strokes."""
        self._target.setCurrentIndex(self._target.findData(target))

    def show_scope(self, scope: str) -> None:
        """Show how far scribbles reach."""
        self._scope.setCurrentIndex(self._scope.findData(scope))

    def show_tool(self, tool: str) -> None:
        """Show which tool is in hand."""
        self.tools[tool].setChecked(True)

    def show_preview(self, is_shown: bool) -> None:
        """Show whether strokes wait to be applied."""
        self.apply.setText("Accept strokes" if is_shown else "Update")
        self._effect.setVisible(is_shown and bool(self._effect.text()))

    def show_effect(self, effect: StrokeEffect) -> None:
        """Show what the strokes would take, and warn where it is unlike them."""
        warning = "\nUnlike the stroke: look before you accept."
        self._effect.setText(str(effect) + warning * effect.parts_from_stroke)
        self._effect.setToolTip(self._effect.text())
        self._effect.show()

    def show_history(self, undo: str, redo: str) -> None:
        """Show the names of the steps that undo and redo would affect, "" for none."""
        for button, what, key in (
            (self.undo, undo, shortcut("undo")),
            (self.redo, redo, shortcut("redo")),
        ):
            button.setEnabled(bool(what))
            name = button.text()
            button.setToolTip(
                f"{name}: {what} ({key})"
                if what
                else f"Nothing to {name.lower()} ({key})"
            )

    def _more_menu(self) -> QPushButton:
        """Return the button whose menu holds `TOOLS`."""
        more = push_button(
            "More",
            "More tools for the selected regions: accept, grow, smooth, fill holes,"
            " mirror ...",
        )
        menu = QMenu(more)
        for name, (text, tooltip) in TOOLS.items():
            action = menu.addAction(text, lambda name=name: self.tool_asked.emit(name))
            action.setToolTip(tooltip)
        menu.setToolTipsVisible(True)
        more.setMenu(menu)
        return more

    def _command(self, name: str, text: str, tooltip: str) -> QPushButton:
        button = push_button(text, tooltip)
        button.clicked.connect(lambda _checked=False: self.asked.emit(name))
        return button

    def _add_brush_options(self) -> None:
        self._target, self._scope = narrow_combo(), narrow_combo()
        self._size, self._reach = QSpinBox(), QSpinBox()
        self._effect = QLabel()
        self._effect.setWordWrap(True)
        lines = _EFFECT_LINES * self._effect.fontMetrics().lineSpacing()
        self._effect.setFixedHeight(lines)
        policy = self._effect.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self._effect.setSizePolicy(policy)
        self._effect.hide()
        for text, value in (
            ("the selected region", "selected"),
            ("a new region", "new"),
            ("background", "background"),
        ):
            self._target.addItem(text, value)
        for text, value in (("here", "here"), ("everywhere", "everywhere")):
            self._scope.addItem(text, value)
        self._target.setToolTip("Which region the strokes belong to")
        self._scope.setToolTip(
            "here: only the surroundings follow the strokes; everywhere: every unlocked"
            " region of the scan does"
        )
        self._reach.setRange(_MIN_REACH_MM, _MAX_REACH_MM)
        self._reach.setValue(round(Reach().mm))
        self._reach.setSuffix(" mm")
        self._reach.setToolTip(
            "How far strokes go that stay here; Alt+wheel changes it on the canvas"
        )
        self._reach.valueChanged.connect(self.brush_changed)
        self._scope.currentIndexChanged.connect(
            lambda _index: self._reach.setEnabled(self.scope == "here")
        )
        self._size.setRange(1, _MAX_BRUSH_VOXELS)
        self._size.setValue(_BRUSH_VOXELS)
        self._size.setToolTip("Brush size in voxels; [ and ] change it on the canvas")
        self._target.activated.connect(self.brush_changed)
        self._scope.activated.connect(self.brush_changed)
        self._size.valueChanged.connect(self.brush_changed)

    def _lay_out(self) -> None:
        self.body.addLayout(row_of(self.merge, self.split, self.parts, self.more))
        self.body.addLayout(row_of(*self.tools.values()))
        options = QGridLayout()
        options.setSpacing(4)
        widgets: list[tuple[QWidget, int, int, int]] = [
            (QLabel("Strokes for"), 0, 0, 1),
            (self._target, 0, 1, 1),
            (QLabel("Brush"), 0, 2, 1),
            (self._size, 0, 3, 1),
        ]
        widgets += [
            (QLabel("Reach"), 1, 0, 1),
            (self._scope, 1, 1, 1),
            (self._reach, 1, 2, 2),
        ]
        for widget, row, column, columns in widgets:
            options.addWidget(widget, row, column, 1, columns)
        options.setColumnStretch(1, 1)
        self._size.setMaximumWidth(_NUMBER_PIXELS)
        self.body.addLayout(options)
        self.body.addLayout(row_of(self.apply, self.clear, self.undo, self.redo))
        # beside the box and of fixed height, so that no button moves while stroking
        line = row_of(self.preview, self._effect)
        line.setStretch(1, 1)
        self.body.addLayout(line)
