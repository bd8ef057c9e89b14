"""Region names as coded terms: a small list of SNOMED CT codes for what radiologists name most.

`terms.tsv` is the only place where codes stand; the window's list of names takes them
from here. They are those that DICOM's context groups use (PS3.16), and a few of
TotalSegmentator's published mapping that those lack. A name that the list lacks gets
the generic code "Tissue", never a guess; the name itself is always kept beside the
code.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

SCHEME = "SCT"
"""SNOMED CT, as DICOM designates it."""

Category = Literal["anatomy", "tissue", "substance", "abnormal", "object"]


@dataclass(frozen=True, slots=True)
class Code:
    """A SNOMED CT code and its meaning in words."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Term:
    """What a region is, in codes.

    Parameters
    ----------
    category, kind : Code
        DICOM's segmented property category and type.
    side : Code or None
        Left or right, where the name says so.
    known : bool
        False for the generic code.
    """

    category: Code
    kind: Code
    side: Code | None = None
    known: bool = True


CATEGORIES: dict[Category, Code] = {
    "anatomy": Code("91723000", "Anatomical Structure"),
    "tissue": Code("85756007", "Tissue"),
    "substance": Code("91720002", "Body Substance"),
    "abnormal": Code("49755003", "Morphologically Abnormal Structure"),
    "object": Code("260787004", "Physical object"),
}
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}
_GENERIC = Code("85756007", "Tissue")

_AMBIGUOUS = ("left ventricle", "right ventricle")  # of the heart or of the brain


@cache
def _terms() -> dict[str, Term]:
    """Read the list, by name in lower case."""
    with (
        files("napari_strata.io").joinpath("terms.tsv").open(encoding="utf-8") as lines
    ):
        rows = list(csv.DictReader(lines, delimiter="\t"))
    found: dict[str, Term] = {}
    for row in rows:
        code = Code(row["snomed_ct"], row["meaning"])
        term = Term(CATEGORIES[row["category"]], code)  # type: ignore[index]
        names = (
            row["meaning"].lower(),
            *(
                other.strip()
                for other in row["other_names"].split(",")
                if other.strip()
            ),
        )
        found |= {name: term for name in names if name not in _AMBIGUOUS}
    return found


def known_terms() -> tuple[Term, ...]:
    """Return every term of the list, once."""
    return tuple(dict.fromkeys(_terms().values()))


def coded(name: str) -> dict[str, str] | None:
    """Return the code of a region's name as plain values, for files.

    Return None for a name that is not in the list.
    """
    term = term_of(name)
    if not term.known:
        return None
    code = {"scheme": SCHEME, "value": term.kind.value, "meaning": term.kind.meaning}
    return code | ({"side": term.side.meaning} if term.side is not None else {})


def term_of(name: str) -> Term:
    """Code a region's name.

    "Left kidney", "kidney_left" and "kidneys, left" are SNOMED's kidney, on the left.

    Only a name that is nothing but a listed term, its plural, a side and a number is
    coded; all else ("liver cyst?", "region 7") gets the generic "Tissue".

    Parameters
    ----------
    name : str
        As a person wrote it.

    Returns
    -------
    Term
        `known` says whether the list has it.
    """
    # in "vertebrae L1" and "3rd ventricle" the number tells
    numbered = " ".join(re.findall(r"[^\W_]+", name.lower()))
    words = re.findall(r"[^\W\d_]+", name.lower())
    if (exact := _terms().get(numbered)) is not None:
        return exact
    if (whole := _look_up(" ".join(words))) is not None:
        return whole
    sides = [SIDES[word] for word in words if word in SIDES]
    found = _look_up(" ".join(word for word in words if word not in SIDES))
    if found is None or len(sides) > 1:
        return Term(CATEGORIES["tissue"], _GENERIC, known=False)
    return Term(found.category, found.kind, sides[0] if sides else None)


def _look_up(name: str) -> Term | None:
    singular = name.removesuffix("s")
    terms = _terms()
    return terms.get(name) or terms.get(singular) or terms.get(name.removesuffix("es"))
