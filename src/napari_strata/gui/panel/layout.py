"""How the sections of the panel stand below each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_strata.gui.panel.recovery_banner import RecoveryBanner
from napari_strata.gui.widgets.edit_section import EditSection
from napari_strata.gui.widgets.explain_section import ExplainSection
from napari_strata.gui.widgets.granularity import GranularitySection
from napari_strata.gui.widgets.help import TourCard, tour_was_seen
from napari_strata.gui.widgets.list_sections import (
    HistorySection,
    RegionsSection,
    ReviewSection,
)
from napari_strata.gui.widgets.sections import (
    ExportSection,
    ProposeSection,
    ScanSection,
    Section,
    push_button,
)


class PanelLayout(QScrollArea):
    """The sections, from the scan to the export, one below the other.

    It scrolls where the window is too low.
    """

    undocked = Signal()
    """Emitted when the panel is taken out of its dock.

    Is all that napari does when the dock is closed.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._was_shown = False
        self._inner = QWidget()
        column = QVBoxLayout(self._inner)
        column.setContentsMargins(6, 2, 6, 6)
        column.setSpacing(2)
        self.scan, self.proposing, self.granularity = (
            ScanSection(),
            ProposeSection(),
            GranularitySection(),
        )
        self.regions, self.look, self.edits = (
            RegionsSection(),
            ReviewSection(),
            EditSection(),
        )
        self.history, self.explaining, self.export = (
            HistorySection(),
            ExplainSection(),
            ExportSection(),
        )
        self.table = self.regions.table
        self.show_again = push_button(
            "Show the labels layer again",
            "The layer was deleted; the work behind it is kept",
        )
        self.tour = TourCard()
        self.tour.stop_shown.connect(
            lambda name: self.ensureWidgetVisible(getattr(self, name))
        )
        column.addWidget(self.tour)
        self.recovery_card = RecoveryBanner()
        column.addWidget(self.recovery_card)
        upper = (
            self.scan,
            self.proposing,
            self.granularity,
            self.show_again,
            self.regions,
        )
        for part in (
            *upper,
            self.look,
            self.edits,
            self.history,
            self.explaining,
            self.export,
        ):
            if part is not self.scan and isinstance(part, Section):
                column.addWidget(_line())
            column.addWidget(part, 1 if part is self.regions else 0)
        self.setWidget(self._inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        # an answer may lie below the window; it has its size only once it was laid out
        for told, answer in (
            (self.explaining.answered, self.explaining.answer),
            (self.export.told, self.export.result),
        ):
            told.connect(
                single_shot(self, 50, partial(self.ensureWidgetVisible, answer)).start
            )

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Keep the panel as wide as its rows need, whatever font and theme napari gives them."""
        if (
            watched is self._inner
            and event is not None
            and event.type() == QEvent.Type.LayoutRequest
        ):
            self.setMinimumWidth(self.sizeHint().width())
        return bool(super().eventFilter(watched, event))

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Tell when the panel is left without a parent."""
        super().changeEvent(event)
        if (
            event is not None
            and event.type() == QEvent.Type.ParentChange
            and self.parent() is None
        ):
            self.undocked.emit()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Begin the tour the first time that the panel is seen."""
        super().showEvent(event)
        if not self._was_shown and not tour_was_seen():
            self.tour.begin()
        self._was_shown = True

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Ask for a width at which nothing is clipped."""
        return QSize(
            self._inner.minimumSizeHint().width()
            + self.verticalScrollBar().sizeHint().width()
            + 8,
            900,
        )


def single_shot(parent: QObject, interval_ms: int, slot: Callable[[], None]) -> QTimer:
    """Make a timer that calls `slot` once, some time after each start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(slot)
    return timer


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFrameShadow(QFrame.Shadow.Plain)
    line.setFixedHeight(1)
    return line
