"""Trees of many pieces: merged in pairs first, then one by one."""

import numpy as np
import pytest

from napari_strata.proposal.hierarchy import build_trees as trees
from napari_strata.proposal.hierarchy import region_merging
from napari_strata.proposal.hierarchy.build_trees import region_tree


def grid_edges(shape):
    number = np.arange(np.prod(shape)).reshape(shape)
    pairs = [
        np.stack(
            [
                np.moveaxis(number, a, 0)[1:].ravel(),
                np.moveaxis(number, a, 0)[:-1].ravel(),
            ],
            axis=1,
        )
        for a in range(len(shape))
    ]
    return np.concatenate(pairs).astype(np.int32)


SHAPE = (12, 12, 10)
BLOCKS = np.add.outer(
    np.add.outer(4 * (np.arange(12) // 6), 2 * (np.arange(12) // 6)), np.arange(10) // 5
).ravel()


def tree_of(vectors):
    n = len(vectors)
    return region_tree(
        vectors.astype(np.float32),
        np.arange(1, n + 1),
        grid_edges(SHAPE),
        np.zeros(n, bool),
    )


def same_partition(one, other):
    return (
        len({*zip(one.tolist(), other.tolist(), strict=True)})
        == len(np.unique(one))
        == len(np.unique(other))
    )


@pytest.mark.parametrize("one_by_one", [10_000, 200, 20, 1])
def test_pieces_of_a_kind_that_touch_become_one_region(monkeypatch, one_by_one):
    monkeypatch.setattr(trees, "_ONE_BY_ONE", one_by_one)
    rng = np.random.default_rng(0)
    kinds = rng.normal(0, 10, (8, 5))
    tree = tree_of(kinds[BLOCKS] + rng.normal(0, 0.1, (len(BLOCKS), 5)))
    assert same_partition(tree.cut(8), BLOCKS)


@pytest.mark.parametrize("vectors", ["alike", "random"])
def test_every_cut_gives_as_many_regions_as_asked_each_inside_a_coarser_one(
    monkeypatch, vectors
):
    monkeypatch.setattr(trees, "_ONE_BY_ONE", 100)
    n = int(np.prod(SHAPE))
    tree = tree_of(
        np.ones((n, 3))
        if vectors == "alike"
        else np.random.default_rng(1).normal(0, 1, (n, 3))
    )
    before = tree.cut(1)
    for count in (2, 3, 17, 99, 100, 101, 500, n):
        now = tree.cut(count)
        assert len(np.unique(now)) == count
        assert len({*zip(now.tolist(), before.tolist(), strict=True)}) == count
        before = now


def test_many_pieces_around_one_are_not_joined_one_a_round(monkeypatch):
    monkeypatch.setattr(trees, "_ONE_BY_ONE", 10)
    rounds = []
    cheapest_pairs = region_merging._cheapest_pairs

    def counted(*arguments, **named):
        rounds.append(1)
        return cheapest_pairs(*arguments, **named)

    monkeypatch.setattr(region_merging, "_cheapest_pairs", counted)
    n = 3000
    edges = np.stack([np.zeros(n - 1), np.arange(1, n)], axis=1).astype(np.int32)
    sizes = np.append(100_000, np.ones(n - 1)).astype(np.int64)
    tree = region_tree(
        np.random.default_rng(0).normal(0, 1, (n, 3)).astype(np.float32),
        sizes,
        edges,
        np.zeros(n, bool),
    )
    assert len(rounds) < 10
    assert len(np.unique(tree.cut(500))) == 500
