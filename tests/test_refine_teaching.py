"""What a person notices while teaching.

Obedience, look-alikes, leaks, named regions, and where to look next.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.scribble.geodesic import GeodesicDistances
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_proposal, phantom_truth

TRUTH = phantom_truth()
PARTS = ndi.label(TRUTH == 2)[0]
"""Two look-alike organs: 1 and 2."""


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def ball(mask: np.ndarray, radius: int = 1) -> np.ndarray:
    """Give a small stroke around the deepest voxel of a mask."""
    deep = np.unravel_index(
        ndi.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1].argmax(),
        mask.shape,
    )
    near = np.argwhere(
        ((np.stack(np.indices(mask.shape), -1) - deep) ** 2).sum(axis=-1) <= radius**2
    )
    return near[mask[tuple(near.T)]]


def taught(
    proposal: Proposal, classes: tuple[int, ...] = (1, 2, 3, 4, 5)
) -> Refinement:
    """Click once on each class; the body (1) is region 0."""
    work = Refinement(proposal)
    for organ in classes:
        work.scribble(ball(organ == TRUTH), region=0 if organ == 1 else organ)
    return work


def test_here_takes_one_of_two_look_alikes_and_everywhere_takes_both(
    proposal: Proposal,
) -> None:
    for scope, other in (("here", False), ("everywhere", True)):
        work = Refinement(proposal)
        taken = work.scribble(ball(PARTS == 1), scope=scope) == work.labels
        assert taken[PARTS == 1].mean() > 0.6
        assert (taken[PARTS == 2].mean() > 0.6) == other


def test_every_correction_is_obeyed_at_once_and_stays(proposal: Proposal) -> None:
    work, told = taught(proposal), []
    rng = np.random.default_rng(0)
    for voxel in rng.permutation(np.argwhere(TRUTH > 0))[:15]:
        region = 0 if TRUTH[tuple(voxel)] == 1 else int(TRUTH[tuple(voxel)])
        work.scribble(voxel[None], region=region)
        told.append((voxel, region))
        assert all(work.view.region_at(place) == said for place, said in told)


def test_one_click_on_the_body_stops_a_leak(proposal: Proposal) -> None:
    work = Refinement(proposal)
    stroke = np.concatenate([ball(TRUTH == 2), ball(TRUTH == 3)])
    region = work.scribble(stroke)
    leaked = (work.labels == region) & (TRUTH == 1)
    work.scribble(ball(leaked if leaked.any() else TRUTH == 1), region=0)
    assert ((work.labels == region) & (TRUTH == 1)).sum() <= 0.05 * (TRUTH == 1).sum()
    assert (work.labels == region)[TRUTH == 2].mean() > 0.6


def test_a_click_per_class_tells_all_organs_from_the_body(proposal: Proposal) -> None:
    labels = taught(proposal).labels
    for organ in (2, 3, 4, 5):
        both = ((labels == organ) & (organ == TRUTH)).sum()
        assert 2 * both / ((labels == organ).sum() + (organ == TRUTH).sum()) > 0.7


def test_what_is_unlike_everything_taught_goes_to_the_background(
    proposal: Proposal,
) -> None:
    labels = taught(proposal, (1, 2)).labels
    # 0.77 of it lies in supervoxels that are its own
    assert (labels == 2)[TRUTH == 2].mean() > 0.7
    assert (labels == 2)[TRUTH == 5].mean() < 0.2


def test_a_named_region_teaches_too(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=30)
    region = work.view.region_at(ball(PARTS == 1, 0)[0])
    work.rename(region, "kidney")
    mine = (work.labels == region) & (PARTS == 1)
    work.scribble(ball(TRUTH == 1), region=0)
    labels = work.labels
    assert (labels == region)[mine].mean() > 0.9
    assert (labels == region)[PARTS == 2].mean() > 0.5
    assert (labels == region)[TRUTH == 1].mean() < 0.1


def test_the_same_strokes_give_the_same_labels_and_suggestions(
    proposal: Proposal, tmp_path
) -> None:
    one, two = taught(proposal), taught(phantom_proposal())
    assert np.array_equal(one.labels, two.labels)
    assert one.view.suggestions(8) == two.view.suggestions(8)
    one.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata", volume=proposal.volume)
    assert again.view.suggestions(8) == two.view.suggestions(8)


def test_suggestions_say_why_and_lie_apart(proposal: Proposal) -> None:
    work = taught(proposal)
    found = work.view.suggestions(6)
    places = (
        np.array([place.voxel_zyx for place in found]) * proposal.volume.spacing_zyx_mm
    )
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=-1)) + 99 * np.eye(
        len(places)
    )
    assert len(found) == 6
    assert apart.min() > 2
    assert all(
        place.reason.endswith(".")
        and place.kind in ("strokes", "unlike", "neighbours", "confidence")
        for place in found
    )


def test_suggestions_learn_from_what_strokes_correct_and_undo_takes_it_back(
    proposal: Proposal,
) -> None:
    work = taught(proposal)
    before = work.view.suggestions(8)
    for place in before[:3]:
        said = int(TRUTH[place.voxel_zyx])
        work.scribble([place.voxel_zyx], region=0 if said <= 1 else said)
    after = work.view.suggestions(8)
    assert not {place.voxel_zyx for place in before[:3]} & {
        place.voxel_zyx for place in after
    }
    for _ in range(3):
        work.undo()
    assert work.view.suggestions(8) == before


def test_what_nobody_taught_is_suggested_as_unlike_everything(
    proposal: Proposal,
) -> None:
    found = taught(proposal, (1, 2)).view.suggestions(40)
    unlike = [place for place in found if TRUTH[place.voxel_zyx] >= 3]
    assert unlike
    assert any(
        place.kind == "unlike" and "Unlike everything" in place.reason
        for place in unlike
    )


def test_a_way_is_short_through_what_is_alike_and_long_across_an_edge() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0]], np.float32)
    ways = GeodesicDistances(points, np.array([[0, 1], [1, 2], [2, 3]]))
    length = ways.distance(np.array([0]))
    assert length[0] == 0
    assert length[3] > 10 * length[2]
    assert np.array_equal(length, ways.distance(np.array([0])))
