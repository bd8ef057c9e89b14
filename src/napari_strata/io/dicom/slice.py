"""One DICOM file: whether it is one, and what its header says of one slice.

A header is read with pydicom up to the pixels and no further, as raw bytes: an invalid
value is a fault of that slice, told when its series is read, and never an exception of
the parser.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.filebase import DicomBytesIO

SCAN_CLASSES = tuple(
    "1.2.840.10008.5.1.4.1.1." + part
    for part in ("2", "2.1", "2.2", "4", "4.1", "4.4", "20", "128", "130")
)
"""Storage classes of CT, MR, PET and nuclear medicine images."""
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
DEFLATED = "1.2.840.10008.1.2.1.99"

SKEW = 0.05
"""How far directions of rows and columns may be from one long and at right angles.

Headers round them.
"""

_ASIDE_CLASSES = tuple(
    "1.2.840.10008.5.1.4.1.1." + part
    for part in ("9.", "11.", "66", "67", "88.", "104.", "481.")
)
"""Storage classes of what is no scan though some of it has voxels.

Curves, presentations, segmentations, reports, documents, therapy.
"""
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_DICOM = "1.2.840.10008."
_HEAD = 4096
_APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
_STORAGE_CLASS = b"\x02\x00\x02\x00UI"
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC"
    b" UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_LONGEST_FIRST = 1024
_LONGEST_TEXT = 256
_ELEMENTS_OF_PROOF = 3
_MOST_SHOWN = 32
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)

_CHARSET, _CLASS, _INSTANCE, _MODALITY, _DESCRIPTION = (
    0x00080005,
    0x00080016,
    0x00080018,
    0x00080060,
    0x0008103E,
)
_STUDY, _SERIES, _POSITION, _ORIENTATION, _FRAME = (
    0x0020000D,
    0x0020000E,
    0x00200032,
    0x00200037,
    0x00200052,
)
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _SPACING = (
    0x00280002,
    0x00280004,
    0x00280008,
    0x00280010,
    0x00280011,
    0x00280030,
)
_ALLOCATED, _STORED, _HIGH_BIT, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_INTERCEPT, _SLOPE, _RESCALE_TYPE, _LUT = 0x00281052, 0x00281053, 0x00281054, 0x00283000
_WANTED = (
    *(
        _CHARSET,
        _CLASS,
        _INSTANCE,
        _MODALITY,
        _DESCRIPTION,
        _STUDY,
        _SERIES,
        _POSITION,
        _ORIENTATION,
        _FRAME,
    ),
    *(_SAMPLES, _PHOTOMETRIC, _FRAMES),
    *(
        _ROWS,
        _COLUMNS,
        _SPACING,
        _ALLOCATED,
        _STORED,
        _HIGH_BIT,
        _SIGNED,
        _INTERCEPT,
        _SLOPE,
        _RESCALE_TYPE,
        _LUT,
    ),
)
_FIRST_TEXTS = (
    0x00020002,
    0x00020003,
    0x00020010,
    _CHARSET,
    0x00080008,
    _CLASS,
    _INSTANCE,
    0x00080020,
    _MODALITY,
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
    signed : bool
        Pixel Representation.
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
    signed: bool
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
    """What one file says of itself; empty arrays where it says nothing.

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
        """Whether the file is something beside scans.

        (a dose, a screenshot), not perhaps a slice of one.
        """
        lies = self.position.size == 3 and self.orientation.size == 6
        return self.storage_class.startswith(_ASIDE_CLASSES) or (
            not lies
            and self.storage_class not in SCAN_CLASSES
            and self.storage_class.startswith(_DICOM)
        )


def off_right_angles(orientation: NDArray[np.float64]) -> float:
    """Say how far the directions of rows and columns.

    (6 numbers) are from one long and at right angles.
    """
    right, down = orientation.reshape(2, 3)
    lengths = float(np.linalg.norm(right)), float(np.linalg.norm(down))
    return max(*(abs(length - 1) for length in lengths), abs(float(right @ down)))


def straight_axes(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give directions of rows, columns and slices.

    (as matrix columns), one long and at right angles, as ITK makes them.
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


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM: by its mark, or where it has none by its first elements.

    A pipe or a device is none, and is not opened: it might never answer.
    """
    return _is_dicom_head(head_of(path))


def head_of(path: Path) -> bytes:
    """Give the first bytes of a regular file.

    None of anything else, or of what cannot be read.
    """
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


class BoundedFile(io.BufferedReader):
    """A file that sets no memory aside for more bytes than it has left.

    A damaged length may ask for 4 GB.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or all that is left."""
        if size is not None and size > _HEAD:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def open_bounded(path: Path) -> BoundedFile:
    """Open a file for reading bytes.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    return BoundedFile(io.FileIO(path))


def is_system_file(path: Path, head: bytes) -> bool:
    """Say whether a file is what an operating system leaves beside others.

    (AppleDouble, .DS_Store, Thumbs.db).
    """
    return head[:4] in _APPLE_DOUBLE or path.name.lower() in (
        ".ds_store",
        "thumbs.db",
        "desktop.ini",
    )


def is_segmentation(path: str | Path) -> bool:
    """Say whether a file is a DICOM segmentation (SEG), by its head."""
    return storage_class(Path(path)).startswith("1.2.840.10008.5.1.4.1.1.66.")


def storage_class(path: Path) -> str:
    """Give the storage class that a file's head names.

    Empty where it names none or is no DICOM.
    """
    head = head_of(path)
    if head[128:132] == b"DICM":
        _, found, rest = head.partition(_STORAGE_CLASS)
        if found:
            return _ascii(rest[2 : 2 + int.from_bytes(rest[:2], "little")])
    if not _is_dicom_head(head):
        return ""
    start = 132 if head[128:132] == b"DICM" else 0
    return next(
        (
            _ascii(value)
            for tag, value in _elements(head[start:])
            if tag in (0x00020002, _CLASS)
        ),
        "",
    )


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from telling of invalid values; we tell of those that matter."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = before


def class_name(uid: str) -> str:
    """Give a storage class in words, such as "RT Structure Set"."""
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
        stored_class = _uid(header, _CLASS) or _uid(
            getattr(header, "file_meta", None), 0x00020002
        )
        uid = _uid(header, _SERIES)
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
    """Give a deflated file's data set.

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

    position = _numbers(header, _POSITION, "position", 3, faults)
    orientation = _numbers(header, _ORIENTATION, "orientation", 6, faults)
    spacing = _numbers(header, _SPACING, "pixel spacing", 2, faults)
    slope = _numbers(header, _SLOPE, "rescale slope", 1, faults)
    intercept = _numbers(header, _INTERCEPT, "rescale intercept", 1, faults)
    rescale = Rescale(
        slope=float(slope[0]) if slope.size else None,
        intercept=float(intercept[0]) if intercept.size else None,
        kind=_text(header, _RESCALE_TYPE).upper(),
        table=bool(_value(header, _LUT)),
    )
    if (sign := _whole(header, _SIGNED)) not in (0, 1):
        faults.append(
            f"has a pixel representation of {sign}, which is neither 0 (unsigned) nor 1"
            " (signed). Repair its header, or export it again"
        )
    faults += [*_rescale_faults(rescale), *_pixel_faults(pixels)]
    return Slice(
        path=path,
        uid=uid,
        instance=_uid(header, _INSTANCE)
        or _uid(getattr(header, "file_meta", None), 0x00020003),
        description=_described(header),
        modality=_text(header, _MODALITY),
        storage_class=stored_class,
        study=_uid(header, _STUDY),
        frame=_uid(header, _FRAME),
        frames=_whole(header, _FRAMES) or 1,
        samples=_whole(header, _SAMPLES) or 1,
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
        return _parse(file, (_LUT, _SIGNED))[0]


def _parse(
    file: BinaryIO, wanted: tuple[int, ...] = _WANTED
) -> tuple[Dataset, DicomBytesIO | None]:
    """Read the header up to the pixels, where the file then stands.

    Or the inflated data set if it is deflated.
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
                specific_tags=[*wanted] or None,
            )
    except damaged as err:
        raise HeaderError("its header is damaged") from err
    return header, header.buffer if isinstance(header.buffer, DicomBytesIO) else None


def _pixel_format(header: Dataset, stream: BinaryIO | DicomBytesIO) -> PixelFormat:
    """Read the head of the pixel element, at which the stream stands."""
    implicit, little = (bool(part) for part in header.original_encoding)
    syntax = _uid(getattr(header, "file_meta", None), 0x00020010)
    if not little and not syntax and getattr(header, "file_meta", None):
        raise HeaderError("its head names no transfer syntax")
    order = "<" if little else ">"
    element, vr, offset, length = "", "", 0, 0
    head = stream.read(12)
    if len(head) >= 8:
        group, number = struct.unpack(f"{order}HH", head[:4])
        element = _PIXEL_DATA.get(group << 16 | number, "")
    if element and not implicit and head[4:6] in _VRS:
        vr, long = head[4:6].decode("ascii"), head[4:6] in _LONG_VRS
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
        rows=_whole(header, _ROWS),
        columns=_whole(header, _COLUMNS),
        allocated=_whole(header, _ALLOCATED),
        stored=_whole(header, _STORED),
        high_bit=_whole(header, _HIGH_BIT),
        signed=_whole(header, _SIGNED) == 1,
        photometric=_text(header, _PHOTOMETRIC).upper(),
    )


def _value(header: Dataset | None, tag: int) -> object:
    """Give an element's raw value: bytes, a sequence, or None where it is missing or empty.

    Raises
    ------
    HeaderError
        If its kind (VR) is none that DICOM knows.
    """
    if header is None or tag not in header:
        return None
    try:
        return header.get_item(tag).value or None
    except NotImplementedError as err:
        raise HeaderError("its header is damaged") from err


def _ascii(raw: object) -> str:
    """Give text that is to be one short line of ASCII; what is none becomes a question mark."""
    text = (
        raw[:_LONGEST_TEXT].decode("ascii", "replace")
        if isinstance(raw, bytes)
        else str(raw or "")
    )
    return "".join(
        letter if " " <= letter <= "~" else "?" for letter in text.strip(" \0\t\r\n")
    )


def _uid(header: Dataset | None, tag: int) -> str:
    return _ascii(_value(header, tag))


def _text(header: Dataset, tag: int) -> str:
    """Give the first value of a text element."""
    return _ascii(_value(header, tag)).split("\\")[0].strip()


def _whole(header: Dataset, tag: int) -> int:
    """Give a count, be it binary or text; 0 where it is missing or no number."""
    raw = _value(header, tag)
    if not isinstance(raw, bytes):
        return 0
    vr = header.get_item(tag).VR
    if tag == _FRAMES or vr in ("IS", "DS"):
        text = _ascii(raw)
        return int(text) if text.isdecimal() else 0
    width = 4 if len(raw) >= 4 and vr in ("UL", "SL") else 2
    return int.from_bytes(
        raw[:width], "little" if header.original_encoding[1] else "big"
    )


def _numbers(
    header: Dataset, tag: int, name: str, count: int, faults: list[str]
) -> NDArray[np.float64]:
    """Give decimal numbers.

    Empty, with a fault unless there is no value at all, where they are not `count`
    finite ones.
    """
    text = _ascii(_value(header, tag))
    parts = [part.strip(" \0") for part in text.split("\\")]
    if not any(parts):
        return np.array([])
    values = [float(part) if _NUMBER.fullmatch(part) else math.nan for part in parts]
    if len(values) == count and all(math.isfinite(value) for value in values):
        return np.array(values)
    wanted = "a number" if count == 1 else f"{count} numbers"
    faults.append(
        f"has a {name} that is not {wanted} ({text[:_MOST_SHOWN]!r}). Repair its"
        " header, or export it again"
    )
    return np.array([])


def _described(header: Dataset) -> str:
    """Give the series' description in its own character set.

    What cannot be decoded is replaced.
    """
    from pydicom.charset import convert_encodings, decode_bytes

    raw = _value(header, _DESCRIPTION)
    if not isinstance(raw, bytes):
        return ""
    charsets = [part.strip() for part in _ascii(_value(header, _CHARSET)).split("\\")]
    try:
        with quiet_pydicom():
            text = decode_bytes(raw, convert_encodings(charsets), {9, 10, 12, 13})
    except (LookupError, ValueError, TypeError, AttributeError):
        text = raw.decode("utf-8", "replace")
    return " ".join(
        "".join(letter if letter.isprintable() else " " for letter in text).split()
    )[:_LONGEST_TEXT]


def _is_dicom_head(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    found = list(_elements(head))
    texts = [value for tag, value in found if tag in _FIRST_TEXTS]
    return (
        len(found) >= _ELEMENTS_OF_PROOF
        and any(texts)
        and all(text.rstrip(b"\0").isascii() for text in texts)
    )


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the leading elements of a data set without a head.

    Tag and value, up to the first that is long or none.
    """
    order: Literal["little", "big"] = "little" if data[1:2] == b"\0" else "big"
    explicit = data[4:6] in _VRS
    at, last = 0, -1
    while at + 8 <= len(data):
        group, number = (
            int.from_bytes(data[at : at + 2], order),
            int.from_bytes(data[at + 2 : at + 4], order),
        )
        tag, vr = group << 16 | number, data[at + 4 : at + 6]
        if tag <= last or (explicit and vr not in _VRS):
            return
        width, start = (
            (4, at + 4)
            if not explicit
            else (4, at + 8)
            if vr in _LONG_VRS
            else (2, at + 6)
        )
        length = int.from_bytes(data[start : start + width], order)
        at = start + width + length
        if length > _LONGEST_FIRST or length % 2 or at > len(data):
            return
        yield tag, data[start + width : at]
        last = tag
