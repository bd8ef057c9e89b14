"""Headers that another program half understands.

Numbers with a comma, too few numbers, an unclear storage. All are refused.
"""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from napari_strata.errors import ChoiceError, GeometryError, ReadError
from napari_strata.io.files import read, read_labels

VOXELS = np.arange(120, dtype="<i2").tobytes()
META = {
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "1 1 2",
    "DimSize": "4 5 6",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "sizes": "4 5 6",
    "encoding": "raw",
    "endian": "little",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Offset", "1,5 2 3"),  # a decimal comma: ITK reads 1 0 0
        ("Offset", "nan 2 3"),
        # ITK goes on reading in the next line, and loses the spacing
        ("Offset", "1 2"),
        ("Offset", ""),
        ("TransformMatrix", "1 0 0 0 1 0 0 0"),
        ("ElementSpacing", "1 1 2x"),
        ("DimSize", "4.9 5 6"),
        ("NDims", "3.9"),
        ("BinaryDataByteOrderMSB", "maybe"),
        ("HeaderSize", "10"),
        # ITK gives it to C's printf, and the process dies
        ("ElementDataFile", "%s%n"),
        ("ElementDataFile", "slice%d%n.raw 1 6 1"),
        ("Comment", "1\noffset = 5 5 5"),  # which ITK passes over
        ("Comment", "1\na word\nOffset = 1 2 3"),  # and the line after this one
        ("Comment", "1\nOrigin = 5 5 5"),  # and an Offset of 1 2 3
        ("Comment", "1\nCompressedData: maybe"),
        ("Comment", "1\nCompresedData = True"),  # misspelt, so not compressed
        ("CompressedDataSize", "100"),  # and CompressedData = False
        ("CompressedData", "True"),  # and they are not
    ],
)
def test_meta_image_of_unclear_numbers_is_refused(tmp_path, name, value):
    path = tmp_path / "scan.mha"
    fields = {**dict(list(META.items())[:-1]), name: value}
    fields = {**fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
    path.write_bytes(
        "".join(f"{key} = {said}\n" for key, said in fields.items()).encode() + VOXELS
    )
    with pytest.raises(ReadError, match=r"scan\.mha"):
        read(path)


@pytest.mark.parametrize(
    "lines",
    [
        {"spacings": "1 1 1,5"},
        {"spacings": "1 1 2x"},
        {"spacings": "1 1 2", "sizes": "4.9 5 6"},
        {
            "space": "LPS",
            "space directions": "(1,0,0) (0,1,0) (0,0,2x)",
            "space origin": "(0,0,0)",
        },
        {
            "space": "LPS",
            "space directions": "(1,0,0) (0,1,0) (0,0,2)",
            "space origin": "(1.5.2,2,3)",
        },
        {
            "space": "LPS",
            "space directions": "(1,0,0) (0,,0) (0,0,2)",
            "space origin": "(0,0,0)",
        },
        {"spacings": "1 1 2", "encoding": "ascii"},  # and the voxels are no numbers
    ],
)
def test_nrrd_of_unclear_numbers_is_refused(tmp_path, lines):
    path = tmp_path / "scan.nrrd"
    head = "".join(f"{key}: {said}\n" for key, said in {**NRRD, **lines}.items())
    path.write_bytes(f"NRRD0004\n{head}\n".encode() + VOXELS)
    with pytest.raises(ReadError, match=r"scan\.nrrd"):
        read(path)


def test_a_shifted_sform_is_no_reason_to_take_the_qform(tmp_path):
    import nibabel as nib

    path = tmp_path / "scan.nii"
    image = nib.Nifti1Image(np.zeros((4, 5, 6), "i2"), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.header["srow_x"] = 0, 0, -5e13, 0
    image.header["sform_code"] = 1
    path.write_bytes(bytes(image.header.binaryblock) + bytes(4) + bytes(240))
    with pytest.raises(GeometryError, match="sform"):
        read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"vox_offset": 4},  # the header would be read as voxels
        {"vox_offset": 1e-38},
        {"vox_offset": 352.5},
        {"vox_offset": 0, "extension": 1},
        {"sform_code": -1, "qform_code": 1},  # which some take, and some do not
        {"sform_code": 7, "qform_code": 0},
    ],
    ids=str,
)
def test_nifti_that_says_unclearly_where_its_voxels_are(tmp_path, fields):
    import nibabel as nib

    path = tmp_path / "scan.nii"
    header = nib.Nifti1Image(np.zeros((4, 5, 6), "i2"), np.eye(4)).header
    header.set_qform(np.eye(4), 1)
    header.set_sform(np.diag([1, 1, 2, 1]), 1)
    header["vox_offset"] = 352
    for name in fields.keys() - {"extension"}:
        header[name] = fields[name]
    mark = bytes([fields.get("extension", 0), 0, 0, 0])
    path.write_bytes(bytes(header.binaryblock) + mark + bytes(40) + VOXELS)
    with pytest.raises((ReadError, GeometryError), match=r"scan\.nii"):
        read(path)


def test_frames_by_the_billion_are_not_listed(tmp_path):
    head = struct.pack(
        ">7ih15f", 1, 4, 5, 6, 2**31 - 1, 4, 0, 1, 1, 1, 1, *np.eye(3).ravel(), 0, 0, 0
    )
    path = tmp_path / "scan.mgz"
    path.write_bytes(gzip.compress(head.ljust(284, b"\0") + bytes(240)))
    with pytest.raises((ReadError, ChoiceError), match=r"scan\.mgz"):
        read(path)


def test_a_pattern_of_names_that_printf_would_misread_is_refused(tmp_path):
    path = tmp_path / "scan.nhdr"
    head = "".join(f"{key}: {said}\n" for key, said in NRRD.items())
    path.write_text(f"NRRD0004\n{head}data file: slice%d%n%n.raw 1 6 1\n\n")
    with pytest.raises(ReadError, match="pattern"):
        read(path)


@pytest.mark.parametrize("origin", ["none", "(nan,nan,nan)", None])
def test_an_origin_that_is_not_known_is_told(tmp_path, origin):
    path = tmp_path / "scan.nrrd"
    lines = {"space": "LPS", "space directions": "(1,0,0) (0,1,0) (0,0,2)"}
    lines |= {} if origin is None else {"space origin": origin}
    head = "".join(f"{key}: {said}\n" for key, said in {**NRRD, **lines}.items())
    path.write_bytes(f"NRRD0004\n{head}\n".encode() + VOXELS)
    assert "where the scan lies" in " ".join(read(path).notes)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii"])
def test_more_voxels_than_the_header_says_are_told(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    space = {"space": "LPS", "space origin": "(0,0,0)"}
    space["space directions"] = "(1,0,0) (0,1,0) (0,0,2)"
    head = "".join(f"{key}: {said}\n" for key, said in {**NRRD, **space}.items())
    head = f"NRRD0004\n{head}\n"
    if suffix == ".mha":
        head = "".join(f"{key} = {said}\n" for key, said in META.items())
    raw = head.encode()
    if suffix == ".nii":
        import nibabel as nib

        raw = nib.Nifti1Image(np.zeros((4, 5, 6), "i2"), np.eye(4)).to_bytes()[:352]
    path.write_bytes(raw + VOXELS)
    assert read(path).notes == ()
    path.write_bytes(raw + VOXELS.replace(b"\n", b"\r\n"))
    assert "1 bytes more" in " ".join(read(path).notes)


@pytest.mark.parametrize(
    "name", ["Offset", "TransformMatrix", "BinaryDataByteOrderMSB"]
)
def test_a_part_of_a_meta_image_header_that_is_lost_is_told(tmp_path, name):
    path = tmp_path / "scan.mha"
    fields = {key: said for key, said in META.items() if key != name}
    head = "".join(f"{key} = {said}\n" for key, said in fields.items())
    path.write_bytes(head.encode() + VOXELS)
    assert name in " ".join(read(path).notes)


@pytest.mark.parametrize(
    "fields",
    [
        "Segment0_ID:=one\nSegment0_LabelValue:=0\n",
        # both are the label value 1
        "Segment0_ID:=one\nSegment0_LabelValue:=1\nSegment9_ID:=nine\n",
    ],
)
def test_segments_of_the_background_or_of_the_same_voxels(tmp_path, fields):
    path = tmp_path / "labels.seg.nrrd"
    lines = {"space": "LPS", "space directions": "(1,0,0) (0,1,0) (0,0,2)"}
    head = "".join(f"{key}: {said}\n" for key, said in {**NRRD, **lines}.items())
    head += fields
    path.write_bytes(f"NRRD0004\n{head}\n".encode() + VOXELS)
    with pytest.raises(ReadError, match="segment fields"):
        read_labels(path)


def test_a_slice_that_is_neither_signed_nor_unsigned_is_refused(tmp_path):
    from benchmarks.fuzz.seeds import dicom_series

    def change(ds, k):
        ds.PixelRepresentation = 512 if k == 1 else ds.PixelRepresentation

    for name, raw in dicom_series(change=change).items():
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(ReadError, match=r"IM1\.dcm has a pixel representation of 512"):
        read(tmp_path)


def test_an_element_of_an_unknown_kind_is_a_damaged_header(tmp_path):
    from benchmarks.fuzz.seeds import dicom_series

    for name, raw in dicom_series().items():
        bits = raw.index(b"\x28\0\x01\x01US")
        broken = raw[: bits + 5] + bytes(16) + raw[bits + 5 :]
        (tmp_path / name).write_bytes(broken if name == "IM1.dcm" else raw)
    with pytest.raises(ReadError, match=r"IM1\.dcm"):
        read(tmp_path)


def test_the_shape_of_one_dicom_file_is_that_of_its_series(tmp_path):
    from benchmarks.fuzz.seeds import dicom_series

    from napari_strata.io.header import header_shape

    files = {**dicom_series(), **dicom_series(series=2, prefix="B")}
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    assert header_shape(tmp_path / "IM1.dcm") == (7, 8, 3)
