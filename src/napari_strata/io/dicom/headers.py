"""Headers of a DICOM series for a DICOM SEG: valid values only, through pydicom.

Anonymisers and old archives leave dates, names and identifiers that the standard does
not allow and that no library writes. Such values are left empty, with a warning. UIDs
are references: they are kept wherever a file can hold them, because the archive finds
the series by nothing else.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ReadError
from napari_strata.io.dicom.header_values import quiet_pydicom
from napari_strata.io.dicom.series import series_slices
from napari_strata.io.dicom.slice import (
    HeaderError,
    Slice,
    off_right_angles,
    read_all,
    straight_axes,
)

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

logger = logging.getLogger(__name__)

_EXACT = 1e-3
"""Largest deviation from orthonormal with which directions are kept.

Readers of the segmentation refuse more.
"""

_ALWAYS = (
    *(
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    ),
    "ReferringPhysicianName",
)
"""What every image carries, be it empty, but anonymisers take out."""
_MORE = (
    *(
        "StudyDescription",
        "PhysiciansOfRecord",
        "NameOfPhysiciansReadingStudy",
        "AdmittingDiagnosesDescription",
    ),
    *(
        "ProcedureCodeSequence",
        "IssuerOfAccessionNumberSequence",
        "PositionReferenceIndicator",
    ),
    *(
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StationName",
    ),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName"),
    *(
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    ),
)
_GROUPS = (0x0010, 0x0012, 0x0032, 0x0038)
"""Groups of tags about the patient, the trial, the study and the visit."""
_SEX = ("", "M", "F", "O")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_CARETS = 4
"""Carets in a person's name at most: it has five components."""
_ONE_LINE = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC")
_NAMED_UID = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_VALID_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_INVALID = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    LookupError,
    OverflowError,
    NotImplementedError,
    struct.error,
)
_HIGHEST_NUMBER = 2**31 - 2001
"""Highest series number that is taken over; the SEG's own number lies above it."""


def read_headers(path: str | Path, series: str | None = None) -> tuple[Dataset, ...]:
    """Return the headers that a DICOM SEG of a series needs, slices in the order of `read`.

    Parameters
    ----------
    path : str or Path
        A folder, or one file of the series inside its folder.
    series : str or None
        SeriesInstanceUID; needed where a folder holds several.

    Raises
    ------
    ReadError
        If there is no such series, or its images name no storage class or instance.
    """
    from pydicom import Dataset

    slices = series_slices(path, series)
    first = slices[0]
    try:
        header = read_all(first.path)
    except HeaderError as err:
        raise ReadError(
            f"{first.path} cannot be read: {err}. Export the series again."
        ) from err
    common = Dataset()
    left = _copy_valid(header, common)
    if left:
        logger.warning(
            "%s: left empty in the segmentation, as not valid in the series: %s.",
            path,
            ", ".join(left),
        )
    with no_validation():
        _set_uids(common, slices, str(path))
        common.Rows, common.Columns = first.pixels.rows, first.pixels.columns
        common.Modality = first.modality or "OT"
        common.SeriesNumber = _series_number(header)
        thickness = _thickness(header)
        if thickness:
            common.SliceThickness = thickness
        return tuple(_of_slice(one, common) for one in slices)


@contextmanager
def no_validation() -> Iterator[None]:
    """Switch pydicom's validation of values off.

    Some UIDs are kept although the standard does not allow them.
    """
    from pydicom.config import disable_value_validation

    with quiet_pydicom(), disable_value_validation():
        yield


def dicom_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that pydicom raises on damaged or incomplete files."""
    from pydicom.errors import InvalidDicomError

    return (InvalidDicomError, OSError, EOFError, AttributeError, KeyError)


def _copy_valid(header: Dataset, common: Dataset) -> list[str]:
    """Copy the valid elements about patient, study and scanner.

    Return the names of the others.
    """
    from pydicom.datadict import keyword_for_tag

    left = []
    with quiet_pydicom():
        if not _is_charset_known(header):
            left.append("SpecificCharacterSet")
        for tag in sorted(header.keys()):
            keyword = keyword_for_tag(tag)
            if not keyword or not (
                tag.group in _GROUPS or keyword in (*_ALWAYS, *_MORE)
            ):
                continue
            try:
                element = header[tag]
                _check(element, keyword)
            except _INVALID:
                left.append(keyword)
            else:
                common.add(element)
        for keyword in _ALWAYS:
            if keyword not in common:
                setattr(common, keyword, "")
    return left


def _is_charset_known(header: Dataset) -> bool:
    from pydicom.charset import python_encoding

    raw = (
        header.get_item(0x00080005).value if "SpecificCharacterSet" in header else None
    )
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw or "")
    return all(part.strip(" \0") in python_encoding for part in text.split("\\"))


def _check(element: DataElement, keyword: str) -> None:
    """Raise one of `_INVALID` if a value, or one in a sequence, is not valid."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VM, keyword_for_tag
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element
    from pydicom.valuerep import validate_value

    if element.VR == "SQ":
        for item in element.value:
            for inner in item:
                _check(inner, keyword_for_tag(inner.tag))
        return
    if element.VM > 1 and dictionary_VM(element.tag) == "1":
        raise ValueError("several values where there is one")
    for value in [element.value] if element.VM < 2 else list(element.value):
        text = "" if value is None else str(value)
        if "\ufffd" in text or (element.VR in _ONE_LINE and not text.isprintable()):
            raise ValueError("undecodable")
        if element.VR not in (
            "OB",
            "OW",
            "UN",
            "US",
            "SS",
            "UL",
            "SL",
            "FL",
            "FD",
            "AT",
        ):
            validate_value(element.VR, text, RAISE)
        if element.VR == "DA" and text:
            datetime.datetime.strptime(text, "%Y%m%d")
        too_many = element.VR == "PN" and any(
            group.count("^") > _CARETS for group in text.split("=")
        )
        if (
            too_many
            or (keyword == "PatientSex" and text not in _SEX)
            or (element.VR == "TM" and text and not _TIME.fullmatch(text))
        ):
            raise ValueError("not as the standard has it")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, ["utf8"])


def _set_uids(common: Dataset, slices: Sequence[Slice], source: str) -> None:
    """Set the UIDs of study, series and frame of reference.

    Warn of those that are new or not valid.
    """
    from pydicom.uid import UID

    images = "\n".join(sorted(one.instance for one in slices))
    made: list[str] = []
    odd: list[str] = []
    for name, values in (
        ("StudyInstanceUID", [one.study for one in slices]),
        ("SeriesInstanceUID", [one.uid for one in slices]),
        ("FrameOfReferenceUID", [one.frame for one in slices]),
    ):
        uid = (
            Counter(value for value in values if value).most_common(1)[0][0]
            if any(values)
            else ""
        )
        if not _NAMED_UID.fullmatch(uid):
            digest = hashlib.sha256(f"{name}\n{images}".encode()).digest()
            new = f"2.25.{int.from_bytes(digest[:16], 'big')}"
            told = f"{new} stands for its {'unusable' if uid else 'empty'} {name}"
            if name != "FrameOfReferenceUID":
                made.append(told)
            else:  # which no archive files by
                logger.warning("%s: %s.", source, told)
            uid = new
        elif not _VALID_UID.fullmatch(uid):
            odd.append(f"{name} {uid}")
        setattr(common, name, UID(uid, validation_mode=0))
    if made:
        logger.warning(
            "%s (anonymised?): %s. An archive will not find the series by that.",
            source,
            " and ".join(made),
        )
    odd += [
        f"SOPInstanceUID {one.instance}"
        for one in slices
        if not _VALID_UID.fullmatch(one.instance)
    ][:1]
    if odd:
        logger.warning(
            "%s has UIDs that are not valid (%s). They are kept, so that the"
            " segmentation refers to the series.",
            source,
            ", ".join(odd),
        )
    if len({one.instance for one in slices}) < len(slices):
        logger.warning(
            "%s has slices that share one SOPInstanceUID; the segmentation cannot tell"
            " them apart.",
            source,
        )


def _of_slice(one: Slice, common: Dataset) -> Dataset:
    """Return a slice's header: the common elements and its own."""
    from pydicom import Dataset
    from pydicom.uid import UID
    from pydicom.valuerep import DSfloat

    def decimals(values: NDArray[np.float64]) -> list[DSfloat]:
        return [DSfloat(float(value), auto_format=True) for value in values]

    for name, value in (
        ("SOPClassUID", one.storage_class),
        ("SOPInstanceUID", one.instance),
    ):
        if not _NAMED_UID.fullmatch(value):
            raise ReadError(
                f"{one.path} has no {name}, so nothing can refer to it. Export the"
                " series again, or anonymise it otherwise."
            )
    header = Dataset()
    header.update(common)
    header.SOPClassUID, header.SOPInstanceUID = (
        UID(one.storage_class, validation_mode=0),
        UID(one.instance, validation_mode=0),
    )
    header.ImagePositionPatient = decimals(one.position)
    is_exact = off_right_angles(one.orientation) <= _EXACT
    header.ImageOrientationPatient = decimals(
        one.orientation if is_exact else straight_axes(one.orientation).T[:2].ravel()
    )
    header.PixelSpacing = decimals(one.spacing)
    return header


def _series_number(header: Dataset) -> int:
    text = _first_text(header, 0x00200011)
    return min(int(text), _HIGHEST_NUMBER) if text.isdecimal() else 0


def _thickness(header: Dataset) -> float:
    """Return the slice thickness in mm; 0 if there is no valid one."""
    text = _first_text(header, 0x00180050)
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e6 else 0.0


def _first_text(header: Dataset, tag: int) -> str:
    raw = header.get_item(tag).value if tag in header else None
    return raw.decode("ascii", "replace").strip(" \0") if isinstance(raw, bytes) else ""
