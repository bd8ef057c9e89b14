"""Dialogs of the panel: which file, and whether work may be replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path
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
    if chosen:
        remember_folder(Path(chosen).parent)
    return _with_suffix(chosen, CASE_SUFFIX)


def ask_open_path(parent: QWidget) -> Path | None:
    """Ask which case to open; None if the dialog is cancelled."""
    folder = str(last_folder() or "")
    chosen, _ = QFileDialog.getOpenFileName(parent, "Open case", folder, CASE_FILTER)
    return _opened(chosen)


def ask_scan_path(parent: QWidget) -> Path | None:
    """Ask which scan to open; None if the dialog is cancelled."""
    folder = str(last_folder("scans") or "")
    chosen, _ = QFileDialog.getOpenFileName(parent, "Open scan", folder, SCAN_FILTER)
    return _opened(chosen, "scans")


def ask_scan_folder(parent: QWidget) -> Path | None:
    """Ask which folder of DICOM files to open; None if the dialog is cancelled."""
    folder = str(last_folder("scans") or "")
    chosen = QFileDialog.getExistingDirectory(parent, "Open DICOM folder", folder)
    return _opened(chosen, "scans")


def ask_doubled_name(parent: QWidget, name: str) -> Literal["merge", "keep", "cancel"]:
    """Ask what a name means that another region has already; the default is to merge."""
    box = QMessageBox(parent)
    box.setWindowTitle("Rename")
    box.setText(f"Another region is called '{name}'. Merge this region into it?")
    role = QMessageBox.ButtonRole
    merge = box.addButton("Merge", role.AcceptRole)
    keep = box.addButton("Keep both", role.ActionRole)
    box.addButton("Cancel", role.RejectRole)
    box.setDefaultButton(merge)
    box.exec()
    answers: dict[object, Literal["merge", "keep"]] = {merge: "merge", keep: "keep"}
    return answers.get(box.clickedButton(), "cancel")


def last_folder(kind: str = "results") -> Path | None:
    """Return the folder that was used last for "results" or "scans", if it still exists."""
    try:
        text = _folder_note(kind).read_text(encoding="utf-8").strip()
        return Path(text) if text and Path(text).is_dir() else None
    except (OSError, ValueError):
        return None


def remember_folder(folder: Path, kind: str = "results") -> None:
    """Remember a folder for the next dialog, and the next session.

    If that cannot be written, the next dialog opens beside the scan.
    """
    note = _folder_note(kind)
    with contextlib.suppress(OSError, ValueError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(folder.absolute()), encoding="utf-8")


def _folder_note(kind: str) -> Path:
    return user_config_path("napari-strata") / f"last-folder-{kind}"


def _opened(chosen: str, kind: str = "results") -> Path | None:
    """Return a path that was chosen, and remember its folder."""
    if not chosen:
        return None
    remember_folder(Path(chosen).parent, kind)
    return Path(chosen)


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
    """Suggest a file named like a scan, in the folder used last or beside the scan."""
    folder = last_folder()
    if volume is None or not volume.path:
        return (folder or Path()) / f"scan{ending}"
    scan = Path(volume.path)
    name = f"{printable(scan.name.split('.')[0]) or 'scan'}{ending}"
    return (folder or scan.parent) / name


def _with_suffix(chosen: str, suffix: str) -> Path | None:
    if not chosen:
        return None
    path = Path(chosen)
    return path if path.suffix else path.with_name(path.name + suffix)
