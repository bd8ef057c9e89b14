"""The explain section of the panel."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QWidget

from napari_strata.gui.preferences import explains_on_hover
from napari_strata.gui.tasks.job_bar import JobBar
from napari_strata.gui.widgets.sections import Section, push_button, row_of

QUESTIONS = {
    "card": (
        "Why?",
        (
            "Explain what holds the selected region together, and what separates it"
            " from its most similar neighbour"
        ),
    ),
    "similarity": ("Similar", "Show where the scan looks like the selected region"),
    "confidence": (
        "Sure",
        "Show the confidence: how clearly each place belongs to its tissue",
    ),
    "features": (
        "Features",
        "Show the encoder's features as colours: similar colours, similar features",
    ),
}


class ExplainSection(Section):
    """Asks why a region is one, and shows the answer as text."""

    asked = Signal(str)
    """A key of `QUESTIONS`."""
    answered = Signal()
    """Emitted when an answer was shown."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Explain", parent)
        self.buttons = {}
        for question, (text, tooltip) in QUESTIONS.items():
            self.buttons[question] = button = push_button(text, tooltip)
            button.clicked.connect(
                lambda _checked=False, question=question: self.asked.emit(question)
            )
        self.body.addLayout(row_of(*self.buttons.values()))
        self.job = JobBar("explanation")
        self.body.addWidget(self.job)
        self.hover = QCheckBox("When the cursor rests on a region")
        self.hover.setToolTip(
            "Show the explanation beside the cursor when it rests on a region"
        )
        self.hover.setChecked(explains_on_hover())
        self.body.addWidget(self.hover)
        self.answer = QLabel()
        self.answer.setWordWrap(True)
        self.answer.setTextFormat(Qt.TextFormat.PlainText)
        self.answer.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.body.addWidget(self.answer)
        self.show_answer("")

    def show_answer(self, text: str) -> None:
        """Show an answer; "" removes it."""
        self.answer.setText(text)
        self.answer.setVisible(bool(text))
        if text:
            self.answered.emit()
