"""`strata synthesise`: a picture to judge by looking, and scans with their ground truth."""

import numpy as np
import pytest
from PIL import Image

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.synthesis.anatomy import TISSUES


def test_the_gallery_is_written_and_shows_something(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert (
        main(
            [
                "synthesise",
                "--gallery",
                str(path),
                "--count",
                "2",
                "--shape",
                "16",
                "16",
                "16",
                "--family",
                "shapes",
                "--seed",
                "4",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.strip() == str(path)
    sheet = np.asarray(Image.open(path))
    assert sheet.ndim == 3
    assert min(sheet.shape[:2]) > 300
    colourful = sheet.max(axis=2).astype(int) - sheet.min(axis=2)
    assert (colourful > 60).mean() > 0.02


def test_scans_are_written_with_their_tissues(tmp_path):
    out = tmp_path / "made"
    flags = [
        "--count",
        "2",
        "--seed",
        "3",
        "--family",
        "torso",
        "--without",
        "ct",
        "--shape",
        "12",
        "16",
        "20",
        "--spacing",
        "8",
    ]
    assert main(["synthesise", "-o", str(out), *flags]) == 0
    scans = sorted(path for path in out.glob("*.nii.gz") if "_truth" not in path.name)
    assert [path.name[-11:-7] for path in scans] == ["0003", "0004"] or len(scans) == 2
    for path in scans:
        volume = strata.read(path)
        truth = strata.read_labels(
            path.with_name(path.name.replace(".nii.gz", "_truth.nii.gz"))
        )
        assert volume.data.shape == truth.labels.shape == (12, 16, 20)
        assert volume.spacing_zyx_mm == pytest.approx((8.0, 8.0, 8.0))
        assert {region.name for region in truth.regions} <= set(TISSUES)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "Nothing to make"),
        (["--gallery", "sheet.jpg"], "end in .png"),
        (["--gallery", "sheet.png", "--count", "0"], "1 to 240"),
        (["--gallery", "sheet.png", "--without", "thik"], "thik"),
        (["--gallery", "sheet.png", "--without", "thick, metal", "thik,ct"], "'thik'"),
        (["-o", "made", "--spacing", "0"], "cannot be drawn"),
        (["-o", "made", "--seed", "-1"], "seed"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(tmp_path, monkeypatch, capsys, flags, says):
    monkeypatch.chdir(tmp_path)
    assert main(["synthesise", *flags]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))
