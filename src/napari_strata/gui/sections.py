"""The small sections of the panel: each shows a state it is given and tells by signal what a person wants."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_strata.gui.forms import form_values, settings_form
from napari_strata.gui.view import PLANES
from napari_strata.gui.windows import preset_names
from napari_strata.gui.worker import Step
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Modality

MODALITIES: tuple[tuple[str, Modality], ...] = (("MR", "mr"), ("CT (HU)", "ct"))


class Section(QWidget):
    """A titled part of the panel."""

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(0, 4, 0, 4)
        self.body.setSpacing(4)
        heading = QLabel(f"<b>{title}</b>", self)
        self.body.addWidget(heading)


def push_button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Make a button that may shrink with the panel and never clips its text on two lines."""
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.setCheckable(checkable)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


def row_of(*widgets: QWidget) -> QHBoxLayout:
    """Lay widgets side by side."""
    row = QHBoxLayout()
    row.setSpacing(4)
    for widget in widgets:
        row.addWidget(widget)
    return row


def narrow_combo() -> QComboBox:
    """Make a choice that does not force the panel wide when a file has a long name."""
    combo = QComboBox()
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


class ScanSection(Section):
    """Which scan is worked on, how it is windowed and which plane is shown."""

    scan_chosen = Signal(int)
    modality_chosen = Signal(str)
    window_chosen = Signal(str)
    plane_asked = Signal(str)
    volume_view_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Scan", parent)
        self.scans, self.modality, self.preset = narrow_combo(), narrow_combo(), narrow_combo()
        self.scans.setToolTip("The 3D image layer to work on")
        self.modality.setToolTip("What the grey values mean: MR (no unit) or CT in Hounsfield units")
        self.preset.setToolTip("Grey-value window; napari's contrast limits stay free to be dragged")
        for text, value in MODALITIES:
            self.modality.addItem(text, value)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Scan", self.scans)
        form.addRow("Modality", self.modality)
        form.addRow("Window", self.preset)
        self.body.addLayout(form)
        buttons = [push_button(plane.capitalize(), f"Show the {plane} plane, upright, patient's left on the right") for plane in PLANES[:2]]
        buttons.append(push_button("Sagittal", "Show the sagittal plane, upright, front on the left"))
        for plane, button in zip(PLANES, buttons, strict=True):
            button.clicked.connect(lambda _checked=False, plane=plane: self.plane_asked.emit(plane))
        volume_view = push_button("3D", "Show the scan in 3D from the front")
        volume_view.clicked.connect(self.volume_view_asked)
        self.body.addLayout(row_of(*buttons, volume_view))
        self.readout = QLabel(" ")
        self.readout.setToolTip("Position of the cursor in the patient (mm) and the value there")
        self.readout.setWordWrap(True)
        self.readout.setMinimumHeight(2 * self.readout.fontMetrics().lineSpacing())
        self.body.addWidget(self.readout)
        self.scans.activated.connect(self.scan_chosen)
        self.modality.activated.connect(lambda row: self.modality_chosen.emit(MODALITIES[row][1]))
        self.preset.activated.connect(lambda _row: self.window_chosen.emit(self.preset.currentText()))

    def show_scans(self, names: Sequence[str], current: int) -> None:
        """List the scans; `current` is -1 for none."""
        self.scans.clear()
        self.scans.addItems(list(names) or ["Open a scan, or drop one on the canvas"])
        self.scans.setCurrentIndex(max(current, 0))
        self.setEnabled(bool(names))

    def show_modality(self, modality: Modality) -> None:
        """Show a modality and its window presets."""
        self.modality.setCurrentIndex([value for _, value in MODALITIES].index(modality))
        self.preset.clear()
        self.preset.addItems(preset_names(modality))


class ProposeSection(Section):
    """Asks for a proposal and shows how it goes."""

    propose_asked = Signal()
    cancel_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Propose", parent)
        self.propose = push_button("Propose regions", "Let the encoder look at the scan and propose regions; you correct them below")
        self.cancel = push_button("Cancel", "Stop; nothing is changed")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(10)
        self.stage = QLabel(" ")
        self.stage.setWordWrap(True)
        self.propose.clicked.connect(self.propose_asked)
        self.cancel.clicked.connect(self.cancel_asked)
        self.body.addLayout(row_of(self.propose, self.cancel))
        self.body.addWidget(self.progress)
        self.body.addWidget(self.stage)
        self._settings_form, self._run_form = settings_form(ProposeSettings()), settings_form(RunSettings())
        self._settings_form.margins = self._run_form.margins = (0, 0, 0, 0)
        self.advanced = QCollapsible("Advanced settings", expandedIcon="▾", collapsedIcon="▸")
        self.advanced.setDuration(0)
        self.advanced.addWidget(self._settings_form.native)
        self.advanced.addWidget(self._run_form.native)
        self.body.addWidget(self.advanced)
        self.show_running(False)

    def settings(self) -> tuple[ProposeSettings, RunSettings]:
        """Read the forms.

        Raises
        ------
        SettingsError
            If a value is outside its limits.
        """
        return form_values(self._settings_form, ProposeSettings), form_values(self._run_form, RunSettings)

    def show_running(self, running: bool) -> None:
        """Show whether a job runs."""
        self.propose.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.progress.setVisible(running)
        self.stage.setVisible(running)

    def show_step(self, step: Step) -> None:
        """Show how far the job has come."""
        self.progress.setRange(0, max(step.total, 0))
        self.progress.setValue(step.done)
        self.stage.setText(step.stage or " ")


class ExportSection(Section):
    """Asks for exports and for cases to be saved and opened."""

    export_asked = Signal()
    save_asked = Signal()
    open_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Export", parent)
        self.export = push_button("Export labels…", "Write the labels on the scan's own grid (NIfTI, NRRD, MHA, MGH)")
        self.save = push_button("Save case…", "Save the whole case, with its history, to go on later")
        self.open = push_button("Open case…", "Go on with a saved case of this scan")
        self.export.clicked.connect(self.export_asked)
        self.save.clicked.connect(self.save_asked)
        self.open.clicked.connect(self.open_asked)
        self.body.addWidget(self.export)
        self.body.addLayout(row_of(self.save, self.open))
