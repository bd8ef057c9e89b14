"""What an independent reader makes of the same file.

Nibabel, pydicom, and for text headers a plain reading of the formats.

Each gives voxels with their places, or None where it does not take the file (or where
two readings of it would be right).
"""

from __future__ import annotations

import gzip
import logging
import math
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from benchmarks.fuzz.seeds import Seed

from napari_strata.volume import Geometry

_MOST_VOXELS = 10**6
_END_OF_PIXELS = b"\xfe\xff\xdd\xe0\0\0\0\0"
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_DECIMALS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
)
_UIDS = ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_SLICE_SLACK = 0.5
"""How far a slice may lie off Strata's even grid, in voxels.

Strata tells it in a note; the nearest voxel of the grid is still the right one.
"""
_LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


@dataclass(frozen=True)
class Reading:
    """Voxels (i, j, k) at an affine; a series has one reading per slice."""

    data: np.ndarray
    affine: np.ndarray
    slack: float = 0.02


def readings(seed: Seed, path: Path) -> list[Reading] | None:
    """Read with another reader than Strata's."""
    by_family = {
        "nifti": _nibabel,
        "mgh": _nibabel,
        "nrrd": _nrrd,
        "meta": _meta,
        "dicom": _dicom,
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            return by_family[seed.family](seed, path)
        except Exception:  # noqa: BLE001 - other readers refuse a file by whatever they stumble on
            return None
        finally:
            logging.disable(logging.NOTSET)


def differences(
    data: np.ndarray, geometry: Geometry, found: list[Reading], *, labels: bool
) -> list[str]:
    """Say what differs between Strata's array and the other reading.

    Every voxel's value, at its place in the patient.
    """
    with np.errstate(all="ignore"):
        told = (
            [np.rint(one.data.astype(np.float64)) for one in found]
            if labels
            else _replaced([one.data for one in found])
        )
        for reading, values in zip(found, told, strict=True):
            at = np.indices(values.shape).reshape(3, -1)
            world = reading.affine[:3, :3] @ at + reading.affine[:3, 3:]
            if not np.isfinite(world).all():
                return ["the affine is not finite for another reader"]
            inverse = np.linalg.inv(geometry.affine)
            there = inverse[:3, :3] @ world + inverse[:3, 3:]
            index = np.rint(there)
            if np.abs(there - index).max() > reading.slack:
                return [
                    f"voxels lie {np.abs(there - index).max():.3g} voxels off their"
                    " place"
                ]
            if (index < 0).any() or (index >= np.array(data.shape)[:, None]).any():
                return ["voxels lie outside the volume"]
            ours = data[tuple(index.astype(np.intp))].astype(np.float64)
            if not np.allclose(
                ours, values.ravel(), rtol=2e-6, atol=1e-30, equal_nan=True
            ):
                return [
                    f"{int((~np.isclose(ours, values.ravel(), rtol=2e-6, atol=1e-30)).sum())}"
                    f" of {ours.size} voxels have another value"
                ]
        if sum(one.data.size for one in found) != data.size:
            return [
                f"{data.size} voxels, {sum(one.data.size for one in found)} for another"
                " reader"
            ]
    return []


def _replaced(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Set what is no number to the lowest value, as Strata says that it does."""
    limit = float(np.finfo(np.float32).max)
    wide = [one.astype(np.float64) for one in arrays]
    good = [np.isfinite(one) & (np.abs(one) <= limit) for one in wide]
    lowest = min(
        (float(one[ok].min()) for one, ok in zip(wide, good, strict=True) if ok.any()),
        default=math.nan,
    )
    return [np.where(ok, one, lowest) for one, ok in zip(wide, good, strict=True)]


def _nibabel(seed: Seed, path: Path) -> list[Reading] | None:
    image: Any = nib.load(path)
    assert math.prod(image.shape) < _MOST_VOXELS
    data = np.asarray(image.dataobj)
    if data.ndim > 3:
        several = math.prod(data.shape[3:])
        if several > 1 and seed.index is None:
            return None
        data = data.reshape((*data.shape[:3], several), order="F")[..., seed.index or 0]
    affine, mm = np.array(image.affine, float), 1.0
    if seed.family == "nifti":
        with nib.openers.ImageOpener(
            path.with_suffix(".hdr") if path.suffix == ".img" else path
        ) as file:
            stated = type(image.header).from_fileobj(file, check=False)
        if not {int(stated["sform_code"]), int(stated["qform_code"])} <= set(range(6)):
            return None
        if path.suffix not in (".hdr", ".img") and stated["vox_offset"] == 0:
            # each reader makes something else of a code or a start that is not in the
            # standard
            return None
        mm = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            affine = np.array(image.get_qform())
    return [Reading(data, np.diag([mm, mm, mm, 1.0]) @ affine)]


_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    "float": "f4",
    "double": "f8",
}
_SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "lps": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
}
_MM = {'"mm"': 1.0, '"um"': 0.001, '"m"': 1000.0, '"cm"': 10.0}


def _nrrd(seed: Seed, path: Path) -> list[Reading] | None:
    """Read by the format's definition; anything out of the ordinary gives None."""
    raw = path.read_bytes()
    head, _, rest = (
        raw.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
        if b"\n\n" not in raw[:3000]
        else raw.partition(b"\n\n")
    )
    lines = head.decode("ascii").replace("\r", "").split("\n")
    assert lines[0].startswith("NRRD000")
    fields: dict[str, str] = {}
    later: list[str] = []
    for line in lines[1:]:
        if fields.get("data file") == "LIST":
            later.append(line)
            continue
        if line.startswith("#") or ":=" in line:
            continue
        key, colon, value = line.partition(": ")
        key = key.strip().lower().replace("datafile", "data file")
        assert colon
        assert key not in fields
        fields[key] = value.strip()
    known = {
        "type",
        "dimension",
        "sizes",
        "kinds",
        "encoding",
        "space",
        "space directions",
        "space origin",
        "endian",
        "data file",
        "space units",
        "spacings",
        "content",
    }
    if set(fields) - known or ("labels" in seed.name and "slicer" in seed.name):
        return None
    dtype = np.dtype(_NRRD_TYPES[fields["type"]]).newbyteorder(
        {"little": "<", "big": ">"}[fields.get("endian", "little")]
    )
    sizes = [int(n) for n in fields["sizes"].split()]
    assert len(sizes) == int(fields["dimension"])
    assert math.prod(sizes) < _MOST_VOXELS
    encoding = fields["encoding"]
    parts = [rest]
    if "data file" in fields:
        names = [fields["data file"]]
        if names == ["LIST"]:
            names = [name for name in later if name]
        elif " " in names[0]:
            pattern, first, last, step = names[0].split()
            numbers = range(int(first), int(last) + 1, int(step))
            names = [pattern % number for number in numbers]
        parts = [(path.parent / name).read_bytes() for name in names]
    if encoding in ("gzip", "gz"):
        parts = [gzip.decompress(part) for part in parts]
    if len(parts) > 1:
        share = math.prod(sizes) // len(parts) * dtype.itemsize
        assert encoding in ("raw", "gzip", "gz")
        assert all(len(part) == share for part in parts)
    rest = b"".join(parts)
    if encoding == "hex":
        rest = bytes.fromhex(rest.decode("ascii"))
    if encoding in ("ascii", "text", "txt"):
        data = np.array(rest.split(), dtype=dtype)
    else:
        assert encoding in ("raw", "gzip", "gz", "hex")
        count = math.prod(sizes) * dtype.itemsize
        data = np.frombuffer(rest[:count], dtype)
    data = data[: math.prod(sizes)].reshape(sizes, order="F")
    if "space" not in fields:  # taken for LPS, which a note calls a guess
        assert "space origin" not in fields
        fields |= {"space": "lps", "space origin": "(0,0,0)"}
        steps = [float(part) for part in fields["spacings"].split()]
        fields["space directions"] = " ".join(
            f"({','.join(map(str, row))})" for row in np.diag(steps)
        )
    words = fields["space directions"].split()
    columns = [
        [float(part) for part in word.strip("()").split(",")]
        for word in words
        if word != "none"
    ]
    if len(sizes) == 4:
        assert words[0] == "none"
        if seed.name.endswith("slicer-layers"):
            return None
        data = data[seed.index or 0]
    mm = (
        [_MM[unit] for unit in fields["space units"].split()]
        if "space units" in fields
        else [1.0] * 3
    )
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    affine[:3, 3] = [
        float(part) for part in fields["space origin"].strip("()").split(",")
    ]
    assert np.isfinite(affine).all()  # NRRD's word for an origin that is not known
    return [
        Reading(
            data,
            np.diag([*(np.array(_SPACES[fields["space"].lower()]) * mm), 1.0]) @ affine,
        )
    ]


_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def _meta(seed: Seed, path: Path) -> list[Reading] | None:
    """Read by the format's definition; anything out of the ordinary gives None."""
    rest, fields = path.read_bytes(), {}
    while "ElementDataFile" not in fields:
        line, newline, rest = rest.partition(b"\n")
        assert newline
        key, equals, value = line.decode("ascii").rstrip("\r").partition("=")
        assert equals
        assert key.strip() not in fields
        fields[key.strip()] = value.strip()
    known = {
        "ObjectType",
        "NDims",
        "BinaryData",
        "BinaryDataByteOrderMSB",
        "CompressedData",
        "CompressedDataSize",
        "TransformMatrix",
        "Offset",
        "CenterOfRotation",
        "AnatomicalOrientation",
        "ElementSpacing",
        "DimSize",
        "ElementType",
        "ElementDataFile",
        "ElementNumberOfChannels",
    }
    if set(fields) - known:
        return None
    assert fields["BinaryData"] == "True"
    assert {fields["BinaryDataByteOrderMSB"], fields["CompressedData"]} <= {
        "True",
        "False",
    }
    dtype = np.dtype(_META_TYPES[fields["ElementType"]]).newbyteorder(
        ">" if fields["BinaryDataByteOrderMSB"] == "True" else "<"
    )
    sizes = [int(n) for n in fields["DimSize"].split()]
    assert len(sizes) == int(fields["NDims"]) == 3
    channels = int(fields.get("ElementNumberOfChannels", 1))
    assert math.prod(sizes) * channels < _MOST_VOXELS
    if listed := fields["ElementDataFile"] == "LIST":
        parts = [(path.parent / name.decode()).read_bytes() for name in rest.split()]
        if fields["CompressedData"] == "True":
            parts = [zlib.decompress(part, wbits=47) for part in parts]
        assert all(
            len(part) == math.prod(sizes[:2]) * channels * dtype.itemsize
            for part in parts
        )
        rest = b"".join(parts)
    elif fields["ElementDataFile"] != "LOCAL":
        rest = (path.parent / fields["ElementDataFile"]).read_bytes()
    if fields["CompressedData"] == "True":
        size = int(fields.get("CompressedDataSize", 0)) or None
        rest = rest if listed else zlib.decompress(rest[:size], wbits=47)
    count = math.prod(sizes) * channels
    data = np.frombuffer(rest[: count * dtype.itemsize], dtype).reshape(
        [channels, *sizes], order="F"
    )[seed.index or 0]
    direction = (
        np.array([float(part) for part in fields["TransformMatrix"].split()])
        .reshape(3, 3)
        .T
    )
    affine = np.eye(4)
    affine[:3, :3] = direction * [
        float(part) for part in fields["ElementSpacing"].split()
    ]
    affine[:3, 3] = [float(part) for part in fields["Offset"].split()]
    return [Reading(data, _LPS_TO_RAS @ affine)]


def _dicom(seed: Seed, path: Path) -> list[Reading] | None:
    """Read every slice by pydicom, each at its own position."""
    import pydicom

    if seed.labels:
        return None
    folder = path if path.is_dir() else path.parent
    groups: dict[str, list[Any]] = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        if file.name.startswith("._") and file.read_bytes()[128:132] != b"DICM":
            continue
        try:
            ds = _dataset(file.read_bytes())
        except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError):
            continue
        if (
            "PixelData" in ds
            and "ImagePositionPatient" in ds
            and not str(ds.get("SOPClassUID", "")).startswith(
                "1.2.840.10008.5.1.4.1.1.66."
            )
        ):
            groups.setdefault(str(ds.get("SeriesInstanceUID", "")), []).append(ds)
    if path.is_dir():
        if len(groups) != 1:
            return None
        chosen = next(iter(groups.values()))
    else:
        chosen = groups[str(_dataset(path.read_bytes()).SeriesInstanceUID)]
    found: list[Reading] = []
    for one in map(_slice, chosen):
        # a copy may have lost its UID, and two slices of one place are no volume
        if not any(_equal(one, other) for other in found):
            found.append(one)
    return found


def _equal(one: Reading, other: Reading) -> bool:
    """Say whether two slices are copies, of which one is left out."""
    return np.array_equal(one.data, other.data) and np.array_equal(
        one.affine, other.affine
    )


def _dataset(raw: bytes) -> Any:
    """Read a file; from memory.

    Since pydicom asks a file for as many bytes as a damaged length says.
    """
    import pydicom

    ds = pydicom.dcmread(BytesIO(raw), force=True)
    # packed pixels may be whole, and only the mark of their end cut off, where pydicom
    # drops them
    if "PixelData" not in ds:
        kept = next((n for n in range(7, 0, -1) if raw.endswith(_END_OF_PIXELS[:n])), 0)
        ds = pydicom.dcmread(BytesIO(raw + _END_OF_PIXELS[kept:]), force=True)
    for name in (*_DECIMALS, *_UIDS):
        kind = "DS" if name in _DECIMALS else "UI"
        # Their values are text, whatever a damaged header calls them: pydicom would
        # take eight letters for a number
        tag = pydicom.datadict.tag_for_keyword(name)
        if (
            tag in ds
            and isinstance(one := ds.get_item(tag), pydicom.dataelem.RawDataElement)
            and one.VR not in (None, kind)
        ):
            ds[tag] = one._replace(VR=kind)
    return ds


def _slice(ds: Any) -> Reading:
    if "TransferSyntaxUID" not in ds.file_meta:
        from pydicom.uid import ExplicitVRLittleEndian

        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert (
        int(ds.Rows)
        * int(ds.Columns)
        * int(ds.get("SamplesPerPixel", 1))
        * int(ds.get("NumberOfFrames", 1))
        < _MOST_VOXELS
    )
    if ds.file_meta.TransferSyntaxUID in _JPEG_2000:
        from pydicom.encaps import generate_frames
        from pydicom.pixels.utils import get_j2k_parameters

        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        # else pydicom moves the values by half their range
        assert get_j2k_parameters(frame)["is_signed"] == bool(ds.PixelRepresentation)
    data = ds.pixel_array.astype(np.float64)
    assert data.ndim == 2
    slope, intercept = (ds.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
    data = data * float(1 if slope is None else slope) + float(
        0 if intercept is None else intercept
    )
    rows, columns = np.array(
        [float(part) for part in ds.ImageOrientationPatient]
    ).reshape(2, 3)
    spacing = [float(part) for part in ds.PixelSpacing]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * spacing[1], columns * spacing[0]
    affine[:3, 2] = np.cross(rows, columns)
    affine[:3, 3] = [float(part) for part in ds.ImagePositionPatient]
    return Reading(
        np.ascontiguousarray(data.T)[:, :, None],
        _LPS_TO_RAS @ affine,
        slack=_SLICE_SLACK,
    )
