"""Case files: what was saved comes back, also without the scan.

Damage is said in one line.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from napari_strata.errors import CaseError, EditError, WriteError
from napari_strata.export.outputs import scan_record
from napari_strata.io.files import read, write
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.storage.case_file import scan_hash
from napari_strata.volume import FileGrid, Geometry, Volume
from phantoms import phantom_proposal, phantom_volume


@pytest.fixture
def work() -> Refinement:
    work = Refinement(phantom_proposal(), regions=20)
    work.cut(regions=30)
    work.cut(tissues=6)
    work.rename(31, "Leber äöü")
    work.merge([32, 33])
    work.split(34, into=2)
    work.scribble([[12, 13, 8], [12, 13, 9]], region=60)
    work.paint([[1, 1, 1], [20, 20, 20]], 31)
    work.lock(31)
    work.edits.recolor(60, (1, 2, 3))
    work.undo()
    return work


def test_everything_comes_back(work: Refinement, tmp_path: Path) -> None:
    work.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata")
    assert np.array_equal(again.labels, work.labels)
    assert again.labels.dtype == work.labels.dtype
    assert again.regions == work.regions
    assert (again.history, again.steps.undone, again.view.next_id) == (
        work.history,
        work.steps.undone,
        work.view.next_id,
    )
    assert (again.view.tree, again.view.granularity) == (
        work.view.tree,
        work.view.granularity,
    )
    for name in ("supervoxels", "descriptors", "confidence", "edges"):
        assert np.array_equal(
            getattr(again.proposal, name), getattr(work.proposal, name)
        )
    assert again.proposal.descriptor_names == work.proposal.descriptor_names
    assert again.proposal.provenance == work.proposal.provenance
    assert again.proposal.regions(17).regions == work.proposal.regions(17).regions


def test_work_goes_on_after_loading_as_if_never_closed(
    work: Refinement, tmp_path: Path
) -> None:
    work.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata")
    steps = len(work.history)
    for one in (work, again):
        one.redo()
        one.scribble([[12, 20, 16]], region=61)
    assert np.array_equal(again.labels, work.labels)
    for step in range(steps, -1, -1):
        work.steps.jump(step)
        again.steps.jump(step)
        assert np.array_equal(again.labels, work.labels)
        assert again.regions == work.regions
    again.steps.jump(steps)
    assert np.array_equal(again.replay(phantom_proposal()).labels, again.labels)


def test_export_equals_the_screen_before_and_after(
    work: Refinement, tmp_path: Path
) -> None:
    assert np.array_equal(work.segmentation.labels, work.labels)
    assert {row.id for row in work.segmentation.regions} == set(
        np.unique(work.labels).tolist()
    ) - {0}
    work.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata").segmentation
    assert np.array_equal(again.labels, work.labels)
    assert again.regions == work.segmentation.regions


def test_geometry_comes_back_bit_for_bit(tmp_path: Path) -> None:
    volume = phantom_volume()
    affine = volume.geometry.affine + np.random.default_rng(0).normal(
        0, 1e-3, (4, 4)
    ) * [[1], [1], [1], [0]]
    to_memory = np.array([[2, -1], [1, -1], [0, 1]], float)
    grid = FileGrid(
        "nifti",
        (32, 28, 24),
        affine[:, [2, 1, 0, 3]] / 3,
        to_memory,
        header=bytes(range(256)),
        suffix=".nii.gz",
    )
    moved = Volume(
        volume.data,
        Geometry(volume.data.shape, affine, grid),
        "ct",
        "a name",
        notes=("Said.",),
    )
    Refinement(phantom_proposal(moved)).save(tmp_path / "case.strata")
    found = Refinement.load(tmp_path / "case.strata").proposal.volume
    assert found.geometry.affine.tobytes() == affine.tobytes()
    assert found.geometry.file is not None
    assert found.geometry.file.affine.tobytes() == grid.affine.tobytes()
    assert found.geometry.file.header == grid.header
    assert (
        found.geometry.file.kind,
        found.geometry.file.shape,
        found.geometry.file.suffix,
    ) == ("nifti", (32, 28, 24), ".nii.gz")
    assert np.array_equal(found.geometry.file.to_memory, to_memory)
    assert (found.modality, found.name, found.notes) == ("ct", "a name", ("Said.",))


def test_the_scan_is_read_from_its_place_when_first_used(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 900, (12, 14, 16)).astype(np.int16)
    nibabel.save(
        nibabel.Nifti1Image(data, np.diag([1.0, 1, 2, 1])), tmp_path / "scan.nii.gz"
    )
    volume = read(tmp_path / "scan.nii.gz")
    Refinement(phantom_proposal(volume), regions=5).save(tmp_path / "case.strata")
    work = Refinement.load(tmp_path / "case.strata")
    write(work.segmentation, tmp_path / "labels.nii.gz")
    assert np.array_equal(np.asarray(work.proposal.volume.data), volume.data)
    assert np.allclose(work.proposal.volume.data * 2 - volume.data, volume.data)
    work.save(tmp_path / "again.strata")

    (tmp_path / "scan.nii.gz").rename(tmp_path / "moved.nii.gz")
    work = Refinement.load(tmp_path / "again.strata")
    assert work.segmentation.labels.shape == volume.data.shape
    with pytest.raises(CaseError, match=r"volume="):
        np.asarray(work.proposal.volume.data)
    found = Refinement.load(
        tmp_path / "again.strata", volume=read(tmp_path / "moved.nii.gz")
    )
    assert np.array_equal(found.proposal.volume.data, volume.data)


def test_a_case_of_one_volume_of_a_4d_file_reads_that_volume_again(
    tmp_path: Path,
) -> None:
    data = np.random.default_rng(0).integers(0, 900, (12, 14, 16, 3)).astype(np.int16)
    nibabel.save(
        nibabel.Nifti1Image(data, np.diag([1.0, 1, 2, 1])), tmp_path / "scan.nii.gz"
    )
    volume = read(tmp_path / "scan.nii.gz", index=1)
    Refinement(phantom_proposal(volume), regions=5).save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata").proposal.volume
    assert (again.index, again.series) == (1, None)
    assert np.array_equal(np.asarray(again.data), volume.data)
    assert scan_record(again)["index"] == 1


@pytest.mark.parametrize("dtype", [">i2", "<f2", "?", "f8"])
def test_a_scan_hash_is_that_of_the_plain_bytes(dtype: str) -> None:
    data = np.asfortranarray(
        np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    )
    plain = hashlib.sha256(f"{data.shape} {data.dtype.str}".encode() + data.tobytes())
    assert scan_hash(data) == plain.hexdigest()


def test_another_scan_is_refused(work: Refinement, tmp_path: Path) -> None:
    work.save(tmp_path / "case.strata")
    Refinement.load(tmp_path / "case.strata", volume=phantom_volume())
    other = phantom_volume(seed=1)
    for volume in (
        other,
        phantom_volume((10, 12, 14)),
        replace(phantom_volume(), data=other.data),
    ):
        with pytest.raises(CaseError, match="not the scan of this case"):
            Refinement.load(tmp_path / "case.strata", volume=volume)


def test_a_scan_made_in_memory_has_to_be_passed(
    work: Refinement, tmp_path: Path
) -> None:
    work.save(tmp_path / "case.strata")
    volume = Refinement.load(tmp_path / "case.strata").proposal.volume
    assert volume.data.shape == (24, 28, 32)
    with pytest.raises(CaseError, match="made in memory"):
        volume.data.min()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_cut_off_case_is_one_line(
    work: Refinement, tmp_path: Path, keep: float
) -> None:
    path = tmp_path / "case.strata"
    work.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(CaseError, match="damaged") as caught:
        Refinement.load(path)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_are_found(work: Refinement, tmp_path: Path) -> None:
    path = tmp_path / "case.strata"
    work.save(path)
    whole = bytearray(path.read_bytes())
    for place in np.linspace(100, len(whole) - 100, 25).astype(int):
        broken = whole.copy()
        broken[place : place + 8] = bytes(255 - b for b in broken[place : place + 8])
        path.write_bytes(bytes(broken))
        try:
            # a byte that nobody reads
            assert np.array_equal(Refinement.load(path).labels, work.labels)
        except CaseError:
            continue


def test_missing_file_and_missing_folder_say_so(
    work: Refinement, tmp_path: Path
) -> None:
    with pytest.raises(CaseError, match="No such file"):
        Refinement.load(tmp_path / "none.strata")
    with pytest.raises(WriteError, match="folder"):
        work.save(tmp_path / "none" / "case.strata")


def test_a_failed_save_keeps_the_old_case(
    work: Refinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "case.strata"
    work.save(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    with pytest.raises(WriteError, match="disk is full"):
        work.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_edit_that_arrives_during_a_save_is_not_in_the_file(
    work: Refinement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, history, undone, rows = (
        work.labels,
        work.history,
        work.steps.undone,
        work.regions,
    )
    write_entry = zipfile.ZipFile.writestr

    def edit_and_write(archive: zipfile.ZipFile, *args: Any, **knobs: Any) -> None:
        editing = threading.Thread(
            target=lambda: work.rename(60, f"name {len(work.history)}")
        )
        editing.start()
        editing.join(timeout=60)
        write_entry(archive, *args, **knobs)

    monkeypatch.setattr("zipfile.ZipFile.writestr", edit_and_write)
    work.save(tmp_path / "case.strata")
    monkeypatch.undo()
    assert len(work.history) > len(history)
    again = Refinement.load(tmp_path / "case.strata")
    assert np.array_equal(again.labels, labels)
    assert (again.history, again.steps.undone, again.regions) == (history, undone, rows)
    again.steps.jump(0)
    assert np.array_equal(again.labels, phantom_proposal().regions(20).labels)


def test_both_numbers_are_refused() -> None:
    with pytest.raises(EditError, match="not both"):
        Refinement(phantom_proposal(), regions=3, tissues=4)


def test_only_a_cases_own_name_is_written_to(work: Refinement, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"a scan")
    with pytest.raises(WriteError, match=r"ends in \.strata"):
        work.save(scan)
    assert scan.read_bytes() == b"a scan"


def test_two_windows_on_one_case_do_not_overwrite_each_other(
    work: Refinement, tmp_path: Path
) -> None:
    path = tmp_path / "case.strata"
    work.save(path)
    other = Refinement.load(path)
    other.rename(31, "liver")
    other.save(path)
    other.rename(31, "Leber")
    other.save(path)
    work.rename(31, "spleen")
    with pytest.raises(WriteError, match="another window"):
        work.save(path)
    assert Refinement.load(path).history[-1] == "Rename: liver to Leber"
    work.save(tmp_path / "mine.strata")
    path.unlink()
    work.save(path)
    assert Refinement.load(path).history[-1].endswith("to spleen")


def test_a_case_is_only_replaceable_by_one_that_holds_its_edits(
    work: Refinement, tmp_path: Path
) -> None:
    path = tmp_path / "case.strata"
    work.storage.check_replaceable(path)
    work.save(path)
    work.redo()
    work.rename(31, "liver")
    work.storage.check_replaceable(path)
    with pytest.raises(
        WriteError, match=r"edits that would be lost \(the last one: Recolor"
    ):
        Refinement(work.proposal, regions=20).storage.check_replaceable(path)
    path.write_bytes(b"something else")
    with pytest.raises(WriteError, match="cannot be read as a case"):
        work.storage.check_replaceable(path)


def test_a_case_of_a_scan_that_moved_along_finds_it_beside_itself(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    data = phantom_volume().data.astype(np.int16)
    nibabel.save(
        nibabel.Nifti1Image(data, np.diag([1.0, 1, 2, 1])), old / "scan.nii.gz"
    )
    Refinement(phantom_proposal(read(old / "scan.nii.gz")), regions=10).save(
        old / "case.strata"
    )
    old.rename(new)
    again = Refinement.load(new / "case.strata")
    assert np.array_equal(
        np.asarray(again.proposal.volume.data), read(new / "scan.nii.gz").data
    )
    nibabel.save(
        nibabel.Nifti1Image(data + 1, np.diag([1.0, 1, 2, 1])), new / "scan.nii.gz"
    )
    with pytest.raises(
        CaseError,
        match=r"new.scan\.nii\.gz is not the scan of this case.*its voxels differ",
    ):
        Refinement.load(new / "case.strata", volume=read(new / "scan.nii.gz"))
    Refinement.load(new / "case.strata").view.prepare()
    with pytest.raises(CaseError, match=r"cannot be read from .*old"):
        np.asarray(Refinement.load(new / "case.strata").proposal.volume.data)


def test_a_case_of_the_first_format_says_how_to_go_on(
    work: Refinement, tmp_path: Path
) -> None:
    work.save(tmp_path / "case.strata")
    with (
        zipfile.ZipFile(tmp_path / "case.strata") as old,
        zipfile.ZipFile(tmp_path / "old.strata", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"format": 2', b'"format": 1'))
    with pytest.raises(
        CaseError, match=r"--from-labels LABELS\), or propose the scan again"
    ):
        Refinement.load(tmp_path / "old.strata")
