"""Whether structures that are named left and right lie on these sides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SIDE = re.compile(r"(?<![a-z])(left|right|lt|rt|lh|rh|l|r)(?![a-z])", re.IGNORECASE)
_LEFT = ("left", "lt", "lh", "l")


@dataclass(frozen=True, slots=True)
class Side:
    """A structure and its partner on the other side.

    Parameters
    ----------
    partner : int
        Id of the partner.
    is_swapped : bool
        Whether the one named left lies further right.
    volume_ratio : float
        Volume over that of the partner.
    """

    partner: int
    is_swapped: bool
    volume_ratio: float


def sides(
    names: Mapping[int, str],
    centers_ras_mm: Mapping[int, NDArray[np.float64]],
    volumes: Mapping[int, float],
) -> dict[int, Side]:
    """Return the side of each structure whose name has one and whose partner is there.

    Parameters
    ----------
    names : mapping of int to str
        Names by id.
    centers_ras_mm : mapping of int to (3,) array
        Centres, in mm toward Right, Anterior, Superior.
    volumes : mapping of int to float
        Volumes, in any unit.
    """
    found: dict[tuple[str, bool], int] = {}
    for key, name in names.items():
        if (side := side_of(name)) is not None:
            found[side] = key
    result = {}
    for (stem, is_left), key in found.items():
        partner = found.get((stem, not is_left))
        if partner is not None:
            x, other = centers_ras_mm[key][0], centers_ras_mm[partner][0]
            is_swapped = bool(x > other) if is_left else bool(x < other)
            ratio = volumes[key] / volumes[partner]
            result[key] = Side(partner, is_swapped, ratio)
    return result


def side_of(name: str) -> tuple[str, bool] | None:
    """Return a name without its side, and whether that is left; None without a side."""
    plain = re.sub(r"[_\-.]", " ", name)
    match = _SIDE.search(plain)
    if match is None:
        return None
    stem = " ".join((plain[: match.start()] + plain[match.end() :]).lower().split())
    return stem, match[1].lower() in _LEFT
