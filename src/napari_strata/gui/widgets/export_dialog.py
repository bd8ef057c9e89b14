"""The export dialog: format, file name, and files that would be replaced (no layers)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext
from napari_strata.export.formats import EXPORT_SUFFIXES, FORMATS_BY_NAME
from napari_strata.export.per_region import region_paths
from napari_strata.gui.widgets.dialogs import beside_scan
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


def ask_export_path(
    parent: QWidget,
    volume: Volume | None,
    chosen_format: str,
    regions: Iterable[Region],
) -> Path | None:
    """Ask where labels go and in which format.

    None if the dialog is cancelled, or a file that exists must not be replaced.

    Parameters
    ----------
    parent : QWidget
        Parent of the dialog.
    volume : Volume or None
        The scan, beside which it opens.
    chosen_format : str
        The key of `FORMATS_BY_NAME` that is selected first.
    regions : iterable of Region
        What "{id}" and "{name}" in a name stand for.
    """
    ending = FORMATS_BY_NAME[chosen_format].suffixes[0]
    suggested = beside_scan(volume, f"_{FORMATS_BY_NAME[chosen_format].stem}{ending}")
    filters = [export_filter(name) for name in FORMATS_BY_NAME]
    chosen, chosen_filter = QFileDialog.getSaveFileName(
        parent,
        "Export",
        str(suggested),
        ";;".join(filters),
        export_filter(chosen_format),
    )
    if not chosen:
        return None
    name = (
        list(FORMATS_BY_NAME)[filters.index(chosen_filter)]
        if chosen_filter in filters
        else chosen_format
    )
    path = chosen_path(Path(chosen), suggested, name)
    # the dialog asked only about the name that was typed, which may have changed here
    existing = [
        one
        for one in region_paths(path, regions)
        if one.exists() and one != Path(chosen)
    ]
    return None if existing and not ask_overwrite(parent, existing) else path


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
