"""The export dialog: format, file name, regions, and files that would be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QMessageBox,
    QWidget,
)

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext
from napari_strata.export.formats import EXPORT_SUFFIXES, FORMATS_BY_NAME
from napari_strata.export.per_region import region_paths
from napari_strata.gui.widgets.dialogs import beside_scan, remember_folder
from napari_strata.io.atomic import file_suffix
from napari_strata.volume import Region, Volume


def export_filter(name: str) -> str:
    """Return the file dialog's filter for a format, such as "NIfTI labels (*.nii.gz *.nii)"."""
    return f"{name} ({' '.join(f'*{suffix}' for suffix in FORMATS_BY_NAME[name].suffixes)})"


def chosen_path(chosen: Path, suggested: Path, chosen_format: str) -> Path:
    """Return the path with the suffix of the chosen format if name and format disagree.

    A known suffix that a person typed decides. The dialog's list of formats decides if
    the suggested name was left as it was, or the name has no known suffix.
    """
    if file_suffix(chosen) in FORMATS_BY_NAME[chosen_format].suffixes:
        return chosen
    if chosen == suggested:
        return chosen.with_name(
            chosen.name[: len(chosen.name) - len(file_suffix(chosen))]
            + FORMATS_BY_NAME[chosen_format].suffixes[0]
        )
    return (
        chosen
        if file_suffix(chosen) in EXPORT_SUFFIXES
        else chosen.with_name(chosen.name + FORMATS_BY_NAME[chosen_format].suffixes[0])
    )


def check_format(name: str, volume: Volume | None) -> None:
    """Check that a format can be written, before asking for a file name.

    Raises
    ------
    WriteError
        If the format is DICOM segmentation and the scan is not a DICOM series, or the
        library for it is missing.
    """
    export_format = FORMATS_BY_NAME[name]
    try:
        export_format.check(Path(name), ExportContext(volume))
    except WriteError as err:
        if not export_format.needs_series or volume is None or "highdicom" in str(err):
            raise
        raise WriteError(
            "A DICOM segmentation refers to the DICOM series that was segmented, and"
            f" '{volume.name}' is none. Open the folder of the series, or choose"
            " another format."
        ) from err


@dataclass(frozen=True, slots=True)
class ExportChoice:
    """Where labels go, and which regions of them.

    Parameters
    ----------
    path : Path
        The file; its suffix is the format.
    regions : frozenset of int or None
        The regions that are written; None for all.
    """

    path: Path
    regions: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class ExportScopes:
    """The regions that an export can be limited to.

    Parameters
    ----------
    regions : tuple of Region
        All regions.
    selected, shown : frozenset of int
        The regions selected in the table, and those that are drawn.
    """

    regions: tuple[Region, ...]
    selected: frozenset[int] = frozenset()
    shown: frozenset[int] = frozenset()

    @property
    def by_name(self) -> dict[str, frozenset[int]]:
        """The regions of "named", "selected", "shown" and "all"."""
        everything = frozenset(row.id for row in self.regions)
        return {
            "named": frozenset(row.id for row in self.regions if row.is_named),
            "selected": self.selected & everything,
            "shown": self.shown & everything,
            "all": everything,
        }

    def default_for(self, name: str) -> str:
        """Return "named" for formats that would be huge with all regions, else "all"."""
        is_limited = FORMATS_BY_NAME[name].named_first and self.by_name["named"]
        return "named" if is_limited else "all"


class ExportDialog(QFileDialog):
    """Asks for a file, its format, and the regions that are written.

    Parameters
    ----------
    parent : QWidget
        Parent of the dialog.
    suggested : Path
        The file that it opens on.
    chosen_format : str
        The key of `FORMATS_BY_NAME` that is selected first.
    scopes : ExportScopes
        What the choice of regions offers.
    """

    def __init__(
        self, parent: QWidget, suggested: Path, chosen_format: str, scopes: ExportScopes
    ) -> None:
        super().__init__(parent, "Export", str(suggested.parent))
        self._scopes = scopes
        self._is_chosen = False
        self._filters = {export_filter(name): name for name in FORMATS_BY_NAME}
        # the choice of regions stands in Qt's own dialog: the system's takes no widgets
        self.setOption(QFileDialog.Option.DontUseNativeDialog, True)
        self.setOption(QFileDialog.Option.DontConfirmOverwrite, True)
        self.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        self.setFileMode(QFileDialog.FileMode.AnyFile)
        self.setNameFilters(list(self._filters))
        self.selectNameFilter(export_filter(chosen_format))
        self.selectFile(suggested.name)
        self.scope = QComboBox()
        self.scope.setToolTip(
            "Which regions are written; the others become background in the file"
        )
        total = len(scopes.regions)
        for name, ids in scopes.by_name.items():
            count = f"{len(ids)} of {total} regions"
            self.scope.addItem(f"{name}: {count}", name)
            item = self.scope.model().index(self.scope.count() - 1, 0)
            if not ids:
                self.scope.model().setData(item, 0, Qt.ItemDataRole.UserRole - 1)
        self.scope.activated.connect(self._on_chosen)
        self.filterSelected.connect(self._on_filter)
        self._on_filter()
        layout = self.layout()
        if isinstance(layout, QGridLayout):
            row = layout.rowCount()
            layout.addWidget(QLabel("Regions:"), row, 0)
            layout.addWidget(self.scope, row, 1)

    @property
    def chosen_format(self) -> str:
        """The key of `FORMATS_BY_NAME` that is selected."""
        return self._filters[self.selectedNameFilter()]

    @property
    def regions(self) -> frozenset[int] | None:
        """The chosen regions, None for all."""
        name = str(self.scope.currentData())
        return None if name == "all" else self._scopes.by_name[name]

    def _on_chosen(self) -> None:
        self._is_chosen = True

    def _on_filter(self, _text: str = "") -> None:
        """Choose the regions that are usual for the format, unless a person chose."""
        if not self._is_chosen:
            usual = self._scopes.default_for(self.chosen_format)
            self.scope.setCurrentIndex(self.scope.findData(usual))


def ask_export(
    parent: QWidget,
    volume: Volume | None,
    chosen_format: str,
    scopes: ExportScopes,
) -> ExportChoice | None:
    """Ask where labels go, in which format, and which regions.

    None if the dialog is cancelled, or a file that exists must not be replaced.

    Parameters
    ----------
    parent : QWidget
        Parent of the dialog.
    volume : Volume or None
        The scan, after which the file is named.
    chosen_format : str
        The key of `FORMATS_BY_NAME` that is selected first.
    scopes : ExportScopes
        The regions, and what "{id}" and "{name}" in a name stand for.
    """
    ending = FORMATS_BY_NAME[chosen_format].suffixes[0]
    suggested = beside_scan(volume, f"_{FORMATS_BY_NAME[chosen_format].stem}{ending}")
    dialog = ExportDialog(parent, suggested, chosen_format, scopes)
    is_sure = dialog.exec() == QFileDialog.DialogCode.Accepted
    chosen, name, ids = dialog.selectedFiles(), dialog.chosen_format, dialog.regions
    dialog.deleteLater()
    if not is_sure or not chosen:
        return None
    path = chosen_path(Path(chosen[0]), suggested, name)
    remember_folder(path.parent)
    written = [row for row in scopes.regions if ids is None or row.id in ids]
    existing = [one for one in region_paths(path, written) if one.exists()]
    if existing and not ask_overwrite(parent, existing):
        return None
    return ExportChoice(path, ids)


def ask_overwrite(parent: QWidget, paths: list[Path]) -> bool:
    """Ask whether existing files may be replaced; the default answer is No."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    names = ", ".join(path.name for path in paths[:3]) + (
        f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    )
    text = (
        f"{names} {'is' if len(paths) == 1 else 'are'} already in"
        f" {paths[0].parent}. Replace?"
    )
    return bool(QMessageBox.question(parent, "Export", text, yes | no, no) == yes)
