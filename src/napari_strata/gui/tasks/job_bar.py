"""The progress of a job beside the button that started it."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QSizePolicy, QWidget

from napari_strata.gui.tasks.jobs import JobRunner, Place
from napari_strata.gui.tasks.worker import ProgressStep

_STAGES: Mapping[str, tuple[float, float]] = {
    "Starting": (0.0, 0.01),
    "Loading the engine": (0.01, 0.02),
    "finding the body": (0.02, 0.06),
    "mixture of classes": (0.06, 0.4),
    "encoding": (0.06, 0.5),
    "Markov random field": (0.4, 0.6),
    "supervoxels": (0.5, 0.75),
    "descriptors": (0.75, 0.8),
    "tree of tissues": (0.8, 0.9),
    "trees": (0.8, 0.97),
    "tree of regions": (0.9, 0.97),
    "Cutting the tree": (0.97, 0.98),
    "Preparing the edits": (0.98, 0.99),
    "Painting the labels": (0.99, 1.0),
}
"""Where the stages of a proposal begin and end, as shares of its usual time on a CPU."""
_COUNTED = "encoding"
"""The stage whose steps take equally long."""
_PER_MILLE = 1000


def share_done(step: ProgressStep) -> float | None:
    """Return how much of a job is done, from 0 to 1; None if that is not known."""
    if step.stage in _STAGES:
        start, end = _STAGES[step.stage]
        is_counted = step.stage == _COUNTED and step.total > 0
        part = step.done / step.total if is_counted else 0.0
        return start + (end - start) * part
    return step.done / step.total if step.total > 1 else None


class JobBar(QWidget):
    """A bar with the stage of a job in it, and a button to cancel it.

    Its place is kept free while nothing runs, so that buttons do not move.

    Parameters
    ----------
    place : str
        Jobs that were started there are shown.
    """

    def __init__(self, place: Place, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._place = place
        self._share = 0.0
        self.bar = QProgressBar()
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.bar.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop; nothing is changed")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.setSizePolicy(policy)
        self.hide()

    def follow(self, jobs: JobRunner) -> None:
        """Show the jobs of a runner that were started at this place."""
        self.cancel.clicked.connect(jobs.cancel)
        jobs.running_changed.connect(
            lambda running: self._show_running(running and jobs.place == self._place)
        )
        jobs.progressed.connect(self.show_step)

    def show_step(self, step: ProgressStep) -> None:
        """Show the progress; the bar never goes back."""
        share = share_done(step)
        if share is not None:
            self._share = max(self._share, share)
        is_unknown = share is None and self._share == 0.0
        self.bar.setRange(0, 0 if is_unknown else _PER_MILLE)
        self.bar.setValue(round(_PER_MILLE * self._share))
        self.bar.setFormat(step.stage or " ")

    def _show_running(self, is_running: bool) -> None:
        self._share = 0.0
        self.setVisible(is_running)
