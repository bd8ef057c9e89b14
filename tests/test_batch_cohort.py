"""A cohort in two passes.

One codebook for all scans, warnings that stay, and what changed between two visits.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_strata.batch.cohort import sample_of
from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.log import read_log
from napari_strata.batch.one_scan import proposal_of
from napari_strata.batch.outputs.names import COHORT_CODEBOOK
from napari_strata.batch.outputs.results import ScanResult
from napari_strata.batch.outputs.tables import collect
from napari_strata.cli.command_line import main
from napari_strata.export.outputs import SIDECAR_FORMAT, outputs_beside
from napari_strata.io.files import write_scan
from napari_strata.proposal.codebook.codebook import Codebook
from napari_strata.volume import Geometry, Volume
from phantoms import INTENSITIES, phantom_truth

FEW = [
    "--tissues",
    "6",
    "--method",
    "gmm-mrf",
    "--supervoxels",
    "300",
    "--threads",
    "1",
    "--workers",
    "1",
    "--quiet",
]
SHAPE = (18, 22, 26)


def save_visit(
    folder: Path,
    subject: str,
    session: str,
    *,
    gain: float = 1.0,
    grown: bool = False,
    seed: int,
) -> None:
    """Write a visit; `grown` takes the brightest organ over its neighbour."""
    truth = phantom_truth(SHAPE)
    if grown:
        truth[truth == 4] = 5
    data = gain * (
        np.array(INTENSITIES)[truth] + np.random.default_rng(seed).normal(0, 15, SHAPE)
    )
    path = (
        folder
        / f"sub-{subject}"
        / f"ses-{session}"
        / f"sub-{subject}_ses-{session}_T1w.nii.gz"
    )
    path.parent.mkdir(parents=True)
    write_scan(
        Volume(data.astype(np.float32), Geometry.from_spacing(SHAPE, (3, 2, 2)), "mr"),
        path,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for k, subject in enumerate("abc"):
        save_visit(folder, subject, "1", seed=k)
    save_visit(folder, "a", "2", grown=True, seed=9)
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    return folder


@pytest.fixture(scope="module")
def made(cohort, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert (
        main(["batch", str(cohort), "-o", str(out), "--codebook-from", "3", *FEW]) == 1
    )
    return out


def test_every_scan_gets_the_tissues_of_the_codebook_fitted_first(made):
    codebook = Codebook.load(made / COHORT_CODEBOOK)
    assert codebook.n == 6
    fitted = codebook.about["batch"]["scans"]
    assert 2 <= len(fitted) <= 3
    assert "broken" not in fitted
    sidecars = [json.loads(path.read_text()) for path in made.glob("*_labels.json")]
    assert {said["codebook"]["sha256"] for said in sidecars} == {codebook.sha256}
    rows = [row for row in table(made / "scans.tsv") if row["status"] == "ok"]
    assert [float(row["drift"]) for row in rows] == [
        said["codebook"]["drift"]
        for said in sorted(sidecars, key=lambda one: one["labels"])
    ]
    assert {row["subject"] for row in table(made / "changes.tsv")} == {"a"}


def visit(
    folder: Path,
    subject: str,
    session: str,
    volumes_ml: dict[int, float],
    codebook: str = "x" * 64,
) -> ScanResult:
    """Leave what a batch leaves of a scan: its sidecar."""
    name = f"sub-{subject}_ses-{session}_T1w"
    scan = PlannedScan(
        name, folder / f"{name}.nii.gz", subject=subject, session=session, kind="T1w"
    )
    outputs = outputs_beside(folder / f"{name}_labels.nii.gz")
    document = {
        "format": SIDECAR_FORMAT,
        "scan": {"modality": "mr", "shape_zyx": [9, 9, 9], "spacing_zyx_mm": [1, 1, 1]},
        "cut": {"tissues": 3},
        "versions": {"napari-strata": "1"},
        "codebook": {"sha256": codebook, "drift": 1.0, "fits": session != "3"},
        "regions": [
            {"id": k, "name": f"tissue {k}", "volume_ml": ml}
            for k, ml in volumes_ml.items()
        ],
    }
    outputs.sidecar.write_text(json.dumps(document))
    return ScanResult(scan, outputs, "done")


def test_follow_ups_tell_the_change_of_each_region(tmp_path):
    visits = [
        visit(tmp_path, "a", "2", {1: 11.0, 2: 4.0}),
        visit(tmp_path, "a", "1", {1: 10.0}),
        visit(tmp_path, "a", "3", {1: 5.5, 2: 3.0}),
        visit(tmp_path, "b", "1", {1: 7.0}),
        visit(tmp_path, "c", "1", {1: 7.0}),
        visit(tmp_path, "c", "2", {1: 8.0}, codebook="y" * 64),
    ]
    changes = collect(visits, tmp_path).changes
    assert changes is not None
    rows = table(changes)
    assert {row["subject"] for row in rows} == {"a"}, (
        "one visit, or two codebooks, have nothing to compare"
    )
    assert [
        (row["session"], row["region_id"], float(row["volume_ml"])) for row in rows
    ] == [
        ("1", "1", 10.0),
        ("1", "2", 0.0),
        ("2", "1", 11.0),
        ("2", "2", 4.0),
        ("3", "1", 5.5),
        ("3", "2", 3.0),
    ]
    last, second = rows[4], rows[3]
    assert (
        float(last["change_from_first_ml"]),
        float(last["change_from_first_percent"]),
    ) == (-4.5, -45.0)
    assert (
        float(last["change_from_previous_ml"]),
        float(last["change_from_previous_percent"]),
    ) == (-5.5, -50.0)
    assert (second["change_from_first_ml"], second["change_from_first_percent"]) == (
        "4.0",
        "",
    ), "no share of nothing"
    assert (last["fits"], second["fits"]) == ("no", "yes")
    assert collect(visits[:1], tmp_path).changes is None
    assert not changes.exists(), "a table of an earlier run does not stay"


def test_a_second_run_keeps_the_codebook_even_when_scans_are_added(
    cohort, made, tmp_path, capsys
):
    scans, out = (
        Path(shutil.copytree(cohort, tmp_path / "scans")),
        Path(shutil.copytree(made, tmp_path / "out")),
    )
    before = (out / COHORT_CODEBOOK).read_bytes()
    save_visit(scans, "d", "1", seed=4)
    assert (
        main(["batch", str(scans), "-o", str(out), "--codebook-from", "3", *FEW]) == 1
    )
    assert "1 done, 4 kept, 1 failed" in capsys.readouterr().out
    assert (out / COHORT_CODEBOOK).read_bytes() == before


def test_another_codebook_takes_a_word_for_it_and_all_scans_with_it(
    cohort, made, tmp_path, capsys
):
    out = Path(shutil.copytree(made, tmp_path / "out"))
    before, earlier = (
        (out / COHORT_CODEBOOK).read_bytes(),
        Codebook.load(out / COHORT_CODEBOOK),
    )
    words = [
        "batch",
        str(cohort),
        "-o",
        str(out),
        "--codebook-from",
        "3",
        *FEW,
        "--seed",
        "1",
    ]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "seed 0 (now 1)" in said
    assert "--refit-codebook" in said
    assert (out / COHORT_CODEBOOK).read_bytes() == before
    assert main([*words, "--refit-codebook"]) == 1
    assert "4 done, 0 kept, 1 failed" in capsys.readouterr().out
    fitted = Codebook.load(out / COHORT_CODEBOOK)
    assert {
        json.loads(path.read_text())["codebook"]["sha256"]
        for path in out.glob("*_labels.json")
    } == {fitted.sha256}
    (aside,) = out.glob("cohort-*.strata-codebook")
    assert Codebook.load(aside).sha256 == earlier.sha256 != fitted.sha256
    shutil.copy(made / "sub-b_ses-1_T1w_labels.json", out / "before_labels.json")
    assert main([*words, "--refit-codebook"]) == 1
    said = capsys.readouterr()
    assert "0 done, 4 kept, 1 failed" in said.out, "the same words again go on with it"
    assert "this command does not name" in said.err
    assert "(before_labels; 1 in all)" in said.err, "it has the earlier numbers"
    assert main(["batch", str(cohort), "-o", str(out), "--dry-run", *FEW]) == 1
    assert "note: " in capsys.readouterr().err, "numbers without the codebook are told"


def test_the_warning_of_a_scan_that_does_not_fit_stays_when_it_is_kept(
    cohort, made, tmp_path, capsys
):
    strict = replace(Codebook.load(made / COHORT_CODEBOOK), typical_distance=1e-6)
    strict.save(tmp_path / "strict.strata-codebook")
    out = tmp_path / "out"
    scan = next(cohort.glob("sub-b/**/*.nii.gz"))
    words = [
        "batch",
        str(scan),
        "-o",
        str(out),
        "--codebook",
        str(tmp_path / "strict.strata-codebook"),
        *FEW[2:],
    ]
    for run in ("done", "kept"):
        assert main(words) == 0
        said = capsys.readouterr()
        assert f"1 {run}" in said.out
        assert said.err.startswith(
            "sub-b_ses-1_T1w: note: the scan does not fit the codebook (drift "
        )
        (row,) = table(out / "scans.tsv")
        assert row["fits"] == "no"
        assert "does not fit" in row["warning"]
        data = json.loads(
            (out / "qc.html")
            .read_text()
            .partition('id="data">')[2]
            .partition("</script>")[0]
        )
        assert [
            ("does not fit" in one["warning"], one["fits"]) for one in data["scans"]
        ] == [(True, False)]


def test_the_sample_takes_each_subject_before_any_twice_and_is_the_same_each_time():
    scans = [
        PlannedScan(f"{subject}{k}", Path(f"{subject}{k}.nii"), subject=subject)
        for subject in "abcd"
        for k in range(3)
    ]
    chosen = sample_of(scans, 4, 0)
    assert sorted(scan.subject for scan in chosen) == ["a", "b", "c", "d"]
    assert sample_of(scans, 4, 0) == chosen
    assert len(sample_of(scans, 99, 0)) == 12
    assert list(sample_of(scans, 7, 1)) == sorted(
        sample_of(scans, 7, 1), key=scans.index
    )


def test_codebook_from_needs_tissues(cohort, tmp_path, capsys):
    regions = ["--regions", "6", *FEW[2:]]
    assert (
        main(
            [
                "batch",
                str(cohort),
                "-o",
                str(tmp_path),
                "--codebook-from",
                "2",
                *regions,
            ]
        )
        == 2
    )
    assert "--tissues" in capsys.readouterr().err
    assert plan_scans([cohort])


def test_a_scan_that_no_codebook_can_be_fitted_to_is_left_out_and_one_of_another_kind_is_named(
    tmp_path, monkeypatch, capsys
):
    scans, out = tmp_path / "in", tmp_path / "out"
    for k, subject in enumerate("ab"):
        save_visit(scans, subject, "1", seed=k)
    few = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    write_scan(
        Volume(few, Geometry.from_spacing(few.shape, (1, 1, 1)), "mr"),
        scans / "tiny.nii.gz",
    )

    def fail(volume, recipe, on_progress):
        """Meet what nobody foresaw in one scan."""
        if "sub-b" in volume.path:
            raise ZeroDivisionError("by chance")
        return proposal_of(volume, recipe, on_progress)

    monkeypatch.setattr("napari_strata.batch.cohort.proposal_of", fail)
    words = ["batch", str(scans), "-o", str(out), "--codebook-from", "20", *FEW]
    main(words)
    assert {
        row["scan"] for row in table(out / "scans.tsv") if row["status"] == "ok"
    } >= {
        "sub-a_ses-1_T1w",
        "sub-b_ses-1_T1w",
    }
    before = (out / COHORT_CODEBOOK).read_bytes()
    left = {
        line["scan"]: line["reason"]
        for line in read_log(out)
        if line["event"] == "left out of the codebook"
    }
    assert "supervoxels in the body" in left["tiny"]
    assert "ZeroDivisionError" in left["sub-b_ses-1_T1w"]
    save_visit(scans, "c", "1", gain=1.4, seed=5)
    capsys.readouterr()
    main(words)
    # fewer scans than were asked for, and more of them now
    assert (out / COHORT_CODEBOOK).read_bytes() == before
    (scans / "list.csv").write_text(
        "path,modality\nsub-a/ses-1/sub-a_ses-1_T1w.nii.gz,mr\nsub-c/ses-1/sub-c_ses-1_T1w.nii.gz,ct\n"
    )
    assert (
        main(
            [
                "batch",
                str(scans / "list.csv"),
                "-o",
                str(tmp_path / "two"),
                "--codebook-from",
                "2",
                *FEW,
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "sub-c_ses-1_T1w.nii.gz is read as CT" in said
    assert "--modality" in said


def test_sessions_follow_each_other_by_their_numbers(tmp_path):
    results = [
        visit(tmp_path, "a", session, {1: float(session)})
        for session in ("10", "2", "1")
    ]
    tables = collect(results, tmp_path)
    assert tables.changes is not None
    assert [row["session"] for row in table(tables.changes)] == ["1", "2", "10"]
