"""Scribbles teach: what follows a stroke, what stays, and how far a few clicks go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.preview import preview_strokes
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Volume
from phantoms import phantom_proposal, phantom_truth, phantom_volume

TRUTH = phantom_truth()


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def click(mask: np.ndarray, radius: int = 1) -> np.ndarray:
    """Give a small stroke around the deepest voxel of a mask."""
    deep = np.unravel_index(
        ndi.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1].argmax(),
        mask.shape,
    )
    ball = np.argwhere(
        radius**2
        >= ((np.indices(mask.shape).T - np.array(deep)[::1]) ** 2).sum(axis=-1).T
    )
    return ball[mask[tuple(ball.T)]]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def test_one_stroke_everywhere_finds_the_same_tissue_elsewhere(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    left = TRUTH.copy()
    left[:, :, 16:] = 0
    region = work.scribble(click(left == 2), scope="everywhere")
    assert dice(work.labels == region, TRUTH == 2) > 0.75


def test_one_stroke_here_stays_near(proposal: Proposal) -> None:
    work = Refinement(proposal)
    left = TRUTH.copy()
    left[:, :, 16:] = 0
    region = work.scribble(click(left == 2), scope="here")
    got = work.labels == region
    assert got.any()
    assert not (got & (TRUTH == 2))[:, :, 16:].any()


def test_one_stroke_here_at_the_edge_of_the_body_takes_no_air(
    proposal: Proposal,
) -> None:
    edge = np.argwhere((TRUTH == 1) & ndi.binary_dilation(TRUTH == 0))
    center = edge[len(edge) // 2]
    near = np.argwhere(
        ((np.indices(TRUTH.shape).T - center[::1]) ** 2).sum(axis=-1).T <= 4
    )
    body, air = near[TRUTH[tuple(near.T)] == 1], near[TRUTH[tuple(near.T)] == 0]
    for stroke in (body, np.concatenate([body, air[:3]])):
        work = Refinement(proposal)
        region = work.scribble(stroke, scope="here")
        taken = work.labels == region
        assert taken[tuple(stroke.T)].all()
        assert (taken & (TRUTH == 0)).sum() <= len(stroke)


def test_a_stroke_in_air_still_takes_air(proposal: Proposal) -> None:
    work = Refinement(proposal)
    region = work.scribble([[0, 0, 0], [0, 1, 1]], scope="here")
    assert (work.labels == region).sum() >= 64
    assert not (work.labels == region)[TRUTH > 1].any()


@pytest.mark.parametrize("organ", [2, 3, 4, 5])
def test_one_stroke_here_does_not_cross_an_edge_into_another_organ(
    proposal: Proposal, organ: int
) -> None:
    work = Refinement(proposal)
    region = work.scribble(click(organ == TRUTH), scope="here")
    taken = work.labels == region
    assert (taken & (organ == TRUTH)).sum() > 0.9 * taken.sum()


@pytest.mark.parametrize("organ", [1, 2, 3])
def test_one_stroke_everywhere_from_nothing_takes_about_as_much_as_there_is(
    proposal: Proposal, organ: int
) -> None:
    work = Refinement(proposal)
    region = work.scribble(click(organ == TRUTH))
    taken = int((work.labels == region).sum())
    assert 0.5 < taken / (organ == TRUTH).sum() < 2


def test_region_0_is_taught_like_any_other(proposal: Proposal) -> None:
    work = Refinement(proposal, tissues=5)
    work.scribble(click(TRUTH == 4), region=20)
    work.scribble(click(TRUTH == 1), region=0)
    assert dice(work.labels == 0, TRUTH <= 1) > 0.9
    assert dice(work.labels == 20, TRUTH == 4) > 0.7


def test_what_a_stroke_crosses_is_given_and_stays_given(proposal: Proposal) -> None:
    work = Refinement(proposal)
    stroke = click(TRUTH == 3)
    work.scribble(stroke, region=7)
    work.scribble(click(TRUTH == 1), region=8)
    work.cut(regions=40)
    assert (work.labels[tuple(stroke.T)] == 7).all()


def test_assigned_supervoxels_are_not_moved_by_scribbles_elsewhere(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    body = np.unique(proposal.supervoxels[TRUTH == 1])[:30]
    work.edits.assign(body, 4)
    work.scribble(click(TRUTH == 2), region=5)
    work.scribble(click((TRUTH == 1) & ~np.isin(proposal.supervoxels, body)), region=6)
    assert (work.view.table[body] == 4).all()


def test_a_later_stroke_calls_back_what_an_earlier_one_took(proposal: Proposal) -> None:
    left, right = TRUTH.copy(), TRUTH.copy()
    left[:, :, 16:] = right[:, :, :16] = 0
    work = Refinement(proposal)
    one = work.scribble(click(left == 2))
    assert (work.labels[right == 2] == one).mean() > 0.5
    two = work.scribble(click(right == 2))
    assert (work.labels[right == 2] == two).mean() > 0.6
    assert (work.labels[left == 2] == one).mean() > 0.6


def test_a_supervoxel_that_strokes_of_two_regions_cross_is_cut_between_them(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    biggest = np.argwhere(
        proposal.supervoxels == np.bincount(proposal.supervoxels.ravel()).argmax()
    )
    work.scribble(biggest[:12], region=1)
    work.scribble(biggest[-5:], region=2)
    labels = work.labels
    assert (labels[tuple(biggest[:12].T)] == 1).all()
    assert (labels[tuple(biggest[-5:].T)] == 2).all()
    assert set(labels[tuple(biggest.T)].tolist()) == {1, 2}
    work.scribble(biggest[12:-5], region=2)
    labels = work.labels
    assert (labels[tuple(biggest[:12].T)] == 1).all()
    assert (labels[tuple(biggest[12:].T)] == 2).all()
    assert np.array_equal(work.replay(proposal).labels, labels)
    work.steps.jump(1)
    assert (work.labels[tuple(biggest.T)] == 1).all()


def test_a_cut_supervoxel_parts_where_brightness_jumps() -> None:
    volume = phantom_volume()
    across = Volume(
        np.where(np.arange(32) % 4 < 1, 500, 700).astype(np.float32)
        + np.zeros(volume.data.shape, np.float32),
        volume.geometry,
    )
    proposal = replace(phantom_proposal(), volume=across)
    work = Refinement(proposal)
    block = np.argwhere(proposal.supervoxels == proposal.supervoxels[12, 13, 17])
    dark = block[:, 2] % 4 < 1
    assert 0 < dark.sum() < len(block)
    work.scribble(block[dark][:1], region=1)
    work.scribble(block[~dark][-1:], region=2)
    assert np.array_equal(work.labels[tuple(block.T)], np.where(dark, 1, 2))


def test_a_stroke_over_an_earlier_strokes_voxels_wins(proposal: Proposal) -> None:
    work = Refinement(proposal)
    biggest = np.argwhere(
        proposal.supervoxels == np.bincount(proposal.supervoxels.ravel()).argmax()
    )
    work.scribble(biggest[:12], region=1)
    work.scribble(biggest[-5:], region=2)
    work.scribble(biggest[-5:], region=3)
    assert (work.labels[tuple(biggest[-5:].T)] == 3).all()


def test_a_stroke_over_the_brush_leaves_it_even_where_an_earlier_stroke_lay(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    spot = click(phantom_truth() == 2, radius=0)
    work.scribble(spot, region=30)
    work.paint(spot, 30)
    work.scribble(spot, region=31)
    assert work.view.region_at(spot[0]) == 30


def test_locked_regions_ignore_strokes_and_do_not_grow(proposal: Proposal) -> None:
    work = Refinement(proposal, tissues=5)
    work.scribble(click(TRUTH == 2), region=30)
    work.lock(30)
    kept = work.labels == 30
    mixed = np.concatenate([np.argwhere(kept)[:4], click(TRUTH == 4)])
    work.scribble(mixed, region=31)
    work.scribble(click(TRUTH == 1), region=0)
    assert np.array_equal(work.labels == 30, kept)
    assert "4 skipped" in work.history[-2]
    with pytest.raises(EditError, match="locked"):
        work.scribble(np.argwhere(kept)[:4], region=31)


def test_strokes_follow_merges(proposal: Proposal) -> None:
    work = Refinement(proposal)
    work.scribble(click(TRUTH == 2), region=1)
    work.scribble(click(TRUTH == 3), region=2)
    work.merge([1, 2])
    work.scribble(click(TRUTH == 1), region=0)
    assert set(np.unique(work.labels)) == {0, 1}
    assert dice(work.labels == 1, np.isin(TRUTH, (2, 3, 4, 5))) > 0.6


def test_the_order_of_voxels_in_a_stroke_does_not_matter(proposal: Proposal) -> None:
    stroke = click(TRUTH == 2, radius=2)
    one, two = Refinement(proposal, regions=20), Refinement(proposal, regions=20)
    one.scribble(stroke, region=30)
    two.scribble(stroke[::-1], region=30)
    assert np.array_equal(one.labels, two.labels)


def test_a_user_who_clicks_on_errors_gets_there_in_a_few_clicks(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    for organ in range(6):
        work.scribble(click(organ == TRUTH), region=organ)
    clicks = 0
    while (worst := _largest_part(work.labels != TRUTH)).sum() > 20 and clicks < 10:
        organ = int(np.bincount(TRUTH[worst]).argmax())
        work.scribble(click(worst & (organ == TRUTH)), region=organ)
        clicks += 1
    reachable = _best_labels(proposal)
    for organ in range(6):
        assert dice(work.labels == organ, organ == TRUTH) > 0.95 * dice(
            reachable == organ, organ == TRUTH
        )


def _largest_part(mask: np.ndarray) -> np.ndarray:
    parts, _ = ndi.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (parts == sizes.argmax()) & mask


def _best_labels(proposal: Proposal) -> np.ndarray:
    votes = np.zeros((proposal.n_supervoxels, 6), np.int64)
    np.add.at(votes, (proposal.supervoxels.ravel(), TRUTH.ravel()), 1)
    return votes.argmax(axis=1)[proposal.supervoxels]


def test_suggestions_are_uncertain_places_inside_their_region(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=8)
    work.lock(1)
    found = work.view.suggestions(6)
    assert len(found) == 6
    for place in found:
        assert work.view.region_at(place.voxel_zyx) == place.region != 1
        assert np.allclose(
            proposal.volume.geometry.world_from_voxel(place.voxel_zyx), place.ras_mm
        )
    assert Refinement(proposal).view.suggestions(0) == []


def test_taking_what_was_previewed_gives_the_same_labels_as_stroking_at_once(
    proposal: Proposal,
) -> None:
    strokes = [click(TRUTH == 2), click(TRUTH == 3)]
    looked, at_once = Refinement(proposal, regions=4), Refinement(proposal, regions=4)
    for work in (looked, at_once):
        if work is looked:
            preview_strokes(
                work, [(stroke, None) for stroke in strokes], scope="everywhere"
            )
        work.scribble(strokes[0])
        # an edit in between: the second stroke is no longer what was previewed
        work.rename(work.regions[0].id, "one")
        work.scribble(strokes[1])
        work.undo()
        work.redo()
    np.testing.assert_array_equal(looked.labels, at_once.labels)
    assert looked.history == at_once.history
