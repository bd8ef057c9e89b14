"""The merge tree: exact counts, nesting, stable ids, and splits of any set."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from napari_strata.proposal.hierarchy import hierarchy_from_merges

N_BACKGROUND, N_BODY = 6, 40


@pytest.fixture(scope="module")
def linked():
    rng = np.random.default_rng(0)
    body, air = linkage(rng.normal(size=(N_BODY, 3)), "ward"), linkage(rng.normal(size=(N_BACKGROUND, 3)), "ward")
    sizes = rng.integers(1, 100, N_BACKGROUND + N_BODY)
    return body, air, sizes


@pytest.fixture(scope="module")
def tree(linked):
    body, air, sizes = linked
    fore, back = np.arange(N_BACKGROUND, N_BACKGROUND + N_BODY), np.arange(N_BACKGROUND)
    return hierarchy_from_merges(fore, body[:, :2].astype(int), body[:, 2], back, air[:, :2].astype(int), air[:, 2], sizes)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 39, 40])
def test_a_cut_at_n_gives_n_regions_and_leaves_the_background_alone(tree, n):
    table = tree.cut(n)
    assert set(table[N_BACKGROUND:]) == (set(range(1, n + 1)) if n else {0})
    assert not table[:N_BACKGROUND].any()


def test_more_than_the_leaves_gives_as_many_as_there_are(tree):
    assert len(np.unique(tree.cut(10_000)[N_BACKGROUND:])) == N_BODY == tree.max_regions


def test_cuts_agree_with_scipy(tree, linked):
    for n in range(1, N_BODY + 1):
        assert adjusted_rand_score(tree.cut(n)[N_BACKGROUND:], fcluster(linked[0], n, "maxclust")) == 1


def test_one_step_finer_parts_one_region_and_its_larger_part_keeps_the_id(tree, linked):
    sizes = linked[2]
    for n in range(1, N_BODY):
        coarse, fine = tree.cut(n), tree.cut(n + 1)
        moved = fine != coarse
        assert set(fine[moved]) == {n + 1}
        (parent,) = set(coarse[moved])
        assert sizes[moved].sum() <= sizes[(coarse == parent) & ~moved].sum()


def test_any_set_can_be_split_into_exactly_as_many_parts_as_asked(tree):
    rng = np.random.default_rng(1)
    for _ in range(50):
        members = rng.choice(N_BACKGROUND + N_BODY, rng.integers(2, 20), replace=False)
        into = int(rng.integers(2, 6))
        parts = tree.split(members, into)
        assert len(np.unique(parts)) == min(into, len(members))
        assert (np.diff(np.bincount(parts)) <= 0).all()


def test_background_and_body_part_first(tree):
    members = np.arange(N_BACKGROUND + N_BODY)
    parts = tree.split(members, 2)
    assert len(set(parts[:N_BACKGROUND])) == len(set(parts[N_BACKGROUND:])) == 1


def test_a_single_leaf_cannot_be_split(tree):
    assert tree.split(np.array([3]), 4).tolist() == [0]
