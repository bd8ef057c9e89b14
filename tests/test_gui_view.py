"""Planes, letters at the canvas edges, camera, windows and the position under the cursor."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.layers import Image

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.layers import image_tuple
from napari_strata.gui.canvas.orientation import (
    describe_position,
    edge_letters,
    plane_order,
    turned_letters,
    upright_orientation,
    world_directions,
)
from napari_strata.gui.canvas.position import position_from_text, text_from_position
from napari_strata.gui.canvas.window_presets import (
    contrast_limits,
    dragged_window,
    preset_names,
)
from napari_strata.volume import Geometry
from phantoms import phantom_volume

MEMORY = -np.eye(3)[::-1]
"""Directions of our own layers: inferior, posterior, left."""

UPRIGHT = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Left, right, top, bottom of the canvas in the radiological convention."""


def test_our_layers_run_toward_the_feet_the_back_and_the_left():
    data, kwargs, _ = image_tuple(phantom_volume())
    np.testing.assert_array_equal(world_directions(Image(data, **kwargs)), MEMORY)


def test_a_bare_array_shows_no_letters():
    assert world_directions(Image(np.zeros((3, 4, 5)))) is None


@pytest.mark.parametrize("plane", UPRIGHT)
def test_planes_are_upright_for_every_axis_order_and_sign(plane):
    for permutation in itertools.permutations(range(3)):
        for signs in itertools.product((-1, 1), repeat=3):
            directions = np.eye(3)[:, permutation] * signs
            order = plane_order(directions, plane)
            _, down, across = upright_orientation(directions, order)
            letters = edge_letters(directions, (order[1], order[2]), (down, across))
            assert (
                letters.left,
                letters.right,
                letters.top,
                letters.bottom,
            ) == UPRIGHT[plane]


def test_letters_follow_a_rolled_and_a_turned_canvas():
    rolled = edge_letters(MEMORY, (2, 0), ("down", "right"))
    assert (rolled.left, rolled.right, rolled.top, rolled.bottom) == (
        "S",
        "I",
        "R",
        "L",
    )
    turned = edge_letters(MEMORY, (1, 2), ("up", "left"))
    assert (turned.left, turned.right, turned.top, turned.bottom) == (
        "L",
        "R",
        "P",
        "A",
    )


def test_the_camera_is_never_a_mirror():
    for order in itertools.permutations(range(3)):
        depth, down, across = upright_orientation(MEMORY, order)
        screen = [
            (0, 0, 1 if depth == "towards" else -1),
            (0, -1 if down == "down" else 1, 0),
            (1 if across == "right" else -1, 0, 0),
        ]
        patient = MEMORY[:, order]
        assert np.sign(np.linalg.det(np.array(screen).T)) == np.sign(
            np.linalg.det(patient)
        )


def test_the_position_is_given_in_the_patient_with_the_value():
    geometry = Geometry.from_spacing((5, 5, 5), (2, 2, 2))
    data = np.zeros((5, 5, 5), np.int16)
    data[0, 1, 3] = -42
    assert (
        describe_position(geometry, data, (0, 1, 3), unit="HU")
        == "L 2.0  A 2.0  S 4.0 mm   -42 HU"
    )
    assert describe_position(geometry, data, (5.2, 1, 3)) == ""


def test_ct_presets_are_in_hounsfield_units_and_mr_presets_follow_the_scan():
    assert preset_names("ct") == (
        "Soft tissue",
        "Brain",
        "Lung",
        "Bone",
        "Liver",
        "Mediastinum",
        "Angiography",
    )
    assert contrast_limits(np.zeros((2, 2, 2)), "ct", "Lung") == (-1350, 150)
    data = np.zeros((20, 20, 20), np.float32)
    data[5:15, 5:15, 5:15] = np.linspace(100, 200, 1000).reshape(10, 10, 10)
    for name in preset_names("mr"):
        low, high = contrast_limits(data, "mr", name)
        assert 100 <= low < high <= 200


@pytest.mark.parametrize("value", [0, -3.5])
def test_a_constant_scan_still_has_a_window(value):
    low, high = contrast_limits(np.full((4, 4, 4), value), "mr", preset_names("mr")[0])
    assert low < high


def test_a_window_is_wider_to_the_right_and_brighter_downward():
    assert dragged_window((0, 100), 200, 0) == pytest.approx(
        (50 - 50 * np.e, 50 + 50 * np.e)
    )
    low, high = dragged_window((0, 100), 0, 30)
    assert (low, high) == pytest.approx((-10, 90))


@pytest.mark.parametrize(
    "text", ["L 12 P 30.5 S 7", "s7 L12 p30.5", "-12, -30.5, 7", "-12 -30.5 7 mm"]
)
def test_positions_are_read_as_they_are_written(text):
    np.testing.assert_allclose(position_from_text(text), (-12, -30.5, 7))
    assert position_from_text(
        text_from_position(position_from_text(text))
    ) == pytest.approx(position_from_text(text))


@pytest.mark.parametrize("text", ["", "L 1 R 2 S 3", "1 2", "over there"])
def test_what_is_no_position_is_refused_with_an_example(text):
    with pytest.raises(StrataError, match="L 12 P"):
        position_from_text(text)


def test_letters_in_3d_follow_the_camera():
    front = turned_letters(np.array([0, -1.0, 0]), np.array([0, 0, 1.0]))
    assert (front.left, front.right, front.top, front.bottom) == ("R", "L", "S", "I")
    behind = turned_letters(np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))
    assert (behind.left, behind.right) == ("L", "R")
    aslant = turned_letters(np.array([1.0, -1.0, 0]), np.array([0, 0, 1.0]))
    assert (aslant.left, aslant.right, aslant.top) == ("", "", "S")
