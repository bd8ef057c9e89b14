"""A merge tree over supervoxels that is cut in well under a millisecond.

The leaves are laid in a row in which every tree node is a run of neighbours. A cut at n
is then the n - 1 highest places at which the row is broken, so cuts are nested and
exact by construction. The first part of the row is background, which stays region 0 in
every cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_HEIGHT = 1e-6
"""Heights below this share of the highest count as this much.

So that a ratio of heights is always finite.
"""
_LEAST_MARK = 0.2
"""A range of granularity gets no mark where nothing in it stands out by this share.

Of the best mark.
"""
_MARKS_APART = 1.6
"""Least ratio of two marks."""


@dataclass(frozen=True, slots=True)
class Join:
    """One merge on a node's way up.

    Parameters
    ----------
    n : int
        The finest cut in which the two are one.
    region : int
        Their id in that cut.
    joined : int
        The id, in the cut at n + 1, of what the node joins with.
    begin, end : int
        Where the leaves of what it joins with lie in the row: `leaf_order[begin:end]`.
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
    """The smallest node that holds some leaves, and what becomes of it in coarser cuts.

    Parameters
    ----------
    region : int
        The node's id in every cut in which it stands alone.
    begin, end : int
        Its leaves: `leaf_order[begin:end]`.
    whole_at : int
        The finest cut that does not part it; from `whole_at` down to one past the first
        join's cut it stands alone.
    joins : tuple of Join
        The merges that swallow it, the finest first.
    """

    region: int
    begin: int
    end: int
    whole_at: int
    joins: tuple[Join, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Hierarchy:
    """A merge tree over n supervoxels, the background kept apart.

    Parameters
    ----------
    leaf_order : (n,) int32 array
        Supervoxel ids in row order, background first.
    n_background : int
        How many of them are background.
    breaks : (m - 1,) int32 array
        Where the row of the m foreground leaves is broken, highest first: position p
        parts row[p - 1] from row[p].
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

        Going from n to n + 1 parts one region: its larger part keeps the id and the
        other gets id n + 1, so an id keeps its place and colour while a person moves
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
        """Suggest cuts at which the tree is stable.

        The most persistent one in each range of granularity.

        A cut at n persists from the height of the merge that would part it to the
        height of the one that made it. The longer that is, as a ratio, the clearer the
        cut; ratios shrink as 1 / n in any tree, so they count times the root of n,
        which draws a mark neither to the coarse nor to the fine end of its range.

        Parameters
        ----------
        low, high : int
            Coarsest and finest cut that may be suggested; fewer leaves lower the
            finest.
        count : int
            Ranges, equally wide on a log scale, each with one mark at most.

        Returns
        -------
        tuple of int
            Cuts, coarse to fine, well apart; fewer than `count` where a range holds
            nothing that stands out, none for a tree without structure (equal heights)
            or with hardly any leaves.
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
        """Find the smallest node that holds some supervoxels.

        The merges that swallow it on the way to the root.

        Parameters
        ----------
        members : (k,) integer array
            Supervoxel ids; background ones are passed over.

        Returns
        -------
        Lineage or None
            None where all of them are background, which no cut moves.
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
        """Return begin and end of the run around a place.

        Of the row when only breaks above `level` part it.
        """
        begin = self.n_background + int(
            np.flatnonzero(rank[self.n_background : place + 1] < level)[-1]
        )
        return begin, place + 1 + int(np.flatnonzero(rank[place + 1 :] < level)[0])

    def split(self, members: NDArray[np.integer], into: int = 2) -> NDArray[np.int32]:
        """Part any set of supervoxels along the highest merges inside it.

        Parameters
        ----------
        members : (k,) integer array
            Supervoxel ids, from background or foreground.
        into : int
            Number of parts wanted; fewer only when there are fewer members.

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
    """Make a Hierarchy from binary merges as scipy and higra give them.

    Parameters
    ----------
    foreground, background : (m,), (b,) integer arrays
        Supervoxel ids of the leaves 0 .. m - 1 (0 .. b - 1) that the merges speak of.
    merges, background_merges : (m - 1, 2), (b - 1, 2) integer arrays
        Row i joins two nodes into node m + i; children come before parents.
    heights, background_heights : arrays
        Height of each merge, not decreasing.
    sizes : (n,) integer array
        Voxels of each supervoxel: at each merge the larger child keeps the id.
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
    """Lay leaves in a row, larger child left.

    Give the row, the breaks highest first and their heights.
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
