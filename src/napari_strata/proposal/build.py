"""Put a proposal together from a scan's brightness and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.encoder.embed import FeatureMap
from napari_strata.preprocess import block_mean, resample
from napari_strata.proposal.confidence import Grounds, confidence
from napari_strata.proposal.descriptors import (
    Descriptors,
    Pooler,
    boundary_step,
    brightness_rank,
    describe_brightness,
    sizes_and_centers,
)
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels import (
    Contacts,
    SupervoxelPlan,
    block_cells,
    find_contacts,
    make_supervoxels,
    settle_edges,
)
from napari_strata.proposal.surroundings import Neighborhood, Tissues, tissues_in_rounds
from napari_strata.proposal.trees import region_tree
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Modality, Progress, Volume, no_progress

_AIR_BLOCK_MM = 40.0
_MOST_GROWN_VOXELS = 17_000_000
"""Boxes above this grow their pieces on a coarser copy; edges are snapped to the scan's own voxels all the same."""
_MOST_DESCRIBED_VOXELS = 24_000_000
"""Scans above this are described from every second or third voxel."""
_COMPONENT_WEIGHT = 0.03
"""Brightness that a feature component's unit is worth while pieces grow."""
_FINE_LEVELS = 2
"""Levels that are averaged over a supervoxel; coarser ones change little inside it and are read at its centre."""
_REGION_LEVELS = (1.0, 1.0, 0.5, 0.3)
"""How much each encoder level says about what belongs together."""
_REGION_BRIGHTNESS, _REGION_AROUND = 6.0, 4.0
"""Weights of brightness, which spans 1, against features of unit length: inside a piece; 2 mm and 4 mm around it."""
_REGION_PLACE = 0.04
"""Weight of 1 mm at a position weight of 1."""
_TISSUE_BRIGHTNESS = 6.0
_BLURRED = 0.029
"""Spread of brightness inside pieces at which features and surroundings count in full for tissues. Where brightness tells
tissues apart more finely they count less: there it decides."""
_REGION_SHARES = 1.5
"""Weight of the tissues found in and beside a piece, for what belongs together."""
_RANK_SHARE_TISSUES, _RANK_SHARE_REGIONS = 0.3, 0.5
"""Share of an MR's rank in its brightness."""


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
    rank = brightness_rank(evidence.light, evidence.inside)
    labels, n = _supervoxels(evidence, rank, settings, seed)
    on_progress(1, steps, "descriptors")
    view = _thinned(labels.shape, evidence.volume.spacing_zyx_mm)
    contacts = find_contacts(np.ascontiguousarray(labels[view]), np.ascontiguousarray(evidence.light[view]), n)
    described = _describe(evidence, rank, labels, n, contacts, view)
    del rank
    body = np.bincount(labels[evidence.inside], minlength=n) > 0.5 * described.sizes_vox
    on_progress(2, steps, "tree of tissues")
    tissues = find_tissues(described, contacts, body, evidence.volume, settings)
    on_progress(3, steps, "tree of regions")
    vectors = region_vectors(described, tissues.shares, settings, evidence.volume.modality)
    regions = region_tree(vectors, described.sizes_vox, contacts.edges, ~body, centers_mm=described.center_zyx_mm)
    sure = confidence(Grounds(tissues.vectors, vectors, tissues.tree, regions, contacts, described.sizes_vox))
    on_progress(steps, steps, "done")
    return Proposal(
        evidence.volume,
        labels,
        described.table(body),
        described.names,
        regions,
        tissues.tree,
        sure,
        contacts.edges,
        descriptor_scale=described.scale(body),
    )


def _supervoxels(evidence: Evidence, rank: NDArray[np.float32], settings: ProposeSettings, seed: int) -> tuple[NDArray[np.int32], int]:
    """Make supervoxels in the body's box and large blocks around it, on the scan's own grid."""
    box, spacing = evidence.features.grid.box, evidence.volume.spacing_zyx_mm
    step = _coarsening(evidence.features.grid.box_shape, spacing, _MOST_GROWN_VOXELS)
    inner = _grown(evidence, rank, settings, seed, step)
    if max(step) > 1:
        for axis, (times, size) in enumerate(zip(step, evidence.features.grid.box_shape, strict=True)):
            inner = np.take(np.repeat(inner, times, axis=axis), np.arange(size), axis=axis)
        inner = settle_edges(inner, evidence.light[box], evidence.inside[box])
    outer = block_cells(evidence.light.shape, spacing, _AIR_BLOCK_MM)
    outer += inner.max() + 1
    outer[box] = inner
    used = np.bincount(outer.ravel()) > 0
    number = (np.cumsum(used) - 1).astype(np.int32)
    return number[outer], int(used.sum())


def _coarsening(shape: Sequence[int], spacing_zyx_mm: NDArray[np.float64], most: int) -> tuple[int, int, int]:
    """Give how many voxels to join along each axis so that at most `most` are left, the finest axis first."""
    step = [1, 1, 1]
    while np.prod([-(-n // k) for n, k in zip(shape, step, strict=True)]) > most:
        left = [mm * k if k < n else np.inf for mm, k, n in zip(spacing_zyx_mm, step, shape, strict=True)]
        step[int(np.argmin(left))] += 1
    return step[0], step[1], step[2]


def _grown(
    evidence: Evidence, rank: NDArray[np.float32], settings: ProposeSettings, seed: int, step: tuple[int, int, int]
) -> NDArray[np.int32]:
    """Grow supervoxels over the body's box, on a grid made coarser by `step`."""
    looks, inside = piece_looks(evidence, rank, settings, seed=seed, step=step)
    return make_supervoxels(looks, inside, evidence.volume.spacing_zyx_mm * step, SupervoxelPlan(target=settings.supervoxels))


def piece_looks(
    evidence: Evidence, rank: NDArray[np.float32], settings: ProposeSettings, *, seed: int, step: tuple[int, int, int] = (1, 1, 1)
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Give what voxels are compared by while pieces grow, over the body's box.

    In an MR that is brightness and its rank, half each, so that the range where most of the body lies counts most.

    Parameters
    ----------
    rank : (z, y, x) float32 array
        From `brightness_rank`, over the whole scan.
    step : tuple of 3 int
        Voxels to average along each axis.

    Returns
    -------
    (z, y, x, channel) float32 array, (z, y, x) bool array
        Brightness and two feature components on a like scale, and the body.
    """
    box = evidence.features.grid.box
    light, inside = evidence.light[box], np.ascontiguousarray(evidence.inside[box])
    if evidence.volume.modality == "mr":
        light = np.float32(0.5) * (light + rank[box])
    if max(step) > 1:
        light = block_mean(light, step)
        inside = block_mean(inside.astype(np.float32), step) > 0.5
    weight = np.float32(_COMPONENT_WEIGHT * settings.feature_weight)
    components = principal_maps(evidence.features, 2, seed=seed) if weight else []
    return np.stack([light, *(resample(weight * component, light.shape) for component in components)], axis=-1), inside


def principal_maps(features: FeatureMap, count: int, *, seed: int) -> list[NDArray[np.float32]]:
    """Give the first principal components of the finest features, (z, y, x) float32 each, on the working grid.

    Their signs are fixed (the largest loading is positive); they are centred, and not scaled.
    """
    finest = features.at_level(0)
    flat = finest.reshape(-1, finest.shape[-1])
    rng = np.random.default_rng(seed)
    sample = flat[rng.choice(len(flat), min(len(flat), 50_000), replace=False)]
    center = sample.mean(axis=0)
    axes = np.linalg.svd(np.concatenate([sample, sample]) - center, full_matrices=False)[2][:count]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    maps = (flat @ axes.T - center @ axes.T).reshape(*finest.shape[:-1], len(axes))
    return [np.ascontiguousarray(maps[..., k]) for k in range(len(axes))]


View = tuple[slice, slice, slice]


def _thinned(shape: tuple[int, ...], spacing_zyx_mm: NDArray[np.float64]) -> View:
    """Choose which voxels of a scan are looked at to describe it: all, or every k-th of a very large one."""
    z, y, x = (slice(k // 2, None, k) for k in _coarsening(shape, spacing_zyx_mm, _MOST_DESCRIBED_VOXELS))
    return z, y, x


def _describe(
    evidence: Evidence, rank: NDArray[np.float32], labels: NDArray[np.int32], n: int, contacts: Contacts, view: View
) -> Descriptors:
    spacing = evidence.volume.spacing_zyx_mm
    sizes, centers = sizes_and_centers(labels, n, spacing)
    seen, light = np.ascontiguousarray(labels[view]), np.ascontiguousarray(evidence.light[view])
    step = np.array([s.step for s in view])
    brightness = describe_brightness(Pooler(seen, n), light, np.ascontiguousarray(rank[view]), spacing * step)
    missed = np.flatnonzero(np.bincount(seen.ravel(), minlength=n) == 0)
    middle = tuple(np.clip(np.round(centers[missed] / spacing).astype(int), 0, np.array(labels.shape) - 1).T)
    brightness[missed] = np.stack([evidence.light[middle]] * 5, axis=1) * np.array([1, 0, 1, 1, 0], np.float32)
    brightness[missed, 4] = rank[middle]
    return Descriptors(
        features=_pool_features(evidence.features, labels, centers / spacing, n),
        brightness=brightness,
        boundary=boundary_step(contacts, n),
        center_zyx_mm=centers,
        sizes_vox=sizes,
    )


def _pool_features(
    features: FeatureMap, labels: NDArray[np.int32], centers_vox: NDArray[np.floating], n: int
) -> tuple[NDArray[np.float32], ...]:
    """Average the fine levels over the supervoxels, each at its own resolution; read the rest at the centre.

    The rest: coarse levels, and pieces that are too small to be met by a level.
    """
    out = []
    for number in range(len(features.levels)):
        if number >= _FINE_LEVELS:
            out.append(features.read_at(number, centers_vox))
            continue
        values, places = features.inner_level(number)
        poolers = [Pooler(labels[np.ix_(*place)], n) for place in places]
        counts = np.sum([pooler.counts for pooler in poolers], axis=0)
        means = np.sum([pooler.mean(values) * pooler.counts[:, None] for pooler in poolers], axis=0, dtype=np.float32)
        means /= np.maximum(counts, 1)[:, None].astype(np.float32)
        missed = np.flatnonzero(counts == 0)
        means[missed] = features.read_at(number, centers_vox[missed])
        out.append(means)
    return tuple(out)


def find_tissues(described: Descriptors, contacts: Contacts, body: NDArray[np.bool_], volume: Volume, settings: ProposeSettings) -> Tissues:
    """Find what is alike wherever it lies: by brightness, features, and the tissues around."""
    noise = _usual(described.brightness[body, 1], described.sizes_vox[body])
    neighborhood = Neighborhood.of(contacts.edges, described.sizes_vox, body, volume.geometry.voxel_volume_mm3)
    nothing = np.empty((len(body), 0), np.float32)
    return tissues_in_rounds(
        np.float32(_TISSUE_BRIGHTNESS) * _evened_brightness(described, volume.modality, _RANK_SHARE_TISSUES),
        np.concatenate([nothing, *described.features], axis=1),
        described.sizes_vox,
        contacts.edges,
        body,
        neighborhood,
        weight=settings.feature_weight * min(1.0, noise / _BLURRED),
    )


def _usual(values: NDArray[np.float32], weights: NDArray[np.integer]) -> float:
    """Give the weighted median, 0 of nothing."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)]) if len(values) else 0.0


def _evened_brightness(described: Descriptors, modality: Modality, share: float) -> NDArray[np.float32]:
    """Give each supervoxel's brightness; in an MR mixed with its rank, which spreads out the range where most tissue lies."""
    light = described.brightness[:, 0]
    return light if modality == "ct" else (1 - share) * light + share * described.brightness[:, 4]


def region_vectors(
    described: Descriptors, shares: NDArray[np.float32], settings: ProposeSettings, modality: Modality
) -> NDArray[np.float32]:
    """Give what makes touching supervoxels belong together: brightness, features, tissues and position, (n, d) float32."""
    light = _REGION_BRIGHTNESS * _evened_brightness(described, modality, _RANK_SHARE_REGIONS)
    around = _REGION_AROUND * described.brightness[:, 2:4]
    levels = [level * (weight * settings.feature_weight) for level, weight in zip(described.features, _REGION_LEVELS, strict=False)]
    place = described.center_zyx_mm * np.float32(settings.position_weight * _REGION_PLACE)
    return np.concatenate([light[:, None], around, *levels, np.float32(_REGION_SHARES) * shares, place], axis=1).astype(np.float32)
