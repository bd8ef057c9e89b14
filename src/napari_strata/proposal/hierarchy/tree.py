"""Merge tree over supervoxels that is cut in well under a millisecond.

The leaves are stored in an order in which every tree node is a contiguous run. A cut at
n then splits the row at its n - 1 highest breaks, so cuts are nested and exact by
construction. The row begins with the background, which stays region 0 in every cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_HEIGHT = 1e-6
"""Floor of heights, as a share of the highest, so that ratios are always finite."""
_LEAST_MARK = 0.2
"""Least persistence of a mark, as a share of the most persistent one."""
_MARKS_APART = 1.6
"""Least ratio of two marks, so that marks differ visibly."""


@dataclass(frozen=True, slots=True)
class Join:
    """One merge on a node's path to the root.

    Parameters
    ----------
    n : int
        Finest cut in which the two nodes are one region.
    region : int
        Id of that region in the cut.
    joined : int
        Id of the other node in the cut at n + 1.
    begin, end : int
        Leaves of the other node: `leaf_order[begin:end]`.
    height : float
        Merge height.
    """

    n: int
    region: int
    joined: int
    begin: int
    end: int
    height: float


@dataclass(frozen=True, slots=True)
class Lineage:
    """Smallest node that contains some leaves, and its merges in coarser cuts.

    Parameters
    ----------
    region : int
        Id of the node in every cut in which it is a region of its own.
    begin, end : int
        Its leaves: `leaf_order[begin:end]`.
    whole_at : int
        Finest cut that does not split it. It is a region of its own in the cuts from
        `whole_at` down to `joins[0].n + 1`.
    joins : tuple of Join
        Merges on its path to the root, the finest first.
    """

    region: int
    begin: int
    end: int
    whole_at: int
    joins: tuple[Join, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Hierarchy:
    """Merge tree over n supervoxels, with a separate tree for the background.

    Parameters
    ----------
    leaf_order : (n,) int32 array
        Supervoxel ids in row order, background first.
    n_background : int
        How many of them are background.
    breaks : (m - 1,) int32 array
        Positions at which the row of the m foreground leaves is split, highest first:
        position p separates row[p - 1] from row[p].
    heights : (m - 1,) float32 array
        Merge height of each break, not increasing.
    background_breaks, background_heights : arrays
        The same for the background's leaves.
    """

    leaf_order: NDArray[np.int32]
    n_background: int
    breaks: NDArray[np.int32]
    heights: NDArray[np.float32]
    background_breaks: NDArray[np.int32]
    background_heights: NDArray[np.float32]

    @property
    def n_supervoxels(self) -> int:
        """Number of leaves, background included."""
        return len(self.leaf_order)

    @property
    def max_regions(self) -> int:
        """The finest cut: the number of foreground leaves."""
        return len(self.leaf_order) - self.n_background

    def cut(self, n: int) -> NDArray[np.int32]:
        """Cut the tree into n regions besides region 0.

        The cut at n + 1 splits one region of the cut at n. The larger part keeps the id
        and the other gets id n + 1, so ids and colours stay in place while a person moves
        the slider.

        Parameters
        ----------
        n : int
            Number of regions; clipped to [0, max_regions].

        Returns
        -------
        (n_supervoxels,) int32 array
            Region id 1..n of each supervoxel, 0 for background.
        """
        n = int(np.clip(n, 0, self.max_regions))
        in_row = np.zeros(self.n_supervoxels, np.int32)
        if n > 0:
            starts = np.concatenate(
                [np.array([self.n_background], np.int32), self.breaks[: n - 1]]
            )
            ids = np.arange(1, n + 1, dtype=np.int32)
            order = np.argsort(starts, kind="stable")
            lengths = np.diff(np.append(starts[order], self.n_supervoxels))
            in_row[self.n_background :] = np.repeat(ids[order], lengths)
        labels = np.empty_like(in_row)
        labels[self.leaf_order] = in_row
        return labels

    def marks(self, low: int, high: int, *, count: int = 4) -> tuple[int, ...]:
        """Suggest cuts at which the tree is stable: the most persistent one per range.

        The persistence of a cut at n is the log ratio of two heights: that of the next
        merge towards coarser cuts over that of the next split towards finer ones. Such
        log ratios shrink as 1 / n in any tree, so they are multiplied by the square root
        of n; marks are then drawn neither to the coarse nor to the fine end of a range.

        Parameters
        ----------
        low, high : int
            Coarsest and finest cut that may be suggested; fewer leaves lower the
            finest.
        count : int
            Number of ranges, equally wide on a log scale, each with at most one mark.

        Returns
        -------
        tuple of int
            Cuts, coarse to fine, well separated. Ranges without a persistent cut have
            none; nor has a tree of equal heights or of very few leaves.
        """
        low, high = max(low, 2), min(high, self.max_regions - 1)
        top = float(self.heights[np.isfinite(self.heights)].max(initial=0.0))
        if high < low or top <= 0.0:
            return ()
        n = np.arange(low, high + 1)
        heights = np.clip(
            self.heights[: high + 1].astype(np.float64), _LEAST_HEIGHT * top, top
        )
        stands = np.log(heights[n - 2] / heights[n - 1]) * np.sqrt(n)
        least = max(_LEAST_MARK * float(stands.max()), 1e-9)
        span = np.searchsorted(
            np.geomspace(low, high + 1, count + 1)[1:-1], n, side="right"
        )
        chosen: dict[int, int] = {}
        for i in np.argsort(-stands, kind="stable").tolist():
            apart = all(
                max(n[i], mark) >= _MARKS_APART * min(n[i], mark)
                for mark in chosen.values()
            )
            if stands[i] >= least and apart:
                chosen.setdefault(int(span[i]), int(n[i]))
        return tuple(sorted(chosen.values()))

    def lineage(self, members: NDArray[np.integer]) -> Lineage | None:
        """Find the smallest node that contains some supervoxels, and its path to the root.

        Parameters
        ----------
        members : (k,) integer array
            Supervoxel ids; background ones are ignored.

        Returns
        -------
        Lineage or None
            None if all of them are background, which every cut leaves in region 0.
        """
        position = np.empty(self.n_supervoxels, np.int64)
        position[self.leaf_order] = np.arange(self.n_supervoxels)
        places = position[members]
        places = places[places >= self.n_background]
        if not len(places):
            return None
        # the break at each place of the row, 0 the highest; walls at both ends of the
        # foreground
        rank = np.full(self.n_supervoxels + 1, -1, np.int64)
        rank[self.breaks] = np.arange(len(self.breaks))
        first, last = int(places.min()), int(places.max())
        level = (
            int(rank[first + 1 : last + 1].min()) if last > first else len(self.breaks)
        )
        begin, end = self._run(rank, first, level)
        node = begin, end
        joins = []
        while (level := int(max(rank[begin], rank[end]))) >= 0:
            wider = self._run(rank, begin, level)
            other = (end, wider[1]) if rank[end] == level else (wider[0], begin)
            joins.append(
                Join(
                    level + 1,
                    int(rank[wider[0]]) + 2,
                    int(rank[other[0]]) + 2,
                    *other,
                    float(self.heights[level]),
                )
            )
            begin, end = wider
        whole_at = int(rank[node[0] + 1 : node[1]].min(initial=len(self.breaks))) + 1
        return Lineage(int(rank[node[0]]) + 2, *node, whole_at, tuple(joins))

    def _run(self, rank: NDArray[np.int64], place: int, level: int) -> tuple[int, int]:
        """Return begin and end of the run around a place if only breaks above `level` split."""
        begin = self.n_background + int(
            np.flatnonzero(rank[self.n_background : place + 1] < level)[-1]
        )
        return begin, place + 1 + int(np.flatnonzero(rank[place + 1 :] < level)[0])

    def joined_at(self, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the finest cut in which both supervoxels of each pair are one region.

        It is the range minimum of the breaks' ranks between the two places in the row,
        from a sparse table (Bender and Farach-Colton, 2000).

        Parameters
        ----------
        pairs : (k, 2) integer array
            Supervoxel ids.

        Returns
        -------
        (k,) int64 array
            1 .. max_regions; 0 for a pair of foreground and background, and
            `max_regions` for two of the background, which no cut separates.
        """
        position = np.empty(self.n_supervoxels, np.int64)
        position[self.leaf_order] = np.arange(self.n_supervoxels)
        rank = np.full(self.n_supervoxels + 1, self.max_regions, np.int64)
        rank[self.breaks] = np.arange(1, len(self.breaks) + 1)
        rank[self.n_background] = 0
        places = np.sort(position[pairs], axis=1)
        first, last = places[:, 0] + 1, places[:, 1]
        found = np.full(len(pairs), self.max_regions, np.int64)
        apart = last >= first
        level = np.zeros(len(pairs), np.int64)
        level[apart] = np.log2(last[apart] - first[apart] + 1).astype(np.int64)
        least, width = rank, 1
        for step in range(int(level.max(initial=0)) + 1):
            at = np.flatnonzero(apart & (level == step))
            found[at] = np.minimum(least[first[at]], least[last[at] - width + 1])
            least, width = np.minimum(least[:-width], least[width:]), 2 * width
        return found

    def split(self, members: NDArray[np.integer], into: int = 2) -> NDArray[np.int32]:
        """Split any set of supervoxels along the highest merges inside it.

        Parameters
        ----------
        members : (k,) integer array
            Supervoxel ids, from background or foreground.
        into : int
            Number of parts; fewer only if there are fewer members.

        Returns
        -------
        (k,) int32 array
            Part of each member, 0 .. parts - 1, the largest part first.
        """
        position = np.empty(self.n_supervoxels, np.int64)
        position[self.leaf_order] = np.arange(self.n_supervoxels)
        row = np.sort(position[members])
        candidates = self._all_breaks()
        gap = np.searchsorted(row, candidates)
        usable = (gap > 0) & (gap < len(row))
        _, first = np.unique(gap[usable], return_index=True)
        chosen = np.sort(first)[: max(into, 1) - 1]
        bounds = np.sort(gap[usable][chosen])
        part = np.searchsorted(
            bounds, np.searchsorted(row, position[members]), side="right"
        )
        sizes = np.bincount(part, minlength=len(bounds) + 1)
        rank = np.empty(len(sizes), np.int32)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        return rank[part]

    def _all_breaks(self) -> NDArray[np.int64]:
        """Return the break between background and body, then all others, highest first."""
        positions = np.concatenate(
            [[self.n_background], self.breaks, self.background_breaks]
        ).astype(np.int64)
        heights = np.concatenate(
            [[np.inf], self.heights, self.background_heights]
        ).astype(np.float32)
        return positions[np.argsort(-heights, kind="stable")]


def hierarchy_from_merges(
    foreground: NDArray[np.integer],
    merges: NDArray[np.integer],
    heights: NDArray[np.floating],
    background: NDArray[np.integer],
    background_merges: NDArray[np.integer],
    background_heights: NDArray[np.floating],
    sizes: NDArray[np.integer],
) -> Hierarchy:
    """Make a hierarchy from binary merges in the layout of scipy and higra.

    Parameters
    ----------
    foreground, background : (m,), (b,) integer arrays
        Supervoxel ids of the leaves 0 .. m - 1 (0 .. b - 1) of the merges.
    merges, background_merges : (m - 1, 2), (b - 1, 2) integer arrays
        Row i joins two nodes into node m + i; children come before parents.
    heights, background_heights : arrays
        Height of each merge, not decreasing.
    sizes : (n,) integer array
        Voxels of each supervoxel. At each merge the larger child keeps the id.
    """
    fore_order, fore_breaks, fore_heights = _row(merges, heights, sizes[foreground])
    back_order, back_breaks, back_heights = _row(
        background_merges, background_heights, sizes[background]
    )
    return Hierarchy(
        leaf_order=np.concatenate(
            [background[back_order], foreground[fore_order]]
        ).astype(np.int32),
        n_background=len(background),
        breaks=(fore_breaks + len(background)).astype(np.int32),
        heights=fore_heights.astype(np.float32),
        background_breaks=back_breaks.astype(np.int32),
        background_heights=back_heights.astype(np.float32),
    )


def _row(
    merges: NDArray[np.integer],
    heights: NDArray[np.floating],
    leaf_sizes: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """Order leaves in a row, the larger child left.

    Returns
    -------
    (m,) array
        The row of leaves.
    (m - 1,) array
        Its breaks, the highest first.
    (m - 1,) array
        Heights of the breaks.
    """
    m = len(leaf_sizes)
    left, right = np.asarray(merges).reshape(-1, 2).T.tolist() if m > 1 else ([], [])
    count, weight = [1] * m, np.asarray(leaf_sizes).tolist()
    for i in range(len(left)):
        if weight[left[i]] < weight[right[i]]:
            left[i], right[i] = right[i], left[i]
        count.append(count[left[i]] + count[right[i]])
        weight.append(weight[left[i]] + weight[right[i]])
    start = [0] * (m + len(left))
    breaks = np.zeros(len(left), np.int64)
    for i in range(len(left) - 1, -1, -1):
        begin = start[m + i]
        start[left[i]] = begin
        start[right[i]] = breaks[i] = begin + count[left[i]]
    row = np.empty(m, np.int64)
    row[np.asarray(start[:m], dtype=np.int64)] = np.arange(m)
    return row, breaks[::-1], np.asarray(heights)[::-1]
