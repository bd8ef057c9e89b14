"""A competitor: SLIC cells split by tissue codes.

As Strata made its supervoxels in its first release.

Codes are k-means clusters of brightness and features, smoothed like a Markov random
field; they cut the cells, edge voxels move to the touching piece that they are most
like, and crumbs join a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.measure import label as label_parts
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

CODES, PIECES_PER_CELL = 16, 4
_SAMPLE, _ROUNDS, _SMOOTHNESS = 60_000, 2, 0.5
_CRUMB_VOX, _STANDS_OUT, _INERTIA = 4, 0.1, 0.01


def split_cells(
    cells: NDArray[np.integer],
    channels: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    seed: int,
) -> NDArray[np.int32]:
    """Split cells (z, y, x) by codes of `channels` (z, y, x, channel), brightness first.

    Pieces (z, y, x) int32 from 0.

    Outside the body there is one piece.
    """
    intensity = np.ascontiguousarray(channels[..., 0])
    codes = smooth_codes(channels, inside, spacing_zyx_mm, seed)
    pieces = np.where(inside, cells.astype(np.int64) * CODES + codes + 1, 0)
    pieces = join_crumbs(_connected(pieces), intensity, inside)
    return join_crumbs(
        _connected(move_edges(pieces, intensity, inside)), intensity, inside
    )


def smooth_codes(
    channels: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    seed: int,
) -> NDArray[np.uint8]:
    """Give each voxel of the body the code that fits its channels and its neighbours' codes.

    As the noise allows.
    """
    values = channels[inside]
    sample = values[
        np.random.default_rng(seed).choice(
            len(values), min(len(values), _SAMPLE), replace=False
        )
    ]
    count = min(CODES, len(np.unique(sample[:, 0])))
    with threadpool_limits(1, user_api="openmp"):
        centers = (
            KMeans(count, n_init=2, random_state=seed)
            .fit(sample)
            .cluster_centers_.astype(np.float32)
        )
    cost = ((centers**2).sum(axis=1) - 2 * (values @ centers.T)) / (
        2 * _noise(channels[..., 0], inside) ** 2 + 1e-5
    )
    codes = np.zeros(inside.shape, np.uint8)
    codes[inside] = cost.argmin(axis=1)
    reach = 0.8 * np.minimum(spacing_zyx_mm.min() / spacing_zyx_mm, 1.0)
    for _ in range(_ROUNDS):
        beside = [
            ndimage.gaussian_filter(
                ((codes == k) & inside).astype(np.float32), reach, truncate=2.0
            )[inside]
            for k in range(count)
        ]
        codes[inside] = (cost - 2 * _SMOOTHNESS * np.stack(beside, axis=1)).argmin(
            axis=1
        )
    return codes


def _noise(intensity: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Estimate the noise from how voxels differ from the mean of their six neighbours.

    (variance 7/6 on noise alone).
    """
    around = sum(
        np.roll(intensity, step, axis) for axis in range(3) for step in (1, -1)
    ) / np.float32(6)
    return (
        float(np.median(np.abs(intensity - around)[inside])) / 0.6745 / np.sqrt(7 / 6)
    )


def move_edges(
    pieces: NDArray[np.int32], intensity: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Give the body's voxels.

    At a piece's edge to the touching piece whose mean brightness is nearest, a few
    times over.
    """
    pieces = pieces.copy()
    for _ in range(_ROUNDS):
        sizes = np.bincount(pieces.ravel())
        mean = (
            np.bincount(pieces.ravel(), weights=intensity.ravel())
            / np.maximum(sizes, 1)
        ).astype(np.float32)
        body = np.bincount(pieces.ravel(), weights=inside.ravel()) > 0
        beside = list(_neighbours(pieces))
        edge = inside & np.logical_or.reduce([other != pieces for other in beside])
        best, value = pieces[edge], intensity[edge]
        gap = np.abs(value - mean[best]) - _INERTIA
        for other in beside:
            candidate = other[edge]
            distance = np.abs(value - mean[candidate])
            better = body[candidate] & (distance < gap)
            best[better], gap[better] = candidate[better], distance[better]
        pieces[edge] = best
    return pieces


def _neighbours(pieces: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
    """Give what lies at each voxel's six faces; a voxel at the grid's edge sees itself there."""
    padded = np.pad(pieces, 1, mode="edge")
    middle = slice(1, -1)
    for axis in range(3):
        for shifted in (slice(2, None), slice(None, -2)):
            yield padded[tuple(shifted if a == axis else middle for a in range(3))]


def join_crumbs(
    pieces: NDArray[np.int32], intensity: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Join pieces of few voxels to the touching piece of most like brightness.

    Unless they stand out.
    """
    for _ in range(3):
        sizes = np.bincount(pieces.ravel())
        n = len(sizes)
        mean = np.bincount(pieces.ravel(), weights=intensity.ravel()) / sizes
        body = np.bincount(pieces.ravel(), weights=inside.ravel()) > 0
        crumb, other = _touching(pieces, n).T
        kept = (sizes[crumb] < _CRUMB_VOX) & (body[crumb] == body[other])
        if not kept.any():
            break
        crumb, other = crumb[kept], other[kept]
        gap = np.abs(mean[crumb] - mean[other])
        order = np.lexsort((-sizes[other], gap, crumb))
        crumb, first = np.unique(crumb[order], return_index=True)
        other, gap = other[order][first], gap[order][first]
        plain = (sizes[crumb] < 2) | (gap * np.sqrt(sizes[crumb]) < _STANDS_OUT)
        links = sparse.coo_matrix(
            (np.ones(plain.sum()), (crumb[plain], other[plain])), shape=(n, n)
        )
        pieces = sparse.csgraph.connected_components(links, directed=False)[1].astype(
            np.int32
        )[pieces]
    return pieces


def _touching(pieces: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """Give all ordered pairs of pieces that share a face, (pair, 2)."""
    keys = []
    for axis in range(3):
        ahead = np.moveaxis(pieces, axis, 0).astype(np.int64)
        one, two = ahead[:-1], ahead[1:]
        apart = one != two
        keys += [one[apart] * n + two[apart], two[apart] * n + one[apart]]
    unique = np.unique(np.concatenate(keys))
    return np.stack([unique // n, unique % n], axis=1)


def _connected(pieces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Give every part that is connected by faces, edges or corners a number of its own.

    From 0.
    """
    return label_parts(pieces, connectivity=3, background=-1).astype(np.int32) - 1
