"""The voxels of DICOM slices.

Each decoded and rescaled by its own header, all joined in a type that holds them.

Native pixels are read as they lie in the file. Compressed ones are decoded by GDCM,
which SimpleITK brings: each frame is handed over in a bare file of its own, so that
nothing but the decoding is left to it. RLE is decoded here, which is ten times faster.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_strata.errors import ReadError
from napari_strata.io.dicom.slice import (
    DEFLATED,
    HeaderError,
    PixelFormat,
    Rescale,
    Slice,
    inflate,
    open_bounded,
    quiet_pydicom,
    reread,
)
from napari_strata.io.itk import quiet_stderr

_NATIVE = (
    "",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    DEFLATED,
)
_RLE = "1.2.840.10008.1.2.5"
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
_JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
_CUT = "is damaged or cut short: voxels are missing. Copy it again"
_INTEGERS = (np.int16, np.uint16, np.int32, np.uint32, np.int64)
_EXACT_IN_FLOAT32 = 2**22
"""Steps between the smallest.

The largest value up to which float32 keeps neighbours well apart.
"""
_TINY = 1e-30
_Place = Literal["lower", "upper", "either"]
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})


class PixelError(Exception):
    """The voxels of a slice cannot be had; the message follows the file's name."""


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """All slices of a series.

    Parameters
    ----------
    data : (slice, row, column) array
        Intensities.
    notes : tuple of str
        What a person should know about how they were read.
    """

    data: NDArray[np.generic]
    notes: tuple[str, ...]


def read_voxels(slices: Sequence[Slice]) -> Voxels:
    """Read the voxels of slices that have equal rows and columns.

    Raises
    ------
    ReadError
        If a slice's voxels are missing, too few, damaged or stored in a way that Strata
        does not read.
    """
    planes: list[NDArray[np.generic]] = []
    dirty: list[Path] = []
    longer: list[Path] = []
    read = [_plane(one) for one in slices]
    unclear: list[Path] = []
    # a dark slice does not show where its values lie; its neighbours do
    if any(plane.place == "upper" for plane in read):
        _check_one_place(slices, read)
        read = [
            _plane(one, upper=True) if plane.place == "either" else plane
            for one, plane in zip(slices, read, strict=True)
        ]
    elif not any(
        plane.place == "lower" and _claims_upper(one.pixels)
        for one, plane in zip(slices, read, strict=True)
    ):
        unclear = [
            one.path
            for one, plane in zip(slices, read, strict=True)
            if plane.place == "either" and plane.values.any()
        ]
    for one, plane in zip(slices, read, strict=True):
        if plane.has_other_bits:
            dirty.append(one.path)
        if plane.is_longer:
            longer.append(one.path)
        planes.append(plane.values)
    notes = []
    if dirty:
        notes.append(
            f"{named(dirty)} {_has(dirty)} values in bits that the header calls unused;"
            " only the bits in use were read."
        )
    if longer:
        notes.append(
            f"{named(longer)} {_has(longer)} more pixel data than rows and columns ask"
            " for; the rest was left out."
        )
    if unclear:
        notes.append(
            f"{named(unclear)} {_says(unclear)} by the high bit that values lie in the"
            " upper bits, and voxels fit the lower bits too; those were read: all"
            " values may be too high by one factor."
        )
    return Voxels(_join(planes, [one.rescale for one in slices]), tuple(notes))


def same_voxels(one: Slice, other: Slice) -> bool:
    """Say whether two slices hold the same stored values.

    Raises
    ------
    ReadError
        If the voxels of one of them cannot be read.
    """
    if (one.pixels.rows, one.pixels.columns) != (
        other.pixels.rows,
        other.pixels.columns,
    ):
        return False
    return np.array_equal(
        _plane(one).values,
        _plane(other).values,
        equal_nan=one.pixels.element != "integer",
    )


def named(paths: Sequence[Path], most: int = 3) -> str:
    """Name some files: the first few, and how many more there are."""
    shown = ", ".join(path.name for path in paths[:most])
    return shown if len(paths) <= most else f"{shown} and {len(paths) - most} more"


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """The stored values of a slice (row, column), and what was found about them.

    Parameters
    ----------
    values : (row, column) array
        Of the bits in use.
    has_other_bits, is_longer : bool
        Whether unused bits were set, and whether there was more than one image's worth.
    place : {"lower", "upper", "either"}
        Which bits hold the values; "either" where the header claims the upper ones and
        the voxels fit both.
    """

    values: NDArray[np.generic]
    has_other_bits: bool
    is_longer: bool
    place: _Place


def _has(paths: Sequence[Path]) -> str:
    return "has" if len(paths) == 1 else "have"


def _says(paths: Sequence[Path]) -> str:
    return "says" if len(paths) == 1 else "say"


def _check_one_place(slices: Sequence[Slice], read: Sequence[_Plane]) -> None:
    """Refuse a slice with values in the lower bits whose header says.

    As those of its neighbours do, that they lie in the upper ones.

    Raises
    ------
    ReadError
        If there is one.
    """
    for one, plane in zip(slices, read, strict=True):
        if plane.place == "lower" and _claims_upper(one.pixels):
            raise ReadError(
                f"{one.path} says by its high bit that values lie in the upper bits,"
                " where those of other slices are, but its own lie in the lower ones."
                " Repair its header, or export the series again."
            )


def _plane(one: Slice, *, upper: bool = False) -> _Plane:
    try:
        return _stored(one, upper=upper)
    except PixelError as err:
        raise ReadError(f"{one.path} {err}.") from err
    except OSError as err:
        raise ReadError(
            f"Cannot read {one.path}: {err.strerror}. Check that you may read it."
        ) from err


def _stored(one: Slice, *, upper: bool) -> _Plane:
    pixels = one.pixels
    if pixels.syntax in _NATIVE:
        values, longer = _native(one)
    elif pixels.element != "integer":
        raise PixelError(
            "has compressed voxels of floating point, which Strata does not read."
            " Convert the series to NIfTI"
        )
    else:
        values, longer = _decoded(one), False
    place: _Place = "upper" if upper else _place(values, pixels)
    values, dirty = _clean(values, pixels, upper=place == "upper")
    if one.rescale.table:
        return _Plane(_through_table(one, values), False, longer, place)
    return _Plane(values, dirty, longer, place)


def _native(one: Slice) -> tuple[NDArray[np.generic], bool]:
    """Read uncompressed voxels, and say whether there are more than an image's worth."""
    pixels = one.pixels
    count = pixels.rows * pixels.columns
    bits = {"float32": 32, "float64": 64}.get(pixels.element, pixels.allocated)
    wanted = (count * bits + 7) // 8
    if pixels.length < 0:
        raise PixelError(
            "has compressed voxels, but its head does not say how. Export it again"
        )
    if pixels.length < wanted:
        raise PixelError(
            f"has {pixels.length} bytes of voxels where {pixels.rows} rows,"
            f" {pixels.columns} columns and {bits} bits ask for {wanted}: voxels are"
            " missing. Copy it again, or export it again"
        )
    if pixels.length >= 2 * wanted and wanted > 1:
        raise PixelError(
            f"has {pixels.length} bytes of voxels where {pixels.rows} rows,"
            f" {pixels.columns} columns and {bits} bits ask for {wanted}: its header"
            " does not fit. Repair it, or export the series again"
        )
    raw = _read_at(one, wanted + wanted % 2)
    if len(raw) < wanted:
        raise PixelError(_CUT)
    swapped = not pixels.little_endian and pixels.vr == "OW" and bits <= 8
    if swapped and len(raw) % 2:
        raise PixelError(_CUT)
    order = "<" if pixels.little_endian else ">"
    longer = pixels.length > wanted + wanted % 2
    if pixels.element != "integer":
        return (
            np.frombuffer(raw, f"{order}f{bits // 8}", count).reshape(
                pixels.rows, pixels.columns
            ),
            longer,
        )
    octets = np.frombuffer(raw, np.uint8)
    if swapped:
        octets = octets.reshape(-1, 2)[:, ::-1].ravel()
    if bits == 1:
        return (
            np.unpackbits(octets, count=count, bitorder="little").reshape(
                pixels.rows, pixels.columns
            ),
            longer,
        )
    kind = f"{order}{'i' if pixels.signed else 'u'}{bits // 8}"
    return octets[:wanted].view(kind).reshape(pixels.rows, pixels.columns), longer


def _read_at(one: Slice, size: int) -> bytes:
    """Read up to `size` bytes of the pixel element's value."""
    if one.pixels.syntax == DEFLATED:
        try:
            return inflate(one.path)[one.pixels.offset : one.pixels.offset + size]
        except HeaderError as err:
            raise PixelError(_CUT) from err
    with open_bounded(one.path) as file:
        file.seek(one.pixels.offset)
        return file.read(size)


def _clean(
    values: NDArray[np.generic], pixels: PixelFormat, *, upper: bool
) -> tuple[NDArray[np.generic], bool]:
    """Keep the bits in use, as pydicom does, extend the sign.

    Say whether the other bits held something.
    """
    unused = pixels.allocated - pixels.stored
    if pixels.element != "integer" or pixels.allocated == 1:
        return values, False
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if not unused:
        return native, False
    unsigned: NDArray[np.unsignedinteger] = native.view(f"u{native.dtype.itemsize}")
    if upper:
        low = pixels.high_bit + 1 - pixels.stored
        native = (unsigned >> np.uint8(low)).astype(unsigned.dtype).view(native.dtype)
    shifted = np.left_shift(native, native.dtype.type(unused))
    cleaned = np.right_shift(shifted, native.dtype.type(unused))
    if not np.array_equal(cleaned, native):
        above = native.view(unsigned.dtype) >> np.uint8(pixels.stored)
        return cleaned, bool(above.any()) and not (
            pixels.signed and _is_sign(native, pixels.stored)
        )
    return cleaned, False


def _claims_upper(pixels: PixelFormat) -> bool:
    return (
        pixels.element == "integer"
        and 0 < pixels.high_bit + 1 - pixels.stored <= pixels.allocated - pixels.stored
    )


def _place(values: NDArray[np.generic], pixels: PixelFormat) -> _Place:
    """Say which bits hold the values.

    Old scanners wrote them into the upper bits and said so by High Bit. Sloppy headers
    say it too, so that is believed only where the voxels agree.

    Raises
    ------
    PixelError
        If neither the upper nor the lower bits can be right.
    """
    if not _claims_upper(pixels):
        return "lower"
    low = pixels.high_bit + 1 - pixels.stored
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    unsigned: NDArray[np.unsignedinteger] = native.view(f"u{native.dtype.itemsize}")
    below = bool((unsigned & unsigned.dtype.type((1 << low) - 1)).any())
    above = bool((unsigned >> np.uint8(pixels.stored)).any())
    if below and above:
        raise PixelError(
            "says by its high bit that values lie where they do not. Repair its header,"
            " or export it again"
        )
    if above:
        return "upper"
    return "lower" if below else "either"


def _is_sign(native: NDArray[np.generic], stored: int) -> bool:
    """Say whether all bits above those in use repeat the sign or are zero."""
    above = np.right_shift(native, native.dtype.type(stored))
    return bool(((above == 0) | (above == -1)).all())


def _decoded(one: Slice) -> NDArray[np.generic]:
    pixels = one.pixels
    if pixels.syntax not in (_RLE, *_JPEG, *_JPEG_LS, *_JPEG_2000):
        raise PixelError(
            "is compressed in a way that Strata does not read"
            f" ({_syntax_name(pixels.syntax)}). Convert the series to NIfTI"
        )
    if pixels.length >= 0:
        raise PixelError(
            "says that it is compressed, but its voxels are not wrapped as such. Export"
            " it again"
        )
    frame = _frame(one)
    if pixels.syntax == _RLE:
        return _unpacked(frame, pixels)
    if pixels.syntax in (*_JPEG, *_JPEG_LS):
        _check_size(frame, pixels)
    image = _by_gdcm(frame, pixels)
    if image.shape != (pixels.rows, pixels.columns):
        raise PixelError(_unlike(image.shape[0], image.shape[1], pixels))
    kind = np.dtype(f"{'i' if pixels.signed else 'u'}{max(pixels.allocated, 8) // 8}")
    if image.dtype.itemsize > kind.itemsize:
        raise PixelError(
            "holds an image of more bits than its header says. Export it again"
        )
    return (
        image.astype(kind) if image.dtype.itemsize < kind.itemsize else image.view(kind)
    )


def _syntax_name(syntax: str) -> str:
    from pydicom.uid import UID

    return str(UID(syntax, validation_mode=0).name)


def _unlike(rows: int, columns: int, pixels: PixelFormat) -> str:
    return (
        f"holds an image of {rows} x {columns} voxels where its header says"
        f" {pixels.rows} x {pixels.columns}. Export it again"
    )


def _frame(one: Slice) -> bytes:
    """Join the fragments of the one frame."""
    with open_bounded(one.path) as file:
        file.seek(one.pixels.offset)
        items = []
        while (head := file.read(8))[:4] == b"\xfe\xff\x00\xe0" and len(head) == 8:
            size = int.from_bytes(head[4:], "little")
            item = file.read(size)
            if len(item) < size:
                raise PixelError(_CUT)
            items.append(item)
    frame = b"".join(items[1:])
    if not frame:
        raise PixelError(
            "holds no image: its compressed voxels are empty. Copy it again, or export"
            " it again"
        )
    return frame


def _unpacked(frame: bytes, pixels: PixelFormat) -> NDArray[np.generic]:
    """Decode RLE: one run of bytes for each byte of a voxel, the highest first."""
    depth, count = pixels.allocated // 8, pixels.rows * pixels.columns
    starts = [int(at) for at in np.frombuffer(frame[: len(frame[:64]) // 4 * 4], "<u4")]
    if not depth or len(starts) < 16 or starts[0] != depth:
        raise PixelError("has damaged voxels (RLE). Copy it again")
    ends = [*starts[2 : depth + 1], len(frame)]
    planes = np.zeros((count, depth), np.uint8)
    for k, (start, end) in enumerate(zip(starts[1 : depth + 1], ends, strict=True)):
        run = _unpack(frame[start:end], count)
        if len(run) < count:
            raise PixelError(_CUT)
        planes[:, depth - 1 - k] = np.frombuffer(run, np.uint8, count)
    kind = f"<{'i' if pixels.signed else 'u'}{depth}"
    return planes.view(kind).reshape(pixels.rows, pixels.columns)


def _unpack(run: bytes, count: int) -> bytearray:
    """Undo PackBits, up to `count` bytes."""
    out, at, end = bytearray(), 0, len(run)
    while at < end - 1 and len(out) < count:
        code = run[at]
        if code < 128:
            out += run[at + 1 : at + 2 + code]
            at += 2 + code
        elif code > 128:
            out += run[at + 1 : at + 2] * (257 - code)
            at += 2
        else:
            at += 1
    return out


def _check_size(frame: bytes, pixels: PixelFormat) -> None:
    """Compare what a JPEG or JPEG-LS stream says of itself with the header.

    GDCM would take either.
    """
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _SOF:
            rows, columns = (
                int.from_bytes(frame[at + 5 : at + 7], "big"),
                int.from_bytes(frame[at + 7 : at + 9], "big"),
            )
            if (rows, columns) != (pixels.rows, pixels.columns):
                raise PixelError(_unlike(rows, columns, pixels))
            return
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")


def _by_gdcm(frame: bytes, pixels: PixelFormat) -> NDArray[np.generic]:
    """Decode a frame through a bare file that says no more than how its voxels are stored."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, SecondaryCaptureImageStorage

    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = UID(pixels.syntax)
    bare.SOPClassUID = bare.file_meta.MediaStorageSOPClassUID = (
        SecondaryCaptureImageStorage
    )
    bare.SOPInstanceUID = bare.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.Rows, bare.Columns = pixels.rows, pixels.columns
    # GDCM would cut off the upper bits
    stored = pixels.allocated if _claims_upper(pixels) else pixels.stored
    bare.BitsAllocated, bare.BitsStored, bare.HighBit = (
        pixels.allocated,
        stored,
        stored - 1,
    )
    bare.PixelRepresentation = int(pixels.signed)
    bare.PixelData = encapsulate([frame], has_bot=False)
    bare["PixelData"].VR, bare["PixelData"].is_undefined_length = "OB", True
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        path = Path(folder, "frame.dcm")
        bare.save_as(path, enforce_file_format=True)
        reader.SetFileName(str(path))
        try:
            with quiet_stderr():
                image = reader.Execute()
        except RuntimeError as err:
            raise PixelError("has damaged or cut short voxels. Copy it again") from err
    found: NDArray[np.generic] = sitk.GetArrayFromImage(image)
    if found.shape[0] != 1 or found.ndim != 3:
        raise PixelError(
            "holds no single grey image, whatever its header says. Export it again"
        )
    return found[0]


def _through_table(one: Slice, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Apply a Modality LUT, which pydicom knows best."""
    from pydicom.pixels.processing import apply_modality_lut

    try:
        with quiet_pydicom():
            return apply_modality_lut(values, reread(one.path))
    except (
        HeaderError,
        AttributeError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
    ) as err:
        raise PixelError(
            "has a damaged table of intensities (Modality LUT). Export it again"
        ) from err


def _join(
    planes: list[NDArray[np.generic]], rescales: list[Rescale]
) -> NDArray[np.generic]:
    """Rescale each slice by its own header into the smallest usual type that holds all.

    Whole numbers where all are.
    """
    kinds = {plane.dtype for plane in planes}
    if len(kinds) == 1 and all(
        rescale.is_identity or rescale.table for rescale in rescales
    ):
        return np.stack(planes)
    factors = [_factors(rescale) for rescale in rescales]
    whole = all(plane.dtype.kind in "iu" for plane in planes) and all(
        part.is_integer() for pair in factors for part in pair
    )
    lows, highs = zip(
        *(_range(plane, *pair) for plane, pair in zip(planes, factors, strict=True)),
        strict=True,
    )
    low, high = min(lows), max(highs)
    if whole:
        fitting = [
            kind
            for kind in _INTEGERS
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
        ]
        if fitting:
            return _rescaled(planes, factors, np.dtype(fitting[0]), np.dtype(np.int64))
    return _rescaled(
        planes,
        factors,
        _float_kind(planes, factors, float(low), float(high)),
        np.dtype(np.float64),
    )


def _factors(rescale: Rescale) -> tuple[float, float]:
    if rescale.table or rescale.is_identity:
        return 1.0, 0.0
    return rescale.slope or 1.0, rescale.intercept or 0.0


def _range(
    plane: NDArray[np.generic], slope: float, intercept: float
) -> tuple[float, float]:
    """Give the lowest and highest intensity, exactly where all is whole."""
    seen = plane if plane.dtype.kind in "iu" else plane[np.isfinite(plane)]
    ends = [seen.min().item(), seen.max().item()] if seen.size else [0, 0]
    if plane.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        values = [end * int(slope) + int(intercept) for end in ends]
    else:
        values = [end * slope + intercept for end in ends]
    return min(values), max(values)


def _float_kind(
    planes: list[NDArray[np.generic]],
    factors: list[tuple[float, float]],
    low: float,
    high: float,
) -> np.dtype[np.generic]:
    """Choose float32 where it keeps neighbouring values apart, else float64."""
    largest, step = max(abs(low), abs(high)), min(abs(slope) for slope, _ in factors)
    stored_floats = {
        plane.dtype.itemsize for plane in planes if plane.dtype.kind == "f"
    }
    wide = 8 in stored_floats or (
        not stored_floats and largest > _EXACT_IN_FLOAT32 * step
    )
    narrow_range = _TINY < largest < float(np.finfo(np.float32).max)
    return np.dtype(np.float64 if wide or not narrow_range else np.float32)


def _rescaled(
    planes: list[NDArray[np.generic]],
    factors: list[tuple[float, float]],
    kind: np.dtype[np.generic],
    through: np.dtype[np.generic],
) -> NDArray[np.generic]:
    """Stack slices as `kind`; what is to be rescaled is computed as `through`."""
    joined = np.empty((len(planes), *planes[0].shape), kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, (plane, (slope, intercept)) in enumerate(
            zip(planes, factors, strict=True)
        ):
            if (slope, intercept) == (1.0, 0.0):
                joined[k] = plane
            else:
                joined[k] = plane.astype(through) * through.type(slope) + through.type(
                    intercept
                )
    return joined
