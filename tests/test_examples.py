"""Every public name has an example in its docstring, and the examples run."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import napari_strata as strata
from napari_strata.io.files import write_scan
from phantoms import phantom_volume


def save_series(folder: Path) -> None:
    """Write a DICOM series of three slices."""
    folder.mkdir()
    for k in range(3):
        image = sitk.GetImageFromArray(
            np.arange(k, 64 + k, dtype=np.int16).reshape(1, 8, 8)
        )
        image.SetOrigin((0, 0, 2.0 * k))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.8.{k}",
            "0008|0060": "MR",
            "0008|103e": "T1 axial",
        }
        place = {
            "0020|000d": "1.2.9",
            "0020|000e": "1.2.8",
            "0020|0032": f"0\\0\\{2 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in {**tags, **place}.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(image)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return what examples start from: a scan on the disk, read, with a proposal.

    docs/reference/index.md describes the same.
    """
    folder = tmp_path_factory.mktemp("examples")
    write_scan(phantom_volume((24, 24, 24)), folder / "scan.nii.gz")
    save_series(folder / "dicom")
    volume = strata.read(folder / "scan.nii.gz")
    proposal = strata.propose(volume, settings=strata.ProposeSettings(method="gmm-mrf"))
    return folder, {"strata": strata, "np": np, "volume": volume, "proposal": proposal}


@pytest.mark.parametrize("name", strata.__all__)
def test_the_example_runs(name, start, monkeypatch, capsys):
    folder, names = start
    monkeypatch.chdir(folder)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        getattr(strata, name), name, globs=dict(names)
    )
    assert example.examples, f"{name} has no example in its docstring"
    assert not any(doctest.SKIP in one.options for one in example.examples)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example).failed == 0, capsys.readouterr().out
