"""Damage: what goes wrong with a file's header and bytes, by family.

The same for the same random generator.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from benchmarks.fuzz import elements
from benchmarks.fuzz.seeds import Seed

Rng = np.random.Generator
JUNK = (
    b"",
    b"\xff\xfe",
    b"\x00",
    b"\xe4\xf6\xfc",
    b"\xf0\x9f\xa7\xa0",
    b"nan",
    b"-1",
    b"1e400",
    b"\n\n",
    b"\x1b[31m",
    b"A" * 70,
    b"../../x",
    b"%s%n",
)
NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-320",
    "2147483648",
    "4294967297",
    "18446744073709551616",
    "-0",
    "1,5",
    "0x10",
    "",
    "3.9",
)


BEHIND_CHECKSUM = "a byte changed, and the checksum not"


def damaged(seed: Seed, rng: Rng) -> tuple[Seed, tuple[str, ...]]:
    """Damage an input one to three times; gives it, and what was done."""
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        seed, what = _once(seed, rng)
        done.append(what)
    return seed, tuple(done)


def _once(seed: Seed, rng: Rng) -> tuple[Seed, str]:
    if not seed.files:
        return seed, "nothing left"
    if len(seed.files) > 1 and rng.random() < 0.12:
        return _files(seed, rng)
    name = str(rng.choice(list(seed.files)))
    raw, what = _bytes(seed, name, rng)
    return replace(seed, files={**seed.files, name: raw}), f"{name}: {what}"


def _files(seed: Seed, rng: Rng) -> tuple[Seed, str]:
    """Lose, double or swap whole files, or mix their parts."""
    one, two = (str(name) for name in rng.choice(list(seed.files), 2, replace=False))
    files = dict(seed.files)
    kind = int(rng.integers(5))
    if kind == 0:
        del files[one]
        return replace(seed, files=files), f"{one} removed"
    if kind == 1:
        files[f"copy of {one}" if "/" not in one else f"{one}.dcm"] = files[one]
        return replace(seed, files=files), f"{one} doubled"
    if kind == 2:
        files[one], files[two] = files[two], files[one]
        return replace(seed, files=files), f"{one} and {two} swapped"
    if kind == 3:
        files[one] = files[two]
        return replace(seed, files=files), f"{one} is {two}"
    at = int(rng.integers(0, max(1, len(files[one]))))
    files[one] = files[one][:at] + files[two][at:]
    return replace(seed, files=files), f"{one} goes on as {two} from byte {at}"


def _bytes(seed: Seed, name: str, rng: Rng) -> tuple[bytes, str]:
    raw = seed.files[name]
    if rng.random() < 0.04 and (changed := _behind_checksum(raw, rng)):
        return changed, BEHIND_CHECKSUM
    if raw[:2] == b"\x1f\x8b":
        return _packed(seed, name, raw, rng)
    if rng.random() < 0.3:
        return _plain(raw, rng)
    return _structured(seed.family, name, raw, rng)


def _structured(family: str, name: str, raw: bytes, rng: Rng) -> tuple[bytes, str]:
    by_family: dict[str, Callable[[bytes, Rng], tuple[bytes, str]]] = {
        "nifti": _nifti,
        "mgh": _mgh,
        "nrrd": _text,
        "meta": _text,
        "dicom": _dicom,
    }
    if name.endswith(".json"):
        return _text(raw, rng)
    if len(raw) < 40:
        return _plain(raw, rng)
    return by_family[family](raw, rng)


def _packed(seed: Seed, name: str, raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Damage what is compressed, or the compression."""
    if rng.random() < 0.7:
        try:
            inside = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            return _plain(raw, rng)
        inside, what = (
            _plain(inside, rng)
            if rng.random() < 0.25
            else _structured(seed.family, name, inside, rng)
        )
        return gzip.compress(inside, 1, mtime=0), f"inside gzip: {what}"
    kind = int(rng.integers(7))
    if kind == 0:
        return raw[:-4] + bytes(rng.integers(0, 256, 4, np.uint8)), "gzip length"
    if kind == 1:
        return (
            raw[:-8] + bytes(rng.integers(0, 256, 4, np.uint8)) + raw[-4:],
            "gzip checksum",
        )
    if kind == 2:
        return (
            raw + bytes(rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8)),
            "gzip with a tail",
        )
    if kind == 3:
        return (
            raw + gzip.compress(b"more" * int(rng.integers(0, 9)), mtime=0),
            "gzip with another member",
        )
    if kind == 4:
        try:
            return gzip.decompress(raw), "not compressed"
        except (OSError, EOFError, zlib.error):
            return raw[:12], "gzip head alone"
    if kind == 5:
        return gzip.compress(raw, mtime=0), "compressed twice"
    return _plain(raw, rng)


def _behind_checksum(raw: bytes, rng: Rng) -> bytes | None:
    """Change a byte of gzip or zlib data that still unpack; None where there are none.

    The data are stored, not compressed, so that only the checksum tells.
    """
    head, mark, packed = raw.partition(b"LOCAL\n")
    if not mark:
        head, mark, packed = raw.partition(b"\n\n")
    if not mark or raw[:2] == b"\x1f\x8b":
        head, mark, packed = b"", b"", raw
    is_gzip = packed[:2] == b"\x1f\x8b"
    if not is_gzip and packed[:1] != b"\x78":
        return None
    try:
        inside = zlib.decompress(packed, wbits=47)
    except zlib.error:
        return None
    stored = bytearray(
        gzip.compress(inside, 0, mtime=0) if is_gzip else zlib.compress(inside, 0)
    )
    first, last = (15, len(stored) - 8) if is_gzip else (7, len(stored) - 4)
    if len(inside) != last - first:
        return None
    # the last bytes are voxels, whatever comes before them
    stored[int(rng.integers((first + last) // 2, last))] ^= 1 << int(rng.integers(8))
    size = f"CompressedDataSize = {len(stored)}".encode()
    head = re.sub(rb"CompressedDataSize = \d+", size, head)
    return head + mark + bytes(stored)


def _plain(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Damage that knows nothing of the format; the first bytes are hit more often."""
    data = bytearray(raw)
    reach = len(data) if rng.random() < 0.4 else min(len(data), 600)
    at = int(rng.integers(0, max(1, reach)))
    n = int(2 ** rng.uniform(0, 6))
    kind = int(rng.integers(9))
    if kind == 0:
        return bytes(data[:at]), f"cut at byte {at}"
    if kind == 1:
        cut = int(2 ** rng.uniform(0, 8))
        return bytes(data[:-cut]), f"{cut} bytes short"
    if kind == 2 and data:
        for place in rng.integers(0, max(1, reach), int(rng.integers(1, 9))):
            data[int(place)] ^= 1 << int(rng.integers(8))
        return bytes(data), "bits flipped"
    if kind == 3:
        data[at : at + n] = bytes(rng.integers(0, 256, n, np.uint8))
        return bytes(data), f"{n} random bytes at {at}"
    if kind == 4:
        data[at : at + n] = bytes([int(rng.choice([0, 255, 127, 128, 32]))]) * n
        return bytes(data), f"{n} like bytes at {at}"
    if kind == 5:
        data[at:at] = JUNK[int(rng.integers(len(JUNK)))] or bytes(n)
        return bytes(data), f"junk put in at {at}"
    if kind == 6:
        del data[at : at + n]
        return bytes(data), f"{n} bytes taken out at {at}"
    if kind == 7:
        data += bytes(rng.integers(0, 256, n, np.uint8))
        return bytes(data), f"{n} bytes more"
    data[at:at] = data[at : at + n]
    return bytes(data), f"{n} bytes doubled at {at}"


# Headers of fields at fixed places


@dataclass(frozen=True)
class _Field:
    name: str
    at: int
    kind: str
    count: int = 1


def _fields(dtype: np.dtype[Any]) -> list[_Field]:
    found = []
    for name, (kind, at, *_) in (dtype.fields or {}).items():
        base, shape = (
            (kind.subdtype[0], kind.subdtype[1]) if kind.subdtype else (kind, (1,))
        )
        found.append(_Field(name, int(at), base.str[1:], int(np.prod(shape))))
    return found


def _nifti_fields(version: int) -> list[_Field]:
    import nibabel as nib

    return _fields(
        (nib.Nifti1Header if version == 1 else nib.Nifti2Header).template_dtype
    )


_MGH = [
    _Field("version", 0, "i4"),
    _Field("dims", 4, "i4", 4),
    _Field("type", 20, "i4"),
    _Field("dof", 24, "i4"),
    _Field("good_ras", 28, "i2"),
    _Field("delta", 30, "f4", 3),
    _Field("directions", 42, "f4", 9),
    _Field("center", 78, "f4", 3),
]
_TELLING = (
    "dim",
    "datatype",
    "bitpix",
    "pixdim",
    "vox_offset",
    "scl_slope",
    "scl_inter",
    "qform_code",
    "sform_code",
    "xyzt_units",
    "magic",
    "srow_x",
    "quatern_b",
    "sizeof_hdr",
    "dims",
    "type",
    "delta",
    "directions",
    "good_ras",
)


def _number(kind: str, old: Any, rng: Rng) -> Any:
    if kind[0] == "f":
        odd = [
            0.0,
            -0.0,
            -1.0,
            1.0,
            np.nan,
            np.inf,
            -np.inf,
            1e-38,
            -1e-45,
            1e38,
            1e10,
            0.001,
            3e9,
            1e300,
            float(rng.normal()),
            -float(old),
            float(old) * 1000,
        ]
        return odd[int(rng.integers(len(odd)))]
    limits = np.iinfo(kind)
    odd = [
        0,
        -1,
        1,
        2,
        3,
        4,
        7,
        8,
        10,
        16,
        64,
        128,
        256,
        512,
        768,
        1024,
        1280,
        1536,
        limits.min,
        limits.max,
        int(old) + 1,
        int(old) - 1,
        -int(old),
        int(old) * 2,
        2**31,
        2**40,
        int(rng.integers(0, 2000)),
    ]
    return min(max(odd[int(rng.integers(len(odd)))], limits.min), limits.max)


def _set(raw: bytes, fields: list[_Field], order: str, rng: Rng) -> tuple[bytes, str]:
    telling = [one for one in fields if one.name in _TELLING]
    among = telling if rng.random() < 0.75 else fields
    field = among[int(rng.integers(len(among)))]
    data = bytearray(raw)
    if field.kind[0] in "SV":
        size = int(field.kind[1:]) * field.count
        data[field.at : field.at + size] = JUNK[int(rng.integers(len(JUNK)))].ljust(
            size, b"\0"
        )[:size]
        return bytes(data), f"{field.name} is junk"
    dtype = np.dtype(field.kind).newbyteorder(order)
    n = int(rng.integers(field.count))
    at = field.at + n * dtype.itemsize
    if at + dtype.itemsize > len(data):
        return _plain(raw, rng)
    old = np.frombuffer(bytes(data[at : at + dtype.itemsize]), dtype)[0]
    with np.errstate(all="ignore"):
        old = 0 if dtype.kind == "f" and not np.isfinite(old) else old
        new = np.array([_number(field.kind, old, rng)]).astype(dtype)
    data[at : at + dtype.itemsize] = new.tobytes()
    return bytes(data), f"{field.name}[{n}] = {new[0]}"


def _nifti(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    order, version = "<", 1
    for mark in "<>":
        size = struct.unpack(f"{mark}i", raw[:4])[0]
        if size in (348, 540):
            order, version = mark, 1 if size == 348 else 2
    if rng.random() < 0.05:
        swapped = bytearray(raw)
        swapped[:4] = swapped[:4][::-1]
        return bytes(swapped), "byte order told wrongly"
    return _set(raw, _nifti_fields(version), order, rng)


def _mgh(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    return _set(raw, _MGH, ">", rng)


# Headers of text


_WORDS = (
    b"short",
    b"MET_SHORT",
    b"double",
    b"block",
    b"gzip",
    b"raw",
    b"bzip2",
    b"ascii",
    b"hex",
    b"big",
    b"little",
    b"True",
    b"False",
    b"LOCAL",
    b"LIST",
    b"left-posterior-superior",
    b"scanner-xyz",
    b"3D-right-handed",
    b"none",
    b"(1,0,0)",
    b"(nan,0,0)",
    b"(0,0,0)",
    b'"mm" "um" "m"',
    b"LAS",
    b"???",
    b"list",
    b"voxels.raw",
    b"scan.raw",
    b"/etc/hostname",
    b".",
    b"unsigned char",
    b"MET_UCHAR_ARRAY",
    b"MET_DOUBLE",
    b"domain",
)
_MORE = (
    b"byte skip: -1",
    b"byte skip: 7",
    b"line skip: 1",
    b"line skip: 99999",
    b"HeaderSize = -1",
    b"HeaderSize = 10",
    b"CompressedDataSize = 5",
    b"ElementNumberOfChannels = 3",
    b"endian: big",
    b"ElementByteOrderMSB = True",
    b"BinaryData = False",
    b'space units: "m" "m" "m"',
    b"measurement frame: (1,0,0) (0,1,0) (0,0,1)",
    b"centers: cell node cell",
    b"thicknesses: 1 nan 2",
    b"spacings: 1 1 1",
    b"axis mins: 0 0 0",
    b'labels: "x" "y" "z"',
    b"# a comment",
    b"key:=value",
    b"Segment0_Name:=\xff\xfe",
    b"Segment0_LabelValue:=0",
    b"Segment0_LabelValue:=99999999999",
    b"Segment0_Layer:=7",
    b"Segment0_Color:=nan 2 -1",
    b"Segment9_ID:=S9",
    b"CompressionLevel = 99",
    b"ElementToIntensityFunctionSlope = 2",
    b"Rotation = 1 0 0 0 1 0 0 0 1",
    b"Orientation = 1 0 0 0 1 0 0 0 0",
    b"old min: 0",
    b"block size: 4",
    b"content: \xff",
    b"space dimension: 3",
)


def _text(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Change a line of a header, its end, or a number in it."""
    end = raw.find(b"\n\n")
    end = (
        end
        if end >= 0
        else (
            raw.find(b"\n", raw.find(b"ElementDataFile"))
            if b"ElementDataFile" in raw
            else len(raw)
        )
    )
    lines, rest = raw[:end].split(b"\n"), raw[end:]
    at = int(rng.integers(0, len(lines)))
    sep = b":" if b":" in lines[at] else b"="
    key, _, value = lines[at].partition(sep)
    kind = int(rng.integers(10))
    what = f"line {at} ({key[:30].decode('latin-1')})"
    if kind == 0:
        del lines[at]
        what += " removed"
    elif kind == 1:
        lines.insert(int(rng.integers(1, len(lines) + 1)), lines[at])
        what += " doubled"
    elif kind in (2, 3, 4) and value.split():
        words = value.split(b" ")
        place = int(rng.integers(len(words)))
        number = NUMBERS[int(rng.integers(len(NUMBERS)))].encode()
        inner = words[place].split(b",")
        part = int(rng.integers(len(inner)))
        inner[part] = (
            b"(" * inner[part].startswith(b"(")
            + number
            + b")" * inner[part].endswith(b")")
        )
        words[place] = b",".join(inner)
        lines[at] = key + sep + b" ".join(words)
        what += f": a number is {number.decode()!r}"
    elif kind == 5:
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        lines[at] = key + sep + b" " + word
        what += f": is {word!r}"
    elif kind == 6:
        junk = JUNK[int(rng.integers(len(JUNK)))]
        lines[at] = key + sep + b" " + junk
        what += f": is junk {junk!r}"
    elif kind == 7:
        line = _MORE[int(rng.integers(len(_MORE)))]
        lines.insert(int(rng.integers(1, len(lines) + 1)), line)
        what = f"line {line!r} added"
    elif kind == 8:
        words = value.split()
        words = words[:-1] if rng.random() < 0.5 else [*words, *words[-1:]]
        lines[at] = key + sep + b" " + b" ".join(words)
        what += ": a word less or more"
    else:
        return (
            b"\r\n".join(lines) + rest.replace(b"\n\n", b"\r\n\r\n", 1),
            "line ends of Windows",
        )
    return b"\n".join(lines) + rest, what


# DICOM


_ODD_TEXT = (
    *JUNK,
    b"1\\2",
    b"\\",
    b"1\\\\2",
    b" ",
    b"19999999",
    b"1e5",
    b"0",
    b"-1.5",
    b"1",
    b"3.2",
    b"99999999999999999999",
    b"ISO_IR 192",
    b"ISO 2022 IR 87",
    b"\x1b$B\x1b(B",
    b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.3",
    b"MR",
    b"CT",
    b"SEG",
    b"MONOCHROME1",
    b"RGB",
    b"PALETTE COLOR",
    b"YBR_FULL_422",
    b"1\\0\\0\\0\\1\\0",
    b"0\\0\\0",
    b"nan\\nan\\nan",
    b"0\\0\\0\\0\\0\\0",
    b"1\\0\\0\\1\\0\\0",
    b"5\\5\\5",
    b"1.2.840.10008.5.1.4.1.1.66.4",
)
_PIXEL_TAGS = {
    0x00280002,
    0x00280004,
    0x00280008,
    0x00280010,
    0x00280011,
    0x00280030,
    0x00280100,
    0x00280101,
    0x00280102,
    0x00280103,
    0x00281052,
    0x00281053,
    0x00200032,
    0x00200037,
    0x0020000E,
    0x00080016,
    0x00080060,
    0x7FE00010,
    0x00020010,
    0x00080005,
    0x00200013,
    0x00080018,
    0x0020000D,
    0x00200052,
}
_VRS = (
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FL",
    "FD",
    "IS",
    "LO",
    "LT",
    "OB",
    "OW",
    "PN",
    "SH",
    "SL",
    "SQ",
    "SS",
    "ST",
    "TM",
    "UI",
    "UL",
    "UN",
    "US",
    "UT",
    "ZZ",
    "OF",
)


def _dicom(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    parsed = elements.parse(raw)
    if parsed is None or not parsed.elements:
        return _plain(raw, rng)
    place, among = elements.pick(parsed, rng, _PIXEL_TAGS)
    if not among:
        return _plain(raw, rng)
    one = among[place]
    kind, what = int(rng.integers(10)), f"({one.tag:08x} {one.vr})"
    if kind == 0:
        del among[place]
        what += " removed"
    elif kind == 1:
        among.insert(place, replace(one))
        what += " doubled"
    elif kind == 2:
        one.vr = str(rng.choice(_VRS))
        what += f" called {one.vr}"
    elif kind == 3:
        length = int(
            rng.choice([0, 1, 2, 3, 7, 100, 65535, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE])
        )
        one.length = length
        what += f" says {length} bytes"
    elif kind == 4 and place + 1 < len(among):
        among[place], among[place + 1] = among[place + 1], among[place]
        what += " out of order"
    elif kind == 5:
        one.tag = (one.tag + int(rng.choice([1, 2, 0x10000, 0x00100000]))) & 0xFFFFFFFF
        what += f" numbered {one.tag:08x}"
    elif kind == 6 and isinstance(one.value, bytes):
        one.value = one.value[: int(rng.integers(0, len(one.value) + 1))]
        what += f" cut to {len(one.value)} bytes"
    else:
        one.value, told = _value(one, parsed.order, rng)
        what += f" = {told}"
    return parsed.to_bytes(), what


def _value(one: elements.Element, order: str, rng: Rng) -> tuple[bytes, str]:
    numbers = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}
    if one.vr in numbers and rng.random() < 0.85:
        kind = numbers[one.vr]
        old = (
            np.frombuffer(
                one.value[: np.dtype(kind).itemsize].ljust(8, b"\0"),
                np.dtype(kind).newbyteorder(order),
            )[0]
            if isinstance(one.value, bytes)
            else 0
        )
        with np.errstate(all="ignore"):
            new = np.array(
                [_number(kind, 0 if not np.isfinite(old) else old, rng)]
                * int(rng.choice([1, 1, 1, 2]))
            ).astype(np.dtype(kind).newbyteorder(order))
        return new.tobytes(), str(new.tolist())
    if one.vr in ("DS", "IS") and rng.random() < 0.6:
        old_text = one.value.split(b"\\") if isinstance(one.value, bytes) else [b""]
        old_text[int(rng.integers(len(old_text)))] = NUMBERS[
            int(rng.integers(len(NUMBERS)))
        ].encode()
        text = b"\\".join(old_text)
    else:
        text = _ODD_TEXT[int(rng.integers(len(_ODD_TEXT)))]
    return text + b" " * (len(text) % 2), repr(text)
