"""One DICOM file: whether it is one, and what its header says of one slice.

A header is read with pydicom up to the pixels and no further, as raw bytes: an invalid
value is a fault of that slice, reported when its series is read, and never an exception
of the parser.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.filebase import DicomBytesIO

from napari_strata.io.dicom import tags
from napari_strata.io.dicom.file_head import LONG_VRS, VRS, open_bounded
from napari_strata.io.dicom.header_values import (
    count_value,
    decimal_values,
    element_value,
    first_text,
    quiet_pydicom,
    series_description,
    uid_value,
)

SCAN_CLASSES = tuple(
    "1.2.840.10008.5.1.4.1.1." + part
    for part in ("2", "2.1", "2.2", "4", "4.1", "4.4", "20", "128", "130")
)
"""Storage classes of CT, MR, PET and nuclear medicine images."""
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
DEFLATED = "1.2.840.10008.1.2.1.99"

SKEW = 0.05
"""Largest deviation of row and column directions from orthonormal.

Headers round them.
"""

_ASIDE_CLASSES = tuple(
    "1.2.840.10008.5.1.4.1.1." + part
    for part in ("9.", "11.", "66", "67", "88.", "104.", "481.")
)
"""Storage classes of objects that are no scan, though some have voxels.

These are curves, presentations, segmentations, reports, documents and therapy objects.
"""
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_DICOM = "1.2.840.10008."
_UNDEFINED = 0xFFFFFFFF
_TAGS_READ = (
    *(
        tags.CHARACTER_SET,
        tags.SOP_CLASS,
        tags.SOP_INSTANCE,
        tags.MODALITY,
        tags.SERIES_DESCRIPTION,
        tags.STUDY_INSTANCE,
        tags.SERIES_INSTANCE,
        tags.IMAGE_POSITION,
        tags.IMAGE_ORIENTATION,
        tags.FRAME_OF_REFERENCE,
    ),
    *(tags.SAMPLES_PER_PIXEL, tags.PHOTOMETRIC_INTERPRETATION, tags.NUMBER_OF_FRAMES),
    *(
        tags.ROWS,
        tags.COLUMNS,
        tags.PIXEL_SPACING,
        tags.BITS_ALLOCATED,
        tags.BITS_STORED,
        tags.HIGH_BIT,
        tags.PIXEL_REPRESENTATION,
        tags.RESCALE_INTERCEPT,
        tags.RESCALE_SLOPE,
        tags.RESCALE_TYPE,
        tags.MODALITY_LUT,
    ),
)
_PIXEL_DATA = {0x7FE00010: "integer", 0x7FE00008: "float32", 0x7FE00009: "float64"}


class HeaderError(Exception):
    """A file cannot be read as DICOM at all."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How and where a file stores the voxels of a slice.

    Parameters
    ----------
    syntax : str
        Transfer syntax UID; "" where the file does not say.
    little_endian : bool
        The order of bytes in the file.
    element : {"integer", "float32", "float64", ""}
        Which pixel element there is; "" for none.
    vr : str
        Its VR as written; "" where the file writes none.
    offset, length : int
        Where its value starts in the file (or in the inflated file), and the bytes that
        it claims, -1 for undefined.
    rows, columns, allocated, stored, high_bit : int
        As the header says; 0 where it does not.
    signed : bool or None
        Pixel Representation; None where the header has none.
    photometric : str
        Photometric Interpretation.
    """

    syntax: str
    little_endian: bool
    element: str
    vr: str
    offset: int
    length: int
    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool | None
    photometric: str


@dataclass(frozen=True, slots=True)
class Rescale:
    """How stored values become intensities.

    Parameters
    ----------
    slope, intercept : float or None
        None where the header does not have it.
    kind : str
        Rescale Type: "HU", "US" ...; "" where the header does not say.
    table : bool
        Whether a Modality LUT stands in their place.
    """

    slope: float | None = None
    intercept: float | None = None
    kind: str = ""
    table: bool = False

    @property
    def is_given(self) -> bool:
        """Whether the header says how values are to be rescaled."""
        return self.table or (self.slope is not None and self.intercept is not None)

    @property
    def is_identity(self) -> bool:
        """Whether intensities are the stored values."""
        return not self.table and (
            1.0 if self.slope is None else self.slope,
            self.intercept or 0.0,
        ) == (1.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Header of one DICOM file; arrays are empty where the header has no value.

    Parameters
    ----------
    path : Path
        The file.
    uid, instance, description, modality, storage_class, study, frame : str
        SeriesInstanceUID, SOPInstanceUID, SeriesDescription, Modality, SOPClassUID,
        StudyInstanceUID, FrameOfReferenceUID.
    frames, samples : int
        Images in the file, and values per voxel.
    position, orientation, spacing : float64 arrays
        ImagePositionPatient, ImageOrientationPatient, PixelSpacing.
    pixels : PixelFormat
        How voxels are stored.
    rescale : Rescale
        How they become intensities.
    faults : tuple of str
        What makes the slice unreadable, in words that follow the file's name.
    """

    path: Path
    uid: str
    instance: str
    description: str
    modality: str
    storage_class: str
    study: str
    frame: str
    frames: int
    samples: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    pixels: PixelFormat
    rescale: Rescale
    faults: tuple[str, ...]

    @property
    def is_aside(self) -> bool:
        """Whether the file is no slice of a scan (a dose, a screenshot, a report)."""
        lies = self.position.size == 3 and self.orientation.size == 6
        return self.storage_class.startswith(_ASIDE_CLASSES) or (
            not lies
            and self.storage_class not in SCAN_CLASSES
            and self.storage_class.startswith(_DICOM)
        )


def off_right_angles(orientation: NDArray[np.float64]) -> float:
    """Return how far the directions of rows and columns (6 numbers) are off orthonormal."""
    right, down = orientation.reshape(2, 3)
    lengths = float(np.linalg.norm(right)), float(np.linalg.norm(down))
    return max(*(abs(length - 1) for length in lengths), abs(float(right @ down)))


def straight_axes(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return orthonormal directions of rows, columns and slices, as matrix columns.

    They are computed as ITK does.
    """
    right, down = orientation.reshape(2, 3)
    normal = np.cross(right, down) / np.linalg.norm(np.cross(right, down))
    upright = down / np.linalg.norm(down)
    return np.column_stack([np.cross(upright, normal), upright, normal])


@dataclass(frozen=True, slots=True)
class Aside:
    """A DICOM file that is no image of a scan, and what it is."""

    path: Path
    kind: str
    uid: str = ""


def class_name(uid: str) -> str:
    """Return the name of a storage class, such as "RT Structure Set"."""
    from pydicom.uid import UID

    with quiet_pydicom():
        name = UID(uid).name
    return (name if name != uid else f"an object of class {uid}").removesuffix(
        " Storage"
    )


def read_slice(path: Path, *, sure: bool) -> Slice | Aside:
    """Read one file's header.

    Parameters
    ----------
    path : Path
        A regular file.
    sure : bool
        Whether the file is known to be DICOM; else it has to prove it by rows, columns
        and pixels.

    Raises
    ------
    HeaderError
        If it is no DICOM, or its head is damaged so that it may be a lost slice.
    OSError
        If it cannot be read.
    """
    with open_bounded(path) as file:
        header, start = _parse(file)
        stored_class = uid_value(header, tags.SOP_CLASS) or uid_value(
            getattr(header, "file_meta", None), 0x00020002
        )
        uid = uid_value(header, tags.SERIES_INSTANCE)
        if stored_class == _DIRECTORY_CLASS:
            return Aside(path, "DICOMDIR")
        if stored_class.startswith(SEGMENTATION_CLASSES):
            return Aside(path, class_name(stored_class), uid)
        pixels = _pixel_format(header, file if start is None else start)
    empty = not (pixels.rows or pixels.columns or pixels.element)
    if empty and stored_class and stored_class not in SCAN_CLASSES:
        return Aside(path, class_name(stored_class), uid)
    if not (uid or stored_class) and (empty or not sure):
        raise HeaderError("it holds no image")
    if not uid and not (pixels.element and pixels.rows and pixels.columns):
        raise HeaderError("its header is cut short")
    return _slice(path, header, pixels, stored_class, uid)


def inflate(path: Path) -> bytes:
    """Return the inflated data set of a deflated file.

    Raises
    ------
    HeaderError
        If it is damaged.
    OSError
        If it cannot be read.
    """
    with open_bounded(path) as file:
        _, start = _parse(file)
    if start is None:
        raise HeaderError("it is not deflated, whatever its head says")
    return start.getvalue()


def _slice(
    path: Path, header: Dataset, pixels: PixelFormat, stored_class: str, uid: str
) -> Slice:
    faults: list[str] = []

    position = decimal_values(header, tags.IMAGE_POSITION, "position", 3, faults)
    orientation = decimal_values(
        header, tags.IMAGE_ORIENTATION, "orientation", 6, faults
    )
    spacing = decimal_values(header, tags.PIXEL_SPACING, "pixel spacing", 2, faults)
    slope = decimal_values(header, tags.RESCALE_SLOPE, "rescale slope", 1, faults)
    intercept = decimal_values(
        header, tags.RESCALE_INTERCEPT, "rescale intercept", 1, faults
    )
    rescale = Rescale(
        slope=float(slope[0]) if slope.size else None,
        intercept=float(intercept[0]) if intercept.size else None,
        kind=first_text(header, tags.RESCALE_TYPE).upper(),
        table=bool(element_value(header, tags.MODALITY_LUT)),
    )
    if (sign := count_value(header, tags.PIXEL_REPRESENTATION)) not in (0, 1):
        faults.append(
            f"has a pixel representation of {sign}, which is neither 0 (unsigned) nor 1"
            " (signed). Repair its header, or export it again"
        )
    faults += [*_rescale_faults(rescale), *_pixel_faults(pixels)]
    return Slice(
        path=path,
        uid=uid,
        instance=uid_value(header, tags.SOP_INSTANCE)
        or uid_value(getattr(header, "file_meta", None), 0x00020003),
        description=series_description(header),
        modality=first_text(header, tags.MODALITY),
        storage_class=stored_class,
        study=uid_value(header, tags.STUDY_INSTANCE),
        frame=uid_value(header, tags.FRAME_OF_REFERENCE),
        frames=count_value(header, tags.NUMBER_OF_FRAMES) or 1,
        samples=count_value(header, tags.SAMPLES_PER_PIXEL) or 1,
        position=position,
        orientation=orientation,
        spacing=spacing,
        pixels=pixels,
        rescale=rescale,
        faults=tuple(faults),
    )


def _rescale_faults(rescale: Rescale) -> list[str]:
    if rescale.table:
        return []
    if rescale.slope == 0:
        return [
            "has a rescale slope of 0, which leaves nothing of its values. Repair its"
            " header, or export it again"
        ]
    if not (rescale.is_given or rescale.is_identity):
        there, lost = (
            ("intercept", "slope") if rescale.slope is None else ("slope", "intercept")
        )
        return [
            f"has a rescale {there} but no rescale {lost}, so its values are unknown."
            " Repair its header, or export it again"
        ]
    return []


def _pixel_faults(pixels: PixelFormat) -> list[str]:
    if not pixels.element:
        return ["has no pixel data: it is cut short, or no image. Copy it again"]
    if pixels.rows < 1 or pixels.columns < 1:
        return [
            f"says that it has {pixels.rows} rows and {pixels.columns} columns. Repair"
            " its header, or export it again"
        ]
    if pixels.element != "integer":
        return []
    if pixels.allocated not in (1, 8, 16, 32, 64):
        return [
            f"says that a voxel takes {pixels.allocated} bits, which Strata does not"
            " read. Convert the series to NIfTI"
        ]
    if not 1 <= pixels.stored <= pixels.allocated:
        return [
            f"says that {pixels.stored} of {pixels.allocated} bits are used. Repair its"
            " header, or export it again"
        ]
    return []


def read_all(path: Path) -> Dataset:
    """Read a whole header, up to the pixels.

    Raises
    ------
    HeaderError
        If it is damaged.
    OSError
        If it cannot be read.
    """
    with open_bounded(path) as file:
        return _parse(file, ())[0]


def reread(path: Path) -> Dataset:
    """Read what pydicom needs to apply a Modality LUT.

    Raises
    ------
    HeaderError
        If it is damaged.
    OSError
        If it cannot be read.
    """
    with open_bounded(path) as file:
        return _parse(file, (tags.MODALITY_LUT, tags.PIXEL_REPRESENTATION))[0]


def _parse(
    file: BinaryIO, read_tags: tuple[int, ...] = _TAGS_READ
) -> tuple[Dataset, DicomBytesIO | None]:
    """Read the header, and the data set of a deflated file.

    The file is then at its pixels. For a deflated file, the second value is the inflated
    data set, at its pixels; else it is None.
    """
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filebase import DicomBytesIO

    damaged = (
        *(
            InvalidDicomError,
            BytesLengthException,
            EOFError,
            AttributeError,
            KeyError,
            ValueError,
            TypeError,
            IndexError,
            NotImplementedError,
        ),
        *(
            struct.error,
            zlib.error,
            OverflowError,
            MemoryError,
            RecursionError,
            LookupError,
        ),
    )
    try:
        with quiet_pydicom():
            header = dcmread(
                file,
                stop_before_pixels=True,
                force=True,
                specific_tags=[*read_tags] or None,
            )
            # pydicom raises only now where an element's kind (VR) is none of DICOM's
            for tag in read_tags:
                if tag in header:
                    header.get_item(tag)
    except damaged as err:
        raise HeaderError("its header is damaged") from err
    return header, header.buffer if isinstance(header.buffer, DicomBytesIO) else None


def _pixel_format(header: Dataset, stream: BinaryIO | DicomBytesIO) -> PixelFormat:
    """Read the head of the pixel element, at which the stream stands."""
    implicit, little = (bool(part) for part in header.original_encoding)
    syntax = uid_value(getattr(header, "file_meta", None), 0x00020010)
    if not little and not syntax and getattr(header, "file_meta", None):
        raise HeaderError("its head names no transfer syntax")
    order = "<" if little else ">"
    element, vr, offset, length = "", "", 0, 0
    head = stream.read(12)
    if len(head) >= 8:
        group, number = struct.unpack(f"{order}HH", head[:4])
        element = _PIXEL_DATA.get(group << 16 | number, "")
    if element and not implicit and head[4:6] in VRS:
        vr, long = head[4:6].decode("ascii"), head[4:6] in LONG_VRS
        (length,) = (
            struct.unpack(f"{order}I", head[8:12])
            if long and len(head) == 12
            else struct.unpack(f"{order}H", head[6:8])
        )
        offset = stream.tell() - len(head) + (12 if long else 8)
    elif element:
        (length,) = struct.unpack(f"{order}I", head[4:8])
        offset = stream.tell() - len(head) + 8
    return PixelFormat(
        syntax=syntax,
        little_endian=little,
        element=element,
        vr=vr,
        offset=offset,
        length=-1 if length == _UNDEFINED else length,
        rows=count_value(header, tags.ROWS),
        columns=count_value(header, tags.COLUMNS),
        allocated=count_value(header, tags.BITS_ALLOCATED),
        stored=count_value(header, tags.BITS_STORED),
        high_bit=count_value(header, tags.HIGH_BIT),
        signed=(
            count_value(header, tags.PIXEL_REPRESENTATION) == 1
            if element_value(header, tags.PIXEL_REPRESENTATION)
            else None
        ),
        photometric=first_text(header, tags.PHOTOMETRIC_INTERPRETATION).upper(),
    )
