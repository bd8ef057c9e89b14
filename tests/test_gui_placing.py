"""A layer is placed by its whole transform and by what its reader said; no viewer is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image, Labels

from napari_strata.errors import GeometryError, ReadError, WriteError
from napari_strata.gui.canvas.layers import (
    has_known_orientation,
    image_tuple,
    is_scan,
    matching_grid_kwargs,
    segmentation_from_parts,
    volume_from_layer,
    volume_from_parts,
)
from napari_strata.gui.canvas.orientation import world_directions
from napari_strata.gui.canvas.placement import place, placing_of
from napari_strata.gui.plugin.napari_save import write_labels
from napari_strata.io.files import read
from napari_strata.volume import Geometry, Volume

SHAPE = (5, 6, 7)
TURN = np.array([[0.8, 0.0, 0.6], [0.36, 0.8, -0.48], [-0.48, 0.6, 0.64]])
"""A rotation that mixes all three axes."""
SCAN = np.eye(4)
"""An oblique scan's affine, x, y, z to RAS+."""
SCAN[:3, :3], SCAN[:3, 3] = TURN.T @ np.diag([1.0, 1.5, 3.0]), (10, -20, 30)
NO_LETTERS = "left and right are a guess"


def varied(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def as_napari_nifti(scan: nib.Nifti1Image) -> Image:
    """Make the layer that napari-nifti 0.0.20 makes of a scan.

    (z, y, x) upward, shown mirrored by negative scales.
    """
    canonical = nib.as_closest_canonical(scan)
    affine, data = (
        canonical.affine,
        canonical.get_fdata(dtype=np.float32).transpose(2, 1, 0),
    )
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    metadata = {
        "affine": affine,
        "spacing": sides,
        "origin": affine[:3, 3],
        "direction": affine[:3, :3] / sides,
        "header": scan.header.copy(),
        "coordinate_system": "RAS+",
    }
    far = affine[2::-1, 3] + (np.array(data.shape) - 1) * sides[::-1]
    return Image(data, scale=-sides[::-1], translate=far, metadata=metadata)


def as_napari_nifti_before(scan: nib.Nifti1Image) -> Image:
    """Make the layer that napari-nifti 0.0.17 makes through SimpleITK.

    The whole affine, (z, y, x) in LPS.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    turned = (lps[:3, :3] / sides).ravel()[::-1].reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * sides[::-1], lps[2::-1, 3]
    metadata = {
        "spacing": sides[::-1],
        "origin": lps[2::-1, 3],
        "direction": turned,
        "header": {"ITK_FileNotes": ""},
    }
    return Image(
        scan.get_fdata(dtype=np.float32).transpose(2, 1, 0),
        affine=affine,
        metadata=metadata,
    )


def as_itk(scan: nib.Nifti1Image) -> Image:
    """Make the layer that napari-itk-io makes.

    Scale and origin, the direction in the metadata only.
    """
    before = as_napari_nifti_before(scan)
    metadata = {key: before.metadata[key] for key in ("spacing", "origin", "direction")}
    return Image(
        before.data,
        scale=metadata["spacing"],
        translate=metadata["origin"],
        metadata=metadata,
    )


def as_nibabel(scan: nib.Nifti1Image) -> Image:
    """Make the layer of a reader that hands nibabel's array and affine over as they are."""
    return Image(
        scan.get_fdata(dtype=np.float32),
        affine=scan.affine,
        metadata={"affine": scan.affine},
    )


READERS = (as_napari_nifti, as_napari_nifti_before, as_itk, as_nibabel)


def export(layer: Image, path: Path) -> tuple[nib.Nifti1Image, Labels]:
    """Lay labels over a layer, the voxels above the mean, and write them by File > Save."""
    volume = volume_from_layer(layer)
    labels = Labels(
        (volume.data > volume.data.mean()).astype(np.uint8),
        **matching_grid_kwargs(layer, volume.geometry),
    )
    data, attributes, _ = labels.as_layer_data_tuple()
    write_labels(str(path), data, attributes)
    return nib.load(path), labels


def angles(affine: np.ndarray) -> np.ndarray:
    """Return voxel sizes and the cosines between axes.

    Whatever order and direction the axes have.
    """
    gram = affine[:3, :3].T @ affine[:3, :3]
    return np.sort(np.concatenate([np.diag(gram), np.abs(gram[np.triu_indices(3, 1)])]))


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "ARI"])
def test_labels_over_another_reader_s_layer_are_exported_where_the_file_lies(
    make, codes, tmp_path
):
    to = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    scan = nib.Nifti1Image(varied((7, 6, 5)), SCAN).as_reoriented(to)
    layer = make(scan)
    written, labels = export(layer, tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(
        labels.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3)), atol=1e-9
    )
    truth = nib.as_closest_canonical(
        nib.Nifti1Image(
            (scan.get_fdata() > scan.get_fdata().mean()).astype(np.uint8), scan.affine
        )
    )
    found = nib.as_closest_canonical(written)
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(truth.dataobj))
    # the header is at hand: the file's own axes, to the last digit
    if make is as_napari_nifti:
        np.testing.assert_array_equal(written.affine, scan.affine.astype(np.float32))
        np.testing.assert_array_equal(
            np.asarray(written.dataobj), scan.get_fdata() > scan.get_fdata().mean()
        )
    assert has_known_orientation(layer)
    assert abs(np.linalg.det(world_directions(layer))) == 1


def test_labels_that_napari_makes_over_a_scan_are_exported_on_it():
    layer = as_napari_nifti(nib.Nifti1Image(varied((7, 6, 5)), SCAN))
    scan = place(SHAPE, placing_of(layer))
    # as napari's "new labels" button does, without metadata
    new = {"scale": np.abs(layer.scale), "translate": layer.extent.world[0]}
    found = segmentation_from_parts(np.ones(SHAPE, int), new, scans=[scan]).geometry
    np.testing.assert_allclose(
        found.world_from_voxel((0, 0, 0)),
        scan.geometry.world_from_voxel(np.array(SHAPE) - 1),
        atol=1e-9,
    )
    np.testing.assert_allclose(
        found.world_from_voxel(np.array(SHAPE) - 1),
        scan.geometry.world_from_voxel((0, 0, 0)),
        atol=1e-9,
    )


def test_equal_voxel_sides_do_not_confuse_the_axis_order():
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURN, (4, 5, 6)
    scan = nib.Nifti1Image(varied((6, 6, 6)), affine)
    layer = as_napari_nifti(scan)
    np.testing.assert_allclose(
        volume_from_layer(layer).geometry.affine,
        nib.as_closest_canonical(scan).affine[:, [2, 1, 0, 3]],
    )
    untold = Image(varied((6, 6, 6)), metadata={"affine": affine})
    assert not has_known_orientation(untold)
    assert any(
        "axis order is unknown" in note for note in volume_from_layer(untold).notes
    )


REGISTERED = np.eye(4)
REGISTERED[:3, :3], REGISTERED[:3, 3] = TURN, (5, 6, 7)
PLACED: dict[str, dict[str, Any]] = {
    "affine": {"affine": np.diag([3.0, 2, 1, 1])},
    "rotate": {"scale": (3, 2, 1), "rotate": TURN, "translate": (-4, 5, 6)},
    "registered": {"scale": (3, 2, 1), "affine": REGISTERED},
    "flipped": {"scale": (-3, 2, -1), "translate": (1, 2, 3)},
    "axes swapped": {
        "affine": np.array([[0, 0, 1.0, 4], [0, 2, 0, 5], [3, 0, 0, 6], [0, 0, 0, 1]])
    },
    "units": {"scale": (3000, 0.2, 1), "units": ("um", "cm", "mm")},
    "time point": {
        "scale": (9, 3, 2, 1),
        "rotate": np.pad(TURN, (1, 0)) + np.diag([1, 0, 0, 0]),
    },
    "sheared": {"scale": (3, 2, 1), "shear": (0.2, 0, 0.1)},
}


@pytest.mark.parametrize("how", PLACED)
def test_a_layer_s_whole_transform_is_what_is_exported(how, tmp_path):
    kwargs = PLACED[how]
    layer = Image(varied((1, *SHAPE) if how == "time point" else SHAPE), **kwargs)
    volume = volume_from_layer(layer)
    mm = np.array([1e-3, 10, 1]) if how == "units" else np.ones(3)
    corners = np.array(
        [(i, j, k) for i in (0, 4) for j in (0, 5) for k in (0, 6)], float
    )
    world = np.array([layer.data_to_world(corner)[-3:] for corner in corners]) * mm
    # left, posterior, inferior
    np.testing.assert_allclose(
        volume.geometry.world_from_voxel(corners), -world[:, ::-1], atol=1e-9
    )
    assert any(NO_LETTERS in note for note in volume.notes)
    if how == "sheared":
        with pytest.raises(WriteError, match="sheared"):
            export(layer, tmp_path / "labels.nii.gz")
        assert not list(tmp_path.iterdir())
        data, attributes, _ = Labels(
            np.ones(SHAPE, int), **matching_grid_kwargs(layer, volume.geometry)
        ).as_layer_data_tuple()
        write_labels(str(tmp_path / "labels.nrrd"), data, attributes)
        image = sitk.ReadImage(str(tmp_path / "labels.nrrd"))
        affine = np.eye(4)
        affine[:3, :3] = (
            np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        )
    else:
        written, labels = export(layer, tmp_path / "labels.nii.gz")
        np.testing.assert_allclose(
            labels.data_to_world((1, 2, 3)),
            layer.data_to_world((1, 2, 3))[-3:],
            atol=1e-9,
        )
        affine = written.affine
    np.testing.assert_allclose(
        angles(affine), angles(volume.geometry.affine), atol=1e-4
    )


def test_our_own_layer_and_labels_follow_when_somebody_moves_them():
    geometry = Geometry(SHAPE, SCAN[:, [2, 1, 0, 3]])
    data, kwargs, _ = image_tuple(Volume(varied(), geometry, path="scan.nii.gz"))
    layer = Image(data, **kwargs)
    assert volume_from_layer(layer).geometry is geometry
    layer.scale = layer.scale * 2
    doubled = volume_from_layer(layer)
    np.testing.assert_allclose(doubled.spacing_zyx_mm, 2 * geometry.spacing_zyx_mm)
    assert any("moved, cropped or scaled" in note for note in doubled.notes)
    cropped = Image(
        data[2:, 1:, 3:],
        **{**kwargs, "translate": Image(data, **kwargs).data_to_world((2, 1, 3))},
    )
    np.testing.assert_allclose(
        volume_from_layer(cropped).geometry.world_from_voxel((0, 0, 0)),
        geometry.world_from_voxel((2, 1, 3)),
    )
    labels = Labels(
        np.ones(SHAPE, int), **matching_grid_kwargs(layer, doubled.geometry)
    )
    labels.affine = REGISTERED
    moved = segmentation_from_parts(*labels.as_layer_data_tuple()[:2]).geometry
    assert not np.allclose(moved.affine, doubled.geometry.affine)
    np.testing.assert_allclose(
        angles(moved.affine), angles(doubled.geometry.affine), atol=1e-9
    )


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"units": ("second", "mm", "mm")}, "in second"),
        ({"units": ("um", "pixel", "pixel")}, "some axes only"),
        (
            {
                "affine": np.array(
                    [
                        [1.0, 0, 0, 0, 0],
                        [1, 1, 0, 0, 0],
                        [0, 0, 1, 0, 0],
                        [0, 0, 0, 1, 0],
                        [0, 0, 0, 0, 1],
                    ]
                )
            },
            "mixes",
        ),
        ({"affine": np.diag([1.0, 1, 0, 1])}, "flat"),
    ],
)
def test_a_transform_that_cannot_be_kept_is_refused_by_name(kwargs, why):
    shape = (1, *SHAPE) if why == "mixes" else SHAPE
    with pytest.raises(GeometryError, match=f"'knee'.*{why}"):
        volume_from_parts(varied(shape), {"name": "knee", **kwargs})


@pytest.mark.parametrize("dtype", ["?", "f2", "i8", "u8", ">i2", ">f8", "f4"])
def test_every_real_type_is_taken_as_it_is(dtype):
    values = (np.arange(210).reshape(SHAPE) % 7).astype(dtype)
    volume = volume_from_layer(
        Image(da.from_array(values) if dtype == ">i2" else values)
    )
    np.testing.assert_array_equal(volume.data, values.astype(float))
    assert volume.data.dtype.isnative


def test_nan_infinity_and_empty_layers_are_treated_as_in_files(tmp_path):
    data = varied() + 100
    data[0, 0, :2] = np.nan, np.inf
    volume = volume_from_parts(data, {"name": "knee"})
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "knee.nii")
    assert volume.data.min() == volume.data[0, 0, 0] > 90
    assert volume.notes[-1] == read(tmp_path / "knee.nii").notes[-1]
    for empty, why in (
        (np.zeros(SHAPE), "every voxel is 0"),
        (np.full(SHAPE, np.nan), "no number"),
        (np.ones(SHAPE, complex), "complex"),
    ):
        with pytest.raises(ReadError, match=f"'knee'.*{why}"):
            volume_from_parts(empty, {"name": "knee"})


def test_of_several_resolutions_the_first_is_taken_and_series_are_named_for_what_they_are():
    pyramid = Image(
        [varied((8, 8, 8)), varied((4, 4, 4))], multiscale=True, scale=(2, 1, 1)
    )
    assert volume_from_layer(pyramid).data.shape == (8, 8, 8)
    assert (
        matching_grid_kwargs(pyramid, volume_from_layer(pyramid).geometry)["scale"][0]
        == 2
    )
    assert not is_scan(Image(varied((2, *SHAPE))))
    with pytest.raises(GeometryError, match="several volumes"):
        volume_from_parts(varied((2, *SHAPE)), {})
    with pytest.raises(GeometryError, match="time axis last"):
        volume_from_parts(varied((*SHAPE, 1)), {})
    with pytest.raises(GeometryError, match="one slice"):
        volume_from_parts(varied((1, 6, 7)), {})


def test_labels_of_a_layer_hold_their_ids_or_are_refused_by_value():
    labels = np.zeros(SHAPE, np.int64)
    labels[0, 0, 0] = 3_000_000_000
    found = segmentation_from_parts(labels, {})
    assert found.labels.max() == 3_000_000_000
    assert [region.id for region in found.regions] == [3_000_000_000]
    for value, why in ((-1, "holds -1"), (2**32, "32 bits")):
        labels[0, 0, 0] = value
        with pytest.raises(GeometryError, match=why):
            segmentation_from_parts(labels, {"name": "knee"})
    with pytest.raises(GeometryError, match=r"0\.5"):
        segmentation_from_parts(np.full(SHAPE, 0.5), {"name": "knee"})


def test_a_layer_in_micrometres_keeps_the_place_that_its_reader_told() -> None:
    affine = np.diag([2.0, 2, 3, 1])
    affine[:3, 3] = -10, -20, -30
    header = nib.Nifti1Image(np.zeros((7, 6, 5), np.float32), affine).header
    header.set_xyzt_units("micron")
    layer = Image(
        np.zeros((5, 6, 7), np.float32),
        scale=(3, 2, 2),
        units="um",
        metadata={"affine": affine, "header": header},
    )
    placement = place(layer.data.shape, placing_of(layer))
    np.testing.assert_allclose(
        placement.geometry.affine,
        (np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine)[:, [2, 1, 0, 3]],
        atol=1e-9,
    )
    assert placement.knows_sides
    # nobody says what the affine is in, and it fits the layer's unit
    del layer.metadata["header"]
    alone = place(layer.data.shape, placing_of(layer))
    np.testing.assert_allclose(
        alone.geometry.affine, placement.geometry.affine, atol=1e-9
    )
    assert alone.knows_sides
    layer.units = ("mm",) * 3
    np.testing.assert_allclose(
        place(layer.data.shape, placing_of(layer)).geometry.affine,
        affine[:, [2, 1, 0, 3]],
        atol=1e-9,
    )
