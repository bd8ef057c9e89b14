"""Divide supervoxels into tissues that are classes with few and real borders.

Every division is a two-class Markov random field over touching supervoxels, and the
order of divisions weighs what each one explains against the border it adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from napari_strata.parallel import each, each_if
from napari_strata.proposal.hierarchy.divisive_clustering import (
    WORTH_THREADS,
    Division,
    divide,
)


@dataclass(frozen=True, slots=True)
class TissueConstants:
    """Constants of the division; docs/measured.md says what they were measured on.

    Parameters
    ----------
    tissues : int
        Tissues that are divided with few borders; finer ones are divided by similarity.
    components : int
        Principal components of the vectors that are compared; later ones are noise.
    directions : int
        Principal directions of a group along which a cut is tried.
    smoothness : float
        Cost of a voxel face between the two sides of a cut, as a share of the squared
        distance of their means.
    rounds : int
        Rounds in which the sides of a cut are settled, at most.
    settled_share : float
        Share of supervoxels below which a round changes nothing worth another round.
    border_offset : float
        Faces, as a share of all faces, that a cut costs besides its border: keeps dust
        from being divided first.
    border_power : float
        Power of the border that the gain of a cut is divided by.
    intensity_border_power : float
        The same where intensity alone tells tissues apart, for the first
        `intensity_tissues`: there thresholds have to be found, which costs border.
    intensity_tissues : int
        Tissues that are divided by `intensity_border_power`.
    least_share : float
        Least share of the body in a tissue that is divided off.
    impure_weight : float
        Weight of a supervoxel that is all partial volume.
    """

    tissues: int = 64
    components: int = 16
    directions: int = 3
    smoothness: float = 0.2
    rounds: int = 6
    settled_share: float = 2e-3
    border_offset: float = 3e-3
    border_power: float = 1.3
    intensity_border_power: float = 0.5
    intensity_tissues: int = 8
    least_share: float = 5e-4
    impure_weight: float = 1e-3


CONSTANTS = TissueConstants()


@dataclass(frozen=True, slots=True, eq=False)
class TissueInputs:
    """What tissues are divided by.

    Parameters
    ----------
    vectors : (n, d) float32 array
        What makes supervoxels alike.
    sizes : (n,) integer array
        Voxels.
    purity : (n,) float array
        In [0, 1], from `supervoxel_purity`.
    edges : (e, 2) integer array
        Touching pairs.
    faces : (e,) integer array
        Voxel faces that each pair shares.
    by_intensity : bool
        Whether intensity alone tells the tissues apart.
    """

    vectors: NDArray[np.float32]
    sizes: NDArray[np.integer]
    purity: NDArray[np.floating]
    edges: NDArray[np.integer]
    faces: NDArray[np.integer]
    by_intensity: bool = False

    def of(self, members: NDArray[np.integer]) -> TissueInputs:
        """Return the same of some supervoxels, in their own numbering."""
        number = np.full(len(self.sizes), -1, np.int64)
        number[members] = np.arange(len(members))
        renamed = number[self.edges]
        inner = (renamed >= 0).all(axis=1)
        return TissueInputs(
            self.vectors[members],
            self.sizes[members],
            self.purity[members],
            renamed[inner],
            self.faces[inner],
            self.by_intensity,
        )


def supervoxel_purity(
    intensity: NDArray[np.floating],
    edges: NDArray[np.integer],
    faces: NDArray[np.integer],
    body: NDArray[np.bool_],
    noise: float,
) -> NDArray[np.float64]:
    """Return how little a supervoxel looks like a mixture of two neighbours.

    exp(-(p / noise)^2), where p is the smaller of its mean steps of intensity up and
    down to the supervoxels it touches, weighted by faces. A supervoxel brighter or
    darker than all around it counts in full, so thin sheets and vessels do too.

    Parameters
    ----------
    intensity : (n,) array
        Mean intensity of each supervoxel.
    edges, faces : (e, 2), (e,) integer arrays
        Touching pairs, and the voxel faces they share.
    body : (n,) bool array
        Supervoxels of the body; steps to others are no sign of a mixture.
    noise : float
        Usual spread of intensity inside a supervoxel.
    """
    n, inner = len(intensity), body[edges].all(axis=1)
    (first, second), shared = edges[inner].T, faces[inner].astype(np.float64)
    step = (intensity[second] - intensity[first]).astype(np.float64)
    touched = _sum_at(n, first, shared) + _sum_at(n, second, shared)
    rise, fall = shared * np.maximum(step, 0), shared * np.maximum(-step, 0)
    up = _sum_at(n, first, rise) + _sum_at(n, second, fall)
    down = _sum_at(n, first, fall) + _sum_at(n, second, rise)
    between = np.minimum(up, down) / np.maximum(touched, 1)
    return np.exp(-((between / max(noise, 1e-6)) ** 2))


def _sum_at(
    n: int, place: NDArray[np.integer], values: NDArray[np.floating]
) -> NDArray[np.float64]:
    return np.asarray(np.bincount(place, weights=values, minlength=n), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Supervoxels of one tissue: `graph` holds the faces between them."""

    members: NDArray[np.int64]
    points: NDArray[np.float32]
    weight: NDArray[np.float32]
    sizes: NDArray[np.float32]
    graph: sparse.csr_matrix

    def part(self, chosen: NDArray[np.bool_]) -> _Group:
        """Return the group of the chosen members."""
        return _Group(
            self.members[chosen],
            self.points[chosen],
            self.weight[chosen],
            self.sizes[chosen],
            self.graph[chosen][:, chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """The sides of a cut, what it explains, and the border it adds."""

    far: NDArray[np.bool_]
    gain: float
    border: float


@dataclass(frozen=True, slots=True, eq=False)
class TissueDivision:
    """Supervoxels divided into tissues; finer groups are divided on request.

    Parameters
    ----------
    points : (n, d) float32 array
        What supervoxels are compared by.
    sizes : (n,) integer array
        Voxels.
    coarse : Division
        The tissues.
    """

    points: NDArray[np.float32]
    sizes: NDArray[np.integer]
    coarse: Division

    def finer(self, groups: int) -> Division:
        """Return the division into at most so many groups; the tissues are cut first."""
        # sums do not depend on the number of cores
        with threadpool_limits(1, user_api="blas"):
            return _divided_further(self.points, self.sizes, self.coarse, groups)


def divide_tissues(inputs: TissueInputs) -> TissueDivision:
    """Divide supervoxels into tissues with few borders.

    Mixtures of two neighbours have no say in where a group is cut, and go to the side
    that is nearer and costs less border.

    Parameters
    ----------
    inputs : TissueInputs
        At least one supervoxel.

    Notes
    -----
    The order, by what a cut explains per border, is that of a scale-set hierarchy
    (Guigues, Cocquerez and Le Men, 2006); sides are settled by iterated conditional
    modes (Besag, 1986).
    """
    # sums do not depend on the number of cores
    with threadpool_limits(1, user_api="blas"):
        whole = _whole(inputs)
        coarse = _divided(inputs, whole, CONSTANTS.tissues)
    return TissueDivision(whole.points, inputs.sizes, coarse)


def _divided_further(
    points: NDArray[np.float32],
    sizes: NDArray[np.integer],
    coarse: Division,
    groups: int,
) -> Division:
    """Divide tissues by similarity, below all the cuts that were made before."""
    made = len(coarse.origin) + 1
    members = [np.flatnonzero(coarse.group == number) for number in range(made)]
    scatter = np.array([_scatter(points[own], sizes[own]) for own in members])
    shares = scatter / max(float(scatter.sum()), 1e-12)
    fine = each(
        lambda part: divide(
            points[part[0]], sizes[part[0]], 1 + round(part[1] * (groups - made))
        ),
        zip(members, shares.tolist(), strict=True),
    )
    gains = [np.minimum.accumulate(part.gain) for part in fine]
    owner = np.repeat(np.arange(made), [len(gain) for gain in gains])
    gain = np.concatenate([np.empty(0), *gains])
    order = np.argsort(-gain, kind="stable")
    number_of = np.empty(len(gain), np.int64)
    number_of[order] = made + np.arange(len(order))
    group, origin = coarse.group.copy(), np.empty(len(gain), np.int64)
    for number, part in enumerate(fine):
        ids = np.concatenate([[number], number_of[owner == number]]).astype(np.int64)
        group[members[number]] = ids[part.group]
        origin[owner == number] = ids[part.origin]
    least = coarse.gain.min(initial=np.inf)
    return Division(
        group,
        np.concatenate([coarse.origin, origin[order]]),
        np.concatenate([coarse.gain, np.minimum(gain[order], least)]),
    )


def _scatter(vectors: NDArray[np.float32], sizes: NDArray[np.integer]) -> float:
    """Return the sum of squared distances to the mean."""
    weight = sizes.astype(np.float64)
    mean = (weight @ vectors) / weight.sum()
    return float(weight @ ((vectors - mean) ** 2).sum(axis=1))


def _divided(inputs: TissueInputs, whole: _Group, groups: int) -> Division:
    body = float(inputs.sizes.sum())
    offset = CONSTANTS.border_offset * 3.0 * body  # three faces a voxel
    parts = [whole]
    cuts = [_best_cut(parts[0], body, offset, inputs.by_intensity)]
    origin, gain = [], []
    while len(parts) < groups:
        early = inputs.by_intensity and len(parts) < CONSTANTS.intensity_tissues
        worth = [0.0 if c is None else _worth(c, offset, early) for c in cuts]
        chosen = int(np.argmax(worth))
        cut = cuts[chosen]
        if cut is None or worth[chosen] <= 0:
            break
        origin.append(chosen)
        gain.append(cut.gain)
        old = parts[chosen]
        parts[chosen] = old.part(~cut.far)
        parts.append(old.part(cut.far))
        cuts.append(None)
        changed = (chosen, len(parts) - 1)
        cut_of = partial(_best_cut, body=body, offset=offset, by_intensity=early)
        found = each_if(
            len(old.members) >= WORTH_THREADS, cut_of, [parts[k] for k in changed]
        )
        for number, new in zip(changed, found, strict=True):
            cuts[number] = new
    group = np.empty(len(inputs.sizes), np.int64)
    for number, own in enumerate(parts):
        group[own.members] = number
    return Division(group, np.array(origin, np.int64), np.array(gain, np.float64))


def _principal_points(
    vectors: NDArray[np.float32], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return vectors (n, d) in the space of their first principal components."""
    if not len(vectors):
        return vectors
    mean = (weights @ vectors) / weights.sum()
    centered = vectors - mean.astype(np.float32)
    spread = (centered * weights[:, None].astype(np.float32)).T @ centered
    axes = np.linalg.eigh(spread.astype(np.float64))[1][:, ::-1]
    points: NDArray[np.float32] = centered @ axes[:, : CONSTANTS.components].astype(
        np.float32
    )
    return points


def _whole(inputs: TissueInputs) -> _Group:
    n = len(inputs.sizes)
    weight = inputs.sizes * (inputs.purity + CONSTANTS.impure_weight)
    ends = np.concatenate([inputs.edges, inputs.edges[:, ::-1]]).T
    faces = np.concatenate([inputs.faces, inputs.faces]).astype(np.float32)
    return _Group(
        np.arange(n),
        _principal_points(inputs.vectors, weight),
        weight.astype(np.float32),
        inputs.sizes.astype(np.float32),
        sparse.coo_matrix((faces, (ends[0], ends[1])), shape=(n, n)).tocsr(),
    )


def _worth(cut: _Cut, offset: float, by_intensity: bool) -> float:
    power = CONSTANTS.intensity_border_power if by_intensity else CONSTANTS.border_power
    return float(cut.gain / max(cut.border + offset, 1.0) ** power)


def _best_cut(
    group: _Group, body: float, offset: float, by_intensity: bool
) -> _Cut | None:
    """Return the cut of a group that explains most for its border, None if there is none."""
    best: _Cut | None = None
    for side in _sides(group):
        far = _settled(group, side)
        one = float(group.sizes[far].sum())
        other = float(group.sizes[~far].sum())
        if min(one, other) <= CONSTANTS.least_share * body:
            continue
        step = _mean(group, far) - _mean(group, ~far)
        gain = one * other / (one + other) * float(step @ step)
        border = float((group.graph @ far.astype(np.float32))[~far].sum())
        cut = _Cut(far, gain, border)
        if gain > 0 and (
            best is None
            or _worth(cut, offset, by_intensity) > _worth(best, offset, by_intensity)
        ):
            best = cut
    return best


def _mean(group: _Group, side: NDArray[np.bool_]) -> NDArray[np.float32]:
    weight = group.weight[side]
    mean: NDArray[np.float32] = (weight @ group.points[side]) / weight.sum()
    return mean


def _sides(group: _Group) -> list[NDArray[np.bool_]]:
    """Return the best cut along each of the group's first principal directions."""
    if len(group.members) < 2:
        return []
    weight = group.weight.astype(np.float64)
    total = weight.sum()
    centered = group.points - (group.weight @ group.points) / group.weight.sum()
    spread = (centered * group.weight[:, None]).T @ centered
    axes = np.linalg.eigh(spread.astype(np.float64))[1][:, ::-1]
    sides = []
    for axis in axes.T[: CONSTANTS.directions]:
        along = (centered @ axis.astype(np.float32)).astype(np.float64)
        order = np.argsort(along, kind="stable")
        heavy = np.cumsum(weight[order])[:-1]
        moment = np.cumsum((weight * along)[order])
        light = np.maximum(total - heavy, 1e-9)
        between = moment[:-1] ** 2 / heavy + (moment[-1] - moment[:-1]) ** 2 / light
        between[np.diff(along[order]) <= 0] = 0.0
        place = int(between.argmax())
        if between[place] > 0:
            sides.append(along > along[order[place]])
    return sides


def _settled(group: _Group, far: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the sides of a cut after supervoxels have gone to the cheaper one, in rounds."""
    total = group.weight.sum()
    everything = group.weight @ group.points
    for _ in range(CONSTANTS.rounds):
        weight = np.where(far, group.weight, np.float32(0))
        held = weight.sum()
        if held <= 0 or held >= total:
            return far
        inside = weight @ group.points
        one, other = inside / held, (everything - inside) / (total - held)
        step = one - other
        distance = float(one @ one - other @ other) - 2.0 * (group.points @ step)
        around = group.graph @ np.where(far, np.float32(1), np.float32(-1))
        pull = np.float32(CONSTANTS.smoothness * float(step @ step)) * around
        moved = pull > distance * group.sizes
        changed = int((moved != far).sum())
        far = moved
        if changed <= CONSTANTS.settled_share * len(far):
            break
    return far
