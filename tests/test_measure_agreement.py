"""Surfaces in mm2 and distances in mm.

Against spheres and boxes worked out by hand, on thick, oblique and sheared grids.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage as ndi

from exported import GRIDS
from napari_strata.errors import GeometryError, SettingsError
from napari_strata.measure import (
    RegionAgreement,
    agree,
    compare,
    join_by_overlap,
    measure_regions,
)
from napari_strata.volume import Geometry, Region, Segmentation, Volume

THICK = np.array([[0, 0, -0.7, 0], [0, -0.7, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
SHEARED = np.array([[0, 0, -1.0, 0], [-0.4, -1.0, 0, 0], [-1.5, 0, 0, 0], [0, 0, 0, 1]])
AFFINES = {**GRIDS, "thick": THICK, "sheared": SHEARED}


def ball(radius_mm: float, affine: NDArray[np.float64], label: int = 1) -> Segmentation:
    """A ball around the middle of a grid that is large enough for 12 mm."""
    inverse = np.linalg.inv(affine[:3, :3])
    shape = tuple(int(n) for n in np.ceil(2 * 12 * np.linalg.norm(inverse, axis=1)) + 3)
    geometry = Geometry(shape, affine)
    middle = geometry.world_from_voxel((np.array(shape) - 1) / 2 + 0.1)
    places = geometry.world_from_voxel(np.moveaxis(np.indices(shape), 0, -1))
    inside = np.linalg.norm(places - middle, axis=-1) <= radius_mm
    return Segmentation(inside.astype(np.uint8) * np.uint8(label), (), geometry)


@pytest.mark.parametrize("grid", ["anisotropic", "oblique", "flipped", "thick"])
@pytest.mark.parametrize("radius", [8.0, 11.0])
def test_the_surface_of_a_ball_is_right_on_every_grid(grid: str, radius: float) -> None:
    (measure,) = measure_regions(ball(radius, AFFINES[grid]))
    assert measure.surface_mm2 == pytest.approx(4 * math.pi * radius**2, rel=0.03)
    assert measure.volume_ml == pytest.approx(
        4 / 3 * math.pi * radius**3 / 1000, rel=0.03
    )


@pytest.mark.parametrize("grid", AFFINES)
def test_the_box_in_mm_holds_every_corner_of_every_voxel(grid: str) -> None:
    segmentation = ball(7, AFFINES[grid])
    (measure,) = measure_regions(segmentation)
    places = np.argwhere(segmentation.labels)
    corners = np.concatenate([places + np.array(c) for c in np.ndindex(2, 2, 2)]) - 0.5
    world = segmentation.geometry.world_from_voxel(corners)
    assert measure.box_min_ras_mm == pytest.approx(tuple(world.min(axis=0)))
    assert measure.box_max_ras_mm == pytest.approx(tuple(world.max(axis=0)))


@pytest.mark.parametrize("grid", AFFINES)
def test_balls_inside_each_other_are_two_millimetres_apart(grid: str) -> None:
    small, large = ball(8, AFFINES[grid]), ball(10, AFFINES[grid])
    (wide,) = agree(small, large, tolerance_mm=4)
    (tight,) = agree(small, large, tolerance_mm=0.2)
    assert wide.hd95_mm == pytest.approx(2, abs=max(small.geometry.spacing_zyx_mm) / 2)
    assert wide.nsd == pytest.approx(1, abs=0.01)
    assert tight.nsd < 0.25
    assert wide.dice == pytest.approx(2 * 8**3 / (8**3 + 10**3), abs=0.02)
    assert wide.volume_difference_ml == pytest.approx(
        4 / 3 * math.pi * (8**3 - 10**3) / 1000, rel=0.05
    )
    assert wide.volume_difference_percent == pytest.approx(100 * (0.8**3 - 1), abs=2)


def shifted_boxes(
    axis: int, affine: NDArray[np.float64], tolerance_mm: float
) -> RegionAgreement:
    """Compare a box with itself moved by one voxel."""
    box = np.zeros((9, 12, 12), np.uint8)
    box[2:6, 2:8, 2:8] = 5
    geometry = Geometry(box.shape, affine)
    (found,) = agree(
        Segmentation(np.roll(box, 1, axis), (), geometry),
        Segmentation(box, (Region(5, "box", (0, 0, 0)),), geometry),
        tolerance_mm=tolerance_mm,
    )
    return found


def test_a_shift_by_one_slice_is_a_shift_by_its_thickness() -> None:
    across_slices, in_plane = shifted_boxes(0, THICK, 1.0), shifted_boxes(2, THICK, 1.0)
    assert across_slices.hd95_mm == pytest.approx(3.0)
    assert in_plane.hd95_mm == pytest.approx(0.7)
    assert across_slices.dice == pytest.approx(3 / 4)
    assert in_plane.dice == pytest.approx(5 / 6)
    assert in_plane.nsd == 1
    assert in_plane.name == "box"
    assert across_slices.nsd < 0.9


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("tolerance", [0.8, 2.0])
def test_surface_dice_is_that_of_monai(tolerance: float) -> None:
    noise = ndi.gaussian_filter(
        np.random.default_rng(4).normal(size=(2, 16, 30, 30)),
        (0, 1.5, 3, 3),
        mode="constant",
    )
    masks = np.pad(noise > 0.01, ((0, 0), (2, 2), (2, 2), (2, 2)))
    geometry = Geometry(masks.shape[1:], THICK)
    (found,) = agree(
        *(Segmentation(mask.astype(np.uint8), (), geometry) for mask in masks),
        tolerance_mm=tolerance,
    )
    ours, theirs = (torch.from_numpy(mask)[None, None] for mask in masks)
    expected = compute_surface_dice(
        ours,
        theirs,
        [tolerance],
        include_background=True,
        spacing=[3.0, 0.7, 0.7],
        use_subvoxels=True,
    )
    assert found.nsd == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turning_the_patient_changes_no_score(axis: int) -> None:
    turned = GRIDS["oblique"].copy()
    turned[:3, :3] = (
        turned[:3, :3]
        / np.linalg.norm(turned[:3, :3], axis=0)
        @ np.diag([3.0, 0.7, 0.7])
    )
    straight, oblique = (shifted_boxes(axis, affine, 0.8) for affine in (THICK, turned))
    assert oblique.hd95_mm == pytest.approx(straight.hd95_mm)
    assert oblique.nsd == pytest.approx(straight.nsd)


def test_regions_that_only_one_of_the_two_has() -> None:
    ours, theirs = ball(5, THICK, 1), ball(5, THICK, 2)
    one, two = agree(ours, theirs)
    assert (one.dice, one.hd95_mm, one.nsd) == (0, math.inf, 0)
    assert math.isnan(one.volume_difference_percent)
    assert two.volume_difference_percent == -100
    (neither,) = agree(ours, theirs, ids=[9])
    assert all(
        math.isnan(value) for value in (neither.dice, neither.hd95_mm, neither.nsd)
    )
    (same,) = agree(ours, ours)
    assert (same.dice, same.hd95_mm, same.nsd, same.volume_difference_ml) == (
        1,
        0,
        1,
        0,
    )


def test_other_grids_and_bad_tolerances_are_refused() -> None:
    with pytest.raises(GeometryError, match="the reference"):
        agree(ball(5, THICK), ball(5, AFFINES["oblique"]))
    with pytest.raises(SettingsError, match="at least 0 mm"):
        agree(ball(5, THICK), ball(5, THICK), tolerance_mm=-1)


def test_confidence_is_averaged_over_a_regions_voxels() -> None:
    segmentation = ball(6, THICK)
    sure = np.random.default_rng(0).random(segmentation.labels.shape).astype(np.float32)
    scan = Volume(
        np.zeros(segmentation.labels.shape, np.int16), segmentation.geometry, "ct"
    )
    (measure,) = measure_regions(segmentation, scan, confidence=sure)
    assert measure.confidence == pytest.approx(
        float(sure[segmentation.labels == 1].mean()), rel=1e-6
    )
    with pytest.raises(GeometryError, match="their own proposal"):
        measure_regions(segmentation, scan, confidence=sure[1:])


def test_regions_of_a_proposal_are_joined_into_the_labels_they_overlap_most() -> None:
    geometry = Geometry((1, 2, 6), np.eye(4))
    reference = Segmentation(
        np.array([[[1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 0]]], np.uint8),
        (Region(1, "liver", (9, 9, 9)),),
        geometry,
    )
    proposal = Segmentation(
        np.array([[[40, 40, 50, 60, 60, 0], [40, 40, 50, 50, 60, 70]]], np.uint16),
        (),
        geometry,
    )
    joined = join_by_overlap(proposal, reference)
    assert joined.labels.tolist() == [[[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 2, 0]]]
    assert [(region.id, region.name) for region in joined.regions] == [
        (1, "liver"),
        (2, "region 2"),
    ]
    liver, other = agree(joined, reference)
    assert (liver.dice, other.dice) == (pytest.approx(12 / 13), pytest.approx(6 / 7))
    assert compare(proposal, reference).many_to_one == pytest.approx(
        {1: liver.dice, 2: other.dice}
    )
