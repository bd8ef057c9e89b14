"""Divisive clustering: split the group with the largest gain until there are enough.

In bottom-up merging (Ward), the coarsest groups depend on accidents of the first merges.
Here the first splits depend on all vectors together, so a scan with added noise, or
flipped, is split in the same places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

from napari_strata.parallel import each_if

_TOO_CLOSE = 1e-9
"""Gain, as a share of the first split's, at or below which groups are not split."""

WORTH_THREADS = 4000
"""Members from which the two parts of a group are examined in two threads."""


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """Groups, and the order in which they were split.

    Parameters
    ----------
    group : (n,) int64 array
        0 .. g - 1, every one in use.
    origin : (g - 1,) int64 array
        Cut k, counted from 0, made group k + 1 out of group `origin[k]`.
    gain : (g - 1,) float64 array
        How much each cut lowered the sum of squared distances to the groups' means.
    """

    group: NDArray[np.int64]
    origin: NDArray[np.int64]
    gain: NDArray[np.float64]

    def cut(self, groups: int) -> NDArray[np.int64]:
        """Return the groups after the first cuts, 0 .. groups - 1, (n,) int64."""
        made = len(self.origin) + 1
        ancestor = np.arange(made)
        for number in range(min(groups, made), made):
            ancestor[number] = ancestor[self.origin[number - 1]]
        return ancestor[self.group]


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Best cut of a group: its members on the far side, and the gain."""

    far: NDArray[np.bool_]
    gain: float


def divide(
    vectors: NDArray[np.floating], weights: NDArray[np.integer], groups: int
) -> Division:
    """Divide vectors into groups.

    Each step splits the group with the largest gain, across its direction of largest
    variance.

    Parameters
    ----------
    vectors : (n, d) float array
        At least one vector.
    weights : (n,) array
        Weight of each vector, > 0.
    groups : int
        Maximum number of groups; fewer if all vectors within each group are equal.

    Raises
    ------
    ValueError
        If a vector is not finite.

    Notes
    -----
    Principal direction divisive partitioning (Boley, 1998), with the cut along the
    direction where two groups fit best (Su and Dy, 2007).
    """
    if not np.isfinite(vectors).all():
        raise ValueError(
            "Supervoxels cannot be compared: a feature is NaN or infinite."
        )
    # one thread: sums do not depend on the cores, and small matrices are not slowed
    with threadpool_limits(1, user_api="blas"):
        return _divided(
            np.asarray(vectors, np.float32), np.asarray(weights, np.float64), groups
        )


def _divided(
    points: NDArray[np.float32], weight: NDArray[np.float64], groups: int
) -> Division:
    members = [np.arange(len(points))]
    whole = _best_cut(points, weight)
    cuts, least = [whole], _TOO_CLOSE * whole.gain
    origin, gain = [], []
    while len(members) < groups:
        chosen = int(np.argmax([cut.gain for cut in cuts]))
        cut = cuts[chosen]
        if cut.gain <= least:
            break
        origin.append(chosen)
        gain.append(cut.gain)
        old = members[chosen]
        members[chosen] = old[~cut.far]
        members.append(old[cut.far])
        cuts.append(cut)
        changed = (chosen, len(members) - 1)
        found = each_if(
            len(old) >= WORTH_THREADS,
            lambda own: _best_cut(points[own], weight[own]),
            [members[k] for k in changed],
        )
        for number, new in zip(changed, found, strict=True):
            cuts[number] = new
    group = np.empty(len(points), np.int64)
    for number, own in enumerate(members):
        group[own] = number
    return Division(group, np.array(origin, np.int64), np.array(gain, np.float64))


def _principal_axis(spread: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the eigenvector of the largest eigenvalue; its largest component is positive."""
    last = len(spread) - 1
    axis = linalg.eigh(
        spread.astype(np.float64),
        subset_by_index=[last, last],
        driver="evr",
        check_finite=False,
    )[1][:, 0]
    return np.asarray(axis * np.sign(axis[np.abs(axis).argmax()]), np.float32)


def _best_cut(points: NDArray[np.float32], weight: NDArray[np.float64]) -> _Cut:
    """Find the best cut of a group across its first principal direction."""
    nowhere = _Cut(np.zeros(len(points), bool), 0.0)
    if len(points) < 2:
        return nowhere
    total = weight.sum()
    centered = points - (weight @ points / total).astype(np.float32)
    spread = (centered * weight[:, None].astype(np.float32)).T @ centered
    along = (centered @ _principal_axis(spread)).astype(np.float64)
    order = np.argsort(along, kind="stable")
    heavy, moment = np.cumsum(weight[order])[:-1], np.cumsum((weight * along)[order])
    between = moment[:-1] ** 2 / heavy + (moment[-1] - moment[:-1]) ** 2 / (
        total - heavy
    )
    between[np.diff(along[order]) <= 0] = 0.0
    place = int(between.argmax())
    far = along > along[order[place]]
    if between[place] <= 0 or not far.any():
        return nowhere
    one, other = weight[far].sum(), weight[~far].sum()
    step = weight[far] @ centered[far] / one - weight[~far] @ centered[~far] / other
    return _Cut(far, float(one * other / total * (step @ step)))
