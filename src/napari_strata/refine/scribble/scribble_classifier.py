"""Classifier of supervoxels from a few strokes, quick enough to run at every stroke.

Descriptors are first mapped to a space in which distance means "unlike, as tissues go":
the discriminant axes (Fisher, 1936) of the proposal's own tissue tree, found without
labels, beside the descriptors themselves. Each supervoxel is assigned to the region
whose nearest stroke (Cover and Hart, 1967), whose strokes' distribution and whose
geodesic distance fit best. The result is smoothed over touching supervoxels with the
strokes fixed, as in label propagation (Zhou et al., 2003).
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
from napari_strata.volume import BACKGROUND

STAY = -1
"""Result for a supervoxel that is more like its own region than like any stroke."""


@dataclass(frozen=True, slots=True)
class ScribbleConstants:
    """Constants of the classifier, found with a simulated user (see docs/teaching.md)."""

    axis_tissues: int = 64
    """Tissues (count) whose differences define the discriminant axes. More than a scan has,
    so that no tissue is missed."""
    axis_strength: float = 0.005
    """Least strength of a discriminant axis, as a share of the strongest. Weaker axes are
    noise."""
    shrinkage: float = 0.1
    """Share of the mean variance added to the scatter inside tissues, so that it can be
    inverted."""
    descriptor_weight: float = 0.5
    """Weight of the descriptors beside the discriminant axes: axes found without labels
    can miss a difference that strokes show."""
    position_weight: float = 0.5
    """Weight of the position beside the descriptors: it separates alike organs, and must
    not outweigh likeness."""
    max_axes: int = 28
    """Most axes (count) without position. More cost time at every stroke and gain nothing."""
    softness: float = 6.0
    """Dissimilarity (half squared distance) at which a likeness falls to 1/e."""
    named_bonus: float = 4.0
    """Dissimilarity taken off for the region that a person named or merged, so that it
    stays unless strokes clearly disagree."""
    max_named_examples: int = 8
    """Most examples (supervoxels) of a named region, so that it does not outweigh strokes."""
    smoothing: float = 0.8
    """Share of a supervoxel's likeness that comes from its neighbours in each iteration."""
    iterations: int = 8
    """Iterations of the final smoothing: about how many supervoxels far it reaches."""
    first_iterations: int = 3
    """Iterations before self-training, which needs only rough likenesses."""
    edge_sharpness: float = 3.0
    """How fast a neighbour's weight falls with its squared distance, in median squared
    distances of neighbours: smoothing stops at edges."""
    scatter_weight: float = 0.5
    """Weight of the likelihood by each region's own variance, against the nearest example."""
    pooled_weight: float = 0.5
    """Weight of the linear discriminant distance, which is steadier with few examples."""
    self_training_weight: float = 0.5
    """Weight of the distances after self-training. Softness grows with it."""
    geodesic_weight: float = 5.0
    """Weight of the logarithm of the geodesic distance: likeness must reach a supervoxel
    over like neighbours."""
    unlike_limit: float = 1.1
    """Dissimilarity per axis from which a supervoxel is like no example and goes to region
    0, if strokes taught region 0 in the body."""
    unlike_per_example: float = 1.0
    """Rise of that limit for each example (supervoxel) of region 0, whose own examples
    then decide."""
    background_own_weight: float = 0.5
    """Weight of the distance to its own tissue for region 0: half, since its tissues are
    estimated and not shown by a person."""
    touched_share: float = 0.2
    """Share of a region's examples in a tissue from which region 0 has no say there."""
    min_tissues: int = 3
    """Fewest tissues (count) of a scan."""
    max_tissues: int = 96
    """Most tissues (count) of a scan."""
    explained: float = 0.95
    """Share of the tissue tree's scatter that its tissues explain, for scope "everywhere":
    5 tissues on a skull-stripped head, 40 to 70 on a trunk."""
    finely_explained: float = 0.97
    """The same for scope "here": near a stroke finer tissues are told apart."""


CONSTANTS = ScribbleConstants()


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSpace:
    """Feature space of the supervoxels of one proposal.

    Parameters
    ----------
    points : (n, k) float32 array
        Supervoxels; one unit is about the usual scatter inside a tissue. The first
        `n_kind` columns say what a supervoxel is like, the rest where it lies.
    n_kind : int
        How many columns say what it is like.
    tissues : (n,) int32 array
        The proposal's own tissues, as many as it tells apart clearly, 0 for its
        background.
    fine_tissues : (n,) int32 array
        The same, some more of them, for the neighbourhood of a stroke.
    centers_mm : (n, 3) float32 array
        Where supervoxels lie, mm along the array's axes.
    background : (n,) bool array
        The proposal's background, large blocks of air.
    neighbours : (n, n) sparse array
        Weights of touching supervoxels, more for more alike; rows sum to one.
    ways : GeodesicDistances
        Geodesic distances and dissimilarities from seeds.
    weights : (n,) float32 array
        How much each counts as evidence: its size, 1 being usual; 0 in the proposal's
        background.
    """

    points: NDArray[np.float32]
    n_kind: int
    tissues: NDArray[np.int32]
    fine_tissues: NDArray[np.int32]
    centers_mm: NDArray[np.float32]
    background: NDArray[np.bool_]
    neighbours: csr_array
    ways: GeodesicDistances
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StrokeExamples:
    """Training data of the classifier: examples and the supervoxels to classify.

    Parameters
    ----------
    examples : (n,) int32 array
        Region that strokes showed for a supervoxel, -1 for none.
    own : (n,) int32 array
        Region of each supervoxel before strokes spread.
    free : (n,) bool array
        The supervoxels to decide on.
    is_near : bool
        Whether only a stroke's neighbourhood is decided on: tissues are finer then, and
        those of region 0 that no region's strokes touched keep their say although
        region 0 was taught.
    named : (n,) int32 array or None
        Region that a person gave whole regions of the proposal to, by a name or a
        merge, -1 for none.
    unowned : (n,) bool array or None
        Supervoxels that follow the slider, nobody having named or moved their region.
    """

    examples: NDArray[np.int32]
    own: NDArray[np.int32]
    free: NDArray[np.bool_]
    is_near: bool = False
    named: NDArray[np.int32] | None = None
    unowned: NDArray[np.bool_] | None = None

    @property
    def teachers(self) -> NDArray[np.int32]:
        """Region that strokes showed or a person named, (n,), -1 for none."""
        return (
            self.examples
            if self.named is None
            else np.where(self.examples >= 0, self.examples, self.named)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Likeness of every supervoxel to each taught region.

    Parameters
    ----------
    choices : (k,) int32 array
        Taught regions, ascending, and `STAY`.
    likeness : (n, k) float32 array
        How much speaks for each; rows sum to one.
    unlike : (n,) float32 array
        How far from what was taught; from 1 on, it is like nothing of it.
    """

    choices: NDArray[np.int32]
    likeness: NDArray[np.float32]
    unlike: NDArray[np.float32]


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
    return FeatureSpace(
        points=points,
        n_kind=kind.shape[1],
        tissues=proposal.tissue_tree.cut(
            clear_tissues(proposal.tissue_tree, CONSTANTS.explained)
        ),
        fine_tissues=proposal.tissue_tree.cut(
            clear_tissues(proposal.tissue_tree, CONSTANTS.finely_explained)
        ),
        centers_mm=centers_mm.astype(np.float32),
        background=background,
        neighbours=_neighbours(points[:, : kind.shape[1]], proposal.edges),
        ways=GeodesicDistances(points[:, : kind.shape[1]], proposal.edges),
        weights=_weights(proposal, background),
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
    """Return the number of tissues of a scan.

    The fewest that explain a share of the tissue tree's scatter, at most 96. Heights of
    a Ward tree are the scatter that each merge adds. A skull-stripped head has a
    handful of tissues, a trunk some dozens.
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

    Scaled to unit variance inside groups.
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
    """Return which supervoxels, (n,) bool, lie at most `reach_mm` from a seed.

    Measured between centres.
    """
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
    """Return which allowed supervoxels, (n,) bool, are connected to a seed.

    Over touching supervoxels that are allowed too.
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
    """Return the most similar taught region of each free supervoxel, or `STAY`; see `weigh`.

    The proposal's background goes only to region 0 and to a region that has a stroke in
    it.

    Returns
    -------
    (n,) int32 array
        Region id, or `STAY`; `STAY` for what is not free.
    """
    choices = np.full(len(space.points), STAY, np.int32)
    shown = np.flatnonzero(strokes.examples >= 0)
    if len(shown) == 0 or not strokes.free.any():
        return choices
    result = weigh(space, strokes)
    best = result.choices[result.likeness.argmax(axis=1)]
    in_air = np.unique(strokes.examples[shown[space.background[shown]]])
    best[space.background & ~np.isin(best, np.append(in_air, BACKGROUND))] = STAY
    choices[strokes.free] = best[strokes.free]
    return choices


def weigh(space: FeatureSpace, strokes: StrokeExamples) -> Classification:
    """Compute the likeness of every supervoxel to each taught region, and to its own.

    At least one example is needed.

    The distance to a taught region is the sum of the squared distance to its nearest
    stroke, of the distances to its strokes' mean by their own variance and by the
    pooled variance, and of the logarithm of the geodesic distance. The result is
    smoothed over touching supervoxels. Once all regions are taught, there is one step
    of self-training, and supervoxels that are very unlike all strokes go to region 0,
    if that was taught inside the body; the limit rises with every further stroke on it.

    The distance of a supervoxel to its own region is half its squared distance to that
    region's mean. Region 0 holds all that nobody named, so its mean is that of the
    supervoxel's tissue, and it has no say in tissues that hold a good part of a
    region's strokes, nor, unless `is_near`, anywhere once a stroke taught region 0
    itself. A single first stroke therefore takes the tissue it lies in and supervoxels
    nearer to it than to their own kind; once every region is taught, strokes alone
    decide.
    """
    shown = np.flatnonzero(strokes.examples >= 0)
    teachers = strokes.teachers
    taught = np.unique(teachers[teachers >= 0])
    column = np.searchsorted(taught, strokes.examples[shown])
    examples = [
        _some(np.flatnonzero(teachers == region), strokes.examples == region)
        for region in taught
    ]
    alike = np.stack([space.ways.unlike(at) for at in examples], axis=1)
    distance = _distance(space, examples, alike)
    unlike = _least(distance)
    way = CONSTANTS.geodesic_weight * np.log1p(
        np.stack([space.ways.length(at) for at in examples], axis=1)
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
            limit + CONSTANTS.unlike_per_example * len(examples[0]) + _least(way),
        )
    own = _own_distance(space, strokes)
    softness = CONSTANTS.softness
    if np.isfinite(own[strokes.free]).any():
        distance = np.column_stack([distance, _least(distance) + own - _least(alike)])
    else:
        first = _smoothed(
            space,
            _likeness(distance, softness),
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
    likeness = _smoothed(
        space, _likeness(distance, softness), (shown, column), CONSTANTS.iterations
    )
    return Classification(
        np.append(taught, STAY).astype(np.int32),
        likeness,
        np.asarray(unlike / limit, np.float32),
    )


def _some(members: NDArray[np.intp], is_stroked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return a region's examples: all that strokes crossed, and evenly some of a named region."""
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


def _least(columns: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the minimum of each row, column by column: numpy is slow along short rows."""
    least = columns[:, 0].copy()
    for column in columns.T[1:]:
        np.minimum(least, column, out=least)
    return least


def _likeness(distance: NDArray[np.float32], softness: float) -> NDArray[np.float32]:
    likeness = np.exp(-(distance - _least(distance)[:, None]) / softness)
    likeness /= likeness.sum(axis=1, keepdims=True)
    return np.asarray(likeness, np.float32)


def _own_distance(space: FeatureSpace, strokes: StrokeExamples) -> NDArray[np.float32]:
    """Return the distance of each supervoxel to the mean of its own region.

    For region 0, of its tissue; infinite where that has no say. Only descriptors count
    here, not the position: a tissue is to be found again on the other side.
    """
    background = strokes.own == BACKGROUND
    tissues = space.fine_tissues if strokes.is_near else space.tissues
    _, group = np.unique(
        np.where(background, -1 - tissues, strokes.own), return_inverse=True
    )
    silent = (
        background
        & _touched(tissues, strokes.teachers, CONSTANTS.touched_share)[tissues]
    )
    if strokes.unowned is not None and not strokes.is_near:
        silent |= strokes.unowned & _touched(tissues, strokes.teachers, 0.0)[tissues]
    if (strokes.examples == BACKGROUND).any() and not strokes.is_near:
        silent |= background
    if strokes.named is not None:
        silent |= strokes.named >= 0
    kind = space.points[:, : space.n_kind]
    distance = np.where(background, CONSTANTS.background_own_weight, 1.0) * (
        (kind - _means(kind, group)[group]) ** 2
    ).sum(axis=1)
    return np.where(silent, np.inf, distance).astype(np.float32)


def _touched(
    group: NDArray[np.integer], examples: NDArray[np.int32], share: float
) -> NDArray[np.bool_]:
    """Return which groups hold a good part of the examples of some region other than 0.

    Groups are the proposal's tissues, not regions: a stroke has already assigned what
    it crosses.
    """
    touched = np.zeros(int(group.max()) + 1, np.bool_)
    shown = np.flatnonzero(examples > BACKGROUND)
    for region in np.unique(examples[shown]):
        held = np.bincount(
            group[shown[examples[shown] == region]], minlength=len(touched)
        )
        touched |= held >= max(1.0, share * held.sum())
    return touched


def _smoothed(
    space: FeatureSpace,
    likeness: NDArray[np.float32],
    fixed: tuple[NDArray[np.integer], NDArray[np.integer]],
    rounds: int,
) -> NDArray[np.float32]:
    """Smooth likenesses over touching supervoxels.

    `told`: supervoxels that are fixed, and their columns.
    """
    start = (1 - CONSTANTS.smoothing) * likeness
    for _ in range(rounds):
        likeness = space.neighbours @ likeness
        likeness *= CONSTANTS.smoothing
        likeness += start
        likeness[fixed[0]] = 0
        likeness[fixed] = 1
    return likeness
