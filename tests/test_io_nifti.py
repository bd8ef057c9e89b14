"""NIfTI: what is read, and that labels go back on the scan's own grid bit for bit."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.export.outputs import read_sidecar
from napari_strata.volume import Geometry, Region, Segmentation, default_regions

ORDERS = [
    (order, signs)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
SHAPE = (7, 8, 9)
MARK = (1, 6, 2)


def affine_of(
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
    degrees: float = 0.0,
) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    turn = np.array(
        [
            [np.cos(angle), -np.sin(angle), 0],
            [np.sin(angle), np.cos(angle), 0],
            [0, 0, 1],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[:, order] * np.multiply(signs, (1.1, 0.9, 2.5)))
    affine[:3, 3] = -31.3, 12.7, 55.1
    return affine


def save_scan(
    path: Path,
    affine: NDArray[np.float64] | None = None,
    *,
    dtype: Any = np.int16,
    **fields: Any,
) -> Path:
    """Write a NIfTI-1 scan with one bright voxel at MARK.

    `fields` go into its header as they are.
    """
    data = np.random.default_rng(0).integers(0, 50, SHAPE)
    data[MARK] = 120
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm", "sec")
    image = nib.Nifti1Image(
        data.astype(dtype), affine_of() if affine is None else affine, header
    )
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    if path.suffix == ".nii":
        patched(
            path,
            {
                252: np.array(
                    [fields.get("qform_code", 0), fields.get("sform_code", 2)], "<i2"
                )
            },
        )
    return path


def patched(path: Path, fields: dict[int, NDArray[Any]]) -> None:
    """Put values into a header's bytes, past nibabel's repairs."""
    raw = bytearray(path.read_bytes())
    for offset, value in fields.items():
        raw[offset : offset + value.nbytes] = value.tobytes()
    path.write_bytes(raw)


def mark_as_labels(volume: strata.Volume) -> strata.Segmentation:
    """Label the bright voxel 3."""
    labels = np.where(volume.data == volume.data.max(), 3, 0).astype(np.uint8)
    return Segmentation(labels, default_regions([3]), volume.geometry)


def exported(scan: Path, name: str = "labels.nii.gz") -> Path:
    return strata.write(mark_as_labels(strata.read(scan)), scan.with_name(name))


def assert_same_grid(scan: Path, labels: Path) -> None:
    source, result = nib.load(scan), nib.load(labels)
    assert result.shape == source.shape[:3]
    np.testing.assert_array_equal(result.affine, source.affine)
    assert_same_codes_and_units(scan, labels)
    assert result.header["cal_max"] == result.header["cal_min"] == 0
    assert result.dataobj.slope == 1
    assert result.dataobj.inter == 0
    assert result.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.argwhere(np.asarray(result.dataobj)), [MARK])


def assert_same_codes_and_units(scan: Path, labels: Path) -> None:
    source, result = nib.load(scan), nib.load(labels)
    fields = (
        "qform_code sform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y"
        " qoffset_z srow_x srow_y srow_z xyzt_units pixdim"
    )
    for field in fields.split():
        np.testing.assert_array_equal(
            result.header[field], source.header[field], err_msg=field
        )


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_labels_go_back_to_their_voxel_in_all_48_orientations(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    scan = save_scan(tmp_path / "scan.nii", affine_of(order, signs))
    labels = exported(scan)
    assert_same_grid(scan, labels)

    by_itk_scan, by_itk = sitk.ReadImage(str(scan)), sitk.ReadImage(str(labels))
    assert by_itk.GetSize() == by_itk_scan.GetSize()
    assert by_itk.GetDirection() == by_itk_scan.GetDirection()
    assert by_itk.GetOrigin() == by_itk_scan.GetOrigin()
    assert by_itk.GetSpacing() == by_itk_scan.GetSpacing()
    assert by_itk[MARK] == 3

    again = strata.read_labels(labels)
    world = affine_of(order, signs) @ (*MARK, 1)
    found = again.geometry.world_from_voxel(np.argwhere(again.labels == 3)[0])
    np.testing.assert_allclose(found, world[:3], atol=1e-4)
    np.testing.assert_allclose(
        by_itk.TransformIndexToPhysicalPoint(MARK), world[:3] * (-1, -1, 1), atol=1e-4
    )


@pytest.mark.parametrize(
    "dtype", ["<i2", ">i2", "u1", "<f4", ">f4", "<f8", "<u2", "<i4"]
)
def test_native_types_are_kept_and_come_out_native(tmp_path: Path, dtype: str) -> None:
    scan = tmp_path / "scan.nii.gz"
    save_scan(scan, dtype=np.dtype(dtype).newbyteorder("="))
    if dtype.startswith(">"):
        image = nib.load(scan)
        header = image.header.as_byteswapped(">")
        nib.Nifti1Image(np.asarray(image.dataobj), None, header).to_filename(scan)
        assert nib.load(scan).header.endianness == ">"
    volume = strata.read(scan)
    assert volume.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.data.dtype.isnative
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(
        np.sort(volume.data.ravel()),
        np.sort(np.asarray(nib.load(scan).dataobj).ravel()),
    )
    assert_same_grid(scan, exported(scan))


def test_scl_slope_is_applied_to_the_scan_and_reset_in_the_labels(
    tmp_path: Path,
) -> None:
    scan = save_scan(tmp_path / "scan.nii", cal_max=400, cal_min=-100)
    patched(scan, {112: np.array([0.5, -1000], "<f4")})
    volume = strata.read(scan)
    assert volume.data.dtype == np.float32
    assert volume.data.max() == -940.0
    np.testing.assert_array_equal(
        np.sort(volume.data.ravel()), np.sort(nib.load(scan).get_fdata().ravel())
    )
    assert_same_grid(scan, exported(scan))


def test_oblique_sheared_sform_only_and_qform_only_round_trip(tmp_path: Path) -> None:
    sheared = affine_of(degrees=11)
    sheared[0, 2] += 0.7
    header = {
        "sform only": (sheared, 2, 0),
        "qform only": (affine_of(degrees=23), 0, 1),
        "both": (affine_of(degrees=5), 4, 3),
    }
    for name, (affine, sform_code, qform_code) in header.items():
        scan = save_scan(
            tmp_path / f"{name}.nii",
            affine,
            sform_code=sform_code,
            qform_code=qform_code,
        )
        volume = strata.read(scan)
        assert volume.notes == ()
        assert volume.geometry.file is not None
        np.testing.assert_array_equal(
            volume.geometry.file.affine, nib.load(scan).affine
        )
        assert_same_grid(scan, exported(scan, f"{name}_labels.nii.gz"))


def test_odd_but_legal_headers_are_kept_bit_for_bit(tmp_path: Path) -> None:
    scan = save_scan(
        tmp_path / "scan.nii",
        qform_code=1,
        sform_code=0,
        descrip=b"study 7",
        toffset=3.5,
        aux_file=b"none.txt",
    )
    patched(scan, {76: np.array(0, "<f4")})  # qfac 0 counts as 1
    raw = scan.read_bytes()
    labels = exported(scan, "labels.nii")
    kept = labels.read_bytes()
    assert kept[76:108] == raw[76:108]
    assert kept[252:328] == raw[252:328]
    assert kept[148:155] == b"study 7"


def test_the_reader_tells_when_the_orientation_is_a_guess_or_disputed(
    tmp_path: Path,
) -> None:
    unknown = strata.read(
        save_scan(tmp_path / "unknown.nii", sform_code=0, qform_code=0)
    )
    assert "left and right are a guess" in unknown.notes[0]
    disputed = save_scan(tmp_path / "disputed.nii", qform_code=1)
    patched(disputed, {268: np.array(60, "<f4")})
    assert "disagree by up to" in strata.read(disputed).notes[0]
    assert_same_grid(disputed, exported(disputed))


def test_lengths_in_micrometres_become_millimetres_and_go_back_as_they_were(
    tmp_path: Path,
) -> None:
    affine = affine_of()
    affine[:3] *= 1000
    scan = save_scan(tmp_path / "scan.nii", affine, xyzt_units=3)
    volume = strata.read(scan)
    np.testing.assert_allclose(volume.spacing_zyx_mm, (2.5, 0.9, 1.1), rtol=1e-6)
    assert_same_grid(scan, exported(scan))


def test_nifti2_stays_nifti2(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 50, SHAPE).astype(np.int16)
    data[MARK] = 120
    image = nib.Nifti2Image(data, affine_of(degrees=9))
    image.set_qform(affine_of(degrees=9), 1)
    image.to_filename(tmp_path / "scan.nii.gz")
    labels = exported(tmp_path / "scan.nii.gz")
    assert isinstance(nib.load(labels), nib.Nifti2Image)
    assert_same_grid(tmp_path / "scan.nii.gz", labels)


@pytest.mark.parametrize("given", [".hdr", ".img"])
def test_pairs_are_read_from_either_file(tmp_path: Path, given: str) -> None:
    data = np.random.default_rng(0).integers(0, 50, SHAPE).astype(np.int16)
    data[MARK] = 120
    nib.Nifti1Pair(data, affine_of((1, 0, 2), (-1, 1, 1))).to_filename(
        tmp_path / "scan.img"
    )
    scan = tmp_path / f"scan{given}"
    labels = exported(scan)
    assert_same_grid(tmp_path / "scan.img", labels)


def test_header_extensions_do_not_shift_the_voxels(tmp_path: Path) -> None:
    image = nib.load(save_scan(tmp_path / "plain.nii"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header).to_filename(
        tmp_path / "scan.nii"
    )
    np.testing.assert_array_equal(
        strata.read(tmp_path / "scan.nii").data,
        strata.read(tmp_path / "plain.nii").data,
    )
    assert_same_grid(tmp_path / "scan.nii", exported(tmp_path / "scan.nii"))


def test_one_volume_of_a_4d_scan(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 50, (*SHAPE, 3)).astype(np.int16)
    nib.Nifti1Image(data, affine_of()).to_filename(tmp_path / "scan.nii.gz")
    volume = strata.read(tmp_path / "scan.nii.gz", index=1)
    np.testing.assert_array_equal(
        volume.data, data[..., 1].transpose(2, 1, 0)[::-1, ::-1, ::-1]
    )
    labels = strata.write(mark_as_labels(volume), tmp_path / "labels.nii.gz")
    assert nib.load(labels).shape == SHAPE
    assert_same_codes_and_units(tmp_path / "scan.nii.gz", labels)
    nib.Nifti1Image(data[..., :1], affine_of()).to_filename(tmp_path / "single.nii")
    assert strata.read(tmp_path / "single.nii").data.shape == (9, 8, 7)


def test_scattered_nan_and_infinite_voxels_are_replaced_and_reported(
    tmp_path: Path,
) -> None:
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    data[0, 0, 0], data[MARK], data[2, 2, 2], data[3, 3, 3] = (
        np.nan,
        np.inf,
        -np.inf,
        -3,
    )
    nib.Nifti1Image(data, affine_of()).to_filename(tmp_path / "scan.nii")
    volume = strata.read(tmp_path / "scan.nii")
    lowest = data[np.isfinite(data)].min()
    assert np.isfinite(volume.data).all()
    assert (volume.data == lowest).sum() == 4
    assert volume.notes == (
        f"3 NaN or infinite voxels were set to the lowest value ({lowest:g}).",
    )


def test_values_that_float32_cannot_hold_are_replaced_and_reported(
    tmp_path: Path,
) -> None:
    data = np.random.default_rng(0).normal(size=SHAPE)
    data[0, 0, 0], data[MARK], data[1, 1, 1] = 1e300, -1e39, np.nan
    nib.Nifti1Image(data, affine_of()).to_filename(tmp_path / "scan.nii")
    volume = strata.read(tmp_path / "scan.nii")
    assert np.abs(volume.data).max() < 10
    assert (
        "3 NaN, infinite or too large (beyond float32) voxels were set"
        in volume.notes[0]
    )


def test_written_labels_bring_their_own_table_over_an_older_one(tmp_path: Path) -> None:
    first = mark_as_labels(strata.read(save_scan(tmp_path / "scan.nii")))
    older = first.with_regions((Region(3, "old", (1, 1, 1), True),))
    newer = first.with_regions((Region(3, "Léber", (10, 20, 30)),))
    for segmentation in (older, newer):
        path = strata.write(segmentation, tmp_path / "labels.nii.gz")
        assert strata.read_labels(path).regions == segmentation.regions
    assert read_sidecar(tmp_path / "labels.json") is not None
    strata.write(newer, tmp_path / "plain.nii.gz", sidecar=False)
    assert not (tmp_path / "plain.json").exists()


@pytest.mark.parametrize(
    "content", ['{"EchoTime": 0.03}', '{"format": "other"}', "[1]", "{"]
)
def test_a_json_of_somebody_else_is_never_replaced(
    tmp_path: Path, content: str
) -> None:
    labels = mark_as_labels(strata.read(save_scan(tmp_path / "scan.nii")))
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(strata.StrataError, match="not Strata's"):
        strata.write(labels, tmp_path / "labels.nii.gz")
    assert (tmp_path / "labels.json").read_text() == content
    assert not (tmp_path / "labels.nii.gz").exists()


def test_names_colours_and_locks_come_back_from_the_table(tmp_path: Path) -> None:
    labels = exported(save_scan(tmp_path / "scan.nii"))
    (tmp_path / "labels.json").unlink()
    assert strata.read_labels(labels).regions == default_regions([3])
    rows = [
        {"id": 3, "name": "Léber", "color": [10, 20, 30], "locked": True},
        {"id": 9, "name": "left out", "color": [1, 2, 3]},
    ]
    (tmp_path / "labels.json").write_text(
        json.dumps({"regions": rows, "seed": 0}), encoding="utf-8"
    )
    assert strata.read_labels(labels).regions == (
        Region(3, "Léber", (10, 20, 30), True),
        Region(9, "left out", (1, 2, 3)),
    )
    (tmp_path / "labels.json").write_text(
        '{"format": "strata-labels-1", "regions": [', encoding="utf-8"
    )
    with pytest.raises(strata.StrataError, match="region table"):
        strata.read_labels(labels)


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "scan.nii.gz")
    assert (
        exported(scan, "a.nii.gz").read_bytes()
        == exported(scan, "b.nii.gz").read_bytes()
    )


@pytest.mark.parametrize(
    ("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (70000, np.uint32)]
)
def test_labels_take_the_smallest_type(
    tmp_path: Path, highest: int, dtype: type
) -> None:
    volume = strata.read(save_scan(tmp_path / "scan.nii"))
    labels = np.zeros(volume.data.shape, np.uint32)
    labels[0, 0, :2] = 1, highest
    path = strata.write(
        Segmentation(labels, default_regions([1, highest]), volume.geometry),
        tmp_path / "labels.nii.gz",
    )
    assert nib.load(path).get_data_dtype() == dtype
    again = strata.read_labels(path)
    assert again.labels.dtype == dtype
    np.testing.assert_array_equal(again.labels, labels)


def test_labels_without_a_file_are_written_toward_right_anterior_superior(
    tmp_path: Path,
) -> None:
    geometry = Geometry.from_spacing((6, 5, 4), (2, 1, 1.5))
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[1, 2, 3] = 7
    path = strata.write(
        Segmentation(labels, default_regions([7]), geometry), tmp_path / "labels.nii.gz"
    )
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    world = image.affine @ (*np.argwhere(np.asarray(image.dataobj))[0], 1)
    np.testing.assert_allclose(
        world[:3], geometry.world_from_voxel([1, 2, 3]), atol=1e-5
    )
    np.testing.assert_array_equal(strata.read_labels(path).labels, labels)


def test_real_test_file_of_nibabel(tmp_path: Path) -> None:
    folder = Path(nib.__file__).parent / "tests" / "data"
    if not (folder / "anatomical.nii").exists():
        pytest.skip("nibabel came without its test data")
    volume = strata.read(folder / "anatomical.nii")
    image = nib.load(folder / "anatomical.nii")
    for voxel in ([0, 0, 0], [10, 20, 3], [32, 40, 24]):
        z, y, x = np.rint(
            volume.geometry.voxel_from_world((image.affine @ (*voxel, 1))[:3])
        ).astype(int)
        assert volume.data[z, y, x] == image.dataobj[tuple(voxel)]
    with pytest.raises(strata.StrataError, match=r"--index 0\.\.1"):
        strata.read(folder / "example4d.nii.gz")
    assert strata.read(folder / "example4d.nii.gz", index=1).data.ndim == 3
