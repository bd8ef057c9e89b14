"""The package as a stranger meets it: light to import, and its command answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import napari_strata

HEAVY = ("monai", "napari", "PyQt6", "PySide6", "qtpy", "SimpleITK", "sklearn", "torch")


def loaded_by(statement: str) -> set[str]:
    """Give the heavy packages that a fresh Python process loads for a statement."""
    report = f"import sys\nprint()\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(run.stdout.rpartition("\n\n")[2].split())


@pytest.mark.parametrize(
    "module",
    [
        "napari_strata",
        "napari_strata.cli.command_line",
        "napari_strata.settings",
        "napari_strata.volume",
    ],
)
def test_importing_loads_no_torch_napari_or_qt(module):
    assert loaded_by(f"import {module}") == set()


def test_help_answers_without_loading_torch_napari_or_qt():
    command = Path(sys.executable).with_name("strata")
    run = subprocess.run(
        [command, "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    for word in ("propose", "evaluate", "pretrain", "view", "info"):
        assert word in run.stdout
    asked = (
        "import contextlib, napari_strata.cli.command_line as cli\nwith"
        " contextlib.suppress(SystemExit): cli.main(['--help'])"
    )
    assert loaded_by(asked) == set()


def test_heavy_packages_would_be_noticed():
    assert loaded_by("import SimpleITK") == {"SimpleITK"}


def test_every_public_name_is_there():
    for name in napari_strata.__all__:
        assert getattr(napari_strata, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        napari_strata.no_such_name  # noqa: B018


def test_the_version_is_the_one_installed():
    from importlib.metadata import version

    assert version("napari-strata") == napari_strata.__version__
