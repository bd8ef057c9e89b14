"""Many scans at once: which they are, what is written for each.

What a second run leaves alone.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import napari_strata as strata
from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.batch.run import Recipe, run_batch
from napari_strata.cli.command_line import main
from napari_strata.errors import Cancelled, ReadError, WriteError
from napari_strata.io.files import write_scan
from napari_strata.settings import ProposeSettings, RunSettings
from phantoms import phantom_volume

FEW = ["--supervoxels", "300", "--threads", "1", "--workers", "1", "--quiet"]
SHAPE = (16, 20, 24)


def save_scan(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_scan(phantom_volume(SHAPE, (3, 2, 2), seed), path)


def save_series(folder: Path, uid: str, description: str) -> None:
    """Write a DICOM series of three slices."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(3):
        image = sitk.GetImageFromArray(
            np.random.default_rng(k).integers(0, 900, (1, 16, 16)).astype(np.int16)
        )
        image.SetOrigin((0, 0, 2.0 * k))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{uid}.{k}",
            "0008|0060": "MR",
            "0008|103e": description,
        }
        place = {
            "0020|000d": "1.2.9",
            "0020|000e": uid,
            "0020|0032": f"0\\0\\{2 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in {**tags, **place}.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{uid}_{k}.dcm"))
        writer.Execute(image)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def stamps(folder: Path) -> dict[str, int]:
    """Give when each label file, sidecar and region table was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*_labels.*")}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Two scans and a broken one."""
    folder = tmp_path_factory.mktemp("cohort")
    save_scan(folder / "sub-01" / "T1.nii.gz")
    save_scan(folder / "sub-02" / "T1.nii.gz", seed=1)
    (folder / "broken.nii.gz").write_bytes(b"no scan at all")
    return folder


@pytest.fixture(scope="module")
def made(cohort, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "new" / "out"
    assert main(["batch", str(cohort), "-o", str(out), "--tissues", "4", *FEW]) == 1
    return out


def test_every_scan_gets_labels_sidecar_and_table(cohort, made):
    ids = ("sub-01_T1", "sub-02_T1")
    named = {
        f"{scan}_labels{suffix}"
        for scan in ids
        for suffix in (".nii.gz", ".json", ".csv")
    }
    whole = {"volumes.tsv", "scans.tsv", "failures.tsv", "qc.html", "qc", "batch.jsonl"}
    assert {
        path.name for path in made.iterdir() if not path.name.startswith(".")
    } == named | whole
    assert {path.name for path in (made / "qc").iterdir()} == {
        f"{scan}.webp" for scan in ids
    }
    assert not list(made.rglob(".strata-*"))
    labels = strata.read_labels(made / "sub-01_T1_labels.nii.gz")
    assert labels.labels.shape == SHAPE
    settings = ProposeSettings(supervoxels=300)
    alone = strata.propose(
        strata.read(cohort / "sub-01" / "T1.nii.gz"), settings=settings, threads=1
    ).tissues(4)
    assert np.array_equal(labels.labels, alone.labels)


def test_a_broken_scan_is_recorded_with_its_reason_and_the_rest_goes_on(cohort, made):
    (failed,) = table(made / "failures.tsv")
    assert failed["scan"] == "broken"
    assert failed["path"] == str(cohort / "broken.nii.gz")
    assert "broken.nii.gz" in failed["reason"]


def test_volumes_has_a_row_per_scan_and_region_with_units_in_the_names(made):
    rows = table(made / "volumes.tsv")
    assert [(row["scan"], row["region_id"]) for row in rows] == [
        (s, str(k)) for s in ("sub-01_T1", "sub-02_T1") for k in range(1, 5)
    ]
    sidecar = json.loads((made / "sub-01_T1_labels.json").read_text())
    for row, region in zip(rows, sidecar["regions"], strict=False):
        assert float(row["volume_ml"]) == region["volume_ml"] > 0
        assert float(row["mean"]) == region["mean"]
        assert row["region"] == region["name"]
        assert row["cut"] == "4 tissues"


def test_failures_are_said_on_the_way_out(cohort, made, capsys):
    assert main(["batch", str(cohort), "-o", str(made), "--tissues", "4", *FEW]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("broken: ")
    assert "0 done, 2 kept, 1 failed" in said.out


def test_a_second_run_leaves_alone_what_stands(cohort, made, tmp_path, capsys):
    out = Path(shutil.copytree(made, tmp_path / "out"))
    before, rows = stamps(out), table(out / "volumes.tsv")
    scans = [str(cohort / "sub-*" / "*.nii.gz")]
    assert main(["batch", *scans, "-o", str(out), "--tissues", "4", *FEW]) == 0
    assert stamps(out) == before
    assert table(out / "volumes.tsv") == rows
    assert table(out / "failures.tsv") == []
    assert "0 done, 2 kept, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        ["--tissues", "3"],
        ["--tissues", "4", "--seed", "5"],
        ["--tissues", "4", "--feature-weight", "0.5"],
    ],
)
def test_another_cut_seed_or_setting_runs_again(
    changed, cohort, made, tmp_path, capsys
):
    out = Path(shutil.copytree(made, tmp_path / "out"))
    assert main(["batch", str(cohort / "sub-*"), "-o", str(out), *FEW, *changed]) == 0
    assert "2 done, 0 kept" in capsys.readouterr().out
    assert {row["cut"] for row in table(out / "volumes.tsv")} == {
        f"{changed[1]} tissues"
    }


def test_only_a_scan_that_changed_or_lost_its_labels_runs_again(
    cohort, made, tmp_path, capsys
):
    scans, out = (
        Path(shutil.copytree(cohort, tmp_path / "scans")),
        Path(shutil.copytree(made, tmp_path / "out")),
    )
    (scans / "broken.nii.gz").unlink()
    words = ["batch", str(scans), "-o", str(out), "--tissues", "4", *FEW]
    save_scan(scans / "sub-02" / "T1.nii.gz", seed=7)
    assert main(words) == 1
    assert (
        f"belongs to another scan of the same id, {cohort / 'sub-02' / 'T1.nii.gz'}"
        in capsys.readouterr().err
    )
    moved = out / "sub-02_T1_labels.json"
    moved.write_text(moved.read_text().replace(str(cohort), str(scans)))
    assert main(words) == 0
    assert "1 done, 1 kept" in capsys.readouterr().out
    (out / "sub-01_T1_labels.nii.gz").unlink()
    assert main(words) == 0
    assert "1 done, 1 kept" in capsys.readouterr().out
    (out / "sub-01_T1_labels.csv").unlink()
    assert main(words) == 0
    assert "1 done, 1 kept" in capsys.readouterr().out


def test_a_scan_that_fails_later_is_not_in_the_volumes(cohort, made, tmp_path):
    scans, out = (
        Path(shutil.copytree(cohort, tmp_path / "scans")),
        Path(shutil.copytree(made, tmp_path / "out")),
    )
    (scans / "sub-01" / "T1.nii.gz").write_bytes(b"damaged on the way")
    assert main(["batch", str(scans), "-o", str(out), "--tissues", "4", *FEW]) == 1
    assert {row["scan"] for row in table(out / "volumes.tsv")} == {"sub-02_T1"}
    assert {row["scan"] for row in table(out / "failures.tsv")} == {
        "broken",
        "sub-01_T1",
    }


def test_a_stopped_batch_keeps_what_is_done(cohort, tmp_path):
    scans = plan_scans([cohort / "sub-01", cohort / "sub-02"])
    recipe = Recipe(
        "regions", 3, ProposeSettings(supervoxels=300), RunSettings(threads=1)
    )

    def stop_at_the_second(done: int, total: int, stage: str) -> None:
        assert total == 2
        if done == 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run_batch(scans, tmp_path, recipe, on_progress=stop_at_the_second)
    assert len(list(tmp_path.glob("*_labels.*"))) == 3
    assert [one.status for one in run_batch(scans, tmp_path, recipe)] == [
        "kept",
        "done",
    ]


def test_dicom_folders_give_one_scan_per_series(tmp_path):
    save_series(tmp_path / "study" / "mixed", "1.2.3", "T1 ax/3D")
    save_series(tmp_path / "study" / "mixed", "1.2.4", "T2 cor")
    save_series(tmp_path / "study" / "one", "1.2.5", "FLAIR")
    scans = plan_scans([tmp_path / "study"])
    assert [(scan.id, scan.series) for scan in scans] == [
        ("mixed_T1_ax_3D", "1.2.3"),
        ("mixed_T2_cor", "1.2.4"),
        ("one", "1.2.5"),
    ]
    assert [
        strata.read(scan.path, series=scan.series).data.shape for scan in scans
    ] == [(3, 16, 16)] * 3
    slices = sorted(map(str, (tmp_path / "study" / "one").iterdir()))
    assert [scan.series for scan in plan_scans(slices)] == ["1.2.5"]
    with pytest.raises(WriteError, match="DICOM folder"):
        plan_scans([tmp_path / "study"], leave_out=tmp_path / "study" / "one" / "out")


def test_ids_are_unique_and_fit_for_file_names(tmp_path):
    for name in (
        "a/T1.nii.gz",
        "b/T1.nii.gz",
        "b/t1.nii",
        "a_b.nii",
        "a/b.nii",
        "c/odd name (2).nii",
    ):
        save_scan(tmp_path / name)
    explicit = plan_scans([tmp_path / "a" / "T1.nii.gz", tmp_path / "b" / "T1.nii.gz"])
    assert [scan.id for scan in explicit] == ["a_T1", "b_T1"]
    ids = [scan.id for scan in plan_scans([tmp_path])]
    assert len(ids) == len({name.lower() for name in ids}) == 6
    assert "c_odd_name_2" in ids
    again = plan_scans([tmp_path, tmp_path / "a", str(tmp_path / "*" / "*.nii*")])
    assert [scan.id for scan in again] == ids


def test_a_search_passes_over_hidden_files_outputs_and_labels_of_ours(
    cohort, made, tmp_path
):
    scans = Path(shutil.copytree(cohort / "sub-01", tmp_path / "scans"))
    shutil.copy(scans / "T1.nii.gz", scans / ".strata-unfinished.nii.gz")
    (scans / "notes.txt").write_text("no scan")
    shutil.copytree(made, scans / "labels")
    save_scan(scans / "out" / "left_by_hand.nii.gz")
    assert [scan.id for scan in plan_scans([scans], leave_out=scans / "out")] == ["T1"]


@pytest.mark.parametrize("given", ["nowhere.nii.gz", "*.mha", "."])
def test_inputs_without_a_scan_are_one_line_and_make_nothing(given, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    assert (
        main(
            [
                "batch",
                str(tmp_path / "in" / given),
                "-o",
                str(out),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 2
    )
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not out.exists()
    with pytest.raises(ReadError, match="There is no"):
        plan_scans([tmp_path / "in" / given])


@pytest.mark.parametrize(
    "wrong", [["--tissues", "0"], ["--tissues", "4", "--weights", "no.safetensors"]]
)
def test_what_would_fail_for_every_scan_is_told_before_the_first(
    wrong, cohort, tmp_path, capsys
):
    assert main(["batch", str(cohort), "-o", str(tmp_path / "out"), *FEW, *wrong]) == 2
    assert capsys.readouterr().err.startswith("strata: ")
    assert not (tmp_path / "out").exists()


def test_workers_without_dask_say_that_scans_run_one_by_one(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    first, second = (
        save_scan(tmp_path / "a.nii.gz"),
        save_scan(tmp_path / "b.nii.gz", 1),
    )
    words = ["-o", str(tmp_path / "out"), "--tissues", "4", "--method", "gmm-mrf"]
    words += ["--supervoxels", "300", "--threads", "1"]
    install = 'pip install "napari-strata[cluster]"'

    assert main(["batch", str(first), *words, "--workers", "2"]) == 0
    notes = [
        line for line in capsys.readouterr().err.splitlines() if "one by one" in line
    ]
    assert len(notes) == 1
    assert install in notes[0]
    for told in (["--workers", "1"], ["--workers", "2", "--quiet"]):
        assert main(["batch", str(first), *words, *told]) == 0
        assert "one by one" not in capsys.readouterr().err
    # two scans at once were asked for, and cannot be had: one is kept, so one runs here
    assert main(["batch", str(first), str(second), *words, "--workers", "2"]) == 0
    assert "one by one" in capsys.readouterr().err
    assert (
        main(
            ["batch", str(first), str(second), *words, "--seed", "1", "--workers", "2"]
        )
        == 2
    )
    refused = capsys.readouterr().err
    assert install in refused
    assert "one by one" not in refused
