"""The small sections of the panel, which show a state and emit the user's requests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_strata.export.formats import FORMATS_BY_NAME
from napari_strata.gui.actions import shortcut
from napari_strata.gui.canvas.orientation import PLANES
from napari_strata.gui.canvas.window_presets import preset_names
from napari_strata.gui.preferences import run_settings
from napari_strata.gui.tasks.job_bar import JobBar
from napari_strata.gui.widgets.forms import form_values, settings_form
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Modality

_RESULT_LINES = 2
"""Lines kept free for what was written; the tooltip holds all of a longer text."""
MODALITIES: tuple[tuple[str, Modality], ...] = (("MR", "mr"), ("CT (HU)", "ct"))


class Section(QWidget):
    """A part of the panel, with a title unless its buttons say enough."""

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(0, 4, 0, 4)
        self.body.setSpacing(4)
        if title:
            self.body.addWidget(QLabel(f"<b>{title}</b>", self))


def push_button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that may shrink with the panel and never wraps its text."""
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.setCheckable(checkable)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


def row_of(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    row = QHBoxLayout()
    row.setSpacing(4)
    for widget in widgets:
        row.addWidget(widget)
    return row


def narrow_combo() -> QComboBox:
    """Return a combo box that does not widen the panel for a long file name."""
    combo = QComboBox()
    combo.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


class ScanSection(Section):
    """Which scan is worked on, its window, and which planes are shown."""

    scan_chosen = Signal(int)
    open_file_asked = Signal()
    open_folder_asked = Signal()
    modality_chosen = Signal(str)
    window_chosen = Signal(str)
    plane_asked = Signal(str)
    volume_view_asked = Signal()
    planes_asked = Signal(bool)
    ruler_asked = Signal(bool)
    surfaces_asked = Signal()
    compare_asked = Signal()
    position_asked = Signal(str)
    help_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Scan", parent)
        self.scans, self.modality, self.preset = (
            narrow_combo(),
            narrow_combo(),
            narrow_combo(),
        )
        self.scans.setToolTip("The 3D image layer to work on")
        self.modality.setToolTip(
            "What the grey values mean: MR (no unit) or CT in Hounsfield units"
        )
        self.preset.setToolTip(
            "Grey-value window (Alt+1, Alt+2 ...); drag with the right mouse button to"
            " change it by hand"
        )
        for text, value in MODALITIES:
            self.modality.addItem(text, value)
        self.open_file = push_button(
            "Open scan…", "Open a scan file, in the background"
        )
        self.open_folder = push_button(
            "DICOM folder…",
            "Open a folder of DICOM files, in the background",
        )
        self.help = push_button(
            "Keys and help", f"Show every key and mouse gesture ({shortcut('keys')})"
        )
        self.readout = QLabel(" ")
        self.readout.setToolTip(
            "Position of the cursor in the patient (mm) and the intensity there"
        )
        self.readout.setWordWrap(True)
        self.readout.setMinimumHeight(2 * self.readout.fontMetrics().lineSpacing())
        self.position = QLineEdit()
        self.position.setPlaceholderText("Go to mm: L 12 P 30 S 5, or S 15")
        self.position.setToolTip(
            "A position in the patient, as in the line below, or three numbers: right,"
            " anterior, superior. Enter goes there"
        )
        self._make_buttons()
        self._lay_out()
        self._connect()

    def show_scans(
        self,
        names: Sequence[str],
        current: int,
        *,
        none: str = "Open a scan, or drop one on the canvas",
    ) -> None:
        """List the scans; `current` is -1 for none.

        `none` is the text to show if there are none.
        """
        shown = list(names) or [none]
        if shown != [self.scans.itemText(row) for row in range(self.scans.count())]:
            self.scans.clear()
            self.scans.addItems(shown)
        self.scans.setCurrentIndex(max(current, 0))
        for part in (
            self.scans,
            self.modality,
            self.preset,
            self.position,
            *self.buttons.values(),
        ):
            part.setEnabled(bool(names))

    def show_modality(self, modality: Modality) -> None:
        """Show a modality and its window presets."""
        self.modality.setCurrentIndex(
            [value for _, value in MODALITIES].index(modality)
        )
        self.preset.clear()
        self.preset.addItems(preset_names(modality))

    def _make_buttons(self) -> None:
        facing = "upright, patient's left on the right"
        texts = {
            "axial": (
                "Axial",
                f"Show the axial plane, {facing} ({shortcut('axial')})",
                False,
            ),
            "coronal": (
                "Coronal",
                f"Show the coronal plane, {facing} ({shortcut('coronal')})",
                False,
            ),
            "sagittal": (
                "Sagittal",
                "Show the sagittal plane, upright, front on the left"
                f" ({shortcut('sagittal')})",
                False,
            ),
            "3d": (
                "3D",
                f"Show the scan in 3D from the front ({shortcut('3d')})",
                False,
            ),
            "planes": (
                "Three planes",
                (
                    "Show the other two planes beside this one, linked by a crosshair"
                    f" ({shortcut('three_planes')})"
                ),
                True,
            ),
            "ruler": (
                "Ruler",
                f"Press, drag and release to measure in mm ({shortcut('ruler')})",
                True,
            ),
            "surfaces": (
                "Surfaces",
                "Show the selected regions as surfaces in 3D",
                False,
            ),
            "compare": (
                "Compare",
                (
                    "Show two time points side by side, with the volume changes of"
                    " regions of the same name"
                ),
                False,
            ),
        }
        self.buttons = {
            name: push_button(text, tip, checkable=checkable)
            for name, (text, tip, checkable) in texts.items()
        }

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Scan", self.scans)
        form.addRow("Window", row_of(self.modality, self.preset))
        self.body.addLayout(row_of(self.open_file, self.open_folder, self.help))
        self.body.addLayout(form)
        self.body.addLayout(
            row_of(
                *(self.buttons[name] for name in ("axial", "coronal", "sagittal", "3d"))
            )
        )
        self.body.addLayout(
            row_of(
                *(
                    self.buttons[name]
                    for name in ("planes", "ruler", "surfaces", "compare")
                )
            )
        )
        self.job = JobBar("scan")
        self.body.addWidget(self.job)
        self.body.addWidget(self.position)
        self.body.addWidget(self.readout)

    def _connect(self) -> None:
        self.scans.activated.connect(self.scan_chosen)
        self.open_file.clicked.connect(self.open_file_asked)
        self.open_folder.clicked.connect(self.open_folder_asked)
        self.help.clicked.connect(self.help_asked)
        self.modality.activated.connect(
            lambda row: self.modality_chosen.emit(MODALITIES[row][1])
        )
        self.preset.activated.connect(
            lambda _row: self.window_chosen.emit(self.preset.currentText())
        )
        self.position.returnPressed.connect(
            lambda: self.position_asked.emit(self.position.text())
        )
        for plane in PLANES:
            self.buttons[plane].clicked.connect(
                lambda _checked=False, plane=plane: self.plane_asked.emit(plane)
            )
        self.buttons["3d"].clicked.connect(self.volume_view_asked)
        self.buttons["planes"].toggled.connect(self.planes_asked)
        self.buttons["ruler"].toggled.connect(self.ruler_asked)
        self.buttons["surfaces"].clicked.connect(self.surfaces_asked)
        self.buttons["compare"].clicked.connect(self.compare_asked)


class ProposeSection(Section):
    """Asks for a proposal and shows its progress."""

    propose_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Propose", parent)
        self.propose = push_button(
            "Propose regions",
            "Compute regions of the scan with the encoder; you correct them below",
        )
        self.job = JobBar("proposal")
        self.cancel = self.job.cancel
        self.propose.clicked.connect(self.propose_asked)
        self.body.addWidget(self.propose)
        self.body.addWidget(self.job)
        self._settings_form, self._run_form = (
            settings_form(ProposeSettings()),
            settings_form(run_settings()),
        )
        self._settings_form.margins = self._run_form.margins = (0, 0, 0, 0)
        self.advanced = QCollapsible(
            "Advanced settings", expandedIcon="▾", collapsedIcon="▸"
        )
        self.advanced.setDuration(0)
        self.advanced.addWidget(self._settings_form.native)
        self.advanced.addWidget(self._run_form.native)
        self.body.addWidget(self.advanced)

    def settings(self) -> tuple[ProposeSettings, RunSettings]:
        """Read the forms.

        Raises
        ------
        SettingsError
            If a value is outside its limits.
        """
        return form_values(self._settings_form, ProposeSettings), form_values(
            self._run_form, RunSettings
        )

    def show_running(self, running: bool) -> None:
        """Show whether a job runs."""
        self.propose.setEnabled(not running)


class ExportSection(Section):
    """Asks for exports, and for cases to be saved and opened."""

    export_asked = Signal(str)
    """A key of `napari_strata.export.formats.FORMATS_BY_NAME`."""
    save_asked = Signal()
    result_shown = Signal()
    """Emitted when a result is shown: what was written, or why nothing was."""
    open_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self._enabled, self._is_running = (False, False), False
        self.export = push_button(
            "Export…",
            "Write the labels on the scan's own grid; other formats are in the dialog",
        )
        self.formats = push_button(
            "Format", "Export in one of the formats that Strata writes"
        )
        self.formats.setMenu(QMenu(self.formats))
        for name, export_format in FORMATS_BY_NAME.items():
            self.formats.menu().addAction(
                f"{name} ({', '.join(export_format.suffixes)})",
                lambda name=name: self.export_asked.emit(name),
            )
        self.save = push_button(
            "Save case…", "Save the case with its history, to continue later"
        )
        self.open = push_button("Open case…", "Continue a saved case of this scan")
        self.export.clicked.connect(
            lambda: self.export_asked.emit(next(iter(FORMATS_BY_NAME)))
        )
        self.save.clicked.connect(self.save_asked)
        self.open.clicked.connect(self.open_asked)
        self.job = JobBar("export")
        self.result = QLabel()
        self.result.setWordWrap(True)
        self.result.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.result.setFixedHeight(
            _RESULT_LINES * self.result.fontMetrics().lineSpacing()
        )
        self.result.setTextFormat(Qt.TextFormat.PlainText)
        self.body.addLayout(row_of(self.export, self.formats, self.save, self.open))
        # the bar of a job stands where its result will stand
        line = QGridLayout()
        line.addWidget(self.result, 0, 0)
        line.addWidget(self.job, 0, 0)
        self.body.addLayout(line)
        self.show_result("")

    @property
    def buttons(self) -> dict[str, QPushButton]:
        """The buttons that actions and icons refer to, by name."""
        return {"export": self.export, "save": self.save, "open": self.open}

    def enable(self, has_regions: bool, has_scan: bool) -> None:
        """Enable writing if there are regions, and opening if there is a scan."""
        self._enabled = has_regions, has_scan
        self._show_enabled()

    def show_running(self, running: bool) -> None:
        """Show whether a job runs: a second press must not start a second one."""
        self._is_running = running
        self._show_enabled()

    def _show_enabled(self) -> None:
        has_regions, has_scan = self._enabled
        for part in (self.export, self.formats, self.save):
            part.setEnabled(has_regions and not self._is_running)
        self.open.setEnabled(has_scan and not self._is_running)

    def show_result(self, text: str) -> None:
        """Show what was written, or why nothing was; "" removes it."""
        # zero-width spaces let a long path wrap, so that the panel does not get wider
        self.result.setText(re.sub(r"([/\\_.-])", "\\1\u200b", text))
        self.result.setToolTip(text)
        if text:
            self.result_shown.emit()
