"""Facts that stand in several files of the project say the same.

Versions, dependencies, the weights' hash.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml

import napari_strata as strata
from napari_strata.encoder.weights import SHIPPED
from napari_strata.io.files import hash_file

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
CONDA_NAMES = {"torch": "pytorch", "SimpleITK": "simpleitk"}


def read_yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def split(requirement: str) -> tuple[str, frozenset[str]]:
    """Give a requirement's name and its limits."""
    name, limits = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name), frozenset(limits.replace(" ", "").split(","))


def test_whoever_cites_or_packages_strata_gets_this_version():
    recipe = read_yaml("packaging/conda/recipe.yaml")
    assert (
        read_yaml("CITATION.cff")["version"]
        == recipe["context"]["version"]
        == strata.__version__
    )
    assert recipe["build"]["python"]["entry_points"] == [
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


def test_the_conda_recipe_has_the_same_dependencies():
    python = split(f"python {PROJECT['requires-python']}")
    expected = {python, *(split(one) for one in PROJECT["dependencies"])}
    assert {
        split(one)
        for one in read_yaml("packaging/conda/recipe.yaml")["requirements"]["run"]
    } == expected


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
