"""The cut that a proposal opens on: every branch where it is stable."""

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.proposal.hierarchy.build_trees import region_tree
from napari_strata.proposal.hierarchy.stable_cut import stable_count, stable_cut
from phantoms import phantom_volume


def chain(values):
    """Region tree of supervoxels in a row, with their sizes."""
    n = len(values)
    edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    sizes = np.full(n, 10)
    vectors = np.asarray(values, np.float32)[:, None]
    return region_tree(vectors, sizes, edges, np.zeros(n, bool)), sizes


@pytest.fixture(scope="module")
def uneven():
    """Four groups far apart, and a fifth that is noise with a wide spread."""
    rng = np.random.default_rng(0)
    clear = [rng.normal(mean, 0.01, 12) for mean in (0.0, 5.0, 10.0, 15.0)]
    noisy = rng.normal(40.0, 4.0, 12)
    return chain(np.concatenate([*clear, noisy]))


def test_stable_groups_are_kept_and_a_noisy_one_is_not_split_before_them(uneven):
    tree, sizes = uneven
    group = np.repeat(np.arange(5), 12)
    found = stable_cut(tree, sizes, 5, 8)
    table = found.tree.cut(found.n)
    for number in range(4):
        assert len(np.unique(table[group == number])) == 1
    assert len(np.unique(np.stack([table, group]), axis=1).T) == found.n


def test_coarser_cuts_join_its_regions_and_finer_ones_split_them(uneven):
    tree, sizes = uneven
    found = stable_cut(tree, sizes, 5, 8)
    assert (np.diff(found.tree.heights) <= 0).all()
    assert sorted(found.tree.breaks) == sorted(tree.breaks)
    before = found.tree.cut(1)
    for n in (2, found.n, found.n + 5, 60):
        table = found.tree.cut(n)
        assert len(np.unique(np.stack([table, before]), axis=1).T) == n
        before = table


def test_tiny_trees_have_a_stable_cut():
    for n in (1, 2, 3):
        tree, sizes = chain(np.arange(n))
        assert 1 <= stable_cut(tree, sizes, 50, 150).n <= n
        assert 1 <= stable_count(tree, 16, 24) <= n


def test_auto_is_the_cut_that_a_proposal_opens_on():
    volume = phantom_volume((16, 20, 24), (3.0, 2.0, 2.0))
    proposal = strata.propose(
        volume, settings=strata.ProposeSettings(supervoxels=300), threads=1
    )
    assert 16 <= proposal.as_proposed("tissues") <= 24
    assert 50 <= proposal.as_proposed("regions") <= 150
    for name in ("tissues", "regions"):
        n = proposal.as_proposed(name)
        auto, same = (getattr(proposal, name)(count) for count in ("auto", n))
        assert np.array_equal(auto.labels, same.labels)
        assert len(auto.regions) == n
