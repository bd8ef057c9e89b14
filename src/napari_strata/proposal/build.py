"""Put a proposal together from a scan's brightness and features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.encoder.embed import FeatureMap
from napari_strata.preprocess import resample
from napari_strata.proposal.descriptors import Descriptors, Pooler, boundary_step, centers_mm, describe_brightness
from napari_strata.proposal.hierarchy import Hierarchy
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels import Contacts, SupervoxelPlan, block_cells, find_contacts, make_supervoxels
from napari_strata.proposal.trees import region_tree, tissue_tree
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Progress, Volume, no_progress

_AIR_BLOCK_MM = 40.0
_TISSUE_LEVELS = (0.5, 0.5, 0.1, 0.0)
_REGION_LEVELS = (0.7, 0.8, 1.0, 1.0)
"""How much each encoder level says about tissue, and about what belongs together."""
_TISSUE_BRIGHTNESS, _REGION_BRIGHTNESS = 10.0, 4.0
"""Weight of brightness, which spans 1, against features of unit length; chosen with `_TISSUE_LEVELS` on MNI152 and
synthetic heads: the coarse levels differ within one tissue nearly as much as between tissues."""
_SURE_CUTS = (8, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a proposal is built from.

    Parameters
    ----------
    volume : Volume
        The scan.
    inside : (z, y, x) bool array
        The body.
    light : (z, y, x) float32 array
        Brightness on the scan's grid.
    features : FeatureMap
        From the encoder.
    """

    volume: Volume
    inside: NDArray[np.bool_]
    light: NDArray[np.float32]
    features: FeatureMap


def build_proposal(evidence: Evidence, settings: ProposeSettings, *, seed: int, on_progress: Progress = no_progress) -> Proposal:
    """Make supervoxels, descriptors, both trees and the confidence of a scan.

    Returns
    -------
    Proposal
        With an empty provenance, which the pipeline fills.
    """
    steps = 4
    on_progress(0, steps, "supervoxels")
    labels, n = _supervoxels(evidence, settings, seed)
    on_progress(1, steps, "descriptors")
    contacts = find_contacts(labels, evidence.light, n)
    described = _describe(evidence, labels, n, contacts)
    body = _share_inside(labels, evidence.inside, n) > 0.5
    on_progress(2, steps, "tree of regions")
    regions = region_tree(_region_vectors(described, settings), described.sizes_vox, contacts.edges, ~body)
    on_progress(3, steps, "tree of tissues")
    alike = tissue_vectors(described, settings)
    tissues = tissue_tree(alike, described.sizes_vox, contacts.edges, ~body, seed=seed)
    sure = confidence(alike, described.sizes_vox, tissues)
    on_progress(steps, steps, "done")
    return Proposal(evidence.volume, labels, described.table(body), described.names, regions, tissues, sure, contacts.edges)


def _supervoxels(evidence: Evidence, settings: ProposeSettings, seed: int) -> tuple[NDArray[np.int32], int]:
    """Make supervoxels in the body's box and large blocks around it, on the scan's own grid."""
    box, spacing = evidence.features.grid.box, evidence.volume.spacing_zyx_mm
    light = np.ascontiguousarray(evidence.light[box])
    components = _components(evidence, settings, seed)
    channels = np.concatenate([light[..., None], components], axis=-1)
    plan = SupervoxelPlan(target=settings.supervoxels, codes=settings.intensity_codes, seed=seed)
    inner = make_supervoxels(channels, np.ascontiguousarray(evidence.inside[box]), spacing, plan)
    outer = block_cells(evidence.light.shape, spacing, _AIR_BLOCK_MM) + inner.max() + 1
    outer[box] = inner
    used = np.zeros(int(outer.max()) + 1, bool)
    used[outer.ravel()] = True
    number = (np.cumsum(used) - 1).astype(np.int32)
    return number[outer], int(used.sum())


def _components(evidence: Evidence, settings: ProposeSettings, seed: int) -> NDArray[np.float32]:
    """Give the first principal components of the finest features on the box, (z, y, x, 2), scaled against brightness."""
    finest = evidence.features.at_level(0)
    flat = finest.reshape(-1, finest.shape[-1])
    rng = np.random.default_rng(seed)
    sample = flat[rng.choice(len(flat), min(len(flat), 50_000), replace=False)]
    center = sample.mean(axis=0)
    axes = np.linalg.svd(np.concatenate([sample, sample]) - center, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    maps = ((flat - center) @ axes.T).reshape(*finest.shape[:-1], 2) * np.float32(0.06 * settings.feature_weight)
    shape = evidence.features.grid.box_shape
    return np.stack([resample(np.ascontiguousarray(maps[..., k]), shape) for k in range(2)], axis=-1)


def _share_inside(labels: NDArray[np.int32], inside: NDArray[np.bool_], n: int) -> NDArray[np.float64]:
    return np.bincount(labels.ravel(), weights=inside.ravel(), minlength=n) / np.bincount(labels.ravel(), minlength=n)


def _describe(evidence: Evidence, labels: NDArray[np.int32], n: int, contacts: Contacts) -> Descriptors:
    grid, spacing = evidence.features.grid, evidence.volume.spacing_zyx_mm
    pooler = Pooler(labels, n)
    centers = centers_mm(labels, n, spacing)
    return Descriptors(
        features=_pool_features(evidence.features, labels[grid.box], centers / spacing, n),
        brightness=describe_brightness(pooler, evidence.light, spacing),
        boundary=boundary_step(contacts, n),
        center_zyx_mm=centers,
        sizes_vox=pooler.counts,
    )


def _pool_features(
    features: FeatureMap, labels: NDArray[np.int32], centers_vox: NDArray[np.floating], n: int
) -> tuple[NDArray[np.float32], ...]:
    """Average each level over the supervoxels, at working resolution; pieces too small for it are read at their centre."""
    grid = features.grid
    picks = [((np.arange(m) + 0.5) * k / m).astype(int) for m, k in zip(grid.shape_zyx, labels.shape, strict=True)]
    pooler = Pooler(labels[np.ix_(*picks)], n)
    missing = np.flatnonzero(pooler.counts == 0)
    place = [
        np.clip(((centers_vox[missing, a] + 0.5 - s.start) * m / (s.stop - s.start)).astype(int), 0, m - 1)
        for a, (s, m) in enumerate(zip(grid.box, grid.shape_zyx, strict=True))
    ]
    out = []
    for number in range(len(features.levels)):
        level = features.at_level(number)
        means = pooler.mean(level)
        means[missing] = level[tuple(place)]
        out.append(means)
    return tuple(out)


def tissue_vectors(described: Descriptors, settings: ProposeSettings) -> NDArray[np.float32]:
    """Give what makes supervoxels alike wherever they lie: brightness and weighted features, (n, d) float32."""
    light = described.brightness[:, :1] * np.float32(_TISSUE_BRIGHTNESS)
    levels = [
        level * (weight * settings.feature_weight) for level, weight in zip(described.features, _TISSUE_LEVELS, strict=True) if weight
    ]
    return np.concatenate([light, *levels], axis=1).astype(np.float32)


def _region_vectors(described: Descriptors, settings: ProposeSettings) -> NDArray[np.float32]:
    """Give what makes touching supervoxels belong together: as for tissues, with position in units of 100 mm."""
    light = described.brightness[:, [0, 2, 3]] * np.array([0.7, 0.5, 0.5], np.float32) * _REGION_BRIGHTNESS
    levels = [level * (weight * settings.feature_weight) for level, weight in zip(described.features, _REGION_LEVELS, strict=True)]
    place = described.center_zyx_mm * np.float32(settings.position_weight / 30.0)
    return np.concatenate([light, *levels, place], axis=1).astype(np.float32)


def confidence(vectors: NDArray[np.float32], sizes: NDArray[np.integer], tree: Hierarchy) -> NDArray[np.float32]:
    """Say how clearly each supervoxel belongs to its tissue rather than to the runner-up, (n,) float32 in [0, 1].

    1 - (distance to the own tissue's mean / distance to the nearest other one), averaged over a few cuts, 0 where the
    runner-up is nearer. Not calibrated.
    """
    total = np.zeros(len(vectors), np.float64)
    for cut in _SURE_CUTS:
        table = tree.cut(cut)
        groups = int(table.max()) + 1
        weight = np.maximum(np.bincount(table, weights=sizes, minlength=groups), 1)
        means = np.stack([np.bincount(table, weights=sizes * column, minlength=groups) for column in vectors.T], axis=1) / weight[:, None]
        squares = (vectors**2).sum(1)[:, None] + (means**2).sum(1)[None] - 2.0 * vectors @ means.T
        distance = np.sqrt(np.maximum(squares, 0.0))
        own = distance[np.arange(len(table)), table]
        distance[np.arange(len(table)), table] = np.inf
        other = distance.min(axis=1) if groups > 1 else np.ones(len(table))
        total += np.clip(1.0 - own / np.maximum(other, 1e-9), 0.0, 1.0)
    return (total / len(_SURE_CUTS)).astype(np.float32)


def summary(proposal: Proposal) -> dict[str, Any]:
    """Give a few numbers about a proposal, for logs and sidecars."""
    return {"supervoxels": proposal.n_supervoxels, "in_body": proposal.tissue_tree.max_regions, "edges": len(proposal.edges)}
