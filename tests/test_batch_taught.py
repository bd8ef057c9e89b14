"""What strokes on one scan taught, given to every scan of a batch."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.cli.command_line import main
from napari_strata.io.files import read_labels, write_scan
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_truth, phantom_volume

TRUTH = phantom_truth()
LIVER, KIDNEY = 2, 3
FEW = ["--method", "gmm-mrf", "--supervoxels", "300", "--threads", "1", "--quiet"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def teach(folder: Path, name: str, organ: int) -> Path:
    """Stroke one organ in a case and keep what that taught."""
    work = Refinement.load(folder / "case.strata")
    inside = np.argwhere(ndi.binary_erosion(organ == TRUTH))
    work.rename(work.scribble(inside[::9], scope="everywhere"), "liver")
    work.teach().save(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Two visits of a subject, a CT, and two teachings."""
    folder = tmp_path_factory.mktemp("taught")
    for k in (1, 2):
        write_scan(phantom_volume(seed=2 + k), folder / f"sub-a_ses-{k}_T1w.nii.gz")
    shutil.copy(folder / "sub-a_ses-1_T1w.nii.gz", folder / "ct.nii.gz")
    (folder / "list.csv").write_text(
        "path,modality\nsub-a_ses-1_T1w.nii.gz,mr\nsub-a_ses-2_T1w.nii.gz,mr\nct.nii.gz,ct\n"
    )
    scan = str(folder / "sub-a_ses-1_T1w.nii.gz")
    words = [
        "propose",
        scan,
        "-o",
        str(folder / "first.nrrd"),
        "--tissues",
        "5",
        "--modality",
        "mr",
    ]
    assert main([*words, "--case", str(folder / "case.strata"), *FEW]) == 0
    teach(folder, "a.strata-teaching", LIVER)
    teach(folder, "b.strata-teaching", KIDNEY)
    return folder


def test_every_scan_gets_the_taught_regions_with_confidence_and_others_are_refused(
    cohort, tmp_path, capsys
):
    out = tmp_path / "out"
    words = ["batch", str(cohort / "list.csv"), "-o", str(out), "--workers", "1", *FEW]
    given = [*words, "--taught", str(cohort / "a.strata-teaching")]
    assert main(given) == 1
    assert "2 done, 0 kept, 1 failed" in capsys.readouterr().out
    assert "read as CT" in table(out / "failures.tsv")[0]["reason"]
    alone = tmp_path / "alone.nii.gz"
    scan = str(cohort / "sub-a_ses-2_T1w.nii.gz")
    assert (
        main(["propose", scan, "-o", str(alone), "--modality", "mr", *given[-2:], *FEW])
        == 0
    )
    labels = read_labels(out / "sub-a_ses-2_T1w_labels.nii.gz")
    assert np.array_equal(labels.labels, read_labels(alone).labels)
    assert [region.name for region in labels.regions] == ["liver"]
    said = json.loads((out / "sub-a_ses-2_T1w_labels.json").read_text())
    for row in table(out / "volumes.tsv"):
        assert row["region"] == "liver"
        assert row["fits"] in ("yes", "no")
    assert float(row["confidence"]) == pytest.approx(
        next(iter(said["taught"]["confidence"].values())), abs=1e-3
    )
    rows = [
        list(csv.DictReader(path.open(encoding="utf-8")))
        for path in (alone.with_name("alone.csv"), out / "sub-a_ses-2_T1w_labels.csv")
    ]
    assert rows[0] == rows[1], (
        "the table of one scan and of a batch tell the same confidence"
    )
    assert [row["session"] for row in table(out / "changes.tsv")] == ["1", "2"]
    assert '"fits_what":"teaching"' in (out / "qc.html").read_text(encoding="utf-8")
    assert main(given) == 1
    assert "0 done, 2 kept" in capsys.readouterr().out
    assert main([*words, "--taught", str(cohort / "b.strata-teaching")]) == 1
    assert "2 done, 0 kept" in capsys.readouterr().out


def test_a_scan_unlike_the_one_that_taught_is_told_when_made_and_when_kept(
    cohort, tmp_path, capsys
):
    stripes = 1000 * (np.indices(TRUTH.shape)[2] % 2) + np.random.default_rng(0).normal(
        0, 5, TRUTH.shape
    )
    like = phantom_volume(seed=3)
    scan = write_scan(
        replace(like, data=stripes.astype(np.float32), path=""),
        tmp_path / "stripes.nii.gz",
    )
    words = [
        "batch",
        str(scan),
        "-o",
        str(tmp_path / "out"),
        "--modality",
        "mr",
        *FEW,
        "--taught",
        str(cohort / "a.strata-teaching"),
    ]
    for status in ("1 done", "1 kept"):
        assert main(words) == 0
        said = capsys.readouterr()
        assert status in said.out
        assert "unlike the one that taught" in said.err


def test_a_teaching_that_cannot_be_used_is_told_before_the_first_scan(
    cohort, tmp_path, capsys
):
    words = [
        "batch",
        str(cohort / "list.csv"),
        "-o",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    (tmp_path / "bad.strata-teaching").write_bytes(b"no teaching")
    assert main([*words, *FEW, "--taught", str(tmp_path / "bad.strata-teaching")]) == 2
    assert main([*words, "--quiet", "--taught", str(cohort / "a.strata-teaching")]) == 2
    assert "encoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
