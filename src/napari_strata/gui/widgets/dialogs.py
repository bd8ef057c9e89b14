"""Dialogs of the panel: which file, and whether work may be replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox, QWidget

from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.volume import Volume

SCAN_FILTER = (
    "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.mgh *.mgz *.hdr *.img"
    " *.dcm);;All files (*)"
)
CASE_FILTER = f"Strata case (*{CASE_SUFFIX})"


def ask_case_path(parent: QWidget, volume: Volume | None) -> Path | None:
    """Ask where a case is saved; None if the dialog is cancelled."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent, "Save case", str(beside_scan(volume, CASE_SUFFIX)), CASE_FILTER
    )
    return _with_suffix(chosen, CASE_SUFFIX)


def ask_open_path(parent: QWidget) -> Path | None:
    """Ask which case to open; None if the dialog is cancelled."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Open case", "", CASE_FILTER)
    return Path(chosen) if chosen else None


def ask_scan_path(parent: QWidget) -> Path | None:
    """Ask which scan to open; None if the dialog is cancelled."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Open scan", "", SCAN_FILTER)
    return Path(chosen) if chosen else None


def ask_scan_folder(parent: QWidget) -> Path | None:
    """Ask which folder of DICOM files to open; None if the dialog is cancelled."""
    chosen = QFileDialog.getExistingDirectory(parent, "Open DICOM folder")
    return Path(chosen) if chosen else None


def ask_choice(
    parent: QWidget | None, path: Path, options: Sequence[tuple[str, Mapping[str, Any]]]
) -> Mapping[str, Any] | None:
    """Ask which of several scans to open: return options of `read`, None if cancelled."""
    texts = [f"{number}: {text}" for number, (text, _) in enumerate(options, 1)]
    chosen, is_sure = QInputDialog.getItem(
        parent,
        "Open scan",
        f"{printable(path.name)} holds {len(texts)} scans. Open which one?",
        texts,
        0,
        False,
    )
    return options[texts.index(chosen)][1] if is_sure else None


def with_path(path: Path | None, use: Callable[[Path], None]) -> None:
    """Call `use` with the path of a dialog, unless it was cancelled."""
    if path is not None:
        use(path)


def ask_replace(parent: QWidget) -> bool:
    """Ask whether unsaved edits may be replaced; the default answer is No."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    text = (
        "Edits of this scan are not saved as a case. A new proposal discards them, and"
        " this cannot be undone. Discard them?"
    )
    return bool(
        QMessageBox.question(parent, "Propose regions", text, yes | no, no) == yes
    )


def beside_scan(volume: Volume | None, ending: str) -> Path:
    """Suggest a file beside a scan, named like it."""
    if volume is None or not volume.path:
        return Path(f"scan{ending}")
    scan = Path(volume.path)
    return scan.parent / f"{printable(scan.name.split('.')[0]) or 'scan'}{ending}"


def _with_suffix(chosen: str, suffix: str) -> Path | None:
    if not chosen:
        return None
    path = Path(chosen)
    return path if path.suffix else path.with_name(path.name + suffix)
