"""The journal: one step per edit with the difference it made, for exact undo and redo.

Each step is compressed and encoded on its own, so a journal on disk grows by appending.
Snapshots of the whole state make long jumps fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.edits.basic import Edit
from napari_strata.refine.history.array_codec import Arrays, pack, unpack
from napari_strata.refine.history.edit_serialization import (
    edit_from_record,
    record_from_edit,
    row_from_values,
    row_values,
)
from napari_strata.refine.history.snapshot import state_from_bytes
from napari_strata.refine.state.assignment import State, Stroke
from napari_strata.refine.state.sparse_voxels import (
    layer_changes,
    looked_up,
    merged,
    overlaid,
)

SNAPSHOT_EVERY = 200
"""Steps between two snapshots of the whole state."""

_PER_MM = 2.0**14
"""Steps per mm of the grid to which stored points are rounded.

Whole numbers on a grid compress ten times better than fractions.
"""
_TABLES = {"owner": "assigned", "given": "pinned", "before": "before_spread"}
"""Name of each table in files, and the attribute of `State` that it holds."""
_LAYERS = {
    "painted": ("painted_voxels", "painted_regions"),
    "cut": ("cut_voxels", "cut_supervoxels"),
}
_PAIRS = ("rows", "merged")


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """Difference between two states.

    Parameters
    ----------
    arrays : dict of arrays
        For each table (a key of `_TABLES`, "ids regions", "ids tissues"): "<table> at",
        "<table> old", "<table> new", and "<table> tail" with the rows of new fragments;
        "leaf_parents tail" with their supervoxels. For the layers "painted" and "cut":
        "<layer> voxels", "<layer> old", "<layer> new", with -1 for a voxel outside the
        layer. Arrays without a change are left out.
    values : dict
        Plain values: "tree", "n", "rows", "merged", "stroke regions" as [old, new], and
        "next_id" after the edit.
    strokes : tuple of Stroke
        Strokes that were added.
    """

    arrays: Arrays
    values: dict[str, Any]
    strokes: tuple[Stroke, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed that a user could notice or undo."""
        return (
            not self.arrays and not self.strokes and not set(self.values) - {"next_id"}
        )


@dataclass(frozen=True, slots=True, eq=False)
class JournalStep:
    """One edit in the journal, with its difference.

    Parameters
    ----------
    name : str
        Name to show, for example "Merge: liver + region 7".
    first_id : int
        The next unused region id before the step.
    packed : bytes
        The step as stored in files.
    """

    name: str
    first_id: int
    packed: bytes

    @classmethod
    def of(cls, name: str, edit: Edit, first_id: int, delta: Delta) -> Self:
        """Return the step of an edit and its difference."""
        record, points = record_from_edit(edit)
        arrays = dict(delta.arrays)
        if points is not None:
            arrays["points"] = np.rint(points.T * _PER_MM).astype(np.int64).reshape(-1)
        arrays |= {
            f"stroke {i}": stroke.voxels for i, stroke in enumerate(delta.strokes)
        }
        values = dict(delta.values)
        if "rows" in values:
            values["rows"] = [
                [row_values(row) for row in side.values()] for side in values["rows"]
            ]
        if "merged" in values:
            values["merged"] = [sorted(side.items()) for side in values["merged"]]
        strokes = [[stroke.region, stroke.scope] for stroke in delta.strokes]
        text = {
            "name": name,
            "edit": record,
            "first_id": first_id,
            "values": values,
            "strokes": strokes,
        }
        return cls(name, first_id, pack(arrays, text))

    @classmethod
    def from_bytes(cls, packed: bytes) -> Self:
        """Return the step that some bytes hold.

        Raises
        ------
        ValueError, KeyError, TypeError, zlib.error
            If they are damaged.
        """
        _, text = unpack(packed)
        return cls(str(text["name"]), int(text["first_id"]), packed)

    @property
    def edit(self) -> Edit:
        """The edit. On the same proposal and state it has the same result."""
        arrays, text = unpack(self.packed)
        points = arrays.get("points")
        return edit_from_record(
            text["edit"], None if points is None else points.reshape(3, -1).T / _PER_MM
        )

    @property
    def delta(self) -> Delta:
        """The difference it made."""
        arrays, text = unpack(self.packed)
        arrays.pop("points", None)
        strokes = tuple(
            Stroke(arrays.pop(f"stroke {i}"), region, scope)
            for i, (region, scope) in enumerate(text["strokes"])
        )
        values = text["values"]
        if "rows" in values:
            values["rows"] = [
                {row[0]: row_from_values(row) for row in side}
                for side in values["rows"]
            ]
        if "merged" in values:
            values["merged"] = [dict(side) for side in values["merged"]]
        return Delta(arrays, values, strokes)


@dataclass(slots=True)
class Journal:
    """Steps that are done, steps that were undone, and snapshots.

    Parameters
    ----------
    done, undone : list of JournalStep
        The steps. The next one to redo is the last of `undone`.
    snapshots : dict of bytes
        Packed states, by the number of steps that lead to them.
    """

    done: list[JournalStep] = field(default_factory=list)
    undone: list[JournalStep] = field(default_factory=list)
    snapshots: dict[int, bytes] = field(default_factory=dict)

    @property
    def line(self) -> tuple[bytes, ...]:
        """All steps, packed: done ones, then undone ones in the order of redoing."""
        return tuple(step.packed for step in (*self.done, *reversed(self.undone)))

    def add(self, step: JournalStep) -> None:
        """Append a new step; undone steps are dropped."""
        self.undone.clear()
        self.snapshots = {
            at: packed for at, packed in self.snapshots.items() if at <= len(self.done)
        }
        self.done.append(step)

    def take_last(self) -> None:
        """Remove the last step and all undone steps, before another step replaces it."""
        self.undone.clear()
        self.done.pop()
        self.snapshots = {
            at: packed for at, packed in self.snapshots.items() if at <= len(self.done)
        }

    def move(self, count: int) -> None:
        """Move steps so that exactly `count` are done and the others undone."""
        while len(self.done) > count:
            self.undone.append(self.done.pop())
        while len(self.done) < count:
            self.done.append(self.undone.pop())

    def state_at(self, count: int, state: State) -> State:
        """Return the state after `count` steps, from the nearest known state.

        Parameters
        ----------
        count : int
            Number of steps.
        state : State
            The state after the steps that are done now.
        """
        at, next_id = len(self.done), state.next_id
        nearest = min(self.snapshots, key=lambda known: abs(known - count), default=at)
        if abs(nearest - count) < abs(at - count):
            colors = state.colors
            kept = state_from_bytes(self.snapshots[nearest])
            at, state = nearest, replace(kept, colors=colors)
        steps = [*self.done, *reversed(self.undone)]
        for step in reversed(steps[count:at]):
            state = apply_delta(state, step.delta, back=True)
        for step in steps[at:count]:
            state = apply_delta(state, step.delta, back=False)
        return replace(state, next_id=max(next_id, state.next_id))

    def copy(self) -> Journal:
        """Return a copy that later edits do not change."""
        return Journal(list(self.done), list(self.undone), dict(self.snapshots))


def _tables(state: State) -> Arrays:
    tables: Arrays = {key: getattr(state, name) for key, name in _TABLES.items()}
    return tables | {f"ids {tree}": ids for tree, ids in state.rank_ids.items()}


def difference(old: State, new: State) -> Delta:
    """Compute the difference between two states; fragments are only ever added."""
    arrays: Arrays = {}
    new_tables = _tables(new)
    for name, before in _tables(old).items():
        after = new_tables[name]
        if after is before:
            continue
        at = np.flatnonzero(before != after[: len(before)]).astype(np.int32)
        if len(at):
            arrays |= {
                f"{name} at": at,
                f"{name} old": before[at],
                f"{name} new": after[at],
            }
        if len(after) > len(before):
            arrays[f"{name} tail"] = after[len(before) :]
    if len(new.leaf_parents) > len(old.leaf_parents):
        arrays["leaf_parents tail"] = new.leaf_parents[len(old.leaf_parents) :]
    for name, (voxels, values) in _LAYERS.items():
        layers = [
            (getattr(state, voxels), getattr(state, values)) for state in (old, new)
        ]
        changed = layer_changes(*layers)
        if len(changed):
            sides = [looked_up(*layer, changed) for layer in layers]
            arrays |= {
                f"{name} voxels": changed,
                f"{name} old": sides[0],
                f"{name} new": sides[1],
            }
    return Delta(arrays, _changed_values(old, new), new.strokes[len(old.strokes) :])


def _changed_values(old: State, new: State) -> dict[str, Any]:
    values: dict[str, Any] = {"next_id": new.next_id}
    for name in ("tree", "n"):
        if getattr(old, name) != getattr(new, name):
            values[name] = [getattr(old, name), getattr(new, name)]
    for name in _PAIRS:
        before, after = getattr(old, name), getattr(new, name)
        changed = {
            key
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
        }
        if changed:
            values[name] = [
                {key: side[key] for key in sorted(changed) if key in side}
                for side in (before, after)
            ]
    regions = [
        [stroke.region for stroke in state.strokes[: len(old.strokes)]]
        for state in (old, new)
    ]
    if regions[0] != regions[1]:
        values["stroke regions"] = regions
    return values


def painted_changes(old: State, new: State) -> NDArray[np.int64]:
    """Return the flat voxels (ascending) painted, unpainted or cut between two states."""
    found = [
        layer_changes(*[(getattr(state, v), getattr(state, w)) for state in (old, new)])
        for v, w in _LAYERS.values()
    ]
    return merged(*found)


def apply_delta(state: State, delta: Delta, *, back: bool) -> State:
    """Return the state after a difference, or its inverse with `back`.

    `next_id` never decreases: ids are not used twice.
    """
    target, side = ("old", 0) if back else ("new", 1)
    tables = {
        name: _patched(table, name, target, delta.arrays)
        for name, table in _tables(state).items()
    }
    changes: dict[str, Any] = {name: tables[key] for key, name in _TABLES.items()}
    changes["rank_ids"] = {tree: tables[f"ids {tree}"] for tree in state.rank_ids}
    changes["leaf_parents"] = _patched(
        state.leaf_parents, "leaf_parents", target, delta.arrays
    )
    for name, (voxels, values) in _LAYERS.items():
        if f"{name} voxels" in delta.arrays:
            layer = getattr(state, voxels), getattr(state, values)
            changes[voxels], changes[values] = overlaid(
                *layer, delta.arrays[f"{name} voxels"], delta.arrays[f"{name} {target}"]
            )
    for name in ("tree", "n"):
        if name in delta.values:
            changes[name] = delta.values[name][side]
    for name in _PAIRS:
        if name in delta.values:
            other = delta.values[name][1 - side]
            changes[name] = {
                key: value
                for key, value in getattr(state, name).items()
                if key not in other
            } | delta.values[name][side]
    strokes = (
        state.strokes[: len(state.strokes) - len(delta.strokes)]
        if back
        else state.strokes
    )
    if "stroke regions" in delta.values:
        renamed = delta.values["stroke regions"][side]
        strokes = tuple(
            replace(stroke, region=region)
            for stroke, region in zip(strokes, renamed, strict=True)
        )
    strokes = strokes if back else (*strokes, *delta.strokes)
    return replace(
        state,
        strokes=strokes,
        next_id=max(state.next_id, delta.values["next_id"]),
        **changes,
    )


def _patched(
    table: NDArray[Any], name: str, target: str, arrays: Arrays
) -> NDArray[Any]:
    """Return a table with its changed rows set to their old or new values (`target`).

    For the old values the rows of new fragments are removed, for the new ones appended.
    """
    tail = arrays.get(f"{name} tail")
    if tail is not None and target == "old":
        table = table[: len(table) - len(tail)]
    if f"{name} at" in arrays:
        table = table.copy()
        table[arrays[f"{name} at"]] = arrays[f"{name} {target}"]
    return (
        np.concatenate([table, tail]) if tail is not None and target == "new" else table
    )
