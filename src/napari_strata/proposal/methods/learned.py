"""Method with an encoder: cluster a scan by its intensity and learned features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from napari_strata.parallel import both, each
from napari_strata.preprocess.intensity import encoder_intensity, filter_threads
from napari_strata.proposal.confidence import (
    ConfidenceInputs,
    estimate_confidence,
    is_brain_alone,
)
from napari_strata.proposal.hierarchy.build_trees import region_tree
from napari_strata.proposal.hierarchy.stable_cut import (
    STABLE_REGIONS,
    STABLE_TISSUES,
    StableCut,
    stable_count,
    stable_cut,
)
from napari_strata.proposal.hierarchy.tissue_division import supervoxel_purity
from napari_strata.proposal.methods.base import MethodInputs, MethodResult
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels.clustering import Contacts
from napari_strata.proposal.supervoxels.context_features import (
    Neighborhood,
    Tissues,
    find_tissues_iteratively,
)
from napari_strata.proposal.supervoxels.descriptors import (
    Descriptors,
    Pooler,
    boundary_step,
)
from napari_strata.proposal.supervoxels.oversegmentation import (
    InitialSegments,
    PreparedScan,
    Supervoxels,
    find_supervoxels,
    grow_initial_segments,
)
from napari_strata.proposal.supervoxels.prefetch import Prefetch
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Modality, Progress, Volume, no_progress

if TYPE_CHECKING:
    from napari_strata.encoder.embed import FeatureMap


@dataclass(frozen=True, slots=True)
class RegionWeights:
    """Weights in the region tree, against features of unit length at weight 1."""

    levels: tuple[float, ...] = (1.0, 1.0, 0.5, 0.3)
    """Each encoder level, finest first; coarse levels blur the borders of regions."""
    intensity: float = 6.0
    """Intensity inside a supervoxel, which spans 1."""
    smoothed_intensity: float = 4.0
    """Intensity smoothed by 2 mm and by 4 mm, less specific than that inside."""
    position: float = 0.04
    """Position per mm at a position weight of 1, so that nearby supervoxels merge first."""
    tissue_shares: float = 1.5
    """Shares of 16 tissues in and beside a supervoxel, so that regions follow tissues."""
    rank_share: float = 0.5
    """Share of rank in an MR's intensity, which spreads the range of most tissue."""


@dataclass(frozen=True, slots=True)
class TissueWeights:
    """Weights in the tissue tree, against features of unit length at weight 1."""

    intensity: float = 6.0
    """Intensity inside a supervoxel, which spans 1."""
    rank_share: float = 0.3
    """Share of rank in an MR's intensity; see `RegionWeights.rank_share`."""
    full_spread: float = 0.029
    """Intensity spread inside supervoxels from which features and context count in full.

    With less spread, intensity separates tissues well and they count less in proportion.
    """
    telling_features: float = 1.2
    """Weight of features and context in the tree, where they add much to intensity."""
    repeating_features: float = 0.4
    """The same where intensity can be read from features almost exactly."""


_FINE_LEVELS = 2
"""Levels that are averaged over a supervoxel.

Coarser ones vary little inside it and are read at its centre.
"""
_REGION = RegionWeights()
_TISSUE = TissueWeights()


@dataclass(frozen=True, slots=True, eq=False)
class ProposalInputs:
    """Inputs of `build_proposal`.

    Parameters
    ----------
    prepared : PreparedScan
        The scan, its body and its intensity.
    features : FeatureMap
        From the encoder.
    """

    prepared: PreparedScan
    features: FeatureMap


def propose(inputs: MethodInputs) -> MethodResult:
    """Propose regions from the features of the encoder.

    Raises
    ------
    GeometryError
        If the scan contains no body.
    WeightsError
        If the weights cannot be used.
    SettingsError
        If a CUDA device is requested and there is none.
    """
    volume, settings, run = inputs.volume, inputs.settings, inputs.run
    on_progress, stage = inputs.on_progress, inputs.stage
    with (
        filter_threads(run.threads),
        Prefetch(volume, settings, threads=run.threads) as prefetch,
    ):
        with stage("prepare"):
            on_progress(0, 1, "finding the body")
            # importing the runtime takes time; the prefetch thread finds the body
            # meanwhile
            from napari_strata.encoder.embed import embed_intensity
            from napari_strata.encoder.identity import encoder_hash
            from napari_strata.encoder.runtime.select import open_runtime

            encoder = open_runtime(
                inputs.weights,
                runtime=run.runtime,
                device=run.device,
                threads=run.threads,
            )
            prepared = prefetch.prepared_scan(on_progress)
        with stage("encode"):
            features = embed_intensity(
                encoder_intensity(
                    prepared.intensity,
                    prepared.inside,
                    volume.modality,
                    box=prepared.grid.box,
                ),
                prepared.grid,
                encoder,
                settings=settings,
                on_progress=on_progress,
            )
        with stage("grow"):
            initial = prefetch.initial_segments(on_progress)
        # threads share whole parts of the work; sums do not depend on their number
        with stage("build"), threadpool_limits(1, user_api="blas"):
            proposal = build_proposal(
                ProposalInputs(prepared, features),
                settings,
                seed=run.seed,
                initial=initial,
                on_progress=on_progress,
            )
    return MethodResult(
        proposal,
        encoder.device,
        encoder.threads,
        [s / prepared.magnification for s in prepared.grid.spacing_zyx_mm],
        prepared.magnification,
        encoder_hash(inputs.weights),
        encoder.record,
    )


def build_proposal(
    evidence: ProposalInputs,
    settings: ProposeSettings,
    *,
    seed: int,
    initial: InitialSegments | None = None,
    on_progress: Progress = no_progress,
) -> Proposal:
    """Make supervoxels, descriptors, both trees and the confidence of a scan.

    Parameters
    ----------
    evidence : ProposalInputs
        The prepared scan and its features.
    settings : ProposeSettings
        Settings of the proposal.
    seed : int
        The same seed gives the same proposal.
    initial : InitialSegments, optional
        Initial segments, if they were made already from the same scan, body, intensity
        and settings.
    on_progress : callable
        Called as (done, total, stage).

    Returns
    -------
    Proposal
        The proposal with an empty provenance, which the pipeline fills.
    """
    steps = 4
    on_progress(0, steps, "supervoxels")
    prepared, volume = evidence.prepared, evidence.prepared.volume
    supervoxels = find_supervoxels(
        prepared,
        initial or grow_initial_segments(prepared, settings),
        evidence.features,
        settings,
        seed=seed,
    )
    on_progress(1, steps, "descriptors")
    described = _describe(evidence.features, supervoxels, volume.spacing_zyx_mm)
    body = supervoxels.body
    on_progress(2, steps, "tree of tissues")
    tissues = find_tissues(described, supervoxels.contacts, body, volume, settings)
    on_progress(3, steps, "tree of regions")
    vectors = region_vectors(described, tissues.shares, settings, volume.modality)

    def merge_regions() -> StableCut:
        merged = region_tree(
            vectors,
            described.sizes_vox,
            supervoxels.contacts.edges,
            ~body,
            centers_mm=described.center_zyx_mm,
            tissues=tissues.classes,
        )
        return stable_cut(merged, described.sizes_vox, *STABLE_REGIONS)

    stable, tissue_tree = both(merge_regions, tissues.tree)
    regions = stable.tree
    confidence = estimate_confidence(
        ConfidenceInputs(
            tissues.vectors,
            vectors,
            tissue_tree,
            regions,
            supervoxels.contacts,
            described.sizes_vox,
            is_brain_alone(
                volume.data, prepared.inside, volume.geometry.voxel_volume_mm3
            ),
        )
    )
    on_progress(steps, steps, "done")
    return Proposal(
        volume,
        supervoxels.labels,
        described.table(body),
        described.names,
        regions,
        tissue_tree,
        confidence.overall(),
        supervoxels.contacts.edges,
        {
            "as_proposed": {
                "tissues": stable_count(tissue_tree, *STABLE_TISSUES),
                "regions": stable.n,
            }
        },
        descriptor_scale=described.scale(body),
        cut_confidence=confidence,
    )


def _describe(
    features: FeatureMap, supervoxels: Supervoxels, spacing_zyx_mm: NDArray[np.float64]
) -> Descriptors:
    """Return the descriptors of supervoxels: pooled features, intensity and position."""
    n = len(supervoxels.sizes_vox)
    return Descriptors(
        features=_pool_features(
            features, supervoxels.labels, supervoxels.center_zyx_mm / spacing_zyx_mm, n
        ),
        intensity=supervoxels.intensity,
        boundary=boundary_step(supervoxels.contacts, n),
        center_zyx_mm=supervoxels.center_zyx_mm,
        sizes_vox=supervoxels.sizes_vox,
    )


def _pool_features(
    features: FeatureMap,
    labels: NDArray[np.int32],
    centers_vox: NDArray[np.floating],
    n: int,
) -> tuple[NDArray[np.float32], ...]:
    """Pool each encoder level over the supervoxels, at the level's own resolution.

    Fine levels are averaged. Coarse levels, and supervoxels that contain no voxel of a
    level, are read at the centroid.
    """

    def pool(number: int) -> NDArray[np.float32]:
        if number >= _FINE_LEVELS:
            return features.read_at(number, centers_vox)
        values, places = features.inner_level(number)
        poolers = [Pooler(labels[np.ix_(*place)], n) for place in places]
        counts = np.sum([pooler.counts for pooler in poolers], axis=0)
        means = np.sum(
            [pooler.mean(values) * pooler.counts[:, None] for pooler in poolers],
            axis=0,
            dtype=np.float32,
        )
        means /= np.maximum(counts, 1)[:, None].astype(np.float32)
        missed = np.flatnonzero(counts == 0)
        means[missed] = features.read_at(number, centers_vox[missed])
        return np.asarray(means)

    return tuple(each(pool, range(len(features.levels))))


def find_tissues(
    described: Descriptors,
    contacts: Contacts,
    body: NDArray[np.bool_],
    volume: Volume,
    settings: ProposeSettings,
) -> Tissues:
    """Find tissues by intensity, features and context, wherever they lie in the scan."""
    noise = _weighted_median(described.intensity[body, 1], described.sizes_vox[body])
    neighborhood = Neighborhood.of(
        contacts.edges, described.sizes_vox, body, volume.geometry.voxel_volume_mm3
    )
    nothing = np.empty((len(body), 0), np.float32)
    return find_tissues_iteratively(
        np.float32(_TISSUE.intensity)
        * _spread_intensity(described, volume.modality, _TISSUE.rank_share),
        np.concatenate([nothing, *described.features], axis=1),
        described.sizes_vox,
        contacts,
        body,
        neighborhood,
        supervoxel_purity(
            described.intensity[:, 0], contacts.edges, contacts.faces, body, noise
        ),
        weight=settings.feature_weight * min(1.0, noise / _TISSUE.full_spread),
        final_weights=(
            settings.feature_weight * _TISSUE.repeating_features,
            settings.feature_weight * _TISSUE.telling_features,
        ),
    )


def _weighted_median(
    values: NDArray[np.float32], weights: NDArray[np.integer]
) -> float:
    """Return the weighted median; 0 if there are no values."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return (
        float(values[order][np.searchsorted(total, total[-1] / 2)])
        if len(values)
        else 0.0
    )


def _spread_intensity(
    described: Descriptors, modality: Modality, share: float
) -> NDArray[np.float32]:
    """Return mean intensity per supervoxel, for MR mixed with its rank.

    The rank spreads out the range in which most tissue lies.
    """
    intensity = described.intensity[:, 0]
    return (
        intensity
        if modality == "ct"
        else (1 - share) * intensity + share * described.intensity[:, 4]
    )


def region_vectors(
    described: Descriptors,
    shares: NDArray[np.float32],
    settings: ProposeSettings,
    modality: Modality,
) -> NDArray[np.float32]:
    """Return the vectors of the region tree, (n, d) float32.

    They hold weighted intensity, features, tissue shares and position.
    """
    intensity = _REGION.intensity * _spread_intensity(
        described, modality, _REGION.rank_share
    )
    around = _REGION.smoothed_intensity * described.intensity[:, 2:4]
    levels = [
        level * (weight * settings.feature_weight)
        for level, weight in zip(described.features, _REGION.levels, strict=False)
    ]
    place = described.center_zyx_mm * np.float32(
        settings.position_weight * _REGION.position
    )
    return np.concatenate(
        [
            intensity[:, None],
            around,
            *levels,
            np.float32(_REGION.tissue_shares) * shares,
            place,
        ],
        axis=1,
    ).astype(np.float32)
