"""What is compared between scans.

Raw looks of supervoxels, their surroundings, and intensity brought to one scale.
"""

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
"""While intensity is aligned.

Intensity inside and around a supervoxel, which span 1, against features of unit length.
"""
_LEAVES = 200
_SCALES = np.exp(np.linspace(-0.7, 0.7, 15))
_OFFSETS = np.linspace(-0.8, 0.8, 33)
_TRUSTED_SHARE = 0.8
"""Share of a scan that has to find its like in the other.

The rest may be what the other does not show.
"""
_FINE_STEPS = np.linspace(-1.0, 1.0, 7)


@dataclass(frozen=True, slots=True, eq=False)
class CohortTable:
    """What a codebook needs of one scan; small beside the proposal.

    Parameters
    ----------
    features : (n, channel) float32 array
        Raw features of all levels, averaged over near neighbours.
    intensity : (n, 3) float32 array
        Inside, and 2 mm and 4 mm around, in [0, 1] by the scan's own scale.
    sizes_vox : (n,) int64 array
        Voxels.
    body : (n,) bool array
        Supervoxels outside the background.
    neighborhood : Neighborhood
        Who lies around whom.
    names : tuple of str
        Descriptor columns of the proposal.
    modality : {"ct", "mr"}
        Of the scan.
    weights_sha256 : str or None
        The encoder; None for a proposal without one.
    settings : dict
        Of the proposal.
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

    def surroundings(self, tissue: NDArray[np.integer], n: int) -> NDArray[np.float32]:
        """Return the share of each of tissues 0 .. n about 14 mm around each supervoxel.

        (n_supervoxels, n + 1) float32.
        """
        return self.neighborhood.shares(
            tissue, n, max(1, self.neighborhood.hops(AROUND_MM))
        )


@dataclass(frozen=True, slots=True)
class IntensityMap:
    """Takes a scan's intensity to the codebook's: scale * intensity + offset."""

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
    """A scan in some hundred groups of like supervoxels.

    Parameters
    ----------
    features : (leaf, channel) float32 array
    intensity : (leaf, 3) float32 array
    share : (leaf,) float32 array
        Of the body's voxels; sums to 1.
    """

    features: NDArray[np.float32]
    intensity: NDArray[np.float32]
    share: NDArray[np.float32]

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Arrays by the names that they have in files."""
        return {key: getattr(self, name) for key, name in _LEAVES_IN_FILES.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Leaves:
        """Make the leaves that a file holds.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        return cls(**{name: arrays[key] for key, name in _LEAVES_IN_FILES.items()})


def cohort_table(proposal: Proposal) -> CohortTable:
    """Take from a proposal what a codebook needs.

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
    wanted = ("brightness mean", "brightness 2 mm", "brightness 4 mm")
    if not set(wanted) <= set(names):
        raise CodebookError(
            f"The proposal for {proposal.volume.name} has no brightness columns."
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
        intensity=raw[:, [names.index(name) for name in wanted]].astype(np.float32),
        sizes_vox=sizes,
        body=body,
        neighborhood=around,
        names=names,
        modality=proposal.volume.modality,
        weights_sha256=proposal.provenance.get("weights_sha256"),
        settings=dict(proposal.provenance.get("settings", {})),
    )


def leaves_of(table: CohortTable, *, seed: int) -> Leaves:
    """Group the body of a scan into some hundred leaves."""
    own = np.flatnonzero(table.body)
    vectors = _looks(table.features[own], table.intensity[own])
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
        # fewer unlike supervoxels than leaves: fewer leaves, see below
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


def _looks(
    features: NDArray[np.floating], intensity: NDArray[np.floating]
) -> NDArray[np.float32]:
    weights = np.array([INTENSITY_WEIGHT, AROUND_WEIGHT, AROUND_WEIGHT], np.float32)
    return np.concatenate(
        [weights * intensity, FEATURE_WEIGHT * features], axis=1
    ).astype(np.float32)


def align_intensity(scan: Leaves, to: Leaves) -> IntensityMap:
    """Find the affine map of intensity that brings a scan's leaves closest to another's.

    A pair of leaves is compared by features and mapped intensity. Every leaf looks for
    its nearest in the other scan, in both directions; the fifth of each scan that finds
    nothing near does not count, and of the two directions the worse one decides, so
    that neither a map onto a point nor one onto a single tissue wins. Differences of
    intensity are measured on the geometric mean of both scales. A search over a grid,
    then a finer one around its best.
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
    """Return how badly two scans' leaves match under a map of intensity."""
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
