"""Fragments: parts cut from supervoxels at voxel level.

With them a region need not follow the borders of supervoxels. A cut appends a fragment
that records its supervoxel. Nothing is renumbered, and the trees stay as they are. A
fragment starts with the region, descriptors and place in the trees of its supervoxel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from napari_strata.refine.state.assignment import (
    State,
    assign_supervoxels,
    own_region,
    supervoxels_at_voxels,
)
from napari_strata.refine.state.proposal_index import Box, ProposalIndex
from napari_strata.refine.state.sparse_voxels import overlaid

_EDGE_COST = 8.0
"""Extra cost of a step across the mean intensity difference of the supervoxel's voxels."""
_DENSE_VOXELS = 200_000
"""From larger supervoxels (blocks of air) only the stroked voxels are cut, to save time."""


def roots(
    state: State, index: ProposalIndex, supervoxel_ids: NDArray[np.integer]
) -> NDArray[np.int32]:
    """Return the supervoxel of each supervoxel or fragment."""
    count = index.proposal.n_supervoxels
    found = supervoxel_ids.astype(np.int32, copy=True)
    cut = found >= count
    found[cut] = state.leaf_parents[found[cut] - count]
    return found


def supervoxel_sizes(state: State, index: ProposalIndex) -> NDArray[np.int64]:
    """Return the number of voxels of each supervoxel and fragment, (n + k,).

    Painted voxels count.
    """
    count = index.proposal.n_supervoxels
    cut = np.bincount(
        state.cut_supervoxels - count, minlength=len(state.leaf_parents)
    ).astype(np.int64)
    left = index.sizes_vox - np.bincount(
        state.leaf_parents, weights=cut, minlength=count
    ).astype(np.int64)
    return np.concatenate([left, cut])


def whole_supervoxels(state: State, count: int) -> State:
    """Return the state of the `count` supervoxels without fragments, as if none was cut."""
    if len(state.leaf_parents) == 0:
        return state
    return replace(
        state,
        assigned=state.assigned[:count],
        pinned=state.pinned[:count],
        before_spread=state.before_spread[:count],
        leaf_parents=state.leaf_parents[:0],
        cut_voxels=state.cut_voxels[:0],
        cut_supervoxels=state.cut_supervoxels[:0],
    )


def any_supervoxel(
    state: State, marked: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """Return a mask of the `count` supervoxels that are marked, or have a marked fragment."""
    found = marked[:count].copy()
    found[state.leaf_parents[marked[count:]]] = True
    return found


def by_largest_supervoxel(
    state: State, index: ProposalIndex, values: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return for each supervoxel (n,) the value of its largest part.

    Fragments with a negative value do not count.
    """
    count = index.proposal.n_supervoxels
    found = values[:count].copy()
    valued = np.flatnonzero(values[count:] >= 0)
    if len(valued):
        sizes = supervoxel_sizes(state, index)
        valued = valued[np.argsort(sizes[count + valued], kind="stable")]
        valued = valued[sizes[count + valued] > sizes[state.leaf_parents[valued]]]
        found[state.leaf_parents[valued]] = values[count + valued]
    return found


def voxels_of_supervoxel(
    state: State, index: ProposalIndex, supervoxel: int
) -> NDArray[np.int64]:
    """Return the flat voxels of one supervoxel or fragment, ascending."""
    count = index.proposal.n_supervoxels
    if supervoxel >= count:
        return state.cut_voxels[state.cut_supervoxels == supervoxel]
    z0, y0, x0, z1, y1, x1 = index.boxes[supervoxel].tolist()
    box = slice(z0, z1), slice(y0, y1), slice(x0, x1)
    voxels = flat_where(index, box, index.proposal.supervoxels[box] == supervoxel)
    return (
        voxels[supervoxels_at_voxels(state, index, voxels) == supervoxel]
        if len(state.cut_voxels)
        else voxels
    )


def flat_where(
    index: ProposalIndex, box: Box, mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the flat voxels of the scan, ascending, in a mask over a box of the scan."""
    zyx = [axis + part.start for axis, part in zip(np.nonzero(mask), box, strict=True)]
    return np.ravel_multi_index(tuple(zyx), index.proposal.supervoxels.shape).astype(
        np.int64
    )


def cut_supervoxels(
    state: State,
    index: ProposalIndex,
    flat_voxels: NDArray[np.int64],
    groups: NDArray[np.integer],
) -> State:
    """Cut given voxels from their supervoxels, into a fragment per group.

    Parameters
    ----------
    state : State
        The state before.
    index : ProposalIndex
        Lookups of the proposal.
    flat_voxels : (m,) int64 array
        Voxels to cut, ascending, each once.
    groups : (m,) integer array
        Group of each voxel, not negative.

    Returns
    -------
    State
        The same labels. Every supervoxel or fragment with some of the voxels now holds
        only such voxels, all of one group.
    """
    held = supervoxels_at_voxels(state, index, flat_voxels)
    span = int(groups.max(initial=0)) + 1
    keys, first, member, sizes = np.unique(
        held.astype(np.int64) * span + groups,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    whole = supervoxel_sizes(state, index)[keys // span] == sizes
    # If all voxels of a supervoxel are cut, its largest part keeps the id.
    used_up = np.bincount(keys // span, weights=sizes, minlength=len(state.assigned))[
        keys // span
    ]
    falls = ~whole & (supervoxel_sizes(state, index)[keys // span] == used_up)
    order = np.lexsort((first, -sizes, keys // span))
    heads = order[np.flatnonzero(np.diff((keys // span)[order], prepend=-1))]
    keeps = whole.copy()
    keeps[heads[falls[heads]]] = True
    fresh = np.flatnonzero(~keeps)
    if len(fresh) == 0:
        return state
    fresh = fresh[np.argsort(first[fresh], kind="stable")]
    new_ids = np.full(len(keys), -1, np.int32)
    new_ids[fresh] = len(state.assigned) + np.arange(len(fresh), dtype=np.int32)
    parents = (keys[fresh] // span).astype(np.int32)
    moved = new_ids[member] >= 0
    layer = overlaid(
        state.cut_voxels,
        state.cut_supervoxels,
        flat_voxels[moved],
        new_ids[member[moved]],
    )
    return replace(
        state,
        assigned=np.concatenate([state.assigned, state.assigned[parents]]),
        pinned=np.concatenate([state.pinned, state.pinned[parents]]),
        before_spread=np.concatenate(
            [state.before_spread, state.before_spread[parents]]
        ),
        leaf_parents=np.concatenate([state.leaf_parents, roots(state, index, parents)]),
        cut_voxels=layer[0],
        cut_supervoxels=layer[1],
    )


def assign_voxels(
    state: State,
    index: ProposalIndex,
    flat_voxels: NDArray[np.int64],
    regions: NDArray[np.integer],
    *,
    pin: bool = False,
) -> State:
    """Assign each voxel (ascending, each once) to a region, and cut supervoxels for it.

    The regions no longer follow the cut of the tree afterwards.
    """
    if len(flat_voxels) == 0:
        return state
    found, group = np.unique(regions, return_inverse=True)
    for region in found.tolist():
        state = own_region(state, index, region)
    state = cut_supervoxels(state, index, flat_voxels, group)
    held, at = np.unique(
        supervoxels_at_voxels(state, index, flat_voxels), return_index=True
    )
    return assign_supervoxels(state, held, found[group[at]].astype(np.int32), pin=pin)


def nearer_voxels(
    state: State,
    index: ProposalIndex,
    supervoxel: int,
    mine: NDArray[np.int64],
    theirs: NDArray[np.int64],
    *,
    by_intensity: bool,
) -> NDArray[np.int64]:
    """Return the voxels of a supervoxel that are nearer to `mine` than to `theirs`.

    Distances are geodesic inside the supervoxel, in mm. With `by_intensity` they are
    longer across intensity edges.

    Parameters
    ----------
    state, index, supervoxel
        The supervoxel or fragment.
    mine, theirs : int64 arrays
        Flat voxels in it, disjoint.
    by_intensity : bool
        Whether intensities are used, which needs the scan.

    Returns
    -------
    int64 array
        Flat voxels, ascending, `mine` among them.
    """
    voxels = voxels_of_supervoxel(state, index, supervoxel)
    if len(voxels) > _DENSE_VOXELS:
        return mine
    graph = _grid_graph(index, voxels, by_intensity=by_intensity)
    ways = [
        dijkstra(
            graph, directed=False, indices=np.searchsorted(voxels, seeds), min_only=True
        )
        for seeds in (mine, theirs)
    ]
    taken: NDArray[np.int64] = voxels[ways[0] < ways[1]]
    return taken


def _grid_graph(
    index: ProposalIndex, voxels: NDArray[np.int64], *, by_intensity: bool
) -> csr_array:
    shape = index.proposal.supervoxels.shape
    zyx = np.stack(np.unravel_index(voxels, shape))
    spacing = index.proposal.volume.spacing_zyx_mm
    steps, pairs = (shape[1] * shape[2], shape[2], 1), []
    for axis, step in enumerate(steps):
        near = np.flatnonzero(zyx[axis] < shape[axis] - 1)
        place = np.minimum(
            np.searchsorted(voxels, voxels[near] + step), len(voxels) - 1
        )
        touching = voxels[place] == voxels[near] + step
        pairs.append(
            (
                near[touching],
                place[touching],
                np.full(int(touching.sum()), spacing[axis]),
            )
        )
    one, two, length = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    if by_intensity and len(one):
        values = np.asarray(index.proposal.volume.data[tuple(zyx)], np.float64)
        jump = np.abs(values[one] - values[two])
        usual = float(np.mean(jump))
        length = length * (1 + _EDGE_COST * jump / usual) if usual > 0 else length
    return csr_array((length, (one, two)), shape=(len(voxels), len(voxels)))
