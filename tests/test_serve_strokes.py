"""Strokes through the server give what they give in the window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_strata.refine.history.initial_state import InitialState, structure_state
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.serve.strokes import StrokeWork, stroke_request
from napari_strata.volume import Region, Segmentation
from phantoms import ball, phantom_proposal, phantom_truth

ROW = Region(1, "structure", (1, 2, 3))
NAMES = [
    {"name": "structure", "id": 1},
    {"name": "background_scribbles", "id": 2},
    {"name": "foreground_scribbles", "id": 3},
]


@pytest.fixture(scope="module")
def proposal():
    return phantom_proposal()


def same(one, other) -> bool:
    """Whether two states hold the same tables."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in (
            "assigned",
            "pinned",
            "before_spread",
            "cut_voxels",
            "leaf_parents",
        )
    )


def test_a_structure_starts_a_case_as_labels_do(proposal):
    index = ProposalIndex(proposal)
    for center in ((12, 14, 10), (3, 3, 3), (20, 8, 25)):
        mask = ball(proposal.supervoxels.shape, center, 6.5)
        labels = Segmentation(mask.astype(np.uint8), (ROW,), proposal.volume.geometry)
        expected = InitialState.from_labels(proposal, labels).state(index)
        found = structure_state(index, mask, ROW)
        assert same(found, expected)
        assert (found.rows, found.next_id) == (expected.rows, expected.next_id)


def test_the_server_answers_what_scribbling_in_the_library_gives(proposal):
    truth = phantom_truth()
    beside, on = np.argwhere(truth == 1)[:15], np.argwhere(truth == 3)[:15]
    labels = np.zeros(truth.shape, np.uint8)
    labels[tuple(beside.T)], labels[tuple(on.T)] = 2, 3
    sent = Segmentation(labels, (), proposal.volume.geometry)
    request = stroke_request(
        sent, {"label_info": NAMES, "selected_label_name": "structure"}, proposal
    )
    found = StrokeWork(proposal).answer(request)
    work = Refinement(proposal)
    work.scribble(beside, region=0)
    work.scribble(on, region=1)
    assert np.array_equal(found.labels, work.labels)
    assert found.labels.any()


def test_a_stroke_that_takes_only_part_of_a_supervoxel_spreads_no_further(proposal):
    work = Refinement(proposal)
    inside = np.argwhere(proposal.supervoxels == proposal.supervoxels[12, 14, 10])
    work.scribble(inside[: len(inside) - 2], region=1, scope="here")
    before = work.labels
    work.scribble(inside[-1:], region=2, scope="here")
    changed = np.argwhere(work.labels != before)
    assert {tuple(place) for place in changed} <= {tuple(place) for place in inside}
    assert work.labels[tuple(inside[-1])] == 2
