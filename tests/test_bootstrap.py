"""Bootstrapped anatomies: patches of real scans with their own regions as labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_strata.cli import main
from napari_strata.encoder.pretraining.bootstrap import (
    BootstrappedPatches,
    BootstrappedScan,
)
from napari_strata.encoder.pretraining.patches import make_batch
from napari_strata.errors import GeometryError, WeightsError
from napari_strata.synthesis.synthesiser import Synthesiser
from napari_strata.volume import Geometry, Volume


def volume_of(data: np.ndarray) -> Volume:
    return Volume(data, Geometry.from_spacing(data.shape, (1, 1, 1)), "mr")


@pytest.fixture(scope="module")
def scan() -> BootstrappedScan:
    """A bright ball in a grey block in air, labelled by its own intensity."""
    z, y, x = np.mgrid[:40, :44, :48]
    block = (np.abs(z - 20) < 15) & (np.abs(y - 22) < 17) & (np.abs(x - 24) < 19)
    ball = (z - 20) ** 2 + (y - 22) ** 2 + (x - 24) ** 2 < 100
    labels = block.astype(np.uint8) + ball
    data = np.array([0, 300, 900], np.float32)[labels]
    data += np.random.default_rng(0).normal(0, 8, data.shape).astype(np.float32) * block
    return BootstrappedScan.prepare(
        volume_of(data), labels, labels, [block.astype(np.uint8)]
    )


def test_labels_lie_where_the_intensity_says_at_any_place_size_and_warp(scan):
    patches = BootstrappedPatches([scan], own_intensity=1.0)
    synthesiser = Synthesiser((32, 32, 32))
    compared = 0
    for seed in range(8):
        views, own = patches.make_views(synthesiser, seed, 1)
        structures = views[0].anatomy.structures
        assert own[0].shape == structures.shape
        means = [own[0][structures == one].mean() for one in structures.unique()]
        if len(means) == 3:
            compared += 1
            assert means[0] < means[1] < means[2]
            assert means[2] - means[1] > 0.15
    assert compared >= 3


def test_a_batch_mixes_them_with_formula_anatomy_and_no_share_changes_nothing(scan):
    synthesiser = Synthesiser((16, 16, 16))
    patches = BootstrappedPatches([scan])
    plain = make_batch(synthesiser, [1, 2, 3, 4])
    same = make_batch(
        synthesiser, [1, 2, 3, 4], bootstrapped=patches, bootstrapped_share=0.0
    )
    assert torch.equal(plain.image, same.image)
    mixed = make_batch(
        synthesiser, list(range(12)), bootstrapped=patches, bootstrapped_share=0.5
    )
    again = make_batch(
        synthesiser, list(range(12)), bootstrapped=patches, bootstrapped_share=0.5
    )
    assert torch.equal(mixed.image, again.image), "a seed gives the same patches"
    formula = make_batch(synthesiser, list(range(12)))
    equal = [
        torch.equal(a, b)
        for a, b in zip(mixed.image[::2], formula.image[::2], strict=True)
    ]
    assert 0 < sum(equal) < 12
    assert float(mixed.image.min()) >= 0
    assert float(mixed.image.max()) <= 1


def test_it_is_stored_small_and_comes_back(scan, tmp_path):
    path = tmp_path / "scan.npz"
    scan.save(path)
    back = BootstrappedScan.load(path)
    assert torch.equal(back.structures, scan.structures)
    assert torch.equal(back.tissues, scan.tissues)
    assert np.array_equal(back.coarser, scan.coarser)
    assert torch.allclose(back.scan.intensity, scan.scan.intensity, atol=1e-5)
    assert back.scan.spacing_mm == scan.scan.spacing_mm
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match="Delete it"):
        BootstrappedScan.load(path)


def test_labels_of_another_shape_are_refused(scan):
    volume = volume_of(np.random.default_rng(0).random((20, 20, 20), np.float32))
    with pytest.raises(GeometryError, match="do not fit"):
        BootstrappedScan.prepare(
            volume, np.ones((9, 9, 9), np.uint8), np.ones((20, 20, 20), np.uint8)
        )


def test_the_command_pretrains_on_a_folder_of_scans_and_goes_on(tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    z, y, x = np.mgrid[:32, :32, :32]
    data = 400.0 * ((np.abs(z - 16) < 13) & (np.abs(y - 16) < 13))
    data += 500.0 * ((x - 16) ** 2 + (y - 16) ** 2 < 40) * (data > 0)
    data += np.random.default_rng(0).normal(0, 10, data.shape)
    nib.save(
        nib.Nifti1Image(data.astype(np.float32), np.diag([2, 2, 2, 1])),
        scans / "head.nii.gz",
    )
    output = tmp_path / "w.safetensors"
    command = ["pretrain", "-o", str(output), "--patch-vox", "16", "--batch", "2"]
    command += ["--width", "4", "--channels", "2", "--threads", "1", "--device", "cpu"]
    assert main([*command, "--scans", str(scans)]) == 2
    assert "belong together" in capsys.readouterr().err
    command += ["--bootstrapped-share", "1"]
    assert main([*command, "--steps", "1", "--scans", str(scans)]) == 0
    assert [path.name for path in (tmp_path / "w.anatomies").iterdir()] == ["head.npz"]
    assert main([*command, "--steps", "2", "--scans", str(scans)]) == 0
    (scans / "head.nii.gz").rename(scans / "other.nii.gz")
    assert main([*command, "--steps", "3", "--scans", str(scans)]) == 2
    assert "other scans" in capsys.readouterr().err
