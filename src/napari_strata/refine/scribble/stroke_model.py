"""Memberships of supervoxels in taught regions, as mixtures of modes.

The second method of strokes. It uses the distances of `scribble_classifier`, for each mode
of a region apart; the best mode counts. Exceptions hold only near their strokes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.dissimilarity import (
    pooled_distance,
    scatter_distance,
)
from napari_strata.refine.scribble.modes import (
    Evidence,
    Mode,
    dissimilarity,
    grouped_into_modes,
    path_length,
)
from napari_strata.refine.scribble.scribble_classifier import (
    CONSTANTS,
    STAY,
    Classification,
    FeatureSpace,
    StrokeExamples,
    least,
    membership_of,
    own_distance,
    smoothed,
)
from napari_strata.volume import BACKGROUND

EXCEPTION_REACH = 0.5
"""Reach of an earlier exception: path to its strokes, as a share of the path to the nearest
evidence of another region."""
_NEVER = np.float32(1e4)
"""Distance beyond the reach of an exception; larger than any other."""


@dataclass(frozen=True, slots=True, eq=False)
class StrokeModel:
    """All evidence of a case, grouped, with what each supervoxel belongs to by it.

    Parameters
    ----------
    modes : tuple of Mode
        The evidence, grouped.
    result : Classification
        Memberships.
    latest : Evidence
        The latest of the evidence.
    """

    modes: tuple[Mode, ...]
    result: Classification
    latest: Evidence


def stroke_model(
    space: FeatureSpace, strokes: StrokeExamples, evidence: Sequence[Evidence]
) -> StrokeModel:
    """Return the memberships by some evidence, the latest last.

    The latest is free to reach everywhere; the caller limits it. At least one is needed.
    """
    paths = space.prior.paths
    modes = grouped_into_modes(paths, evidence)
    regions = np.unique([mode.region for mode in modes])
    distance, unlike = _distances(space, modes, regions, evidence)
    if strokes.named is not None:
        named = np.flatnonzero(np.isin(strokes.named, regions))
        columns = np.searchsorted(regions, strokes.named[named])
        distance[named, columns] -= CONSTANTS.named_bonus
    result = _classified(space, strokes, modes, regions, distance)
    limit = CONSTANTS.unlike_limit * space.points.shape[1]
    choices, membership = result
    return StrokeModel(
        modes,
        Classification(choices, membership, np.asarray(unlike / limit, np.float32)),
        evidence[-1],
    )


def _distances(
    space: FeatureSpace,
    modes: Sequence[Mode],
    regions: NDArray[np.integer],
    evidence: Sequence[Evidence],
) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
    """Return the distance to each region, (n, regions), and the least dissimilarity, (n,)."""
    paths = space.prior.paths
    examples = [mode.supervoxels for mode in modes]
    alike = np.stack([dissimilarity(paths, mode) for mode in modes], axis=1)
    distance = (1 - CONSTANTS.scatter_weight) * alike
    distance += CONSTANTS.scatter_weight * scatter_distance(space.points, examples)
    distance += CONSTANTS.pooled_weight * pooled_distance(space.points, examples)
    distance = distance.astype(np.float32)
    unlike = least(distance)
    for column, mode in enumerate(modes):
        way = path_length(paths, mode.members)
        distance[:, column] += CONSTANTS.geodesic_weight * np.log1p(way)
        if mode.is_exception:
            far = ~_within_exception(space, mode, evidence)
            distance[far, column] = _NEVER
    of_mode = np.array([mode.region for mode in modes])
    by_region = np.stack([least(distance[:, of_mode == r]) for r in regions], axis=1)
    examples_of_zero = _examples_in_body(space, modes, BACKGROUND)
    if len(examples_of_zero):
        limit = CONSTANTS.unlike_limit * space.points.shape[1]
        limit += CONSTANTS.unlike_per_example * len(examples_of_zero)
        shortest = path_length(paths, evidence)
        by_region[:, 0] = np.minimum(
            by_region[:, 0], limit + CONSTANTS.geodesic_weight * np.log1p(shortest)
        )
    return by_region, unlike


def _within_exception(
    space: FeatureSpace, mode: Mode, evidence: Sequence[Evidence]
) -> NDArray[np.bool_]:
    """Return a mask of the supervoxels within the reach of an exception, (n,)."""
    if evidence[-1] in mode.members:
        return np.ones(len(space.points), np.bool_)
    paths = space.prior.paths
    rivals = [one for one in evidence if one.region != mode.region]
    near: NDArray[np.bool_] = path_length(paths, mode.members) <= (
        EXCEPTION_REACH * path_length(paths, rivals)
    )
    return near


def _examples_in_body(
    space: FeatureSpace, modes: Sequence[Mode], region: int
) -> NDArray[np.intp]:
    """Return all examples of a region, none if all of them are air."""
    found = [mode.supervoxels for mode in modes if mode.region == region]
    together = np.concatenate(found) if found else np.empty(0, np.intp)
    return together[:0] if space.background[together].all() else together


def _classified(
    space: FeatureSpace,
    strokes: StrokeExamples,
    modes: Sequence[Mode],
    regions: NDArray[np.integer],
    distance: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the choices and the memberships; see `region_memberships`."""
    shown = np.flatnonzero(np.isin(strokes.examples, regions))
    fixed = shown, np.searchsorted(regions, strokes.examples[shown])
    choices = np.append(regions, STAY).astype(np.int32)
    own = own_distance(space, strokes)
    has_own = np.isfinite(own[strokes.free]).any()
    if has_own:
        alike = np.stack(
            [
                space.geodesic.dissimilarity(_examples_of(modes, region))
                for region in regions
            ],
            axis=1,
        )
        rest = least(distance) + own - least(alike)
        distance = np.column_stack([distance, rest]).astype(np.float32)
    membership = smoothed(
        space, membership_of(distance, CONSTANTS.softness), fixed, CONSTANTS.iterations
    )
    membership = space.prior.shared(membership, fixed)
    if not has_own:
        nothing = np.zeros(len(membership), np.float32)
        membership = np.column_stack([membership, nothing])
    return choices, membership


def _examples_of(modes: Sequence[Mode], region: int) -> NDArray[np.intp]:
    """Return all examples of a region."""
    found = [mode.supervoxels for mode in modes if mode.region == region]
    return np.unique(np.concatenate(found))
