"""Labels of voxels in a box of the scan, and bounding boxes of regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.state.assignment import State, supervoxel_table
from napari_strata.refine.state.fragments import roots
from napari_strata.refine.state.proposal_index import Box, ProposalIndex

Shape = tuple[int, ...]


def labels_in_box(
    state: State, index: ProposalIndex, box: Box, dtype: type[np.integer] = np.int32
) -> NDArray[np.integer]:
    """Return the region of every voxel in a box of the scan, a new array.

    Parameters
    ----------
    state, index
        The state and its proposal.
    box : tuple of 3 slices
        Part of the scan along z, y, x, in steps of one.
    dtype : type
        An integer type that holds every region id in use.
    """
    shape = index.proposal.supervoxels.shape
    table = supervoxel_table(state, index).astype(dtype)
    supervoxels = index.proposal.supervoxels[box]
    labels = np.empty(supervoxels.shape, dtype)
    # plane by plane: a single call over a large scan would block a window
    for plane, painted in zip(supervoxels, labels, strict=True):
        painted[...] = table[plane]
    for voxels, values in (
        (state.cut_voxels, table[state.cut_supervoxels]),
        (state.painted_voxels, state.painted_regions),
    ):
        inside, place = in_box(voxels, box, shape)
        labels[place] = values[inside]
    return labels


def painted_in_box(state: State, index: ProposalIndex, box: Box) -> NDArray[np.bool_]:
    """Return a mask of the painted voxels in a box of the scan."""
    shape = index.proposal.supervoxels.shape
    painted = np.zeros(
        [
            part.indices(size)[1] - part.indices(size)[0]
            for part, size in zip(box, shape, strict=True)
        ],
        np.bool_,
    )
    painted[in_box(state.painted_voxels, box, shape)[1]] = True
    return painted


def in_box(
    voxels: NDArray[np.int64], box: Box, shape: Shape
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
    """Return which flat voxels (ascending) are in a box, and their indices in the box.

    The first value holds positions in `voxels`.
    """
    if len(voxels) == 0:
        return np.empty(0, np.int64), (np.empty(0, np.int64),) * len(shape)
    bounds = np.array(
        [part.indices(size)[:2] for part, size in zip(box, shape, strict=True)]
    )
    plane = shape[1] * shape[2]
    first, last = np.searchsorted(voxels, bounds[0] * plane)
    zyx = np.stack(np.unravel_index(voxels[first:last], shape))
    held = np.flatnonzero(
        ((zyx[1:] >= bounds[1:, :1]) & (zyx[1:] < bounds[1:, 1:])).all(axis=0)
    )
    return first + held, tuple(zyx[:, held] - bounds[:, :1])


def region_box(
    state: State,
    index: ProposalIndex,
    regions: NDArray[np.integer],
    *,
    pad_mm: float = 0.0,
) -> Box | None:
    """Return a box with all voxels of some regions and a margin; None if there are none.

    Parameters
    ----------
    state, index
        The state and its proposal.
    regions : integer array
        Region ids.
    pad_mm : float
        Margin in mm; one voxel is added to it.
    """
    held = np.unique(
        roots(
            state,
            index,
            np.flatnonzero(np.isin(supervoxel_table(state, index), regions)),
        )
    )
    box = index.box_of(
        held, state.painted_voxels[np.isin(state.painted_regions, regions)]
    )
    if box is None:
        return None
    spacing = index.proposal.volume.spacing_zyx_mm
    margin = [int(pad_mm / step) + 1 for step in spacing]
    sides = zip(box, margin, index.proposal.supervoxels.shape, strict=True)
    z, y, x = (
        slice(max(part.start - pad, 0), min(part.stop + pad, size))
        for part, pad, size in sides
    )
    return z, y, x
