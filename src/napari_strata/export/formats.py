"""The table of export formats: command line, window and Python all choose from it.

To add a format, write one module with an `ExportFormat` and add it to `EXPORT_FORMATS`.
A new file type for label voxels also gets a writer in `io/files.py`. The help of
`strata convert -o` names every suffix (a test compares it).
napari's own File > Save asks napari.yaml: add the suffix to a writer there (a test
compares the two).
"""

from __future__ import annotations

from pathlib import Path

from napari_strata.export.base import ExportFormat
from napari_strata.export.dicom_seg import DICOM_SEG
from napari_strata.export.itksnap import ITKSNAP_DESCRIPTION
from napari_strata.export.label_volumes import NIFTI, OTHER_VOLUMES, SLICER_SEGMENTATION
from napari_strata.export.mesh_files import SURFACES
from napari_strata.export.tables import MEASURES_TABLE
from napari_strata.io.atomic import file_suffix

EXPORT_FORMATS: tuple[ExportFormat, ...] = (
    NIFTI,
    SLICER_SEGMENTATION,
    DICOM_SEG,
    OTHER_VOLUMES,
    SURFACES,
    ITKSNAP_DESCRIPTION,
    MEASURES_TABLE,
)
"""All export formats, in the order in which the file dialog lists them."""

FORMATS_BY_NAME = {
    export_format.name: export_format for export_format in EXPORT_FORMATS
}
"""Export formats by their name for people."""

EXPORT_SUFFIXES = tuple(
    suffix for export_format in EXPORT_FORMATS for suffix in export_format.suffixes
)
"""Suffixes of all export formats, in lower case."""

_FORMATS_BY_SUFFIX = {
    suffix: export_format
    for export_format in EXPORT_FORMATS
    for suffix in export_format.suffixes
}


def format_of(path: str | Path) -> ExportFormat | None:
    """Return the export format that a file name ends in; None if no format does."""
    return _FORMATS_BY_SUFFIX.get(file_suffix(path))


def content_without_voxels(path: str | Path) -> str:
    """Return what an exported file holds instead of voxels, such as "a mesh".

    Empty if the file may hold voxels.
    """
    suffix = file_suffix(path)
    return next(
        (
            export_format.content
            for export_format in EXPORT_FORMATS
            if suffix in (*export_format.suffixes, *export_format.companions)
        ),
        "",
    )
