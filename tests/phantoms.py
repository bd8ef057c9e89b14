"""Small scans and proposals for tests, made in milliseconds without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.cluster.hierarchy import linkage

from napari_strata.proposal.hierarchy.tree import Hierarchy, hierarchy_from_merges
from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import Geometry, Volume

INTENSITIES = (0.0, 100.0, 300.0, 500.0, 700.0, 900.0)
"""Mean intensity of air (0), the body (1) and four organs in it (2-5).

Organs 2 and 3 come twice, apart.
"""

_ORGANS = (
    (1, (0.5, 0.5, 0.5), 0.46),
    (2, (0.5, 0.45, 0.3), 0.15),
    (2, (0.5, 0.45, 0.75), 0.11),
    (3, (0.35, 0.72, 0.5), 0.14),
    (3, (0.7, 0.3, 0.5), 0.1),
    (4, (0.65, 0.68, 0.66), 0.12),
    (5, (0.3, 0.3, 0.55), 0.09),
)


def ball(
    shape: tuple[int, ...], center: tuple[float, ...], radius: float
) -> NDArray[np.bool_]:
    """Give a ball in a grid, in voxels."""
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return np.asarray(((grid - np.array(center)) ** 2).sum(-1) <= radius**2)


def phantom_truth(shape: tuple[int, int, int] = (24, 28, 32)) -> NDArray[np.uint8]:
    """Give the class 0-5 (index into `INTENSITIES`) of every voxel.

    Ellipsoids in a body in air.
    """
    grid = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"), axis=-1
    )
    truth = np.zeros(shape, np.uint8)
    for organ, center, radius in _ORGANS:
        truth[((grid - center) ** 2).sum(axis=-1) <= radius**2] = organ
    return truth


def phantom_volume(
    shape: tuple[int, int, int] = (24, 28, 32),
    spacing_zyx_mm: tuple[float, float, float] = (2, 1, 1),
    seed: int = 0,
) -> Volume:
    """Make a small MR-like scan.

    Organs of distinct intensity in a body in air, with noise (sd 15).
    """
    noise = np.random.default_rng(seed).normal(0, 15, shape)
    data = (np.array(INTENSITIES)[phantom_truth(shape)] + noise).astype(np.float32)
    return Volume(
        data, Geometry.from_spacing(shape, spacing_zyx_mm), "mr", name="phantom"
    )


def phantom_proposal(
    volume: Volume | None = None, *, block: int = 4, seed: int = 0
) -> Proposal:
    """Make a proposal for a phantom.

    Supervoxels are blocks split by the phantom's intensity classes.

    The air (intensities nearer 0 than 100) is the trees' background. Descriptors are
    the mean and standard deviation of intensity and the position; the tissue tree looks
    at intensity only, the region tree at position too.
    """
    volume = phantom_volume(seed=seed) if volume is None else volume
    edges_between = (np.array(INTENSITIES[1:]) + np.array(INTENSITIES[:-1])) / 2
    smooth = ndi.median_filter(volume.data.astype(np.float32), 3)
    supervoxels, code = _blocks_by_code(np.digitize(smooth, edges_between), block)
    background = np.flatnonzero(code == 0)
    foreground = np.flatnonzero(code > 0)
    raw, names = _describe(volume, supervoxels)
    body = raw[foreground] if len(foreground) else raw
    descriptors = ((raw - body.mean(axis=0)) / (body.std(axis=0) + 1e-6)).astype(
        np.float32
    )
    sizes = np.bincount(supervoxels.ravel(), minlength=len(code))
    trees = [
        _tree(descriptors * weight, foreground, background, sizes)
        for weight in ([3, 0, 1, 1, 1], [1, 0, 0, 0, 0])
    ]
    return Proposal(
        volume=volume,
        supervoxels=supervoxels,
        descriptors=descriptors,
        descriptor_names=names,
        region_tree=trees[0],
        tissue_tree=trees[1],
        confidence=np.random.default_rng(seed)
        .uniform(0.2, 1, len(code))
        .astype(np.float32),
        edges=_touching(supervoxels),
        provenance={
            "settings": {"supervoxels": len(code)},
            "seed": seed,
            "versions": {"napari_strata": "test"},
            "weights_hash": "none",
        },
    )


def _blocks_by_code(
    code: NDArray[np.integer], block: int
) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    z, y, x = np.indices(code.shape) // block
    keys = ((z * 1000 + y) * 1000 + x) * 10 + code
    found, inverse = np.unique(keys, return_inverse=True)
    return inverse.reshape(code.shape).astype(np.int32), found % 10


def _describe(
    volume: Volume, supervoxels: NDArray[np.int32]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    ids = np.arange(supervoxels.max() + 1)
    mean = ndi.mean(volume.data, supervoxels, ids)
    deviation = ndi.standard_deviation(volume.data, supervoxels, ids)
    position = (
        np.array(ndi.center_of_mass(np.ones(supervoxels.shape), supervoxels, ids))
        * volume.spacing_zyx_mm
    )
    names = ("intensity mean", "intensity sd", "position z", "position y", "position x")
    return np.column_stack([mean, deviation, position]), names


def _tree(
    points: NDArray[np.floating],
    foreground: NDArray[np.integer],
    background: NDArray[np.integer],
    sizes: NDArray[np.integer],
) -> Hierarchy:
    parts = []
    for leaves in (foreground, background):
        joined = (
            linkage(points[leaves], "ward") if len(leaves) > 1 else np.zeros((0, 4))
        )
        parts += [leaves, joined[:, :2].astype(np.int64), joined[:, 2]]
    return hierarchy_from_merges(*parts, sizes=sizes)


def _touching(supervoxels: NDArray[np.int32]) -> NDArray[np.int32]:
    pairs = []
    for axis in range(3):
        ahead = np.moveaxis(supervoxels, axis, 0)
        pair = np.stack([ahead[:-1].ravel(), ahead[1:].ravel()], axis=1)
        pairs.append(np.unique(np.sort(pair[pair[:, 0] != pair[:, 1]], axis=1), axis=0))
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int32)


def propose_phantom(volume, *, on_progress=lambda *_step: None, **_settings):
    """Stand in for `strata.propose` where a window is tested and not a proposal."""
    on_progress(1, 2, "Looking at the phantom")
    return phantom_proposal(volume)
