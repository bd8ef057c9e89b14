"""Region edits at voxel level.

What they change, what they leave, and that they can be undone and carried out again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.errors import EditError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Geometry, Segmentation, Volume, default_regions
from phantoms import phantom_proposal, phantom_truth, phantom_volume

TRUTH = phantom_truth()


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def started(proposal: Proposal, labels: np.ndarray) -> Refinement:
    segmentation = Segmentation(
        labels.astype(np.uint8),
        default_regions(np.unique(labels)),
        proposal.volume.geometry,
    )
    return Refinement.from_labels(proposal, segmentation)


def ball(
    center: tuple[int, int, int],
    radius_mm: float,
    spacing: tuple[float, float, float] = (2, 1, 1),
) -> np.ndarray:
    offsets = (np.indices(TRUTH.shape).T - np.array(center)) * spacing
    return ((offsets**2).sum(axis=-1) <= radius_mm**2).T


def test_fill_holes_takes_what_is_enclosed_and_not_what_is_painted_or_locked(
    proposal: Proposal,
) -> None:
    labels = np.where(ball((12, 14, 16), 9), 1, 0)
    holes = [ball((12, 11, 12), 1.5), ball((12, 17, 12), 1.5), ball((12, 14, 20), 1.5)]
    labels[holes[0]], labels[holes[1]], labels[holes[2]] = 0, 3, 0
    labels[:, 14, 25] = 0
    work = started(proposal, labels)
    work.lock(3)
    spot = np.argwhere(holes[2])[:2]
    work.paint(spot, 0)
    work.edits.fill_holes(1)
    after = work.labels
    assert (after[holes[0]] == 1).all()
    assert (after[holes[1]] == 3).all()
    assert (after[tuple(spot.T)] == 0).all()
    assert (after[holes[2]] == 1).sum() == holes[2].sum() - 2
    assert np.array_equal(after != labels, (holes[0] | holes[2]) & (after == 1))
    assert work.history[-1].startswith("Fill holes: region 1, ")
    with pytest.raises(EditError, match="no holes"):
        work.edits.fill_holes(1)


def test_only_holes_up_to_a_volume_are_filled(proposal: Proposal) -> None:
    labels = np.where(ball((12, 14, 16), 9), 1, 0)
    labels[12, 14, 16] = 0
    labels[ball((12, 14, 11), 2.1)] = 0
    work = started(proposal, labels)
    work.edits.fill_holes(1, largest_ml=0.004)
    assert work.view.region_at((12, 14, 16)) == 1
    assert work.view.region_at((12, 14, 11)) == 0


def test_islands_go_to_what_surrounds_them_and_the_largest_part_stays(
    proposal: Proposal,
) -> None:
    labels = np.zeros(TRUTH.shape, int)
    labels[:, :14] = 2
    big, in_two, in_none = (
        ball((12, 20, 20), 6),
        ball((6, 5, 8), 2),
        ball((20, 22, 6), 3),
    )
    labels[big | in_two | in_none] = 1
    work = started(proposal, labels)
    work.edits.remove_islands(1, smaller_than_ml=0.08)
    assert (work.labels[in_two] == 2).all()
    assert (work.labels[in_none] == 1).all()
    work.undo()
    work.edits.keep_largest(1)
    assert np.array_equal(work.labels == 1, big)
    assert (work.labels[in_none] == 0).all()
    with pytest.raises(EditError, match="no islands"):
        work.edits.keep_largest(1)


def test_growing_and_shrinking_are_in_mm_along_every_axis(proposal: Proposal) -> None:
    labels = np.zeros(TRUTH.shape, int)
    labels[10:14, 10:18, 10:20] = 1
    work = started(proposal, labels)
    work.edits.grow(1, 2.0)
    grown = np.argwhere(work.labels == 1)
    assert (grown.min(axis=0).tolist(), grown.max(axis=0).tolist()) == (
        [9, 8, 8],
        [14, 19, 21],
    )
    expected = ndi.distance_transform_edt(labels == 0, sampling=(2, 1, 1)) <= 2.0
    assert np.array_equal(work.labels == 1, expected)
    work.edits.shrink(1, 2.0)
    assert np.array_equal(
        work.labels == 1, ndi.distance_transform_edt(expected, sampling=(2, 1, 1)) > 2.0
    )
    work.steps.jump(0)
    work.edits.grow(1, 1.0)
    assert np.array_equal(np.unique(np.nonzero(work.labels == 1)[0]), np.arange(10, 14))


def test_what_a_region_leaves_goes_to_the_nearest_other_and_growing_can_be_limited(
    proposal: Proposal,
) -> None:
    labels = np.full(TRUTH.shape, 2)
    labels[:, 10:18] = 1
    labels[:, 18:] = 3
    work = started(proposal, labels)
    work.edits.shrink(1, 3)
    assert np.array_equal(np.unique(work.labels[:, :13]), [2])
    assert np.array_equal(np.unique(work.labels[:, 15:]), [3])
    work.steps.jump(0)
    work.edits.grow(1, 3, into=[3])
    assert np.array_equal(work.labels == 2, labels == 2)
    assert (work.labels[:, 18:21] == 1).all()


def test_smoothing_is_joint(proposal: Proposal) -> None:
    rng = np.random.default_rng(0)
    labels = np.ones(TRUTH.shape, int)
    labels[:, :, 16:] = 2
    labels[:, 14:, :] = 3
    rough = np.where(
        rng.random(labels.shape) < 0.12, rng.integers(1, 4, labels.shape), labels
    )
    work = started(proposal, rough)
    work.edits.smooth(sd_mm=2)
    assert (work.labels > 0).all()
    assert (work.labels == labels).mean() > 0.98
    work.undo()
    work.lock(3)
    work.edits.smooth([1], sd_mm=2)
    assert np.array_equal(work.labels == 3, rough == 3)


def test_mirror_copies_to_the_other_side_of_the_body(proposal: Proposal) -> None:
    labels = np.zeros(TRUTH.shape, int)
    left = ball((12, 12, 22), 4)
    labels[left] = 1
    work = started(proposal, labels)
    work.rename(1, "kidney")
    _, normal = work.view.symmetry_plane
    assert abs(normal[0]) > 0.98
    new = work.edits.mirror(1)
    assert np.array_equal(work.labels == 1, left)
    got = work.labels == new
    assert 2 * (got & left[:, :, ::-1]).sum() / (got.sum() + left.sum()) > 0.8
    assert [row.name for row in work.regions] == ["kidney", "kidney mirrored"]
    work.undo()
    exact = work.edits.mirror(1, target=7, point_ras_mm=(0, 0, 0), normal_ras=(2, 0, 0))
    assert exact == 7
    assert np.array_equal(work.labels == 7, left[:, :, ::-1])


def test_the_bodys_plane_is_found_in_a_turned_and_shifted_scan() -> None:
    flat = phantom_volume((24, 28, 32), (2, 2, 2))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    turn[:3, 3] = (30, -5, 8)
    volume = Volume(
        flat.data, Geometry(flat.data.shape, turn @ flat.geometry.affine), "mr"
    )
    point, normal = Refinement(phantom_proposal(volume)).view.symmetry_plane
    assert np.dot(normal, turn[:3, 0]) > 0.995
    assert abs(np.dot(np.array(point) - turn[:3, 3], turn[:3, 0])) < 1.0


def test_split_into_connected_parts_keeps_the_largest_and_leaves_crumbs_with_it(
    proposal: Proposal,
) -> None:
    labels = np.zeros(TRUTH.shape, int)
    parts = [ball((12, 14, 8), 5), ball((12, 14, 24), 4), ball((3, 3, 3), 1)]
    labels[np.any(parts, axis=0)] = 1
    work = started(proposal, labels)
    new = work.edits.split_parts(1, smallest_ml=0.05)
    assert new == [2]
    assert np.array_equal(work.labels == 1, parts[0] | parts[2])
    assert np.array_equal(work.labels == 2, parts[1])
    work.undo()
    assert len(work.edits.split_parts(1)) == 2


def test_split_along_a_plane_and_along_a_drawn_line(proposal: Proposal) -> None:
    box = np.zeros(TRUTH.shape, int)
    box[4:20, 6:22, 6:26] = 1
    work = started(proposal, box)
    x_mm = proposal.volume.geometry.world_from_voxel(np.argwhere(box))[:, 0]
    new = work.edits.split_plane(1, (2.0, 0, 0), (1, 0, 0))
    side = np.zeros(TRUTH.shape, bool)
    side[tuple(np.argwhere(box)[x_mm > 2.0].T)] = True
    assert np.array_equal(work.labels == new[0], side)
    work.undo()
    corner = proposal.volume.geometry.world_from_voxel(
        [[12, 2, 10], [12, 12, 10], [12, 12, 30]]
    )
    new = work.edits.split_line(1, corner, (0, 0, 1))
    inner = (
        (box > 0) & (np.indices(box.shape)[1] < 12) & (np.indices(box.shape)[2] > 10)
    )
    assert (work.labels[inner] == new[0]).mean() > 0.9
    assert (work.labels[(box > 0) & (np.indices(box.shape)[1] > 12)] == 1).all()
    with pytest.raises(EditError, match="one part"):
        work.edits.split_plane(1, (200, 0, 0), (1, 0, 0))


def test_split_by_tissue_parts_what_is_unlike(proposal: Proposal) -> None:
    votes = np.zeros((proposal.n_supervoxels, 6), int)
    np.add.at(votes, (proposal.supervoxels.ravel(), TRUTH.ravel()), 1)
    commonest = votes.argmax(axis=1)
    work = Refinement(proposal)
    work.edits.assign(np.flatnonzero(np.isin(commonest, (2, 5))), 1)
    new = work.split(1, tree="tissues")
    assert (work.view.table[commonest == 2] == 1).all()
    assert (work.view.table[commonest == 5] == new[0]).all()
    assert work.history[-1] == "Split: region 1 into 2 by tissues"


def test_swap_changes_places_and_takes_strokes_and_paint_along(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    two, three = np.argwhere(TRUTH == 2)[:9], np.argwhere(TRUTH == 3)[:9]
    work.scribble(two, region=1)
    work.scribble(three, region=2)
    work.paint([[0, 0, 0]], 1)
    work.rename(1, "liver")
    before = work.labels
    work.edits.swap(1, 2)
    assert np.array_equal(work.labels, np.array([0, 2, 1])[before])
    assert work.regions[0].name == "liver"
    work.scribble(np.argwhere(TRUTH == 1)[:9], region=0)
    assert (work.labels[tuple(two.T)] == 2).all()
    assert (work.labels[tuple(three.T)] == 1).all()
    work.steps.jump(4)
    assert np.array_equal(work.labels, before)
    work.steps.jump(6)
    assert np.array_equal(work.replay(proposal).labels, work.labels)


def test_delete_makes_background(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    gone = np.isin(work.labels, (3, 4))
    work.edits.delete([3, 4])
    assert (work.labels[gone] == 0).all()
    assert work.history == ("Delete: region 3, region 4",)
    work.edits.delete(5)
    assert 5 not in work.labels
    with pytest.raises(EditError, match="merged into background"):
        work.edits.delete(5)


def test_accepting_locks_and_unlocking_takes_it_back(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    work.accept(3)
    row = next(row for row in work.regions if row.id == 3)
    assert row.locked
    assert row.accepted
    with pytest.raises(EditError, match="locked"):
        work.edits.grow(3, 2)
    work.unlock(3)
    assert not next(row for row in work.regions if row.id == 3).accepted
    assert work.history == ("Accept: region 3", "Unlock: region 3")


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda w: w.edits.swap(3, 3), "two different"),
        (lambda w: w.edits.swap(3, 0), "background"),
        (lambda w: w.edits.delete([]), "at least one"),
        (lambda w: w.edits.delete(0), "background"),
        (lambda w: w.edits.grow(3, 0), "200 mm"),
        (lambda w: w.edits.grow(3, float("nan")), "200 mm"),
        (lambda w: w.edits.grow(0, 2), "background"),
        (lambda w: w.edits.smooth(3, sd_mm=0), "mm"),
        (lambda w: w.edits.fill_holes(77), "no region 77"),
        (lambda w: w.edits.keep_largest(0), "background"),
        (lambda w: w.edits.mirror(3, target=3), "two different"),
        (lambda w: w.edits.mirror(3, point_ras_mm=(0, 0, 0)), "point and a normal"),
        (
            lambda w: w.edits.mirror(3, point_ras_mm=(0, 0, 0), normal_ras=(0, 0, 0)),
            "not zero",
        ),
        (
            lambda w: w.edits.mirror(3, point_ras_mm=(900, 0, 0), normal_ras=(1, 0, 0)),
            "outside the scan",
        ),
        (lambda w: w.edits.split_line(3, [(0, 0, 0)], (0, 0, 1)), "two points"),
        (
            lambda w: w.edits.split_line(3, [(0, 0, 0), (0, 0, 5)], (0, 0, 1)),
            "two points",
        ),
        (lambda w: w.edits.split_plane(3, (0, 0, 0), (0, 0, 0)), "cannot be zero"),
        (lambda w: w.edits.split_plane(3, (0, 0), (0, 0, 1)), "three numbers"),
        (lambda w: w.split(3, tree="leaves"), "tree"),
    ],
)
def test_bad_region_edits_say_why_and_change_nothing(
    proposal: Proposal, attempt: Callable[[Refinement], object], says: str
) -> None:
    work = Refinement(proposal, regions=10)
    before, next_id = work.labels, work.view.next_id
    with pytest.raises(EditError, match=says):
        attempt(work)
    assert np.array_equal(work.labels, before)
    assert (work.history, work.view.next_id) == ((), next_id)


def test_none_of_these_edits_changes_painted_voxels(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    spots = np.argwhere(work.labels > 0)[::37]
    work.paint(spots, 9)
    edits: list[Callable[[], object]] = [
        lambda: work.edits.grow(3, 3),
        lambda: work.edits.shrink(9, 2),
        lambda: work.edits.smooth(sd_mm=2),
        lambda: work.edits.smooth([9], sd_mm=2),
        lambda: work.edits.fill_holes(3),
        lambda: work.edits.remove_islands(9, smaller_than_ml=1),
        lambda: work.edits.keep_largest(9),
        lambda: work.edits.mirror(3),
        lambda: work.split(9, into=3),
        lambda: work.edits.split_plane(9, (0, 0, 0), (1, 0, 0)),
        lambda: work.edits.split_parts(9, smallest_ml=0.01),
        lambda: work.scribble(spots[::9], region=4),
        lambda: work.cut(tissues=5),
    ]
    done = 0
    for edit in edits:
        try:
            edit()
        except EditError:
            continue
        done += 1
        assert (work.labels[tuple(spots.T)] == 9).all(), work.history[-1]
    assert done >= 7


def test_cut_pieces_are_found_by_everything_that_follows(proposal: Proposal) -> None:
    work = Refinement(proposal, regions=10)
    work.edits.grow(3, 1.5)
    grown = work.labels == 3
    work.cut(tissues=6)
    assert np.array_equal(work.labels == 3, grown)
    assert work.view.sizes_vox == {
        i: int(n) for i, n in enumerate(np.bincount(work.labels.ravel())) if n
    }
    fresh = work.merge([work.split(3)[0], 3])
    assert np.array_equal(work.labels == fresh, grown)
    place = np.argwhere(grown)[0]
    assert work.edits.assign_at([place], 60) == work.view.region_at(place) == 60
    work.edits.assign(np.arange(5), 61)
    assert len(work.view.suggestions(5)) == 5
    assert work.view.table.shape == (proposal.n_supervoxels,)
    assert np.array_equal(work.replay(phantom_proposal()).labels, work.labels)
