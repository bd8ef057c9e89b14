"""A case's edits on another proposal of the scan.

What can be carried out is, what cannot is told.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.refine.session.refinement import Refinement, continue_case
from napari_strata.refine.session.replay import replay_edits
from napari_strata.refine.storage.case_file import CaseContents, read_case
from napari_strata.volume import default_regions
from phantoms import phantom_proposal, phantom_truth, phantom_volume

TRUTH = phantom_truth()
LIVER, KIDNEY = 2, 3


def contents(work: Refinement, tmp_path) -> CaseContents:
    work.save(tmp_path / "case.strata")
    return read_case(tmp_path / "case.strata", work.proposal.volume)


def worked_on() -> Refinement:
    """Name, join, part, scribble, paint and mend.

    With a slider that moves in between and a step that is undone.
    """
    work = Refinement(phantom_proposal(), regions=20)
    work.cut(regions=30)
    work.cut(tissues=6)
    organ = int(np.bincount(work.labels[TRUTH == LIVER]).argmax())
    work.rename(organ, "liver")
    work.merge([32, 33])
    work.split(34, into=2)
    work.scribble(np.argwhere(TRUTH == KIDNEY)[::7], region=60, scope="here")
    work.rename(60, "kidney")
    work.paint([[1, 1, 1], [20, 20, 20]], organ)
    work.cut(regions=12)
    work.edits.grow(organ, 2.0)
    work.lock(organ)
    work.edits.recolor(60, (1, 2, 3))
    work.undo()
    return work


def test_on_the_same_proposal_the_labels_are_the_cases_own(tmp_path):
    work = worked_on()
    found = replay_edits(contents(work, tmp_path), phantom_proposal())
    assert np.array_equal(found.segmentation.labels, work.labels)
    assert found.segmentation.regions == work.segmentation.regions
    assert [step.name for step in found.steps] == list(work.history)
    assert {step.status for step in found.steps} == {"carried out"}


def test_on_another_proposal_edits_find_their_regions_by_place_and_not_by_number(
    tmp_path,
):
    work = Refinement(phantom_proposal(), regions=25)
    mostly = np.bincount(work.labels[TRUTH == LIVER], minlength=26) / np.bincount(
        work.labels.ravel(), minlength=26
    )
    organ = np.flatnonzero(mostly > 0.5).tolist()
    assert len(organ) > 1
    work.merge(organ)
    work.rename(organ[0], "liver")
    work.edits.assign_at(np.argwhere(ndi.binary_erosion(TRUTH == KIDNEY)), region=60)
    work.rename(60, "kidney")
    work.paint([[1, 1, 1], [20, 20, 20]], organ[0])
    other = phantom_proposal(phantom_volume(), block=5)
    found = replay_edits(contents(work, tmp_path), other)
    assert not found.lost
    names = {region.name: region.id for region in found.segmentation.regions}
    for name in ("liver", "kidney"):
        (old,) = [region.id for region in work.regions if region.name == name]
        was, now = work.labels == old, found.segmentation.labels == names[name]
        assert 2 * (was & now).sum() / (was.sum() + now.sum()) > 0.7
    assert found.segmentation.labels[1, 1, 1] == names["liver"], (
        "a painted voxel is where it was"
    )
    again = continue_case(found.contents)
    again.steps.jump(0)
    assert "liver" not in {region.name for region in again.regions}, (
        "the edits can be undone one by one"
    )


def test_an_edit_of_a_region_that_is_gone_is_told_and_the_rest_goes_on(tmp_path):
    work = Refinement(phantom_proposal(), regions=60)
    sizes = np.bincount(work.labels.ravel())
    small = int(np.argmin(np.where(sizes > 0, sizes, sizes.max())))
    work.rename(small, "speck")
    work.paint([[3, 3, 3]], 900)
    coarse = phantom_proposal(phantom_volume(), block=16)
    found = replay_edits(contents(work, tmp_path), coarse)
    assert [step.status for step in found.steps] == ["not carried out", "carried out"]
    assert "no counterpart" in found.lost[0].why
    assert found.lost[0].name == work.history[0]
    assert found.segmentation.labels[3, 3, 3] == 900


@pytest.mark.parametrize("paints", [False, True])
def test_a_start_whose_numbers_are_shared_keeps_them(paints, tmp_path):
    work = Refinement(phantom_proposal(), tissues=5)
    organ = int(np.bincount(work.labels[TRUTH == LIVER]).argmax())
    work.rename(organ, "liver")
    work.cut(tissues=3)
    work.paint([[2, 2, 2]], 99 if paints else organ)
    proposal = phantom_proposal(phantom_volume(), block=5)
    shared = proposal.tissues(5)
    found = replay_edits(contents(work, tmp_path), proposal, shown=shared)
    labels = found.segmentation.labels
    assert [step.status for step in found.steps] == [
        "carried out",
        "not needed",
        "carried out",
    ]
    changed = labels != shared.labels
    assert np.argwhere(changed).tolist() == [[2, 2, 2]]
    (liver,) = [
        region.id for region in found.segmentation.regions if region.name == "liver"
    ]
    assert liver == int(np.bincount(shared.labels[TRUTH == LIVER]).argmax())
    assert labels[2, 2, 2] == (99 if paints else liver)


def test_regions_that_a_person_made_take_no_number_of_the_cohort_even_one_that_this_scan_lacks(
    tmp_path,
):
    work = Refinement(phantom_proposal(), tissues=5)
    parted = int(np.bincount(work.labels.ravel(), minlength=6)[1:].argmax()) + 1
    work.paint([[2, 2, 2]], 6)
    work.rename(6, "lesion")
    work.split(parted, into=2)
    proposal = phantom_proposal(phantom_volume(), block=5)
    cut = proposal.tissues(5)
    of_eight = np.array([0, 1, 2, 3, 4, 7], cut.labels.dtype)
    shown = replace(
        cut, labels=of_eight[cut.labels], regions=default_regions(range(1, 9), "tissue")
    )
    found = replay_edits(contents(work, tmp_path), proposal, shown=shown)
    assert not found.lost
    labels, names = (
        found.segmentation.labels,
        {region.id: region.name for region in found.segmentation.regions},
    )
    assert names[labels[2, 2, 2]] == "lesion"
    assert min(set(np.unique(labels).tolist()) - {0, 1, 2, 3, 4, 7}) > 8, (
        "5, 6 and 8 are tissues of other scans"
    )
    assert len(names) == 7
