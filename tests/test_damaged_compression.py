"""Compressed files are read to their end: a wrong checksum is a damaged file."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from napari_strata.errors import ReadError
from napari_strata.io.files import read, read_labels

VALUES = np.random.default_rng(0).integers(1, 900, (6, 5, 4)).astype("<i2")
"""(k, j, i), as they lie in a file."""


def nifti_gz() -> bytes:
    import nibabel as nib

    return gzip.compress(nib.Nifti1Image(VALUES.T, np.eye(4)).to_bytes(), mtime=0)


def mgz() -> bytes:
    floats = [1, 1, 1, *np.eye(3).ravel(), 0, 0, 0]
    head = struct.pack(">7ih15f", 1, 4, 5, 6, 1, 4, 0, 1, *floats).ljust(284, b"\0")
    behind = bytes(20)  # scan parameters, behind which a reader of voxels never looks
    return gzip.compress(head + VALUES.astype(">i2").tobytes() + behind, mtime=0)


def nrrd() -> bytes:
    head = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nspace: LPS\n"
    head += b"space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\n"
    head += b"endian: little\nencoding: gzip\n\n"
    # more than the voxels, where ITK stops before the checksum
    return head + gzip.compress(VALUES.tobytes() + bytes(40), mtime=0)


def mha(*, order: str = "<", size: bool = True, values: np.ndarray = VALUES) -> bytes:
    packed = zlib.compress(values.astype(values.dtype.newbyteorder(order)).tobytes())
    channels = values.shape[3] if values.ndim == 4 else 1
    fields = {
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": order == ">",
        "CompressedData": True,
        **({"CompressedDataSize": len(packed)} if size else {}),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 2",
        "DimSize": "4 5 6",
        "ElementNumberOfChannels": channels,
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    head = "".join(f"{name} = {value}\n" for name, value in fields.items())
    return head.encode() + packed


FILES = {
    "scan.nii.gz": (nifti_gz(), -8),
    "scan.mgz": (mgz(), -8),
    "scan.nrrd": (nrrd(), -8),
    "scan.mha": (mha(), -4),
}
"""Good files, and where their checksum begins."""


@pytest.mark.parametrize("reader", [read, read_labels])
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_checksum_is_a_damaged_file(tmp_path, name, reader):
    raw, checksum = FILES[name]
    path = tmp_path / name
    path.write_bytes(raw)
    found = reader(path)
    stored = found.data if reader is read else found.labels
    assert sorted(stored.ravel()) == sorted(VALUES.ravel())

    wrong = bytearray(raw)
    wrong[checksum] ^= 1
    path.write_bytes(wrong)
    with pytest.raises(ReadError, match=rf"{name} is damaged: its .* checksum"):
        reader(path)

    path.write_bytes(raw[:-3])
    with pytest.raises(ReadError, match=name):
        reader(path)


def test_one_volume_of_several_and_what_follows_the_stream(tmp_path, caplog):
    import nibabel as nib

    path = tmp_path / "scan.nii.gz"
    four = np.stack([VALUES.T, VALUES.T + 1], axis=3)
    raw = gzip.compress(nib.Nifti1Image(four, np.eye(4)).to_bytes(), mtime=0)
    path.write_bytes(raw + b"more of a tape")
    assert read(path, index=1).data.min() == VALUES.min() + 1
    assert "behind the end" in caplog.text
    path.write_bytes(raw[:-8] + b"junk" + raw[-4:])
    with pytest.raises(ReadError, match="checksum"):
        read(path, index=0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [True, False])
def test_compressed_meta_image_in_either_order_with_or_without_its_size(
    tmp_path, order, size
):
    path = tmp_path / "scan.mha"
    path.write_bytes(mha(order="<"))
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    path.write_bytes(mha(order=order, size=size))
    volume = read(path)
    # MetaImage runs toward left, posterior and superior
    assert np.array_equal(volume.data, stored[::-1])

    both = np.stack([VALUES, VALUES + 1], axis=-1)
    path.write_bytes(mha(order=order, size=size, values=both))
    assert np.array_equal(read(path, index=1).data, stored[::-1] + 1)


def test_the_last_slice_of_a_list_without_a_line_break(tmp_path):
    path = tmp_path / "scan.mhd"
    names = [f"{n}.raw" for n in range(6)]
    for name, one in zip(names, VALUES, strict=True):
        (tmp_path / name).write_bytes(one.tobytes())
    head = mha(size=False).partition(b"LOCAL\n")[0]
    head = head.replace(b"CompressedData = True", b"CompressedData = False")
    path.write_bytes(head + "\n".join(["LIST", *names]).encode())
    assert np.array_equal(read(path).data, VALUES[::-1])


def test_slices_that_are_not_packed_as_the_header_says(tmp_path):
    path = tmp_path / "scan.mhd"
    head = mha(size=False).partition(b"LOCAL\n")[0]
    names = [f"{n}.zraw" for n in range(6)]
    path.write_bytes(head + "\n".join(["LIST", *names, ""]).encode())
    for name, one in zip(names, VALUES, strict=True):
        (tmp_path / name).write_bytes(zlib.compress(one.tobytes()))
    assert np.array_equal(read(path).data, VALUES[::-1])
    (tmp_path / names[2]).write_bytes(VALUES[2].tobytes())
    with pytest.raises(ReadError, match=r"scan\.mhd"):
        read(path)


@pytest.mark.parametrize("name", ["scan.raw.gz", "scan.zraw", "scan.RAW.BZ2"])
@pytest.mark.parametrize("kind", ["nrrd", "meta"])
def test_a_packed_voxel_file_under_a_header_of_plain_voxels(tmp_path, kind, name):
    if kind == "nrrd":
        path = tmp_path / "scan.nhdr"
        head = nrrd().partition(b"\n\n")[0].replace(b"gzip", b"raw")
        path.write_bytes(head + f"\ndata file: {name}\n".encode())
    else:
        path = tmp_path / "scan.mhd"
        head = mha(size=False).replace(
            b"CompressedData = True", b"CompressedData = False"
        )
        path.write_bytes(head.partition(b"LOCAL\n")[0] + f"{name}\n".encode())
    (tmp_path / name).write_bytes(VALUES.tobytes())
    with pytest.raises(ReadError, match=rf"{path.name} does not say .* compressed"):
        read(path)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress), ("hex", lambda raw: raw.hex().encode())],
)
def test_surplus_voxels_of_a_packed_nrrd_are_noted(tmp_path, encoding, packed):
    path = tmp_path / "scan.nrrd"
    head = nrrd().partition(b"\n\n")[0].replace(b"gzip", encoding.encode()) + b"\n\n"
    path.write_bytes(head + packed(VALUES.tobytes()))
    whole = read(path)
    assert whole.notes == ()
    path.write_bytes(head + packed(VALUES.tobytes() + bytes(40)))
    longer = read(path)
    assert np.array_equal(longer.data, whole.data)
    assert "40 bytes more than the header says" in " ".join(longer.notes)
