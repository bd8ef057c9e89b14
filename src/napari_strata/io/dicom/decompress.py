"""Decode compressed DICOM frames.

GDCM, which SimpleITK includes, decodes JPEG, JPEG-LS and JPEG 2000: each frame is passed
in a minimal file of its own, so that GDCM does the decoding only. RLE is decoded here,
which is ten times faster.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_strata.io.dicom.file_head import open_bounded
from napari_strata.io.dicom.slice import PixelFormat, Slice
from napari_strata.io.itk import quiet_stderr

_RLE = "1.2.840.10008.1.2.5"
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
_JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
CUT_SHORT = "is damaged or cut short: voxels are missing. Copy it again"
_J2K_SIZE = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream: the markers SOC and SIZ."""
_J2K_DEPTH_AT = 42
"""Byte of the codestream with the sign (its highest bit) and the bits less one."""
_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})


class PixelError(Exception):
    """The voxels of a slice cannot be read; the message follows the file's name."""


def claims_upper_bits(pixels: PixelFormat) -> bool:
    """Return whether the header says by High Bit that values lie in the upper bits."""
    return (
        pixels.element == "integer"
        and 0 < pixels.high_bit + 1 - pixels.stored <= pixels.allocated - pixels.stored
    )


def decode_frame(one: Slice) -> tuple[NDArray[np.generic], str]:
    """Return the stored values of a compressed slice, as (row, column), and a remark.

    The remark tells how the sign of JPEG 2000 data was decided; "" if header and data
    agree. It follows the names of the files.

    Raises
    ------
    PixelError
        If the compression is not supported or the frame is damaged.
    """
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
    frame = _joined_fragments(one)
    if pixels.syntax == _RLE:
        return _decode_rle(frame, pixels), ""
    if pixels.syntax in (*_JPEG, *_JPEG_LS):
        _check_stream_size(frame, pixels)
    depth = _j2k_depth(frame) if pixels.syntax in _JPEG_2000 else None
    if depth is not None and pixels.signed is None:
        pixels = replace(pixels, signed=depth.signed)
    image = _decode_by_gdcm(frame, pixels)
    if image.shape != (pixels.rows, pixels.columns):
        raise PixelError(_size_mismatch(image.shape[0], image.shape[1], pixels))
    kind = np.dtype(f"{'i' if pixels.signed else 'u'}{max(pixels.allocated, 8) // 8}")
    if image.dtype.itemsize > kind.itemsize:
        raise PixelError(
            "holds an image of more bits than its header says. Export it again"
        )
    values = (
        image.astype(kind) if image.dtype.itemsize < kind.itemsize else image.view(kind)
    )
    return values, "" if depth is None else _sign_remark(values, one.pixels, depth)


@dataclass(frozen=True, slots=True)
class _Depth:
    """Sign and number of bits of the values in a JPEG 2000 codestream."""

    signed: bool
    bits: int


def _j2k_depth(frame: bytes) -> _Depth | None:
    """Read sign and bits from the start of a codestream; None if there is none."""
    at = frame.find(_J2K_SIZE) + _J2K_DEPTH_AT
    if at < _J2K_DEPTH_AT or at >= len(frame):
        return None
    return _Depth(bool(frame[at] & 0x80), (frame[at] & 0x7F) + 1)


def _sign_remark(
    values: NDArray[np.generic], pixels: PixelFormat, depth: _Depth
) -> str:
    """Compare the sign in JPEG 2000 data with that in the header.

    Where no value has the sign's bit, both give the same values. Else values that are
    stored as unsigned are read as signed if the header says so, as GDCM and pydicom do.

    Raises
    ------
    PixelError
        If signed and unsigned give different values and neither is certain.
    """
    if pixels.signed is None:
        sign = "signed" if depth.signed else "unsigned"
        return (
            f"without a pixel representation, read as {sign} as the JPEG 2000 data say"
        )
    unsigned: NDArray[np.unsignedinteger] = values.view(f"u{values.dtype.itemsize}")
    sign_bit = unsigned.dtype.type(
        1 << (min(depth.bits, values.dtype.itemsize * 8) - 1)
    )
    if depth.signed == pixels.signed or not (unsigned & sign_bit).any():
        return ""
    if depth.signed or depth.bits < pixels.stored:
        ours, theirs = (
            ("signed", "unsigned") if pixels.signed else ("unsigned", "signed")
        )
        raise PixelError(
            f"says that its values are {ours}, but its JPEG 2000 data are {theirs}:"
            " values are unknown. Export it again"
        )
    return "whose JPEG 2000 data are unsigned, read as signed as the header says"


def _syntax_name(syntax: str) -> str:
    from pydicom.uid import UID

    return str(UID(syntax, validation_mode=0).name)


def _size_mismatch(rows: int, columns: int, pixels: PixelFormat) -> str:
    return (
        f"holds an image of {rows} x {columns} voxels where its header says"
        f" {pixels.rows} x {pixels.columns}. Export it again"
    )


def _joined_fragments(one: Slice) -> bytes:
    """Join the fragments of the one frame."""
    with open_bounded(one.path) as file:
        file.seek(one.pixels.offset)
        items = []
        while (head := file.read(8))[:4] == b"\xfe\xff\x00\xe0" and len(head) == 8:
            size = int.from_bytes(head[4:], "little")
            item = file.read(size)
            if len(item) < size:
                raise PixelError(CUT_SHORT)
            items.append(item)
    frame = b"".join(items[1:])
    if not frame:
        raise PixelError(
            "holds no image: its compressed voxels are empty. Copy it again, or export"
            " it again"
        )
    return frame


def _decode_rle(frame: bytes, pixels: PixelFormat) -> NDArray[np.generic]:
    """Decode RLE: one run of bytes for each byte of a voxel, the highest first."""
    depth, count = pixels.allocated // 8, pixels.rows * pixels.columns
    starts = [int(at) for at in np.frombuffer(frame[: len(frame[:64]) // 4 * 4], "<u4")]
    if not depth or len(starts) < 16 or starts[0] != depth:
        raise PixelError("has damaged voxels (RLE). Copy it again")
    ends = [*starts[2 : depth + 1], len(frame)]
    planes = np.zeros((count, depth), np.uint8)
    for k, (start, end) in enumerate(zip(starts[1 : depth + 1], ends, strict=True)):
        run = _undo_packbits(frame[start:end], count)
        if len(run) < count:
            raise PixelError(CUT_SHORT)
        planes[:, depth - 1 - k] = np.frombuffer(run, np.uint8, count)
    kind = f"<{'i' if pixels.signed else 'u'}{depth}"
    return planes.view(kind).reshape(pixels.rows, pixels.columns)


def _undo_packbits(run: bytes, count: int) -> bytearray:
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


def _check_stream_size(frame: bytes, pixels: PixelFormat) -> None:
    """Check that the size in a JPEG or JPEG-LS stream is that of the header.

    GDCM does not compare them.
    """
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _START_OF_FRAME:
            rows, columns = (
                int.from_bytes(frame[at + 5 : at + 7], "big"),
                int.from_bytes(frame[at + 7 : at + 9], "big"),
            )
            if (rows, columns) != (pixels.rows, pixels.columns):
                raise PixelError(_size_mismatch(rows, columns, pixels))
            return
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")


def _decode_by_gdcm(frame: bytes, pixels: PixelFormat) -> NDArray[np.generic]:
    """Decode a frame through a minimal DICOM file that only describes its voxels."""
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
    stored = pixels.allocated if claims_upper_bits(pixels) else pixels.stored
    bare.BitsAllocated, bare.BitsStored, bare.HighBit = (
        pixels.allocated,
        stored,
        stored - 1,
    )
    bare.PixelRepresentation = int(bool(pixels.signed))
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
