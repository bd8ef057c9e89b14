"""Starting from labels that somebody else made, and `strata refine` as a user meets it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.errors import EditError, GeometryError
from napari_strata.io.files import write_scan
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.storage import autosave_folders
from napari_strata.volume import Geometry, Region, Segmentation, Volume, default_regions
from phantoms import phantom_proposal, phantom_truth, phantom_volume

FEW = ["--method", "gmm-mrf", "--supervoxels", "800", "--quiet", "--threads", "1"]


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def rough_labels(proposal: Proposal) -> Segmentation:
    """Organs 2-5 under large ids, their borders nowhere on those of supervoxels."""
    ids = np.array([0, 0, 5, 300, 1200, 77], np.uint16)
    labels = np.roll(ids[phantom_truth()], (1, 2, 1), axis=(0, 1, 2))
    rows = (
        Region(5, "spleen", (1, 2, 3)),
        Region(300, "liver", (4, 5, 6), locked=True),
        *default_regions([77, 1200]),
    )
    return Segmentation(labels, rows, proposal.volume.geometry)


def test_labels_are_kept_voxel_by_voxel_with_names_colours_and_locks(
    proposal: Proposal, tmp_path: Path
) -> None:
    given = rough_labels(proposal)
    work = Refinement.from_labels(proposal, given)
    assert np.array_equal(work.labels, given.labels)
    assert work.regions == tuple(sorted(given.regions, key=lambda row: row.id))
    assert (work.view.next_id, work.history) == (1201, ())
    assert work.view.sizes_vox == {
        i: int((given.labels == i).sum()) for i in (0, 5, 77, 300, 1200)
    }
    work.save(tmp_path / "case.strata")
    again = Refinement.load(tmp_path / "case.strata")
    assert np.array_equal(again.labels, given.labels)
    assert np.array_equal(again.replay(proposal).labels, given.labels)


def test_labels_are_repaired_with_the_same_tools(proposal: Proposal) -> None:
    given = rough_labels(proposal)
    work = Refinement.from_labels(proposal, given)
    work.edits.grow(5, 1)
    work.merge([1200, 77])
    work.scribble(np.argwhere(phantom_truth() == 2)[:20], region=5)
    work.edits.smooth([1200], sd_mm=1)
    assert np.array_equal(work.labels == 300, given.labels == 300), (
        "the liver is locked"
    )
    after = work.labels
    assert np.array_equal(work.replay(proposal).labels, after)
    work.steps.jump(0)
    assert np.array_equal(work.labels, given.labels)
    work.cut(regions=30)
    assert np.array_equal(
        work.labels[given.labels > 0], given.labels[given.labels > 0]
    ), "the slider fills only what has no label"
    assert len(work.regions) > 10


def test_labels_of_another_grid_and_labels_too_large_are_refused(
    proposal: Proposal,
) -> None:
    given = rough_labels(proposal)
    moved = given.geometry.affine.copy()
    moved[0, 3] += 3
    with pytest.raises(GeometryError, match=r"3\.0 mm off"):
        Refinement.from_labels(
            proposal, replace(given, geometry=Geometry(given.labels.shape, moved))
        )
    with pytest.raises(GeometryError, match="that of the scan"):
        Refinement.from_labels(
            proposal,
            Segmentation(given.labels[1:], (), Geometry(given.labels[1:].shape, moved)),
        )
    with pytest.raises(EditError, match="too large"):
        Refinement.from_labels(
            proposal,
            Segmentation(given.labels.astype(np.uint32) * 10_000, (), given.geometry),
        )


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    volume = phantom_volume((24, 32, 36), (3.0, 2.0, 2.0))
    return write_scan(
        Volume(volume.data, volume.geometry, "mr"),
        tmp_path_factory.mktemp("scan") / "phantom.nii.gz",
    )


@pytest.fixture(scope="module")
def case(scan: Path) -> Path:
    path = scan.with_name("case.strata")
    assert (
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(scan.with_name("l.nii.gz")),
                "--tissues",
                "6",
                "--case",
                str(path),
                "--seed",
                "3",
                *FEW,
            ]
        )
        == 0
    )
    work = Refinement.load(path)
    work.merge([1, 2])
    work.edits.grow(3, 2)
    work.scribble([[12, 14, 10], [12, 14, 11]], region=40)
    work.save(path)
    return path


@pytest.mark.parametrize("more", [[], ["--propose-again", "--threads", "1", "--quiet"]])
def test_a_case_is_replayed_on_its_scan(
    scan: Path,
    case: Path,
    tmp_path: Path,
    more: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "labels.nii.gz"
    assert (
        main(
            [
                "refine",
                str(scan),
                "--replay",
                str(case),
                "-o",
                str(out),
                "--case",
                str(tmp_path / "again.strata"),
                *more,
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    assert "differ" not in said.err
    assert "1. Merge: tissue 1 + tissue 2" in said.out
    expected = Refinement.load(case)
    assert np.array_equal(strata.read_labels(out).labels, expected.labels)
    assert np.array_equal(nib.load(out).affine, nib.load(scan).affine)
    assert json.loads((tmp_path / "labels.json").read_text())["edits"] == list(
        expected.history
    )
    assert Refinement.load(tmp_path / "again.strata").history == expected.history


def test_a_replay_alone_says_whether_the_labels_are_the_same(
    scan: Path, case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(scan.parent.iterdir())
    assert main(["refine", str(scan), "--replay", str(case)]) == 0
    said = capsys.readouterr().out
    assert "The labels are those of" in said
    assert "nothing written: 3 edits" in said
    assert sorted(scan.parent.iterdir()) == before


def test_labels_become_a_case(scan: Path, tmp_path: Path) -> None:
    labels = tmp_path / "organs.nii.gz"
    nib.save(
        nib.Nifti1Image(
            (np.asarray(nib.load(scan).dataobj) > 250).astype(np.int16) * 7,
            nib.load(scan).affine,
        ),
        labels,
    )
    assert (
        main(
            [
                "refine",
                str(scan),
                "--from-labels",
                str(labels),
                "--case",
                str(tmp_path / "c.strata"),
                *FEW,
            ]
        )
        == 0
    )
    assert np.array_equal(
        Refinement.load(tmp_path / "c.strata").labels, strata.read_labels(labels).labels
    )


def test_work_is_taken_up_after_a_crash(
    scan: Path, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autosave_folders, "state_folder", lambda: tmp_path / "state")
    work = Refinement.load(case)
    work.storage.begin_autosave()
    work.rename(40, "cyst")
    work.storage.end_autosave(keep=True)
    assert (
        main(["refine", str(scan), "--recover", "--case", str(tmp_path / "c.strata")])
        == 0
    )
    assert (
        Refinement.load(tmp_path / "c.strata").history[-1]
        == "Rename: region 40 to cyst"
    )
    assert strata.find_unfinished(scan) == []
    assert (
        main(["refine", str(scan), "--recover", "--case", str(tmp_path / "c.strata")])
        == 2
    )


def test_recovered_work_replaces_the_case_that_it_went_on_from_and_no_other(
    scan: Path,
    case: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(autosave_folders, "state_folder", lambda: tmp_path / "state")
    first, second, foreign = (
        tmp_path / f"{name}.strata" for name in ("first", "second", "foreign")
    )
    work = Refinement.load(case)
    work.save(first)
    work.storage.begin_autosave()
    work.rename(40, "cyst")
    work.save(second)
    work.steps.jump(1)
    work.rename(3, "liver")
    work.storage.end_autosave(keep=True)
    other = Refinement.load(case)
    other.rename(3, "spleen")
    other.save(foreign)
    assert main(["refine", str(scan), "--recover", "--case", str(foreign)]) == 2
    assert "Rename: tissue 3 to spleen" in capsys.readouterr().err
    for path in (first, second):
        (left,) = strata.find_unfinished(scan)
        taken = left.resume()
        taken.storage.check_replaceable(path)
        taken.storage.end_autosave(keep=True)
    assert main(["refine", str(scan), "--recover", "--case", str(first)]) == 0
    assert Refinement.load(first).history == (
        "Merge: tissue 1 + tissue 2",
        "Rename: tissue 3 to liver",
    )


def test_a_case_with_edits_is_not_written_over(
    scan: Path, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.strata"
    work = Refinement.load(case)
    work.rename(40, "cyst")
    work.undo()
    work.save(kept)
    before = kept.read_bytes()
    labels = str(scan.with_name("l.nii.gz"))
    for words in (
        [
            "propose",
            str(scan),
            "-o",
            str(tmp_path / "l.nii.gz"),
            "--tissues",
            "6",
            "--case",
            str(kept),
            *FEW,
        ],
        ["refine", str(scan), "--from-labels", labels, "--case", str(kept), *FEW],
        ["refine", str(scan), "--replay", str(kept), "--case", str(kept)],
    ):
        assert main(words) == 2
        assert "4 edits that would be lost" in capsys.readouterr().err
    assert kept.read_bytes() == before
    assert not (tmp_path / "l.nii.gz").exists()
    assert (
        main(
            [
                "refine",
                str(scan),
                "--replay",
                str(case),
                "--case",
                str(tmp_path / "again.strata"),
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "refine",
                str(scan),
                "--replay",
                str(case),
                "--case",
                str(tmp_path / "again.strata"),
            ]
        )
        == 0
    ), "the same edits again"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recover"], "labels with -o"),
        (["--replay", "{other}", "-o", "{out}"], "No such file"),
        (["--from-labels", "{scan}", "--case", "{out}"], "must end in .strata"),
        (["--from-labels", "{small}", "-o", "{out}"], "Resample"),
        (["--recover", "--propose-again", "-o", "{out}"], "goes with --replay"),
        (["--replay", "{case}", "-o", "{scan}"], "the scan itself"),
    ],
)
def test_bad_calls_are_one_line(
    scan: Path,
    case: Path,
    tmp_path: Path,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nib.save(
        nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)),
        tmp_path / "small.nii.gz",
    )
    names = {
        "scan": scan,
        "case": case,
        "other": tmp_path / "none.strata",
        "out": tmp_path / "l.nii.gz",
        "small": tmp_path / "small.nii.gz",
    }
    assert main(["refine", str(scan), *[word.format(**names) for word in words]]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert says in said[-1]
    assert len([line for line in said if line.startswith("strata:")]) == 1
