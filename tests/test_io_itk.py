"""NRRD, MetaImage and MGH.

Geometry against ITK's and nibabel's own, and labels that overlay their scan.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import napari_strata as strata
from napari_strata.errors import ChoiceError, GeometryError, ReadError
from napari_strata.volume import Segmentation, default_regions

MARK = (1, 6, 2)
SIZE = (7, 8, 9)
RAW_NRRD = (
    b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nendian: little\nencoding:"
    b" raw\n"
)
RAW_MHA = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB ="
    b" False\nElementType = MET_SHORT\n"
)


def itk_scan(degrees: float = 14.0) -> sitk.Image:
    data = np.random.default_rng(0).integers(0, 50, SIZE[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(data)
    image[MARK] = 120
    angle = np.radians(degrees)
    image.SetDirection(
        (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, -1)
    )
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-30.1, 22.2, 100.7))
    return image


def label_mark(volume: strata.Volume) -> strata.Segmentation:
    return Segmentation(
        (volume.data == 120).astype(np.uint8), default_regions([1]), volume.geometry
    )


@pytest.mark.parametrize(
    "labels", ["labels.nii.gz", "labels.nrrd", "labels.mha", "labels.mgz"]
)
@pytest.mark.parametrize("scan", ["scan.nrrd", "scan.mha", "scan.mhd", "scan.nhdr"])
def test_labels_overlay_the_scan(tmp_path: Path, scan: str, labels: str) -> None:
    image = itk_scan()
    sitk.WriteImage(image, str(tmp_path / scan))
    volume = strata.read(tmp_path / scan)
    lps = np.array(image.TransformIndexToPhysicalPoint(MARK))
    found = np.argwhere(volume.data == 120)
    np.testing.assert_allclose(
        volume.geometry.world_from_voxel(found[0]), lps * (-1, -1, 1), atol=1e-9
    )
    assert volume.data.dtype == np.int16

    written = strata.write(label_mark(volume), tmp_path / labels)
    if written.suffix == ".mgz":
        by_nibabel = nib.load(written)
        assert by_nibabel.shape == SIZE
        np.testing.assert_allclose(
            (by_nibabel.affine @ (*MARK, 1))[:3], lps * (-1, -1, 1), atol=1e-4
        )
        assert np.argwhere(np.asarray(by_nibabel.dataobj)).tolist() == [list(MARK)]
    else:
        by_itk = sitk.ReadImage(str(written))
        assert by_itk.GetSize() == SIZE
        assert by_itk[MARK] == 1
        assert by_itk.GetPixelID() == sitk.sitkUInt8
        np.testing.assert_allclose(
            by_itk.TransformIndexToPhysicalPoint(MARK), lps, atol=1e-4
        )
    again = strata.read_labels(written)
    np.testing.assert_array_equal(again.labels, volume.data == 120)
    np.testing.assert_allclose(again.geometry.affine, volume.geometry.affine, atol=1e-4)


def test_exported_nifti_lies_on_the_scan_in_nibabel_too(tmp_path: Path) -> None:
    image = itk_scan()
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    result = nib.load(
        strata.write(
            label_mark(strata.read(tmp_path / "scan.nrrd")), tmp_path / "labels.nii"
        )
    )
    lps = np.array(image.TransformIndexToPhysicalPoint(MARK))
    assert result.shape == SIZE
    np.testing.assert_allclose(
        (result.affine @ (*MARK, 1))[:3], lps * (-1, -1, 1), atol=1e-4
    )
    np.testing.assert_allclose(result.get_qform(), result.get_sform(), atol=1e-4)
    assert (int(result.header["sform_code"]), int(result.header["qform_code"])) == (
        1,
        1,
    )
    assert result.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("name", ["scan.mgz", "scan.mgh"])
@pytest.mark.parametrize("labels", ["labels.mgz", "labels.nii.gz"])
def test_mgh_round_trip(tmp_path: Path, name: str, labels: str) -> None:
    affine = np.array(
        [[-1.1, 0.1, 0, 60], [0, 0, 1.3, -40], [0.1, -1.2, 0, 50], [0, 0, 0, 1]]
    )
    data = np.random.default_rng(0).integers(0, 50, SIZE).astype(np.float32)
    data[MARK] = 120
    nib.MGHImage(data, affine).to_filename(tmp_path / name)
    volume = strata.read(tmp_path / name)
    truth = nib.load(tmp_path / name).affine
    world = volume.geometry.world_from_voxel(np.argwhere(volume.data == 120)[0])
    np.testing.assert_allclose(world, (truth @ (*MARK, 1))[:3], atol=1e-6)
    result = nib.load(strata.write(label_mark(volume), tmp_path / labels))
    assert result.shape == SIZE
    np.testing.assert_allclose(result.affine, truth, atol=1e-4)
    assert np.argwhere(np.asarray(result.dataobj)).tolist() == [list(MARK)]


def test_one_volume_of_4d_files_is_chosen(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 50, (3, 9, 8, 7)).astype(np.int16)
    series = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in data])
    sitk.WriteImage(series, str(tmp_path / "scan.mha"))
    channels = sitk.Compose([sitk.GetImageFromArray(volume) for volume in data])
    sitk.WriteImage(channels, str(tmp_path / "scan.nrrd"))
    nib.MGHImage(data.transpose(3, 2, 1, 0), np.eye(4)).to_filename(
        tmp_path / "scan.mgz"
    )
    by_index = {}
    for name in ("scan.mha", "scan.nrrd"):
        with pytest.raises(
            ChoiceError, match=r"holds 3 volumes; choose one with --index 0\.\.2"
        ):
            strata.read(tmp_path / name)
        by_index[name] = strata.read(tmp_path / name, index=2)
        np.testing.assert_array_equal(by_index[name].data, data[2][::-1])
    with pytest.raises(ChoiceError, match="has no volume 3"):
        strata.read(tmp_path / "scan.mgz", index=3)
    np.testing.assert_array_equal(
        strata.read(tmp_path / "scan.mgz", index=2).data, data[2][::-1, ::-1, ::-1]
    )


def test_nrrd_without_a_space_is_read_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").write_bytes(
        RAW_NRRD + b"\n" + np.arange(64, dtype="<i2").tobytes()
    )
    assert "left and right are a guess" in strata.read(tmp_path / "scan.nrrd").notes[0]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.nrrd", b"hello", ReadError, "damaged, cut short or of another format"),
        ("a.mha", b"hello", ReadError, "damaged, cut short or of another format"),
        ("a.mgh", b"hello", ReadError, "not an MGH file"),
        ("a.mgz", b"hello", ReadError, "not gzip-compressed"),
        ("cut.nrrd", RAW_NRRD + b"\n" + bytes(50), ReadError, "cut short"),
        (
            "cut.mha",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 1 1\nElementDataFile = LOCAL\n"
            + bytes(50),
            ReadError,
            "cut short",
        ),
        (
            "gone.mhd",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 1 1\nElementDataFile = gone.raw\n",
            ReadError,
            "gone.raw, which",
        ),
        (
            "zero.mha",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 0 1\nElementDataFile = LOCAL\n"
            + bytes(128),
            GeometryError,
            "voxel size",
        ),
        (
            "minus.mha",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 -2 1\nElementDataFile = LOCAL\n"
            + bytes(128),
            GeometryError,
            "voxel size",
        ),
        (
            "flat.mha",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 1 1\nTransformMatrix = 1 0 0 1 0 0"
            b" 0 0 1\nElementDataFile = LOCAL\n" + bytes(128),
            GeometryError,
            "singular",
        ),
        (
            "thin.mha",
            RAW_MHA
            + b"DimSize = 8 8 1\nElementSpacing = 1 1 1\nElementDataFile = LOCAL\n"
            + bytes(128),
            ReadError,
            "one slice only",
        ),
        (
            "huge.mha",
            RAW_MHA
            + b"DimSize = 10000 10000 10000\nElementSpacing = 1 1 1\nElementDataFile ="
            b" LOCAL\n",
            ReadError,
            "more than",
        ),
        (
            "empty.mha",
            RAW_MHA
            + b"DimSize = 4 4 4\nElementSpacing = 1 1 1\nElementDataFile = LOCAL\n"
            + bytes(128),
            ReadError,
            "every voxel is 0",
        ),
    ],
    ids=lambda value: (
        value if isinstance(value, str) and "." in value and " " not in value else ""
    ),
)
def test_bad_files_give_one_clear_line_and_nothing_else(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    error: type[Exception],
    message: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        strata.read(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_colour_and_flat_images_are_refused(tmp_path: Path) -> None:
    colour = sitk.Compose([sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8))] * 3)
    sitk.WriteImage(colour, str(tmp_path / "colour.nrrd"))
    with pytest.raises(ReadError, match="colour"):
        strata.read(tmp_path / "colour.nrrd")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((4, 4), np.uint8)), str(tmp_path / "flat.nrrd")
    )
    with pytest.raises(ReadError, match="2D image"):
        strata.read(tmp_path / "flat.nrrd")


@pytest.mark.parametrize("name", ["größe.mhd", "größe.nhdr", "Århus 10:30.mhd"])
def test_a_header_finds_its_voxels_whatever_the_name(tmp_path: Path, name: str) -> None:
    data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(data), str(tmp_path / name))
    assert sorted(strata.read(tmp_path / name).data.ravel()) == sorted(data.ravel())
