"""A batch that is killed and run again ends as if nobody had disturbed it."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.batch.kill import command, contents, disturbed

from napari_strata.batch.log import read_log
from napari_strata.batch.outputs.tables import collect
from napari_strata.batch.workers.process import only_writer
from napari_strata.cli.command_line import main
from napari_strata.errors import WriteError
from napari_strata.export.outputs import write_outputs
from napari_strata.io.files import read, read_labels, write_scan
from phantoms import phantom_volume


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for k in range(6):
        write_scan(
            phantom_volume((12 + 2 * (k % 3), 20, 24), (3, 2, 2), k),
            folder / f"s{k}.nii.gz",
        )
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    return folder


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    main(command(scans, out, "--workers", "1")[3:])
    return out


def test_killed_and_run_again_it_ends_as_an_undisturbed_run(scans, whole, tmp_path):
    out = tmp_path / "out"
    ending = disturbed(
        command(scans, out, "--workers", "1"),
        out,
        contents(whole),
        kills=2,
        longest_s=1.0,
        seed=3,
    )
    assert ending.kills >= 1
    assert ending.partial == ending.different == ending.left == []
    assert {"volumes.tsv", "scans.tsv", "failures.tsv", "qc.html"} <= set(contents(out))


def test_what_a_killed_run_left_unfinished_is_swept_and_its_half_line_is_no_trouble(
    scans, whole, tmp_path
):
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


@pytest.mark.parametrize(
    "moved", [True, False], ids=["new labels moved", "nothing moved"]
)
def test_a_kill_between_two_moves_costs_no_labels_and_keeps_none_that_nobody_vouches_for(
    scans, whole, tmp_path, moved
):
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    hidden = out / ".strata-batch-0123456789ab"
    hidden.mkdir()
    earlier, new = ("s1", "s0") if moved else ("s0", "s1")
    shutil.copy(whole / f"{earlier}_labels.json", hidden / "s0_labels.json.earlier")
    shutil.copy(whole / f"{new}_labels.json", hidden / "s0_labels.json")
    (out / "s0_labels.json").unlink()
    before = (out / "s0_labels.nii.gz").stat().st_mtime_ns
    assert main(command(scans, out, "--workers", "1")[3:]) == 1
    assert contents(out) == contents(whole)
    assert not list(out.glob(".strata-*"))
    assert ((out / "s0_labels.nii.gz").stat().st_mtime_ns == before) is not moved


def test_labels_that_a_person_saved_are_left_wherever_they_come_from(
    scans, whole, tmp_path, capsys
):
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    edited = (out / "s5_labels.nii.gz").read_bytes()
    (out / "s2_labels.nii.gz").write_bytes(edited)  # another program saved over it
    drawn = read_labels(out / "s3_labels.nii.gz")
    drawn = replace(
        drawn, labels=np.where(drawn.labels == 2, 1, drawn.labels).astype(np.uint8)
    )
    # as the viewer saves
    write_outputs(drawn, read(scans / "s3.nii.gz"), out / "s3_labels.nii.gz", {})
    (out / "s4_labels.json").unlink()
    saved = contents(out)
    for more in ([], ["--seed", "3"]):
        assert main(command(scans, out, "--workers", "1", *more)[3:]) == 1
        err, end = capsys.readouterr().err, contents(out)
        assert err.count("changed since Strata made it") == 2
        assert "s4_labels.nii.gz was not made by a batch" in err
        for scan in ("s2", "s3", "s4"):
            assert {
                n for n in end if n.startswith(f"{scan}_") and end[n] != saved[n]
            } == set()
    with (out / "volumes.tsv").open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file, delimiter="\t") if row["scan"] == "s2"
        ]
    labels = read_labels(out / "s2_labels.nii.gz")
    assert [float(row["volume_ml"]) for row in rows] == [
        round(int((labels.labels == k).sum()) * 0.012, 4) for k in range(1, 5)
    ]
    assert {row["cut"] for row in rows} == {"changed by hand"}


def test_labels_that_a_person_changed_are_not_taken_for_those_of_another_scan(
    scans, whole, tmp_path, capsys
):
    """The same id, as where one folder after another is given."""
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    edited = (out / "s5_labels.nii.gz").read_bytes()
    (out / "s2_labels.nii.gz").write_bytes(edited)
    other = tmp_path / "other" / "s2.nii.gz"
    other.parent.mkdir()
    shutil.copy(scans / "s5.nii.gz", other)
    assert main(command(other, out, "--workers", "1")[3:]) == 1
    assert "belongs to another scan" in capsys.readouterr().err
    assert (out / "s2_labels.nii.gz").read_bytes() == edited


def test_two_batches_do_not_write_to_one_folder_at_once(scans, tmp_path, capsys):
    with only_writer(tmp_path), ThreadPoolExecutor(1) as another:
        assert (
            another.submit(
                main, command(scans, tmp_path, "--workers", "1")[3:]
            ).result()
            == 2
        )
        with pytest.raises(WriteError, match="Another batch"):
            another.submit(collect, (), tmp_path).result()
        assert collect((), tmp_path).volumes.is_file(), (
            "who holds it writes the tables, too"
        )
    assert "Another batch" in capsys.readouterr().err


def test_the_log_says_what_happened_to_each_scan(whole):
    lines = read_log(whole)
    assert [line["event"] for line in lines] == [
        "run started",
        "engine",
        "failed",
        *["done"] * 6,
        "run ended",
    ]
    (failed,) = [line for line in lines if line["event"] == "failed"]
    assert failed["scan"] == "broken"
    assert "broken.nii.gz" in failed["reason"]
    assert all(line["seconds"] > 0 for line in lines if line["event"] == "done")
    assert lines[0]["versions"]["napari-strata"]
    assert json.loads((whole / "s0_labels.json").read_text())["labels_sha256"]
