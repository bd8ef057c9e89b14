"""Positions in the patient as text (no Qt)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import StrataError

_AXES = {
    "R": (0, 1.0),
    "L": (0, -1.0),
    "A": (1, 1.0),
    "P": (1, -1.0),
    "S": (2, 1.0),
    "I": (2, -1.0),
}
_NUMBER = r"[-+]?\d+(?:\.\d+)?"


def position_from_text(
    text: str, here: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Read "L 12 P 30.5 S 7" in any order, or three numbers x, y, z in RAS+ mm.

    With `here`, a part such as "S 15" is enough: the rest stays as it is there.

    Returns
    -------
    (3,) float64 array
        RAS+ mm.

    Raises
    ------
    StrataError
        If the text is neither.
    """
    lettered = re.findall(rf"([RLAPSI])\s*({_NUMBER})", text.upper())
    axes = [_AXES[letter][0] for letter, _ in lettered]
    rest = re.sub(rf"[RLAPSI]\s*{_NUMBER}|MM|[\s,;]", "", text.upper())
    is_part = here is not None and bool(axes) and len(set(axes)) == len(axes)
    if (len(lettered) == 3 and sorted(axes) == [0, 1, 2]) or (is_part and not rest):
        point = np.zeros(3) if here is None else np.array(here, np.float64)
        for letter, number in lettered:
            axis, sign = _AXES[letter]
            point[axis] = sign * float(number)
        return point
    numbers = re.findall(_NUMBER, text)
    if len(numbers) == 3 and not re.search(r"[A-Za-z]", text.lower().replace("mm", "")):
        return np.array([float(number) for number in numbers])
    raise StrataError(
        f"'{text}' is no position. Write for example L 12 P 30.5 S 7 (mm), or three"
        " numbers: right, anterior, superior."
    )


def text_from_position(point_ras_mm: NDArray[np.float64]) -> str:
    """Write a position as `position_from_text` reads it."""
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    return " ".join(
        f"{letters[axis][int(point_ras_mm[axis] >= 0)]}"
        f" {abs(float(point_ras_mm[axis])):.1f}"
        for axis in range(3)
    )
