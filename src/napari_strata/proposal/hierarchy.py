"""A merge tree over supervoxels that is cut in well under a millisecond.

The leaves are laid in a row in which every tree node is a run of neighbours. A cut at n is then the n - 1 highest
places at which the row is broken, so cuts are nested and exact by construction. The first part of the row is
background, which stays region 0 in every cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        Where the row of the m foreground leaves is broken, highest first: position p parts row[p - 1] from row[p].
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

        Going from n to n + 1 parts one region: its larger part keeps the id and the other gets id n + 1, so an id
        keeps its place and colour while a person moves the slider.

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
            starts = np.concatenate([np.array([self.n_background], np.int32), self.breaks[: n - 1]])
            ids = np.arange(1, n + 1, dtype=np.int32)
            order = np.argsort(starts, kind="stable")
            lengths = np.diff(np.append(starts[order], self.n_supervoxels))
            in_row[self.n_background :] = np.repeat(ids[order], lengths)
        labels = np.empty_like(in_row)
        labels[self.leaf_order] = in_row
        return labels

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
        part = np.searchsorted(bounds, np.searchsorted(row, position[members]), side="right")
        sizes = np.bincount(part, minlength=len(bounds) + 1)
        rank = np.empty(len(sizes), np.int32)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        return rank[part]

    def _all_breaks(self) -> NDArray[np.int64]:
        """Give the break between background and body, then all others, highest first."""
        positions = np.concatenate([[self.n_background], self.breaks, self.background_breaks]).astype(np.int64)
        heights = np.concatenate([[np.inf], self.heights, self.background_heights]).astype(np.float32)
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
    back_order, back_breaks, back_heights = _row(background_merges, background_heights, sizes[background])
    return Hierarchy(
        leaf_order=np.concatenate([background[back_order], foreground[fore_order]]).astype(np.int32),
        n_background=len(background),
        breaks=(fore_breaks + len(background)).astype(np.int32),
        heights=fore_heights.astype(np.float32),
        background_breaks=back_breaks.astype(np.int32),
        background_heights=back_heights.astype(np.float32),
    )


def _row(
    merges: NDArray[np.integer], heights: NDArray[np.floating], leaf_sizes: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]:
    """Lay leaves in a row, larger child left; give the row, the breaks highest first and their heights."""
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
