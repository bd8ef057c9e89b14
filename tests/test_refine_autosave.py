"""Work that is saved as it happens.

Killed at any moment it comes back, complete to the last edit.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import napari_strata as strata
from napari_strata.errors import CaseError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.recovery import find_unfinished
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.storage import autosave, autosave_folders
from phantoms import phantom_proposal, phantom_volume

crash = pytest.importorskip(
    "benchmarks.refine.crash", reason="the benchmarks are only in the repository"
)


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state" / "unfinished"
    monkeypatch.setattr(autosave_folders, "state_folder", lambda: folder)
    return folder


def on_disk(folder: Path) -> Proposal:
    data = phantom_volume().data.astype(np.int16)
    nibabel.save(
        nibabel.Nifti1Image(data, np.diag([1.0, 1, 2, 1])), folder / "scan.nii.gz"
    )
    return phantom_proposal(strata.read(folder / "scan.nii.gz"))


def edited(work: Refinement) -> Refinement:
    work.rename(3, "liver")
    work.edits.grow(3, 1.5)
    work.scribble([[12, 13, 8], [12, 13, 9]], region=60)
    work.paint([[1, 1, 1]], 3)
    work.undo()
    work.cut(tissues=5)
    work.cut(tissues=7)
    return work


def crashed(work: Refinement) -> str:
    """Leave as a killed process does: nothing is ended, the lock goes.

    Gives what was on the screen.
    """
    work.storage.end_autosave(keep=True)
    return str(crash.digest(work))


def test_killed_in_the_middle_of_random_edits_everything_comes_back(
    proposal: Proposal,
) -> None:
    figures = crash.crash(proposal, kills=3, edits=24, seed=1)
    assert figures["equal"] == 3
    assert figures["edits"] >= 20


def test_random_edits_leave_locked_regions_painted_voxels_and_the_journal_in_order(
    proposal: Proposal,
) -> None:
    figures = crash.long_run(proposal, edits=300, seed=2, check_every=150)
    assert figures["locked or painted changed"] == 0
    assert figures["checks of undo and replay passed"] == "2 of 2"
    assert figures["resumed equals"]
    assert figures["refused"] < 200


@pytest.mark.parametrize("place", ["state", "beside, as earlier versions did"])
def test_work_leaves_the_folder_of_the_scan_alone_and_is_offered_for_it(
    tmp_path: Path, state_folder: Path, place: str
) -> None:
    work = Refinement(on_disk(tmp_path), regions=10)
    journal = work.storage.begin_autosave(None if place == "state" else tmp_path)
    assert journal.parent == (state_folder if place == "state" else tmp_path)
    assert find_unfinished(tmp_path / "scan.nii.gz") == []
    edited(work)
    assert find_unfinished(tmp_path / "scan.nii.gz") == [], "it still goes on"
    before = crashed(work)
    (found,) = find_unfinished(tmp_path / "scan.nii.gz")
    assert (found.name, found.edits, found.last) == ("scan", 7, "Cut: 7 tissues")
    assert find_unfinished(tmp_path / "other.nii.gz") == []
    again = found.resume()
    assert crash.digest(again) == before
    assert np.array_equal(
        np.asarray(again.proposal.volume.data),
        strata.read(tmp_path / "scan.nii.gz").data,
    )
    again.merge([3, 60])
    after = crashed(again)
    assert (
        crash.digest(find_unfinished(strata.read(tmp_path / "scan.nii.gz"))[0].resume())
        == after
    )


@pytest.mark.parametrize("place", ["state", "beside, as earlier versions did"])
def test_work_on_a_scan_that_moved_is_found_and_goes_on(
    tmp_path: Path, place: str
) -> None:
    old, new = tmp_path / "disk one", tmp_path / "disk two"
    old.mkdir()
    work = Refinement(on_disk(old), regions=10)
    work.storage.begin_autosave(None if place == "state" else old)
    seen = crashed(edited(work))
    old.rename(new)
    (left,) = find_unfinished(strata.read(new / "scan.nii.gz"))
    (by_path,) = find_unfinished(new / "scan.nii.gz")
    assert left.journal == by_path.journal
    again = left.resume(volume=strata.read(new / "scan.nii.gz"))
    assert crash.digest(again) == seen
    again.view.statistics()
    again.storage.end_autosave(keep=True)
    (new / "scan.nii.gz").rename(new / "other.nii.gz")
    assert find_unfinished(new / "other.nii.gz") == []


@pytest.mark.parametrize("begins_with", ["edits", "labels"])
def test_what_came_before_the_journal_is_on_the_disk_before_the_first_edit(
    proposal: Proposal, tmp_path: Path, begins_with: str
) -> None:
    work = Refinement(proposal, regions=10)
    if begins_with == "edits":
        edited(work)
    else:
        work = Refinement.from_labels(proposal, work.segmentation)
    journal = work.storage.begin_autosave(tmp_path)
    assert autosave.case_of(journal).exists()
    work.rename(work.regions[-1].id, "spleen")
    seen = crashed(work)
    (left,) = find_unfinished(folder=tmp_path)
    assert crash.digest(left.resume()) == seen


def test_a_cut_off_journal_gives_the_edits_before(
    proposal: Proposal, tmp_path: Path
) -> None:
    work = Refinement(proposal, regions=10)
    journal = work.storage.begin_autosave(tmp_path)
    work.merge([1, 2])
    kept = crash.digest(work)
    size = journal.stat().st_size
    work.merge([1, 3])
    crashed(work)
    whole = journal.read_bytes()
    for end in (size, size + 5, (size + len(whole)) // 2, len(whole) - 1):
        journal.write_bytes(whole[:end])
        again = find_unfinished(folder=tmp_path)[0].resume()
        assert crash.digest(again) == kept
        crashed(again)
    journal.write_bytes(whole[: size + 30] + bytes(8) + whole[size + 38 :])
    again = find_unfinished(folder=tmp_path)[0].resume()
    assert crash.digest(again) == kept
    again.merge([1, 4])
    assert crash.digest(find_unfinished_after(again, tmp_path)) == crash.digest(again)


def find_unfinished_after(work: Refinement, folder: Path) -> Refinement:
    crashed(work)
    return find_unfinished(folder=folder)[0].resume()


def test_other_files_of_that_name_are_passed_over(
    proposal: Proposal, tmp_path: Path
) -> None:
    for number, content in enumerate(
        (
            b"",
            b"strata-journal 1\n",
            b"strata-journal 9\n{}\n",
            b"strata-journal 1\n[1]\n",
            bytes(range(256)),
        )
    ):
        (tmp_path / f"{number}.strata-journal").write_bytes(content)
    work = Refinement(proposal, regions=10)
    work.storage.begin_autosave(tmp_path)
    crashed(edited(work))
    assert len(find_unfinished(folder=tmp_path)) == 1


def test_saved_work_is_not_offered_again_until_it_is_edited(
    proposal: Proposal, tmp_path: Path
) -> None:
    work = edited(Refinement(proposal, regions=10))
    work.storage.begin_autosave(tmp_path)
    assert crash.digest(find_unfinished_after(work, tmp_path)) == crash.digest(work)
    work.storage.begin_autosave(tmp_path / "two")
    work.save(tmp_path / "case.strata")
    crashed(work)
    assert find_unfinished(folder=tmp_path / "two") == []
    work = Refinement.load(tmp_path / "case.strata")
    work.storage.begin_autosave(tmp_path / "three")
    work.rename(3, "spleen")
    assert crash.digest(
        find_unfinished_after(work, tmp_path / "three")
    ) == crash.digest(work)


def test_ended_work_leaves_nothing_behind(
    proposal: Proposal, tmp_path: Path, state_folder: Path
) -> None:
    work = Refinement(proposal, regions=10)
    assert work.storage.begin_autosave().parent == state_folder
    edited(work)
    work.storage.end_autosave()
    assert list(state_folder.iterdir()) == []
    work.merge([3, 60])
    work.storage.begin_autosave(tmp_path)
    crashed(work)
    find_unfinished(folder=tmp_path)[0].discard()
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_work_on_a_dicom_folder_lies_in_the_fallback_folder_and_is_found_for_it(
    tmp_path: Path, state_folder: Path
) -> None:
    series = tmp_path / "series"
    series.mkdir()
    work = Refinement(
        phantom_proposal(replace(phantom_volume(), path=str(series))), regions=10
    )
    assert work.storage.begin_autosave().parent == state_folder
    crashed(edited(work))
    assert len(find_unfinished(series)) == len(find_unfinished()) == 1
    assert find_unfinished(tmp_path / "other") == []


def test_work_on_a_scan_made_in_memory_is_known_by_its_voxels(
    proposal: Proposal, state_folder: Path
) -> None:
    work = Refinement(proposal, regions=10)
    work.storage.begin_autosave()
    crashed(edited(work))
    assert len(find_unfinished(phantom_volume())) == 1
    assert find_unfinished(phantom_volume(seed=1)) == []


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0,
    reason=(
        "permissions do not bind root, and Windows has others: run the tests as another"
        " user"
    ),
)
def test_a_read_only_folder_sends_the_work_to_the_fallback_folder(
    tmp_path: Path, state_folder: Path
) -> None:
    work = Refinement(on_disk(tmp_path), regions=10)
    tmp_path.chmod(0o500)
    try:
        assert work.storage.begin_autosave().parent == state_folder
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_refuses_sends_the_work_to_the_fallback_folder(
    tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Refinement(on_disk(tmp_path), regions=10)
    open_file = Path.open

    def refuse(path: Path, mode: str = "r", *args: int, **knobs: int) -> object:
        if path.parent == tmp_path and "x" in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(path, mode, *args, **knobs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    assert work.storage.begin_autosave().parent == state_folder
    assert crash.digest(
        find_unfinished_after(edited(work), state_folder)
    ) == crash.digest(work)


def test_work_in_a_folder_that_became_read_only_goes_on_elsewhere(
    proposal: Proposal,
    tmp_path: Path,
    state_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = edited(Refinement(proposal, regions=10))
    work.storage.begin_autosave(tmp_path)
    before = crashed(work)
    (found,) = find_unfinished(folder=tmp_path)
    open_file = Path.open

    def refuse(path: Path, mode: str = "r", *args: int, **knobs: int) -> object:
        if path.parent == tmp_path and "+" in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(path, mode, *args, **knobs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    again = found.resume()
    assert crash.digest(again) == before
    again.merge([3, 60])
    after = crashed(again)
    assert crash.digest(find_unfinished(folder=state_folder)[0].resume()) == after


def test_a_full_disk_is_told_and_loses_nothing(
    proposal: Proposal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Refinement(proposal, regions=10)
    work.storage.begin_autosave(tmp_path)
    work.merge([1, 2])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    work.merge([1, 3])
    work.merge([1, 4])
    assert work.storage.autosave_problem is not None
    assert "No space left" in work.storage.autosave_problem
    assert (
        len(
            [record for record in caplog.records if "not being saved" in record.message]
        )
        >= 1
    )
    assert len(work.history) == 3
    monkeypatch.undo()
    monkeypatch.setattr(autosave_folders, "state_folder", lambda: tmp_path)
    work.merge([1, 5])
    assert crash.digest(find_unfinished_after(work, tmp_path)) == crash.digest(work)


def test_a_case_that_the_disk_did_not_take_is_written_when_there_is_room_again(
    proposal: Proposal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    work = Refinement(proposal, regions=10)
    with monkeypatch.context() as patched:
        patched.setattr(autosave, "write_archive", full)
        journal = work.storage.begin_autosave(tmp_path)
        work._session.autosave.wait()
        work.merge([1, 2])
        assert "No space left" in (work.storage.autosave_problem or "")
    assert not autosave.case_of(journal).exists()
    assert crash.digest(find_unfinished_after(work, tmp_path)) == crash.digest(work)


def test_with_nowhere_to_write_autosave_says_so_and_work_goes_on(
    proposal: Proposal, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    work = Refinement(proposal, regions=10)
    with pytest.raises(CaseError, match="Save the case yourself"):
        work.storage.begin_autosave(tmp_path / "file" / "below")
    work.merge([1, 2])
    assert work.storage.autosave_problem is None


def test_killed_before_the_case_was_written_the_edits_are_carried_out_on_a_new_proposal(
    proposal: Proposal, tmp_path: Path
) -> None:
    work = Refinement(proposal, regions=10)
    journal = work.storage.begin_autosave(tmp_path)
    before = crash.digest(edited(work))
    crashed(work)
    autosave.case_of(journal).unlink()
    (found,) = find_unfinished(folder=tmp_path)
    with pytest.raises(CaseError, match="proposal="):
        found.resume()
    again = found.resume(proposal=phantom_proposal())
    assert np.array_equal(again.labels, work.labels)
    assert (again.history, again.steps.undone, again.regions) == (
        work.history,
        work.steps.undone,
        work.regions,
    )
    crashed(again)
    assert len(find_unfinished(folder=tmp_path)) == 1
    assert before == crash.digest(work)


def test_two_windows_do_not_take_up_the_same_work(
    proposal: Proposal, tmp_path: Path
) -> None:
    work = edited(Refinement(proposal, regions=10))
    work.storage.begin_autosave(tmp_path)
    crashed(work)
    (found,) = find_unfinished(folder=tmp_path)
    again = found.resume()
    assert find_unfinished(folder=tmp_path) == []
    with pytest.raises(CaseError, match="another window"):
        found.resume()
    crashed(again)
    assert find_unfinished(folder=tmp_path) == [found]
