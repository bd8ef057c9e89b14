"""Build the region tree and the tissue tree.

The region tree merges touching supervoxels by Ward's criterion. The tissue tree divides
all supervoxels by similarity from the top down, wherever they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from napari_strata.proposal.hierarchy.divisive_clustering import Division, divide
from napari_strata.proposal.hierarchy.region_merging import (
    Forest,
    SupervoxelGraph,
    merge_in_pairs,
)
from napari_strata.proposal.hierarchy.tissue_division import (
    CONSTANTS,
    TissueDivision,
    TissueInputs,
    divide_tissues,
)
from napari_strata.proposal.hierarchy.tree import Hierarchy, hierarchy_from_merges
from napari_strata.proposal.hierarchy.ward import ward_tree

_TISSUE_GROUPS = 800
"""Groups that tissues are divided into; finer groups could hardly be distinguished."""
_ONE_BY_ONE = 8000
"""Number of supervoxels below which merges are done one at a time, the cheapest first.

Above it, all pairs that are each other's cheapest merge are merged at once, which takes
less than half the time. Cuts of up to 200 regions are equally good.
"""
_SPECK_SHARE = 0.01
"""Isolated parts with less than this share of the body are joined to the nearest part."""


def region_tree(
    vectors: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.integer],
    background: NDArray[np.bool_],
    *,
    centers_mm: NDArray[np.floating] | None = None,
    tissues: NDArray[np.integer] | None = None,
) -> Hierarchy:
    """Merge touching supervoxels by Ward's criterion over the contact graph.

    Large parts that do not touch are joined last. Isolated specks count as touching the
    nearest supervoxel of a large part; otherwise the coarsest cuts would only separate
    specks.

    Parameters
    ----------
    vectors : (n, d) float32 array
        Vectors whose squared distances are compared.
    sizes : (n,) integer array
        Voxels of each supervoxel.
    edges : (e, 2) integer array
        Touching pairs.
    background : (n,) bool array
        Supervoxels that stay in region 0; they get a tree of their own.
    centers_mm : (n, 3) array, optional
        Centroids, to find the supervoxel nearest to a speck.
    tissues : (n,) integer array, optional
        Tissue of each supervoxel. Regions of a fine level lie in one tissue each:
        supervoxels of different tissues merge above all that merge inside tissues first.

    Returns
    -------
    Hierarchy
    """

    def merge(
        members: NDArray[np.integer],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        inner = _inner_edges(edges, members)
        if centers_mm is not None:
            inner = _bridge_specks(inner, sizes[members], centers_mm[members])
        own = None if tissues is None else tissues[members]
        return _ward_in_parts(vectors[members], sizes[members], inner, own)

    return _two_trees(background, sizes, merge)


def tissue_tree(
    vectors: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.integer],
    background: NDArray[np.bool_],
    *,
    groups: int = _TISSUE_GROUPS,
) -> Hierarchy:
    """Return the tree that separates supervoxels by their features, wherever they lie.

    It is built from the top down, and weighs supervoxels by their sizes.

    Parameters are those of `region_tree`. `groups` is the maximum number of groups;
    within a group, supervoxels are merged by similarity. The background's subtree merges
    touching supervoxels.
    """

    def merge(
        members: NDArray[np.integer],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if background[members[0]]:
            return _ward_in_parts(
                vectors[members], sizes[members], _inner_edges(edges, members)
            )
        own = vectors[members]
        return _by_division(own, divide(own, sizes[members], groups))

    return _two_trees(background, sizes, merge)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothTissues:
    """Tissues with few borders, and the tree that they belong to.

    Parameters
    ----------
    inputs : TissueInputs
        Of all supervoxels.
    background : (n,) bool array
        Supervoxels that stay in region 0; their part of the tree is by contact.
    division : TissueDivision or None
        That of the others; None of fewer than two.
    """

    inputs: TissueInputs
    background: NDArray[np.bool_]
    division: TissueDivision | None

    @classmethod
    def of(cls, inputs: TissueInputs, background: NDArray[np.bool_]) -> SmoothTissues:
        """Divide supervoxels into tissues; see `divide_tissues`."""
        members = np.flatnonzero(~background)
        division = divide_tissues(inputs.of(members)) if len(members) > 1 else None
        return cls(inputs, background, division)

    def classes(self) -> NDArray[np.int64]:
        """Return the tissue of each supervoxel in the cut of the tree at all tissues.

        0 is the background; the numbers are not those of the cut.
        """
        table = (~self.background).astype(np.int64)
        if self.division is not None:
            found = self.division.coarse
            if len(found.origin) + 1 < CONSTANTS.tissues:
                found = self.division.finer(_TISSUE_GROUPS)
            table[~self.background] += found.cut(CONSTANTS.tissues)
        return table

    def tree(self) -> Hierarchy:
        """Return the tree, which goes on below the tissues by similarity."""
        background, division = self.background, self.division

        def merge(
            members: NDArray[np.integer],
        ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            own = self.inputs.of(members)
            if division is None or background[members[0]]:
                return _ward_in_parts(
                    own.vectors, own.sizes, own.edges.astype(np.int64)
                )
            return _by_division(own.vectors, division.finer(_TISSUE_GROUPS))

        return _two_trees(background, self.inputs.sizes, merge)


def _two_trees(
    background: NDArray[np.bool_],
    sizes: NDArray[np.integer],
    merge: Callable[
        [NDArray[np.integer]], tuple[NDArray[np.int64], NDArray[np.float64]]
    ],
) -> Hierarchy:
    fore, back = np.flatnonzero(~background), np.flatnonzero(background)
    nothing = (np.empty((0, 2), np.int64), np.empty(0))
    fore_merges, fore_heights = merge(fore) if len(fore) > 1 else nothing
    back_merges, back_heights = merge(back) if len(back) > 1 else nothing
    return hierarchy_from_merges(
        fore, fore_merges, fore_heights, back, back_merges, back_heights, sizes
    )


def _inner_edges(
    edges: NDArray[np.integer], members: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Keep the edges between members, in the members' own numbering."""
    number = np.full(
        1 + max(int(edges.max(initial=0)), int(members.max())), -1, np.int64
    )
    number[members] = np.arange(len(members))
    renamed = number[edges]
    return renamed[(renamed >= 0).all(axis=1)]


def _bridge_specks(
    edges: NDArray[np.int64],
    sizes: NDArray[np.integer],
    centers_mm: NDArray[np.floating],
) -> NDArray[np.int64]:
    """Add an edge from every small isolated part to the nearest large one's supervoxel."""
    part = _parts(edges, len(sizes))
    weight = np.bincount(part, weights=sizes)
    large = (weight >= _SPECK_SHARE * weight.sum()) | (weight == weight.max())
    if large.all():
        return edges
    anchors, specks = np.flatnonzero(large[part]), np.flatnonzero(~large[part])
    distance, nearest = cKDTree(centers_mm[anchors]).query(centers_mm[specks])
    order = np.lexsort((distance, part[specks]))
    pick = order[np.unique(part[specks][order], return_index=True)[1]]
    return np.concatenate(
        [edges, np.stack([specks[pick], anchors[nearest[pick]]], axis=1)]
    )


def _parts(edges: NDArray[np.int64], n: int) -> NDArray[np.int32]:
    """Return the connected part of each of n nodes."""
    links = sparse.coo_matrix(
        (np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n)
    )
    found: NDArray[np.int32] = sparse.csgraph.connected_components(
        links, directed=False
    )[1]
    return found


def _ward_in_parts(
    vectors: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.int64],
    classes: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Run Ward's criterion over each connected part, then join parts, the largest first."""
    n, part = len(vectors), _parts(edges, len(vectors))
    weight = np.bincount(part, weights=sizes)
    merges, heights, tops, made = [np.empty((0, 2), np.int64)], [np.empty(0)], [], n
    for number in np.argsort(-weight, kind="stable"):
        members = np.flatnonzero(part == number) if len(weight) > 1 else np.arange(n)
        tops.append(int(members[0]))
        if len(members) > 1:
            own, up = _ward_on_graph(
                vectors[members],
                sizes[members],
                _inner_edges(edges, members),
                None if classes is None else classes[members],
            )
            merges.append(
                np.where(
                    own < len(members),
                    members[np.minimum(own, len(members) - 1)],
                    own - len(members) + made,
                )
            )
            heights.append(up)
            made += len(own)
            tops[-1] = made - 1
    rows, level = np.concatenate(merges), np.concatenate(heights)
    order = np.argsort(level, kind="stable")
    number_of = np.arange(n + len(rows))
    number_of[n + order] = n + np.arange(len(rows))
    rows, level, tops_now = (
        number_of[rows[order]],
        level[order],
        number_of[np.array(tops)],
    )
    last = n + len(rows) + np.arange(len(tops) - 1)
    joins = np.stack(
        [np.concatenate([tops_now[:1], last[:-1]])[: len(tops) - 1], tops_now[1:]],
        axis=1,
    )
    return np.concatenate([rows, joins]), np.concatenate(
        [level, np.full(len(joins), level.max(initial=0.0))]
    )


def _ward_on_graph(
    vectors: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.int64],
    classes: NDArray[np.integer] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Run Ward's criterion over a connected graph.

    While there are many supervoxels, pairs are merged at once, pairs of equal classes
    first; then one at a time.
    """
    supervoxels = SupervoxelGraph(
        sizes.astype(np.float32),
        np.ascontiguousarray(vectors, np.float32),
        edges.astype(np.int32),
    )
    paired = merge_in_pairs(supervoxels, _ONE_BY_ONE, classes)
    left = paired.graph
    parents, altitudes = ward_tree(
        left.vectors.astype(np.float64),
        left.sizes.astype(np.float64),
        left.edges.astype(np.int64),
    )
    return _on_top(paired, *_merges_of(parents, altitudes, len(left.sizes)))


def _on_top(
    paired: Forest, rows: NDArray[np.int64], altitudes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Append the single merges to those in pairs, all in order of height."""
    kept, n = len(paired.tops), len(paired.tops) + len(paired.rows)
    inner = np.maximum(paired.tops - n, -1)
    below = np.concatenate([np.append(paired.heights, 0.0)[inner], altitudes])
    for node, (one, other) in enumerate(rows.tolist(), start=kept):
        below[node] = max(below[node], below[one], below[other], paired.floor)
    upper = np.where(
        rows < kept,
        paired.tops[np.minimum(rows, kept - 1)],
        rows - kept + n + len(paired.rows),
    )
    merges, heights = (
        np.concatenate([paired.rows, upper]),
        np.concatenate([paired.heights, below[kept:]]),
    )
    order = np.argsort(heights, kind="stable")
    number = np.arange(n + len(merges))
    number[n + order] = n + np.arange(len(order))
    return number[merges[order]], heights[order]


def _merges_of(
    parents: NDArray[np.int64], altitudes: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Turn the parents of a tree into rows of two children, in order of height."""
    inner = np.arange(n, len(parents))
    order = np.argsort(altitudes[inner], kind="stable")
    number = np.arange(len(parents))
    number[inner[order]] = np.arange(n, len(parents))
    children = np.argsort(number[parents[:-1]], kind="stable")
    return number[children].reshape(-1, 2), altitudes[inner][order]


def _by_division(
    vectors: NDArray[np.float32], found: Division
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the merges that undo a division, by similarity inside each group."""
    rows, tops = _pair_up(found.group, vectors @ (vectors.std(axis=0) ** 2))
    n, top, upper = len(vectors) + len(rows), list(tops), []
    for number in range(len(found.origin) - 1, -1, -1):
        first = int(found.origin[number])
        upper.append((top[first], top[number + 1]))
        top[first] = n + len(upper) - 1
    heights = np.maximum.accumulate(found.gain[::-1])
    low = np.linspace(0.0, 1e-3, len(rows)) * (heights[0] if len(heights) else 1.0)
    return np.concatenate(
        [rows, np.array(upper, np.int64).reshape(-1, 2)]
    ), np.concatenate([low, heights])


def _pair_up(
    code: NDArray[np.integer], value: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Merge the members of each code, neighbours in `value` first.

    Returns
    -------
    (m, 2) int64 array
        Merges: rows of two children.
    (k,) int64 array
        Top node of each code.
    """
    nodes = np.lexsort((value, code)).astype(np.int64)
    group = code[nodes]
    merges, n = [np.empty((0, 2), np.int64)], len(code)
    while (group[1:] == group[:-1]).any():
        start = np.append(0, np.flatnonzero(group[1:] != group[:-1]) + 1)
        rank = np.arange(len(nodes)) - np.repeat(
            start, np.diff(np.append(start, len(nodes)))
        )
        left = np.flatnonzero((rank[:-1] % 2 == 0) & (group[1:] == group[:-1]))
        merges.append(np.stack([nodes[left], nodes[left + 1]], axis=1))
        nodes[left] = n + np.arange(len(left))
        n += len(left)
        nodes, group = np.delete(nodes, left + 1), np.delete(group, left + 1)
    return np.concatenate(merges), nodes
