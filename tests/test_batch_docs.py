"""What the guides show runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import napari_strata as strata
from napari_strata.io.files import write_scan
from phantoms import phantom_volume

ROOT = Path(__file__).parents[1]
FIRST_LINE = "for path in sorted(Path("


def loops() -> set[str]:
    """Give the loops over scans that the README and the guide show."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("README.md", "docs/batch.md")
    ]
    blocks = [
        block
        for text in texts
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ]
    return {block for block in blocks if FIRST_LINE in block}


def test_the_loop_over_scans_has_ten_lines_and_goes_on_past_a_broken_one(
    tmp_path, monkeypatch, capsys
):
    (shown,) = loops()
    assert len(shown.strip().splitlines()) <= 10
    (tmp_path / "scans").mkdir()
    volume = phantom_volume((16, 20, 24), (3, 2, 2))
    write_scan(volume, tmp_path / "scans" / "whole.nii.gz")
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    monkeypatch.chdir(tmp_path)
    exec(compile(shown, "the guide", "exec"), {})
    assert "broken.nii.gz" in capsys.readouterr().out
    assert [path.name for path in Path("labels").glob("*.nii.gz")] == ["whole.nii.gz"]
    labels = strata.read_labels("labels/whole.nii.gz")
    assert labels.labels.shape == volume.data.shape
    assert len(labels.regions) == 16


def test_the_example_of_a_cohort_runs(tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    for k in range(3):
        write_scan(
            phantom_volume((16, 20, 24), (3, 2, 2), k),
            tmp_path / "scans" / f"{k}.nii.gz",
        )
    spec = importlib.util.spec_from_file_location(
        "cohort", ROOT / "docs" / "examples" / "cohort.py"
    )
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    few = [
        "--tissues",
        "4",
        "--codebook-from",
        "2",
        "--workers",
        "1",
        "--method",
        "gmm-mrf",
    ]
    example.main([str(tmp_path / "scans"), "-o", str(tmp_path / "out"), *few])
    said = capsys.readouterr().out
    assert "2: done" in said
    assert (tmp_path / "out" / "qc.html").is_file()
    assert "mL, the median of" in said


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path):
    nbformat, nbclient = (
        pytest.importorskip("nbformat"),
        pytest.importorskip("nbclient"),
    )
    notebook = nbformat.read(
        ROOT / "docs" / "examples" / "one_scan.ipynb", as_version=4
    )
    setting = next(
        cell for cell in notebook.cells if 'METHOD = "strata"' in cell.source
    )
    assert '"../../sample_scans/thick_t2.nii.gz"' in setting.source
    scan = write_scan(
        phantom_volume((24, 112, 96), (4, 2, 2)), tmp_path / "small.nii.gz"
    )
    changes = {
        'METHOD = "strata"': 'METHOD = "gmm-mrf"',
        '"../../sample_scans/thick_t2.nii.gz"': repr(str(scan)),
    }
    for old, new in changes.items():
        setting.source = setting.source.replace(old, new)
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = "".join(
        str(out.get("text", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
    )
    assert "a place that I know" in said
    assert "labels.seg.nrrd" in said
    assert strata.read_labels(tmp_path / "one_scan" / "labels.nii.gz").labels.shape == (
        24,
        112,
        96,
    )
    kept = nbformat.read(ROOT / "docs" / "examples" / "one_scan.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in kept.cells), (
        "it is kept without outputs"
    )
