"""Classifier of supervoxels from a few strokes, fast enough to run at every stroke.

Descriptors are mapped to a feature space that separates tissues: the discriminant axes
(Fisher, 1936) of the proposal's own tissue tree, found without labels, together with the
descriptors themselves. Each supervoxel gets the region that fits best by its nearest
stroke (Cover and Hart, 1967), the distribution of its strokes and its geodesic distance.
The result is smoothed over touching supervoxels with the strokes fixed, as in label
propagation (Zhou et al., 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.scribble.dissimilarity import (
    pooled_distance,
    scatter_distance,
    sure_distance,
)
from napari_strata.refine.scribble.geodesic import GeodesicDistances
from napari_strata.refine.scribble.region_prior import RegionPrior, region_prior
from napari_strata.volume import BACKGROUND

STAY = -1
"""Result for a supervoxel that fits its own region better than any stroke."""


@dataclass(frozen=True, slots=True)
class ScribbleConstants:
    """Constants of the classifier, found with a simulated user (see docs/teaching.md)."""

    axis_tissues: int = 64
    """Number of tissues that define the discriminant axes; more than a scan has, so that
    no tissue is missed."""
    axis_strength: float = 0.005
    """Minimum strength of a discriminant axis, as a share of the strongest; weaker axes
    are noise."""
    shrinkage: float = 0.1
    """Share of the mean variance added to the within-tissue scatter, so that it can be
    inverted."""
    descriptor_weight: float = 0.5
    """Weight of the descriptors beside the discriminant axes, which are found without
    labels and can miss a difference that matters to strokes."""
    position_weight: float = 0.5
    """Weight of the position beside the descriptors. It separates similar organs, but must
    not outweigh the descriptors."""
    max_axes: int = 28
    """Most axes without position; more cost time at every stroke without any gain."""
    softness: float = 6.0
    """Dissimilarity (half squared distance) at which the membership falls to 1/e."""
    named_bonus: float = 4.0
    """Dissimilarity subtracted for the region that a user named or merged, so that it stays
    unless strokes clearly disagree."""
    max_named_examples: int = 8
    """Most examples (supervoxels) of a named region, so that it does not outweigh strokes."""
    smoothing: float = 0.8
    """Share of a supervoxel's membership that comes from its neighbours in each iteration."""
    iterations: int = 8
    """Iterations of the final smoothing, which is about its reach in supervoxels."""
    first_iterations: int = 3
    """Iterations before self-training, which needs only rough memberships."""
    edge_sharpness: float = 3.0
    """Decay of a neighbour's weight with its squared distance, in median squared distances
    of neighbours, so that smoothing stops at edges."""
    scatter_weight: float = 0.5
    """Weight of the likelihood by each region's own variance; the nearest example has the
    rest."""
    pooled_weight: float = 0.5
    """Weight of the linear discriminant distance, which is more stable with few examples."""
    self_training_weight: float = 0.5
    """Weight of the distances after self-training. Softness grows with it."""
    geodesic_weight: float = 5.0
    """Weight of the logarithm of the geodesic distance, which favours supervoxels that are
    connected to a stroke over similar neighbours."""
    unlike_limit: float = 1.1
    """Dissimilarity per axis above which a supervoxel matches no example and goes to region
    0, if strokes taught region 0 inside the body."""
    unlike_per_example: float = 1.0
    """Increase of that limit for each example (supervoxel) of region 0: with more examples,
    these decide instead."""
    background_own_weight: float = 0.5
    """Weight of the distance to its own tissue for region 0; reduced, because tissues are
    estimated and not confirmed by a user."""
    touched_share: float = 0.2
    """If a tissue holds this share of a region's examples, its supervoxels in region 0 no
    longer tend to stay there."""
    min_tissues: int = 3
    """Fewest tissues of a scan."""
    max_tissues: int = 96
    """Most tissues of a scan."""
    explained: float = 0.95
    """Share of the tissue tree's scatter that the tissues explain, for scope "everywhere":
    5 tissues on a skull-stripped head, 40 to 70 on a trunk."""
    finely_explained: float = 0.97
    """The same for scope "here", where finer tissues are separated."""


CONSTANTS = ScribbleConstants()


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSpace:
    """Feature space of the supervoxels of one proposal.

    Parameters
    ----------
    points : (n, k) float32 array
        Coordinates of the supervoxels. One unit is about the scatter inside a tissue.
        The first `n_appearance` columns describe appearance, the rest position.
    n_appearance : int
        Number of columns that describe appearance.
    tissues : (n,) int32 array
        The proposal's clearly separated tissues, 0 for its background.
    fine_tissues : (n,) int32 array
        A finer division into tissues, for the neighbourhood of a stroke.
    centers_mm : (n, 3) float32 array
        Centres in mm along the array's axes.
    background : (n,) bool array
        Mask of the proposal's background, large blocks of air.
    neighbours : (n, n) sparse array
        Weights of touching supervoxels, larger for similar ones; rows sum to one.
    geodesic : GeodesicDistances
        Geodesic distances and dissimilarities from seeds.
    weights : (n,) float32 array
        Weight of each supervoxel as evidence: its size divided by the mean size; 0 in
        the proposal's background.
    prior : RegionPrior
        What the hierarchy says before any stroke.
    """

    points: NDArray[np.float32]
    n_appearance: int
    tissues: NDArray[np.int32]
    fine_tissues: NDArray[np.int32]
    centers_mm: NDArray[np.float32]
    background: NDArray[np.bool_]
    neighbours: csr_array
    geodesic: GeodesicDistances
    weights: NDArray[np.float32]
    prior: RegionPrior


@dataclass(frozen=True, slots=True, eq=False)
class StrokeExamples:
    """Training data of the classifier: examples and the supervoxels to classify.

    Parameters
    ----------
    examples : (n,) int32 array
        Region of the strokes on each supervoxel, -1 for none.
    own : (n,) int32 array
        Region of each supervoxel before strokes spread.
    free : (n,) bool array
        Mask of the supervoxels to classify.
    is_near : bool
        Whether only the neighbourhood of a stroke is classified. Tissues are finer then.
        Supervoxels of region 0 in tissues without strokes still tend to stay, even if
        strokes taught region 0.
    named : (n,) int32 array or None
        Region of supervoxels in whole regions that a user named or merged, -1 for the
        rest.
    unowned : (n,) bool array or None
        Mask of the supervoxels that follow the slider, as no user named or moved their
        region.
    """

    examples: NDArray[np.int32]
    own: NDArray[np.int32]
    free: NDArray[np.bool_]
    is_near: bool = False
    named: NDArray[np.int32] | None = None
    unowned: NDArray[np.bool_] | None = None

    @property
    def training_regions(self) -> NDArray[np.int32]:
        """Region of each supervoxel by a stroke or a name, (n,), -1 for none."""
        return (
            self.examples
            if self.named is None
            else np.where(self.examples >= 0, self.examples, self.named)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Membership of every supervoxel in each taught region.

    Parameters
    ----------
    choices : (k,) int32 array
        Taught regions, ascending, and `STAY`.
    membership : (n, k) float32 array
        Membership in each choice, 0 to 1; rows sum to one.
    novelty : (n,) float32 array
        Dissimilarity to the most similar taught region; from 1 on, the supervoxel
        matches none.
    """

    choices: NDArray[np.int32]
    membership: NDArray[np.float32]
    novelty: NDArray[np.float32]


def feature_space(proposal: Proposal, centers_mm: NDArray[np.floating]) -> FeatureSpace:
    """Compute the feature space of a proposal, once per case.

    `centers_mm` are the centres (n, 3) of its supervoxels in mm along the array's axes.
    """
    is_place = np.array(
        [name.startswith("position") for name in proposal.descriptor_names], np.bool_
    )
    descriptors = np.nan_to_num(proposal.descriptors).astype(np.float64)
    values = descriptors[:, ~is_place]
    kind = np.hstack(
        [
            values
            @ _discriminant_axes(
                values, proposal.tissue_tree.cut(CONSTANTS.axis_tissues)
            ),
            CONSTANTS.descriptor_weight * values,
        ]
    )
    if kind.shape[1] > CONSTANTS.max_axes:
        _, turn = linalg.eigh(np.cov(kind, rowvar=False))
        kind = kind @ turn[:, -CONSTANTS.max_axes :]
    points = np.hstack(
        [kind, CONSTANTS.position_weight * descriptors[:, is_place]]
    ).astype(np.float32)
    background = np.zeros(len(points), np.bool_)
    background[proposal.region_tree.leaf_order[: proposal.region_tree.n_background]] = (
        True
    )
    weights = _weights(proposal, background)
    return FeatureSpace(
        points=points,
        n_appearance=kind.shape[1],
        tissues=proposal.tissue_tree.cut(
            clear_tissues(proposal.tissue_tree, CONSTANTS.explained)
        ),
        fine_tissues=proposal.tissue_tree.cut(
            clear_tissues(proposal.tissue_tree, CONSTANTS.finely_explained)
        ),
        centers_mm=centers_mm.astype(np.float32),
        background=background,
        neighbours=_neighbours(points[:, : kind.shape[1]], proposal.edges),
        geodesic=GeodesicDistances(points[:, : kind.shape[1]], proposal.edges),
        weights=weights,
        prior=region_prior(proposal, points, kind.shape[1], centers_mm, weights),
    )


def _weights(proposal: Proposal, background: NDArray[np.bool_]) -> NDArray[np.float32]:
    sizes = np.bincount(proposal.supervoxels.ravel(), minlength=len(background)).astype(
        np.float32
    )
    sizes[background] = 0
    return sizes / max(
        float(sizes[~background].mean()) if not background.all() else 1.0, 1e-6
    )


def clear_tissues(tree: Hierarchy, share: float) -> int:
    """Return the fewest tissues that explain a share of a tissue tree's scatter.

    There are 3 to 96. The heights of a Ward tree are the scatter that each merge adds. A
    skull-stripped head has a handful of tissues, a trunk some dozens.
    """
    explained = np.cumsum(tree.heights.astype(np.float64))
    if len(explained) == 0:
        return 1
    return int(
        np.clip(
            2 + np.searchsorted(explained, share * explained[-1]),
            CONSTANTS.min_tissues,
            CONSTANTS.max_tissues,
        )
    )


def _discriminant_axes(
    values: NDArray[np.float64], groups: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the axes (d, k) along which groups differ most.

    They are scaled to unit variance within groups.
    """
    means = _means(values, groups)
    within = values - means[groups]
    scatter = within.T @ within / max(len(values) - 1, 1)
    scatter += np.eye(len(scatter)) * (
        CONSTANTS.shrinkage * np.trace(scatter) / len(scatter) + 1e-6
    )
    spread = means - means.mean(axis=0)
    strength, axes = linalg.eigh(spread.T @ spread / len(means), scatter)
    kept: NDArray[np.float64] = axes[
        :,
        strength > CONSTANTS.axis_strength * max(float(strength.max(initial=0)), 1e-12),
    ]
    return kept


def _means(
    values: NDArray[np.floating], groups: NDArray[np.integer]
) -> NDArray[np.float64]:
    count = np.maximum(np.bincount(groups), 1)
    return np.stack(
        [np.bincount(groups, weights=column) / count for column in values.T], axis=1
    )


def _neighbours(points: NDArray[np.float32], edges: NDArray[np.int32]) -> csr_array:
    """Return the weights (n, n) of touching supervoxels; see `FeatureSpace.neighbours`."""
    a, b = edges.reshape(-1, 2).astype(np.int64).T
    distance = ((points[a] - points[b]) ** 2).sum(axis=1)
    usual = float(np.median(distance)) if len(distance) else 1.0
    weight = np.maximum(
        np.exp(-CONSTANTS.edge_sharpness * distance / max(usual, 1e-6)), 1e-6
    ).astype(np.float32)
    half = csr_array((weight, (a, b)), shape=(len(points), len(points)))
    both = csr_array(half + half.T)
    total = np.maximum(both.sum(axis=1), 1e-12)
    both.data /= np.repeat(total, np.diff(both.indptr)).astype(both.data.dtype)
    return both


def within_mm(
    space: FeatureSpace, seeds: NDArray[np.integer], reach_mm: float
) -> NDArray[np.bool_]:
    """Return a mask (n,) of the supervoxels whose centre is within `reach_mm` of a seed's."""
    at, centers = space.centers_mm[seeds], space.centers_mm
    near = np.flatnonzero(
        (
            (centers >= at.min(axis=0) - reach_mm)
            & (centers <= at.max(axis=0) + reach_mm)
        ).all(axis=1)
    )
    distance, _ = cKDTree(at).query(centers[near], distance_upper_bound=reach_mm)
    reached = np.zeros(len(centers), np.bool_)
    reached[near] = np.isfinite(distance)
    reached[seeds] = True
    return reached


def connected(
    space: FeatureSpace, seeds: NDArray[np.integer], allowed: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return a mask (n,) of the supervoxels that are connected to a seed.

    Connections run over touching allowed supervoxels.
    """
    inside = allowed.copy()
    inside[seeds] = True
    members = np.flatnonzero(inside)
    _, part = connected_components(
        space.neighbours[members][:, members], directed=False
    )
    reached = np.zeros(len(inside), np.bool_)
    reached[members] = np.isin(part, part[np.searchsorted(members, seeds)])
    return reached


def classify(space: FeatureSpace, strokes: StrokeExamples) -> NDArray[np.int32]:
    """Return the taught region with the largest membership of each free supervoxel.

    See `region_memberships`. The proposal's background goes only to region 0 or to a
    region with a stroke in the background.

    Returns
    -------
    (n,) int32 array
        Region id or `STAY`; always `STAY` for supervoxels that are not free.
    """
    choices = np.full(len(space.points), STAY, np.int32)
    shown = np.flatnonzero(strokes.examples >= 0)
    if len(shown) == 0 or not strokes.free.any():
        return choices
    result = region_memberships(space, strokes)
    best = result.choices[result.membership.argmax(axis=1)]
    choices[strokes.free] = without_air(space, strokes, best)[strokes.free]
    return choices


def without_air(
    space: FeatureSpace, strokes: StrokeExamples, best: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return regions (n,) without air in a region that has no stroke in the air."""
    shown = np.flatnonzero(strokes.examples >= 0)
    in_air = np.unique(strokes.examples[shown[space.background[shown]]])
    kept = np.isin(best, np.append(in_air, BACKGROUND))
    return np.where(space.background & ~kept, STAY, best).astype(np.int32)


def region_memberships(space: FeatureSpace, strokes: StrokeExamples) -> Classification:
    """Return the membership of every supervoxel in each taught region and in its own.

    At least one example is needed.

    The distance to a taught region is a weighted sum of the squared distance to its
    nearest stroke, the distances to the mean of its strokes by their own and by the
    pooled variance, and the logarithm of the geodesic distance. The resulting
    memberships are smoothed over touching supervoxels. Once all regions are taught,
    there is one step of self-training. Supervoxels that are very dissimilar from all
    strokes go to region 0 if that was taught inside the body; the limit rises with every
    further stroke on region 0.

    The distance of a supervoxel to its own region is its squared distance to that
    region's mean. Region 0 holds everything unnamed, so the mean of the supervoxel's
    tissue is used there, with half the weight. This distance is left out in tissues
    with a good part of a region's strokes and, unless `is_near`, everywhere once a
    stroke taught region 0 itself. A first stroke therefore takes its tissue, and
    supervoxels that are more similar to it than to their own tissue. Once every region
    is taught, strokes alone decide.
    """
    shown = np.flatnonzero(strokes.examples >= 0)
    teachers = strokes.training_regions
    taught = np.unique(teachers[teachers >= 0])
    column = np.searchsorted(taught, strokes.examples[shown])
    examples = [
        _some(np.flatnonzero(teachers == region), strokes.examples == region)
        for region in taught
    ]
    alike = np.stack([space.geodesic.dissimilarity(at) for at in examples], axis=1)
    distance = _distance(space, examples, alike)
    unlike = least(distance)
    way = CONSTANTS.geodesic_weight * np.log1p(
        np.stack([space.geodesic.distance(at) for at in examples], axis=1)
    )
    distance += way
    limit = CONSTANTS.unlike_limit * space.points.shape[1]
    if strokes.named is not None:
        named = np.flatnonzero(strokes.named >= 0)
        distance[named, np.searchsorted(taught, strokes.named[named])] -= (
            CONSTANTS.named_bonus
        )
    if (
        taught[0] == BACKGROUND
        and not strokes.is_near
        and not space.background[examples[0]].all()
    ):
        distance[:, 0] = np.minimum(
            distance[:, 0],
            limit + CONSTANTS.unlike_per_example * len(examples[0]) + least(way),
        )
    own = own_distance(space, strokes)
    softness = CONSTANTS.softness
    if np.isfinite(own[strokes.free]).any():
        distance = np.column_stack([distance, least(distance) + own - least(alike)])
    else:
        first = smoothed(
            space,
            membership_of(distance, softness),
            (shown, column),
            CONSTANTS.first_iterations,
        )
        distance += CONSTANTS.self_training_weight * sure_distance(
            space.points, examples, first, space.weights
        )
        softness *= 1 + CONSTANTS.self_training_weight
        distance = np.column_stack(
            [distance, np.full(len(distance), np.inf, np.float32)]
        )
    membership = smoothed(
        space, membership_of(distance, softness), (shown, column), CONSTANTS.iterations
    )
    return Classification(
        np.append(taught, STAY).astype(np.int32),
        membership,
        np.asarray(unlike / limit, np.float32),
    )


def _some(members: NDArray[np.intp], is_stroked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return a region's examples: all stroked members, and a regular sample of the rest."""
    stroked = is_stroked[members]
    rest = members[~stroked]
    return np.sort(
        np.concatenate(
            [
                members[stroked],
                rest[:: -(-len(rest) // CONSTANTS.max_named_examples) or 1],
            ]
        )
    )


def _distance(
    space: FeatureSpace, examples: list[NDArray[np.intp]], alike: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the dissimilarity of each supervoxel to each region's strokes, (n, regions)."""
    distance = (
        1 - CONSTANTS.scatter_weight
    ) * alike + CONSTANTS.scatter_weight * scatter_distance(space.points, examples)
    distance += CONSTANTS.pooled_weight * pooled_distance(space.points, examples)
    return np.asarray(distance, np.float32)


def least(columns: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the minimum of each row; column by column, as numpy is slow on short rows."""
    least = columns[:, 0].copy()
    for column in columns.T[1:]:
        np.minimum(least, column, out=least)
    return least


def membership_of(
    distance: NDArray[np.float32], softness: float
) -> NDArray[np.float32]:
    """Return memberships (n, k) by distances (n, k); rows sum to one."""
    membership = np.exp(-(distance - least(distance)[:, None]) / softness)
    membership /= membership.sum(axis=1, keepdims=True)
    return np.asarray(membership, np.float32)


def own_distance(space: FeatureSpace, strokes: StrokeExamples) -> NDArray[np.float32]:
    """Return the distance of each supervoxel to the mean of its own region, (n,).

    For region 0 it is the mean of its tissue. The distance is infinite where it must not
    count. Position is left out, so that a tissue is also found on the other side of the
    body.
    """
    background = strokes.own == BACKGROUND
    tissues = space.fine_tissues if strokes.is_near else space.tissues
    _, group = np.unique(
        np.where(background, -1 - tissues, strokes.own), return_inverse=True
    )
    silent = (
        background
        & _touched(tissues, strokes.training_regions, CONSTANTS.touched_share)[tissues]
    )
    if strokes.unowned is not None and not strokes.is_near:
        silent |= (
            strokes.unowned & _touched(tissues, strokes.training_regions, 0.0)[tissues]
        )
    if (strokes.examples == BACKGROUND).any() and not strokes.is_near:
        silent |= background
    if strokes.named is not None:
        silent |= strokes.named >= 0
    if not (strokes.free & ~silent).any():
        return np.full(len(silent), np.inf, np.float32)
    kind = space.points[:, : space.n_appearance]
    distance = np.where(background, CONSTANTS.background_own_weight, 1.0) * (
        (kind - _means(kind, group)[group]) ** 2
    ).sum(axis=1)
    return np.where(silent, np.inf, distance).astype(np.float32)


def _touched(
    group: NDArray[np.integer], examples: NDArray[np.int32], share: float
) -> NDArray[np.bool_]:
    """Return a mask of the groups with at least a share of the examples of a region > 0.

    Groups are the proposal's tissues, because regions already include the stroke itself.
    """
    touched = np.zeros(int(group.max()) + 1, np.bool_)
    shown = np.flatnonzero(examples > BACKGROUND)
    for region in np.unique(examples[shown]):
        held = np.bincount(
            group[shown[examples[shown] == region]], minlength=len(touched)
        )
        touched |= held >= max(1.0, share * held.sum())
    return touched


def smoothed(
    space: FeatureSpace,
    membership: NDArray[np.float32],
    fixed: tuple[NDArray[np.integer], NDArray[np.integer]],
    rounds: int,
) -> NDArray[np.float32]:
    """Smooth memberships over touching supervoxels.

    `fixed` holds the supervoxels with a stroke, and the columns of their regions.
    """
    start = (1 - CONSTANTS.smoothing) * membership
    for _ in range(rounds):
        membership = space.neighbours @ membership
        membership *= CONSTANTS.smoothing
        membership += start
        membership[fixed[0]] = 0
        membership[fixed] = 1
    return membership
