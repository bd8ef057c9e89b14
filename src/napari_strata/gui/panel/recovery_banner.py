"""Offers unsaved work on a scan that a crash or a closed window left behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import FunctionWorker
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget
from superqt.utils import create_worker

from napari_strata.errors import CaseError
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.worker import Opened, resume_body
from napari_strata.gui.widgets.sections import push_button, row_of
from napari_strata.refine.session.recovery import Unfinished, find_unfinished
from napari_strata.volume import Volume

if TYPE_CHECKING:
    import napari.layers


class RecoveryBanner(QFrame):
    """Shows what was unfinished, and asks whether to continue it."""

    resume_asked = Signal()
    discard_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.resume = push_button(
            "Continue", "Open the scan's regions as they were, with their history"
        )
        self.discard = push_button(
            "Delete", "Delete the unsaved work from the disk; this cannot be undone"
        )
        self.later = push_button(
            "Later", "Leave it on the disk; it is offered when the scan is opened again"
        )
        column = QVBoxLayout(self)
        column.addWidget(self.words)
        column.addLayout(row_of(self.resume, self.later, self.discard))
        self.resume.clicked.connect(self.resume_asked)
        self.discard.clicked.connect(self.discard_asked)
        self.later.clicked.connect(self.hide)
        self.hide()

    def offer(self, unfinished: Unfinished) -> None:
        """Show what was unfinished."""
        when = f"{unfinished.changed:%Y-%m-%d %H:%M}"
        if not unfinished.edits:
            self.words.setText(
                f"Regions of this scan were proposed on {when} and not edited. Continue"
                " with them?"
            )
            self.show()
            return
        self.words.setText(
            f"Unsaved work on this scan: {unfinished.edits} edits that are in no case"
            f" file, the last on {when} ({unfinished.last})."
        )
        self.show()


class RecoveryController(QObject):
    """Looks for unsaved work whenever another scan is taken in hand.

    Parameters
    ----------
    card : RecoveryBanner
        Asks the person.
    jobs : JobRunner
        Opens the work in a thread.
    """

    resumed = Signal(object, object)
    """Emitted with the scan's layer and what was opened."""

    def __init__(self, card: RecoveryBanner, jobs: JobRunner) -> None:
        super().__init__(card)
        self._card = card
        self._jobs = jobs
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._unfinished: Unfinished | None = None
        card.resume_asked.connect(self._resume)
        card.discard_asked.connect(self._discard)

    def look(
        self,
        image: napari.layers.Image | None,
        volume: Volume | None,
        folder: Path | None,
    ) -> None:
        """Look for unsaved work on a scan, in a thread."""
        if image is self._image:
            return
        self._image, self._volume, self._unfinished = image, volume, None
        self._card.hide()
        if image is not None and volume is not None and volume.path:
            create_worker(
                _find,
                image,
                volume,
                folder,
                _connect={"returned": self._on_answer},
                _worker_class=FunctionWorker,
            )

    def _on_answer(self, answer: tuple[napari.layers.Image, Unfinished | None]) -> None:
        image, unfinished = answer
        if unfinished is not None and image is self._image:
            self._unfinished = unfinished
            self._card.offer(unfinished)

    def _resume(self) -> None:
        unfinished, image, volume = self._unfinished, self._image, self._volume
        self._card.hide()
        if unfinished is not None and image is not None and volume is not None:
            with notify_errors():
                self._jobs.start(
                    partial(resume_body, unfinished, volume),
                    partial(self._on_resumed, image),
                )

    def _on_resumed(self, image: napari.layers.Image, opened: Opened) -> None:
        self.resumed.emit(image, opened)

    def _discard(self) -> None:
        self._card.hide()
        if self._unfinished is not None:
            with notify_errors():
                self._unfinished.discard()


def _find(
    image: napari.layers.Image, volume: Volume, folder: Path | None
) -> tuple[napari.layers.Image, Unfinished | None]:
    try:
        unfinished = find_unfinished(volume, folder=folder, proposals=True)
    except (CaseError, OSError):
        # what cannot be read cannot be offered, but the scan must open
        unfinished = []
    return image, unfinished[0] if unfinished else None
