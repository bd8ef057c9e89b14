"""Break a scan into small connected pieces whose edges lie where the tissue has edges.

SLIC cells bound how far a piece reaches; tissue codes (clusters of brightness and features, smoothed over neighbouring
voxels) cut the cells along true edges, so that thin structures survive; small crumbs join the neighbour they are most
like. Outside the body the pieces are large blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage, sparse
from skimage.measure import label as label_parts
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

_CODE_SAMPLE = 60_000
_JOBLIB_CORES = "LOKY_MAX_CPU_COUNT"
_SMOOTHING_ROUNDS = 2
_STANDS_OUT = 0.1
"""Brightness difference times root of size above which a small piece is kept."""
_SNAP_ROUNDS, _SNAP_INERTIA = 2, 0.01
"""Passes of edge voxels to the piece they are most like, and the gain in brightness that a move needs."""
_FACES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
_BLOCK_MM = 30.0
"""Side of the blocks outside the body."""


@dataclass(frozen=True, slots=True)
class SupervoxelPlan:
    """What supervoxels to make.

    Parameters
    ----------
    target : int
        Pieces to aim for inside the body.
    codes : int
        Tissue codes that cut the cells.
    crumb_vox : int
        Pieces smaller than this join a neighbour.
    smoothness : float
        How much a voxel's code follows its neighbours'.
    seed : int
        Of the clustering.
    """

    target: int
    codes: int
    crumb_vox: int = 4
    smoothness: float = 0.5
    seed: int = 0


def make_supervoxels(
    channels: NDArray[np.float32], inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64], plan: SupervoxelPlan
) -> NDArray[np.int32]:
    """Break a block of a scan into supervoxels.

    Parameters
    ----------
    channels : (z, y, x, channel) float32 array
        Channel 0 is brightness in [0, 1]; the others are feature components on a like scale.
    inside : (z, y, x) bool array
        The body.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    plan : SupervoxelPlan
        How many and how fine.

    Returns
    -------
    (z, y, x) int32 array
        Ids 0 .. n - 1, every id in use, each piece connected (by faces, edges or corners, so that layers one voxel thin
        stay whole), none across the body's edge.
    """
    cells = slic_cells(channels[..., 0], inside, spacing_zyx_mm, _cell_count(plan))
    codes = tissue_codes(channels, inside, spacing_zyx_mm, plan)
    pieces = label_parts(cells.astype(np.int64) * plan.codes + codes, connectivity=3, background=-1).astype(np.int32)
    blocks = block_cells(inside.shape, spacing_zyx_mm, _BLOCK_MM)
    pieces = np.where(inside, pieces, blocks + pieces.max() + 1)
    light = channels[..., 0]
    pieces = join_crumbs(_connected(pieces), light, inside, plan.crumb_vox)
    return join_crumbs(_connected(snap_edges(pieces, light, inside)), light, inside, plan.crumb_vox)


def _connected(pieces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Give every part that is connected by faces, edges or corners a number of its own, from 0."""
    return label_parts(pieces, connectivity=3, background=-1).astype(np.int32) - 1


def _cell_count(plan: SupervoxelPlan) -> int:
    """Cells are cut into about four pieces each by the codes."""
    return max(8, plan.target // 4)


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Keep scikit-learn's k-means to one thread: with several, its sums depend on which thread ends first.

    joblib is told the same, or it would look for physical cores and complain where a container hides them.
    """
    before = os.environ.get(_JOBLIB_CORES)
    os.environ[_JOBLIB_CORES] = "1"
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        if before is None:
            del os.environ[_JOBLIB_CORES]
        else:
            os.environ[_JOBLIB_CORES] = before


def slic_cells(light: NDArray[np.float32], inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64], count: int) -> NDArray[np.int32]:
    """Make about `count` compact cells inside the body with ITK's SLIC (Achanta et al. 2012), (z, y, x) int32.

    Brightness is given as whole numbers, so that the sums over threads do not depend on their order.
    """
    volume_mm3 = float(inside.sum()) * float(np.prod(spacing_zyx_mm))
    side_mm = (volume_mm3 / count) ** (1 / 3)
    steps = [int(max(1, min(round(side_mm / s), n))) for s, n in zip(spacing_zyx_mm, light.shape, strict=True)]
    image = sitk.GetImageFromArray(np.round(light * 255).astype(np.float32))
    slic = sitk.SLICImageFilter()
    slic.SetSuperGridSize(steps[::-1])
    slic.SetMaximumNumberOfIterations(4)
    slic.SetSpatialProximityWeight(10.0)
    slic.SetEnforceConnectivity(False)
    return sitk.GetArrayFromImage(slic.Execute(image)).astype(np.int32)


def tissue_codes(
    channels: NDArray[np.float32], inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64], plan: SupervoxelPlan
) -> NDArray[np.uint8]:
    """Cluster the voxels inside the body by k-means and smooth the codes like a Markov random field, (z, y, x) uint8.

    The smoothing is a few mean-field rounds: each voxel weighs its distance to a code's centre against how common the
    code is among its neighbours (nearer ones, in mm, count more).
    """
    values = channels[inside]
    rng = np.random.default_rng(plan.seed)
    sample = values[rng.choice(len(values), min(len(values), _CODE_SAMPLE), replace=False)]
    count = min(plan.codes, len(np.unique(sample[:, 0])))
    with one_openmp_thread():
        means = KMeans(count, n_init=2, random_state=plan.seed).fit(sample)
    centers = means.cluster_centers_.astype(np.float32)
    scale = 2.0 * noise_level(channels[..., 0], inside) ** 2 + 1e-5
    squares = (centers**2).sum(1)
    cost = (squares - 2.0 * (values @ centers.T)) / scale
    codes = np.zeros(inside.shape, np.uint8)
    codes[inside] = cost.argmin(1)
    reach = np.minimum(float(np.min(spacing_zyx_mm)) / spacing_zyx_mm, 1.0) * 0.8
    for _ in range(_SMOOTHING_ROUNDS):
        belief = np.empty((len(values), count), np.float32)
        for code in range(count):
            mask = ((codes == code) & inside).astype(np.float32)
            belief[:, code] = ndimage.gaussian_filter(mask, reach, truncate=2.0)[inside]
        codes[inside] = (cost - 2.0 * plan.smoothness * belief).argmin(1)
    return codes


def noise_level(light: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of the noise from how voxels differ from the mean of their six neighbours.

    The median keeps edges out of it; on noise alone the difference has a variance of 7/6.
    """
    around = np.zeros_like(light)
    for axis in range(3):
        around += np.roll(light, 1, axis) + np.roll(light, -1, axis)
    difference = np.abs(light - around / 6.0)[inside]
    return float(np.median(difference[:: max(1, difference.size // 500_000)])) / 0.6745 / np.sqrt(7.0 / 6.0)


def block_cells(shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64], side_mm: float) -> NDArray[np.int32]:
    """Cut a grid into blocks of about `side_mm`: block number of each voxel, (z, y, x) int32."""
    axes = [np.arange(n) // max(1, round(side_mm / s)) for n, s in zip(shape, spacing_zyx_mm, strict=True)]
    counts = [int(a[-1]) + 1 for a in axes]
    z, y, x = axes
    return ((z[:, None, None] * counts[1] + y[:, None]) * counts[2] + x).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """Which supervoxels touch.

    Parameters
    ----------
    edges : (e, 2) int32 array
        Pairs, first id smaller, sorted.
    faces : (e,) int32 array
        Voxel faces that they share.
    step : (e,) float32 array
        Mean absolute difference of brightness across those faces.
    """

    edges: NDArray[np.int32]
    faces: NDArray[np.int32]
    step: NDArray[np.float32]


def find_contacts(labels: NDArray[np.int32], light: NDArray[np.float32], n: int) -> Contacts:
    """Find the pairs of touching supervoxels, ids 0 .. n - 1 in `labels` (z, y, x)."""
    keys, steps = [], []
    for axis in range(3):
        front = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        back = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        touch = labels[front] != labels[back]
        first, second = labels[front][touch].astype(np.int64), labels[back][touch].astype(np.int64)
        keys.append(np.minimum(first, second) * n + np.maximum(first, second))
        steps.append(np.abs(light[front][touch] - light[back][touch]))
    unique, place = np.unique(np.concatenate(keys), return_inverse=True)
    faces = np.bincount(place, minlength=len(unique))
    step = np.bincount(place, weights=np.concatenate(steps), minlength=len(unique)) / np.maximum(faces, 1)
    return Contacts(np.stack([unique // n, unique % n], axis=1).astype(np.int32), faces.astype(np.int32), step.astype(np.float32))


def snap_edges(labels: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give each voxel at a piece's edge to the touching piece whose mean brightness it is closest to, a few times over.

    Pieces may fall apart by it; voxels never cross the body's edge.
    """
    labels = labels.copy()
    for _ in range(_SNAP_ROUNDS):
        n = int(labels.max()) + 1
        mean = (
            np.bincount(labels.ravel(), weights=light.ravel(), minlength=n) / np.maximum(np.bincount(labels.ravel(), minlength=n), 1)
        ).astype(np.float32)
        body = np.bincount(labels.ravel(), weights=inside.ravel(), minlength=n) > 0
        padded = np.pad(labels, 1, mode="edge")
        beside = [
            padded[1 + dz : padded.shape[0] - 1 + dz, 1 + dy : padded.shape[1] - 1 + dy, 1 + dx : padded.shape[2] - 1 + dx]
            for dz, dy, dx in _FACES
        ]
        edge = np.zeros(labels.shape, bool)
        for other in beside:
            edge |= other != labels
        edge &= inside
        best, value = labels[edge], light[edge]
        gap = np.abs(value - mean[best]) - _SNAP_INERTIA
        for other in beside:
            candidate = other[edge]
            distance = np.abs(value - mean[candidate])
            better = (distance < gap) & body[candidate]
            best[better], gap[better] = candidate[better], distance[better]
        labels[edge] = best
    return labels


def join_crumbs(labels: NDArray[np.int32], light: NDArray[np.float32], inside: NDArray[np.bool_], smallest_vox: int) -> NDArray[np.int32]:
    """Join small pieces to the touching piece of most like brightness, on the same side of the body's edge.

    Joined are single voxels, and pieces under `smallest_vox` voxels that do not stand out: the smaller a piece, the more
    it has to differ from every neighbour to be kept, so that noise goes and thin bright or dark strands stay.
    """
    for _ in range(3):
        n = int(labels.max()) + 1
        sizes = np.bincount(labels.ravel(), minlength=n)
        if sizes.min() >= smallest_vox:
            break
        mean = np.bincount(labels.ravel(), weights=light.ravel(), minlength=n) / sizes
        body = np.bincount(labels.ravel(), weights=inside.ravel(), minlength=n) > 0
        edges = find_contacts(labels, light, n).edges
        both = np.concatenate([edges, edges[:, ::-1]])
        both = both[(sizes[both[:, 0]] < smallest_vox) & (body[both[:, 0]] == body[both[:, 1]])]
        gap = np.abs(mean[both[:, 0]] - mean[both[:, 1]])
        order = np.lexsort((-sizes[both[:, 1]], gap, both[:, 0]))
        source, first = np.unique(both[order, 0], return_index=True)
        chosen, gap = both[order[first], 1], gap[order[first]]
        plain = (sizes[source] < 2) | (gap * np.sqrt(sizes[source]) < _STANDS_OUT)
        graph = sparse.coo_matrix((np.ones(plain.sum()), (source[plain], chosen[plain])), shape=(n, n))
        labels = sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int32)[labels]
    return labels
