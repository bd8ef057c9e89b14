"""Edits, ids, locks, slider and undo, as a person would notice them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.edit_session import Change
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_proposal


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def voxels_of(work: Refinement, region: int, count: int = 20) -> np.ndarray:
    return np.argwhere(work.labels == region)[:count]


def test_first_cut_shows_the_proposals_ids_in_both_trees(proposal: Proposal) -> None:
    assert np.array_equal(
        Refinement(proposal, regions=100).labels, proposal.regions(100).labels
    )
    assert np.array_equal(
        Refinement(proposal, tissues=5).labels, proposal.tissues(5).labels
    )
    assert (
        Refinement(proposal, tissues=5).segmentation.regions
        == proposal.tissues(5).regions
    )
    assert not Refinement(proposal).labels.any()


def test_moving_the_slider_shows_the_proposals_cuts(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    for n in (40, 3, 100, 0, 10):
        work.cut(regions=n)
        assert np.array_equal(work.labels, proposal.regions(n).labels)


def test_other_tree_gets_ids_of_its_own_and_both_keep_theirs(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=10)
    before = work.labels
    work.cut(tissues=4)
    tissues = work.labels
    assert sorted(set(np.unique(tissues)) - {0}) == [11, 12, 13, 14]
    assert [row.name for row in work.regions] == [
        f"tissue {i}" for i in (11, 12, 13, 14)
    ]
    work.cut(regions=10)
    assert np.array_equal(work.labels, before)
    work.cut(tissues=4)
    assert np.array_equal(work.labels, tissues)


def test_merge_keeps_the_first_id_and_name(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    both = np.isin(work.labels, (3, 7))
    work.rename(3, "liver")
    assert work.merge([3, 7]) == 3
    assert np.array_equal(work.labels == 3, both)
    assert 7 not in [row.id for row in work.regions]
    assert work.history[-1] == "Merge: liver + region 7"


def test_split_gives_new_ids_and_the_largest_part_keeps_the_old(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=10)
    whole = work.labels == 1
    new = work.split(1, into=3)
    assert new == [11, 12]
    assert np.array_equal(np.isin(work.labels, [1, *new]), whole)
    sizes = [int((work.labels == i).sum()) for i in (1, *new)]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0


def test_region_0_can_be_split_assigned_and_scribbled(proposal: Proposal) -> None:
    work = Refinement(proposal)
    new = work.split(0, into=3)
    assert len(new) == 2
    assert set(np.unique(work.labels)) == {0, *new}
    corner = work.edits.assign_at([[0, 0, 0]])
    assert work.view.region_at((0, 0, 0)) == corner
    assert (
        work.scribble([[0, 0, 31]], scope="here")
        == work.view.region_at((0, 0, 31))
        == corner + 1
    )


def test_ids_are_never_used_twice_even_after_undo(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    first = work.split(1)
    work.undo()
    second = work.split(2)
    work.merge([2, *second])
    third = work.split(2)
    assert len({*first, *second, *third}) == 3
    with pytest.raises(EditError, match="merged into region 2"):
        work.scribble(voxels_of(work, 1), region=second[0])


def test_edited_regions_survive_the_slider_and_the_other_tree(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=20)
    work.merge([2, 5])
    work.rename(4, "spleen")
    kept = [work.labels == i for i in (2, 4)]
    for move in ({"regions": 3}, {"tissues": 6}, {"regions": 150}, {}, {"regions": 20}):
        work.cut(**move)
        assert all(
            np.array_equal(work.labels == i, where)
            for i, where in zip((2, 4), kept, strict=True)
        )
        assert "spleen" in [row.name for row in work.segmentation.regions]


def test_lock_refuses_edits_and_says_what_to_do(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    work.rename(3, "liver")
    inside, outside = voxels_of(work, 3), voxels_of(work, 4)
    work.lock(3)
    tries: list[Callable[[], object]] = [
        lambda: work.merge([3, 4]),
        lambda: work.merge([4, 3]),
        lambda: work.split(3),
        lambda: work.edits.assign_at(inside, 4),
        lambda: work.edits.assign_at(outside, 3),
        lambda: work.scribble(outside, region=3),
        lambda: work.scribble(inside, region=4),
        lambda: work.paint(outside, 3),
        lambda: work.paint(inside, 4),
    ]
    before, steps = work.labels, work.history
    for attempt in tries:
        with pytest.raises(EditError, match=r"(?i)unlock"):
            attempt()
    assert np.array_equal(work.labels, before)
    assert work.history == steps
    work.unlock(3)
    assert work.merge([3, 4]) == 3


def test_paint_skips_locked_voxels_and_says_how_many(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    inside, outside = voxels_of(work, 3, 6), voxels_of(work, 4, 9)
    work.lock(3)
    work.paint(np.concatenate([inside, outside]), 5)
    assert (work.labels[tuple(inside.T)] == 3).all()
    assert (work.labels[tuple(outside.T)] == 5).all()
    assert "9 voxels (6 skipped" in work.history[-1]


def test_painted_voxels_win_over_everything_and_follow_merges(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=10)
    spots = np.argwhere(work.labels == 1)[::300]
    work.paint(spots, 9)
    work.cut(tissues=5)
    work.scribble(np.argwhere(work.labels > 0)[:30], region=50)
    work.scribble(spots, region=50)
    assert (work.labels[tuple(spots.T)] == 9).all()
    work.merge([50, 9])
    assert (work.labels[tuple(spots.T)] == 50).all()


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda w: w.merge([3]), "at least two"),
        (lambda w: w.merge([3, 77]), "no region 77"),
        (lambda w: w.merge([3, 0]), "background"),
        (lambda w: w.split(3, into=1), "2 parts or more"),
        (lambda w: w.rename(3, "  "), "empty"),
        (lambda w: w.rename(0, "air"), "background"),
        (lambda w: w.edits.recolor(3, (0, 0, 300)), "0 to 255"),
        (lambda w: w.edits.assign([10**6], 3), "Supervoxel ids"),
        (lambda w: w.edits.assign([], 3), "Supervoxel ids"),
        (lambda w: w.paint([[0, 0, 99]], 3), "outside the scan"),
        (lambda w: w.paint([[0.5, 0, 0]], 3), "whole numbers"),
        (lambda w: w.paint([], 3), "z, y, x"),
        (lambda w: w.scribble([[0, 0, 0]], region=-2), "out of range"),
        (lambda w: w.scribble([[0, 0, 0]], region=3, scope="near"), "scope"),
        (lambda w: w.cut(regions=3, tissues=3), "not both"),
        (lambda w: w.cut(regions=-1), "cannot be -1"),
        (lambda w: w.steps.jump(5), "steps 0 to 0"),
    ],
)
def test_bad_edits_say_why_and_change_nothing(
    proposal: Proposal, attempt: Callable[[Refinement], object], says: str
) -> None:
    work = Refinement(proposal, regions=10)
    before, next_id = work.labels, work.view.next_id
    with pytest.raises(EditError, match=says):
        attempt(work)
    assert np.array_equal(work.labels, before)
    assert work.history == ()
    assert work.view.next_id == next_id


def test_threads_get_a_new_region_each_and_undo_a_step_each(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=12)
    ready, made = threading.Barrier(3), []

    def stroke(k: int) -> None:
        ready.wait()
        made.extend(work.scribble([[k, i, 10]], scope="here") for i in range(2, 10))

    def take_back(k: int) -> None:
        ready.wait()
        for _ in range(4):
            work.undo()

    for task in (stroke, take_back):
        threads = [threading.Thread(target=task, args=(k,)) for k in (2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(made)) == 24
    assert (len(work.history), len(work.steps.undone)) == (12, 12)


def test_smoothing_all_where_all_is_locked_says_so(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=2)
    for row in work.regions:
        work.lock(row.id)
    with pytest.raises(EditError, match="no unlocked region to smooth"):
        work.edits.smooth()


def test_consecutive_cuts_are_one_step(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    start = work.labels
    for n in (20, 30, 25):
        work.cut(regions=n)
    work.cut(tissues=4)
    assert len(work.history) == 1
    assert work.undo() == "Cut: 4 tissues"
    assert np.array_equal(work.labels, start)


def test_a_drag_that_ends_where_it_began_leaves_no_step_and_no_stale_redo(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=20)
    start = work.labels
    work.cut(regions=10)
    work.merge([1, 2])
    work.undo()
    work.cut(regions=20)
    assert (work.history, work.steps.undone) == ((), ())
    assert np.array_equal(work.labels, start)


def test_a_long_drag_uses_up_no_ids_for_what_it_only_passed(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    for n in (60, 200, 90, 12):
        work.cut(regions=n)
        assert np.array_equal(work.labels, proposal.regions(n).labels)
    assert work.view.next_id == 13
    assert work.split(1) == [13]
    again = work.replay(phantom_proposal())
    assert np.array_equal(again.labels, work.labels)
    assert again.view.next_id == work.view.next_id


def test_a_drag_that_goes_on_after_an_undo_uses_no_id_twice(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    work.cut(regions=12)
    first = work.split(1)
    work.undo()
    work.cut(regions=15)
    assert first[0] not in work.labels
    assert work.split(2)[0] > max(first)


def test_undo_redo_and_jump_are_exact(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    seen = [(work.labels, work.regions)]
    work.merge([1, 2])
    seen.append((work.labels, work.regions))
    work.scribble(voxels_of(work, 3), region=30)
    seen.append((work.labels, work.regions))
    work.rename(30, "kidney")
    seen.append((work.labels, work.regions))
    for step in (0, 3, 1, 2, 0, 3):
        work.steps.jump(step)
        assert len(work.history) == step
        assert np.array_equal(work.labels, seen[step][0])
        assert work.regions == seen[step][1]
    assert [work.undo() for _ in range(4)] == [*reversed(work.steps.undone), None]
    assert [work.redo() is None for _ in range(4)] == [False, False, False, True]


def test_listeners_hear_the_box_that_changed_and_no_more(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    heard: list[Change] = []
    stop = work.steps.on_change(heard.append)
    shown = work.labels
    for edit in (
        lambda: work.merge([1, 2]),
        lambda: work.paint([[5, 6, 7], [9, 9, 9]], 4),
        lambda: work.split(4),
        work.undo,
        lambda: work.cut(tissues=3),
        lambda: work.steps.jump(0),
    ):
        edit()
        box = heard[-1].box
        assert box is not None
        shown = shown.astype(work.view.label_dtype)
        shown[box] = work.view.labels_in(box)
        assert np.array_equal(shown, work.labels)
    work.rename(3, "liver")
    assert heard[-1].box is None
    assert heard[-1].regions
    stop()
    work.undo()
    assert len(heard) == 7


def test_replaying_the_steps_gives_the_same_labels_and_ids(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    work.cut(regions=30)
    work.cut(regions=12)
    work.split(1)
    work.undo()
    work.scribble(voxels_of(work, 2), scope="here")
    work.split(3, into=3)
    again = work.replay(phantom_proposal())
    assert np.array_equal(again.labels, work.labels)
    assert again.regions == work.regions
    assert again.history == work.history


def random_edit(work: Refinement, rng: np.random.Generator) -> None:
    ids = [row.id for row in work.regions] or [1]
    one, two = (int(i) for i in rng.choice(ids, 2))
    spot = rng.integers(0, work.labels.shape, (int(rng.integers(1, 40)), 3))
    near = np.clip(
        spot[:1] + rng.integers(-2, 3, (30, 3)), 0, np.array(work.labels.shape) - 1
    )
    target = [one, 0, None][int(rng.integers(3))]
    edits: list[Callable[[], object]] = [
        lambda: work.cut(regions=int(rng.integers(0, 60))),
        lambda: work.cut(tissues=int(rng.integers(0, 12))),
        lambda: work.merge([one, two]),
        lambda: work.merge([0, two]),
        lambda: work.split(one, into=int(rng.integers(2, 4))),
        lambda: work.edits.assign_at(spot[:5], target),
        lambda: work.rename(one, f"name {rng.integers(9)}"),
        lambda: work.scribble(near, region=target, scope="here"),
        lambda: work.scribble(near, region=target, scope="everywhere"),
        lambda: work.paint(spot, target),
        work.undo,
        work.undo,
        work.redo,
        lambda: work.steps.jump(
            int(rng.integers(max(0, len(work.history) - 4), len(work.history) + 1))
        ),
    ]
    edits[int(rng.integers(len(edits)))]()


@pytest.mark.parametrize("seed", [0, 1])
def test_500_random_edits_keep_locks_painted_voxels_and_the_books(
    proposal: Proposal, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    work = Refinement(proposal, regions=12)
    painted = np.argwhere(work.labels == 6)[:40]
    work.paint(painted, 5)
    work.lock(3)
    work.lock(5)
    locked = {i: work.labels == i for i in (3, 5)}
    start = len(work.history)
    shown = [work.labels]

    def push(change: Change) -> None:
        if change.box is not None:
            shown[0] = shown[0].astype(np.uint32)
            shown[0][change.box] = work.view.labels_in(change.box)

    work.steps.on_change(push)
    refused = 0
    for _ in range(500):
        before = work.labels
        try:
            random_edit(work, rng)
        except EditError:
            refused += 1
            assert np.array_equal(work.labels, before)
        if len(work.history) < start:
            work.steps.jump(start)
        for region, where in locked.items():
            assert np.array_equal(work.labels == region, where)
        assert np.array_equal(shown[0], work.labels)
        assert work.labels.shape == proposal.supervoxels.shape
    assert refused < 300
    final, rows, steps = work.labels, work.regions, len(work.history)
    assert np.array_equal(work.replay(proposal).labels, final)
    work.steps.jump(0)
    assert np.array_equal(work.labels, proposal.regions(12).labels)
    work.steps.jump(steps)
    assert np.array_equal(work.labels, final)
    assert work.regions == rows
