"""The journal: one step per edit, each with the difference it made, so that undo and redo are exact and unlimited.

A step turns into bytes on its own, so a journal on disk grows by appending.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.edits import Edit, edit_from_record, record_from_edit
from napari_strata.refine.owner import State, Stroke
from napari_strata.volume import Region

Arrays = dict[str, NDArray[Any]]

_TABLES = ("owner", "given", "before")
_PAIRS = ("rows", "merged")


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What changed between two states.

    Parameters
    ----------
    arrays : dict of arrays
        For each table "owner", "given", "before", "ids regions", "ids tissues": "<table> at", "<table> old", "<table> new".
        For painted voxels "painted old voxels", "painted old regions" and the same with "new". Only what changed is there.
    values : dict
        Plain values: "tree", "n", "rows", "merged" as [old, new], and "next_id" after the edit.
    strokes : tuple of Stroke
        Strokes that were added.
    """

    arrays: Arrays
    values: dict[str, Any]
    strokes: tuple[Stroke, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed that a person could notice or undo."""
        return not self.arrays and not self.strokes and not set(self.values) - {"next_id"}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One edit in the journal.

    Parameters
    ----------
    name : str
        For people: "Merge: liver + region 7".
    edit : Edit
        What was done, as evidence; replaying it on the same proposal from the same state gives the same result.
    first_id : int
        The id that was next when it was done.
    delta : Delta
        What it changed.
    """

    name: str
    edit: Edit
    first_id: int
    delta: Delta


@dataclass(slots=True)
class Journal:
    """Steps that were done, and steps that were undone and can be redone (next one last)."""

    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Put a new step on top; what was undone is forgotten."""
        self.done.append(step)
        self.undone.clear()


def _tables(state: State) -> dict[str, NDArray[np.int32]]:
    tables = {name: getattr(state, name) for name in _TABLES}
    return tables | {f"ids {tree}": ids for tree, ids in state.rank_ids.items()}


def difference(old: State, new: State) -> Delta:
    """Find what changed from one state to the next."""
    arrays: Arrays = {}
    new_tables = _tables(new)
    for name, before in _tables(old).items():
        at = np.flatnonzero(before != new_tables[name]).astype(np.int32)
        if len(at):
            arrays |= {f"{name} at": at, f"{name} old": before[at], f"{name} new": new_tables[name][at]}
    gone = _only_in(old, new)
    came = _only_in(new, old)
    if gone.any() or came.any():
        arrays |= {"painted old voxels": old.painted_voxels[gone], "painted old regions": old.painted_regions[gone]}
        arrays |= {"painted new voxels": new.painted_voxels[came], "painted new regions": new.painted_regions[came]}
    values: dict[str, Any] = {"next_id": new.next_id}
    for name in ("tree", "n"):
        if getattr(old, name) != getattr(new, name):
            values[name] = [getattr(old, name), getattr(new, name)]
    for name in _PAIRS:
        before_rows, after_rows = getattr(old, name), getattr(new, name)
        changed = {key for key in before_rows.keys() | after_rows.keys() if before_rows.get(key) != after_rows.get(key)}
        if changed:
            values[name] = [{key: side[key] for key in sorted(changed) if key in side} for side in (before_rows, after_rows)]
    return Delta(arrays, values, new.strokes[len(old.strokes) :])


def painted_changes(old: State, new: State) -> NDArray[np.int64]:
    """Give the flat voxels whose hand-painted region came, went or changed."""
    delta = difference(old, new).arrays
    return np.union1d(delta.get("painted old voxels", np.empty(0, np.int64)), delta.get("painted new voxels", np.empty(0, np.int64)))


def _only_in(state: State, other: State) -> NDArray[np.bool_]:
    """Tell which painted voxels of a state the other does not have with the same region."""
    keys = state.painted_voxels * 2**21 + state.painted_regions
    return ~np.isin(keys, other.painted_voxels * 2**21 + other.painted_regions)


def stepped(state: State, delta: Delta, *, back: bool) -> State:
    """Apply a difference, or take it back. `next_id` never goes back: ids are not handed out twice."""
    source, target = ("new", "old") if back else ("old", "new")
    side = 0 if back else 1
    tables = {name: _patched(table, name, target, delta.arrays) for name, table in _tables(state).items()}
    changes: dict[str, Any] = {name: tables[name] for name in _TABLES}
    changes["rank_ids"] = {tree: tables[f"ids {tree}"] for tree in state.rank_ids}
    if f"painted {source} voxels" in delta.arrays:
        keep = ~np.isin(state.painted_voxels, delta.arrays[f"painted {source} voxels"])
        voxels = np.concatenate([state.painted_voxels[keep], delta.arrays[f"painted {target} voxels"]])
        regions = np.concatenate([state.painted_regions[keep], delta.arrays[f"painted {target} regions"]])
        order = np.argsort(voxels)
        changes |= {"painted_voxels": voxels[order], "painted_regions": regions[order]}
    for name in ("tree", "n"):
        if name in delta.values:
            changes[name] = delta.values[name][side]
    for name in _PAIRS:
        if name in delta.values:
            other = delta.values[name][1 - side]
            changes[name] = {key: value for key, value in getattr(state, name).items() if key not in other} | delta.values[name][side]
    strokes = state.strokes[: len(state.strokes) - len(delta.strokes)] if back else (*state.strokes, *delta.strokes)
    return replace(state, strokes=strokes, next_id=max(state.next_id, delta.values["next_id"]), **changes)


def _patched(table: NDArray[np.int32], name: str, target: str, arrays: Arrays) -> NDArray[np.int32]:
    if f"{name} at" not in arrays:
        return table
    table = table.copy()
    table[arrays[f"{name} at"]] = arrays[f"{name} {target}"]
    return table


def bytes_from_step(step: Step) -> bytes:
    """Turn a step into bytes (an npz archive that holds arrays and one JSON text)."""
    record, points = record_from_edit(step.edit)
    arrays = dict(step.delta.arrays)
    if points is not None:
        arrays["points"] = points
    for i, stroke in enumerate(step.delta.strokes):
        arrays[f"stroke {i}"] = stroke.voxels
    values = dict(step.delta.values)
    if "rows" in values:
        values["rows"] = [[[r.id, r.name, r.color, r.locked] for r in side.values()] for side in values["rows"]]
    if "merged" in values:
        values["merged"] = [sorted(side.items()) for side in values["merged"]]
    strokes = [[stroke.region, stroke.scope] for stroke in step.delta.strokes]
    text = json.dumps({"name": step.name, "edit": record, "first_id": step.first_id, "values": values, "strokes": strokes})
    arrays["json"] = np.frombuffer(text.encode(), np.uint8)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def step_from_bytes(data: bytes) -> Step:
    """Turn bytes back into a step; the inverse of `bytes_from_step`.

    Raises
    ------
    ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile
        If the bytes are damaged.
    """
    with np.load(BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = json.loads(arrays.pop("json").tobytes().decode())
    points = arrays.pop("points", None)
    strokes = tuple(Stroke(arrays.pop(f"stroke {i}"), region, scope) for i, (region, scope) in enumerate(text["strokes"]))
    values = text["values"]
    if "rows" in values:
        values["rows"] = [{row[0]: Region(row[0], row[1], tuple(row[2]), row[3]) for row in side} for side in values["rows"]]
    if "merged" in values:
        values["merged"] = [dict(side) for side in values["merged"]]
    return Step(text["name"], edit_from_record(text["edit"], points), text["first_id"], Delta(arrays, values, strokes))
