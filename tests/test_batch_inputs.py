"""What a batch may be given: lists and BIDS data sets; and what a BIDS data set gets."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.batch.inputs.plan import plan_batch, plan_scans
from napari_strata.cli.command_line import main
from napari_strata.errors import ReadError
from napari_strata.io.files import write, write_scan
from napari_strata.volume import Segmentation, default_regions
from phantoms import phantom_truth, phantom_volume

SHAPE = (16, 20, 24)
FEW = [
    "--tissues",
    "4",
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


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_scan(phantom_volume(SHAPE, (3, 2, 2), seed), path)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A BIDS data set: two subjects, one of them twice.

    With what is no scan of structure beside.
    """
    root = tmp_path / "ds"
    for name in (
        "sub-01/ses-1/anat/sub-01_ses-1_T1w",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w",
        "sub-02/anat/sub-02_acq-x_T2w",
    ):
        save(root / f"{name}.nii.gz", len(name))
    save(root / "sub-02" / "func" / "sub-02_task-rest_bold.nii.gz")
    save(root / "sub-02" / "anat" / "sub-02_mod-T1w_defacemask.nii.gz")
    save(
        root / "derivatives" / "other" / "sub-01" / "anat" / "sub-01_desc-x_T1w.nii.gz"
    )
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "phantoms", "BIDSVersion": "1.10.0"})
    )
    return root


def test_a_bids_data_set_gives_its_structural_scans_with_their_entities(dataset):
    scans = plan_scans([dataset])
    assert [scan.id for scan in scans] == [
        "sub-01_ses-1_T1w",
        "sub-01_ses-2_T1w",
        "sub-02_acq-x_T2w",
    ]
    assert [(scan.subject, scan.session, scan.kind) for scan in scans] == [
        ("01", "1", "T1w"),
        ("01", "2", "T1w"),
        ("02", "", "acq-x_T2w"),
    ]
    assert [
        scan.id for scan in plan_scans([str(dataset / "sub-*" / "**" / "*_T1w.nii.gz")])
    ] == ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w"]


def test_a_bids_data_set_gets_a_derivative_data_set(dataset, capsys):
    assert main(["batch", str(dataset), *FEW]) == 0
    out = dataset / "derivatives" / "strata"
    stem = out / "sub-02" / "anat" / "sub-02_acq-x_desc-T2w_dseg"
    labels = strata.read_labels(stem.with_suffix(".nii.gz"))
    assert labels.labels.shape == SHAPE
    rows = table(stem.with_suffix(".tsv"))
    assert list(rows[0])[:3] == ["index", "name", "color"]
    assert [int(row["index"]) for row in rows] == np.unique(
        labels.labels[labels.labels > 0]
    ).tolist()
    said = json.loads(stem.with_suffix(".json").read_text())
    assert said["Sources"] == ["bids:raw:sub-02/anat/sub-02_acq-x_T2w.nii.gz"]
    assert said["volume_ml"]["Units"] == "mL"
    assert said["centroid_r_mm"]["Units"] == "mm"
    assert said["voxels"]["Units"] == said["z_start"]["Units"] == "1"
    assert "Units" not in said["mean"]
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "Strata"
    assert (out / about["DatasetLinks"]["raw"]).resolve() == dataset.resolve()
    ignored = (out / ".bidsignore").read_text().split()
    covered = ("dataset_description.json", "README.md")
    beside = {
        path.name
        for path in out.iterdir()
        if not path.name.startswith((".", "sub-")) and path.name not in covered
    }
    assert beside <= {*ignored, "qc.html"}
    own = {
        **about,
        "Authors": ["A Person"],
        "GeneratedBy": [
            {"Name": "fMRIPrep"},
            about["GeneratedBy"][0] | {"Version": "0.0.1"},
        ],
    }
    (out / "dataset_description.json").write_text(json.dumps(own))
    (out / ".bidsignore").write_text("notes.txt\n")
    assert main(["batch", str(dataset), *FEW]) == 0
    assert "0 done, 3 kept" in capsys.readouterr().out
    again = json.loads((out / "dataset_description.json").read_text())
    assert again == {
        **about,
        "Authors": ["A Person"],
        "GeneratedBy": [{"Name": "fMRIPrep"}, about["GeneratedBy"][0]],
    }
    assert (out / ".bidsignore").read_text().split() == ["notes.txt", *ignored]
    assert main(["batch", str(dataset), *FEW, "--seed", "4"]) == 0
    assert (
        "seed 4"
        in json.loads((out / "dataset_description.json").read_text())["GeneratedBy"][1][
            "Description"
        ]
    )


@pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="pipes under a file's name are POSIX"
)
def test_pipes_among_the_scans_are_passed_over_and_never_opened(tmp_path, capsys):
    scan = save(tmp_path / "scans" / "a.nii.gz")
    for name in ("pipe", "pipe.nii.gz", "pipe.dcm"):
        os.mkfifo(tmp_path / "scans" / name)
    os.symlink(tmp_path / "gone.nii.gz", tmp_path / "scans" / "link.nii.gz")
    # whose header may be any .mhd beside it
    (tmp_path / "scans" / "voxels.raw").write_bytes(bytes(9))
    os.mkfifo(tmp_path / "scans" / "pipe.mhd")
    (tmp_path / "scans" / "folder.mhd").mkdir()
    assert [one.path.name for one in plan_scans([tmp_path / "scans"])] == [
        scan.name,
        "link.nii.gz",
    ], "a link to nowhere fails, and is told"
    with pytest.raises(ReadError, match="pipe"):
        plan_scans([tmp_path / "scans" / "pipe.nii.gz"])
    given = write_list(tmp_path / "list.csv", "path\nscans/pipe.nii.gz\n")
    assert main(["batch", str(given), "-o", str(tmp_path / "out"), *FEW]) == 1
    assert "is a pipe" in capsys.readouterr().err


def write_list(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_names_scans_and_says_more_of_them(tmp_path, capsys):
    for k in range(3):
        save(tmp_path / "data" / f"{k}.nii.gz", k)
    truth = phantom_truth(SHAPE)
    volume = strata.read(tmp_path / "data" / "0.nii.gz")
    write(
        Segmentation(truth, default_regions(range(1, 6)), volume.geometry),
        tmp_path / "truth.nii.gz",
    )
    given = write_list(
        tmp_path / "cohort.csv",
        "\ufeffid;path;reference;age;modality;subject;session\n"
        "first;data/0.nii.gz;truth.nii.gz;40;mr;A;1\nsecond;data/1.nii.gz;;41;ct;A;2\n;data/2.nii.gz;;;;;\ngone;data/9.nii.gz;;;;;\n",
    )
    scans = plan_scans([given])
    assert [(scan.id, scan.subject, scan.session, scan.modality) for scan in scans] == [
        ("first", "A", "1", "mr"),
        ("second", "A", "2", "ct"),
        ("2", "", "", None),
        ("gone", "", "", None),
    ]
    out = tmp_path / "out"
    assert main(["batch", str(given), "-o", str(out), *FEW]) == 1
    assert "3 done, 0 kept, 1 failed" in capsys.readouterr().out
    (failed,) = table(out / "failures.tsv")
    assert failed["scan"] == "gone"
    assert "9.nii.gz" in failed["reason"]
    assert [row["modality"] for row in table(out / "scans.tsv")] == [
        "mr",
        "ct",
        "mr",
        "",
    ]
    scores = {
        (row["measure"], row["class"]): float(row["value"])
        for row in table(out / "agreement.tsv")
        if row["value"]
    }
    assert scores["many_to_one_mean", ""] > 0.6
    assert {"hd95_mm", "nsd_2_mm", "volume_difference_ml"} <= {
        measure for measure, _ in scores
    }
    assert {row["scan"] for row in table(out / "agreement.tsv")} == {"first"}
    truth[:] = 1
    write(
        Segmentation(truth, default_regions([1]), volume.geometry),
        tmp_path / "truth.nii.gz",
    )
    assert main(["batch", str(given), "-o", str(out), *FEW]) == 1
    assert "1 done, 2 kept, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,file\na,b.nii\n", "no column `path`"),
        ("path,refrence\na.nii,b.nii\n", "`reference`"),
        ("id,path\na,x.nii\nA,y.nii\n", "twice"),
        ("path,modality\na.nii,pet\n", "'pet'"),
        ("path,index\na.nii,first\n", "'first'"),
        ("id,path\na,\n", "no path"),
        ("path\n", "no rows"),
    ],
)
def test_a_list_that_cannot_be_meant_is_told_with_what_to_do(text, said, tmp_path):
    with pytest.raises(ReadError, match=said):
        plan_scans([write_list(tmp_path / "list.csv", text)])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path, capsys):
    save(tmp_path / "scans" / "a.nii.gz")
    save(tmp_path / "scans" / "b.nii.gz", 1)
    (tmp_path / "scans" / "c.nii.gz").write_bytes(b"no")
    out = tmp_path / "out"
    words = ["batch", str(tmp_path / "scans"), "-o", str(out), *FEW]
    assert main([*words, "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "would make 2, would keep 0, would leave 0, would fail 1" in said
    assert "GB" in said
    main([*words, "--dry-run", "--budget-gb", "0.1"])
    assert "a: would fail" in capsys.readouterr().out
    assert not out.exists()
    main(words)
    save(tmp_path / "scans" / "b.nii.gz", 2)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    main([*words, "--dry-run"])
    said = capsys.readouterr().out
    assert "a: would keep (up to date)" in said
    assert "b: would make (changed: scan)" in said
    main([*words, "--dry-run", "--seed", "3"])
    assert "a: would make (changed: batch)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    shutil.rmtree(out)


def test_where_outputs_go_has_to_be_said_but_for_bids(tmp_path, capsys):
    save(tmp_path / "a.nii.gz")
    assert main(["batch", str(tmp_path), *FEW]) == 2
    assert "-o OUT" in capsys.readouterr().err


def test_several_files_of_one_name_are_all_made_under_names_of_their_own(
    dataset, capsys
):
    twin = dataset / "sub-02" / "anat" / "sub-02_acq-x_T2w.nii"
    save(twin)
    assert (
        main(
            [
                "batch",
                str(dataset / "sub-02" / "anat"),
                "-o",
                str(dataset / "out"),
                *FEW,
            ]
        )
        == 0
    )
    capsys.readouterr()
    made = {path.name for path in (dataset / "out").rglob("*_dseg.nii.gz")}
    assert {
        f"sub-02_acq-x_desc-{kind}_dseg.nii.gz" for kind in ("T2w", "T2wNii")
    } <= made


OFF_STANDARD = (
    "sub-02/ses-2020-01-15/anat/sub-02_ses-2020-01-15_T1w.nii.gz",
    "sub-02/ses-2020-02-15/anat/sub-02_ses-2020-02-15_T1w.nii.gz",
    "sub-03/anat/sub-03_acq-0.8mm_T1w.NII.GZ",
    "sub-04/ses-1/anat/sub-04_T1w.nii.gz",
    "sub-04/ses-2/anat/sub-04_T1w.nii.gz",
    "sub-05/anat/T1.nii.gz",
    "sub-05/sub-05_part-mag_T1w.nrrd",
    "sub_08/anat/sub_08_T1w.nii.gz",
    "sub-09/anat/sub-09_run_1_T1w.nii.gz",
    "sub-10/ses-1/anat/sub-10_T1w.nii.gz",
)
PASSED = {
    "sub-02/anat/sub-02_part-phase_MEGRE.nii.gz": True,
    "sub-02/anat/sub-02_part_imag_MEGRE.nii.gz": True,
    "sub-02/extra/sub-02_odd.nii.gz": True,
    "patient7/scan.nii.gz": True,
    "sub-02/anat/sub-02_T1w.nii.bz2": True,
    "sub-11": True,
    "sub-02/anat/sub-02_dseg.nii.gz": False,
    "sub-02/fmap/sub-02_phasediff.nii.gz": False,
    "derivatives/other/sub-02/anat/sub-02_desc-x_T1w.nii.gz": False,
    "sub-02/up": False,
    "sub-12": False,
}
"""Path, and whether a person may want it nevertheless."""


@pytest.fixture(scope="module")
def odd_dataset(tmp_path_factory) -> Path:
    """A data set as people have it; the files hold nothing, as only their names count."""
    folder = tmp_path_factory.mktemp("odd")
    root = folder / "ds"
    outside = "sub-10/ses-1/"
    for name in (*OFF_STANDARD, *PASSED, "sub-02/anat/sub-02_T1w.json", "README"):
        path = (
            (folder / "elsewhere" / name.removeprefix(outside))
            if name.startswith(outside)
            else root / name
        )
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    (root / "sub-10").mkdir()
    for link, target in (
        ("sub-10/ses-1", folder / "elsewhere"),
        ("sub-02/up", ".."),
        ("sub-11", "nowhere"),
        ("sub-12", "sub-09"),
    ):
        (root / link).symlink_to(target)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.8.0"})
    )
    return root


def test_bids_names_off_the_standard_are_found_and_what_is_passed_over_is_told(
    odd_dataset,
):
    plan = plan_batch([odd_dataset])
    assert {str(one.path.relative_to(odd_dataset)) for one in plan.scans} == set(
        OFF_STANDARD
    )
    assert len({one.bids.labels_stem for one in plan.scans if one.bids}) == len(
        plan.scans
    ), "no two share their outputs"
    assert {one.session for one in plan.scans if "sub-02" in str(one.path)} == {
        "2020-01-15",
        "2020-02-15",
    }
    assert {
        str(one.path.relative_to(odd_dataset)): one.may_be_scan for one in plan.skipped
    } == PASSED


def test_the_plan_the_errors_and_the_table_name_what_is_passed_over(tmp_path, capsys):
    save(tmp_path / "in" / "a.nii.gz")
    save(tmp_path / "in" / "a_part-phase_T2starw.nii.gz", 1)
    words = ["batch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *FEW]
    assert main([*words, "--dry-run"]) == 1
    said = capsys.readouterr()
    assert all(
        "a_part-phase_T2starw.nii.gz" in text and "a phase image" in text
        for text in said
    )
    assert not (tmp_path / "out").exists()
    assert main(words) == 1
    assert "1 done, 0 kept, 0 failed, 1 passed over" in capsys.readouterr().out
    (row,) = table(tmp_path / "out" / "failures.tsv")
    assert row["path"].endswith("a_part-phase_T2starw.nii.gz")
    assert row["reason"].startswith("passed over: a phase image")
    assert (
        main([*words[:1], str(tmp_path / "in" / "*"), *words[2:], "--dry-run"]) == 0
    ), "a glob chooses, and takes what it names"


def test_a_search_follows_links_once_and_ends(tmp_path):
    folder = tmp_path / "in"
    for name in (
        "real/a.nii.gz",
        "pair/P.IMG",
        "pair/P.HDR",
        "x.nii.gz/inner.nii.gz",
        "other.tif",
        "trail.nii.gz ",
        "scan.zip",
        ".hidden.nii",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "out_there").mkdir()
    (tmp_path / "out_there" / "b.nii.gz").write_bytes(b"x")
    for link, target in (
        ("real/up", ".."),
        ("one", "../out_there"),
        ("two", "../out_there"),
        ("self", "self"),
        ("c.nii.gz", "real/a.nii.gz"),
    ):
        (folder / link).symlink_to(target)
    for given in (str(folder), f"{folder}/**", f"{folder}/*"):
        plan = plan_batch([given])
        found = [str(one.path.resolve().relative_to(tmp_path)) for one in plan.scans]
        assert sorted(found) == [
            "in/pair/P.HDR",
            "in/real/a.nii.gz",
            "in/x.nii.gz/inner.nii.gz",
            "out_there/b.nii.gz",
        ]
        doubted = {one.path.name for one in plan.skipped if one.may_be_scan}
        assert doubted == {"other.tif", "trail.nii.gz ", "scan.zip", "self"}
        assert {"two", "up"} <= {one.path.name for one in plan.skipped}


def test_a_list_may_name_a_scan_twice_and_goes_before_a_search(tmp_path):
    """Two people drew references on it; the folder that it lies in is given as well."""
    save(tmp_path / "in" / "a.nii.gz")
    save(tmp_path / "in" / "b.nii.gz", 1)
    rows = write_list(
        tmp_path / "list.csv",
        "id,path,reference\na-mia,in/a.nii.gz,one.nii.gz\na-leo,in/a.nii.gz,two.nii.gz\n",
    )
    scans = plan_scans([tmp_path / "in", rows])
    assert [(scan.id, scan.reference and scan.reference.name) for scan in scans] == [
        ("b", None),
        ("a-mia", "one.nii.gz"),
        ("a-leo", "two.nii.gz"),
    ]


def test_deep_folders_and_a_scan_that_is_gone_do_not_stop_the_others(tmp_path):
    """DICOM archives have folders of 64 characters in each other.

    A data set that was fetched in part has links to nowhere.
    """
    deep = tmp_path / "in" / "/".join(str(k) * 64 for k in range(1, 5))
    for name in ("one", "two"):
        save(deep / name / "ä.nii.gz")
    (tmp_path / "in" / "gone.nii.gz").symlink_to("nowhere.nii.gz")
    scans = plan_scans([tmp_path / "in"])
    assert len({scan.id for scan in scans}) == 3
    assert max(len(scan.id.encode()) for scan in scans) < 140
    assert [scan.id for scan in scans] == [
        scan.id for scan in plan_scans([tmp_path / "in"])
    ]
    assert main(["batch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *FEW]) == 1
    assert [row["status"] for row in table(tmp_path / "out" / "scans.tsv")] == [
        "failed",
        "ok",
        "ok",
    ]
