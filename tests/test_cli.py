"""The command line as a user meets it.

Results, sidecars, and one clear line for everything that goes wrong.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.io.files import write_scan
from napari_strata.volume import Segmentation, Volume, default_regions
from phantoms import phantom_truth, phantom_volume

FEW = ["--supervoxels", "800", "--quiet"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    volume = phantom_volume((24, 32, 36), (3.0, 2.0, 2.0))
    path = tmp_path_factory.mktemp("scan") / "phantom.nii.gz"
    return write_scan(Volume(volume.data, volume.geometry, "mr"), path)


@pytest.fixture(scope="module")
def made(scan, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made")
    words = [
        "propose",
        str(scan),
        "-o",
        str(out / "labels.nii.gz"),
        "--tissues",
        "7",
        "--seed",
        "3",
        "--threads",
        "1",
        *FEW,
    ]
    assert (
        main(
            [
                *words,
                "--montage",
                str(out / "page.png"),
                "--case",
                str(out / "case.strata"),
            ]
        )
        == 0
    )
    return out


def test_propose_writes_labels_table_sidecar_picture_and_case(made, scan):
    labels = nib.load(made / "labels.nii.gz")
    assert labels.shape == nib.load(scan).shape
    assert np.array_equal(labels.affine, nib.load(scan).affine)
    assert set(np.unique(np.asanyarray(labels.dataobj))) == set(range(8))
    assert (made / "page.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in made.iterdir()) == [
        "case.strata",
        "labels.csv",
        "labels.json",
        "labels.nii.gz",
        "page.png",
    ]


def test_the_table_has_surfaces_and_confidence(made):
    with open(made / "labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    assert all(float(row["surface_mm2"]) > 0 for row in rows)


def test_the_sidecar_says_what_made_the_labels(made, scan):
    sidecar = json.loads((made / "labels.json").read_text())
    assert sidecar["run"]["seed"] == 3
    assert sidecar["cut"] == {"tissues": 7}
    assert all(2 <= n <= 64 for n in sidecar["suggested"]["tissues"])
    assert all(4 <= n <= 400 for n in sidecar["suggested"]["regions"])
    assert sidecar["settings"]["supervoxels"] == 800
    assert len(sidecar["scan"]["sha256"]) == len(sidecar["weights_sha256"]) == 64
    assert {"read", "prepare", "encode", "grow", "build"} <= set(sidecar["seconds"])
    assert sidecar["versions"]["napari-strata"] == strata.__version__
    assert len(sidecar["regions"]) == 7
    assert sum(row["voxels"] for row in sidecar["regions"]) > 1000


def test_auto_takes_the_cut_that_the_proposal_opens_on(made, scan, tmp_path):
    words = [
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "l.nii.gz"),
        "--tissues",
        "auto",
        "--seed",
        "3",
        "--threads",
        "1",
        *FEW,
    ]
    assert main(words) == 0
    sidecar = json.loads((tmp_path / "l.json").read_text())
    chosen = sidecar["as_proposed"]
    assert chosen == json.loads((made / "labels.json").read_text())["as_proposed"]
    assert 16 <= chosen["tissues"] <= 24
    assert sidecar["cut"] == {"tissues": chosen["tissues"]}
    assert len(sidecar["regions"]) == chosen["tissues"]


def test_a_number_that_is_none_is_refused(scan, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(tmp_path / "l.nii.gz"),
                "--tissues",
                "many",
            ]
        )
    assert "auto" in capsys.readouterr().err


def test_the_table_has_units_in_its_column_names(made):
    with open(made / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert {"id", "name", "volume_ml", "mean"} <= set(rows[0])


def test_python_and_the_command_line_give_the_same_labels(made, scan):
    settings = strata.ProposeSettings(supervoxels=800)
    labels = (
        strata.propose(strata.read(scan), settings=settings, seed=3, threads=1)
        .tissues(7)
        .labels
    )
    assert np.array_equal(labels, strata.read_labels(made / "labels.nii.gz").labels)


def test_the_case_opens_where_the_command_left_off(made):
    work = strata.Refinement.load(made / "case.strata")
    assert np.array_equal(
        work.labels, strata.read_labels(made / "labels.nii.gz").labels
    )


def test_evaluate_scores_labels_as_json(made, scan, tmp_path, capsys):
    volume = strata.read(scan)
    truth = phantom_truth(volume.data.shape)
    strata.write(
        Segmentation(truth, default_regions(range(1, 6)), volume.geometry),
        tmp_path / "truth.nii.gz",
    )
    assert (
        main(["evaluate", str(made / "labels.nii.gz"), str(tmp_path / "truth.nii.gz")])
        == 0
    )
    scores = json.loads(capsys.readouterr().out)
    assert set(scores["many_to_one"]) == {"1", "2", "3", "4", "5"}
    assert 0.5 < scores["many_to_one_mean"] <= 1
    assert {"one_to_one", "ari", "voi_split_bits", "voi_merge_bits"} <= set(scores)


def test_info_says_what_a_scan_is(scan, capsys):
    assert main(["info", str(scan)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["shape_zyx"] == [24, 32, 36]
    assert record["spacing_zyx_mm"] == [3.0, 2.0, 2.0]
    assert record["modality"] == "mr"


def test_pretrain_writes_weights_that_propose_can_use(tmp_path, scan):
    weights = tmp_path / "mine.safetensors"
    tiny = [
        "--steps",
        "2",
        "--batch",
        "2",
        "--patch-vox",
        "16",
        "--voxels-per-patch",
        "64",
        "--threads",
        "1",
    ]
    assert main(["pretrain", "-o", str(weights), *tiny]) == 0
    out = tmp_path / "labels.nii.gz"
    assert (
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(out),
                "--regions",
                "5",
                "--weights",
                str(weights),
                *FEW,
            ]
        )
        == 0
    )
    assert out.is_file()


def test_settings_come_from_toml_and_flags_win(scan, tmp_path):
    toml = tmp_path / "s.toml"
    toml.write_text(
        "[propose]\nsupervoxels = 700\nfeature_weight = 0.5\n[run]\nseed = 9\n"
    )
    words = [
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "l.nii.gz"),
        "--tissues",
        "3",
        "--quiet",
    ]
    assert main([*words, "--settings", str(toml), "--supervoxels", "600"]) == 0
    sidecar = json.loads((tmp_path / "l.json").read_text())
    assert (
        sidecar["settings"]["supervoxels"],
        sidecar["settings"]["feature_weight"],
        sidecar["run"]["seed"],
    ) == (600, 0.5, 9)


def bad_inputs(folder: Path, scan: Path) -> dict[str, tuple[list[str], str]]:
    """Make broken inputs: name -> (arguments, words that the message must hold)."""
    image = nib.load(scan)
    data = np.asanyarray(image.dataobj)

    def save(name, array, affine=image.affine):
        nib.save(nib.Nifti1Image(array, affine), folder / name)
        return [str(folder / name)]

    (folder / "cut.nii.gz").write_bytes(scan.read_bytes()[:3000])
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "text.nii").write_text("this is not a scan\n" * 50)
    (folder / "nothing").mkdir()
    (folder / "note.txt").write_text("hello")
    four = np.stack([data, data, data], axis=-1)
    return {
        "missing": ([str(folder / "absent.nii.gz")], "no file or folder"),
        "truncated": ([str(folder / "cut.nii.gz")], "damaged or cut short"),
        "empty": ([str(folder / "empty.nii.gz")], "empty file"),
        "text": ([str(folder / "text.nii")], "NIfTI"),
        "unknown kind": ([str(folder / "note.txt")], "unknown kind"),
        "2D": (save("flat.nii.gz", data[:, :, 0]), "3D"),
        "one slice": (save("slice.nii.gz", data[:, :, :1]), "3D"),
        "4D": (save("four.nii.gz", four), "--index"),
        "bad index": ([*save("four2.nii.gz", four), "--index", "7"], "index"),
        "zeros": (save("zeros.nii.gz", np.zeros_like(data)), "every voxel"),
        "constant": (save("constant.nii.gz", np.full_like(data, 7)), "every voxel"),
        "NaN": (
            save("nan.nii.gz", np.full(data.shape, np.nan, np.float32)),
            "no number",
        ),
        "folder": ([str(folder / "nothing")], "DICOM"),
    }


BROKEN = (
    "missing",
    "truncated",
    "empty",
    "text",
    "unknown kind",
    "2D",
    "one slice",
    "4D",
    "bad index",
    "zeros",
    "constant",
    "NaN",
    "folder",
)


@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_is_one_line_and_leaves_nothing_behind(case, scan, tmp_path, capfd):
    arguments, words = bad_inputs(tmp_path, scan)[case]
    out = tmp_path / "out"
    out.mkdir()
    assert (
        main(
            [
                "propose",
                *arguments,
                "-o",
                str(out / "labels.nii.gz"),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 2
    )
    said = capfd.readouterr().err.strip()
    assert said.startswith("strata: ")
    assert "\n" not in said
    assert words in said
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "{folder}/absent/labels.nii.gz", "--tissues", "4"], "no folder"),
        (["-o", "{folder}/labels.jpg", "--tissues", "4"], "must end in"),
        (["-o", "{scan}", "--tissues", "4"], "the scan itself"),
        (
            ["-o", "{folder}/l.nii.gz", "--tissues", "4", "--case", "{scan}"],
            "the scan itself",
        ),
        (
            ["-o", "{folder}/l.nii.gz", "--tissues", "4", "--case", "{folder}/l.zip"],
            "must end in .strata",
        ),
        (
            [
                "-o",
                "{folder}/l.nii.gz",
                "--tissues",
                "4",
                "--montage",
                "{folder}/l.jpg",
            ],
            "must end in .png",
        ),
        (
            [
                "-o",
                "{folder}/l.nii.gz",
                "--tissues",
                "4",
                "--montage",
                "{folder}/l.nii.gz",
            ],
            "Two outputs",
        ),
        (["-o", "{folder}/l.nii.gz", "--tissues", "0"], "at least 1"),
        (
            ["-o", "{folder}/l.nii.gz", "--tissues", "4", "--memory-gb", "0"],
            "must lie between",
        ),
        (
            [
                "-o",
                "{folder}/l.nii.gz",
                "--tissues",
                "4",
                "--weights",
                "{folder}/no.safetensors",
            ],
            "weights",
        ),
        (
            [
                "-o",
                "{folder}/l.nii.gz",
                "--tissues",
                "4",
                "--settings",
                "{folder}/no.toml",
            ],
            "settings",
        ),
    ],
)
def test_bad_output_or_setting_is_one_line(arguments, words, scan, tmp_path, capfd):
    before = scan.read_bytes()
    filled = [a.format(folder=tmp_path, scan=scan) for a in arguments]
    assert main(["propose", str(scan), *filled, "--quiet"]) == 2
    said = capfd.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())
    assert scan.read_bytes() == before


@pytest.mark.skipif(
    sys.platform != "linux", reason="limits the size of files as Linux does"
)
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(scan, tmp_path):
    import resource

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [
        str(Path(sys.executable).with_name("strata")),
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "l.nii.gz"),
        "--tissues",
        "4",
        "--method",
        "gmm-mrf",  # it writes the same files, and the new process need not load torch
        *FEW,
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=small_files_only,
        timeout=300,
    )
    assert run.returncode == 2, run.stderr
    assert run.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_a_json_that_is_not_ours_is_not_replaced(scan, tmp_path, capfd):
    (tmp_path / "T1.json").write_text('{"EchoTime": 0.003}')
    assert (
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(tmp_path / "T1.nii.gz"),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 2
    )
    assert "not Strata's" in capfd.readouterr().err
    assert (tmp_path / "T1.json").read_text() == '{"EchoTime": 0.003}'
    assert not (tmp_path / "T1.nii.gz").exists()


def test_a_csv_that_is_not_ours_is_not_replaced(scan, tmp_path, capfd):
    (tmp_path / "T1.csv").write_text("patient,age\n1,40\n")
    assert (
        main(
            [
                "propose",
                str(scan),
                "-o",
                str(tmp_path / "T1.nii.gz"),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 2
    )
    assert "not Strata's" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["T1.csv"]


def test_a_voxel_size_in_metres_is_a_clear_error(scan, tmp_path, capfd):
    image = nib.load(scan)
    nib.save(
        nib.Nifti1Image(
            np.asanyarray(image.dataobj), np.diag([0.001, 0.001, 0.001, 1])
        ),
        tmp_path / "tiny.nii.gz",
    )
    assert (
        main(
            [
                "propose",
                str(tmp_path / "tiny.nii.gz"),
                "-o",
                str(tmp_path / "l.nii.gz"),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 2
    )
    assert "voxel size" in capfd.readouterr().err


def test_scattered_nan_is_mended_and_said(scan, tmp_path, capsys):
    image = nib.load(scan)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    data[3:6, 4, 5] = np.nan
    data[9, 9, 9] = np.inf
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "holes.nii.gz")
    assert (
        main(
            [
                "propose",
                str(tmp_path / "holes.nii.gz"),
                "-o",
                str(tmp_path / "l.nii.gz"),
                "--tissues",
                "4",
                *FEW,
            ]
        )
        == 0
    )
    assert "4 NaN or infinite voxels" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch, scan):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("napari_strata.io.files.read", broken)
    with pytest.raises(ZeroDivisionError):
        main(["info", str(scan)])
