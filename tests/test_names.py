"""File names are bytes.

What cannot be decoded is read, written, told and remembered all the same.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import napari_strata as strata
from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.cli.command_line import main
from napari_strata.errors import ReadError
from napari_strata.export.files import write as export
from napari_strata.filenames import from_printable, json_text, printable
from napari_strata.io.files import LABEL_SUFFIXES, read_labels, write, write_scan
from napari_strata.refine.session.recovery import find_unfinished
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Segmentation, default_regions
from phantoms import phantom_proposal, phantom_truth, phantom_volume

pytestmark = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="names there are always text"
)

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
    "--quiet",
]
LATIN = os.fsdecode(b"d\xe9r")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder whose name is latin-1, in which pytest looks for nothing."""
    made = tmp_path / LATIN
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def labels() -> Segmentation:
    return Segmentation(
        phantom_truth(SHAPE),
        default_regions(range(1, 6)),
        phantom_volume(SHAPE, (3, 2, 2)).geometry,
    )


def test_names_are_shown_as_one_line_and_read_back():
    name = os.fsdecode(b"a\xe9\nb\t\x1b\xff") + "ü\u2028"
    assert printable(name) == r"a\xe9\nb\t\x1b\xffü\u2028"
    assert from_printable(r"d\xe9r/\xc3\xbc") == f"{LATIN}/ü"
    assert json.loads(json_text({"path": name}).encode("utf-8")) == {"path": name}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz", ".seg.nrrd"])
def test_labels_go_under_any_name_and_come_back(suffix, folder, labels):
    path = write(labels, folder / f"{LATIN}{suffix}")
    assert np.array_equal(read_labels(path).labels, labels.labels)
    assert suffix in LABEL_SUFFIXES


@pytest.mark.parametrize(
    ("suffix", "key"), [(".nhdr", b"data file: "), (".mhd", b"ElementDataFile = ")]
)
def test_the_voxels_of_a_header_are_found_under_any_name(suffix, key, folder):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    plain = folder.parent / f"x{suffix}"
    sitk.WriteImage(image, str(plain))
    header, voxels = folder / f"{LATIN}{suffix}", os.fsencode(folder) + b"/v\xe8.raw"
    header.write_bytes(plain.read_bytes().replace(key + b"x.raw", key + b"v\xe8.raw"))
    os.rename(folder.parent / "x.raw", voxels)
    assert np.array_equal(np.sort(strata.read(header).data.ravel()), np.arange(60))


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply", ".label", ".csv", ".tsv"])
def test_exports_go_under_any_name(suffix, folder, labels):
    assert export(labels, folder / f"{LATIN}{suffix}").stat().st_size


def test_a_proposal_remembers_its_scan_and_its_case_finds_it(folder, capsys):
    scan = write_scan(phantom_volume(SHAPE, (3, 2, 2)), folder / f"{LATIN}\n.nii.gz")
    out, case, picture = (
        folder / f"lab{LATIN}{ending}" for ending in (".nii.gz", ".strata", ".png")
    )
    assert (
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(out),
                "--case",
                str(case),
                "--montage",
                str(picture),
                *FEW,
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    assert r"d\xe9r" in said.out
    document = json.loads((folder / f"lab{LATIN}.json").read_text(encoding="utf-8"))
    assert document["scan"]["path"] == str(scan)
    assert document["scan"]["name"] == r"d\xe9r\n"
    assert np.array_equal(
        Refinement.load(case).proposal.volume.data[:], strata.read(scan).data
    )
    assert main(["info", str(folder / f"no{LATIN}.nii")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_unsaved_work_is_found_again(folder, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(folder.parent))
    scan = write_scan(phantom_volume(), folder / f"{'日' * 70}{LATIN}.nii.gz")
    work = Refinement(phantom_proposal(strata.read(scan)), tissues=4)
    work.storage.begin_autosave()
    work.rename(work.regions[0].id, "kept")
    work.storage.end_autosave(keep=True)
    (found,) = find_unfinished(scan)
    assert found.resume().regions[0].name == "kept"


def test_a_batch_goes_on_over_any_names(folder, capsys):
    names = [
        os.fsdecode(b"a\xe9"),
        os.fsdecode(b"a\xe8"),
        "tab\there\nline",
        "<script>alert(1)",
        "e\u0301",
        "é",
    ]
    (folder / "in").mkdir()
    for seed, name in enumerate(names):
        write_scan(
            phantom_volume(SHAPE, (3, 2, 2), seed), folder / "in" / f"{name}.nii.gz"
        )
    out = folder / "out"
    words = ["batch", str(folder / "in"), "-o", str(out), "--workers", "1", *FEW]
    assert main(words) == 0
    assert len({scan.id for scan in plan_scans([folder / "in"])}) == len(names)
    assert all(scan.id.isprintable() for scan in plan_scans([folder / "in"]))
    with (out / "scans.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == len(names)
    assert sum(r"d\xe9r/in/a\xe9.nii.gz" in row["path"] for row in rows) == 1
    assert "<script>alert" not in (out / "qc.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(words) == 0
    assert "0 done, 6 kept" in capsys.readouterr().out
    listed = folder / f"{LATIN}.csv"
    listed.write_text(
        "id,path\n"
        + "".join(
            f"{k},{json.dumps(row['path'])}\n".replace("\\\\", "\\")
            for k, row in enumerate(rows[:2])
        )
    )
    assert all(scan.path.exists() for scan in plan_scans([listed])), (
        "a table's path may stand in a list"
    )


def test_a_list_that_is_no_text_is_refused_but_for_paths_of_these_bytes(folder):
    scan = write_scan(phantom_volume(SHAPE), folder / f"{LATIN}.nii.gz")
    (folder / "a.csv").write_bytes(b"id,path\none," + os.fsencode(scan) + b"\n")
    assert [one.path for one in plan_scans([folder / "a.csv"])] == [scan]
    (folder / "b.csv").write_bytes(b"id,path\nM\xfcller,x.nii\n")
    with pytest.raises(ReadError, match=r"M\\xfcller"):
        plan_scans([folder / "b.csv"])


def test_standard_output_of_letters_it_lacks_does_not_stop_the_work(
    folder, monkeypatch
):
    scan = write_scan(phantom_volume(SHAPE), folder / "ü.nii.gz")
    with (folder / "said").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["info", str(scan)]) == 0
        assert main(["convert", "--scan", str(scan), "-o", str(folder / "ä.nrrd")]) == 0
    text = (folder / "said").read_text(encoding="ascii")
    assert json.loads(text[: text.rindex("}") + 1])["path"] == str(scan)
    assert r"\xe4.nrrd" in text
