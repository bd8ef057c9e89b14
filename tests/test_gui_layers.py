"""Volumes and labels as napari layers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_strata.errors import GeometryError
from napari_strata.gui.canvas.layers import (
    has_known_orientation,
    image_tuple,
    labels_tuple,
    region_colormap,
    segmentation_from_parts,
    volume_from_layer,
)
from napari_strata.volume import Geometry, Region, Segmentation, Volume, region_color
from phantoms import phantom_volume

OBLIQUE = np.array(
    [[0.3, 0.1, -1.9, 40], [0.2, -1.4, -0.1, 20], [-2.9, 0.2, 0.3, -7], [0, 0, 0, 1.0]]
)


def oblique_volume(modality: str = "mr") -> Volume:
    data = np.random.default_rng(0).normal(size=(6, 8, 10)).astype(np.float32)
    return Volume(
        data,
        Geometry(data.shape, OBLIQUE),
        modality,
        name="knee",
        path="knee.nii.gz",
        notes=("one",),
    )


def image_layer(volume: Volume) -> Image:
    data, kwargs, kind = image_tuple(volume)
    assert kind == "image"
    return Image(data, **kwargs)


def varied(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def parts(layer: Image | Labels) -> tuple[object, dict[str, object]]:
    data, attributes, _ = layer.as_layer_data_tuple()
    return data, attributes


def test_a_volume_comes_back_from_its_layer_whole():
    volume = oblique_volume("ct")
    back = volume_from_layer(image_layer(volume))
    assert back.geometry is volume.geometry
    assert (back.modality, back.name, back.path, back.notes) == (
        "ct",
        "knee",
        "knee.nii.gz",
        ("one",),
    )
    assert np.shares_memory(back.data, volume.data)


def test_layers_are_in_mm_with_the_metadata_that_other_plugins_look_for():
    volume = oblique_volume()
    layer = image_layer(volume)
    np.testing.assert_allclose(layer.scale, volume.spacing_zyx_mm)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    # x, y, z, as napari-nifti has it
    np.testing.assert_array_equal(layer.metadata["affine"], OBLIQUE[:, [2, 1, 0, 3]])
    assert {"spacing", "origin", "direction", "header"} <= set(layer.metadata)


def test_labels_lie_exactly_over_their_scan_and_two_scans_of_a_patient_over_each_other():
    coarse = Geometry.from_spacing((6, 8, 10), (4, 4, 4))
    fine_affine = np.array(coarse.affine)
    fine_affine[:3, :3] /= 2
    fine = Geometry((12, 16, 20), fine_affine)
    first = image_layer(Volume(np.zeros(coarse.shape_zyx, np.float32), coarse))
    second = image_layer(Volume(np.zeros(fine.shape_zyx, np.float32), fine))
    data, kwargs, _ = labels_tuple(
        Segmentation(np.zeros(coarse.shape_zyx, np.uint8), (), coarse), name="labels"
    )
    labels = Labels(data, **kwargs)
    voxel = np.array([3, 5, 7])
    np.testing.assert_allclose(first.data_to_world(voxel), labels.data_to_world(voxel))
    np.testing.assert_allclose(
        first.data_to_world(voxel), second.data_to_world(voxel * 2)
    )
    assert labels.units == first.units
    assert labels.axis_labels == first.axis_labels


def test_a_labels_layer_keeps_names_colours_and_geometry_for_export():
    geometry = Geometry((6, 8, 10), OBLIQUE)
    labels = np.zeros(geometry.shape_zyx, np.uint16)
    labels[1], labels[2] = 7, 300
    regions = (
        Region(7, "liver", (200, 30, 40), locked=True),
        Region(300, "spleen", (1, 2, 3)),
    )
    data, kwargs, _ = labels_tuple(
        Segmentation(labels, regions, geometry), name="abdomen"
    )
    layer = Labels(data, **kwargs)
    back = segmentation_from_parts(*parts(layer))
    assert back.regions == regions
    assert back.geometry is geometry
    np.testing.assert_array_equal(back.labels, labels)
    np.testing.assert_allclose(
        layer.get_color(7), [200 / 255, 30 / 255, 40 / 255, 1], atol=1e-3
    )


def test_labels_painted_by_hand_get_rows_of_their_own():
    layer = Labels(np.zeros((4, 4, 4), np.int32), scale=(2, 1, 1))
    layer.data[1, 1, 1] = 9
    back = segmentation_from_parts(*parts(layer))
    assert [region.id for region in back.regions] == [9]
    assert back.labels.dtype == np.uint8
    np.testing.assert_allclose(back.geometry.spacing_zyx_mm, (2, 1, 1))


@pytest.mark.parametrize(
    ("units", "factor"), [(None, 1.0), (("mm",) * 3, 1.0), (("um",) * 3, 1e-3)]
)
def test_a_bare_array_is_a_scan_with_its_scale_and_no_known_orientation(units, factor):
    layer = Image(varied((4, 5, 6)), scale=(3, 2, 1), units=units)
    volume = volume_from_layer(layer)
    np.testing.assert_allclose(volume.spacing_zyx_mm, np.array([3, 2, 1]) * factor)
    assert not has_known_orientation(layer)


def test_another_readers_affine_is_taken_in_either_axis_order():
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    for scale, columns in (((1, -2, -3), [0, 1, 2]), ((-3, -2, 1), [2, 1, 0])):
        layer = Image(varied((4, 5, 6)), scale=scale, metadata={"affine": affine})
        assert has_known_orientation(layer)
        np.testing.assert_array_equal(
            volume_from_layer(layer).geometry.affine[:3, :3], affine[:3, columns]
        )


def test_an_affine_that_contradicts_the_scale_is_left_alone():
    layer = Image(
        varied((4, 5, 6)),
        scale=(1, 1, 1),
        metadata={"affine": np.diag([1.0, 2.0, 3.0, 1.0])},
    )
    assert not has_known_orientation(layer)
    np.testing.assert_allclose(volume_from_layer(layer).spacing_zyx_mm, (1, 1, 1))


@pytest.mark.parametrize(
    "layer",
    [
        Image(np.zeros((4, 5))),
        Image(np.zeros((4, 5, 6, 3)), rgb=True),
        Image(np.zeros((2, 4, 5, 6))),
    ],
)
def test_what_is_no_3d_grey_image_is_refused_in_words(layer):
    with pytest.raises(GeometryError, match="not a 3D grey image"):
        volume_from_layer(layer)


def test_the_slider_finds_colours_ready_beyond_the_table():
    ready = region_colormap((Region(2, "liver", (10, 20, 30)),), capacity=8, hidden={5})
    colors = ready.map(np.arange(9, dtype=np.uint16))
    np.testing.assert_allclose(colors[2], [10 / 255, 20 / 255, 30 / 255, 1], atol=1e-6)
    np.testing.assert_allclose(
        colors[7, :3], np.array(region_color(7)) / 255, atol=1e-6
    )
    assert [number for number in range(9) if colors[number, 3] == 0] == [0, 5]


def test_labels_beyond_napari_s_longest_cycle_are_coloured_too():
    colors = region_colormap(
        (Region(2, "liver", (10, 20, 30)), Region(900_000, "far", (40, 50, 60)))
    )
    np.testing.assert_allclose(
        colors.map(np.array([900_000], np.uint32))[0],
        [40 / 255, 50 / 255, 60 / 255, 1],
        atol=1e-6,
    )


def test_a_scan_opens_with_a_window_that_shows_it():
    volume = phantom_volume()
    low, high = image_layer(volume).contrast_limits
    assert volume.data.min() <= low < high <= volume.data.max()
