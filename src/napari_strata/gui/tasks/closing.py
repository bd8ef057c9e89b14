"""What is said before a window is closed in the middle of something."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMainWindow, QMessageBox, QWidget

from napari_strata.gui.tasks.jobs import JobRunner

_JOBS = {
    "proposal": "Regions are being proposed; closing stops that.",
    "scan": "A scan is being opened or shown; closing stops that.",
    "explanation": "A region is being explained; closing stops that.",
    "export": "A file is being opened; closing stops that.",
}
_WRITING = "A file is being written; it is finished first."


def closing_words(place: str | None, *, is_writing: bool, edits: int) -> str:
    """Return what closing the window means, "" if nothing is under way.

    Parameters
    ----------
    place : str or None
        Where the running job was started; None if none runs.
    is_writing : bool
        Whether the job writes a file.
    edits : int
        Number of edits that no case file holds.
    """
    if place is None:
        return ""
    words = _WRITING if is_writing else _JOBS[place]
    if edits:
        kept = "1 edit is" if edits == 1 else f"{edits} edits are"
        words += f" Your {kept} kept and offered when the scan is opened again."
    return words


class ClosingQuestion(QObject):
    """Asks before the main window around the panel is closed while a job runs.

    Parameters
    ----------
    panel : QWidget
        The panel; the question belongs to its main window.
    jobs : JobRunner
        Whose job may be running.
    count_edits : callable
        Returns the number of edits that no case file holds.
    """

    def __init__(
        self, panel: QWidget, jobs: JobRunner, count_edits: Callable[[], int]
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._jobs = jobs
        self._count_edits = count_edits
        self._window: QMainWindow | None = None
        jobs.running_changed.connect(self._watch)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Ask, and close the window if the answer is yes."""
        if (
            event is None
            or event.type() != QEvent.Type.Close
            or not event.spontaneous()
        ):
            return False
        place = self._jobs.place if self._jobs.is_running else None
        words = closing_words(
            place, is_writing=self._jobs.is_writing, edits=self._count_edits()
        )
        window = self._window
        if not words or window is None:
            return False
        event.ignore()
        if ask_close(window, words):
            QTimer.singleShot(0, window.close)
        return True

    def _watch(self, is_running: bool) -> None:
        """Follow the window only while a job runs."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        if is_running:
            part: QWidget | None = self._panel
            while part is not None and not isinstance(part, QMainWindow):
                part = part.parentWidget()
            if part is not None:
                self._window = part
                part.installEventFilter(self)


def ask_close(parent: QWidget, words: str) -> bool:
    """Ask whether the window is closed; the default answer is No."""
    box = QMessageBox(parent)
    box.setWindowTitle("Close the window?")
    box.setText(words)
    close = box.addButton("Close", QMessageBox.ButtonRole.AcceptRole)
    stay = box.addButton("Stay", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(stay)
    box.exec()
    return box.clickedButton() is close
