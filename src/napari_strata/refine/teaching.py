"""What strokes teach: a small classifier on supervoxel descriptors, quick enough to run at every stroke.

Descriptors are first brought into a space in which distance means "unlike, as tissues go": the discriminant axes (Fisher,
1936) of the proposal's own tissue tree, found without any label, beside the descriptors themselves. There a supervoxel
goes with its nearest stroke (Cover and Hart, 1967), evened out over touching supervoxels with the strokes held fast
(as in label propagation; Zhou et al., 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse import csr_array

from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import BACKGROUND

STAY = -1
"""Said of a supervoxel that is more like its own region than like any stroke."""

_TISSUES = 64
_OWN_TISSUES = 16
_AXIS_STRENGTH = 0.005
_SHRINKAGE = 0.1
_DESCRIPTOR_WEIGHT = 0.5
_PLACE_WEIGHT = 0.5
_MAX_AXES = 28
_SOFTNESS = 2.0
_SMOOTHING = 0.65
_ROUNDS = 4
_MAX_EXAMPLES = 96


@dataclass(frozen=True, slots=True, eq=False)
class TeachingSpace:
    """Where supervoxels lie for the classifier.

    Parameters
    ----------
    points : (n, k) float32 array
        Supervoxels; one unit is about the usual scatter inside a tissue. The first `n_kind` columns say what a supervoxel is
        like, the rest where it lies.
    n_kind : int
        How many columns say what it is like.
    tissues : (n,) int32 array
        The proposal's own coarse tissues, 0 for its background.
    neighbours : (n, n) sparse array
        Weights of touching supervoxels, more for more alike; rows sum to one.
    """

    points: NDArray[np.float32]
    n_kind: int
    tissues: NDArray[np.int32]
    neighbours: csr_array


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What is to be told apart.

    Parameters
    ----------
    examples : (n,) int32 array
        Region that strokes showed for a supervoxel, -1 for none.
    own : (n,) int32 array
        Region of each supervoxel without this lesson.
    free : (n,) bool array
        The supervoxels to decide on.
    """

    examples: NDArray[np.int32]
    own: NDArray[np.int32]
    free: NDArray[np.bool_]


def teaching_space(proposal: Proposal) -> TeachingSpace:
    """Make the space from a proposal, once per case."""
    is_place = np.array([name.startswith("position") for name in proposal.descriptor_names], np.bool_)
    descriptors = np.nan_to_num(proposal.descriptors).astype(np.float64)
    values = descriptors[:, ~is_place]
    kind = np.hstack([values @ _discriminant_axes(values, proposal.tissue_tree.cut(_TISSUES)), _DESCRIPTOR_WEIGHT * values])
    if kind.shape[1] > _MAX_AXES:
        _, turn = linalg.eigh(np.cov(kind, rowvar=False))
        kind = kind @ turn[:, -_MAX_AXES:]
    points = np.hstack([kind, _PLACE_WEIGHT * descriptors[:, is_place]]).astype(np.float32)
    return TeachingSpace(points, kind.shape[1], proposal.tissue_tree.cut(_OWN_TISSUES), _neighbours(points, proposal.edges))


def _discriminant_axes(values: NDArray[np.float64], groups: NDArray[np.int32]) -> NDArray[np.float64]:
    """Give the axes (d, k) along which groups differ most, scaled to unit scatter inside groups."""
    means = _means(values, groups)
    within = values - means[groups]
    scatter = within.T @ within / max(len(values) - 1, 1)
    scatter += np.eye(len(scatter)) * (_SHRINKAGE * np.trace(scatter) / len(scatter) + 1e-6)
    spread = means - means.mean(axis=0)
    strength, axes = linalg.eigh(spread.T @ spread / len(means), scatter)
    kept: NDArray[np.float64] = axes[:, strength > _AXIS_STRENGTH * max(float(strength.max(initial=0)), 1e-12)]
    return kept


def _means(values: NDArray[np.floating], groups: NDArray[np.integer]) -> NDArray[np.float64]:
    count = np.maximum(np.bincount(groups), 1)
    return np.stack([np.bincount(groups, weights=column) / count for column in values.T], axis=1)


def _neighbours(points: NDArray[np.float32], edges: NDArray[np.int32]) -> csr_array:
    a, b = edges.reshape(-1, 2).astype(np.int64).T
    distance = ((points[a] - points[b]) ** 2).sum(axis=1)
    usual = float(np.median(distance)) if len(distance) else 1.0
    weight = np.maximum(np.exp(-distance / max(usual, 1e-6)), 1e-6)
    half = csr_array((weight, (a, b)), shape=(len(points), len(points)))
    both = csr_array(half + half.T)
    total = np.maximum(both.sum(axis=1), 1e-12)
    both.data /= np.repeat(total, np.diff(both.indptr)).astype(both.data.dtype)
    return both


def neighbourhood(space: TeachingSpace, seeds: NDArray[np.integer], steps: int) -> NDArray[np.bool_]:
    """Tell which supervoxels, (n,) bool, lie at most `steps` touching supervoxels from the seeds."""
    reached = np.zeros(len(space.points), np.bool_)
    reached[seeds] = True
    for _ in range(steps):
        reached |= (space.neighbours @ reached.astype(np.float32)) > 0
    return reached


def classify(space: TeachingSpace, lesson: Lesson) -> NDArray[np.int32]:
    """Say which taught region each free supervoxel is most like, or that it stays.

    A supervoxel is as far from a taught region as from the nearest stroke on it, and as far from its own region as from that
    region's mean; it goes with the nearer, evened out over touching supervoxels. Region 0 holds whatever nobody named,
    so there the mean is that of its coarse tissue, and it has no say in tissues that a stroke touched, nor anywhere
    once a stroke taught region 0 itself. A single first stroke therefore takes the tissue it touches and what is
    nearer to it than to its own kind; once every region is taught, all supervoxels are told apart by strokes alone.

    Returns
    -------
    (n,) int32 array
        Region id, or `STAY`; `STAY` for what is not free.
    """
    said = np.full(len(space.points), STAY, np.int32)
    shown = np.flatnonzero(lesson.examples >= 0)
    if len(shown) == 0 or not lesson.free.any():
        return said
    taught = np.unique(lesson.examples[shown])
    near = [_nearest(space, np.flatnonzero(lesson.examples == region)) for region in taught]
    distance = np.stack([there for there, _ in near], axis=1)
    own = _own_distance(space, lesson) - np.min([alike for _, alike in near], axis=0)
    distance = np.column_stack([distance, distance.min(axis=1) + own])
    choices = np.append(taught, STAY).astype(np.int32)
    likeness = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / _SOFTNESS)
    likeness /= likeness.sum(axis=1, keepdims=True)
    best = _smoothed(space, likeness, shown, np.searchsorted(taught, lesson.examples[shown])).argmax(axis=1)
    said[lesson.free] = choices[best[lesson.free]]
    return said


def _nearest(space: TeachingSpace, at: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give half the squared distance to the nearest example, in kind and place, and in kind alone.

    Half, because a single example scatters as much as the supervoxel itself, and a region's mean hardly at all.
    """
    examples = space.points[at[:: -(-len(at) // _MAX_EXAMPLES)]]
    kind, place = space.points[:, : space.n_kind], space.points[:, space.n_kind :]
    kind_shown, place_shown = examples[:, : space.n_kind], examples[:, space.n_kind :]
    squared = (-2 * kind_shown) @ kind.T
    squared += (kind_shown**2).sum(axis=1)[:, None]
    alike = squared.min(axis=0) + (kind**2).sum(axis=1)
    squared += (-2 * place_shown) @ place.T
    squared += (place_shown**2).sum(axis=1)[:, None]
    both = squared.min(axis=0) + (space.points**2).sum(axis=1)
    return np.maximum(both, 0) / 2, np.maximum(alike, 0) / 2


def _own_distance(space: TeachingSpace, lesson: Lesson) -> NDArray[np.float32]:
    """Give the squared distance of each supervoxel to the mean of its own region; infinite where that has no say.

    Only what a supervoxel is like counts here, not where it lies: a tissue is to be found again on the other side.
    """
    background = lesson.own == BACKGROUND
    _, group = np.unique(np.where(background, -1 - space.tissues, lesson.own), return_inverse=True)
    touched = np.zeros(int(group.max()) + 1, np.bool_)
    touched[group[lesson.examples > BACKGROUND]] = True
    silent = background & (touched[group] | bool((lesson.examples == BACKGROUND).any()))
    kind = space.points[:, : space.n_kind]
    distance = ((kind - _means(kind, group)[group]) ** 2).sum(axis=1)
    return np.where(silent, np.inf, distance).astype(np.float32)


def _smoothed(
    space: TeachingSpace, likeness: NDArray[np.float32], shown: NDArray[np.integer], column: NDArray[np.integer]
) -> NDArray[np.float32]:
    start = likeness
    for _ in range(_ROUNDS):
        likeness = (1 - _SMOOTHING) * start + _SMOOTHING * (space.neighbours @ likeness)
        likeness[shown] = 0
        likeness[shown, column] = 1
    return likeness
