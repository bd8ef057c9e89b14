"""The synthesiser: the same seed gives the same scan, and scans look like what they claim to be."""

import numpy as np
import pytest
import torch

from napari_strata.errors import SettingsError
from napari_strata.synthesis.anatomy import TISSUE_NUMBER
from napari_strata.synthesis.fields import smooth_noise
from napari_strata.synthesis.samples import SAMPLES, make_sample
from napari_strata.synthesis.synthesiser import Synthesiser


@pytest.fixture(scope="module")
def head():
    maker = Synthesiser(shape=(64, 64, 56))
    return maker.make_whole(5, family="head", contrast="t1", spacing_mm=(3.4, 3.4, 3.4), center_mm=(0.0, 0.0, -12.0))


def test_the_same_seed_gives_the_same_scan_and_another_seed_another():
    maker = Synthesiser(shape=(24, 24, 24))
    first, again, other = maker.make(3), maker.make(3), maker.make(4)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.anatomy.structures, again.anatomy.structures)
    assert not torch.equal(first.image, other.image)


def test_scans_are_finite_and_hold_several_structures():
    maker = Synthesiser(shape=(32, 32, 32))
    counts = []
    for seed in range(12):
        scan = maker.make(seed)
        assert torch.isfinite(scan.image).all()
        counts.append(len(torch.unique(scan.anatomy.structures)))
    assert np.median(counts) >= 5


def test_a_head_has_its_tissues_in_t1_order(head):
    tissues = head.anatomy.tissues
    median = {name: float(head.image[tissues == TISSUE_NUMBER[name]].median()) for name in ("csf", "grey matter", "white matter", "fat")}
    assert median["csf"] < median["grey matter"] < median["white matter"]
    assert median["csf"] < median["fat"]


def test_a_head_stands_upright_in_memory_order(head):
    names = head.anatomy.names
    where = {
        name: torch.nonzero(head.anatomy.structures == names.index(name)).float().mean(0)
        for name in ("eyes", "cerebellum cortex", "cortex")
    }
    assert where["eyes"][1] < where["cerebellum cortex"][1]
    assert where["cerebellum cortex"][0] > where["cortex"][0]


def test_paired_structures_lie_on_both_sides(head):
    eyes = torch.nonzero(head.anatomy.structures == head.anatomy.names.index("eyes"))[:, 2]
    middle = head.image.shape[2] / 2
    assert (eyes < middle - 4).any()
    assert (eyes > middle + 4).any()


def test_the_liver_is_on_the_right_and_the_lungs_are_air_like():
    maker = Synthesiser(shape=(40, 40, 48))
    scan = maker.make_whole(2, family="torso", contrast="ct", spacing_mm=(9.0, 7.5, 7.5))
    names = scan.anatomy.names
    liver = torch.nonzero(scan.anatomy.structures == names.index("liver"))[:, 2].float().mean()
    assert liver < scan.image.shape[2] / 2
    assert float(scan.image[scan.anatomy.structures == names.index("lungs")].median()) < -500
    assert scan.is_ct


def test_smooth_noise_is_smooth_and_of_unit_size():
    generator = torch.Generator().manual_seed(0)
    noise = smooth_noise((40, 40, 40), (1.0, 1.0, 1.0), 12.0, generator)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)
    assert float((noise[1:] - noise[:-1]).abs().mean()) < 0.2


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_carry_truth_on_their_own_grid(name):
    volume, truth = make_sample(name)
    assert truth.labels.shape == volume.data.shape
    assert volume.data.dtype == np.int16
    assert len(truth.regions) > 8
    assert volume.modality == ("ct" if name == "chest_ct" else "mr")


def test_an_unknown_sample_is_a_clear_error():
    with pytest.raises(SettingsError, match="head_t1"):
        make_sample("foot")
