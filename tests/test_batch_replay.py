"""A batch that is run anew carries out what people did to single scans.

Says what it could not.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.batch.cases import with_cases
from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.cli.command_line import main
from napari_strata.errors import CaseError, ReadError
from napari_strata.io.files import read_labels, write_scan
from napari_strata.proposal.codebook.codebook import fit_codebook
from napari_strata.proposal.codebook.cohort_table import cohort_table
from napari_strata.refine.session.refinement import Refinement
from napari_strata.settings import ProposeSettings
from napari_strata.volume import default_regions
from phantoms import phantom_truth, phantom_volume

TRUTH = phantom_truth()
LIVER = 2
CORNER = (1, 2, 3)
FEW = ["--method", "gmm-mrf", "--threads", "1", "--quiet"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Three scans, a case of the first one with an organ named and a corner painted.

    One of a scan that is not here.
    """
    folder = tmp_path_factory.mktemp("edited")
    (folder / "scans").mkdir()
    for k, name in enumerate("abc"):
        write_scan(phantom_volume(seed=k), folder / "scans" / f"{name}.nii.gz")
    (folder / "cases").mkdir()
    write_scan(phantom_volume(seed=9), folder / "elsewhere.nii.gz")
    for scan, case in (
        (folder / "scans" / "a.nii.gz", "first work"),
        (folder / "elsewhere.nii.gz", "other"),
    ):
        path = folder / "cases" / f"{case}.strata"
        words = [
            "propose",
            str(scan),
            "-o",
            str(folder / f"{case}.nrrd"),
            "--tissues",
            "5",
            "--case",
            str(path),
        ]
        assert main([*words, "--supervoxels", "300", *FEW]) == 0
    work = Refinement.load(folder / "cases" / "first work.strata")
    work.rename(int(np.bincount(work.labels[TRUTH == LIVER]).argmax()), "liver")
    work.paint([CORNER], 40)
    work.rename(40, "corner")
    work.save(folder / "cases" / "first work.strata")
    return folder


def test_edits_are_carried_out_on_what_is_proposed_anew_and_never_dropped(
    cohort, tmp_path, capsys
):
    out, labels = tmp_path / "out", tmp_path / "out" / "a_labels.nii.gz"
    words = [
        "batch",
        str(cohort / "scans"),
        "-o",
        str(out),
        "--tissues",
        "5",
        "--workers",
        "1",
        *FEW,
    ]
    assert main([*words, "--supervoxels", "300"]) == 0
    saved = Refinement.load(cohort / "cases" / "first work.strata")
    strata.write(saved.segmentation, labels)  # as a person exports from the window
    anew = [*words, "--supervoxels", "500"]
    assert main(anew) == 0
    assert "2 done, 1 kept" in capsys.readouterr().out, (
        "without its case it stays as the person left it"
    )
    assert main([*anew, "--replay", str(cohort / "cases")]) == 0
    said = capsys.readouterr()
    assert "1 done, 2 kept" in said.out
    assert "other.strata belongs to none of the scans" in said.err
    made = read_labels(labels)
    names = {region.name: region.id for region in made.regions}
    assert made.labels[CORNER] == names["corner"]
    (organ,) = [region.id for region in saved.regions if region.name == "liver"]
    was, now = saved.labels == organ, made.labels == names["liver"]
    assert 2 * (was & now).sum() / (was.sum() + now.sum()) > 0.7
    assert (
        json.loads((out / "a_labels.json").read_text())["settings"]["supervoxels"]
        == 500
    )
    steps = table(out / "replay.tsv")
    assert [(row["scan"], row["edit"], row["status"]) for row in steps] == [
        ("a", name, "carried out") for name in saved.history
    ]
    assert [(row["edits"], row["edits_lost"]) for row in table(out / "scans.tsv")] == [
        ("3", "0"),
        ("", ""),
        ("", ""),
    ]
    before = labels.read_bytes()
    assert main([*anew, "--replay", str(cohort / "cases")]) == 0
    assert "0 done, 3 kept" in capsys.readouterr().out
    assert main([*anew, "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert "2 done, 1 kept" in said.out
    assert "kept without --replay" in said.err
    assert labels.read_bytes() == before


def test_with_a_codebook_the_numbers_stay_the_cohorts_and_an_edit_without_its_region_is_told(
    cohort, tmp_path, capsys
):
    work = Refinement.load(cohort / "cases" / "first work.strata")
    work.cut(regions=150)
    sizes = np.bincount(work.labels.ravel())
    sizes[40] = 0
    work.rename(int(np.argmin(np.where(sizes > 0, sizes, sizes.max()))), "speck")
    work.save(tmp_path / "a.strata")
    given = tmp_path / "list.csv"
    given.write_text(
        "path,replay\n"
        + "".join(
            f"{cohort}/scans/{n}.nii.gz,{'a.strata' if n == 'a' else ''}\n"
            for n in "abc"
        )
    )
    words = [
        "batch",
        str(given),
        "-o",
        str(tmp_path / "out"),
        "--tissues",
        "5",
        "--codebook-from",
        "3",
        "--workers",
        "1",
        *FEW,
    ]
    assert main([*words, "--supervoxels", "300"]) == 0
    assert "a: note: " in capsys.readouterr().err
    status = {
        row["edit"].partition(":")[0]: row["status"]
        for row in table(tmp_path / "out" / "replay.tsv")[-2:]
    }
    assert status == {"Cut": "not needed", "Rename": "not carried out"}
    row, *_ = table(tmp_path / "out" / "scans.tsv")
    assert (row["edits"], row["edits_lost"]) == ("5", "1")
    assert "1 of 5 edits of a.strata could not be carried out" in row["warning"]
    made = read_labels(tmp_path / "out" / "a_labels.nii.gz")
    assert made.labels[CORNER] == next(
        region.id for region in made.regions if region.name == "corner"
    )
    document = json.loads((tmp_path / "out" / "a_labels.json").read_text())
    assert document["codebook"]["sha256"]
    assert set(np.unique(made.labels).tolist()) <= {0, 1, 2, 3, 4, 5, 40}


def test_each_case_goes_to_the_scan_that_it_was_made_on(cohort, tmp_path):
    scans = plan_scans([cohort / "scans"])
    one = cohort / "cases" / "first work.strata"
    assert [scan.replay for scan in with_cases(scans, [one]).scans] == [one, None, None]
    (tmp_path / "b.strata").write_bytes(
        (cohort / "cases" / "other.strata").read_bytes()
    )
    (tmp_path / "damaged.strata").write_bytes(b"no case")
    found = with_cases(scans, [tmp_path])
    assert [scan.replay for scan in found.scans] == [None, None, None]
    assert "b.strata belongs to none of the scans" in found.notes[0], (
        "its name is that of b, its scan is another"
    )
    assert "damaged.strata is not a whole Strata case" in found.notes[1]
    (tmp_path / "old.strata").write_bytes(one.read_bytes())
    with pytest.raises(CaseError, match=r"2 cases belong to a: .*a\.strata"):
        with_cases(scans, [one, tmp_path])
    with pytest.raises(ReadError, match="no case"):
        with_cases(scans, [cohort / "scans"])


def test_a_file_name_that_many_scans_share_gives_no_scan_the_case_of_another(
    cohort, tmp_path, capsys
):
    cases, paths = (
        tmp_path / "cases",
        [tmp_path / "scans" / f"sub-0{k}" / "T1.nii.gz" for k in (1, 2)],
    )
    cases.mkdir()
    for k, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        shutil.copy(cohort / "scans" / f"{'ab'[k]}.nii.gz", path)
        words = [
            "propose",
            str(path),
            "-o",
            str(tmp_path / f"{k}.nrrd"),
            "--tissues",
            "5",
            "--case",
            str(cases / f"work {k}.strata"),
        ]
        assert main([*words, "--supervoxels", "300", *FEW]) == 0
    found = with_cases(plan_scans([paths[0]]), [cases])
    assert [scan.replay for scan in found.scans] == [cases / "work 0.strata"]
    assert "work 1.strata belongs to none of the scans" in found.notes[0]
    moved = (tmp_path / "scans").rename(tmp_path / "moved")
    both = with_cases(plan_scans([moved]), [cases])
    assert [scan.replay for scan in both.scans] == [
        cases / "work 0.strata",
        cases / "work 1.strata",
    ]
    assert not both.notes
    (cases / "sub-01_T1.strata").write_bytes((cases / "work 0.strata").read_bytes())
    named = with_cases(plan_scans([moved]), [cases])
    assert named.scans[0].replay == cases / "sub-01_T1.strata"
    assert "work 0.strata is not replayed on sub-01_T1" in named.notes[0]
    words = [
        "batch",
        str(moved / "sub-01"),
        "-o",
        str(tmp_path / "out"),
        "--tissues",
        "5",
        "--workers",
        "1",
        "--supervoxels",
        "300",
    ]
    assert main([*words, *FEW, "--replay", str(cases / "work 1.strata")]) == 0, (
        "made without edits that are not its own"
    )
    assert "belongs to none of the scans" in capsys.readouterr().err


def test_a_case_of_another_scan_fails_and_leaves_what_stands(cohort, tmp_path, capsys):
    given = tmp_path / "list.csv"
    given.write_text(
        f"path,replay\n{cohort}/scans/b.nii.gz,{cohort}/cases/other.strata\n"
    )
    words = [
        "batch",
        str(given),
        "-o",
        str(tmp_path / "out"),
        "--tissues",
        "5",
        "--workers",
        "1",
        "--supervoxels",
        "300",
        *FEW,
    ]
    assert main(words) == 1
    assert "is not the scan of this case" in capsys.readouterr().err
    assert not (tmp_path / "out" / "b_labels.nii.gz").exists()


def test_a_painted_region_takes_no_number_of_a_tissue_that_only_other_scans_have(
    cohort, tmp_path
):
    settings = ProposeSettings(method="gmm-mrf", supervoxels=300)
    scan = cohort / "scans" / "a.nii.gz"
    fitted = fit_codebook(
        [cohort_table(strata.propose(strata.read(scan), settings=settings, threads=1))],
        tissues=5,
        seed=0,
    )
    replace(
        fitted, regions=default_regions(range(1, 9), "tissue"), rounds=fitted.rounds[:1]
    ).save(tmp_path / "of eight.strata-codebook")
    work = Refinement.load(cohort / "cases" / "first work.strata")
    work.paint([CORNER], 6)
    work.rename(6, "lesion")
    work.save(tmp_path / "a.strata")
    words = [
        "batch",
        str(scan),
        "-o",
        str(tmp_path / "out"),
        "--codebook",
        str(tmp_path / "of eight.strata-codebook"),
        "--workers",
        "1",
    ]
    assert (
        main(
            [
                *words,
                "--replay",
                str(tmp_path / "a.strata"),
                "--supervoxels",
                "300",
                *FEW,
            ]
        )
        == 0
    )
    rows = {
        row["region"]: int(row["region_id"])
        for row in table(tmp_path / "out" / "volumes.tsv")
    }
    assert rows["lesion"] > 8


@pytest.mark.parametrize("there", [True, False])
def test_edits_that_were_replayed_never_count_as_those_of_another_scan(
    there, cohort, tmp_path, capsys
):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    shutil.copy(cohort / "scans" / "a.nii.gz", scans / "a.nii.gz")
    words = [
        "-o",
        str(out),
        "--tissues",
        "5",
        "--workers",
        "1",
        "--supervoxels",
        "300",
        *FEW,
    ]
    (tmp_path / "a.strata").write_bytes(
        (cohort / "cases" / "first work.strata").read_bytes()
    )
    assert (
        main(["batch", str(scans), *words, "--replay", str(tmp_path / "a.strata")]) == 0
    )
    before = (out / "a_labels.nii.gz").read_bytes()
    (out / "a_labels.csv").unlink()
    assert main(["batch", str(scans), *words]) == 0
    assert (out / "a_labels.nii.gz").read_bytes() == before, (
        "nor are they made anew for want of a table"
    )
    other = scans if not there else tmp_path / "others"
    other.mkdir(exist_ok=True)
    shutil.copy(cohort / "scans" / "b.nii.gz", other / "a.nii.gz")
    capsys.readouterr()
    assert main(["batch", str(other), *words]) == 1
    assert (
        "belongs to another scan of the same id"
        if there
        else "made on another scan, or on this one before"
    ) in capsys.readouterr().err
    assert not table(out / "volumes.tsv")
    assert (out / "a_labels.nii.gz").read_bytes() == before


def test_no_table_mixes_the_numbers_of_two_codebooks(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "batch",
        str(cohort / "scans"),
        "-o",
        str(out),
        "--workers",
        "1",
        "--supervoxels",
        "300",
        *FEW,
    ]
    replay = ["--replay", str(cohort / "cases" / "first work.strata")]
    assert main([*words, "--codebook-from", "3", "--tissues", "5", *replay]) == 0
    by_hand = read_labels(out / "b_labels.nii.gz")
    by_hand.labels[CORNER] = 5
    strata.write(by_hand, out / "b_labels.nii.gz")
    capsys.readouterr()
    refit = [*words, "--codebook-from", "3", "--tissues", "4", "--refit-codebook"]
    assert main(refit) == 1
    said = capsys.readouterr()
    assert "1 done, 1 kept, 1 failed" in said.out
    assert "Give --replay again" in said.err
    assert "b: note: b_labels.nii.gz was changed" in said.err
    assert "do not compare its numbers" in said.err
    assert {row["scan"] for row in table(out / "volumes.tsv")} == {"b", "c"}
    assert main([*refit, *replay]) == 0
    books = [
        json.loads((out / f"{name}_labels.json").read_text())["codebook"]["sha256"]
        for name in "ac"
    ]
    assert books[0] == books[1]
