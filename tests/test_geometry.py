"""Geometry, and the way between a file's axes and memory order.

Against a second plain computation.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.io.grid import (
    make_grid,
    memory_geometry,
    plain_grid,
    to_file_order,
    to_memory_order,
)
from napari_strata.volume import Geometry

ORDERS = [
    (order, signs)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
SHAPE = (4, 5, 6)


def axis_aligned(order: tuple[int, ...], signs: tuple[int, ...]) -> NDArray[np.float64]:
    """File axis a runs along world axis order[a], in the direction signs[a]."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * (1.5, 0.75, 3.0)[axis]
    affine[:3, 3] = -12.25, 40.5, 7.0
    return affine


def rotated(affine: NDArray[np.float64], degrees: float = 17.0) -> NDArray[np.float64]:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tip = np.eye(4)
    tip[1:3, 1:3] = [
        [np.cos(angle / 2), -np.sin(angle / 2)],
        [np.sin(angle / 2), np.cos(angle / 2)],
    ]
    return turn @ tip @ affine


def plainly_in_memory_order(
    data: NDArray[np.generic], affine: NDArray[np.float64]
) -> NDArray[np.generic]:
    """Find by brute force the flips and the order of axes that point most toward Inferior.

    Posterior, Left.
    """
    wanted = np.array([[0, 0, -1], [0, -1, 0], [-1, 0, 0]])
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(
        ORDERS,
        key=lambda choice: sum(
            choice[1][row] * (wanted[row] @ unit[:, choice[0][row]]) for row in range(3)
        ),
    )
    order, signs = best
    return data.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_orientation_comes_to_memory_order_and_back(
    order: tuple[int, ...], signs: tuple[int, ...], degrees: float
) -> None:
    affine = rotated(axis_aligned(order, signs), degrees)
    data = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(">i2")
    grid = make_grid("scan", "nifti", SHAPE, affine)
    memory, geometry = to_memory_order(data, grid), memory_geometry(grid)

    np.testing.assert_array_equal(memory, plainly_in_memory_order(data, affine))
    assert memory.flags.c_contiguous
    assert memory.dtype == np.int16
    assert memory.dtype.isnative
    np.testing.assert_array_equal(to_file_order(memory, grid), data)
    for voxel in np.random.default_rng(1).integers(0, SHAPE, (5, 3)):
        world = affine[:3, :3] @ voxel + affine[:3, 3]
        z, y, x = np.rint(geometry.voxel_from_world(world)).astype(int)
        assert memory[z, y, x] == data[tuple(voxel)]
        np.testing.assert_allclose(
            geometry.world_from_voxel([z, y, x]), world, atol=1e-9
        )


def test_memory_axes_run_toward_inferior_posterior_left() -> None:
    geometry = memory_geometry(
        make_grid("scan", "nifti", SHAPE, axis_aligned((0, 1, 2), (1, 1, 1)))
    )
    step = geometry.world_from_voxel(np.eye(3)) - geometry.world_from_voxel([0, 0, 0])
    np.testing.assert_array_equal(step, [[0, 0, -3.0], [0, -0.75, 0], [-1.5, 0, 0]])
    assert geometry.shape_zyx == (6, 5, 4)


def test_sheared_grid_keeps_world_positions_and_volume() -> None:
    affine = axis_aligned((0, 1, 2), (1, 1, 1))
    affine[1, 2] = 0.9
    geometry = memory_geometry(make_grid("scan", "nifti", SHAPE, affine))
    assert geometry.voxel_volume_mm3 == pytest.approx(1.5 * 0.75 * 3.0)
    corners = np.array(list(product(*((0, n - 1) for n in geometry.shape_zyx))))
    here = {tuple(np.round(point, 6)) for point in geometry.world_from_voxel(corners)}
    there = {
        tuple(np.round(affine[:3, :3] @ corner + affine[:3, 3], 6))
        for corner in product((0, 3), (0, 4), (0, 5))
    }
    assert here == there


def test_an_array_without_a_file_gets_axes_toward_right_anterior_superior() -> None:
    geometry = Geometry.from_spacing((6, 5, 4), (3.0, 0.75, 1.5))
    grid = plain_grid(geometry)
    labels = np.arange(120, dtype=np.uint8).reshape(6, 5, 4)
    assert grid.shape == (4, 5, 6)
    np.testing.assert_array_equal(np.sign(np.diag(grid.affine)), [1, 1, 1, 1])
    np.testing.assert_allclose(memory_geometry(grid).affine, geometry.affine)
    np.testing.assert_array_equal(
        to_memory_order(to_file_order(labels, grid), grid), labels
    )


def test_voxel_and_world_are_inverse() -> None:
    geometry = Geometry((5, 6, 7), rotated(axis_aligned((2, 0, 1), (-1, 1, -1))))
    points = np.random.default_rng(0).uniform(0, 5, (10, 3))
    np.testing.assert_allclose(
        geometry.voxel_from_world(geometry.world_from_voxel(points)), points
    )
    assert geometry.is_oblique
    assert not Geometry((5, 6, 7), axis_aligned((2, 0, 1), (-1, 1, -1))).is_oblique


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 1, 0, 1]),
        np.diag([np.nan, 1, 1, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
    ids=["zero", "flat", "nan", "parallel"],
)
def test_a_useless_affine_is_refused_by_name(affine: NDArray[np.float64]) -> None:
    with pytest.raises(GeometryError, match=r"scan\.nii"):
        make_grid("scan.nii", "nifti", SHAPE, affine)


def test_labels_of_another_scan_are_refused() -> None:
    grid = make_grid("scan", "nifti", SHAPE, np.eye(4))
    with pytest.raises(GeometryError, match="own scan"):
        to_file_order(np.zeros((3, 3, 3), np.uint8), grid)
