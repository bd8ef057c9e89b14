"""The merge tree: exact counts, nesting, stable ids, and splits of any set."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from napari_strata.proposal.hierarchy.tree import hierarchy_from_merges

N_BACKGROUND, N_BODY = 6, 40


@pytest.fixture(scope="module")
def linked():
    rng = np.random.default_rng(0)
    body, air = (
        linkage(rng.normal(size=(N_BODY, 3)), "ward"),
        linkage(rng.normal(size=(N_BACKGROUND, 3)), "ward"),
    )
    sizes = rng.integers(1, 100, N_BACKGROUND + N_BODY)
    return body, air, sizes


@pytest.fixture(scope="module")
def tree(linked):
    body, air, sizes = linked
    fore, back = np.arange(N_BACKGROUND, N_BACKGROUND + N_BODY), np.arange(N_BACKGROUND)
    return hierarchy_from_merges(
        fore,
        body[:, :2].astype(int),
        body[:, 2],
        back,
        air[:, :2].astype(int),
        air[:, 2],
        sizes,
    )


@pytest.mark.parametrize("n", [0, 1, 2, 7, 39, 40])
def test_a_cut_at_n_gives_n_regions_and_leaves_the_background_alone(tree, n):
    table = tree.cut(n)
    assert set(table[N_BACKGROUND:]) == (set(range(1, n + 1)) if n else {0})
    assert not table[:N_BACKGROUND].any()


def test_more_than_the_leaves_gives_as_many_as_there_are(tree):
    assert len(np.unique(tree.cut(10_000)[N_BACKGROUND:])) == N_BODY == tree.max_regions


def test_cuts_agree_with_scipy(tree, linked):
    for n in range(1, N_BODY + 1):
        assert (
            adjusted_rand_score(
                tree.cut(n)[N_BACKGROUND:], fcluster(linked[0], n, "maxclust")
            )
            == 1
        )


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


def tree_of(points):
    body = linkage(points, "ward")
    none = np.zeros((0, 2), int)
    sizes = np.ones(len(points), int)
    return hierarchy_from_merges(
        np.arange(len(points)),
        body[:, :2].astype(int),
        body[:, 2],
        np.arange(0),
        none,
        np.zeros(0),
        sizes,
    )


def compartments_of_tissues(compartments, tissues, each, seed=0):
    """Points in far-apart compartments, each with equally unlike tissues.

    Each with some noise.
    """
    where = np.repeat(np.eye(compartments) * 100, tissues * each, axis=0)
    within = np.tile(np.repeat(np.eye(tissues) * 10, each, axis=0), (compartments, 1))
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(where), 3))
    return np.concatenate([where, within, noise], axis=1)


@pytest.mark.parametrize(("compartments", "tissues"), [(3, 4), (2, 5), (4, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_marks_are_where_the_tree_is_stable(compartments, tissues, seed):
    tree = tree_of(compartments_of_tissues(compartments, tissues, 20, seed))
    assert tree.marks(2, 64) == (compartments, compartments * tissues)


def test_marks_are_well_apart_and_one_per_range():
    for seed in range(20):
        tree = tree_of(np.random.default_rng(seed).normal(size=(600, 3)))
        for low, high in ((2, 64), (4, 400)):
            marks = np.array(tree.marks(low, high))
            assert 2 <= len(marks) <= 4
            assert low <= marks[0] <= marks[-1] <= high
            assert (marks[1:] / marks[:-1] >= 1.5).all()
            assert tree.marks(low, high) == tuple(marks)


def test_a_tree_without_structure_has_no_marks():
    chain = np.array([[0, 1], *([50 + i, i + 2] for i in range(48))])
    for height in (0.0, 1.0):
        nothing = np.arange(0), np.zeros((0, 2), int), np.zeros(0)
        assert (
            hierarchy_from_merges(
                np.arange(50), chain, np.full(49, height), *nothing, np.ones(50, int)
            ).marks(2, 64)
            == ()
        )
    for leaves in (2, 3):
        assert len(tree_of(np.arange(leaves)[:, None] ** 2.0).marks(4, 400)) == 0


def test_copies_of_a_few_points_are_found_however_many_leaves():
    assert 5 in tree_of(
        np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 30, axis=0)
    ).marks(2, 64)


@pytest.mark.parametrize("n", [1, 3, 9, 40])
def test_a_lineage_tells_what_every_coarser_cut_shows(tree, n):
    for region in range(1, n + 1):
        members = np.flatnonzero(tree.cut(n) == region)
        line = tree.lineage(members)
        assert set(tree.leaf_order[line.begin : line.end]) == set(members)
        assert (line.region, line.whole_at >= n) == (region, True)
        assert len(np.unique(tree.cut(line.whole_at)[members])) == 1
        if len(members) > 1:
            assert len(np.unique(tree.cut(line.whole_at + 1)[members])) == 2
        grown = set(members.tolist())
        for join in line.joins:
            partner = set(tree.leaf_order[join.begin : join.end].tolist())
            assert (
                set(np.flatnonzero(tree.cut(join.n + 1) == join.joined).tolist())
                == partner
            )
            grown |= partner
            assert (
                set(np.flatnonzero(tree.cut(join.n) == join.region).tolist()) == grown
            )
        assert len(grown) == N_BODY


def test_the_lineage_of_a_mixed_set_starts_at_the_smallest_node_that_holds_it(tree):
    members = np.array([0, N_BACKGROUND + 3, N_BACKGROUND + 20])
    line = tree.lineage(members)
    assert len(np.unique(tree.cut(line.whole_at)[members[1:]])) == 1
    assert len(np.unique(tree.cut(line.whole_at + 1)[members[1:]])) == 2
    assert tree.lineage(np.arange(N_BACKGROUND)) is None
