"""The help overlay with every key, and the tour of the first start."""

from __future__ import annotations

import contextlib
from pathlib import Path

from platformdirs import user_config_path
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_strata.gui.actions import help_rows

TOUR: tuple[tuple[str, str, str], ...] = (
    (
        "scan",
        "Open a scan",
        (
            "Drop a file or a DICOM folder on the canvas, or press Open scan. The"
            " letters say which side is which."
        ),
    ),
    (
        "proposal",
        "Propose regions",
        (
            "Press Propose regions. It takes seconds to a few minutes; Cancel stops it"
            " at any time."
        ),
    ),
    (
        "granularity",
        "Coarser or finer",
        (
            "Drag the slider. The numbers under it are good choices: the tree is stable"
            " there. Your edits stay."
        ),
    ),
    (
        "regions",
        "Regions",
        (
            "Click a region on the scan or here. Double-click its name to rename it;"
            " lock what is right."
        ),
    ),
    (
        "review",
        "Where to look",
        (
            "N goes to the places where the proposal is least certain; Space accepts"
            " what is shown there."
        ),
    ),
    (
        "edit",
        "Correct",
        (
            "Merge, split, or scribble: stroke over what belongs together, check the"
            " preview, press Space."
        ),
    ),
    (
        "export",
        "Export",
        (
            "Labels are written on the scan's own grid; there are surfaces and tables"
            " too, and a case keeps everything with its history. H shows every key."
        ),
    ),
)
"""Section (an attribute of `PanelSections`), title and text of each stop."""


class HelpOverlay(QDialog):
    """Every key and mouse gesture on one page; any key closes it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Strata: keys")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        column = QVBoxLayout(self)
        self.words = QLabel(help_html())
        self.words.setTextFormat(Qt.TextFormat.RichText)
        column.addWidget(self.words)
        close = QPushButton("Close")
        close.clicked.connect(self.accept)
        column.addWidget(close)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Close the page."""
        self.accept()


class TourCard(QFrame):
    """One stop of the tour at a time, at the top of the panel; it can be left at any stop."""

    stop_shown = Signal(str)
    """The section that the stop is about."""
    left = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.RichText)
        self.skip, self.next = QPushButton("Skip the tour"), QPushButton("Next")
        column, row = QVBoxLayout(self), QHBoxLayout()
        column.addWidget(self.words)
        row.addWidget(self.skip)
        row.addWidget(self.next)
        column.addLayout(row)
        self.skip.clicked.connect(self.leave)
        self.next.clicked.connect(lambda: self.show_stop(self._stop + 1))
        self._stop = 0
        self.hide()

    def begin(self) -> None:
        """Show the first stop."""
        self.show()
        self.show_stop(0)

    def show_stop(self, number: int) -> None:
        """Show a stop; past the last one the tour ends."""
        if number >= len(TOUR):
            self.leave()
            return
        self._stop = number
        section, title, words = TOUR[number]
        self.words.setText(f"<b>{number + 1}/{len(TOUR)} {title}</b><br>{words}")
        self.next.setText("Done" if number == len(TOUR) - 1 else "Next")
        self.stop_shown.emit(section)

    def leave(self) -> None:
        """End the tour; it does not start by itself again."""
        self.hide()
        note_tour_seen()
        self.left.emit()


def help_html() -> str:
    """Return the list of keys as HTML."""
    parts = []
    for title, rows in help_rows().items():
        lines = "".join(
            f"<tr><td style='padding-right:14px'><b>{keys}</b></td><td>{what}</td></tr>"
            for keys, what in rows
        )
        parts.append(
            f"<h4 style='margin-bottom:2px'>{title}</h4><table>{lines}</table>"
        )
    return "".join(parts)


def tour_was_seen(path: Path | None = None) -> bool:
    """Return whether the tour was taken or skipped before."""
    return (path or _seen_path()).exists()


def note_tour_seen(path: Path | None = None) -> None:
    """Remember that the tour was taken or skipped.

    If that cannot be written, the tour starts again next time.
    """
    target = path or _seen_path()
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _seen_path() -> Path:
    return user_config_path("napari-strata") / "tour-seen"
