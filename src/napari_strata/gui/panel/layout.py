"""How the sections of the panel are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_strata.gui.panel.recovery_banner import RecoveryBanner
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

_PAGE_PIXELS = 200
"""Height below which a page of the panel scrolls."""
_MARGIN_PIXELS = 8
"""Room to the right of the sections, beside the scroll bar."""
_HEIGHT_PIXELS = 900
"""Height the panel asks for; napari gives it what the window has."""


class PanelSections(QWidget):
    """The sections of the panel: in tabs, and the export below them."""

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

    def show_section(self, name: str) -> None:
        """Bring the tab with a section to the front; the export is always in view."""
        section = getattr(self, name)
        for number, (_, parts) in enumerate(self._pages):
            if section in parts:
                self.tabs.setCurrentIndex(number)

    def _lay_out(self) -> None:
        """Put the sections in tabs, so that none has to be scrolled for in a low window."""
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 2, 6, 6)
        column.setSpacing(2)
        self._pages: tuple[tuple[str, tuple[QWidget, ...]], ...] = (
            ("Scan", (self.scan, self.proposal)),
            (
                "Regions",
                (
                    self.granularity,
                    self.show_again,
                    self.regions,
                    self.review,
                    self.edit,
                ),
            ),
            ("Explain and history", (self.explanation, self.history)),
        )
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        for title, parts in self._pages:
            self.tabs.addTab(_page(parts, self.regions), title)
        for part in (self.tour, self.recovery, self.tabs, self.export):
            column.addWidget(part, 1 if part is self.tabs else 0)


def _page(parts: Sequence[QWidget], stretched: QWidget) -> QWidget:
    """Return sections one below the other; they scroll only in a window that is very low."""
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    for number, part in enumerate(parts):
        if number and isinstance(part, Section):
            column.addWidget(_line())
        column.addWidget(part, 1 if part is stretched else 0)
    if stretched not in parts:
        column.addStretch(1)
    scroll = PageScroll()
    scroll.setWidget(page)
    return scroll


class PageScroll(QScrollArea):
    """A page of the panel that is never wider than the panel."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Return a size whose width clips nothing."""
        page = self.widget()
        width = 0 if page is None else page.minimumSizeHint().width()
        bar = self.verticalScrollBar()
        room = 0 if bar is None else bar.sizeHint().width()
        return QSize(width + room, _PAGE_PIXELS)


class PanelLayout(QScrollArea):
    """The sections in a frame that scrolls if the window is too low."""

    undocked = Signal()
    """Emitted when the panel leaves its dock: all that napari does when it is closed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._was_shown = False
        self.sections = sections = PanelSections()
        sections.tour.stop_shown.connect(sections.show_section)
        self.setWidget(sections)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        sections.explanation.answered.connect(
            partial(sections.show_section, "explanation")
        )

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
