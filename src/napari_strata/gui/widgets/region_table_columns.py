"""The columns of the region table in the window, one row each (no Qt).

To add a column, add a row to `REGION_COLUMNS` (key, header, help, width, the text of a
cell and what it is sorted by) and its name to the positions below it. A value that is not
measured yet is first a field of `RegionStatistics` (`refine/state/statistics.py`). Columns
of exported tables are in `measure/exported_columns.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from napari_strata.gui.actions import shortcut
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import Region

_NOT_MEASURED = -1e9
"""Sorts below every measured value."""


@dataclass(frozen=True, slots=True)
class RegionRow:
    """What a row of the table is about.

    Parameters
    ----------
    region : Region
        The region.
    statistics : RegionStatistics or None
        What was measured of it; None until it is.
    is_hidden : bool
        Whether it is not drawn.
    partner : int or None
        Id of its mirror image; None if it has none, or until that is known.
    """

    region: Region
    statistics: RegionStatistics | None
    is_hidden: bool
    partner: int | None = None


@dataclass(frozen=True, slots=True)
class RegionColumn:
    """A column of the region table.

    Parameters
    ----------
    key : str
        Its name in code.
    header, help : str
        Its title, and the tooltip of title and cells.
    width : int or None
        In pixels; None takes the room that is left.
    text : callable
        Returns a cell's text, None for an empty cell.
    sort_key : callable
        Returns what the rows are sorted by.
    kind : {"text", "number", "name", "color", "check"}
        "number" is right-aligned, "name" can be edited, "color" is a swatch and "check"
        a box to tick.
    """

    key: str
    header: str
    help: str
    width: int | None
    text: Callable[[RegionRow], str | None]
    sort_key: Callable[[RegionRow], float | str]
    kind: Literal["text", "number", "name", "color", "check"] = "text"


def _nothing(_row: RegionRow) -> None:
    return None


def _measure(
    key: str, header: str, help_text: str, width: int, form: Callable[[float], str]
) -> RegionColumn:
    """Return the column of a field of `RegionStatistics`."""

    def text(row: RegionRow) -> str | None:
        if row.statistics is None:
            return None
        value = getattr(row.statistics, key)
        return "" if value != value else form(value)

    def sort_key(row: RegionRow) -> float:
        if row.statistics is None:
            return _NOT_MEASURED
        value = float(getattr(row.statistics, key))
        return _NOT_MEASURED if value != value else value

    return RegionColumn(key, header, help_text, width, text, sort_key, "number")


def _millilitres(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _intensity(value: float) -> str:
    is_long = abs(value) >= 10 or value == int(value)
    return f"{value:.0f}" if is_long else f"{value:.2g}"


def _name_key(row: RegionRow) -> str:
    """Sort region 9 before region 10."""
    parts = row.region.name.lower().split(" ")
    return "".join(part.rjust(8) if part.isdigit() else part for part in parts)


def _pair_key(row: RegionRow) -> float:
    """Sort the two of a pair together, and regions without a partner last."""
    if row.partner is None:
        return float("inf")
    low, high = sorted((row.region.id, row.partner))
    return low + (0.5 if row.region.id == high else 0.0)


REGION_COLUMNS: tuple[RegionColumn, ...] = (
    RegionColumn(
        "shown",
        "",
        "Whether the region is drawn",
        20,
        _nothing,
        lambda row: int(row.is_hidden),
        "check",
    ),
    RegionColumn(
        "color",
        "",
        "Colour; double-click to change it",
        24,
        _nothing,
        lambda row: row.region.id,
        "color",
    ),
    RegionColumn(
        "name",
        "Region",
        "Name; double-click to rename the region. A named region stays when the slider"
        " moves",
        None,
        lambda row: row.region.name,
        _name_key,
        "name",
    ),
    _measure("volume_ml", "mL", "Volume in millilitres", 44, _millilitres),
    _measure(
        "mean",
        "Mean",
        "Mean intensity: HU for CT, the scan's own unit for MR",
        46,
        _intensity,
    ),
    _measure("sd", "SD", "Standard deviation of the intensity", 46, _intensity),
    _measure(
        "confidence",
        "Sure",
        "Confidence of the proposal in this region, from 0 to 1",
        42,
        lambda value: f"{value:.2f}",
    ),
    RegionColumn(
        "pair",
        "Pair",
        "Id of its mirror image on the other side, where there is one. Sort by it to see"
        " pairs together",
        34,
        lambda row: "" if row.partner is None else str(row.partner),
        _pair_key,
        "number",
    ),
    RegionColumn(
        "accepted",
        "OK",
        f"Accepted: somebody has checked it and found it right ({shortcut('accept')})",
        24,
        lambda row: "✓" if row.region.accepted else "",
        lambda row: int(row.region.accepted),
    ),
    RegionColumn(
        "locked",
        "Lock",
        "Locked regions never change, neither by proposal nor by brush",
        36,
        _nothing,
        lambda row: int(row.region.locked),
        "check",
    ),
)

SHOWN, COLOR, NAME, VOLUME, MEAN, SD, CONFIDENCE, PAIR, ACCEPTED, LOCK = range(
    len(REGION_COLUMNS)
)
"""Places of the columns."""
