"""How the sections of the panel are laid out."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_strata.gui.panel.recovery_banner import RecoveryBanner
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.widgets.edit_section import EditSection
from napari_strata.gui.widgets.explain_section import ExplainSection
from napari_strata.gui.widgets.granularity import GranularitySection
from napari_strata.gui.widgets.help import HelpOverlay, TourCard, tour_was_seen
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

_SCROLL_MS = 50
"""Delay before the panel scrolls to a new text, which has its size only once laid out."""
_MARGIN_PIXELS = 8
"""Room to the right of the sections, beside the scroll bar."""
_HEIGHT_PIXELS = 900
"""Height the panel asks for; napari gives it what the window has."""


class PanelSections(QWidget):
    """The sections of the panel one below the other, from the scan to the export."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.scan = ScanSection()
        self.proposal = ProposeSection()
        self.granularity = GranularitySection()
        self.regions = RegionsSection()
        self.review = ReviewSection()
        self.edit = EditSection()
        self.history = HistorySection()
        self.explanation = ExplainSection()
        self.export = ExportSection()
        self.show_again = push_button(
            "Show the labels layer again",
            "The layer was deleted; your regions and edits are kept",
        )
        self.tour = TourCard()
        self.recovery = RecoveryBanner()
        self._lay_out()

    def show_help(self) -> None:
        """Show every key and mouse gesture."""
        HelpOverlay(self).show()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 6, 6)
        column.setSpacing(2)
        for part in (
            self.tour,
            self.recovery,
            self.scan,
            self.proposal,
            self.granularity,
            self.show_again,
            self.regions,
            self.review,
            self.edit,
            self.history,
            self.explanation,
            self.export,
        ):
            if part is not self.scan and isinstance(part, Section):
                column.addWidget(_line())
            column.addWidget(part, 1 if part is self.regions else 0)


class PanelLayout(QScrollArea):
    """The sections in a frame that scrolls if the window is too low."""

    undocked = Signal()
    """Emitted when the panel leaves its dock: all that napari does when it is closed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._was_shown = False
        self.sections = sections = PanelSections()
        sections.tour.stop_shown.connect(
            lambda name: self.ensureWidgetVisible(getattr(sections, name))
        )
        self.setWidget(sections)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for shown, text in (
            (sections.explanation.answered, sections.explanation.answer),
            (sections.export.result_shown, sections.export.result),
        ):
            scroll = partial(self.ensureWidgetVisible, text)
            shown.connect(single_shot(self, _SCROLL_MS, scroll).start)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Keep the panel as wide as its rows need, with any font and theme of napari."""
        if (
            watched is self.sections
            and event is not None
            and event.type() == QEvent.Type.LayoutRequest
        ):
            self.setMinimumWidth(self.sizeHint().width())
        return bool(super().eventFilter(watched, event))

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Emit `undocked` when the panel is left without a parent."""
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
            self.sections.tour.begin()
        self._was_shown = True

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size whose width clips nothing."""
        width = self.sections.minimumSizeHint().width()
        width += self.verticalScrollBar().sizeHint().width() + _MARGIN_PIXELS
        return QSize(width, _HEIGHT_PIXELS)


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFrameShadow(QFrame.Shadow.Plain)
    line.setFixedHeight(1)
    return line
