"""The sections with lists: regions, review, and the history."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QBrush
from qtpy.QtWidgets import QLabel, QLineEdit, QListWidget, QWidget
from superqt import QCollapsible

from napari_strata.gui.actions import shortcut
from napari_strata.gui.widgets.region_table import RegionTable
from napari_strata.gui.widgets.sections import Section, push_button, row_of

_REASON_LINES = 1
"""Kept free for the reason, so that buttons do not move; its tooltip holds all of it."""


class RegionsSection(Section):
    """The region table with a filter above it."""

    outline_asked = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Regions", parent)
        self.table = RegionTable()
        self.table.setMinimumHeight(120)
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter by name")
        self.filter.setClearButtonEnabled(True)
        self.filter.setToolTip("Show only the regions whose name contains this text")
        self.outline = push_button(
            "Outline",
            f"Draw regions as outlines instead of filled ({shortcut('outline')})",
            checkable=True,
        )
        self.show_all = push_button(
            "Show all", "Draw every region again, after Hide or Show only this"
        )
        self.filter.textChanged.connect(self.table.filter_names)
        self.outline.toggled.connect(self.outline_asked)
        self.show_all.clicked.connect(lambda: self.table.asked.emit("show_all", ()))
        self.body.addLayout(row_of(self.filter, self.outline, self.show_all))
        self.body.addWidget(self.table)


class ReviewSection(Section):
    """Leads a person to the places where the proposal is least certain."""

    next_asked = Signal()
    accept_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.next = push_button(
            "Look next",
            "Go to what is unlike the rest of the scan, then to the places where the"
            " proposal is least certain"
            f" ({shortcut('next_place')})",
        )
        self.accept = push_button(
            "Accept",
            "The region here is right: fix this place, and go to the next"
            f" ({shortcut('accept_place')})",
        )
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.reason.setAlignment(Qt.AlignmentFlag.AlignTop)
        lines = _REASON_LINES * self.reason.fontMetrics().lineSpacing()
        self.reason.setFixedHeight(lines)
        self.next.clicked.connect(self.next_asked)
        self.accept.clicked.connect(self.accept_asked)
        self.body.addLayout(row_of(self.next, self.accept))
        self.body.addWidget(self.reason)
        self.show_place("")

    def show_place(self, text: str) -> None:
        """Show why this place is worth reviewing; "" if there is none."""
        self.reason.setText(text)
        self.reason.setToolTip(text)
        self.accept.setEnabled(bool(text))


class HistorySection(QCollapsible):
    """Every step by name; a click goes back, or forward, to just after it."""

    jump_asked = Signal(int)
    """The number of steps to keep."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("History", parent, expandedIcon="▾", collapsedIcon="▸")
        self.setDuration(0)
        self.steps = QListWidget()
        self.steps.setToolTip(
            "Click a step to go back, or forward, to just after it; nothing is lost"
            " until you edit again"
        )
        self.steps.setFixedHeight(130)
        self.addWidget(self.steps)
        self._shown: tuple[tuple[str, ...], int] = (), 0
        self.steps.itemClicked.connect(
            lambda item: self.jump_asked.emit(self.steps.row(item))
        )
        self.show_steps((), ())

    def show_steps(self, done: Sequence[str], undone: Sequence[str]) -> None:
        """List the steps that are done and, in grey, those that redo would bring back."""
        names, (before, was_done) = ("Start", *done, *undone), self._shown
        if (names, len(done)) == self._shown:
            return
        self._shown = (names, len(done))
        self.setText(f"History ({len(done)} steps)" if done else "History")
        same = next(
            (
                i
                for i, pair in enumerate(zip(names, before, strict=False))
                if pair[0] != pair[1]
            ),
            min(len(names), len(before)),
        )
        while self.steps.count() > same:
            self.steps.takeItem(self.steps.count() - 1)
        self.steps.addItems(list(names[same:]))
        for number in range(min(same, was_done + 1, len(done) + 1), len(names)):
            if (item := self.steps.item(number)) is not None:
                item.setData(
                    Qt.ItemDataRole.ForegroundRole,
                    QBrush(Qt.GlobalColor.gray) if number > len(done) else None,
                )
        self.steps.setCurrentRow(len(done))
