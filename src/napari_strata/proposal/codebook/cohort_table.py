"""Data that is compared between scans of a cohort, and alignment of their intensities."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import CodebookError
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels.clustering import one_openmp_thread
from napari_strata.proposal.supervoxels.context_features import (
    AROUND_MM,
    SMOOTHED_MM,
    Neighborhood,
)
from napari_strata.volume import Modality

INTENSITY_WEIGHT, AROUND_WEIGHT, FEATURE_WEIGHT = 6.0, 3.0, 1.0
"""Weights during alignment of intensity inside, intensity around, and features.

Intensity spans 1; features have unit length.
"""
_LEAVES = 200
"""Maximum number of leaves of a scan."""
_SCALES = np.exp(np.linspace(-0.7, 0.7, 15))
"""Scales of intensity that are tried: half to double."""
_OFFSETS = np.linspace(-0.8, 0.8, 33)
"""Offsets of intensity that are tried."""
_TRUSTED_SHARE = 0.8
"""Share of a scan that must match the other scan; the rest may be missing from it."""
_FINE_STEPS = np.linspace(-1.0, 1.0, 7)
"""Positions of the finer search, in steps of the first one."""


@dataclass(frozen=True, slots=True, eq=False)
class CohortTable:
    """Data of one scan that a codebook needs, much smaller than the proposal.

    Parameters
    ----------
    features : (n, channel) float32 array
        Raw features of all levels, averaged over near neighbours.
    intensity : (n, 3) float32 array
        Mean inside, and after smoothing by 2 mm and 4 mm, in [0, 1] on the scan's scale.
    sizes_vox : (n,) int64 array
        Voxels.
    body : (n,) bool array
        Supervoxels outside the background.
    neighborhood : Neighborhood
        Averages over neighbouring supervoxels.
    names : tuple of str
        Descriptor columns of the proposal.
    modality : {"ct", "mr"}
        Modality of the scan.
    weights_sha256 : str or None
        Hash of the encoder; None for a proposal without one.
    settings : dict
        Settings of the proposal.
    """

    features: NDArray[np.float32]
    intensity: NDArray[np.float32]
    sizes_vox: NDArray[np.int64]
    body: NDArray[np.bool_]
    neighborhood: Neighborhood
    names: tuple[str, ...]
    modality: Modality
    weights_sha256: str | None
    settings: dict[str, Any]

    def tissue_context(
        self, tissue: NDArray[np.integer], n: int
    ) -> NDArray[np.float32]:
        """Return the shares of tissues 0 .. n within about 14 mm of each supervoxel.

        The result is (n_supervoxels, n + 1) float32.
        """
        return self.neighborhood.shares(
            tissue, n, max(1, self.neighborhood.hops(AROUND_MM))
        )


@dataclass(frozen=True, slots=True)
class IntensityMap:
    """Map from a scan's intensity to the codebook's: scale * intensity + offset."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, intensity: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map intensity, any shape."""
        return (np.float32(self.scale) * intensity + np.float32(self.offset)).astype(
            np.float32
        )


_LEAVES_IN_FILES = {
    "reference features": "features",
    "reference brightness": "intensity",
    "reference share": "share",
}
"""Name of each array in codebooks and teachings, and the attribute of `Leaves` that it holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Up to 200 groups of similar supervoxels that summarise a scan.

    Parameters
    ----------
    features : (leaf, channel) float32 array
        Mean features.
    intensity : (leaf, 3) float32 array
        Mean intensity inside, and smoothed by 2 mm and 4 mm.
    share : (leaf,) float32 array
        Share of the body's voxels; sums to 1.
    """

    features: NDArray[np.float32]
    intensity: NDArray[np.float32]
    share: NDArray[np.float32]

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Arrays by their names in files."""
        return {key: getattr(self, name) for key, name in _LEAVES_IN_FILES.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Leaves:
        """Build leaves from the arrays of a file.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        return cls(**{name: arrays[key] for key, name in _LEAVES_IN_FILES.items()})


def cohort_table(proposal: Proposal) -> CohortTable:
    """Extract the data that a codebook needs from a proposal.

    Raises
    ------
    CodebookError
        If the proposal does not keep the scale of its descriptors (cases of earlier
        versions), or has no intensity.
    """
    if proposal.descriptor_scale is None:
        raise CodebookError(
            f"The proposal for {proposal.volume.name} does not keep raw descriptors,"
            " which a codebook needs. Propose the scan again."
        )
    names = proposal.descriptor_names
    columns = ("brightness mean", "brightness 2 mm", "brightness 4 mm")
    if not set(columns) <= set(names):
        raise CodebookError(
            f"The proposal for {proposal.volume.name} has no intensity columns."
            " Propose the scan again with Strata."
        )
    middle, spread = proposal.descriptor_scale
    raw = proposal.descriptors * spread + middle
    channels = [k for k, name in enumerate(names) if name.startswith("feature ")]
    sizes = np.bincount(proposal.supervoxels.ravel(), minlength=proposal.n_supervoxels)
    tree = proposal.tissue_tree
    body = np.ones(len(sizes), bool)
    body[tree.leaf_order[: tree.n_background]] = False
    around = Neighborhood.of(
        proposal.edges, sizes, body, proposal.volume.geometry.voxel_volume_mm3
    )
    return CohortTable(
        features=around.averaged(
            raw[:, channels].astype(np.float32), around.hops(SMOOTHED_MM)
        ),
        intensity=raw[:, [names.index(name) for name in columns]].astype(np.float32),
        sizes_vox=sizes,
        body=body,
        neighborhood=around,
        names=names,
        modality=proposal.volume.modality,
        weights_sha256=proposal.provenance.get("weights_sha256"),
        settings=dict(proposal.provenance.get("settings", {})),
    )


def leaves_of(table: CohortTable, *, seed: int) -> Leaves:
    """Cluster the supervoxels of a scan's body into up to 200 leaves."""
    own = np.flatnonzero(table.body)
    vectors = _weighted_vectors(table.features[own], table.intensity[own])
    sizes = table.sizes_vox[own].astype(np.float64)
    sample = np.random.default_rng(seed).permutation(len(own))[:12_000]
    count = max(1, min(_LEAVES, len(own) // 4))
    # imported here: the import takes longer than a small proposal
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(
        count,
        n_init=1,
        init="random" if count > 100 else "k-means++",
        max_iter=12,
        random_state=seed,
    )
    with one_openmp_thread(), warnings.catch_warnings():
        # k-means warns of fewer distinct supervoxels than leaves; empty ones go below
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(vectors[sample], sample_weight=sizes[sample])
        leaf = means.predict(vectors)
    weight = np.bincount(leaf, weights=sizes, minlength=count)
    used = weight > 0

    def pool(values: NDArray[np.floating]) -> NDArray[np.float32]:
        columns = [
            np.bincount(leaf, weights=sizes * column, minlength=count)[used]
            / weight[used]
            for column in values.T
        ]
        return (
            np.stack(columns, axis=1).astype(np.float32)
            if columns
            else np.zeros((int(used.sum()), 0), np.float32)
        )

    return Leaves(
        pool(table.features[own]),
        pool(table.intensity[own]),
        (weight[used] / weight.sum()).astype(np.float32),
    )


def _weighted_vectors(
    features: NDArray[np.floating], intensity: NDArray[np.floating]
) -> NDArray[np.float32]:
    weights = np.array([INTENSITY_WEIGHT, AROUND_WEIGHT, AROUND_WEIGHT], np.float32)
    return np.concatenate(
        [weights * intensity, FEATURE_WEIGHT * features], axis=1
    ).astype(np.float32)


def align_intensity(scan: Leaves, to: Leaves) -> IntensityMap:
    """Find the affine map of intensity that best matches a scan's leaves to another's.

    Leaves are compared by features and mapped intensity. Every leaf is matched to the
    nearest one of the other scan, in both directions. The worst fifth of each scan does
    not count. The worse of the two directions decides, so that neither a map onto a
    point nor one onto a single tissue wins. Differences of intensity are measured on the
    geometric mean of both scales. A grid search is followed by a finer one around its
    best.
    """
    apart = ((scan.features[:, None] - to.features[None]) ** 2).sum(
        axis=-1
    ) * FEATURE_WEIGHT**2
    best = min(
        (_mismatch(scan, to, apart, s, o), float(s), float(o))
        for s in _SCALES
        for o in _OFFSETS
    )
    step_scale, step_offset = np.log(_SCALES[1] / _SCALES[0]), _OFFSETS[1] - _OFFSETS[0]
    near = (
        (best[1] * np.exp(step_scale * k), best[2] + step_offset * j)
        for k in _FINE_STEPS
        for j in _FINE_STEPS
    )
    best = min((_mismatch(scan, to, apart, s, o), float(s), float(o)) for s, o in near)
    return IntensityMap(best[1], best[2])


def _mismatch(
    scan: Leaves, to: Leaves, apart: NDArray[np.floating], scale: float, offset: float
) -> float:
    """Return the mismatch of two scans' leaves under a map of intensity."""
    squares = apart.copy()
    for column, weight in enumerate((INTENSITY_WEIGHT, AROUND_WEIGHT, AROUND_WEIGHT)):
        gap = (scale * scan.intensity[:, column, None] + offset) - to.intensity[
            None, :, column
        ]
        squares += np.float32(weight**2 / scale) * gap**2
    return max(
        _trusted_mean(squares.min(axis=1), scan.share),
        _trusted_mean(squares.min(axis=0), to.share),
    )


def _trusted_mean(squares: NDArray[np.floating], share: NDArray[np.floating]) -> float:
    order = np.argsort(squares)
    kept = np.cumsum(share[order]) <= _TRUSTED_SHARE
    kept[0] = True
    return float((squares[order] * share[order])[kept].sum() / share[order][kept].sum())
