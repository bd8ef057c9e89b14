"""Proposals without an encoder.

A mixture of classes, a Markov random field, and everything that a proposal has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

import napari_strata as strata
from napari_strata import settings
from napari_strata.cli.command_line import main
from napari_strata.errors import Cancelled, GeometryError, SettingsError
from napari_strata.io.files import write_scan
from napari_strata.measure import compare
from napari_strata.method_names import MethodName
from napari_strata.proposal.methods import gmm_mrf as classical
from napari_strata.proposal.methods.gmm_mrf import (
    MarkovField,
    Mixture,
    class_confidence,
    class_tree,
    fit_mixture,
    propose_classes,
)
from napari_strata.proposal.methods.registry import METHODS, find_method
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Geometry, Segmentation, Volume, default_regions
from phantoms import INTENSITIES, phantom_truth, phantom_volume

SHAPE, SPACING = (32, 40, 48), (3.0, 1.5, 2.0)
SETTINGS = strata.ProposeSettings(method="gmm-mrf", supervoxels=1500)
TRUTH = phantom_truth(SHAPE)


def noisy(sd: float, seed: int = 0) -> Volume:
    data = np.array(INTENSITIES)[TRUTH] + np.random.default_rng(seed).normal(
        0, sd, SHAPE
    )
    return Volume(
        data.astype(np.float32),
        Geometry.from_spacing(SHAPE, SPACING),
        "mr",
        name="phantom",
    )


@pytest.fixture(scope="module")
def volume() -> Volume:
    return noisy(40)


@pytest.fixture(scope="module")
def proposal(volume):
    return strata.propose(volume, settings=SETTINGS, seed=1, threads=1)


def agreement(segmentation: Segmentation) -> float:
    return compare(
        segmentation,
        Segmentation(TRUTH, default_regions(range(1, 6)), segmentation.geometry),
    ).many_to_one_mean


def test_a_mixture_finds_how_many_classes_there_are_and_where():
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            rng.normal(mean, 0.03, n)
            for mean, n in ((0.7, 30_000), (0.2, 10_000), (0.45, 4_000))
        ]
    )
    mixture = fit_mixture(values.astype(np.float32), most=16, seed=0)
    assert mixture.means == pytest.approx([0.2, 0.45, 0.7], abs=0.01)
    assert np.sqrt(mixture.variances) == pytest.approx([0.03] * 3, abs=0.005)
    assert mixture.shares == pytest.approx([10 / 44, 4 / 44, 30 / 44], abs=0.01)
    assert fit_mixture(values.astype(np.float32), most=2, seed=0).n_classes == 2


def test_one_value_everywhere_is_one_class():
    assert fit_mixture(np.full(100, 0.5, np.float32), most=16, seed=0).n_classes == 1


def two_classes(sd: float = 0.2) -> Mixture:
    return Mixture(np.array([0.3, 0.7]), np.full(2, sd**2), np.full(2, 0.5))


def test_the_field_removes_noise_that_voxels_alone_cannot_tell_from_tissue():
    truth = np.zeros((20, 24, 28), np.uint8)
    truth[:, 6:18, 8:20] = 1
    intensity = (
        0.3 + 0.4 * truth + np.random.default_rng(0).normal(0, 0.2, truth.shape)
    ).astype(np.float32)
    found = MarkovField(two_classes(), np.array([1.0, 1.0, 1.0])).classify(
        intensity, np.ones(truth.shape, bool)
    )
    assert ((intensity > 0.5) == truth).mean() < 0.86
    assert (found == truth).mean() > 0.97


def test_thick_slices_hold_together_less_than_voxels_within_one():
    intensity = np.full((7, 9, 9), 0.3, np.float32)
    intensity[3] = 0.6  # one slice is a bit more like the other class

    def share_kept(thickness_mm):
        field = MarkovField(two_classes(), np.array([thickness_mm, 1.0, 1.0]))
        return field.classify(intensity, np.ones(intensity.shape, bool))[3].mean()

    assert share_kept(0.25) == 0
    assert share_kept(5.0) == 1


def test_slabs_change_nothing(monkeypatch):
    intensity = np.random.default_rng(0).random((25, 12, 14)).astype(np.float32)
    inside = np.random.default_rng(1).random(intensity.shape) > 0.2
    field = MarkovField(two_classes(), np.array([2.0, 1.0, 1.0]))
    labels = np.where(inside, np.arange(25)[:, None, None], -1).astype(np.int32)
    codes = field.classify(intensity, inside)
    belief = field.pool(intensity, codes, labels, 25)
    monkeypatch.setattr(classical, "_SLAB_VALUES", 3 * 12 * 14 * 2)
    assert np.array_equal(field.classify(intensity, inside), codes)
    assert np.allclose(field.pool(intensity, codes, labels, 25), belief, atol=1e-6)
    assert belief.sum(axis=1) == pytest.approx(np.ones(25), abs=1e-5)


def test_classes_are_whole_before_any_two_merge():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2, 3], 50)
    intensity = (
        np.array([0.1, 0.5, 0.55, 0.9])[classes] + rng.normal(0, 0.02, 200)
    ).astype(np.float32)
    tree = class_tree(
        classes,
        intensity,
        rng.integers(1, 2000, 200),
        np.empty((0, 2), np.int32),
        np.zeros(200, bool),
    )
    assert len(np.unique(np.stack([tree.cut(4), classes]), axis=1).T) == 4
    three = tree.cut(3)
    assert set(three[classes == 1]) == set(three[classes == 2])
    assert len(np.unique(three)) == 3


@pytest.mark.parametrize("n", [1, 2, 5, 16, 60, 200])
def test_a_cut_gives_exactly_as_many_regions_as_asked(proposal, n):
    for segmentation in (proposal.tissues(n), proposal.regions(n)):
        assert set(np.unique(segmentation.labels)) == set(range(n + 1))


def test_finer_cuts_lie_inside_coarser_ones(proposal):
    for tree in (proposal.region_tree, proposal.tissue_tree):
        for coarse, fine in ((2, 5), (5, 9), (9, 40)):
            pairs = np.unique(np.stack([tree.cut(fine), tree.cut(coarse)]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_tissues_of_a_phantom_are_found(proposal):
    assert agreement(proposal.tissues(8)) > 0.95
    assert agreement(proposal.tissues(16)) > 0.95


def test_supervoxels_and_regions_are_connected(proposal):
    numbers = np.unique(proposal.supervoxels)
    assert np.array_equal(numbers, np.arange(proposal.n_supervoxels))
    everywhere = np.ones((3, 3, 3))
    body = proposal.region_tree.cut(1) > 0
    for number in np.flatnonzero(body):
        assert ndimage.label(proposal.supervoxels == number, everywhere)[1] == 1
    for number in range(1, 13):
        assert ndimage.label(proposal.regions(12).labels == number, everywhere)[1] == 1


def test_air_is_region_0(proposal):
    assert (proposal.tissues(8).labels[TRUTH == 0] == 0).mean() > 0.85
    assert (proposal.tissues(8).labels[TRUTH > 0] > 0).mean() > 0.95


def test_the_same_seed_gives_the_same_labels(volume, proposal):
    again = strata.propose(volume, settings=SETTINGS, seed=1, threads=1)
    assert np.array_equal(proposal.supervoxels, again.supervoxels)
    assert np.array_equal(proposal.tissues(12).labels, again.tissues(12).labels)
    assert np.array_equal(proposal.regions(40).labels, again.regions(40).labels)
    assert np.array_equal(proposal.confidence, again.confidence)


def test_confidence_is_a_share_and_lower_where_classes_are_near(proposal):
    assert 0 <= proposal.confidence.min() <= proposal.confidence.max() <= 1
    classes, nobody = np.repeat([0, 1, 2], 20), np.zeros(60, bool)
    tree = class_tree(
        classes,
        np.array([0.1, 0.5, 0.6], np.float32)[classes],
        np.ones(60, int),
        np.empty((0, 2), np.int32),
        nobody,
    )
    clear, doubtful = (
        np.eye(3, dtype=np.float32)[classes],
        np.full((60, 3), 0.2, np.float32),
    )
    doubtful[np.arange(60), classes] = 0.6
    assert class_confidence(clear, tree) == pytest.approx(np.ones(60))
    assert class_confidence(doubtful, tree) == pytest.approx(np.full(60, 0.4))


def test_descriptors_are_brightness_and_position_only(proposal):
    assert {name.split()[0] for name in proposal.descriptor_names} == {
        "brightness",
        "boundary",
        "position",
    }
    assert proposal.descriptors.shape == (
        proposal.n_supervoxels,
        len(proposal.descriptor_names),
    )
    assert np.isfinite(proposal.descriptors).all()


def test_provenance_says_that_there_was_no_encoder(proposal):
    record = proposal.provenance
    assert record["weights_sha256"] is None
    assert record["encoder"] == {"network": "none"}
    assert record["settings"]["method"] == "gmm-mrf"
    assert record["run"]["seed"] == 1
    assert {"prepare", "build"} <= set(record["seconds"])
    assert sum(row["share"] for row in record["mixture"]) == pytest.approx(1, abs=0.01)


def test_an_encoder_is_refused_with_advice(volume, tmp_path):
    with pytest.raises(
        SettingsError, match=r"Leave --encoder out, or take --method strata"
    ):
        strata.propose(volume, settings=SETTINGS, weights=tmp_path / "some.safetensors")


def test_a_scan_of_nothing_is_a_clear_error(volume):
    nothing = np.zeros(SHAPE, bool)
    with pytest.raises(GeometryError, match="holds no body"):
        propose_classes(volume, nothing, np.zeros(SHAPE, np.float32), SETTINGS, seed=0)


def test_it_can_be_cancelled_at_every_stage():
    volume = phantom_volume((16, 20, 24), (3.0, 1.5, 2.0))
    stages, few = [], replace(SETTINGS, mixture_classes=3, supervoxels=300)
    strata.propose(
        volume,
        settings=few,
        on_progress=lambda done, total, stage: stages.append(stage),
    )
    assert stages[-1] == "done"
    for wanted in set(stages):

        def stop(done, total, stage, wanted=wanted):
            if stage == wanted:
                raise Cancelled("stopped")

        with pytest.raises(Cancelled):
            strata.propose(volume, settings=few, on_progress=stop)


@pytest.mark.parametrize("shape", [(2, 40, 40), (1, 30, 30), (17, 16, 5)])
def test_slabs_and_slivers_work(shape):
    data = np.random.default_rng(0).integers(1, 1000, shape).astype(np.int16)
    volume = Volume(data, Geometry.from_spacing(shape, (5.0, 1.0, 1.0)), "mr")
    proposal = strata.propose(volume, settings=SETTINGS)
    for segmentation in (proposal.tissues(3), proposal.regions(3)):
        assert segmentation.labels.shape == shape
        assert len(segmentation.regions) == 3


def test_two_values_are_two_tissues():
    bright = np.indices((16, 18, 20))[2] > 7
    volume = Volume(
        np.where(bright, 60, -80).astype(np.int16),
        Geometry.from_spacing(bright.shape, (5.0, 1.0, 1.0)),
        "ct",
    )
    proposal = strata.propose(volume, settings=SETTINGS)
    labels = proposal.tissues(2).labels
    assert len(np.unique(labels[bright])) == len(np.unique(labels[~bright])) == 1
    assert len(np.unique(labels)) == 2


def test_ct_works():
    volume = replace(noisy(20), modality="ct")
    hu = replace(
        volume,
        data=(
            np.array((-1000, -80, 20, 60, 200, 700))[TRUTH] + volume.data * 0.02
        ).astype(np.int16),
    )
    assert agreement(strata.propose(hu, settings=SETTINGS).tissues(8)) > 0.85


def test_a_case_of_it_can_be_kept_taught_and_opened(proposal, volume, tmp_path):
    work = Refinement(proposal, tissues=8)
    deep = np.unravel_index(ndimage.distance_transform_edt(TRUTH == 2).argmax(), SHAPE)
    before = work.labels.copy()
    work.scribble(np.array([deep]), region=50)
    assert not np.array_equal(work.labels, before)
    work.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata", volume=volume)
    assert np.array_equal(again.labels, work.labels)
    assert again.proposal.provenance["weights_sha256"] is None


def test_the_command_writes_labels_without_loading_torch(tmp_path):
    scan = write_scan(
        phantom_volume((16, 20, 24), (3.0, 1.5, 2.0)), tmp_path / "scan.nii.gz"
    )
    words = [
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "labels.nii.gz"),
        "--tissues",
        "7",
        "--method",
        "gmm-mrf",
        "--quiet",
    ]
    words += ["--case", str(tmp_path / "case.strata"), "--supervoxels", "800"]
    script = (
        f"import sys, napari_strata.cli.command_line as cli\nassert cli.main({words!r})"
        " == 0\nprint([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert run.stdout.splitlines()[-1] == "[]"
    assert set(np.unique(strata.read_labels(tmp_path / "labels.nii.gz").labels)) == set(
        range(8)
    )
    sidecar = json.loads((tmp_path / "labels.json").read_text())
    assert sidecar["weights_sha256"] is None
    assert sidecar["settings"]["method"] == "gmm-mrf"


def test_the_command_refuses_an_encoder(volume, tmp_path, capsys):
    scan = write_scan(volume, tmp_path / "scan.nii.gz")
    words = [
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "labels.nii.gz"),
        "--tissues",
        "7",
        "--method",
        "gmm-mrf",
        "--quiet",
    ]
    assert main([*words, "--encoder", str(tmp_path / "w.safetensors")]) == 2
    assert "Leave --encoder out" in capsys.readouterr().err
    assert not (tmp_path / "labels.nii.gz").exists()


def test_tissues_of_the_mni152_brain_are_found(tmp_path):
    datasets = pytest.importorskip("nilearn.datasets")
    found = {}
    for name in ("template", "brain_mask", "gm_template", "wm_template"):
        getattr(datasets, f"load_mni152_{name}")(resolution=2).to_filename(
            tmp_path / f"{name}.nii.gz"
        )
        found[name] = strata.read(tmp_path / f"{name}.nii.gz")
    brain, grey, white = (
        found[name].data / float(found[name].data.max())
        for name in ("brain_mask", "gm_template", "wm_template")
    )
    labels = np.where(
        brain > 0,
        1 + np.stack([np.clip(1 - grey - white, 0, 1), grey, white]).argmax(axis=0),
        0,
    ).astype(np.uint8)
    labels[ndimage.distance_transform_edt(brain == 0, sampling=2.0) > 3] = 255
    reference = Segmentation(
        labels, default_regions((1, 2, 3, 255)), found["template"].geometry
    )
    proposal = strata.propose(
        found["template"], settings=strata.ProposeSettings(method="gmm-mrf")
    )
    assert (
        compare(
            proposal.tissues(16), reference, ignore=(0,), other=(255,)
        ).many_to_one_mean
        > 0.87
    )


def test_settings_name_the_methods_of_the_registry():
    names = tuple(method.name for method in METHODS)
    assert get_args(MethodName) == names
    assert settings.MethodName is MethodName
    assert [find_method(name).name for name in names] == list(names)
    with pytest.raises(SettingsError, match="strata, gmm-mrf"):
        find_method("k-means")
