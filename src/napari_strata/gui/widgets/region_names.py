"""Region names to choose from (no Qt).

The structure names of TotalSegmentator and FreeSurfer, a few of ours, and the person's
own. `names.tsv` holds facts only: the names of TotalSegmentator, and FreeSurfer's with
the colours of its colour table. The other colours are ours. Codes are those of
`io.terms`, so that the window shows the same as an export.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from platformdirs import user_config_path

from napari_strata.io.labels.terms import coded

MAX_OWN_NAMES = 500
"""Own names that are remembered, so that suggestions stay quick; the oldest go first."""


@dataclass(frozen=True, slots=True)
class KnownName:
    """A name from the built-in list.

    Parameters
    ----------
    name, source : str
        The name, and whose list it is from.
    snomed_ct, side : str
        Its SNOMED CT code, "" where none is known, and "left", "right" or "".
    color : tuple of 3 int
        RGB, 0-255.
    """

    name: str
    source: str
    snomed_ct: str
    side: str
    color: tuple[int, int, int]


@cache
def known_names() -> dict[str, KnownName]:
    """Return the built-in list, by name."""
    with (
        files("napari_strata.gui").joinpath("names.tsv").open(encoding="utf-8") as lines
    ):
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return {row["name"]: _known(row) for row in rows}


def _known(row: dict[str, str]) -> KnownName:
    """Return a name from its row, with the code that exports use."""
    words = re.split("[_ -]", row["name"].lower())
    side = "left" if "left" in words else "right" if "right" in words else ""
    return KnownName(
        row["name"],
        row["list"],
        (coded(row["name"]) or {}).get("value", ""),
        side,
        _rgb(row["rgb"]),
    )


def own_names(path: Path | None = None) -> list[str]:
    """Return the names that a person has used before, the latest first.

    Empty if they cannot be read.
    """
    try:
        return (path or _own_path()).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def remember_name(name: str, path: Path | None = None) -> None:
    """Remember a name that is not in the built-in list.

    If that cannot be written, it is forgotten without an error.
    """
    if name in known_names():
        return
    target = path or _own_path()
    names = [name, *(one for one in own_names(target) if one != name)][:MAX_OWN_NAMES]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(names) + "\n", encoding="utf-8")
    except OSError:
        return


def suggested_names(
    in_use: Iterable[str] = (), path: Path | None = None, *, side: str = ""
) -> list[str]:
    """Return the names to suggest, each once.

    A person's own, those in use, common names, then the built-in list. Names of the side
    on which a region lies ("left" or "right") come before those of the other side.
    """
    known = known_names()
    built_in = [*sorted(known, key=lambda name: not _is_common(known[name]))]
    if side:
        rank = {side: 0, "": 1}
        built_in.sort(key=lambda name: rank.get(known[name].side, 2))
    return list(dict.fromkeys([*own_names(path), *in_use, *built_in]))


def _is_common(known: KnownName) -> bool:
    """Return whether a name is written as people say it, such as "white matter"."""
    return known.source == "Strata" and "_" not in known.name


def describe_name(name: str) -> str:
    """Return where a name comes from, "" if it is not in the built-in list."""
    known = known_names().get(name)
    if known is None:
        return ""
    code = f", SNOMED CT {known.snomed_ct}" if known.snomed_ct else ""
    return f"{known.source}{code}{f', {known.side}' if known.side else ''}"


def _own_path() -> Path:
    return user_config_path("napari-strata") / "names.txt"


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in text.split(","))
    return red, green, blue
