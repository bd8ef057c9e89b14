"""What a region's card and its similarity map say about a phantom whose organs are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_strata.errors import RegionError, SettingsError
from napari_strata.explain import (
    explain_region,
    feature_colors,
    merge_path,
    similarity_map,
)
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_proposal, phantom_truth

AIR, BODY, TWIN_ORGAN, BRIGHTEST = 0, 1, 2, 5


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


@pytest.fixture(scope="module")
def organs(proposal: Proposal) -> NDArray[np.int32]:
    """The phantom's class of each supervoxel, as a table."""
    votes = np.zeros((proposal.n_supervoxels, 6))
    np.add.at(votes, (proposal.supervoxels.ravel(), phantom_truth().ravel()), 1)
    return votes.argmax(axis=1).astype(np.int32)


def halves(
    proposal: Proposal, organs: NDArray[np.int32], organ: int
) -> NDArray[np.int32]:
    """Give the organ's supervoxels on the left id 8 and those on the right id 9."""
    x = proposal.descriptors[:, proposal.descriptor_names.index("position x")]
    middle = np.median(x[organs == organ])
    return np.where(organs != organ, organs, np.where(x < middle, 8, 9)).astype(
        np.int32
    )


def test_a_card_tells_size_and_confidence(proposal, organs):
    card = explain_region(proposal, organs, BRIGHTEST)
    members = organs == BRIGHTEST
    voxels = np.isin(proposal.supervoxels, np.flatnonzero(members))
    assert card.id == BRIGHTEST
    assert card.n_supervoxels == members.sum()
    assert card.voxels == voxels.sum()
    assert card.volume_ml == pytest.approx(voxels.sum() * 2 / 1000)
    assert card.confidence == pytest.approx(
        proposal.confidence[proposal.supervoxels[voxels]].mean(), rel=1e-4
    )


def test_organs_of_different_brightness_are_separated_by_intensity(proposal, organs):
    card = explain_region(proposal, organs, BRIGHTEST)
    assert card.neighbor == BODY
    assert card.evidence.intensity > 0.8
    assert card.evidence.features == 0
    assert card.telling[0].name == "intensity mean"
    assert card.telling[0].difference_sd > 3
    assert card.similarity > 0.4 > 0.1 > card.neighbor_similarity


def test_the_two_halves_of_one_organ_are_separated_by_position(proposal, organs):
    card = explain_region(proposal, halves(proposal, organs, BODY), 8)
    assert card.neighbor == 9
    assert card.evidence.position > 0.8
    assert card.telling[0].name == "position x"
    assert card.telling[0].difference_sd < -1
    assert card.neighbor_similarity == pytest.approx(card.similarity, abs=0.15)


def test_features_are_told_where_only_they_differ_and_copies_count_once(
    proposal, organs
):
    table = halves(proposal, organs, BODY)
    seen = np.where(table == 8, 1.0, -1.0) + np.random.default_rng(0).normal(
        0, 0.2, len(table)
    )

    def with_features(copies: int) -> Proposal:
        names = tuple(f"feature 0.{k}" for k in range(copies))
        columns = np.repeat(seen[:, None], copies, axis=1).astype(np.float32)
        return replace(
            proposal,
            descriptors=np.concatenate([columns, proposal.descriptors], axis=1),
            descriptor_names=(*names, *proposal.descriptor_names),
        )

    once, often = (
        explain_region(with_features(copies), table, 8).evidence for copies in (1, 20)
    )
    assert once.features > 0.7
    assert once.features + once.intensity + once.position == pytest.approx(1)
    assert often.features == pytest.approx(once.features, abs=0.05)


def test_similarity_finds_the_same_tissue_elsewhere(proposal, organs):
    twins = np.flatnonzero(organs == TWIN_ORGAN)
    x = proposal.descriptors[twins, proposal.descriptor_names.index("position x")]
    one, other = twins[x < x.mean()], twins[x >= x.mean()]
    table = np.zeros_like(organs)
    table[one] = 1
    similar = similarity_map(proposal, table, 1)
    assert similar.shape == (proposal.n_supervoxels,)
    assert similar.dtype == np.float32
    assert similar.min() >= 0
    assert similar.max() <= 1
    assert similar[other].mean() > 0.3 > 0.05 > similar[organs == BRIGHTEST].mean()


def test_cuts_and_refinements_can_be_asked(proposal):
    work = Refinement(proposal, regions=12)
    new = work.split(3, into=2)[0]
    for table, region in (
        (proposal.tissue_tree.cut(5), 2),
        (work.view.table, new),
        (work.view.table, 0),
    ):
        card = explain_region(proposal, table, region)
        assert card.n_supervoxels == (table == region).sum()
        assert sum(
            (card.evidence.features, card.evidence.intensity, card.evidence.position)
        ) == pytest.approx(1)


def test_a_region_of_one_supervoxel_has_a_card(proposal):
    table = proposal.region_tree.cut(proposal.region_tree.max_regions)
    card = explain_region(proposal, table, 1)
    assert card.n_supervoxels == 1
    assert card.similarity == 1
    assert card.neighbor is not None
    assert all(np.isfinite(column.difference_sd) for column in card.telling)


def test_a_region_that_is_everything_has_no_neighbor(proposal):
    card = explain_region(proposal, np.ones(proposal.n_supervoxels, np.int32), 1)
    assert card.neighbor is None
    assert card.neighbor_similarity == 0
    assert card.telling == ()


def test_unknown_regions_and_foreign_tables_are_refused(proposal, organs):
    with pytest.raises(RegionError, match="region 77"):
        explain_region(proposal, organs, 77)
    with pytest.raises(RegionError, match="supervoxels"):
        similarity_map(proposal, organs[:-1], 1)


@pytest.mark.parametrize("tree", ["regions", "tissues"])
def test_the_merge_path_agrees_with_the_cuts(proposal, tree):
    hierarchy, voxel_ml = proposal.tree(tree), 2 / 1000
    table = hierarchy.cut(12)
    path = merge_path(proposal, table, 5, tree)
    assert (path.tree, path.region, path.share, path.parts_at) == (
        tree,
        5,
        1,
        path.whole_at + 1,
    )
    assert path.volume_ml == pytest.approx(
        (table == 5)[proposal.supervoxels].sum() * voxel_ml
    )
    assert [step.n for step in path.steps] == sorted(
        (step.n for step in path.steps), reverse=True
    )
    for step in path.steps:
        joined, both = (
            hierarchy.cut(step.n + 1) == step.joined,
            hierarchy.cut(step.n) == step.region,
        )
        assert step.joined_ml == pytest.approx(
            joined[proposal.supervoxels].sum() * voxel_ml
        )
        assert step.volume_ml == pytest.approx(
            both[proposal.supervoxels].sum() * voxel_ml
        )
        assert both[table == 5].all()
    assert path.steps[-1].n == 1
    assert (np.diff([step.height for step in path.steps]) >= 0).all()


def test_the_merge_path_of_an_edited_region_says_how_much_of_the_branch_it_is(proposal):
    work = Refinement(proposal, regions=12)
    kept = work.merge([2, 7])
    path = merge_path(proposal, work.view.table, kept, "regions")
    assert 0 < path.share <= 1
    assert path.whole_at < 12
    assert merge_path(proposal, work.view.table, 0, "regions") is None
    single = merge_path(proposal, proposal.region_tree.cut(10**6), 1, "regions")
    assert single.parts_at is None


def with_features(proposal: Proposal, features: NDArray[np.floating]) -> Proposal:
    names = tuple(f"feature 0.{k}" for k in range(features.shape[1]))
    descriptors = np.concatenate([features, proposal.descriptors], axis=1).astype(
        np.float32
    )
    return replace(
        proposal,
        descriptors=descriptors,
        descriptor_names=(*names, *proposal.descriptor_names),
    )


def test_feature_colors_tell_organs_apart_and_repeat(proposal, organs):
    rng = np.random.default_rng(0)
    seen = with_features(
        proposal, rng.normal(size=(6, 8))[organs] + rng.normal(0, 0.1, (len(organs), 8))
    )
    colors = feature_colors(seen)
    assert (colors.shape, colors.dtype) == ((proposal.n_supervoxels, 3), np.float32)
    assert colors.min() >= 0
    assert colors.max() <= 1
    means = np.stack([colors[organs == organ].mean(axis=0) for organ in range(1, 6)])
    spread = np.mean(
        [colors[organs == organ].std(axis=0).mean() for organ in range(1, 6)]
    )
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(5, 1)]
    assert apart.min() > 4 * spread
    np.testing.assert_array_equal(colors, feature_colors(seen))
    # one supervoxel far off takes no colour from the others
    far = seen.descriptors.copy()
    far[np.flatnonzero(organs == BODY)[0], :8] *= 100
    assert (
        feature_colors(replace(seen, descriptors=far))[organs > 0].std(axis=0).max()
        > 0.1
    )


def test_few_or_flat_features_still_have_colors_and_none_are_refused(proposal):
    one = feature_colors(
        with_features(proposal, np.arange(proposal.n_supervoxels)[:, None])
    )
    assert one[:, 0].std() > 0.1
    assert (one[:, 1:] == 0.5).all()
    assert (
        feature_colors(with_features(proposal, np.ones((proposal.n_supervoxels, 4))))
        == 0.5
    ).all()
    with pytest.raises(SettingsError, match="features"):
        feature_colors(proposal)
