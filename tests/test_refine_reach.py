"""Strokes earn their reach: what earlier evidence speaks for, a later stroke leaves."""

from __future__ import annotations

import numpy as np
import pytest

from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.history.edit_serialization import (
    edit_from_record,
    record_from_edit,
)
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.preview import preview_strokes
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Geometry, Volume
from phantoms import ball, phantom_proposal

SHAPE = (24, 32, 36)
BRAIN, RIM, CORE, OUTSIDE = 300.0, 700.0, 310.0, 0.0
HEAD = ball(SHAPE, (12, 16, 18), 16)
LESION = ball(SHAPE, (12, 16, 10), 6)
HEART = ball(SHAPE, (12, 16, 10), 3)
"""The lesion has two faces: a bright rim, and a core as dark as the healthy brain."""


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    data = np.full(SHAPE, OUTSIDE)
    data[HEAD], data[LESION], data[HEART] = BRAIN, RIM, CORE
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    geometry = Geometry.from_spacing(SHAPE, (1, 1, 1))
    return phantom_proposal(
        Volume((data + noise).astype(np.float32), geometry, "mr", name="two faces")
    )


def at(z: int, y: int, x: int) -> np.ndarray:
    return np.argwhere(ball(SHAPE, (z, y, x), 1.5))


def lesion_and_brain(proposal: Proposal) -> Refinement:
    work = Refinement(proposal)
    work.scribble(at(12, 16, 25), region=1)
    work.scribble(at(12, 16, 5), region=2)
    return work


def test_a_click_on_the_dark_core_of_a_bright_lesion_leaves_the_brain(
    proposal: Proposal,
) -> None:
    work = lesion_and_brain(proposal)
    before = work.labels
    assert (before[HEART] == 2).mean() < 0.5
    work.scribble(at(12, 16, 10), region=2)
    after, brain = work.labels, HEAD & ~LESION
    assert (after[HEART] == 2).mean() > 0.9
    assert (after[brain & (before == 1)] == 1).mean() > 0.98
    rim = LESION & ~HEART
    assert (after[rim] == 2).sum() >= (before[rim] == 2).sum()


def test_a_stroke_moves_supervoxels_to_its_own_region_only_and_undoes_no_stroke(
    proposal: Proposal,
) -> None:
    work = lesion_and_brain(proposal)
    shown = [(at(12, 16, 25), 1), (at(12, 16, 5), 2)]
    rng = np.random.default_rng(1)
    for _ in range(12):
        region = int(rng.integers(1, 3))
        where = np.argwhere(LESION if region == 2 else HEAD & ~LESION)
        voxels = where[[rng.integers(len(where))]]
        before = work.labels
        work.scribble(voxels, region=region)
        moved = work.labels != before
        assert (work.labels[moved] == region).all()
        shown = [(v, r) for v, r in shown if not (v[:, None] == voxels).all(-1).any()]
        shown.append((voxels, region))
        for stroked, own in shown:
            assert (work.labels[tuple(stroked.T)] == own).all()


def test_replay_of_strokes_gives_the_same_labels_also_where_a_model_was_cached(
    proposal: Proposal,
) -> None:
    work = lesion_and_brain(proposal)
    work.scribble(at(12, 16, 10), region=2)
    work.scribble(at(12, 24, 20), region=1, scope="here", reach=Reach(4.0, 3.0))
    assert np.array_equal(work.replay(proposal).labels, work.labels)
    work._session.index.model_cache.clear()
    work.undo()
    work.undo()
    work.scribble(at(12, 16, 10), region=2)
    work.scribble(at(12, 24, 20), region=1, scope="here", reach=Reach(4.0, 3.0))
    assert np.array_equal(work.replay(proposal).labels, work.labels)


def test_a_pure_stroke_here_stays_in_its_tissue_and_within_its_reach(
    proposal: Proposal,
) -> None:
    work, taken = Refinement(proposal), {}
    for mm in (3.0, 30.0):
        region = work.scribble(at(12, 16, 24), scope="here", reach=Reach(mm))
        taken[mm] = work.labels == region
        work.undo()
    assert not (taken[30.0] & (LESION & ~HEART | ~HEAD)).any()
    assert taken[3.0].sum() < 0.5 * taken[30.0].sum()
    distance = np.abs(np.argwhere(taken[3.0]) - (12, 16, 24)).max()
    assert distance <= 3 + 2 * 4  # reach, and half a block at both ends


def test_strokes_keep_their_reach_in_files_and_old_ones_their_method(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    work.scribble(at(12, 16, 25), scope="here", reach=Reach(7.0, 1.5))
    edit = work._session.journal.done[-1].edit
    record, points = record_from_edit(edit)
    assert record["reach"] == (7.0, 1.5)
    again = edit_from_record({**record, "reach": [7.0, 1.5]}, points)
    assert again.reach == edit.reach
    del record["reach"]
    old = edit_from_record(record, points)
    assert old.reach is None
    first = old.apply(Refinement(proposal)._session.state, work._session.index).state
    assert not np.array_equal(first.assigned, work._session.state.assigned)


def test_a_preview_tells_volume_and_intensity_of_what_would_be_taken(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal)
    voxels = at(12, 16, 24)
    preview = preview_strokes(work, [(voxels, None)], scope="here")
    effect, taken = preview.effect, preview.then.labels > 0
    assert effect.volume_ml == pytest.approx(taken.sum() / 1000)
    values = proposal.volume.data[taken]
    assert effect.mean == pytest.approx(values.mean(), rel=1e-4)
    assert effect.spread == pytest.approx(values.std(), rel=1e-3)
    assert effect.stroke_mean == pytest.approx(
        proposal.volume.data[tuple(voxels.T)].mean(), rel=1e-4
    )
    assert not effect.parts_from_stroke
    assert str(effect).startswith("+")
    assert "within 10 mm" in str(effect)
    assert not work.history
