"""Where the body is, and where its edge."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from napari_strata.pipeline import propose
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Geometry, Volume
from phantoms import ball


def volume_of(data, modality="mr", spacing=(2.0, 2.0, 2.0)):
    return Volume(data, Geometry.from_spacing(data.shape, spacing), modality)


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


BODY = ball((40, 44, 48), (20, 22, 24), 16)
FINE_BODY = ball((64, 72, 80), (32, 36, 40), 25)


def test_the_body_is_found_in_noisy_mr():
    rng = np.random.default_rng(0)
    data = np.abs(np.where(BODY, 300, 0) + rng.normal(0, 15, BODY.shape)).astype(
        np.float32
    )
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
    # the lung reaches the faces, and air is at the two others
    cropped = hu[:, 12:32, 14:34].astype(np.int16)
    assert overlap(body_mask(volume_of(cropped, "ct")), BODY[:, 12:32, 14:34]) > 0.97


def test_a_scan_without_background_is_all_body():
    data = np.random.default_rng(0).normal(500, 20, (16, 16, 16)).astype(np.float32)
    assert body_mask(volume_of(data)).mean() > 0.5


def test_a_body_of_dark_and_bright_tissue_that_fills_the_field_of_view_is_not_halved():
    rng = np.random.default_rng(1)
    dark = ball(BODY.shape, (20, 22, 24), 30) & ~BODY
    data = (
        np.where(BODY, 600, np.where(dark, 150, 0))
        + np.abs(rng.normal(0, 8, BODY.shape))
    ).astype(np.float32)
    # the only air is inside
    inner = np.where(ball(BODY.shape, (20, 22, 24), 5), 0, data)[6:-6, 6:-6, 6:-6]
    assert body_mask(volume_of(inner)).mean() > 0.95
    corner = data[:24, :30]  # air at two faces only
    assert overlap(body_mask(volume_of(corner)), (BODY | dark)[:24, :30]) > 0.95


def test_noise_that_is_cut_off_at_zero_is_not_taken_for_padding():
    rng = np.random.default_rng(0)
    data = np.maximum(rng.normal(0, 8, (40, 48, 48)), 0).round()
    data[8:32, 10:38, 10:38] += 300
    geometry = Geometry.from_spacing(data.shape, (1.0, 1.0, 1.0))
    inside = body_mask(Volume(data.astype(np.int16), geometry, "mr"))
    assert inside[12:28, 14:34, 14:34].all()
    assert not inside[:5].any()


def test_every_voxel_of_a_stripped_brain_counts_as_body_at_1_mm():
    rng = np.random.default_rng(0)
    for brain in (
        rng.uniform(150, 900, FINE_BODY.shape),
        rng.normal(0, 1, FINE_BODY.shape),
    ):
        data = np.where(FINE_BODY, brain, 0).astype(np.float32)
        assert np.array_equal(
            body_mask(volume_of(data, spacing=(1.0, 1.0, 1.0))), FINE_BODY
        )


def test_the_skin_of_a_ct_is_met_to_the_voxel_at_1_mm():
    hu = np.where(FINE_BODY, 40, -1000).astype(np.int16)
    assert (
        body_mask(volume_of(hu, "ct", spacing=(1.0, 1.0, 1.0))) != FINE_BODY
    ).sum() < 0.002 * FINE_BODY.sum()


def test_the_skin_of_a_noisy_mr_is_met_within_a_voxel_at_1_mm():
    rng = np.random.default_rng(0)
    data = np.hypot(
        np.where(FINE_BODY, 300, 0) + rng.normal(0, 10, FINE_BODY.shape),
        rng.normal(0, 10, FINE_BODY.shape),
    )
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    near = [ball(FINE_BODY.shape, (32, 36, 40), 25 + off) for off in (-1.5, 1.5)]
    assert found[near[0]].all()
    assert (found & ~near[1]).sum() < 0.01 * FINE_BODY.sum()


def test_faint_noise_that_fades_from_a_head_into_padding_is_not_body():
    rng = np.random.default_rng(0)
    away = distance_transform_edt(~FINE_BODY)
    halo = np.where(away <= 5, 12 * np.exp(-away / 1.5), 0)
    data = np.where(FINE_BODY, rng.uniform(100, 300, FINE_BODY.shape), halo)
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    assert found[ball(FINE_BODY.shape, (32, 36, 40), 24)].all()
    assert not found[~ball(FINE_BODY.shape, (32, 36, 40), 26.5)].any()


def test_air_with_remains_of_noise_in_it_is_not_taken_for_padding():
    rng = np.random.default_rng(0)
    # nine in ten are cut off at zero
    noise = np.maximum(rng.normal(-12, 10, FINE_BODY.shape), 0).round()
    data = np.where(FINE_BODY, rng.uniform(100, 300, FINE_BODY.shape), noise)
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    assert found[ball(FINE_BODY.shape, (32, 36, 40), 24)].all()
    assert not found[~ball(FINE_BODY.shape, (32, 36, 40), 27)].any()


def shell(outer, inner):
    return ball(FINE_BODY.shape, (32, 36, 40), outer) & ~ball(
        FINE_BODY.shape, (32, 36, 40), inner
    )


def test_a_dark_rim_of_a_stripped_brain_stays_body():
    rng = np.random.default_rng(0)
    brain = np.where(
        shell(26, 22),
        rng.normal(8, 2, FINE_BODY.shape),
        rng.normal(300, 60, FINE_BODY.shape),
    ).clip(1)
    data = np.where(FINE_BODY, brain, 0).round().astype(np.int16)
    assert np.array_equal(
        body_mask(volume_of(data, spacing=(1.0, 1.0, 1.0))), FINE_BODY
    )


def test_a_few_specks_beside_a_z_scored_brain_do_not_make_everything_body():
    rng = np.random.default_rng(0)
    specks = np.where(
        rng.random(FINE_BODY.shape) < 0.005, rng.normal(0, 1, FINE_BODY.shape), 0
    )
    data = np.where(FINE_BODY, rng.normal(0, 1, FINE_BODY.shape), specks).astype(
        np.float32
    )
    assert (
        overlap(body_mask(volume_of(data, spacing=(1.0, 1.0, 1.0))), FINE_BODY) > 0.98
    )


def test_dark_bone_under_a_thin_scalp_is_no_hole_in_the_body():
    rng = np.random.default_rng(0)
    tissue = np.select([shell(26, 22), shell(22, 17)], [500, 15], 200)
    data = np.hypot(
        np.where(FINE_BODY, tissue, 0) + rng.normal(0, 8, FINE_BODY.shape),
        rng.normal(0, 8, FINE_BODY.shape),
    )
    found = body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0)))
    assert found[ball(FINE_BODY.shape, (32, 36, 40), 24)].all()
    assert overlap(found, FINE_BODY) > 0.97


def test_dim_skin_beside_bright_fat_is_body():
    rng = np.random.default_rng(0)
    data = np.where(FINE_BODY, np.where(shell(26, 22), 60, 300), 0) + np.abs(
        rng.normal(0, 8, FINE_BODY.shape)
    )
    assert (
        overlap(
            body_mask(volume_of(data.astype(np.float32), spacing=(1.0, 1.0, 1.0))),
            FINE_BODY,
        )
        > 0.96
    )


@pytest.mark.parametrize("air", [-1000, -900, -500])
def test_air_that_is_not_as_thin_as_it_should_be_is_no_lung(air):
    hu = np.where(FINE_BODY, 40, air) + np.random.default_rng(0).normal(
        0, 12, FINE_BODY.shape
    )
    assert (
        overlap(
            body_mask(volume_of(hu.astype(np.int16), "ct", spacing=(1.0, 1.0, 1.0))),
            FINE_BODY,
        )
        > 0.98
    )


def test_the_foam_in_a_table_is_no_lung():
    hu = np.where(FINE_BODY, 40, -1000) + np.random.default_rng(0).normal(
        0, 12, FINE_BODY.shape
    )
    hu[:, 63:72], hu[:, 64:71] = 0, -930
    assert (
        overlap(
            body_mask(volume_of(hu.astype(np.int16), "ct", spacing=(1.0, 1.0, 1.0))),
            FINE_BODY,
        )
        > 0.98
    )


def test_a_mouse_on_padding_is_met():
    tiny = ball((12, 12, 12), (6, 6, 6), 4)
    data = np.where(tiny, 200.0, 0.0).astype(np.float32)
    assert overlap(body_mask(volume_of(data, spacing=(0.5, 0.5, 0.5))), tiny) > 0.95


@pytest.mark.parametrize("times", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_a_small_body_is_found_as_a_persons_is(modality, times):
    noise = np.random.default_rng(2).normal(0, 10, BODY.shape)
    data = (
        np.abs(np.where(BODY, 300, 0) + noise)
        if modality == "mr"
        else np.where(BODY, 40, -1000) + noise
    )
    person = body_mask(
        volume_of(data.astype(np.float32), modality, spacing=(1.0, 1.0, 1.0))
    )
    small = volume_of(data.astype(np.float32), modality, spacing=(times, times, times))
    assert np.array_equal(body_mask(small), person)
    seen, by = magnified(small, person)
    assert by == pytest.approx(1 / times)
    assert np.allclose(seen.spacing_zyx_mm, 1.0)


def test_a_person_is_never_magnified():
    wide = Volume(
        np.zeros((60, 130, 130), np.float32),
        Geometry.from_spacing((60, 130, 130), (0.5, 0.5, 0.5)),
    )
    assert magnified(wide, np.ones(wide.data.shape, bool)) == (wide, 1.0)


def test_a_proposal_of_an_embryo_is_that_of_a_person_and_keeps_its_true_size():
    data = np.where(BODY, 300, 0) + np.random.default_rng(3).normal(0, 15, BODY.shape)
    data[ball(BODY.shape, (20, 22, 24), 8)] += 300
    settings = ProposeSettings(method="gmm-mrf", supervoxels=1000)
    person, embryo = (
        propose(
            volume_of(data.astype(np.float32), spacing=(mm, mm, mm)), settings=settings
        )
        for mm in (1.0, 0.02)
    )
    assert np.array_equal(person.tissues(3).labels, embryo.tissues(3).labels)
    assert np.allclose(embryo.tissues(3).geometry.spacing_zyx_mm, 0.02)
    assert embryo.magnification == pytest.approx(50)
    places = [name.startswith("position") for name in embryo.descriptor_names]
    assert np.allclose(
        embryo.descriptor_scale[:, places] * 50,
        person.descriptor_scale[:, places],
        rtol=1e-4,
    )
