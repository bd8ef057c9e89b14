"""Tables of a proposal that outliers and pairs are found in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.reading.coarse_grid import CoarseGrid, coarse_grid
from napari_strata.volume import Geometry, Modality


@dataclass(frozen=True, slots=True)
class LikenessWeights:
    """Weights of likeness, those of the region tree without position and tissues."""

    levels: tuple[float, ...] = (1.0, 1.0, 0.5, 0.3)
    """Each encoder level, finest first."""
    intensity: float = 6.0
    """Intensity inside a supervoxel, which spans 1."""
    rank_share: float = 0.5
    """Share of rank in an MR's intensity."""
    spread: float = 0.2
    """Spread of a column where it is not known (cases of earlier versions)."""


_WEIGHTS = LikenessWeights()


@dataclass(frozen=True, slots=True, eq=False)
class ScanTables:
    """What outliers and pairs are found in, one row per supervoxel.

    Parameters
    ----------
    tree : Hierarchy
        The region tree.
    vectors : (n, d) float32 array
        Intensity and features, weighted: the distance of two says how unlike they are.
    rank : (n,) float32 array
        Share of the body that is darker.
    sizes_ml : (n,) float64 array
        Volumes.
    grid : CoarseGrid
        Where supervoxels lie.
    geometry : Geometry
        Of the scan.
    """

    tree: Hierarchy
    vectors: NDArray[np.float32]
    rank: NDArray[np.float32]
    sizes_ml: NDArray[np.float64]
    grid: CoarseGrid
    geometry: Geometry

    @property
    def body_ml(self) -> float:
        """Volume of the body."""
        rows = self.tree.leaf_order[self.tree.n_background :]
        return float(self.sizes_ml[rows].sum())


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorTable:
    """Descriptors of supervoxels as a proposal keeps them, see `Proposal`."""

    values: NDArray[np.float32]
    names: tuple[str, ...]
    scale: NDArray[np.float32] | None

    def column(self, *names: str) -> NDArray[np.float32] | None:
        """Return the first of some columns that there is, as it was measured, or None."""
        for name in names:
            if name in self.names:
                return self.columns([self.names.index(name)])[:, 0]
        return None

    def columns(self, numbers: list[int]) -> NDArray[np.float32]:
        """Return columns as they were measured; only scaled where that is not known."""
        values = self.values[:, numbers]
        if self.scale is None:
            return np.asarray(values * np.float32(_WEIGHTS.spread))
        return np.asarray(values * self.scale[1, numbers] + self.scale[0, numbers])


def scan_tables(
    supervoxels: NDArray[np.int32],
    descriptors: DescriptorTable,
    tree: Hierarchy,
    geometry: Geometry,
    modality: Modality,
) -> ScanTables:
    """Collect the tables of a proposal.

    Parameters
    ----------
    supervoxels : (z, y, x) int32 array
        Supervoxel id of every voxel.
    descriptors : DescriptorTable
        Descriptors of each supervoxel.
    tree : Hierarchy
        The region tree.
    geometry : Geometry
        Of the scan.
    modality : {"ct", "mr"}
        Of the scan.
    """
    n = tree.n_supervoxels
    sizes = np.zeros(n, np.int64)
    for plane in supervoxels:
        sizes += np.bincount(plane.ravel(), minlength=n)
    sizes_ml = sizes.astype(np.float64) * float(geometry.voxel_volume_mm3 / 1000)
    body = np.zeros(n, np.bool_)
    body[tree.leaf_order[tree.n_background :]] = True
    intensity = descriptors.column("brightness mean", "intensity mean")
    if intensity is None:
        intensity = np.zeros(n, np.float32)
    rank = descriptors.column("brightness rank")
    if rank is None:
        rank = _rank(intensity, body)
    share = 0.0 if modality == "ct" else _WEIGHTS.rank_share
    mixed = (1 - share) * intensity + share * rank
    vectors = [np.float32(_WEIGHTS.intensity) * mixed[:, None]]
    for level, weight in enumerate(_WEIGHTS.levels):
        start = f"feature {level}."
        numbers = [k for k, name in enumerate(descriptors.names) if name[:10] == start]
        vectors.append(np.float32(weight) * descriptors.columns(numbers))
    return ScanTables(
        tree,
        np.concatenate(vectors, axis=1).astype(np.float32),
        rank,
        sizes_ml,
        coarse_grid(
            supervoxels, geometry.spacing_zyx_mm, body, float(sizes_ml[body].sum())
        ),
        geometry,
    )


def _rank(
    intensity: NDArray[np.float32], body: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the share of the body's supervoxels that are darker than each one."""
    order = np.sort(intensity[body])
    return (np.searchsorted(order, intensity) / max(len(order), 1)).astype(np.float32)
