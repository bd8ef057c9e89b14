"""Adapting the encoder to unlabelled scans.

Better weights are written with their story, worse ones never.
"""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from napari_strata.cli.command_line import main
from napari_strata.cli.terminal import line_ended, progress
from napari_strata.encoder.adapt import adapt, choose, go_back, reestimate
from napari_strata.encoder.checks import Figures, adjusted_rand, kmeans, logistic
from napari_strata.encoder.identity import weights_hash
from napari_strata.encoder.network import NetworkShape, StrataEncoder
from napari_strata.encoder.pretraining.patches import make_batch
from napari_strata.encoder.pretraining.real_patches import (
    WorkingScan,
    dress,
    match_intensity,
    real_views,
)
from napari_strata.encoder.weights import (
    load_encoder,
    write_weights,
)
from napari_strata.errors import (
    AdaptError,
    Cancelled,
    GeometryError,
    WeightsError,
    WriteError,
)
from napari_strata.io.files import write_scan
from napari_strata.settings import AdaptSettings
from napari_strata.synthesis.synthesiser import Synthesiser
from napari_strata.volume import Geometry, Volume
from phantoms import phantom_volume

TINY = {
    "minutes": 30.0,
    "steps": 2,
    "patch_vox": 16,
    "statistics_batches": 2,
    "most_fall": 1.0,
    "least_gain": -1.0,
}
RECIPE = {"step": 3, "without": "thick,inverted", "voxels_per_patch": 64}
GOOD = Figures(
    agreement=0.8, clusters=0.7, found_again=0.95, probe_alike=0.6, probe_known=0.7
)


@pytest.fixture(scope="module", autouse=True)
def fewer_checks():
    """What is asked here is the way.

    Fewer patches set aside for the checks show as well.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_strata.encoder.adapt._CHECKED_PAIRS", 2)
        patch.setattr("napari_strata.encoder.adapt._CHECKED_PATCHES", 2)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "parent.safetensors"
    write_weights(StrataEncoder(NetworkShape(width=4, channels=3)), path, RECIPE)
    return path


@pytest.fixture(scope="module")
def thick():
    return phantom_volume((12, 40, 40), (6.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def adapted(weights, thick, tmp_path_factory):
    """Give weights that were adapted in two steps, and the report."""
    output = tmp_path_factory.mktemp("adapted") / "mine.safetensors"
    return output, adapt(
        [thick],
        output,
        settings=AdaptSettings(**TINY),
        weights=weights,
        device="cpu",
        threads=1,
    )


def changed(figures, **values):
    return Figures(**{**figures.to_dict(), **values})


def test_adapting_writes_weights_that_load_and_tell_their_story(weights, adapted):
    output, report = adapted
    assert report.steps_done == 2
    assert report.after.to_dict() != report.before.to_dict()
    with safe_open(str(output), framework="pt") as store:
        recipe = json.loads(store.metadata()["recipe"])
    assert recipe["without"] == "thick,inverted"
    (story,) = recipe["adapted"]
    assert story["from_sha256"] == weights_hash(weights)
    assert story["figures"]["after"] == report.after.to_dict()
    assert "phantom" not in json.dumps(recipe)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert not torch.allclose(
            load_encoder(output)(image)[0], load_encoder(weights)(image)[0], atol=1e-3
        )


def test_adapting_twice_with_the_same_settings_gives_the_same_weights(
    weights, thick, adapted, tmp_path
):
    again = tmp_path / "again.safetensors"
    adapt(
        [thick],
        again,
        settings=AdaptSettings(**TINY),
        weights=weights,
        device="cpu",
        threads=1,
    )
    one, two = (
        load_encoder(path, fold=False).state_dict() for path in (adapted[0], again)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_weights_that_are_not_better_are_not_written(weights, thick, tmp_path):
    settings = AdaptSettings(**{**TINY, "least_gain": 1.0})
    with pytest.raises(AdaptError, match="nothing was written") as refused:
        adapt(
            [thick],
            tmp_path / "mine.safetensors",
            settings=settings,
            weights=weights,
            device="cpu",
        )
    assert "before" in refused.value.table
    assert list(tmp_path.iterdir()) == []


def test_the_candidate_that_gained_most_is_chosen():
    better, best = changed(GOOD, probe_alike=0.62), changed(GOOD, probe_alike=0.66)
    assert choose(GOOD, better, best, AdaptSettings()) == "steps"
    assert choose(GOOD, best, better, AdaptSettings()) == "statistics"
    assert choose(GOOD, better, None, AdaptSettings()) == "statistics"


@pytest.mark.parametrize(
    "worse",
    [
        {"probe_known": 0.68},
        {"found_again": 0.9},
        {"agreement": 0.7},
        {"clusters": 0.5},
    ],
)
def test_a_gain_is_refused_where_something_else_falls(worse):
    candidate = changed(GOOD, **{"probe_alike": 0.7, **worse})
    assert (
        choose(GOOD, changed(GOOD, probe_alike=0.62), candidate, AdaptSettings())
        == "statistics"
    )
    with pytest.raises(AdaptError):
        choose(GOOD, candidate, None, AdaptSettings())


def test_a_collapsed_encoder_is_refused():
    collapsed = Figures(
        agreement=1.0, clusters=1.0, found_again=0.5, probe_alike=0.3, probe_known=0.3
    )
    with pytest.raises(AdaptError):
        choose(GOOD, collapsed, collapsed, AdaptSettings())


def test_no_scans_an_existing_output_and_foreign_weights_are_clear_errors(
    weights, thick, tmp_path
):
    with pytest.raises(AdaptError, match="no scans"):
        adapt([], tmp_path / "mine.safetensors", weights=weights)
    with pytest.raises(WriteError, match="exists"):
        adapt([thick], weights, weights=weights)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match="cannot be read"):
        adapt([thick], tmp_path / "mine.safetensors", weights=foreign)


def test_a_scan_that_cannot_be_used_is_named(weights, tmp_path):
    speck = Volume(
        np.ones((8, 8, 8), np.float32),
        Geometry.from_spacing((8, 8, 8), (0.01, 0.01, 0.01)),
        "mr",
        name="speck",
    )
    with pytest.raises(GeometryError, match="speck"):
        adapt(
            [speck],
            tmp_path / "mine.safetensors",
            settings=AdaptSettings(**TINY),
            weights=weights,
            device="cpu",
        )


def test_adapting_stops_when_told_to(weights, thick, tmp_path):
    def stop(done, total, stage):
        if stage == "training":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        adapt(
            [thick],
            tmp_path / "mine.safetensors",
            settings=AdaptSettings(**TINY),
            weights=weights,
            device="cpu",
            on_progress=stop,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_adapts_or_refuses_with_one_line(weights, thick, tmp_path, capsys):
    scan = write_scan(
        Volume(thick.data, thick.geometry, "mr"), tmp_path / "scan.nii.gz"
    )
    flags = [f"--{name.replace('_', '-')}={value:g}" for name, value in TINY.items()]
    words = [
        "adapt",
        str(scan),
        "--weights",
        str(weights),
        "--threads",
        "1",
        "--quiet",
        *flags,
    ]
    assert main([*words, "-o", str(tmp_path / "mine.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "20-voxel probe" in said
    assert "mine.safetensors: " in said
    assert (
        main([*words, "--least-gain=1", "-o", str(tmp_path / "worse.safetensors")]) == 2
    )
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "worse.safetensors").exists()
    assert main([*words, "-o", str(tmp_path / "mine.nii.gz")]) == 2
    assert "safetensors" in capsys.readouterr().err
    assert (
        main(
            [
                "adapt",
                str(tmp_path / "none.nii.gz"),
                "-o",
                str(tmp_path / "other.safetensors"),
            ]
        )
        == 2
    )
    assert "none.nii.gz" in capsys.readouterr().err


def test_the_command_pretrains_by_a_recipe_whose_knobs_flags_change(tmp_path):
    output = tmp_path / "w.safetensors"
    flags = [
        "--steps",
        "1",
        "--batch",
        "1",
        "--patch-vox",
        "32",
        "--width",
        "4",
        "--channels",
        "3",
        "--workers",
        "0",
    ]
    assert (
        main(
            [
                "pretrain",
                "-o",
                str(output),
                "--recipe",
                "v1",
                "--device",
                "cpu",
                "--threads",
                "1",
                *flags,
            ]
        )
        == 0
    )
    with safe_open(str(output), framework="pt") as store:
        recipe = json.loads(store.metadata()["recipe"])
    assert recipe["step"] == 1
    assert recipe["learning_rate"] == 2e-3


def test_too_little_for_a_batch_norm_is_said_at_once(tmp_path, capsys):
    flags = ["--batch", "1", "--views", "1", "--patch-vox", "16"]
    assert main(["pretrain", "-o", str(tmp_path / "w.safetensors"), *flags]) == 2
    assert "too little" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_statistics_move_toward_those_of_the_patches():
    torch.manual_seed(0)
    encoder = StrataEncoder(NetworkShape(width=4, channels=3)).eval()
    norm = next(
        module
        for module in encoder.modules()
        if isinstance(module, torch.nn.BatchNorm3d)
    )
    patches = [torch.rand(2, 1, 16, 16, 16) for _ in range(2)]
    means = {}
    for share in (0.0, 0.5, 1.0):
        norm.running_mean.zero_()
        reestimate(encoder, patches, share)
        means[share] = norm.running_mean.clone()
    assert not means[0.0].any()
    assert torch.allclose(means[0.5], means[1.0] / 2)
    assert means[1.0].abs().max() > 1e-3
    assert not norm.training


def test_weights_go_part_of_the_way_back():
    torch.manual_seed(0)
    before, after = (StrataEncoder(NetworkShape(width=4, channels=3)) for _ in range(2))
    kept, moved = (
        before.heads[0].mix.weight.detach().clone(),
        after.heads[0].mix.weight.detach().clone(),
    )
    go_back(after, before, 0.25)
    assert torch.allclose(after.heads[0].mix.weight, 0.75 * moved + 0.25 * kept)
    assert torch.equal(before.heads[0].mix.weight, kept)


def test_patches_of_a_scan_lie_in_its_body_and_fit_the_encoder(thick):
    scan = WorkingScan.prepare(thick, 32)
    assert scan.thick_axis == 0
    assert scan.thickness == pytest.approx(2.0, rel=0.1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        patch = scan.patch(32, rng)
        assert all(n % 16 == 0 for n in patch.shape)
        assert float(patch.max()) > 0.3


def test_two_views_of_a_patch_differ_but_show_the_same(thick):
    views = real_views(WorkingScan.prepare(thick, 16), 16, seed=1)
    assert views.shape[:2] == (2, 1)
    assert not torch.equal(views[0], views[1])
    assert np.corrcoef(views[0].flatten(), views[1].flatten())[0, 1] > 0.8
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_a_dressed_patch_keeps_its_plain_view_and_its_truth(thick):
    batch = make_batch(Synthesiser(shape=(16, 16, 16)), [3])
    worn = dress(batch, WorkingScan.prepare(thick, 16), seed=0)
    assert torch.equal(worn.image[0], batch.image[0])
    assert not torch.equal(worn.image[1], batch.image[1])
    assert all(
        torch.equal(a, b) for a, b in zip(worn.labels, batch.labels, strict=True)
    )
    assert worn.clean_image_ids[0][0] != worn.clean_image_ids[0][1]


def test_brightness_is_laid_over_by_rank():
    image, like = (
        torch.linspace(0, 1, 512).reshape(8, 8, 8),
        torch.linspace(0.2, 0.4, 64).reshape(4, 4, 4),
    )
    forward, backward = (
        match_intensity(image, like),
        match_intensity(image, like, backward=True),
    )
    assert forward.min() == pytest.approx(0.2, abs=1e-3)
    assert forward.max() == pytest.approx(0.4, abs=1e-3)
    assert (torch.diff(forward.flatten()) >= 0).all()
    assert (torch.diff(backward.flatten()) <= 0).all()


def test_clusters_and_classes_are_found():
    torch.manual_seed(0)
    centers = 4 * torch.eye(3, 5)
    truth = torch.arange(3).repeat(40)
    rows = centers[truth] + 0.1 * torch.randn(120, 5)
    assert adjusted_rand(kmeans(rows, 3, seed=0), truth) == pytest.approx(1.0)
    assert adjusted_rand(truth, torch.randint(3, (120,))) < 0.2
    assert torch.equal(logistic(rows[:30], truth[:30], rows), truth)


@pytest.mark.parametrize("name", ["mine.toml", "bundle"])
def test_the_command_adapts_strata_weights_only(name, tmp_path, capsys):
    words = [
        "adapt",
        str(tmp_path / "scan.nii.gz"),
        "-o",
        str(tmp_path / "o.safetensors"),
        "--weights",
        str(tmp_path / name),
    ]
    assert main(words) == 2
    assert "Strata's own weights (.safetensors) only" in capsys.readouterr().err


def test_the_command_pretrains_into_a_new_file_of_weights_only(tmp_path, capsys):
    assert main(["pretrain", "-o", str(tmp_path / "w.pt")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
    kept = tmp_path / "w.safetensors"
    kept.write_bytes(b"precious")
    assert main(["pretrain", "-o", str(kept)]) == 2
    assert "Move it away" in capsys.readouterr().err
    assert kept.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "words", [["thick,inverted"], ["thick", "inverted"], ["thick, inverted"]]
)
def test_the_command_leaves_out_names_with_commas_or_spaces(words, tmp_path):
    output = tmp_path / "w.safetensors"
    flags = [
        "--steps",
        "1",
        "--batch",
        "1",
        "--patch-vox",
        "16",
        "--width",
        "4",
        "--channels",
        "3",
        "--minutes",
        "0",
    ]
    assert (
        main(
            [
                "pretrain",
                "-o",
                str(output),
                "--device",
                "cpu",
                "--threads",
                "1",
                *flags,
                "--without",
                *words,
            ]
        )
        == 0
    )
    with safe_open(str(output), framework="pt") as store:
        assert json.loads(store.metadata()["recipe"])["without"] == "thick,inverted"


@pytest.mark.parametrize(("quiet", "ending"), [(False, "\n"), (True, "")])
def test_the_line_of_progress_is_ended_on_a_terminal(
    quiet, ending, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with line_ended(progress(quiet), quiet=quiet) as show:
        show(1, 2, "training")
    said = capsys.readouterr().err
    assert said.endswith(ending)
    assert said.count("\n") == len(ending)
