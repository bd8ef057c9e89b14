"""Dissimilarities of supervoxels to the examples of each region; the classifier adds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

_MAX_EXAMPLES = 32
"""Most examples (supervoxels) of a region in the nearest-example search, for speed."""
_BLOCK = 2048
"""Rows per block, so that the table of distances fits into the processor's cache."""
_SCATTER_PRIOR = 16.0
"""Pseudo-samples of unit variance per region, as few examples give a poor estimate."""
_POOLED_PRIOR = 30.0
"""Pseudo-samples in the pooled covariance; more, because it has more parameters."""
_SURE = 0.8
"""Membership (0 to 1) above which a supervoxel is used in self-training."""
_MOST_SURE = 20.0
"""Most examples that self-training adds per region, so that strokes stay decisive."""
_SURE_SHARE = 0.2
"""Share of the weight of those supervoxels that counts as examples, up to that number."""

Examples = Sequence[NDArray[np.intp]]


def nearest(
    points: NDArray[np.float32], at: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return half the squared distance of points (n, k) to the nearest of those at `at`.

    It is halved because a single example varies as much as the supervoxel itself, while
    a region's mean hardly varies.
    """
    shown = points[at[:: -(-len(at) // _MAX_EXAMPLES)]]
    offset = (shown**2).sum(axis=1)[:, None]
    found = np.einsum("ij,ij->i", points, points)
    for start in range(0, len(points), _BLOCK):
        # In blocks, because the table of all distances exceeds the processor's cache.
        squared = (-2 * shown) @ points[start : start + _BLOCK].T
        squared += offset
        found[start : start + _BLOCK] += squared.min(axis=0)
    half: NDArray[np.float32] = np.maximum(found, 0) / 2
    return half


def scatter_distance(
    points: NDArray[np.float32], examples: Examples
) -> NDArray[np.float32]:
    """Return the Gaussian negative log-likelihood of each region, (n, regions).

    Each region has a diagonal covariance, shrunk towards identity (16 pseudo-samples).
    """
    mean = np.stack([points[at].mean(axis=0) for at in examples])
    count = np.array([len(at) for at in examples], np.float32)[:, None]
    spread = np.stack(
        [((points[at] - points[at].mean(axis=0)) ** 2).sum(axis=0) for at in examples]
    )
    variance = (_SCATTER_PRIOR + spread) / (_SCATTER_PRIOR + count)
    return _minus_log(points, mean, variance, count / (1 + count))


def pooled_distance(
    points: NDArray[np.float32], examples: Examples
) -> NDArray[np.float32]:
    """Return half the squared Mahalanobis distance to each region's mean, (n, regions).

    The covariance is pooled over regions, as in linear discriminant analysis (Fisher,
    1936), and shrunk towards identity (30 pseudo-samples).
    """
    mean = np.stack([points[at].mean(axis=0) for at in examples])
    off = np.concatenate([points[at] - points[at].mean(axis=0) for at in examples])
    within = (_POOLED_PRIOR * np.eye(points.shape[1]) + off.T @ off) / (
        _POOLED_PRIOR + len(off) - len(mean)
    )
    turn = linalg.cholesky(linalg.inv(within), lower=True).astype(np.float32)
    turned, middle = points @ turn, mean @ turn
    squared = (
        np.einsum("ij,ij->i", turned, turned)[:, None]
        - 2 * turned @ middle.T
        + (middle**2).sum(axis=1)
    )
    half: NDArray[np.float32] = (np.maximum(squared, 0) / 2).astype(np.float32)
    return half


def sure_distance(
    points: NDArray[np.float32],
    examples: Examples,
    membership: NDArray[np.floating],
    sizes: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Return the Gaussian negative log-likelihood after self-training, (n, regions).

    In one step of self-training (Scudder, 1965), supervoxels with a high membership in a
    region count as examples too. `membership` (n, regions) is the result so far, `sizes`
    (n,) the weight of each supervoxel.
    """
    means, variances = [], []
    for column, at in enumerate(examples):
        weight = (
            np.where(membership[:, column] > _SURE, membership[:, column], 0.0) * sizes
        )
        weight[at] = 0
        held = np.flatnonzero(weight)
        total = float(weight[held].sum())
        share = (weight[held] / max(total, 1e-9)).astype(np.float32)
        count, more = float(len(at)), min(_MOST_SURE, _SURE_SHARE * total)
        shown, found = points[at].mean(axis=0), share @ points[held]
        mean = (count * shown + more * found) / (count + more)
        spread = ((points[at] - mean) ** 2).sum(axis=0) + more * (
            share @ (points[held] - mean) ** 2
        )
        means.append(mean)
        variances.append((_SCATTER_PRIOR + spread) / (_SCATTER_PRIOR + count + more))
    return _minus_log(points, np.stack(means), np.stack(variances), 1.0)


def _minus_log(
    points: NDArray[np.float32],
    mean: NDArray[np.floating],
    variance: NDArray[np.floating],
    trust: NDArray[np.float32] | float,
) -> NDArray[np.float32]:
    precision = (trust / variance).astype(np.float32)
    squared = (
        points**2 @ precision.T
        - 2 * points @ (mean * precision).T.astype(np.float32)
        + (mean**2 * precision).sum(axis=1)
    )
    minus_log: NDArray[np.float32] = (
        (np.maximum(squared, 0) + np.log(variance).sum(axis=1)) / 2
    ).astype(np.float32)
    return minus_log
