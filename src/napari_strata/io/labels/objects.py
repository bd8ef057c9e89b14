"""DICOM objects that are neither images nor segmentations, by their common names."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from napari_strata.io.dicom.file_head import open_bounded
from napari_strata.io.dicom.header_values import quiet_pydicom
from napari_strata.io.dicom.headers import dicom_errors

_CLASS = b"\x02\x00\x02\x00UI"
_HEAD = 4096
_STORAGE = "1.2.840.10008.5.1.4.1.1."
SEGMENTATIONS = (f"{_STORAGE}66.4", f"{_STORAGE}66.7")
_NO_VOXELS = "which holds no voxels. Give a DICOM SEG or a label file."
_NO_LABELS = "which holds no labels. Give a DICOM SEG or a label file."
_KINDS = {
    "481.1": f"an RT image, {_NO_LABELS}",
    "481.2": f"an RT dose, {_NO_LABELS}",
    "481.3": (
        "an RT structure set (RTSTRUCT): contours, which Strata does not read. Convert"
        " it to labels on its series first, for example with 3D Slicer or plastimatch."
    ),
    "481.5": f"an RT plan, {_NO_VOXELS}",
    "481.8": f"an RT ion plan, {_NO_VOXELS}",
    "66": f"DICOM raw data, {_NO_LABELS}",
    "66.1": f"a DICOM registration, {_NO_LABELS}",
    "66.2": f"a set of DICOM fiducials (points), {_NO_VOXELS}",
    "66.3": f"a DICOM deformable registration, {_NO_LABELS}",
    "66.5": (
        "a DICOM surface segmentation: meshes, which Strata does not read. Convert it"
        " to labels on its series first, for example with 3D Slicer."
    ),
    "66.6": f"a DICOM tractography result (tracks), {_NO_VOXELS}",
    "67": f"a DICOM real world value map, {_NO_LABELS}",
    "30": f"a DICOM parametric map, {_NO_LABELS}",
    "104.1": f"a PDF in DICOM, {_NO_VOXELS}",
    "104.3": f"an STL mesh in DICOM, {_NO_VOXELS}",
}
_FAMILIES = (
    ("11.", f"a DICOM presentation state, {_NO_LABELS}"),
    ("88.", f"a DICOM structured report, {_NO_VOXELS}"),
    ("9.", f"a DICOM waveform, {_NO_VOXELS}"),
)


def parse_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that pydicom raises on a damaged file.

    Raises
    ------
    ImportError
        If pydicom is not installed.
    """
    from pydicom.errors import BytesLengthException

    of_values = (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        NotImplementedError,
        RecursionError,
    )
    return (*dicom_errors(), BytesLengthException, struct.error, zlib.error, *of_values)


def storage_class(path: Path) -> str:
    """Return the storage class of a DICOM file.

    From its head, or from the object itself if there is no head; "" if there is none.
    """
    with path.open("rb") as file:
        _, found, rest = file.read(_HEAD).partition(_CLASS)
    if found:
        return (
            rest[2 : 2 + int.from_bytes(rest[:2], "little")]
            .strip(b"\0 ")
            .decode("ascii", "replace")
        )
    try:
        from pydicom import dcmread

        damaged = parse_errors()
    except ImportError:
        return ""
    try:
        with quiet_pydicom(), open_bounded(path) as file:
            return str(
                dcmread(
                    file,
                    stop_before_pixels=True,
                    force=True,
                    specific_tags=["SOPClassUID"],
                ).get("SOPClassUID", "")
            )
    except damaged:
        return ""


def object_kind(name: str) -> str | None:
    """Return what an object without slices and segments is, and what to do.

    Return None for storage classes that hold slices or segments.
    """
    if not name.startswith(_STORAGE):
        return None
    kind = name.removeprefix(_STORAGE)
    return _KINDS.get(kind) or next(
        (said for start, said in _FAMILIES if kind.startswith(start)), None
    )


def is_seg(path: Path) -> bool:
    """Return whether a file is a DICOM SEG: binary, fractional or a label map."""
    return storage_class(path) in SEGMENTATIONS
