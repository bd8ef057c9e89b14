"""What supervoxels could reach at best.

Whether their edges lie where the classes have edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.encoder.scans import OTHER
from benchmarks.proposal.overlap import Overlap
from numpy.typing import NDArray
from scipy import ndimage

_TOUCHING = np.ones((3, 3, 3), bool)


def achievable_accuracy(found: Overlap) -> float:
    """Give the achievable segmentation accuracy.

    The share of the classes' voxels that lie in a piece named after their class.

    Every piece is named after the class that it shares most voxels with (Liu et al.,
    CVPR 2011); "other" names none.
    """
    inside = found.counts[:, :-1]
    return float(inside.max(axis=1).sum() / inside.sum())


def strict_accuracy(found: Overlap) -> float:
    """Give the same share when a piece that lies mostly in "other".

    Or in what is not scored, is lost to all classes.

    Where classes touch no class, as organs in fat, only this says whether pieces follow
    their edges.
    """
    inside = found.counts[:, :-1]
    best = inside.max(axis=1)
    kept = best >= np.maximum(found.counts[:, -1], found.unscored)
    return float(best[kept].sum() / inside.sum())


def undersegmentation_error(found: Overlap) -> float:
    """Give how much pieces leak over the edges of classes, per voxel of the classes.

    Neubert and Protzel, Forum Bildverarbeitung 2012: for each class and each piece that
    touches it, the smaller of what lies in the class and what lies outside of it.
    Outside is any other class and "other"; what is not scored is neither.
    """
    inside = found.counts[:, :-1]
    outside = found.counts.sum(axis=1, keepdims=True) - inside
    return float(np.minimum(inside, outside).sum() / inside.sum())


@dataclass(frozen=True, slots=True)
class BoundaryRecall:
    """The share of the classes' edges that pieces follow.

    Parameters
    ----------
    exact : float
        Of the voxel faces at which a class ends, those at which a piece ends too.
    within_one : float
        Of the voxels before such a face, those with a piece's edge among themselves and
        their 26 neighbours.
    exact_by_chance, within_one_by_chance : float
        The same shares over all faces and voxels of the classes: what edges would give
        that lie anywhere. Pieces a few voxels wide have an edge within one voxel of
        nearly every voxel, and only `exact` tells them apart.
    """

    exact: float
    exact_by_chance: float
    within_one: float
    within_one_by_chance: float


def boundary_recall(
    pieces: NDArray[np.integer], reference: NDArray[np.uint8]
) -> BoundaryRecall:
    """Compare the edges of pieces and classes, both (z, y, x).

    A class ends where the next voxel holds anything else, what is not scored included.
    """
    is_class = (reference > 0) & (reference < OTHER)
    near, edge = np.zeros(reference.shape, bool), np.zeros(reference.shape, bool)
    faces = followed = everywhere = by_chance = 0
    for axis in range(3):
        front = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        back = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        either = is_class[front] | is_class[back]
        ends = (reference[front] != reference[back]) & either
        parts = pieces[front] != pieces[back]
        faces += int(ends.sum())
        followed += int((ends & parts).sum())
        everywhere += int(either.sum())
        by_chance += int((either & parts).sum())
        edge[front] |= ends
        near[front] |= parts
    near = ndimage.binary_dilation(near, _TOUCHING)
    if not faces:
        return BoundaryRecall(*[float("nan")] * 4)
    return BoundaryRecall(
        followed / faces,
        by_chance / everywhere,
        float(near[edge].mean()),
        float(near[is_class].mean()),
    )
