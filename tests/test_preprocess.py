"""Brightness, the body and the working grid."""

import numpy as np
import pytest

from napari_strata.errors import GeometryError
from napari_strata.preprocess import body_mask, brightness, flatten_bias, resample, working_grid
from napari_strata.volume import Geometry, Volume


def ball(shape, center, radius):
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return ((grid - np.array(center)) ** 2).sum(-1) <= radius**2


def volume_of(data, modality="mr", spacing=(2.0, 2.0, 2.0)):
    return Volume(data, Geometry.from_spacing(data.shape, spacing), modality)


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


BODY = ball((40, 44, 48), (20, 22, 24), 16)


def test_ct_keeps_its_scale_whatever_else_is_in_the_scan():
    hu = np.array([[[-1000.0, -200.0, 50.0, 300.0, 3000.0]]], np.float32)
    assert brightness(hu, "ct").ravel().tolist() == pytest.approx([0.0, 0.15, 0.5, 0.85, 1.0])


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.0), (3000.0, -500.0), (1.0, -4.0)])
def test_mr_brightness_does_not_depend_on_scale_or_zero_point(scale, shift):
    data = np.where(BODY, np.linspace(0.3, 1, BODY.size).reshape(BODY.shape), 0).astype(np.float32)
    base = brightness(data, "mr", inside=BODY)
    moved = brightness(data * np.float32(scale) + np.float32(shift), "mr", inside=BODY)
    assert moved == pytest.approx(base, abs=2e-3)
    assert base.min() >= 0
    assert base.max() <= 1


def test_the_body_is_found_in_noisy_mr():
    rng = np.random.default_rng(0)
    data = np.abs(np.where(BODY, 300, 0) + rng.normal(0, 15, BODY.shape)).astype(np.float32)
    assert overlap(body_mask(volume_of(data)), BODY) > 0.9


def test_the_body_is_found_in_skull_stripped_z_scored_mr_where_zero_is_padding():
    rng = np.random.default_rng(0)
    data = np.where(BODY, rng.normal(0, 1, BODY.shape), 0).astype(np.float32)
    assert overlap(body_mask(volume_of(data)), BODY) > 0.98


def test_lungs_count_as_body_and_the_table_does_not():
    hu = np.full(BODY.shape, -1000, np.int16)
    hu[BODY] = 40
    hu[ball(BODY.shape, (20, 22, 24), 8)] = -850
    hu[:, 41:42, 5:43] = 200
    mask = body_mask(volume_of(hu, "ct"))
    assert mask[20, 22, 24]
    assert not mask[:, 41].any()
    assert overlap(mask, BODY) > 0.93


def test_lungs_that_the_field_of_view_cuts_are_body_and_the_air_around_is_not():
    rng = np.random.default_rng(0)
    hu = np.where(BODY, 40, -1000) + rng.normal(0, 15, BODY.shape)
    hu[ball(BODY.shape, (20, 22, 24), 11)] -= 880
    cropped = hu[:, 12:32, 14:34].astype(np.int16)  # the lung reaches the faces, and air is at the two others
    assert overlap(body_mask(volume_of(cropped, "ct")), BODY[:, 12:32, 14:34]) > 0.97


def test_a_scan_without_background_is_all_body():
    data = np.random.default_rng(0).normal(500, 20, (16, 16, 16)).astype(np.float32)
    assert body_mask(volume_of(data)).mean() > 0.5


def test_a_body_of_dark_and_bright_tissue_that_fills_the_field_of_view_is_not_halved():
    rng = np.random.default_rng(1)
    dark = ball(BODY.shape, (20, 22, 24), 30) & ~BODY
    data = (np.where(BODY, 600, np.where(dark, 150, 0)) + np.abs(rng.normal(0, 8, BODY.shape))).astype(np.float32)
    inner = np.where(ball(BODY.shape, (20, 22, 24), 5), 0, data)[6:-6, 6:-6, 6:-6]  # the only air is inside
    assert body_mask(volume_of(inner)).mean() > 0.95
    corner = data[:24, :30]  # air at two faces only
    assert overlap(body_mask(volume_of(corner)), (BODY | dark)[:24, :30]) > 0.95


def test_the_working_grid_covers_the_body_and_keeps_its_voxel_size():
    grid = working_grid(BODY, np.array([2.0, 2.0, 2.0]), finest_mm=1.0, most_voxels=10**6)
    assert all(s.start <= lo and s.stop > hi for s, lo, hi in zip(grid.box, (4, 6, 8), (36, 38, 40), strict=True))
    assert grid.shape_zyx == grid.box_shape


@pytest.mark.parametrize("most", [2_000, 10_000])
def test_the_working_grid_keeps_to_its_number_of_voxels(most):
    grid = working_grid(BODY, np.array([2.0, 2.0, 2.0]), finest_mm=1.0, most_voxels=most)
    assert np.prod(grid.shape_zyx) < 1.2 * most


def test_fine_scans_are_averaged_down_and_thick_slices_interpolated():
    grid = working_grid(BODY, np.array([6.0, 0.5, 0.5]), finest_mm=1.0, most_voxels=10**7, margin_mm=0)
    assert grid.spacing_zyx_mm[1] == pytest.approx(1.0, rel=0.1)
    assert grid.spacing_zyx_mm[0] == pytest.approx(3.0, rel=0.1)


def test_nothing_but_air_is_a_clear_error():
    with pytest.raises(GeometryError, match="looks like air"):
        working_grid(np.zeros((4, 4, 4), bool), np.ones(3), finest_mm=1.0, most_voxels=100)


@pytest.mark.parametrize("shape", [(10, 12, 14), (40, 36, 28), (20, 9, 28)])
def test_resampling_keeps_a_ramp_in_its_place(shape):
    z, y, x = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in (20, 18, 28)], indexing="ij")
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
    light = np.where(BODY, tissue * z / 1.5, 0).astype(np.float32)
    spacing = np.full(3, voxel_mm)
    flat = flatten_bias(light, BODY, spacing)
    rim = BODY & (tissue < 0.5)

    def spread(image):
        return image[rim].std() / image[rim].mean()

    assert spread(flat) < 0.6 * spread(light)
    assert 0 <= flat.min() <= flat.max() <= 1


def test_a_body_too_small_to_tell_keeps_its_brightness():
    light = np.random.default_rng(0).uniform(0, 1, (6, 6, 6)).astype(np.float32)
    assert np.array_equal(flatten_bias(light, np.ones(light.shape, bool), np.ones(3)), light)


def test_noise_that_is_cut_off_at_zero_is_not_taken_for_padding():
    rng = np.random.default_rng(0)
    data = np.maximum(rng.normal(0, 8, (40, 48, 48)), 0).round()
    data[8:32, 10:38, 10:38] += 300
    geometry = Geometry.from_spacing(data.shape, (1.0, 1.0, 1.0))
    inside = body_mask(Volume(data.astype(np.int16), geometry, "mr"))
    assert inside[12:28, 14:34, 14:34].all()
    assert not inside[:5].any()


FINE_BODY = ball((64, 72, 80), (32, 36, 40), 25)


def test_every_voxel_of_a_stripped_brain_counts_as_body_at_1_mm():
    rng = np.random.default_rng(0)
    for brain in (rng.uniform(150, 900, FINE_BODY.shape), rng.normal(0, 1, FINE_BODY.shape)):
        data = np.where(FINE_BODY, brain, 0).astype(np.float32)
        assert np.array_equal(body_mask(volume_of(data, spacing=(1.0, 1.0, 1.0))), FINE_BODY)


def test_the_skin_of_a_ct_is_met_to_the_voxel_at_1_mm():
    hu = np.where(FINE_BODY, 40, -1000).astype(np.int16)
    assert np.array_equal(body_mask(volume_of(hu, "ct", spacing=(1.0, 1.0, 1.0))), FINE_BODY)


def test_the_skin_of_a_noisy_mr_is_met_within_a_voxel_at_1_mm():
    rng = np.random.default_rng(0)
    data = np.hypot(np.where(FINE_BODY, 300, 0) + rng.normal(0, 10, FINE_BODY.shape), rng.normal(0, 10, FINE_BODY.shape))
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    near = [ball(FINE_BODY.shape, (32, 36, 40), 25 + off) for off in (-1.5, 1.5)]
    assert found[near[0]].all()
    assert (found & ~near[1]).sum() < 0.01 * FINE_BODY.sum()


@pytest.mark.parametrize("faintest", [1, 20])
def test_faint_noise_beside_a_head_on_padding_is_not_body(faintest):
    rng = np.random.default_rng(0)
    rim = ball(FINE_BODY.shape, (32, 36, 40), 29) & ~FINE_BODY
    halo = rim * rng.choice([1, faintest], FINE_BODY.shape, p=[0.7, 0.3])
    data = np.where(FINE_BODY, rng.uniform(100, 300, FINE_BODY.shape), 0) + halo
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    assert found[ball(FINE_BODY.shape, (32, 36, 40), 24)].all()
    assert not found[~ball(FINE_BODY.shape, (32, 36, 40), 26.5)].any()


def test_air_with_remains_of_noise_in_it_is_not_taken_for_padding():
    rng = np.random.default_rng(0)
    noise = np.maximum(rng.normal(-12, 10, FINE_BODY.shape), 0).round()  # nine in ten are cut off at zero
    data = np.where(FINE_BODY, rng.uniform(100, 300, FINE_BODY.shape), noise)
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    assert found[ball(FINE_BODY.shape, (32, 36, 40), 24)].all()
    assert not found[~ball(FINE_BODY.shape, (32, 36, 40), 27)].any()
