"""Controller of the granularity slider."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, QTimer

from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.widgets.granularity import GranularitySection
from napari_strata.proposal.proposal import TreeName

_SLIDER_MS = 15
"""Delay between a move of the slider and its cut; moves in between are one cut."""


class GranularityController(QObject):
    """Cuts the case's tree where the slider stands, only once while an edit runs.

    Parameters
    ----------
    section : GranularitySection
        The slider.
    case : callable
        Returns the case in hand, None if there is none.
    """

    def __init__(
        self, section: GranularitySection, *, case: Callable[[], ScanCase | None]
    ) -> None:
        super().__init__(section)
        self._section = section
        self._case = case
        self._pending: tuple[TreeName, int] | None = None
        self._timer = single_shot(self, _SLIDER_MS, self.send_when_idle)
        section.cut_asked.connect(self._on_cut_asked)

    @property
    def timer(self) -> QTimer:
        """The timer between a move of the slider and its cut."""
        return self._timer

    def send(self) -> None:
        """Submit the last cut that the slider asked for, if it was not submitted yet."""
        pending, self._pending = self._pending, None
        if pending is not None and (case := self._case()) is not None:
            tree, n = pending
            case.submit(partial(case.work.cut, **{tree: n}))

    def send_when_idle(self) -> None:
        """Submit the last cut unless an edit runs, so that a drag never queues cuts."""
        case = self._case()
        if case is not None and self._pending is not None and not case.queue.is_busy:
            self.send()

    def show(self, case: ScanCase | None) -> None:
        """Show the granularity of a case."""
        if case is None:
            self._section.forget_proposal()
            return
        self._section.show_proposal(case.work.proposal)
        if self._pending is None and not case.queue.is_busy:
            self._section.show_cut(case.work.view.tree, case.work.view.granularity)

    def _on_cut_asked(self, tree: TreeName, n: int) -> None:
        if self._case() is not None:
            self._pending = (tree, n)
            if not self._timer.isActive():
                self._timer.start()
