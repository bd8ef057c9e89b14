"""The documentation: no dead link, no page outside the navigation.

Generated pages that are up to date.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import napari_strata as strata

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")])
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\)")


@cache
def prose(path: Path) -> str:
    """Return a page without its code, where brackets are not links."""
    text = re.sub(
        r"^(```+).*?^\1",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    return re.sub(r"(`+)[^`]+\1(?!\])", "", text)


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and code hosts make them."""
    text = re.sub(
        r"^(```+).*?^\1",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


@pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)
def test_no_link_is_dead(page):
    dead = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_a_dead_link_would_be_noticed():
    assert LINK.findall("[a [b] c](x.md#y) and ![p](images/p.png) <z>") == [
        "x.md#y",
        "images/p.png",
    ]
    assert "edits-that-people-made---replay" in anchors(DOCS / "batch.md")


def test_pages_of_the_site_link_to_nothing_outside_it():
    for page in DOCS.rglob("*.md"):
        for link in LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:|#", link):
                assert (
                    (page.parent / link.partition("#")[0])
                    .resolve()
                    .is_relative_to(DOCS)
                ), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation():
    def named(part: object) -> list[str]:
        children = (
            part.values()
            if isinstance(part, dict)
            else part
            if isinstance(part, list)
            else ()
        )
        return (
            [part]
            if isinstance(part, str)
            else [name for child in children for name in named(child)]
        )

    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    names = named(site["nav"])
    assert sorted(names) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


def test_generated_pages_are_up_to_date_and_every_public_name_has_one():
    spec = importlib.util.spec_from_file_location(
        "make_reference", DOCS / "make_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert sorted(
        name for group in reference.GROUPS.values() for name in group
    ) == sorted(strata.__all__)
    stale = [
        name
        for name, text in reference.pages().items()
        if (DOCS / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make reference`"


def test_every_path_that_contributing_names_exists():
    """The table "Where would I change X?" must not name files that moved."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = table.split("## Where would I change X?")[1].split("\n## ")[0]
    table = table.split("\n\n", 2)[2]  # without the sentence that names the folder
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", table)
    assert len(named) > 15
    assert [
        path for path in named if not (ROOT / "src" / "napari_strata" / path).exists()
    ] == []
