"""Brightness, the body and the working grid."""

import numpy as np
import pytest

from napari_strata.errors import GeometryError
from napari_strata.preprocess.intensity import (
    flatten_bias,
    resample,
    scale_intensity,
    working_grid,
)
from phantoms import ball

BODY = ball((40, 44, 48), (20, 22, 24), 16)


def test_ct_keeps_its_scale_whatever_else_is_in_the_scan():
    hu = np.array([[[-1000.0, -200.0, 50.0, 300.0, 3000.0]]], np.float32)
    assert scale_intensity(hu, "ct").ravel().tolist() == pytest.approx(
        [0.0, 0.15, 0.5, 0.85, 1.0]
    )


@pytest.fixture(scope="module")
def ramp():
    """Give a body that grows brighter, and its brightness."""
    data = np.where(BODY, np.linspace(0.3, 1, BODY.size).reshape(BODY.shape), 0).astype(
        np.float32
    )
    return data, scale_intensity(data, "mr", inside=BODY)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1e-4, 0.0), (3000.0, -500.0), (1.0, -4.0)]
)
def test_mr_brightness_does_not_depend_on_scale_or_zero_point(ramp, scale, shift):
    data, base = ramp
    moved = scale_intensity(
        data * np.float32(scale) + np.float32(shift), "mr", inside=BODY
    )
    assert moved == pytest.approx(base, abs=2e-3)
    assert base.min() >= 0
    assert base.max() <= 1


def test_the_working_grid_covers_the_body_and_keeps_its_voxel_size():
    grid = working_grid(
        BODY, np.array([2.0, 2.0, 2.0]), finest_mm=1.0, most_voxels=10**6
    )
    assert all(
        s.start <= lo and s.stop > hi
        for s, lo, hi in zip(grid.box, (4, 6, 8), (36, 38, 40), strict=True)
    )
    assert grid.shape_zyx == grid.box_shape


@pytest.mark.parametrize("most", [2_000, 10_000])
def test_the_working_grid_keeps_to_its_number_of_voxels(most):
    grid = working_grid(
        BODY, np.array([2.0, 2.0, 2.0]), finest_mm=1.0, most_voxels=most
    )
    assert np.prod(grid.shape_zyx) < 1.2 * most


def test_fine_scans_are_averaged_down_and_thick_slices_interpolated():
    grid = working_grid(
        BODY, np.array([6.0, 0.5, 0.5]), finest_mm=1.0, most_voxels=10**7, margin_mm=0
    )
    assert grid.spacing_zyx_mm[1] == pytest.approx(1.0, rel=0.1)
    assert grid.spacing_zyx_mm[0] == pytest.approx(3.0, rel=0.1)


def test_nothing_but_air_is_a_clear_error():
    with pytest.raises(GeometryError, match="looks like air"):
        working_grid(
            np.zeros((4, 4, 4), bool), np.ones(3), finest_mm=1.0, most_voxels=100
        )


@pytest.mark.parametrize("shape", [(10, 12, 14), (40, 36, 28), (20, 9, 28)])
def test_resampling_keeps_a_ramp_in_its_place(shape):
    z, y, x = np.meshgrid(
        *[(np.arange(n) + 0.5) / n for n in (20, 18, 28)], indexing="ij"
    )
    ramp = (z + 2 * y + 3 * x).astype(np.float32)
    z, y, x = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij")
    out = resample(ramp, shape)
    assert out.shape == shape
    inner = (slice(2, -2),) * 3
    assert out[inner] == pytest.approx((z + 2 * y + 3 * x)[inner], abs=0.02)


@pytest.mark.parametrize("voxel_mm", [5.0, 2.2])
def test_a_slow_change_over_the_coils_is_flattened_in_large_and_small_bodies(voxel_mm):
    z = np.linspace(0.6, 1.5, 40)[:, None, None]
    tissue = np.where(ball(BODY.shape, (20, 22, 24), 9), 0.65, 0.45)
    intensity = np.where(BODY, tissue * z / 1.5, 0).astype(np.float32)
    spacing = np.full(3, voxel_mm)
    flat = flatten_bias(intensity, BODY, spacing)
    rim = BODY & (tissue < 0.5)

    def spread(image):
        return image[rim].std() / image[rim].mean()

    assert spread(flat) < 0.6 * spread(intensity)
    assert 0 <= flat.min() <= flat.max() <= 1


def test_a_body_too_small_to_tell_keeps_its_brightness():
    intensity = np.random.default_rng(0).uniform(0, 1, (6, 6, 6)).astype(np.float32)
    assert np.array_equal(
        flatten_bias(intensity, np.ones(intensity.shape, bool), np.ones(3)), intensity
    )
