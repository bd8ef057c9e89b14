"""The bench that ablates the recipe.

Every variant sees the same scans, and the tables say how much a seed changes.
"""

import pytest
import torch
from benchmarks.encoder import ablate
from benchmarks.encoder.table import Row

STEPS = 2


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablate, "PATCH_VOX", 32)
        ablate.store_scans(folder, STEPS)
    return folder


def batches(scans, variant):
    return [
        one
        for one in map(
            ablate.StoredBatches(scans, ablate.recipe_of(variant, STEPS)).__getitem__,
            range(STEPS),
        )
    ]


def test_variants_see_the_same_scans(scans):
    for plain, other in zip(
        batches(scans, "recipe"), batches(scans, "temperature 0.3"), strict=True
    ):
        assert torch.equal(plain.image, other.image)
        assert all(
            torch.equal(a, b) for a, b in zip(plain.labels, other.labels, strict=True)
        )
    plain, two = batches(scans, "recipe")[0], batches(scans, "two views")[0]
    assert plain.image.shape == two.image.shape == (2, 1, 32, 32, 32)
    assert torch.equal(plain.image[0], two.image[0])
    assert len(plain.clean_image_ids) == 2
    assert len(two.clean_image_ids[0]) == 2
    assert torch.equal(batches(scans, "coarse tissues")[0].labels[-1], plain.labels[0])
    assert not torch.equal(plain.labels[-1], plain.labels[0])


def test_another_seed_takes_the_same_scans_in_another_order(scans):
    orders = [
        ablate.StoredBatches(
            scans, ablate.recipe_of("recipe, seed 1", steps)
        ).order.tolist()
        for steps in (STEPS, 50)
    ]
    assert sorted(orders[1]) == list(range(50)) != orders[1]


@pytest.mark.parametrize("variant", ablate.VARIANTS)
def test_every_variant_is_a_recipe(variant):
    assert ablate.recipe_of(variant, STEPS).steps == STEPS


def test_the_table_says_how_much_a_seed_changes():
    rows = [
        Row(name, "head", "probe 20", value)
        for name, value in zip(ablate.OWN_SPREAD, (0.7, 0.8, 0.9), strict=True)
    ]
    rows += [
        Row("half width", "head", "cosine, flip", 0.5),
        Row("half width", "head", "cosine, noise", 0.7),
    ]
    lines = ablate.summary(
        rows, {"probe": ("head", "probe 20"), "agrees": ("head", "cosine")}
    ).splitlines()
    assert lines[2] == "| recipe | 0.700 |  |"
    assert "| half width |  | 0.600 |" in lines
    assert lines[-1].startswith("| *sd over 3 seeds of the recipe* | 0.100 |")
