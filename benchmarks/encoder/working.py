"""What every feature set sees of a scan, and the voxels at which all of them are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from benchmarks.encoder.scans import OTHER, LabelledScan
from numpy.typing import NDArray

from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import (
    WorkingGrid,
    choose_grid,
    encoder_intensity,
    prepare_intensity,
    resample,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Volume

PROBED_VOXELS, TAUGHT_PER_CLASS, CLUSTERED_VOXELS, COMPARED_VOXELS = (
    100_000,
    400,
    50_000,
    15_000,
)
"""Voxels per scan: scored by the probe, kept aside per class to teach it, clustered.

Compared between two scans.
"""
_PERCENTILES = (0.5, 99.5)
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class WorkingScan:
    """A scan on the encoder's working grid.

    Parameters
    ----------
    intensity : (z, y, x) float32 array
        What the encoder sees: brightness in [0, 1], an MR's bias flattened.
    scaled : (z, y, x) float32 array
        What the scan says: scaled to [0, 1] by percentiles inside the body, nothing
        else.
    body : (z, y, x) bool array
        Where the body is.
    grid : WorkingGrid
        The box of the scan, and its voxels here.
    """

    intensity: NDArray[np.float32]
    scaled: NDArray[np.float32]
    body: NDArray[np.bool_]
    grid: WorkingGrid

    @classmethod
    def of(
        cls,
        volume: Volume,
        settings: ProposeSettings,
        inside: NDArray[np.bool_] | None = None,
    ) -> WorkingScan:
        """Prepare a scan just as `strata.embed` does; the body is looked for if not given."""
        body = body_mask(volume) if inside is None else inside
        volume, _ = magnified(volume, body)
        grid = choose_grid(body, volume, settings)
        intensity = encoder_intensity(
            prepare_intensity(volume, body, settings), body, volume.modality
        )
        scaled = percentile_scaled(volume, body)
        small = [
            resample(np.ascontiguousarray(image[grid.box]), grid.shape_zyx)
            for image in (intensity, scaled)
        ]
        return cls(small[0], small[1], nearest(body, grid), grid)

    def scan_points(self, points: NDArray[np.number]) -> NDArray[np.float64]:
        """Turn indices on the working grid, (n, 3), into.

        (fractional) indices on the scan's own.
        """
        return np.asarray((points + 0.5) * self._ratio + self._start - 0.5, np.float64)

    def working_points(self, scan_points: NDArray[np.number]) -> NDArray[np.float64]:
        """Turn indices on the scan's own grid, (n, 3), into.

        (fractional) indices on the working grid.
        """
        return np.asarray(
            (scan_points + 0.5 - self._start) / self._ratio - 0.5, np.float64
        )

    @property
    def _ratio(self) -> NDArray[np.float64]:
        return np.array(self.grid.box_shape) / np.array(self.grid.shape_zyx)

    @property
    def _start(self) -> NDArray[np.int64]:
        return np.array([along.start for along in self.grid.box])


def nearest(image: NDArray[Kind], grid: WorkingGrid) -> NDArray[Kind]:
    """Bring an array on a scan's own grid to the working grid, each voxel from the nearest."""
    picks = []
    for along, wide, n in zip(grid.box, grid.box_shape, grid.shape_zyx, strict=True):
        picks.append(((np.arange(n) + 0.5) * wide / n + along.start).astype(int))
    return image[np.ix_(*picks)]


def percentile_scaled(volume: Volume, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale a scan to [0, 1] by the 0.5th and 99.5th percentile inside the body."""
    data = volume.data.astype(np.float32)
    low, high = np.percentile(
        data[inside][:: max(1, int(inside.sum()) // 500_000)], _PERCENTILES
    )
    return np.clip((data - low) / max(float(high - low), 1e-6), 0, 1, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """Where a scan's features are read; all points are (n, 3) indices on the working grid.

    Parameters
    ----------
    probed, probed_class : points and their classes, 1..n
        Drawn from every voxel that has a class.
    taught, taught_class : points and their classes
        Up to 400 of each class, none of them probed.
    clustered, clustered_class : points and their reference
        Drawn from the whole box; the reference is 0 (not scored), a class, or 255.
    body : points
        Drawn from the body.
    """

    probed: NDArray[np.int64]
    probed_class: NDArray[np.uint8]
    taught: NDArray[np.int64]
    taught_class: NDArray[np.uint8]
    clustered: NDArray[np.int64]
    clustered_class: NDArray[np.uint8]
    body: NDArray[np.int64]


def draw_voxels(scan: LabelledScan, working: WorkingScan, seed: int = 0) -> Voxels:
    """Draw the voxels of a scan that all feature sets are measured at."""
    rng = np.random.default_rng(seed)
    reference = nearest(scan.reference, working.grid).ravel()
    shape = working.grid.shape_zyx
    taught = []
    for label in np.unique(reference[(reference > 0) & (reference < OTHER)]):
        members = np.flatnonzero(reference == label)
        taught.append(
            rng.permutation(members)[: min(TAUGHT_PER_CLASS, len(members) // 2)]
        )
    teach = np.concatenate(taught)
    free = (reference > 0) & (reference < OTHER)
    free[teach] = False
    probed = rng.permutation(np.flatnonzero(free))[:PROBED_VOXELS]
    clustered = rng.choice(
        len(reference), min(CLUSTERED_VOXELS, len(reference)), replace=False
    )
    body = rng.permutation(np.flatnonzero(working.body))[:COMPARED_VOXELS]
    places = [
        np.stack(np.unravel_index(index, shape), axis=1)
        for index in (probed, teach, clustered, body)
    ]
    return Voxels(
        places[0],
        reference[probed],
        places[1],
        reference[teach],
        places[2],
        reference[clustered],
        places[3],
    )
