"""Edits and rows of the region table as plain values, for files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.edits.basic import (
    Assign,
    Cut,
    Edit,
    Merge,
    SetRow,
    Split,
)
from napari_strata.refine.edits.region_edits import REGION_EDITS
from napari_strata.refine.edits.strokes import Paint, Scribble
from napari_strata.volume import Region

_KINDS: dict[str, Callable[..., Edit]] = {
    edit.kind: edit
    for edit in (Cut, Merge, Split, Assign, SetRow, Paint, Scribble, *REGION_EDITS)
}


_FILE_KEYS = {"by_intensity": "by_brightness"}
"""Attributes of edits that have another name in files, and that name."""
_ATTRIBUTES = {key: name for name, key in _FILE_KEYS.items()}


def record_from_edit(edit: Edit) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
    """Return an edit as plain values, and its points (n, 3) in mm if it has any."""
    names = [attribute.name for attribute in fields(edit)]  # type: ignore[arg-type]
    values = {_FILE_KEYS.get(name, name): getattr(edit, name) for name in names}
    points = values.pop("points_ras_mm", None)
    if values.get("reach", ()) is None:
        # A stroke of the first method, written as the versions that made it did.
        del values["reach"]
    return {"kind": edit.kind, **values}, points


def edit_from_record(
    record: dict[str, Any], points_ras_mm: NDArray[np.float64] | None
) -> Edit:
    """Return the edit of plain values and points; the inverse of `record_from_edit`.

    Raises
    ------
    KeyError, TypeError
        If the record is not a valid one.
    """
    values = {
        _ATTRIBUTES.get(key, key): _as_tuples(value)
        for key, value in record.items()
        if key != "kind"
    }
    if points_ras_mm is not None:
        values["points_ras_mm"] = points_ras_mm
    return _KINDS[record["kind"]](**values)


def _as_tuples(value: Any) -> Any:
    return (
        tuple(_as_tuples(part) for part in value) if isinstance(value, list) else value
    )


def row_values(row: Region) -> list[Any]:
    """Return a row of the region table as plain values."""
    return [row.id, row.name, row.color, row.locked, row.accepted]


def row_from_values(values: list[Any]) -> Region:
    """Return the row of plain values; the inverse of `row_values`."""
    region, name, (red, green, blue), locked, accepted = values
    return Region(region, name, (red, green, blue), locked, accepted)
