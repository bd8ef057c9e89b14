"""Read the voxels of DICOM slices.

Each slice is decoded and rescaled by its own header. All are joined in a type that holds
their values.

Native pixels are read as they lie in the file. Compressed ones are decoded by GDCM,
which SimpleITK brings: each frame is handed over in a bare file of its own, so that
nothing but the decoding is left to it. RLE is decoded here, which is ten times faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ReadError
from napari_strata.io.dicom.decompress import (
    CUT_SHORT,
    PixelError,
    claims_upper_bits,
    decode_frame,
)
from napari_strata.io.dicom.file_head import open_bounded
from napari_strata.io.dicom.header_values import quiet_pydicom
from napari_strata.io.dicom.rescale import join_slices
from napari_strata.io.dicom.slice import (
    DEFLATED,
    HeaderError,
    PixelFormat,
    Slice,
    inflate,
    reread,
)

_NATIVE = (
    "",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    DEFLATED,
)
_BitPosition = Literal["lower", "upper", "either"]


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
    read = [_read_plane(one) for one in slices]
    unclear: list[Path] = []
    # a dark slice does not show where its values lie; its neighbours do
    if any(plane.bit_position == "upper" for plane in read):
        _check_one_place(slices, read)
        read = [
            _read_plane(one, upper=True) if plane.bit_position == "either" else plane
            for one, plane in zip(slices, read, strict=True)
        ]
    elif not any(
        plane.bit_position == "lower" and claims_upper_bits(one.pixels)
        for one, plane in zip(slices, read, strict=True)
    ):
        unclear = [
            one.path
            for one, plane in zip(slices, read, strict=True)
            if plane.bit_position == "either" and plane.values.any()
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
    for remark in sorted({plane.sign_remark for plane in read} - {""}):
        paths = [
            one.path
            for one, plane in zip(slices, read, strict=True)
            if plane.sign_remark == remark
        ]
        notes.append(f"{named(paths)}: {remark}.")
    if unclear:
        notes.append(
            f"{named(unclear)} {_says(unclear)} by the high bit that values lie in the"
            " upper bits, and voxels fit the lower bits too; those were read: all"
            " values may be too high by one factor."
        )
    return Voxels(join_slices(planes, [one.rescale for one in slices]), tuple(notes))


def same_voxels(one: Slice, other: Slice) -> bool:
    """Return whether two slices hold the same stored values.

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
        _read_plane(one).values,
        _read_plane(other).values,
        equal_nan=one.pixels.element != "integer",
    )


def named(paths: Sequence[Path], most: int = 3) -> str:
    """Name some files: the first few, and how many more there are."""
    shown = ", ".join(path.name for path in paths[:most])
    return shown if len(paths) <= most else f"{shown} and {len(paths) - most} more"


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """Stored values of a slice, as (row, column), and facts about their storage.

    Parameters
    ----------
    values : (row, column) array
        Of the bits in use.
    has_other_bits, is_longer : bool
        Whether unused bits were set, and whether there was more than one image's worth.
    bit_position : {"lower", "upper", "either"}
        Which bits hold the values; "either" where the header claims the upper ones and
        the voxels fit both.
    sign_remark : str
        How the sign was decided where header and data do not agree.
    """

    values: NDArray[np.generic]
    has_other_bits: bool
    is_longer: bool
    bit_position: _BitPosition
    sign_remark: str = ""


def _has(paths: Sequence[Path]) -> str:
    return "has" if len(paths) == 1 else "have"


def _says(paths: Sequence[Path]) -> str:
    return "says" if len(paths) == 1 else "say"


def _check_one_place(slices: Sequence[Slice], read: Sequence[_Plane]) -> None:
    """Refuse a slice with values in the lower bits among slices that use the upper ones.

    Raises
    ------
    ReadError
        If there is one.
    """
    for one, plane in zip(slices, read, strict=True):
        if plane.bit_position == "lower" and claims_upper_bits(one.pixels):
            raise ReadError(
                f"{one.path} says by its high bit that values lie in the upper bits,"
                " where those of other slices are, but its own lie in the lower ones."
                " Repair its header, or export the series again."
            )


def _read_plane(one: Slice, *, upper: bool = False) -> _Plane:
    try:
        return _stored(one, upper=upper)
    except PixelError as err:
        raise ReadError(f"{one.path} {err}.") from err
    except OSError as err:
        raise ReadError(
            f"Cannot read {one.path}: {err.strerror}. Check that you may read it."
        ) from err


def _stored(one: Slice, *, upper: bool) -> _Plane:
    pixels, remark = one.pixels, ""
    if pixels.syntax in _NATIVE:
        values, longer = _native(one)
    elif pixels.element != "integer":
        raise PixelError(
            "has compressed voxels of floating point, which Strata does not read."
            " Convert the series to NIfTI"
        )
    else:
        (values, remark), longer = decode_frame(one), False
    bit_position: _BitPosition = "upper" if upper else _bit_position(values, pixels)
    values, dirty = _clean(values, pixels, upper=bit_position == "upper")
    if pixels.signed is None and not remark:
        _check_sign_unneeded(values, pixels)
    if one.rescale.table:
        return _Plane(_through_table(one, values), False, longer, bit_position, remark)
    return _Plane(values, dirty, longer, bit_position, remark)


def _check_sign_unneeded(values: NDArray[np.generic], pixels: PixelFormat) -> None:
    """Check that values are the same whether they are signed or unsigned.

    Raises
    ------
    PixelError
        If they are not, in a slice without a pixel representation.
    """
    if pixels.element != "integer" or pixels.allocated == 1:
        return
    unsigned: NDArray[np.unsignedinteger] = values.view(f"u{values.dtype.itemsize}")
    if (unsigned >> np.uint8(pixels.stored - 1)).any():
        raise PixelError(
            "does not say whether its values are signed (it has no pixel"
            " representation), and they differ by that. Repair its header, or export"
            " it again"
        )


def _native(one: Slice) -> tuple[NDArray[np.generic], bool]:
    """Return uncompressed voxels, and whether the file holds more than one image's worth."""
    pixels = one.pixels
    count = pixels.rows * pixels.columns
    bits = {"float32": 32, "float64": 64}.get(pixels.element, pixels.allocated)
    expected = (count * bits + 7) // 8
    if pixels.length < 0:
        raise PixelError(
            "has compressed voxels, but its head does not say how. Export it again"
        )
    if pixels.length < expected:
        raise PixelError(
            f"has {pixels.length} bytes of voxels where {pixels.rows} rows,"
            f" {pixels.columns} columns and {bits} bits ask for {expected}: voxels are"
            " missing. Copy it again, or export it again"
        )
    if pixels.length >= 2 * expected and expected > 1:
        raise PixelError(
            f"has {pixels.length} bytes of voxels where {pixels.rows} rows,"
            f" {pixels.columns} columns and {bits} bits ask for {expected}: its header"
            " does not fit. Repair it, or export the series again"
        )
    raw = _read_at(one, expected + expected % 2)
    if len(raw) < expected:
        raise PixelError(CUT_SHORT)
    swapped = not pixels.little_endian and pixels.vr == "OW" and bits <= 8
    if swapped and len(raw) % 2:
        raise PixelError(CUT_SHORT)
    order = "<" if pixels.little_endian else ">"
    longer = pixels.length > expected + expected % 2
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
    return octets[:expected].view(kind).reshape(pixels.rows, pixels.columns), longer


def _read_at(one: Slice, size: int) -> bytes:
    """Read up to `size` bytes of the pixel element's value."""
    if one.pixels.syntax == DEFLATED:
        try:
            return inflate(one.path)[one.pixels.offset : one.pixels.offset + size]
        except HeaderError as err:
            raise PixelError(CUT_SHORT) from err
    with open_bounded(one.path) as file:
        file.seek(one.pixels.offset)
        return file.read(size)


def _clean(
    values: NDArray[np.generic], pixels: PixelFormat, *, upper: bool
) -> tuple[NDArray[np.generic], bool]:
    """Return the values of the bits in use, and whether the other bits held something.

    Signs are extended as pydicom does.
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


def _bit_position(values: NDArray[np.generic], pixels: PixelFormat) -> _BitPosition:
    """Return which bits hold the values.

    Old scanners stored values in the upper bits and declared it by High Bit. Careless
    headers declare it too, so it is used only where the voxels agree.

    Raises
    ------
    PixelError
        If neither the upper nor the lower bits can be right.
    """
    if not claims_upper_bits(pixels):
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
    """Return whether all bits above those in use repeat the sign or are zero."""
    above = np.right_shift(native, native.dtype.type(stored))
    return bool(((above == 0) | (above == -1)).all())


def _through_table(one: Slice, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return values mapped through the Modality LUT, which pydicom applies."""
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
