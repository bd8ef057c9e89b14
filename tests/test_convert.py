"""`strata convert` as a user meets it.

Every format there and back, and one clear line for what cannot be.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import trimesh

import napari_strata as strata
from exported import REGIONS, Case, make_case
from napari_strata.cli.command_line import main
from napari_strata.cli.commands.convert import _OUTPUT_HELP
from napari_strata.errors import WriteError
from napari_strata.export.formats import EXPORT_SUFFIXES
from napari_strata.export.outputs import write_outputs
from napari_strata.io.files import hash_file, write_scan
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Segmentation
from phantoms import phantom_proposal
from test_io_dicom import save_series


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = make_case(tmp_path, "oblique")
    strata.write(made.segmentation, tmp_path / "labels.nii.gz")
    return made


def convert(*words: str | Path) -> int:
    return main(["convert", *map(str, words), "--quiet"])


def test_the_help_names_every_format():
    assert all(suffix in _OUTPUT_HELP for suffix in EXPORT_SUFFIXES if suffix != ".txt")


def test_one_command_writes_every_format(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = [
        "a.seg.nrrd",
        "a.mha",
        "a.obj",
        "a.ply",
        "a.stl",
        "a.label",
        "a.csv",
        "a.tsv",
        "a.parquet",
    ]
    assert (
        convert(
            tmp_path / "labels.nii.gz",
            "-o",
            *(out / name for name in names),
            "--like",
            tmp_path / "scan.nii.gz",
        )
        == 0
    )
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, "a.mtl", "a.json"]
    )
    assert capsys.readouterr().out.count("3 regions") == len(names)


def test_slicers_labels_come_back_on_the_scans_own_grid(
    case: Case, tmp_path: Path
) -> None:
    assert convert(tmp_path / "labels.nii.gz", "-o", tmp_path / "slicer.seg.nrrd") == 0
    image = sitk.ReadImage(str(tmp_path / "slicer.seg.nrrd"))
    cropped = image[1:20, 3:, :14]  # as Slicer does
    for key in image.GetMetaDataKeys():
        cropped.SetMetaData(key, image.GetMetaData(key))
    sitk.WriteImage(cropped, str(tmp_path / "cropped.seg.nrrd"))
    assert (
        convert(
            tmp_path / "cropped.seg.nrrd",
            "-o",
            tmp_path / "back.nii.gz",
            "--like",
            tmp_path / "scan.nii.gz",
        )
        == 0
    )
    back = nib.load(tmp_path / "back.nii.gz")
    expected = case.truth.copy()
    expected[20:], expected[:1], expected[:, :3], expected[..., 14:] = 0, 0, 0, 0
    np.testing.assert_array_equal(np.asarray(back.dataobj), expected)
    assert back.affine.tobytes() == nib.load(tmp_path / "scan.nii.gz").affine.tobytes()
    assert strata.read_labels(tmp_path / "back.nii.gz").regions == REGIONS


def test_nifti_to_dicom_seg_and_back(tmp_path: Path) -> None:
    scan = strata.read(save_series(tmp_path / "ct"))
    labels = Segmentation(
        np.where(scan.data > 0, 3, 0).astype(np.uint8), REGIONS[:1], scan.geometry
    )
    strata.write(labels, tmp_path / "labels.nii.gz")
    assert (
        convert(
            tmp_path / "labels.nii.gz",
            "-o",
            tmp_path / "seg.dcm",
            "--like",
            tmp_path / "ct",
        )
        == 0
    )
    assert (
        convert(
            tmp_path / "seg.dcm",
            "-o",
            tmp_path / "back.nii.gz",
            "--like",
            tmp_path / "ct",
        )
        == 0
    )
    assert np.array_equal(
        *(
            np.asarray(nib.load(tmp_path / name).dataobj)
            for name in ("labels.nii.gz", "back.nii.gz")
        )
    )
    back = strata.read_labels(tmp_path / "back.nii.gz")
    assert (back.regions[0].id, back.regions[0].name) == (3, "Left kidney")


def test_a_mesh_per_region_and_measures_with_a_reference(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference = case.segmentation.labels.copy()
    reference[reference == 7] = 0
    strata.write(
        Segmentation(reference, REGIONS, case.segmentation.geometry),
        tmp_path / "reference.nii.gz",
    )
    words = [
        "--like",
        tmp_path / "scan.nii.gz",
        "--modality",
        "ct",
        "--reference",
        tmp_path / "reference.nii.gz",
        "--tolerance-mm",
        "1",
    ]
    assert (
        convert(
            tmp_path / "labels.nii.gz",
            "-o",
            tmp_path / "{id}_{name}.stl",
            tmp_path / "t.tsv",
            "--mesh-space",
            "RAS",
            *words,
        )
        == 0
    )
    assert sorted(path.name for path in tmp_path.glob("*.stl")) == [
        "300_region_300.stl",
        "3_Left_kidney.stl",
        "7_Blutgefäß_rechts.stl",
    ]
    monkeypatch.chdir(tmp_path)
    assert convert("labels.nii.gz", "-o", "{id}.ply") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "{id}.ply: 3 regions"
    center = trimesh.load_mesh(tmp_path / "3_Left_kidney.stl").center_mass
    np.testing.assert_allclose(center, case.center_mm(3), atol=0.25)
    with open(tmp_path / "t.tsv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert float(rows["3"]["mean_hu"]) == 50
    assert float(rows["3"]["volume_ml"]) == pytest.approx(case.volume_ml(3), rel=1e-5)
    assert (
        float(rows["3"]["dice"]),
        float(rows["3"]["nsd_at_1mm"]),
        float(rows["7"]["dice"]),
    ) == (1, 1, 0)
    assert [float(rows["3"][f"centroid_{axis}_mm"]) for axis in "ras"] == pytest.approx(
        case.center_mm(3).tolist(), rel=1e-4
    )


def test_outputs_may_be_given_one_by_one_and_a_missing_input_is_told(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        convert("-o", "a.stl", "-o", "b.ply", "--like", "scan.nii.gz", "labels.nii.gz")
        == 0
    )
    assert {"a.stl", "b.ply"} <= set(os.listdir())
    with pytest.raises(SystemExit):
        convert("-o", "out.stl", "labels.nii.gz")
    assert "INPUT (before -o" in capsys.readouterr().err


def test_a_scan_of_64_bit_integers_becomes_nifti(tmp_path: Path) -> None:
    for kind, offset, stored in (
        (np.int64, -1000, np.int16),
        (np.uint64, 70000, np.int32),
        (np.int64, 2**40, np.float64),
    ):
        voxels = np.arange(24, dtype=kind).reshape(2, 3, 4) + kind(offset)
        nib.save(nib.Nifti1Image(voxels, np.eye(4), dtype=kind), tmp_path / "in.nii")
        assert (
            convert(tmp_path / "in.nii", "--scan", "-o", tmp_path / "out.nii.gz") == 0
        )
        back = nib.load(tmp_path / "out.nii.gz")
        assert back.get_data_dtype() == stored
        np.testing.assert_array_equal(np.asarray(back.dataobj), voxels)


def test_a_reference_on_another_grid_is_told_by_its_name(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    affine = case.affine.copy()
    affine[:3, 3] += 0.4
    nib.save(nib.Nifti1Image(case.truth, affine), tmp_path / "shifted.nii.gz")
    assert (
        convert(
            tmp_path / "labels.nii.gz",
            "-o",
            tmp_path / "t.csv",
            "--reference",
            tmp_path / "shifted.nii.gz",
        )
        == 0
    )
    assert "The reference labels: on another grid" in capsys.readouterr().err


def test_names_from_itk_snap(case: Case, tmp_path: Path) -> None:
    (tmp_path / "names.label").write_text(
        '# x\n 0 0 0 0 0 0 0 "Clear Label"\n 3 1 2 3 1 1 1 "Niere links"\n',
        encoding="utf-8",
    )
    assert (
        convert(
            tmp_path / "labels.nii.gz",
            "-o",
            tmp_path / "named.seg.nrrd",
            "--names",
            tmp_path / "names.label",
        )
        == 0
    )
    kidney, vessel, _ = strata.read_labels(tmp_path / "named.seg.nrrd").regions
    assert (kidney.name, kidney.color, vessel.name) == (
        "Niere links",
        (1, 2, 3),
        "Blutgefäß, rechts",
    )


def test_a_case_gives_labels_and_confidence(tmp_path: Path) -> None:
    proposal = phantom_proposal()
    strata_scan = proposal.volume
    work = Refinement(proposal, tissues=4)
    work.rename(2, "vertebrae_L1")
    work.accept(3)
    work.save(tmp_path / "case.strata")
    write_scan(strata_scan, tmp_path / "phantom.nii.gz")
    words = [
        "-o",
        tmp_path / "labels.nii.gz",
        tmp_path / "t.csv",
        "--like",
        tmp_path / "phantom.nii.gz",
    ]
    assert convert(tmp_path / "case.strata", *words) == 0
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels, sure = (
        strata.read_labels(tmp_path / "labels.nii.gz").labels,
        proposal.confidence[proposal.supervoxels],
    )
    assert [float(row["confidence"]) for row in rows] == pytest.approx(
        [float(sure[labels == int(row["id"])].mean()) for row in rows], rel=1e-4
    )
    said = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert (said["edits"], said["settings"], said["scan"]["sha256"]) == (
        list(work.history),
        proposal.provenance["settings"],
        hash_file(tmp_path / "phantom.nii.gz"),
    )
    one = {region["id"]: region for region in said["regions"]}
    assert (one[2]["code"]["value"], one[3]["accepted"], one[2]["color"]) == (
        "66794005",
        True,
        list(work.regions[1].color),
    )
    assert one[2]["mean"] == pytest.approx(
        float(strata_scan.data[labels == 2].mean()), rel=1e-4
    )
    assert convert(tmp_path / "case.strata", "-o", tmp_path / "alone.nii.gz") == 0, (
        "without the scan at hand"
    )
    alone = json.loads((tmp_path / "alone.json").read_text(encoding="utf-8"))
    assert (alone["edits"], alone["regions"][1]["mean"], alone["scan"]["sha256"]) == (
        list(work.history),
        None,
        None,
    )
    assert convert(tmp_path / "case.strata", "-o", tmp_path / "alone.nrrd") == 0
    assert json.loads((tmp_path / "alone.json").read_text(encoding="utf-8")) == alone, (
        "it is that of the same labels"
    )


def test_a_second_format_leaves_the_provenance_of_the_first(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_outputs(case.segmentation, case.scan, out / "p.nii.gz", {"seed": 3})
    before = (out / "p.json").read_bytes()
    assert convert(out / "p.nii.gz", "-o", out / "p.nrrd") == 0
    assert (out / "p.json").read_bytes() == before
    assert strata.read_labels(out / "p.nrrd").regions == REGIONS
    (tmp_path / "names.label").write_text(
        '3 1 2 3 1 1 1 "Niere links"\n', encoding="utf-8"
    )
    assert (
        convert(
            out / "p.nii.gz", "-o", out / "p.mha", "--names", tmp_path / "names.label"
        )
        == 2
    )
    assert (
        "p.json is the table of p.nii.gz, which has other names"
        in capsys.readouterr().err
    )
    with pytest.raises(WriteError, match=r"p\.json belongs to p\.nii\.gz"):
        write_outputs(case.segmentation, case.scan, out / "p.mha", {"seed": 4})
    assert (out / "p.json").read_bytes() == before
    assert not (out / "p.mha").exists()


def test_labels_written_again_keep_what_is_known_of_them(
    case: Case, tmp_path: Path
) -> None:
    write_outputs(case.segmentation, case.scan, tmp_path / "p.nii.gz", {"seed": 3})
    renamed = case.segmentation.with_regions(
        tuple(replace(region, name=f"new {region.id}") for region in REGIONS)
    )
    strata.write(renamed, tmp_path / "p.nii.gz")
    document = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert (document["seed"], document["scan"]["sha256"], "rewritten" in document) == (
        3,
        hash_file(tmp_path / "scan.nii.gz"),
        True,
    )
    assert strata.read_labels(tmp_path / "p.nii.gz").regions == renamed.regions


def test_a_dicom_series_becomes_nifti_with_the_same_voxels_and_place(
    tmp_path: Path,
) -> None:
    save_series(tmp_path / "ct")
    for name in ("ct.nii.gz", "ct.mha"):
        assert convert(tmp_path / "ct", "--scan", "-o", tmp_path / name) == 0
        before, after = strata.read(tmp_path / "ct"), strata.read(tmp_path / name)
        np.testing.assert_array_equal(before.data, after.data)
        np.testing.assert_allclose(
            before.geometry.affine, after.geometry.affine, atol=1e-4
        )
        assert after.geometry.file.shape == before.geometry.file.shape


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["labels.nii.gz", "-o", "x.dcm"], "refers to the DICOM series"),
        (["labels.nii.gz", "-o", "x.docx"], "the name must end in"),
        (["labels.nii.gz", "-o", "nowhere/x.stl"], "there is no folder"),
        (["labels.nii.gz", "-o", "x.stl", "./x.stl"], "Two outputs"),
        (["labels.nii.gz", "-o", "x.stl", "X.STL"], "Two outputs"),
        (["labels.nii.gz", "-o", "3.stl", "{id}.stl"], "Two outputs"),
        (
            [
                "labels.nii.gz",
                "-o",
                "truth.nii.gz",
                "t.csv",
                "--reference",
                "truth.nii.gz",
            ],
            "truth.nii.gz would be replaced",
        ),
        (
            ["labels.nii.gz", "-o", "nm.label", "--names", "nm.label"],
            "nm.label would be replaced",
        ),
        (["labels.nii.gz", "-o", "linked.nii.gz"], "labels.nii.gz would be replaced"),
        (["labels.nii.gz", "-o", "nm.label"], "nm.label is not Strata's"),
        (
            ["labels.nii.gz", "-o", "x.nii", "--reference", "truth.nii.gz"],
            "--reference adds columns to a table",
        ),
        (
            ["labels.nii.gz", "-o", "x.csv", "--match", "overlap"],
            "--match needs labels to compare with",
        ),
        (
            ["labels.nii.gz", "-o", "x.csv", "--tolerance-mm", "1"],
            "--tolerance-mm needs labels to compare with",
        ),
        (
            ["labels.nii.gz", "-o", "x.csv", "--modality", "ct"],
            "--modality needs a scan",
        ),
        (["labels.nii.gz", "-o", "{idd}.stl"], "{idd} is no field"),
        (["labels.nii.gz", "-o", "notes.txt"], "notes.txt is not Strata's"),
        (["labels.nii.gz", "-o", "cohort.csv"], "cohort.csv is not Strata's"),
        (["labels.nii.gz", "-o", "labels.nii.gz"], "would be replaced"),
        (
            ["labels.nii.gz", "-o", "scan.nii.gz", "--like", "scan.nii.gz"],
            "scan.nii.gz would be replaced",
        ),
        (["scan.nii.gz", "-o", "x.nii.gz"], "not a label file"),
        (
            ["scan.nii.gz", "-o", "scan.nii.gz", "--scan"],
            "scan.nii.gz would be replaced",
        ),
        (["scan.nii.gz", "-o", "x.mgz", "--scan"], "Cannot write a scan"),
        (
            ["labels.nii.gz", "--scan", "-o", "x.nii", "--like", "scan.nii.gz"],
            "With --scan give one output",
        ),
        ([".", "-o", "x.nii"], "is a folder"),
        (["nm.label", "-o", "x.nii"], "nm.label is a label description"),
        (["cohort.csv", "-o", "x.nii"], "has no voxels"),
        (["missing.nii.gz", "-o", "x.nii"], "There is no file"),
        (
            ["labels.nii.gz", "-o", "x.nii", "--names", "missing.label"],
            "Cannot read the label description",
        ),
        (
            ["labels.nii.gz", "-o", "x.stl", "--mesh-smooth-vox", "9"],
            "mesh_smooth_vox is 9",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nm.label").write_text('3 1 2 3 1 1 1 "Niere links"\n', encoding="utf-8")
    Path("notes.txt").write_text("call the ward\n")
    Path("cohort.csv").write_text("patient,age\n1,50\n")
    Path("linked.nii.gz").symlink_to("labels.nii.gz")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert convert(*words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_examples_of_the_docs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text(
        encoding="utf-8"
    )
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for folder in ("study", "meshes"):
        Path(folder).mkdir()
    scan = strata.read(save_series(tmp_path / "study" / "ct"))
    labels = Segmentation(
        np.where(scan.data > 0, 3, 7).astype(np.uint8), REGIONS[:2], scan.geometry
    )
    for name in ("labels.nii.gz", "slicer.seg.nrrd"):
        strata.write(labels, name)
    assert convert("study/ct", "--scan", "-o", "scan.nii.gz") == 0
    write_scan(phantom_proposal().volume, "phantom.nii.gz")
    Refinement(phantom_proposal(strata.read("phantom.nii.gz")), tissues=3).save(
        "case.strata"
    )
    known = {"labels": labels, "reference": labels, "proposal": phantom_proposal()}
    for language, text in blocks:
        if language == "python":
            exec(text, known)
        for line in text.splitlines() if not language else ():
            assert main(shlex.split(line)[1:]) == 0, line
    assert {
        "labels.seg.nrrd",
        "labels.dcm",
        "volumes.tsv",
        "volumes.csv",
        "labels.label",
        "back.nii.gz",
    } <= set(os.listdir())
    assert "3_Left_kidney.stl" in os.listdir("meshes")
