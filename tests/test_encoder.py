"""The encoder: what ships runs, tiles agree with the whole, pretraining learns.

Stops and goes on.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from napari_strata.encoder.embed import CODES, embed, embed_intensity, intensity_codes
from napari_strata.encoder.identity import SHIPPED, read_recipe, weights_hash
from napari_strata.encoder.network import NetworkShape, StrataEncoder, fold_norms
from napari_strata.encoder.pretraining.patches import KINDS, make_batch
from napari_strata.encoder.pretraining.pretrain import pretrain
from napari_strata.encoder.pretraining.tasks import (
    Batch,
    TissuePrototypes,
    hide,
    pretext_loss,
    read_at,
    region_contrast,
    sample_voxels,
    voxel_contrast,
)
from napari_strata.encoder.weights import (
    load_encoder,
    write_weights,
)
from napari_strata.errors import Cancelled, WeightsError
from napari_strata.preprocess.intensity import WorkingGrid
from napari_strata.settings import PretrainSettings, ProposeSettings
from napari_strata.synthesis.synthesiser import Synthesiser
from phantoms import phantom_volume

TINY = PretrainSettings(steps=4, batch=2, patch_vox=16, voxels_per_patch=64)


@pytest.fixture(scope="module")
def volume():
    return phantom_volume((40, 44, 48), (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def features(volume):
    return embed(volume, device="cpu")


def test_shipped_weights_are_small_and_say_how_they_were_made():
    assert SHIPPED.stat().st_size < 20e6
    with safe_open(str(SHIPPED), framework="pt") as store:
        recipe = json.loads(store.metadata()["recipe"])
    assert recipe["step"] >= 1
    assert (SHIPPED.parent / "MODEL_CARD.md").is_file()


def test_features_lie_on_the_scan_and_are_of_unit_length(volume, features):
    on_scan = features.on(volume).data
    assert (
        on_scan.shape == (features.n_channels, *volume.data.shape) == (56, 40, 44, 48)
    )
    body = features.grid.box
    assert np.linalg.norm(features.at_level(0), axis=-1) == pytest.approx(1.0, abs=1e-3)
    assert features.data.shape == (56, *features.grid.shape_zyx)
    outside = np.ones(volume.data.shape, bool)
    outside[body] = False
    assert not on_scan[:, outside].any()


def test_features_of_a_box_equal_the_whole_there(volume, features):
    box = (slice(10, 20), slice(12, 30), slice(5, 9))
    assert features.on(volume, box).data == pytest.approx(
        features.on(volume).data[(slice(None), *box)], abs=1e-5
    )


def test_tiles_agree_with_the_whole(monkeypatch):
    volume = phantom_volume((240, 40, 40), (2.0, 2.0, 2.0))
    whole = embed(volume, runtime="torch")
    monkeypatch.setattr(
        "napari_strata.encoder.runtime.torch_runtime._LIVE_CHANNELS", 300
    )
    stages = []
    tiled = embed(
        volume,
        runtime="torch",
        settings=ProposeSettings(memory_gb=0.5),
        on_progress=lambda done, total, stage: stages.append(total),
    )
    assert stages[-1] > 1
    for a, b in zip(whole.levels, tiled.levels, strict=True):
        assert float((a * b).sum(-1).min()) > 0.9
        assert float((a * b).sum(-1).mean()) > 0.999


@pytest.mark.parametrize("shape", [(188, 202, 158), (181, 181, 183), (97, 353, 175)])
def test_the_default_grid_is_seen_in_one_pass(shape):
    class Glance:
        strides, channels, multiple_of, halo_vox = (1,), (1,), 16, 64

        live_channels = 68

        def encode(self, image):
            return (image[..., None],)

    assert np.prod(shape) <= 1.001e6 * ProposeSettings().working_mvox
    grid, passes = (
        WorkingGrid(tuple(slice(0, n) for n in shape), shape, (1.0, 1.0, 1.0)),
        [],
    )
    intensity = np.zeros(shape, np.float32)
    embed_intensity(
        intensity,
        grid,
        Glance(),
        settings=ProposeSettings(),
        on_progress=lambda done, total, stage: passes.append(total),
    )
    assert passes[0] == 1


def test_embedding_the_same_scan_twice_gives_the_same_features(volume, features):
    again = embed(volume, device="cpu")
    assert all(
        np.array_equal(a, b) for a, b in zip(features.levels, again.levels, strict=True)
    )


def test_embedding_stops_when_told_to(volume):
    def stop(done, total, stage):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        embed(volume, on_progress=stop)


def test_contrast_is_low_when_labels_agree_with_features():
    features = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=1
    )
    right, wrong = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert voxel_contrast(features, right, 0.15) < voxel_contrast(features, wrong, 0.15)


def test_voxels_are_sampled_evenly_over_labels():
    labels = torch.zeros(20, 20, 20, dtype=torch.long)
    labels[:3], labels[3, :5] = 1, 2
    index = sample_voxels(
        labels,
        torch.ones_like(labels, dtype=torch.bool),
        90,
        torch.Generator().manual_seed(0),
    )
    assert torch.bincount(labels.flatten()[index]).tolist() == [30, 30, 30]


def test_features_are_read_where_they_lie():
    level = torch.zeros(2, 4, 4, 4)
    level[0], level[1, 3, 2, 1] = 0.1, 5.0
    index = torch.tensor([(7 * 8 + 5) * 8 + 3, 0])
    found = read_at(level, index, (8, 8, 8))
    assert found[0, 1] > 0.9
    assert found[1, 1] == pytest.approx(0.0, abs=1e-6)


def test_brightness_codes_tell_a_range_of_brightness_apart():
    intensity = np.linspace(0, 1, 22, dtype=np.float32).reshape(1, 1, 22)
    codes = intensity_codes(intensity)
    assert codes.shape == (CODES, 1, 1, 22)
    assert np.linalg.norm(codes, axis=0) == pytest.approx(2.0, abs=1e-5)
    assert (
        codes.argmax(axis=0).ravel().tolist()
        == np.round(intensity.ravel() * (CODES - 1)).astype(int).tolist()
    )


def test_a_batch_holds_views_of_one_anatomy_in_range_and_labelled():
    batch = make_batch(Synthesiser(shape=(16, 16, 16)), [1, 2], views=2)
    assert batch.image.shape == (4, 1, 16, 16, 16)
    assert float(batch.image.min()) >= 0
    assert float(batch.image.max()) <= 1
    assert [labels.shape for labels in batch.labels] == [(2, 16, 16, 16)] * 4
    assert [len(ids) for ids in batch.clean_image_ids] == [2, 2]


def test_every_pretext_task_can_be_switched_off_and_runs_without_labels():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 32, 32, 32, generator=generator)
    unlabelled = Batch(image, (), ((0, 0),))
    encoder = StrataEncoder(NetworkShape(width=8, channels=4)).train()
    names = ("contrast", "agreement", "inpaint", "next_slice")
    for name in names:
        weights = {f"{other}_weight": float(other == name) for other in names}
        settings = PretrainSettings(
            **weights,
            next_slice_share=1.0 if name == "next_slice" else 0.0,
            masked_share=0.3,
        )
        losses = pretext_loss(
            encoder, unlabelled, settings, torch.Generator().manual_seed(1)
        )
        assert float(losses[name].detach()) > 0
        assert float(losses["total"].detach()) == pytest.approx(
            float(losses[name].detach()), rel=1e-5
        )


def test_next_slice_prediction_hides_all_that_follows_and_paints_the_next_slices():
    settings = PretrainSettings(next_slice_share=1.0)
    hidden = hide((1, 1, 32, 32, 32), settings, torch.Generator().manual_seed(2))
    assert not hidden.blocks.any()
    assert (hidden.slabs <= hidden.unseen).all()
    assert hidden.slabs.sum() == 4 * 32 * 32
    assert hidden.unseen.float().mean() < 0.5


@pytest.mark.parametrize("trunk", ["light", "basic", "segresnet"])
def test_every_network_gives_four_levels_and_folding_changes_nothing(trunk):
    torch.manual_seed(0)
    encoder = StrataEncoder(NetworkShape(trunk=trunk, width=8, channels=4)).eval()
    image = torch.rand(1, 1, 32, 32, 48)
    with torch.inference_mode():
        before = encoder(image)
        fold_norms(encoder)
        after = encoder(image)
    assert [tuple(level.shape[2:]) for level in before] == [
        (32, 32, 48),
        (16, 16, 24),
        (8, 8, 12),
        (4, 4, 6),
    ]
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("depth", [16, 80])
def test_the_last_layers_in_slabs_give_what_the_whole_image_gives(depth):
    torch.manual_seed(0)
    encoder = StrataEncoder(NetworkShape(width=4, channels=3))
    encoder.train().decode(torch.rand(2, 1, 16, 16, 16))
    encoder.eval()
    image = torch.rand(1, 1, depth, 16, 32)
    whole = [level.detach() for level in encoder(image)]
    with torch.inference_mode():
        slabs, raw = encoder(image), encoder.decode(image)
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(slabs, whole, strict=True)
    )
    assert all(
        torch.allclose(a, b.detach(), atol=1e-5)
        for a, b in zip(raw, encoder.decode(image), strict=True)
    )


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_pretraining_stopped_and_taken_up_again_ends_where_one_run_ends(
    tmp_path, weight
):
    recipe = replace(TINY, prototype_weight=weight, region_weight=weight)
    pretrain(tmp_path / "one.safetensors", recipe, device="cpu")
    broken = tmp_path / "two.safetensors"
    pretrain(broken, recipe, device="cpu", minutes=0.0)
    pretrain(broken, recipe, device="cpu")
    one, two = load_encoder(tmp_path / "one.safetensors"), load_encoder(broken)
    for (name, a), (_, b) in zip(
        one.state_dict().items(), two.state_dict().items(), strict=True
    ):
        assert torch.allclose(a.float(), b.float(), atol=2e-3), name


def test_pretraining_starts_from_given_weights_of_the_same_shape(tmp_path):
    first = pretrain(
        tmp_path / "first.safetensors", replace(TINY, steps=2), device="cpu"
    )
    still = replace(TINY, steps=1, learning_rate=1e-6)
    second = pretrain(
        tmp_path / "two.safetensors", still, device="cpu", start_from=first
    )
    one, two = load_encoder(first, fold=False), load_encoder(second, fold=False)
    for (name, a), (_, b) in zip(
        one.named_parameters(), two.named_parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5), name
    with pytest.raises(WeightsError, match="Cannot start from"):
        pretrain(
            tmp_path / "three.safetensors",
            replace(still, width=2 * TINY.width),
            device="cpu",
            start_from=first,
        )


def test_prototypes_tell_tissues_apart_once_features_lie_along_them():
    torch.manual_seed(0)
    prototypes = TissuePrototypes(kinds=2, tissues=6, channels=8, temperature=0.1)
    tissues = torch.arange(6).repeat(5)
    along = prototypes.vectors.detach()[1][tissues]
    assert prototypes.loss(along, tissues, 1) < 0.5 < prototypes.loss(along, tissues, 0)
    optimiser = torch.optim.SGD(prototypes.parameters(), lr=1.0)
    start = last = prototypes.loss(along, tissues, 0).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = prototypes.loss(along, tissues, 0)
        loss.backward()
        optimiser.step()
        last = loss.item()
    assert last < 0.5 * start


def test_regions_are_found_again_where_views_agree_and_not_where_they_do_not():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(20)
    features = torch.nn.functional.normalize(torch.eye(5)[labels] + 0.05, dim=1)

    def loss(view):
        return float(region_contrast(features, view, labels, 0.1, generator))

    assert loss(features) < 0.05
    assert loss(features.roll(1, 0)) > 5
    one_region = torch.zeros(100, dtype=torch.int64)
    assert region_contrast(features, features, one_region, 0.1, generator) == 0


def test_only_named_contrasts_of_bodies_have_a_kind():
    batch = make_batch(Synthesiser((16, 16, 16)), list(range(20)), views=1)
    kinds = [kind for (kind,) in batch.kinds]
    assert KINDS.index("ct") in kinds
    assert None in kinds
    shapes = Synthesiser((16, 16, 16), families={"shapes": 1.0})
    assert set(make_batch(shapes, [1, 2, 3], views=1).kinds) == {(None,)}


def test_pretraining_sees_the_batches_that_it_is_given(tmp_path):
    given = [
        make_batch(Synthesiser((16, 16, 16)), [700 + step, 800 + step], views=2)
        for step in range(3)
    ]
    seen = []

    class Given(torch.utils.data.Dataset):
        def __getitem__(self, step):
            seen.append(step)
            return given[step]

    path = pretrain(
        tmp_path / "w.safetensors",
        replace(TINY, steps=3),
        device="cpu",
        batches=Given(),
    )
    assert seen == [0, 1, 2]
    own = pretrain(tmp_path / "own.safetensors", replace(TINY, steps=3), device="cpu")
    one, two = load_encoder(path).state_dict(), load_encoder(own).state_dict()
    assert not all(torch.equal(one[name], two[name]) for name in one)


def test_weights_survive_a_round_trip_and_have_a_hash(tmp_path):
    torch.manual_seed(0)
    encoder = StrataEncoder().eval()
    write_weights(encoder, tmp_path / "w.safetensors", {"step": 0})
    again = load_encoder(tmp_path / "w.safetensors")
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        for a, b in zip(encoder(image), again(image), strict=True):
            assert torch.allclose(a, b, atol=2e-2)
    assert len(weights_hash(tmp_path / "w.safetensors")) == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not found"), (b"not weights at all", "cannot be read")],
)
def test_missing_or_damaged_weights_are_a_clear_error(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_encoder(path)


def test_weights_of_another_network_are_a_clear_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"layer": torch.zeros(3)}, str(tmp_path / "w.safetensors"))
    with pytest.raises(WeightsError, match="do not fit"):
        load_encoder(tmp_path / "w.safetensors")


def test_a_run_is_not_taken_up_with_other_settings(tmp_path):
    path = tmp_path / "w.safetensors"
    pretrain(path, TINY, device="cpu", minutes=0.0)
    with pytest.raises(
        WeightsError, match=r"temperature \(0.15, now 0.3\).*move it away"
    ):
        pretrain(
            path,
            replace(TINY, temperature=0.3, steps=9, checkpoint_minutes=1.0),
            device="cpu",
        )
    pretrain(
        path, replace(TINY, steps=9, checkpoint_minutes=1.0), device="cpu", minutes=0.0
    )


def test_the_hash_follows_a_file_that_is_written_over(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    first = weights_hash(path)
    path.write_bytes(b"other")
    assert weights_hash(path) != first


def test_a_broken_recipe_is_a_clear_error(tmp_path):
    from safetensors.torch import save_file

    save_file(
        {"layer": torch.zeros(3)},
        str(tmp_path / "w.safetensors"),
        metadata={"recipe": "{no json"},
    )
    with pytest.raises(WeightsError, match="recipe"):
        read_recipe(tmp_path / "w.safetensors")


def test_places_of_a_level_lean_to_neither_side(features):
    for number, stride in enumerate(features.strides[:2]):
        values, places = features.inner_level(number)
        for axis, part in enumerate(features.grid.box):
            mean = np.mean([place[axis] for place in places], axis=0)
            steps = part.start + (np.arange(values.shape[axis]) + 0.5) * stride - 0.5
            assert features.grid.shape_zyx == features.grid.box_shape
            np.testing.assert_allclose(mean, steps)
