"""Each fault of a scanner does what it says, and can be left out."""

import pytest
import torch

from napari_strata.synthesis import artefacts
from napari_strata.synthesis.appearance import Rendering
from napari_strata.synthesis.fields import make_grid


def grid_of(seed=0, shape=(24, 32, 28)):
    return make_grid(
        shape, (1.5, 1.5, 1.5), (0.0, 0.0, 0.0), torch.Generator().manual_seed(seed)
    )


@pytest.fixture
def ball():
    grid = grid_of()
    return (grid.ellipsoid((0, 0, 0), (15, 15, 15), whole=True) < 1.0).float()


def test_thick_slices_blur_one_axis_only(ball):
    thick = artefacts.thicken(ball, axis=0, factor=6)
    assert thick.shape == ball.shape
    steps = [float(thick.diff(dim=axis).abs().max()) for axis in (0, 1, 2)]
    assert steps[0] < 0.5 * min(steps[1:])
    assert float(thick.mean()) == pytest.approx(float(ball.mean()), rel=0.05)


def test_thick_slices_leave_a_block_alone_that_has_too_few(ball):
    assert torch.equal(artefacts.thicken(ball[:6], axis=0, factor=8), ball[:6])


def test_jumps_change_whole_slices(ball):
    jumped = artefacts.slice_jumps(
        torch.ones_like(ball), grid_of(), axis=0, strength=0.1
    )
    assert float(jumped.std(dim=(1, 2)).max()) < 1e-6
    assert float(jumped[:, 0, 0].std()) > 0.03


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6])
def test_bias_stays_within_its_strength_and_is_smooth(strength):
    grid = make_grid(
        (40, 40, 40), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0), torch.Generator().manual_seed(3)
    )
    field = artefacts.bias_field(grid, strength=strength)
    assert float(field.min()) >= 1 - strength - 1e-6
    assert float(field.max()) <= 1 + strength + 1e-6
    assert float(field.diff(dim=0).abs().max()) <= 0.4 * strength + 1e-6


def test_gamma_keeps_the_ends_and_bends_the_middle():
    bent = artefacts.gamma(torch.tensor([-0.1, 0.0, 0.5, 1.0]), 1.5)
    assert bent.tolist() == pytest.approx([0.0, 0.0, 0.5**1.5, 1.0])


def test_rician_noise_lifts_the_dark_and_has_its_sigma_in_the_bright():
    grid = grid_of(1, (32, 32, 32))
    dark = artefacts.rician(torch.zeros(grid.shape), grid, sigma=0.05)
    bright = artefacts.rician(torch.ones(grid.shape), grid, sigma=0.05)
    assert float(dark.min()) >= 0
    assert float(dark.mean()) == pytest.approx(0.05 * (torch.pi / 2) ** 0.5, rel=0.03)
    assert float(bright.std()) == pytest.approx(0.05, rel=0.05)


def test_counting_noise_grows_with_the_signal():
    grid = grid_of(2, (32, 32, 32))
    spread = [
        float(
            (
                artefacts.counting_noise(
                    torch.full(grid.shape, level), grid, sigma=0.05
                )
                - level
            ).std()
        )
        for level in (0.125, 0.5)
    ]
    assert spread[1] == pytest.approx(0.05, rel=0.05)
    assert spread[1] == pytest.approx(2 * spread[0], rel=0.06)


def test_ct_noise_has_its_sigma_in_hu():
    grid = grid_of(2, (32, 32, 32))
    noise = artefacts.ct_noise(torch.full(grid.shape, 40.0), grid, sigma_hu=15.0)
    assert float(noise.std()) == pytest.approx(15.0, rel=0.02)
    assert float(noise.mean()) == pytest.approx(40.0, abs=1.0)


def test_ringing_swings_past_an_edge(ball):
    rung = artefacts.ringing(ball, keep=0.6)
    assert float(rung.max()) > 1.03
    assert float(rung.min()) < -0.03
    assert float(rung.sum()) == pytest.approx(float(ball.sum()), rel=1e-3)


def test_motion_leaves_a_ghost_outside_the_body(ball):
    moved = artefacts.motion(ball, grid_of(4))
    assert float(moved[ball == 0].abs().max()) > 0.01
    assert moved.shape == ball.shape


def test_metal_gives_bright_and_dark_rays_around_dense_tissue_only(ball):
    streaks = artefacts.metal_streaks(ball * 900.0, grid_of(5))
    assert float(streaks.max()) > 100
    assert float(streaks.min()) < -30
    assert not artefacts.metal_streaks(ball * 100.0, grid_of(5)).any()


def test_a_narrow_window_clips_air_and_bone():
    hu = torch.tensor([-1000.0, 40.0, 1500.0])
    clipped = artefacts.soft_window(hu, grid_of(6))
    assert -250 < clipped[0] < clipped[1] == 40.0 < clipped[2] < 400


def test_the_edge_of_a_scan_cuts_whole_sides_off():
    for seed in range(8):
        inside = artefacts.edge_of_scan(grid_of(seed))
        share = float(inside.float().mean())
        assert 0.2 < share < 1.0
        found = torch.nonzero(inside)
        low, high = found.amin(0), found.amax(0) + 1
        assert int(inside.sum()) == int((high - low).prod())


@pytest.mark.parametrize("contrast", ["t1", "ct"])
def test_without_faults_nothing_changes(ball, contrast):
    clean = Rendering(ball, contrast)
    for seed in range(5):
        assert torch.equal(
            artefacts.degrade(
                clean, grid_of(seed), without=frozenset(artefacts.FAULTS)
            ),
            ball,
        )


def test_a_fault_that_is_left_out_does_not_happen(ball):
    clean = Rendering(ball, "t1")
    others = frozenset(artefacts.FAULTS) - {"bias"}
    biased = [
        artefacts.degrade(clean, grid_of(seed), without=others) for seed in range(20)
    ]
    changed = sum(not torch.equal(image, ball) for image in biased)
    assert 12 <= changed <= 20
    assert all((image[ball == 0] == 0).all() for image in biased)
