"""The explanation that appears when the cursor rests on a region, if switched on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.qt.threading import FunctionWorker
from qtpy.QtCore import QObject, QPoint
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip, QWidget
from superqt.utils import create_worker

from napari_strata.errors import StrataError
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.explanation_tasks import ExplainRequest, explanation_text
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    import napari.viewer

REST_MS = 700
"""Rest of the cursor before a region is explained: longer than a pause in a movement."""
_STILL_PIXELS = 4
"""A resting hand moves the mouse by up to this much."""


class HoverCard(QObject):
    """Explains the region under a resting cursor, in a thread.

    The text appears beside the cursor and goes when the mouse moves on.

    Parameters
    ----------
    parent : QWidget
        Qt parent; its style is that of the text.
    case : callable
        Returns the case in hand, None if there is none.
    is_enabled : callable
        Returns whether hover explanations are switched on.
    """

    def __init__(
        self,
        parent: QWidget,
        *,
        case: Callable[[], ScanCase | None],
        is_enabled: Callable[[], bool],
    ) -> None:
        super().__init__(parent)
        self._parent = parent
        self._case = case
        self._is_enabled = is_enabled
        self._timer = single_shot(self, REST_MS, self.explain_now)
        self._position = QPoint()
        self._region: int | None = None
        self.is_working = False
        """Whether an explanation is being made."""

    def on_move(self, viewer: napari.viewer.Viewer, event: Any) -> None:
        """Note the region under the mouse (2D only)."""
        self._timer.stop()
        self._region, case = None, self._case()
        if (
            not self._is_enabled()
            or case is None
            or not case.is_shown
            or viewer.dims.ndisplay != 2
        ):
            return
        region = case.region_under(
            event.position, event.view_direction, list(event.dims_displayed)
        )
        if region is not None and region != BACKGROUND:
            self._region, self._position = region, QCursor.pos()
            self._timer.start()

    def close(self) -> None:
        """Show nothing any more."""
        self._timer.stop()
        self._region = None

    def explain_now(self) -> None:
        """Explain the region under the cursor now."""
        case = self._case()
        if (
            case is None
            or not case.is_shown
            or self._region is None
            or not self._is_still()
        ):
            return
        if self.is_working:
            # one explanation at a time: ask again later
            self._timer.start()
            return
        work, self.is_working = case.work, True
        names = {row.id: row.name for row in work.regions}
        request = ExplainRequest(
            work.proposal,
            work.view.table.copy(),
            work.view.tree,
            self._region,
            "card",
            names,
        )
        create_worker(
            partial(_explain, request),
            _connect={"returned": self._on_text, "finished": self._on_finished},
            _worker_class=FunctionWorker,
        )

    def _on_text(self, answer: tuple[int, str]) -> None:
        region, text = answer
        if text and region == self._region and self._is_still():
            QToolTip.showText(self._position, text, self._parent)

    def _on_finished(self) -> None:
        self.is_working = False

    def _is_still(self) -> bool:
        return bool((QCursor.pos() - self._position).manhattanLength() <= _STILL_PIXELS)


def _explain(request: ExplainRequest) -> tuple[int, str]:
    """Explain a region; "" if an edit removed it meanwhile."""
    try:
        return request.region or BACKGROUND, explanation_text(request)
    except StrataError:
        return request.region or BACKGROUND, ""
