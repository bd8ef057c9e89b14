"""States as arrays and plain values, for case files and journal snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_strata.refine.history.array_codec import Arrays, pack, unpack
from napari_strata.refine.history.edit_serialization import row_from_values, row_values
from napari_strata.refine.state.assignment import State, Stroke

_ARRAYS = {
    "owner": "assigned",
    "given": "pinned",
    "before": "before_spread",
    "painted_voxels": "painted_voxels",
    "painted_regions": "painted_regions",
    "leaf_parents": "leaf_parents",
    "cut_voxels": "cut_voxels",
    "cut_pieces": "cut_supervoxels",
}
"""Key of each array in files, and the attribute of `State` that it holds."""


def state_arrays(state: State) -> Arrays:
    """Return the arrays of a state by key, with the voxels of all strokes in one row."""
    arrays: Arrays = {key: getattr(state, name) for key, name in _ARRAYS.items()}
    arrays |= {f"ids {tree}": ids for tree, ids in state.rank_ids.items()}
    return arrays | {
        "strokes": np.concatenate(
            [np.empty(0, np.int64), *[stroke.voxels for stroke in state.strokes]]
        )
    }


def state_values(state: State) -> dict[str, Any]:
    """Return the rest of a state as plain values."""
    return {
        "tree": state.tree,
        "n": state.n,
        "rows": [row_values(row) for row in state.rows.values()],
        "merged": list(state.merged.items()),
        "strokes": [
            [stroke.region, stroke.scope, len(stroke.voxels)]
            for stroke in state.strokes
        ],
        "next_id": state.next_id,
    }


def state_from(arrays: Arrays, values: dict[str, Any]) -> State:
    """Return the state of some arrays and values.

    The inverse of `state_arrays` and `state_values`.

    Raises
    ------
    KeyError, ValueError, TypeError, IndexError
        If they are not those of a state.
    """
    ends = np.cumsum([0, *[length for _, _, length in values["strokes"]]])
    strokes = [
        Stroke(arrays["strokes"][ends[i] : ends[i + 1]], region, scope)
        for i, (region, scope, _) in enumerate(values["strokes"])
    ]
    held: dict[str, Any] = {name: arrays[key] for key, name in _ARRAYS.items()}
    return State(
        **held,
        tree=values["tree"],
        n=values["n"],
        rank_ids={"regions": arrays["ids regions"], "tissues": arrays["ids tissues"]},
        rows={row[0]: row_from_values(row) for row in values["rows"]},
        merged=dict(values["merged"]),
        strokes=tuple(strokes),
        next_id=values["next_id"],
    )


def state_bytes(state: State) -> bytes:
    """Encode a state as bytes."""
    return pack(state_arrays(state), state_values(state))


def state_from_bytes(data: bytes) -> State:
    """Decode a state from bytes.

    Raises
    ------
    KeyError, ValueError, TypeError, IndexError, zlib.error
        If the bytes are damaged.
    """
    return state_from(*unpack(data))
