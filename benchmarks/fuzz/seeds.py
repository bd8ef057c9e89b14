"""The good files that are damaged.

Small scans and labels of every format that Strata reads, the same in every run.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ROOT = "1.2.826.0.1.3680043.8.498."
SHAPE = (6, 5, 4)


@dataclass(frozen=True)
class Seed:
    """A good input: its files by name, and which of them is opened ("." for the folder)."""

    name: str
    files: dict[str, bytes]
    opened: str
    labels: bool = False
    index: int | None = None

    @property
    def family(self) -> str:
        """The mutator that knows its header."""
        return self.name.split("/")[0]


def values(kind: str, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Give intensities, no two alike in a row."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return rng.normal(100, 40, shape).astype(dtype)
    if dtype.kind == "c":
        return (rng.normal(size=shape) + 1j).astype(dtype)
    top = 200 if dtype.itemsize == 1 else 3000
    return rng.integers(0, min(top, np.iinfo(dtype).max), shape).astype(dtype)


def label_values(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Give labels 0 to 3 at no mirrored place."""
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 1:3, 0:2], labels[3:6, 2:5, 2:4], labels[0, 0, -1] = 1, 2, 3
    return labels


def affine() -> np.ndarray:
    """Give an oblique affine (i, j, k) -> RAS mm with unequal spacings."""
    turn = nib.eulerangles.euler2mat(0.1, -0.2, 0.3)
    out = np.eye(4)
    out[:3, :3] = turn * (1.0, 1.5, 3.0) @ np.diag([-1.0, 1, 1])
    out[:3, 3] = (12.5, -20.25, 7.0)
    return out


# NIfTI and MGH


def nifti(
    data: np.ndarray,
    *,
    version: int = 1,
    order: str = "<",
    scale: tuple[float, float] | None = None,
    **fields: Any,
) -> bytes:
    """Give the bytes of a .nii file with every header field as asked."""
    make = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    header = make(endianness=order)
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_zooms((1.0, 1.5, 3.0, *(1.0,) * (data.ndim - 3)))
    header.set_qform(affine(), 1)
    header.set_sform(affine(), 1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352 if version == 1 else 544
    header["magic"] = b"n+1" if version == 1 else b"n+2\0\r\n\x1a\n"
    if scale:
        header["scl_slope"], header["scl_inter"] = scale
    for key, value in fields.items():
        header[key] = value
    return (
        header.binaryblock
        + bytes(4)
        + data.astype(data.dtype.newbyteorder(order)).tobytes(order="F")
    )


def mgh(data: np.ndarray, *, good: int = 1) -> bytes:
    """Give the bytes of an .mgh file."""
    types = {"u1": 0, "i4": 1, "f4": 3, "i2": 4, "u2": 10}
    dims = [*data.shape, 1][:4]
    start = (
        np.array([1, *dims, types[data.dtype.str[1:]], 0], ">i4").tobytes()
        + np.array([good], ">i2").tobytes()
    )
    floats = np.concatenate(
        [
            [1.0, 1.5, 3.0],
            (affine()[:3, :3] / (1.0, 1.5, 3.0)).T.ravel(),
            affine()[:3, 3],
        ]
    )
    head = (start + floats.astype(">f4").tobytes()).ljust(284, b"\0")
    footer = np.array([2.0, 0.1, 30.0, 900.0], ">f4").tobytes()
    return head + data.astype(data.dtype.newbyteorder(">")).tobytes(order="F") + footer


def nifti_seeds() -> Iterator[Seed]:
    """Give the NIfTI files."""

    def one(name: str, raw: bytes, suffix: str = ".nii", **more: Any) -> Seed:
        return Seed(f"nifti/{name}", {f"scan{suffix}": raw}, f"scan{suffix}", **more)

    holes = values("f4", 3)
    holes[0, :2, 1], holes[2, 2, 2] = np.nan, np.inf
    with_extension = bytearray(nifti(values("u2"), vox_offset=384))
    with_extension[348:352] = (
        b"\1\0\0\0" + np.array([32, 6], "<i4").tobytes() + b"a comment".ljust(24, b"\0")
    )
    yield one("int16", nifti(values("i2")))
    yield one("big-endian-scaled", nifti(values("i2"), order=">", scale=(0.5, -1000)))
    yield one("float32-holes", nifti(holes))
    yield one("uint16-extension", bytes(with_extension))
    yield one("float64", nifti(values("f8")))
    yield one("int64", nifti(values("i8")))
    yield one("4d", nifti(values("u1", shape=(*SHAPE, 2))), index=1)
    yield one("4d-none-chosen", nifti(values("i2", shape=(*SHAPE, 2))))
    yield one("micrometres-no-sform", nifti(values("i4"), xyzt_units=3, sform_code=0))
    yield one("zero-sform", nifti(values("i2"), srow_x=0, srow_y=0, srow_z=0))
    yield one("version-2", nifti(values("f4"), version=2, scale=(2.0, 1.0)))
    yield one("version-2-big-endian", nifti(values("u2"), version=2, order=">"))
    yield one("rgb", nifti(values("u1"), datatype=128, bitpix=24) + bytes(400))
    yield one("complex", nifti(values("c8")))
    yield one("gzip", gzip.compress(nifti(values("i2")), mtime=0), ".nii.gz")
    yield one(
        "gzip-4d",
        gzip.compress(nifti(values("i2", shape=(*SHAPE, 3))), mtime=0),
        ".nii.gz",
        index=1,
    )
    yield one(
        "gzip-float",
        gzip.compress(nifti(values("f4"), scale=(1.0, 0.0)), mtime=0),
        ".nii.gz",
    )
    raw = nifti(values("u1"))
    yield one(
        "gzip-two-members",
        gzip.compress(raw[:300], mtime=0) + gzip.compress(raw[300:], mtime=0),
        ".nii.gz",
    )
    pair = nifti(values("i2"), magic=b"ni1", vox_offset=0)
    yield Seed(
        "nifti/pair", {"scan.hdr": pair[:352], "scan.img": pair[352:]}, "scan.hdr"
    )
    yield Seed(
        "nifti/pair-by-img",
        {"scan.hdr": pair[:352], "scan.img": pair[352:]},
        "scan.img",
    )
    path = Path(nib.__file__).parent / "tests" / "data" / "example_nifti2.nii.gz"
    if path.exists():
        yield Seed(
            "nifti/of-nibabel",
            {"scan.nii.gz": path.read_bytes()},
            "scan.nii.gz",
            index=0,
        )
    dust = label_values().astype("f4") + np.float32(1e-5)
    table = json.dumps(
        {
            "regions": [
                {
                    "id": 1,
                    "name": "left",
                    "color": [255, 0, 0],
                    "locked": True,
                    "accepted": False,
                }
            ]
        }
    ).encode()
    yield one("labels", nifti(label_values()), labels=True)
    yield one(
        "labels-dust", gzip.compress(nifti(dust), mtime=0), ".nii.gz", labels=True
    )
    yield one(
        "labels-scaled",
        nifti(label_values().astype("i2"), scale=(2.0, 0.0)),
        labels=True,
    )
    yield Seed(
        "nifti/labels-table",
        {"scan.nii": nifti(label_values().astype("u2")), "scan.json": table},
        "scan.nii",
        labels=True,
    )
    hot = np.stack([label_values() == n for n in (1, 2, 3)], -1).astype("u1")
    yield one("labels-one-hot", nifti(hot), labels=True)


def mgh_seeds() -> Iterator[Seed]:
    """Give the MGH files."""
    for kind in ("u1", "i2", "i4", "f4", "u2"):
        yield Seed(f"mgh/{kind}", {"scan.mgh": mgh(values(kind))}, "scan.mgh")
    yield Seed(
        "mgh/gzip", {"scan.mgz": gzip.compress(mgh(values("i2")), mtime=0)}, "scan.mgz"
    )
    yield Seed(
        "mgh/4d",
        {"scan.mgh": mgh(values("f4", shape=(*SHAPE, 2)))},
        "scan.mgh",
        index=1,
    )
    yield Seed("mgh/no-ras", {"scan.mgh": mgh(values("u1"), good=0)}, "scan.mgh")
    yield Seed(
        "mgh/labels",
        {"scan.mgz": gzip.compress(mgh(label_values()), mtime=0)},
        "scan.mgz",
        labels=True,
    )
    yield Seed(
        "mgh/labels-int",
        {"scan.mgh": mgh(label_values().astype("i4"))},
        "scan.mgh",
        labels=True,
    )


# NRRD and MetaImage, written by hand


def nrrd(
    data: np.ndarray,
    *,
    encoding: str = "raw",
    order: str = "little",
    lines: tuple[str, ...] = (),
    space: str = "left-posterior-superior",
    file: str = "",
) -> tuple[bytes, bytes]:
    """Give the header and the voxels of an NRRD file; `lines` come last in the header."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine()
    directions = " ".join(
        f"({','.join(f'{part:.17g}' for part in column)})" for column in lps[:3, :3].T
    )
    sizes, kinds = data.shape, "domain domain domain"
    if data.ndim > 3:
        directions, kinds = f"none {directions}", f"list {kinds}"
    kind = {
        "u1": "uchar",
        "i1": "signed char",
        "i2": "short",
        "u2": "ushort",
        "i4": "int",
        "u4": "uint",
        "f4": "float",
        "f8": "double",
    }
    head = [
        "NRRD0004",
        f"type: {kind[data.dtype.str[1:]]}",
        f"dimension: {data.ndim}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"kinds: {kinds}",
        f"encoding: {encoding}",
    ]
    if space:
        head += [
            f"space: {space}",
            f"space directions: {directions}",
            f"space origin: ({','.join(f'{part:.17g}' for part in lps[:3, 3])})",
        ]
    if data.dtype.itemsize > 1 and encoding not in ("ascii", "text"):
        head.append(f"endian: {order}")
    if file:
        head.append(f"data file: {file}")
    raw = data.astype(
        data.dtype.newbyteorder("<" if order == "little" else ">")
    ).tobytes(order="F")
    if encoding == "gzip":
        raw = gzip.compress(raw, mtime=0)
    elif encoding == "ascii":
        raw = (" ".join(map(str, data.ravel(order="F"))) + "\n").encode()
    elif encoding == "hex":
        raw = raw.hex().encode()
    return ("\n".join([*head, *lines]) + "\n\n").encode(), raw


def meta(
    data: np.ndarray,
    *,
    compressed: bool = False,
    big: bool = False,
    file: str = "LOCAL",
    channels: int = 1,
    size: bool = True,
) -> tuple[bytes, bytes]:
    """Give the header and the voxels of a MetaImage file; `size` of what is packed."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine()
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    kind = {
        "u1": "MET_UCHAR",
        "i2": "MET_SHORT",
        "u2": "MET_USHORT",
        "i4": "MET_INT",
        "f4": "MET_FLOAT",
        "f8": "MET_DOUBLE",
    }
    raw = data.astype(data.dtype.newbyteorder(">" if big else "<")).tobytes(order="F")
    raw = zlib.compress(raw) if compressed else raw
    shape = data.shape if channels == 1 else data.shape[1:]
    head = [
        "ObjectType = Image",
        f"NDims = {len(shape)}",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {big}",
        f"CompressedData = {compressed}",
    ]
    if compressed and size:
        head.append(f"CompressedDataSize = {len(raw)}")
    head += [
        (
            "TransformMatrix ="
            f" {' '.join(f'{part:.17g}' for part in (lps[:3, :3] / spacing).T.ravel())}"
        ),
        f"Offset = {' '.join(f'{part:.17g}' for part in lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RPI",
        f"ElementSpacing = {' '.join(f'{part:.17g}' for part in spacing)}",
        f"DimSize = {' '.join(map(str, shape))}",
    ]
    if channels > 1:
        head.append(f"ElementNumberOfChannels = {channels}")
    head += [f"ElementType = {kind[data.dtype.str[1:]]}", f"ElementDataFile = {file}"]
    return ("\n".join(head) + "\n").encode(), raw


def text_header_seeds() -> Iterator[Seed]:
    """Give the NRRD and MetaImage files."""

    def whole(name: str, parts: tuple[bytes, bytes], suffix: str, **more: Any) -> Seed:
        return Seed(name, {f"scan{suffix}": b"".join(parts)}, f"scan{suffix}", **more)

    yield whole("nrrd/raw", nrrd(values("i2")), ".nrrd")
    yield whole("nrrd/big-endian", nrrd(values("u2"), order="big"), ".nrrd")
    yield whole("nrrd/gzip", nrrd(values("f4"), encoding="gzip"), ".nrrd")
    yield whole("nrrd/ascii", nrrd(values("i4"), encoding="ascii"), ".nrrd")
    yield whole("nrrd/hex", nrrd(values("u1"), encoding="hex"), ".nrrd")
    yield whole(
        "nrrd/ras", nrrd(values("f8"), space="right-anterior-superior"), ".nrrd"
    )
    yield whole(
        "nrrd/micrometres",
        nrrd(values("i2"), lines=('space units: "um" "um" "um"',)),
        ".nrrd",
    )
    yield whole(
        "nrrd/no-space",
        nrrd(values("i2"), space="", lines=("spacings: 1 2 3",)),
        ".nrrd",
    )
    more = {
        f"slice{k}.gz": gzip.compress(values("u1")[:, :, k].tobytes(order="F"), mtime=0)
        for k in range(SHAPE[2])
    }
    listed = "".join(f"{name}\n" for name in more)
    head, _ = nrrd(values("u1"), encoding="gzip", lines=("data file: LIST",))
    head = head.removesuffix(b"\n") + listed.encode()
    yield Seed("nrrd/list-of-gzip", {"scan.nhdr": head, **more}, "scan.nhdr")
    yield whole("nrrd/list", nrrd(values("i2", shape=(2, *SHAPE))), ".nrrd", index=1)
    head, raw = nrrd(values("i2"), file="voxels.raw")
    yield Seed("nrrd/detached", {"scan.nhdr": head, "voxels.raw": raw}, "scan.nhdr")
    head, raw = nrrd(values("f4"), encoding="gzip", file="voxels.raw.gz")
    yield Seed(
        "nrrd/detached-gzip", {"scan.nhdr": head, "voxels.raw.gz": raw}, "scan.nhdr"
    )
    slices = {
        f"slice{k}.raw": values("i2")[:, :, k].astype("<i2").tobytes(order="F")
        for k in range(SHAPE[2])
    }
    head, _ = nrrd(values("i2"), file="slice%d.raw 0 3 1")
    yield Seed("nrrd/detached-pattern", {"scan.nhdr": head, **slices}, "scan.nhdr")
    yield whole(
        "nrrd/labels", nrrd(label_values(), encoding="gzip"), ".nrrd", labels=True
    )
    segments = [
        f"Segment{n}_{key}:={value}"
        for n, (layer, label) in enumerate([(0, 1), (0, 2), (1, 1)])
        for key, value in {
            "ID": f"Segment_{n}",
            "Name": f"part {n}",
            "Color": "0.5 0.25 1",
            "LabelValue": label,
            "Layer": layer,
            "Extent": "0 5 0 4 0 3",
            "Tags": "Strata.Locked:1|",
        }.items()
    ]
    two = np.stack(
        [
            np.where(label_values() < 3, label_values(), 0),
            (label_values() == 3).astype("u1"),
        ]
    )
    fields = ("Segmentation_MasterRepresentation:=Binary labelmap", *segments)
    yield whole(
        "nrrd/slicer-layers",
        nrrd(two, encoding="gzip", lines=fields),
        ".seg.nrrd",
        labels=True,
    )
    yield whole(
        "nrrd/slicer", nrrd(label_values(), lines=fields[:15]), ".seg.nrrd", labels=True
    )

    yield whole("meta/raw", meta(values("i2")), ".mha")
    yield whole("meta/big-endian", meta(values("i4"), big=True), ".mha")
    yield whole("meta/packed", meta(values("f4"), compressed=True), ".mha")
    yield whole(
        "meta/packed-no-size",
        meta(values("i2"), compressed=True, big=True, size=False),
        ".mha",
    )
    head, _ = meta(values("i2"), compressed=True, file="LIST", size=False)
    packed = {f"{name}.z": zlib.compress(raw) for name, raw in slices.items()}
    listed = "".join(f"{name}\n" for name in packed)
    yield Seed(
        "meta/list-packed", {"scan.mhd": head + listed.encode(), **packed}, "scan.mhd"
    )
    yield whole(
        "meta/channels",
        meta(values("u2", shape=(2, *SHAPE)), channels=2),
        ".mha",
        index=1,
    )
    yield whole("meta/double", meta(values("f8")), ".mha")
    head, raw = meta(values("i2"), file="scan.raw")
    yield Seed("meta/detached", {"scan.mhd": head, "scan.raw": raw}, "scan.mhd")
    head, raw = meta(values("u1"), compressed=True, file="scan.zraw")
    yield Seed("meta/detached-packed", {"scan.mhd": head, "scan.zraw": raw}, "scan.mhd")
    head, _ = meta(values("i2"), file="LIST")
    yield Seed(
        "meta/list",
        {"scan.mhd": head + "".join(f"{name}\n" for name in slices).encode(), **slices},
        "scan.mhd",
    )
    yield whole(
        "meta/labels", meta(label_values(), compressed=True), ".mha", labels=True
    )


# DICOM


def dicom_slice(
    stored: np.ndarray,
    k: int,
    syntax: str,
    change: Callable[[Any, int], None] | None = None,
    series: int = 1,
) -> Any:
    """Make one slice (row, column) as pydicom's dataset."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.2"
    )
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(
        f"{ROOT}{series}.3.{k + 1}"
    )
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.ImplementationClassUID = UID(f"{ROOT}1")
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (
        f"{ROOT}{series}.1",
        f"{ROOT}{series}.2",
        f"{ROOT}{series}.4",
    )
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = (
        "Test^Phantom",
        "P0",
        "",
        "",
    )
    (
        ds.StudyDate,
        ds.StudyTime,
        ds.StudyID,
        ds.AccessionNumber,
        ds.ReferringPhysicianName,
    ) = ("20200101", "120000", "1", "", "")
    (
        ds.Modality,
        ds.SeriesNumber,
        ds.InstanceNumber,
        ds.SeriesDescription,
        ds.Manufacturer,
    ) = ("CT", series, k + 1, "phantom", "none")
    ds.ImagePositionPatient = [-8, -7.5, 2.5 * k]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1.5, 1.25], 2.5
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = stored.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        bits,
        bits,
        bits - 1,
        int(stored.dtype.kind == "i"),
    )
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    if change:
        change(ds, k)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    ds.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"
    return ds


def saved(ds: Any, packed: str = "") -> bytes:
    """Give the bytes of a dataset's file.

    Encapsulated in a transfer syntax where one is named.
    """
    from io import BytesIO

    import pydicom

    if packed:
        ds.compress(packed, generate_instance_uid=False)
    target = BytesIO()
    pydicom.dcmwrite(target, ds, enforce_file_format=True)
    return target.getvalue()


def dicom_series(
    kind: str = "u2",
    *,
    syntax: str = "1.2.840.10008.1.2.1",
    packed: str = "",
    slices: int = 3,
    change: Callable[[Any, int], None] | None = None,
    series: int = 1,
    prefix: str = "IM",
) -> dict[str, bytes]:
    """Make the files of one series."""
    stored = values(kind, series, (8, 7, slices))
    return {
        f"{prefix}{k}.dcm": saved(
            dicom_slice(stored[:, :, k], k, syntax, change, series), packed
        )
        for k in range(slices)
    }


def dicom_seeds() -> Iterator[Seed]:
    """Give the DICOM series and a DICOM SEG."""

    def folder(name: str, files: dict[str, bytes], **more: Any) -> Seed:
        return Seed(f"dicom/{name}", files, ".", **more)

    def no_rescale(ds: Any, k: int) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept
        ds.Modality, ds.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID

    def scaled(ds: Any, k: int) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = f"{0.1 + k / 8:g}", f"{-k}"

    def tilted(ds: Any, k: int) -> None:
        ds.ImagePositionPatient = [-8, -7.5 + 0.8 * k, 2.5 * k]

    def inverted(ds: Any, k: int) -> None:
        no_rescale(ds, k)
        ds.PhotometricInterpretation = "MONOCHROME1"

    def twelve(ds: Any, k: int) -> None:
        no_rescale(ds, k)
        ds.BitsStored, ds.HighBit = 12, 11

    plain = dicom_series()
    yield folder("plain", plain)
    yield folder("signed", dicom_series("i2", change=no_rescale))
    yield folder("bytes", dicom_series("u1", change=no_rescale))
    yield folder("wide", dicom_series("u4", change=no_rescale))
    yield folder("twelve-bits", dicom_series(change=twelve))
    yield folder("own-scales", dicom_series(change=scaled, slices=4))
    yield folder("tilted", dicom_series(change=tilted))
    yield folder("monochrome1", dicom_series(change=inverted))
    yield folder("implicit", dicom_series(syntax="1.2.840.10008.1.2"))
    yield folder("big-endian", dicom_series(syntax="1.2.840.10008.1.2.2"))
    yield folder("deflated", dicom_series(syntax="1.2.840.10008.1.2.1.99"))
    yield folder("rle", dicom_series(packed="1.2.840.10008.1.2.5"))
    if find_spec("jpeg_ls"):
        yield folder("jpeg-ls", dicom_series(packed="1.2.840.10008.1.2.4.80"))
    if find_spec("openjpeg"):
        yield folder("jpeg-2000", dicom_series(packed="1.2.840.10008.1.2.4.90"))
    yield folder("no-mark", {name: raw[132:] for name, raw in plain.items()})
    yield folder(
        "no-head",
        {name: raw[raw.index(b"\x08\0\x05\0CS") :] for name, raw in plain.items()},
    )
    mixed = {
        **dicom_series("u1", slices=4, change=no_rescale),
        **dict(list(dicom_series("i2", slices=4, change=no_rescale).items())[1:3]),
    }
    yield folder("mixed-types", mixed)
    yield folder("two-series", {**plain, **dicom_series(series=2, prefix="B")})
    yield folder(
        "in-subfolders",
        {f"{'ab'[n % 2]}/{name}": raw for n, (name, raw) in enumerate(plain.items())},
    )
    yield folder(
        "with-strangers",
        {
            **plain,
            "._IM0.dcm": b"\0\5\x16\7\0\2\0\0Mac OS X".ljust(200, b"\0"),
            "notes.txt": b"hello",
            "report": rtstruct(),
        },
    )
    yield Seed("dicom/by-file", plain, "IM1.dcm")
    segmentation = _segmentation(plain)
    if segmentation:
        yield folder("with-seg", {**plain, "seg.dcm": segmentation})
        yield Seed("dicom/seg", {"seg.dcm": segmentation}, "seg.dcm", labels=True)
    yield Seed("dicom/rtstruct", {"rt.dcm": rtstruct()}, "rt.dcm", labels=True)
    yield from _of_pydicom()


def rtstruct() -> bytes:
    """Give an RT structure set without a contour."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.481.3"
    )
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{ROOT}7.1")
    ds.file_meta.TransferSyntaxUID, ds.file_meta.ImplementationClassUID = (
        UID("1.2.840.10008.1.2.1"),
        UID(f"{ROOT}1"),
    )
    ds.Modality, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
        "RTSTRUCT",
        f"{ROOT}7.2",
        f"{ROOT}7.3",
    )
    ds.PatientName, ds.PatientID = "T", "0"
    return saved(ds)


def _of_pydicom() -> Iterator[Seed]:
    """Give series of pydicom's own small MR image, in its transfer syntaxes.

    Where pydicom brings its test files.
    """
    import pydicom
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    for name in (
        "MR_small_RLE",
        "MR_small_jpeg_ls_lossless",
        "MR_small_jp2klossless",
        "MR_small_bigendian",
        "JPEG-lossy",
    ):
        path = folder / f"{name}.dcm"
        if not path.exists():
            continue
        files = {}
        for k in range(2):
            ds = pydicom.dcmread(path)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = (
                f"{ROOT}6.{k + 1}"
            )
            ds.InstanceNumber, ds.SeriesInstanceUID = k + 1, f"{ROOT}6"
            x, y, z = (
                float(part) for part in ds.get("ImagePositionPatient", (0, 0, 0))
            )
            ds.ImagePositionPatient = [x, y, z + 2 * k]
            files[f"IM{k}.dcm"] = saved(ds)
        yield Seed(f"dicom/of-pydicom-{name}", files, ".")


def _segmentation(series: dict[str, bytes]) -> bytes:
    """Give a SEG by highdicom, with the dates and UIDs of every run alike.

    Nothing where highdicom is missing.
    """
    if not find_spec("highdicom"):
        return b""
    from io import BytesIO

    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(BytesIO(raw)) for raw in series.values()]
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=n,
            segment_label=f"part {n}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
            tracking_id=f"Strata region {n + 3}",
            tracking_uid=f"{ROOT}5.{n}",
        )
        for n in (1, 2)
    ]
    labels = label_values((8, 7, 3)).transpose(2, 0, 1)
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack([labels == 1, labels == 2], -1).astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=f"{ROOT}5",
        series_number=9,
        sop_instance_uid=f"{ROOT}5.9",
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    known: dict[str, str] = {}

    def alike(_: Any, element: Any) -> None:
        if element.VR in ("DA", "TM", "DT") and element.value:
            element.value = {"DA": "20200101", "TM": "120000", "DT": "20200101120000"}[
                element.VR
            ]
        elif (
            element.VR == "UI"
            and isinstance(element.value, str)
            and not element.value.startswith(("1.2.840.10008.", ROOT))
        ):
            element.value = known.setdefault(element.value, f"{ROOT}8.{len(known) + 1}")

    made.walk(alike)
    made.file_meta.ImplementationClassUID = f"{ROOT}1"
    target = BytesIO()
    pydicom.dcmwrite(target, made, enforce_file_format=True)
    return target.getvalue()


@cache
def all_seeds() -> tuple[Seed, ...]:
    """Make every seed."""
    return (*nifti_seeds(), *mgh_seeds(), *text_header_seeds(), *dicom_seeds())


def chosen_seeds(only: str = "") -> tuple[Seed, ...]:
    """Give the seeds in whose names a regular expression is found."""
    return tuple(seed for seed in all_seeds() if re.search(only, seed.name))


def write_seeds(folder: Path, only: str = "") -> None:
    """Write the seeds into a folder, for processes that should not make them again."""
    for number, seed in enumerate(chosen_seeds(only)):
        place = folder / f"{number:03d}"
        record = {
            "name": seed.name,
            "opened": seed.opened,
            "labels": seed.labels,
            "index": seed.index,
            "files": list(seed.files),
        }
        place.mkdir(parents=True)
        (place / "seed.json").write_text(json.dumps(record))
        for n, raw in enumerate(seed.files.values()):
            (place / str(n)).write_bytes(raw)


def read_seeds(folder: Path) -> tuple[Seed, ...]:
    """Read what `write_seeds` wrote."""
    found = []
    for place in sorted(folder.iterdir()):
        record = json.loads((place / "seed.json").read_text())
        record["files"] = {
            name: (place / str(n)).read_bytes()
            for n, name in enumerate(record["files"])
        }
        found.append(Seed(**record))
    return tuple(found)
