"""DICOM folders: order, rescale, choice of a series.

Every way in which a series can be broken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.errors import ChoiceError, ReadError
from napari_strata.export.outputs import scan_record
from napari_strata.io.files import hash_file
from napari_strata.volume import Segmentation, default_regions

UID = "1.2.826.0.1.3680043.8.498.1"
ROWS_COLUMNS = np.array([[0.96, 0.28, 0.0], [-0.28, 0.96, 0.0]])
ORIGIN = np.array([-20.0, 30.0, -100.0])
STEP = (0.0, 0.0, 2.5)
N_SLICES, N_ROWS, N_COLUMNS = 5, 8, 6


def hounsfield() -> NDArray[np.int16]:
    """Values (k, j, i) with one brightest voxel at column 2, row 5, slice 3."""
    data = (
        np.random.default_rng(0)
        .integers(-1000, 300, (N_SLICES, N_ROWS, N_COLUMNS))
        .astype(np.int16)
    )
    data[3, 5, 2] = 2000
    return data


def save_series(
    folder: Path,
    *,
    uid: str = UID,
    modality: str = "CT",
    step: tuple[float, float, float] = STEP,
    skip: tuple[int, ...] = (),
) -> Path:
    """Write slices under names that are not in order of position; slope 1, intercept -1024."""
    folder.mkdir(exist_ok=True)
    for k, plane in enumerate(hounsfield()):
        position = ORIGIN + k * np.array(step)
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.7, 0.9, 2.5))
        image.SetOrigin(position.tolist())
        image.SetDirection(
            np.column_stack([*ROWS_COLUMNS, np.cross(*ROWS_COLUMNS)]).ravel().tolist()
        )
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": modality,
            "0008|103e": f"{modality} thorax",
            "0020|000d": f"{UID}.9",
            "0020|000e": uid,
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.6f}" for value in ROWS_COLUMNS.ravel()),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        if k not in skip:
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(folder / f"{modality}{(k * 3) % N_SLICES}.dcm"))
            writer.Execute(image)
    return folder


def world_of(
    i: int, j: int, k: int, step: tuple[float, float, float] = STEP
) -> NDArray[np.float64]:
    """RAS+ mm of column i, row j, slice k, as the standard says."""
    lps = (
        ORIGIN
        + ROWS_COLUMNS[0] * 0.7 * i
        + ROWS_COLUMNS[1] * 0.9 * j
        + np.array(step) * k
    )
    return lps * (-1, -1, 1)


def label_brightest(volume: strata.Volume) -> strata.Segmentation:
    return Segmentation(
        (volume.data == 2000).astype(np.uint8), default_regions([1]), volume.geometry
    )


def test_slices_are_sorted_rescaled_and_placed(tmp_path: Path) -> None:
    volume = strata.read(save_series(tmp_path / "ct"))
    assert volume.modality == "ct"
    assert volume.name == "ct"
    assert volume.data.dtype == np.int16
    assert volume.notes == ()
    np.testing.assert_array_equal(volume.data, hounsfield()[::-1])
    for k, j, i in [(0, 0, 0), (3, 5, 2), (4, 7, 5)]:
        np.testing.assert_allclose(
            volume.geometry.world_from_voxel([4 - k, j, i]),
            world_of(i, j, k),
            atol=1e-6,
        )


def test_labels_overlay_the_series_in_nibabel_and_in_simpleitk(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "ct")
    labels = strata.write(
        label_brightest(strata.read(folder)), tmp_path / "labels.nii.gz"
    )
    by_nibabel = nib.load(labels)
    assert by_nibabel.shape == (N_COLUMNS, N_ROWS, N_SLICES)
    assert np.argwhere(np.asarray(by_nibabel.dataobj)).tolist() == [[2, 5, 3]]
    np.testing.assert_allclose(
        (by_nibabel.affine @ (2, 5, 3, 1))[:3], world_of(2, 5, 3), atol=1e-4
    )

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    scan, by_itk = reader.Execute(), sitk.ReadImage(str(labels))
    assert by_itk.GetSize() == scan.GetSize()
    np.testing.assert_allclose(by_itk.GetOrigin(), scan.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(by_itk.GetSpacing(), scan.GetSpacing(), atol=1e-5)
    np.testing.assert_allclose(by_itk.GetDirection(), scan.GetDirection(), atol=1e-6)
    assert scan[2, 5, 3] == 2000
    assert by_itk[2, 5, 3] == 1


def test_a_tilted_gantry_gives_a_sheared_grid(tmp_path: Path) -> None:
    tilted = (0.0, 0.6, 2.5)
    volume = strata.read(save_series(tmp_path / "ct", step=tilted))
    assert "gantry was tilted by 13.5 degrees" in volume.notes[0]
    for k, j, i in [(0, 0, 0), (3, 5, 2), (4, 7, 5)]:
        np.testing.assert_allclose(
            volume.geometry.world_from_voxel([4 - k, j, i]),
            world_of(i, j, k, tilted),
            atol=1e-5,
        )
    image = nib.load(strata.write(label_brightest(volume), tmp_path / "labels.nii.gz"))
    np.testing.assert_allclose(
        (image.affine @ (2, 5, 3, 1))[:3], world_of(2, 5, 3, tilted), atol=1e-4
    )


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "study")
    save_series(folder, uid=f"{UID}.2", modality="MR", skip=(4,))
    assert [
        (row.uid, row.modality, row.n_slices) for row in strata.list_series(folder)
    ] == [(UID, "CT", 5), (f"{UID}.2", "MR", 4)]
    with pytest.raises(ChoiceError, match="--series UID") as caught:
        strata.read(folder)
    for part in (UID, "CT thorax, CT, 5 slices", f"{UID}.2", "MR thorax, MR, 4 slices"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert strata.read(folder, series=f"{UID}.2").modality == "mr"
    assert strata.read(folder / "CT0.dcm").data.shape == (5, 8, 6)
    with pytest.raises(ChoiceError, match=r"has no series 1\.2;"):
        strata.read(folder, series="1.2")
    with pytest.raises(ChoiceError, match="DICOM, where --index cannot choose"):
        strata.read(folder, index=0, series=UID)


def test_other_files_and_subfolders_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    save_series(tmp_path / "study" / "ct")
    (tmp_path / "study" / "notes.txt").write_text("seen on Monday")
    (tmp_path / "study" / "ct" / "README").write_text("hello")
    assert strata.read(tmp_path / "study").data.shape == (5, 8, 6)


def test_a_table_of_contents_does_not_hide_the_images_below_it(tmp_path: Path) -> None:
    save_series(tmp_path / "ct")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    assert strata.read(tmp_path).data.shape == (5, 8, 6)


def test_the_chosen_series_is_remembered(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "study")
    save_series(folder, uid=f"{UID}.2", modality="MR")
    volume = strata.read(folder, series=f"{UID}.2")
    assert (volume.series, volume.index) == (f"{UID}.2", None)
    assert scan_record(volume)["series"] == f"{UID}.2"


def test_varying_rescale_slopes_are_each_applied(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = save_series(tmp_path / "pet", modality="MR")
    sheet = pydicom.dcmread(folder / "MR4.dcm")  # slice 3
    sheet.RescaleSlope = 0.5
    sheet.save_as(folder / "MR4.dcm")
    volume = strata.read(folder)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0], hounsfield()[4])
    np.testing.assert_array_equal(volume.data[1], (hounsfield()[3] + 1024) * 0.5 - 1024)


def test_a_folder_keeps_its_hash_under_other_names(tmp_path: Path) -> None:
    before = hash_file(save_series(tmp_path / "ct"))
    (tmp_path / "ct" / "CT0.dcm").rename(tmp_path / "ct" / "z.dcm")
    assert hash_file(tmp_path / "ct") == before
    (tmp_path / "ct" / "z.dcm").unlink()
    assert hash_file(tmp_path / "ct") != before


def lose_a_slice(folder: Path) -> None:
    (folder / "CT3.dcm").unlink()


def double_a_slice(folder: Path) -> None:
    again = pydicom.dcmread(folder / "CT3.dcm")
    # another phase, not a copy
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    again.save_as(folder / "again.dcm")


def keep_one_slice(folder: Path) -> None:
    for file in folder.glob("CT[1-9].dcm"):
        file.unlink()


def leave_text_only(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "report.txt").write_text("nothing to see")


def cut_a_slice_short(folder: Path) -> None:
    (folder / "CT2.dcm").write_bytes((folder / "CT2.dcm").read_bytes()[:100])


def cut_a_slice(folder: Path) -> None:
    last = folder / "CT2.dcm"
    last.write_bytes(last.read_bytes()[:-40])


def stretch_a_slice(folder: Path) -> None:
    image = sitk.ReadImage(str(folder / "CT2.dcm"))
    tags = {
        tag: image.GetMetaData(tag)
        for tag in image.GetMetaDataKeys()
        if not tag.startswith("0028|")
    }
    image.SetSpacing((0.8, 0.9, 2.5))
    for tag, value in (tags | {"0028|1052": "-1024", "0028|1053": "1"}).items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(folder / "CT2.dcm"))
    writer.Execute(image)


def move_a_slice(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    save_series(folder, step=(0.0, 0.0, 2.5), skip=(2, 4))
    save_series(folder, step=(0.0, 0.0, 1.9), skip=(0, 1, 3, 4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lose_a_slice,
            "lacks 1 slice: between CT0.dcm and CT1.dcm lie 5.00 mm, elsewhere 2.50 mm",
        ),
        (double_a_slice, "1 slice where another slice lies"),
        (keep_one_slice, "one slice only"),
        (leave_text_only, "holds no DICOM images"),
        (cut_a_slice, "damaged"),
        (cut_a_slice_short, "damaged"),
        (move_a_slice, "uneven"),
        (stretch_a_slice, "different pixel spacings"),
    ],
)
def test_broken_series_give_one_clear_line_and_nothing_else(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    folder = save_series(tmp_path / "ct")
    damage(folder)
    capfd.readouterr()
    with pytest.raises(ReadError, match=message) as caught:
        strata.read(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
