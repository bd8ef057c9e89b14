"""Headers of a DICOM series through pydicom (extra `dicom`), for what refers to the series: a DICOM SEG."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_strata.errors import ReadError, WriteError
from napari_strata.io.dicom import series_files

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

_OFTEN_MISSING = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""What every image carries, be it empty, but anonymisers take out."""


def read_headers(path: str | Path, series: str | None = None) -> tuple[Dataset, ...]:
    """Read the headers of a series, slices in the order of `read`'s own grid, without the voxels.

    Empty UIDs, which some anonymisers leave, are mended: those of an image from its file's head, those of study, series
    and frame of reference by new ones that depend on the images' UIDs only; a warning tells of study and series.

    Parameters
    ----------
    path : str or Path
        A folder, or one file of the series inside its folder.
    series : str or None
        SeriesInstanceUID; needed where a folder holds several.

    Raises
    ------
    WriteError
        If pydicom is not installed.
    ReadError
        If there is no such series, or its images name no storage class or instance.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError as err:
        raise WriteError("DICOM SEG needs highdicom and pydicom: install napari-strata[dicom].") from err
    files, headers = series_files(path, series), []
    for file in files:
        try:
            headers.append(dcmread(file, stop_before_pixels=True))
        except (InvalidDicomError, OSError) as err:
            raise ReadError(f"{file} is no DICOM file with a head. Export the series again.") from err
    for header, file in zip(headers, files, strict=True):
        _mend_image(header, file)
    _mend_series(headers, str(path))
    return tuple(headers)


def dicom_errors() -> tuple[type[Exception], ...]:
    """Give what pydicom raises on files that are cut short, damaged or incomplete.

    Raises
    ------
    ImportError
        If pydicom is not installed.
    """
    from pydicom.errors import InvalidDicomError

    return (InvalidDicomError, OSError, EOFError, AttributeError, KeyError)


def _mend_image(header: Dataset, file: Path) -> None:
    for name in _OFTEN_MISSING:
        if name not in header:
            setattr(header, name, "")
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not header.get(name):
            setattr(header, name, header.file_meta.get(f"MediaStorage{name}", ""))
        if not header.get(name):
            raise ReadError(f"{file} has no {name}, so nothing can refer to it. Export the series again, or anonymise it otherwise.")


def _mend_series(headers: Sequence[Dataset], source: str) -> None:
    images = "\n".join(sorted(str(header.SOPInstanceUID) for header in headers))
    told: list[str] = []
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if headers[0].get(name):
            continue
        digest = hashlib.sha256(f"{name}\n{images}".encode()).digest()
        made = f"2.25.{int.from_bytes(digest[:16], 'big')}"
        for header in headers:
            setattr(header, name, made)
        if name != "FrameOfReferenceUID":  # which no archive files by
            told.append(f"{made} stands for its empty {name}")
    if told:
        logger.warning("%s (anonymised?): %s. An archive will not find the series by that.", source, " and ".join(told))
