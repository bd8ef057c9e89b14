"""Facts that stand in several files of the project say the same.

Versions, dependencies, the weights' hash.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import napari_strata as strata
from napari_strata.encoder.identity import SHIPPED
from napari_strata.io.files import hash_file, write_scan
from phantoms import phantom_volume

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
CONDA_NAMES = {"torch": "pytorch", "SimpleITK": "simpleitk"}


def read_yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def split(requirement: str) -> tuple[str, frozenset[str]]:
    """Return a requirement's name and its limits."""
    name, limits = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name), frozenset(limits.replace(" ", "").split(","))


def test_whoever_cites_or_packages_strata_gets_this_version():
    recipe = read_yaml("packaging/conda/recipe.yaml")
    assert (
        read_yaml("CITATION.cff")["version"]
        == recipe["context"]["version"]
        == strata.__version__
    )
    base = recipe["outputs"][0]
    assert base["build"]["python"]["entry_points"] == [
        f"{name} = {place}" for name, place in PROJECT["scripts"].items()
    ]
    authors = [person["name"] for person in PROJECT["authors"]]
    assert authors == [
        one["name"]
        for one in json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))[
            "creators"
        ]
    ]
    assert authors == [one["name"] for one in read_yaml("CITATION.cff")["authors"]]


def test_the_conda_packages_have_the_dependencies_of_the_base_and_of_gui():
    base, gui = (
        {split(one) for one in output["requirements"]["run"] if "$" not in one}
        for output in read_yaml("packaging/conda/recipe.yaml")["outputs"]
    )
    python = split(f"python {PROJECT['requires-python']}")
    assert base == {
        python,
        *(split(one.partition(";")[0]) for one in PROJECT["dependencies"]),
    }
    assert gui == {split(one) for one in PROJECT["optional-dependencies"]["gui"]}


def test_the_model_card_is_data_and_tells_of_these_weights():
    head = re.match(
        r"---\n(.*?)\n---\n",
        (SHIPPED.parent / "MODEL_CARD.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    model = yaml.safe_load(head[1])["model"]
    assert (model["file"], model["bytes"]) == (SHIPPED.name, SHIPPED.stat().st_size)
    assert model["sha256"] == hash_file(SHIPPED)


def test_hooks_use_the_pinned_ruff():
    pinned = re.search(
        r"^ruff==(\S+)$",
        (ROOT / "constraints.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )[1]
    revs = {
        repo["repo"].rpartition("/")[2]: repo.get("rev")
        for repo in read_yaml(".pre-commit-config.yaml")["repos"]
    }
    assert revs["ruff-pre-commit"] == f"v{pinned}"


HEADLESS = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())

from napari_strata.cli import main

fast = ["--tissues", "4", "--method", "gmm-mrf", "--quiet"]
for command in (
    ["propose", "scan.nii.gz", "-o", "labels.nii.gz", "--case", "scan.strata", *fast],
    ["info", "scan.nii.gz"],
    ["evaluate", "labels.nii.gz", "labels.nii.gz"],
    ["convert", "scan.strata", "-o", "labels.seg.nrrd", "volumes.tsv"],
    ["refine", "scan.nii.gz", "--replay", "scan.strata", "-o", "again.nii.gz"],
    ["batch", "scan.nii.gz", "-o", "out", "--dry-run", *fast],
):
    assert main(command) == 0, command
assert main(["view", "scan.nii.gz"]) == 2
"""


def test_the_base_install_needs_no_napari_and_no_qt(tmp_path):
    """Everything but the window runs in a process without what `gui` brings."""
    absent = ("magicgui", "napari", "npe2", "qtpy", "superqt", "vispy")
    gui = {split(one)[0] for one in PROJECT["optional-dependencies"]["gui"]}
    assert gui <= {*absent}
    assert not {split(one)[0] for one in PROJECT["dependencies"]} & {*absent}
    write_scan(phantom_volume(), tmp_path / "scan.nii.gz")
    run = subprocess.run(
        [sys.executable, "-c", HEADLESS.format(absent=absent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    (message,) = run.stderr.strip().splitlines()[-1:]
    assert message.startswith("strata: ")
    assert 'pip install "napari-strata[gui]"' in message


def test_the_lowest_versions_are_those_of_the_project():
    spec = importlib.util.spec_from_file_location(
        "lowest", ROOT / "packaging" / "lowest.py"
    )
    lowest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lowest)
    pins = lowest.list_lowest(["gui"])
    gui = PROJECT["optional-dependencies"]["gui"]
    assert len(pins) == len(PROJECT["dependencies"]) + len(gui)
    for pin, requirement in zip(pins, PROJECT["dependencies"] + gui, strict=True):
        name, _, version = pin.partition(" ;")[0].partition("==")
        assert requirement.startswith(name)
        assert f">={version}" in requirement


@pytest.mark.skipif(
    sys.platform != "linux", reason="the list is made on Linux, with its markers"
)
def test_the_list_for_small_devices_is_complete_and_current():
    made = subprocess.run(
        [sys.executable, ROOT / "packaging" / "edge.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "tests",  # else the folder shadows the package `packaging`
    ).stdout
    assert made == (ROOT / "requirements-edge.txt").read_text(encoding="utf-8")
    names = [line.partition("==")[0] for line in made.splitlines() if "==" in line]
    assert {"torch", "monai"}.isdisjoint(names)
    assert {"openvino", "simpleitk", "higra"} <= set(names)
