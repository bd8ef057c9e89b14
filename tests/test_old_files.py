"""Cases, codebooks and teachings of the first version open, and say the same as then.

The files in old_files/ were written at commit 0fdbd1f, before classes and fields were renamed.
"""

from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.refine.history.edit_serialization import record_from_edit

OLD = Path(__file__).parent / "old_files"


@pytest.fixture(scope="module")
def work():
    return strata.Refinement.load(OLD / "case.strata")


def test_an_old_case_opens_with_its_labels_and_its_history(work, tmp_path):
    kept = np.load(OLD / "case_labels.npy")
    assert np.array_equal(work.labels, kept)
    assert [step.partition(":")[0] for step in work.history] == [
        *("Merge", "Rename", "Scribble", "Paint", "Grow", "Split")
    ]
    assert len(work.steps.undone) == 2
    work.steps.jump(0)
    work.steps.jump(6)
    assert np.array_equal(work.labels, kept)
    work.save(tmp_path / "again.strata")
    assert strata.Refinement.load(tmp_path / "again.strata").history == work.history


def test_steps_are_written_under_the_names_that_old_versions_read(work):
    scribble = work._session.journal.done[2].edit
    record, _ = record_from_edit(scribble)
    assert set(record) == {"kind", "region", "scope", "by_brightness"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(strata.Codebook, "codebook"), (strata.Teaching, "teaching")],
)
def test_old_codebooks_and_teachings_apply_and_are_written_as_before(
    work, tmp_path, kind, name
):
    path = OLD / f"{name}.strata-{name}"
    opened = kind.load(path)
    labels = opened.apply(work.proposal).segmentation(work.proposal).labels
    assert np.mean(labels == np.load(OLD / f"{name}_labels.npy")) > 0.999
    opened.save(tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
