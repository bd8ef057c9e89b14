"""A batch that is killed and run again ends as if nobody had disturbed it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from benchmarks.batch.kill import command, contents, disturbed

from napari_strata.batch.log import read_log
from napari_strata.batch.process import only_writer
from napari_strata.cli import main
from napari_strata.errors import WriteError
from napari_strata.io.files import read_labels, write_scan
from phantoms import phantom_volume


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for k in range(6):
        write_scan(phantom_volume((12 + 2 * (k % 3), 20, 24), (3, 2, 2), k), folder / f"s{k}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    return folder


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    main(command(scans, out, "--workers", "1")[3:])
    return out


def test_killed_and_run_again_it_ends_as_an_undisturbed_run(scans, whole, tmp_path):
    out = tmp_path / "out"
    ending = disturbed(command(scans, out, "--workers", "1"), out, contents(whole), kills=2, longest_s=1.0, seed=3)
    assert ending.kills >= 1
    assert ending.partial == ending.different == ending.left == []
    assert {"volumes.tsv", "scans.tsv", "failures.tsv", "qc.html"} <= set(contents(out))


def test_what_a_killed_run_left_unfinished_is_swept_and_its_half_line_is_no_trouble(scans, whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (out / ".strata-batch-0123456789ab").mkdir()
    (out / ".strata-batch-0123456789ab" / "s0_labels.nii.gz").write_bytes(b"half")
    (out / ".strata-ba9876543210.tsv").write_text("half")
    with (out / "batch.jsonl").open("a") as log:
        log.write('{"event": "don')
    assert main(command(scans, out, "--workers", "1")[3:]) == 1
    assert contents(out) == contents(whole)
    assert not list(out.glob(".strata-*"))
    assert [line["event"] for line in read_log(out)].count("run ended") == 2


def test_labels_without_their_sidecar_are_made_anew_and_labels_changed_by_hand_are_left(scans, whole, tmp_path, capsys):
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (out / "s0_labels.nii.gz").write_bytes((out / "s1_labels.nii.gz").read_bytes())
    (out / "s0_labels.json").unlink()  # as a kill between two moves leaves it
    edited = (out / "s5_labels.nii.gz").read_bytes()
    (out / "s2_labels.nii.gz").write_bytes(edited)  # a person saved other labels over it
    assert main(command(scans, out, "--workers", "1")[3:]) == 1
    assert (out / "s2_labels.nii.gz").read_bytes() == edited
    assert "changed since Strata made it" in capsys.readouterr().err
    end, start = contents(out), contents(whole)
    assert {name for name in start if end[name] != start[name]} == {"s2_labels.nii.gz", "volumes.tsv", "scans.tsv", "qc.html", "qc/s2.webp"}
    with (out / "volumes.tsv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["scan"] == "s2"]
    labels = read_labels(out / "s2_labels.nii.gz")
    assert [float(row["volume_ml"]) for row in rows] == [round(int((labels.labels == k).sum()) * 0.012, 4) for k in range(1, 5)]
    assert {row["cut"] for row in rows} == {"changed by hand"}


def test_two_batches_do_not_write_to_one_folder_at_once(scans, tmp_path, capsys):
    with only_writer(tmp_path):
        assert main(command(scans, tmp_path, "--workers", "1")[3:]) == 2
        with pytest.raises(WriteError, match="Another batch"), only_writer(tmp_path):
            pass
    assert "Another batch" in capsys.readouterr().err


def test_the_log_says_what_happened_to_each_scan(whole):
    lines = read_log(whole)
    assert [line["event"] for line in lines] == ["run started", "engine", "failed", *["done"] * 6, "run ended"]
    (failed,) = [line for line in lines if line["event"] == "failed"]
    assert failed["scan"] == "broken"
    assert "broken.nii.gz" in failed["reason"]
    assert all(line["seconds"] > 0 for line in lines if line["event"] == "done")
    assert lines[0]["versions"]["napari-strata"]
    assert json.loads((whole / "s0_labels.json").read_text())["labels_sha256"]
