"""Which voxels napari's own brush, fill and polygon wrote (no Qt)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class HandPaint:
    """Voxels that were written in a labels layer by another tool.

    Parameters
    ----------
    flat : (n,) int64 array
        Flat indices, each once.
    values : (n,) int64 array
        The labels that they were given.
    """

    flat: NDArray[np.int64]
    values: NDArray[np.int64]

    def voxels_of(self, value: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the indices (n, 3) of the voxels that were given a label."""
        return np.stack(
            np.unravel_index(self.flat[self.values == value], shape), axis=1
        )


def paint_from_event(
    item: Sequence[Any] | None, shape: tuple[int, ...]
) -> HandPaint | None:
    """Read the value of a labels layer's paint event.

    napari stores each change as voxel indices with old and new values, and since 0.9 as
    a box with a mask. If a voxel was changed twice, the last change counts.

    Returns
    -------
    HandPaint or None
        None if the event has a form that we do not know.
    """
    flats, values = [], []
    for change in item or ():
        if hasattr(change, "slice_key") and hasattr(change, "new_value"):
            flat = _flat_in_box(change.slice_key, change.mask, shape)
            value: Any = change.new_value
        elif isinstance(change, tuple) and len(change) == 3:
            flat = np.ravel_multi_index(
                tuple(np.atleast_1d(np.asarray(one, np.int64)) for one in change[0]),
                shape,
            )
            value = change[2]
        else:
            return None
        flats.append(flat.astype(np.int64))
        values.append(np.broadcast_to(np.asarray(value, np.int64), flat.shape))
    if not flats:
        return None
    last_first = np.concatenate(flats)[::-1]
    flat, place = np.unique(last_first, return_index=True)
    return HandPaint(flat, np.concatenate(values)[::-1][place])


def differences(
    shown: NDArray[Any],
    expected: NDArray[Any],
    start: Sequence[int],
    shape: tuple[int, ...],
) -> HandPaint:
    """Find the voxels of a box where a layer differs from the expected labels.

    `start` is the box's first voxel.
    """
    differing = np.argwhere(shown != expected)
    flat = np.ravel_multi_index(tuple((differing + np.asarray(start)).T), shape).astype(
        np.int64
    )
    return HandPaint(flat, np.asarray(shown[tuple(differing.T)], np.int64))


def _flat_in_box(
    box: tuple[slice, ...], mask: NDArray[np.bool_] | None, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    bounds = np.array(
        [part.indices(size)[:2] for part, size in zip(box, shape, strict=True)]
    )
    size = tuple((bounds[:, 1] - bounds[:, 0]).tolist())
    inside = np.argwhere(
        np.ones(size, bool) if mask is None else np.asarray(mask).reshape(size)
    )
    return np.ravel_multi_index(tuple((inside + bounds[:, 0]).T), shape).astype(
        np.int64
    )
