"""The granularity section: which tree, and a slider with marks where it is stable."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QPainter, QPaintEvent, QPalette, QPen, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QSlider,
    QSpinBox,
    QStyle,
    QStyleOptionSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_strata.gui.widgets.sections import Section, push_button, row_of
from napari_strata.proposal.proposal import Proposal, TreeName


class MarkedSlider(QSlider):
    """A horizontal slider that knows where its handle is at any value."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)

    def x_of(self, value: int) -> int:
        """Return the middle of the handle at a value, in pixels from the left edge."""
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        option.sliderPosition = option.sliderValue = value
        style = self.style()
        if style is None:
            return 0
        return int(
            style.subControlRect(
                QStyle.ComplexControl.CC_Slider,
                option,
                QStyle.SubControl.SC_SliderHandle,
                self,
            )
            .center()
            .x()
        )


class MarkBar(QWidget):
    """Ticks under a slider, each with a small button that jumps there.

    Parameters
    ----------
    slider : MarkedSlider
        The slider above it, with the same left edge.
    """

    chosen = Signal(int)
    """The number of regions of the mark that was clicked."""

    _TICK = 6

    def __init__(self, slider: MarkedSlider, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = slider
        self._steps: dict[int, int] = {}
        self._tree: TreeName | None = None
        self._as_proposed: int | None = None
        self.buttons: dict[int, QToolButton] = {}

    def show_marks(
        self,
        steps: Mapping[int, int],
        current: int,
        tree: TreeName,
        as_proposed: int | None = None,
    ) -> None:
        """Show a mark for each number of regions at its slider step; `current` is in use.

        The mark of the cut that the proposal opens on says so.
        """
        if (dict(steps), tree, as_proposed) != (
            self._steps,
            self._tree,
            self._as_proposed,
        ):
            self._steps, self._tree, self._as_proposed = dict(steps), tree, as_proposed
            for button in self.buttons.values():
                button.setParent(None)
                button.deleteLater()
            self.buttons = {n: self._button(n, tree) for n in self._steps}
            height = max(
                (button.sizeHint().height() for button in self.buttons.values()),
                default=0,
            )
            self.setFixedHeight(self._TICK + height if height else 0)
            self._place()
        for n, button in self.buttons.items():
            button.setChecked(n == current)
            font = button.font()
            if font.bold() != (n == current):
                font.setBold(n == current)
                button.setFont(font)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Keep the buttons under their ticks."""
        super().resizeEvent(event)
        self._place()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Place the buttons once the theme has given them their size."""
        super().showEvent(event)
        self._place()

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Draw a tick from the slider to each button."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = self.palette().color(QPalette.ColorRole.WindowText)
        for n, button in self.buttons.items():
            painter.setPen(QPen(color, 2 if button.isChecked() else 1))
            x = self._slider.x_of(self._steps[n]) + 0.5
            painter.drawLine(QPointF(x, 0), QPointF(x, self._TICK / 2))
            painter.drawLine(
                QPointF(x, self._TICK / 2),
                QPointF(button.geometry().center().x() + 0.5, self._TICK),
            )
        painter.end()

    def _button(self, n: int, tree: TreeName) -> QToolButton:
        button = QToolButton(self)
        button.setText(str(n))
        button.setCheckable(True)
        button.setAutoRaise(True)
        why = "as proposed" if n == self._as_proposed else "the tree is stable here"
        button.setToolTip(f"Jump to {n} {tree}: {why}")
        button.clicked.connect(lambda _checked=False: self._on_click(n))
        button.show()
        return button

    def _on_click(self, n: int) -> None:
        # a click on the mark in use must not uncheck it
        self.buttons[n].setChecked(True)
        self.chosen.emit(n)

    def _place(self) -> None:
        """Put each button under its tick, pushed apart if they would overlap."""
        lefts, widths, right = [], [], 0
        for n, button in self.buttons.items():
            width = max(button.fontMetrics().horizontalAdvance(str(n)) + 12, 22)
            lefts.append(max(right, self._slider.x_of(self._steps[n]) - width // 2))
            widths.append(width)
            right = lefts[-1] + width
        for i in range(len(lefts) - 1, -1, -1):
            lefts[i] = min(
                lefts[i],
                (lefts[i + 1] if i + 1 < len(lefts) else self.width()) - widths[i],
            )
        for button, left, width in zip(
            self.buttons.values(), lefts, widths, strict=True
        ):
            button.setGeometry(left, self._TICK, width, button.sizeHint().height())
        self.update()


class GranularitySection(Section):
    """Selects the tree and the number of regions.

    The slider is logarithmic and has marks at stable cuts of the tree.
    """

    cut_asked = Signal(str, int)

    _STEPS = 400

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Granularity", parent)
        self.tissues = push_button(
            "Tissues", "Groups of similar regions, anywhere in the scan", checkable=True
        )
        self.regions = push_button(
            "Regions", "Connected parts of the scan", checkable=True
        )
        self._trees = QButtonGroup(self)
        for button in (self.tissues, self.regions):
            self._trees.addButton(button)
        self.tissues.setChecked(True)
        self.slider = MarkedSlider()
        self.slider.setRange(0, self._STEPS)
        self.slider.setToolTip(
            "Coarse to fine. Regions that you named, merged, locked or scribbled keep"
            " their voxels"
        )
        self.marks = MarkBar(self.slider)
        self.count = QSpinBox()
        self.count.setToolTip("Number of regions besides the background")
        self.count.setKeyboardTracking(False)
        self.count.setMinimumWidth(80)
        self.body.addLayout(row_of(self.tissues, self.regions))
        self._lay_out()
        self._limits: dict[TreeName, int] = {"tissues": 2, "regions": 2}
        self._counts: dict[TreeName, int] = {"tissues": 8, "regions": 100}
        self._marks: dict[TreeName, tuple[int, ...]] = {"tissues": (), "regions": ()}
        self._as_proposed: dict[TreeName, int] = {}
        self._chosen: set[TreeName] = set()
        self._showing = False
        self._proposal: Proposal | None = None
        self._show(self.n)
        self.marks.chosen.connect(self.count.setValue)
        self._trees.buttonClicked.connect(self._on_tree)
        self.slider.valueChanged.connect(self._on_slider)
        self.count.valueChanged.connect(self._on_count)

    @property
    def tree(self) -> TreeName:
        """The chosen tree."""
        return "tissues" if self.tissues.isChecked() else "regions"

    @property
    def n(self) -> int:
        """Number of regions chosen for the tree."""
        return self._counts[self.tree]

    @property
    def chosen_n(self) -> int | None:
        """Number of regions that a person chose for the tree, None if nobody did."""
        return self.n if self.tree in self._chosen else None

    def show_proposal(self, proposal: Proposal) -> None:
        """Set how finely each tree can be cut, and mark where it is stable."""
        if proposal is self._proposal:
            return
        self._proposal = proposal
        self._limits = {
            name: max(proposal.tree(name).max_regions, 1) for name in self._limits
        }
        self._as_proposed = {name: proposal.as_proposed(name) for name in self._limits}
        self._marks = {
            name: tuple(sorted({*proposal.suggested(name), self._as_proposed[name]}))
            for name in self._limits
        }
        for name in self._counts.keys() - self._chosen:
            self._counts[name] = self._as_proposed[name]
        self._show(self.n)

    def forget_proposal(self) -> None:
        """Release the proposal shown last: its scan was closed."""
        self._proposal = None

    def show_cut(self, tree: TreeName, n: int) -> None:
        """Show a cut that was made elsewhere, by undo for example."""
        (self.tissues if tree == "tissues" else self.regions).setChecked(True)
        self._counts[tree] = n
        self._show(n)

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(4)
        marked = QVBoxLayout()
        marked.setSpacing(0)
        marked.addWidget(self.slider)
        marked.addWidget(self.marks)
        row.addLayout(marked, 1)
        row.addWidget(self.count, 0, Qt.AlignmentFlag.AlignTop)
        self.body.addLayout(row)

    def _on_tree(self) -> None:
        self._show(self.n)
        self.cut_asked.emit(self.tree, min(self.n, self._limits[self.tree]))

    def _on_slider(self, position: int) -> None:
        if not self._showing:
            n = round(self._limits[self.tree] ** (position / self._STEPS))
            self._show(n, keep_slider=True)
            self._ask(n)

    def _on_count(self, n: int) -> None:
        if not self._showing:
            self._show(n)
            self._ask(n)

    def _ask(self, n: int) -> None:
        self._counts[self.tree] = n
        if self._proposal is not None:
            self._chosen.add(self.tree)
        self.cut_asked.emit(self.tree, n)

    def _show(self, n: int, *, keep_slider: bool = False) -> None:
        limit = self._limits[self.tree]
        self._showing = True
        self.count.setRange(1, limit)
        self.count.setValue(n)
        if not keep_slider:
            self.slider.setValue(self._step_of(n))
        self.marks.show_marks(
            {
                mark: self._step_of(mark)
                for mark in self._marks[self.tree]
                if mark <= limit
            },
            n,
            self.tree,
            self._as_proposed.get(self.tree),
        )
        self._showing = False

    def _step_of(self, n: int) -> int:
        limit = self._limits[self.tree]
        return (
            round(self._STEPS * np.log(max(min(n, limit), 1)) / np.log(limit))
            if limit > 1
            else 0
        )
