"""The plane about which a body is most nearly symmetric from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from napari_strata.proposal.reading.coarse_grid import CoarseGrid
from napari_strata.proposal.reading.scan_tables import ScanTables


@dataclass(frozen=True, slots=True)
class SymmetryConstants:
    """Constants of the search for the plane, lengths in coarse voxels."""

    points: int = 1500
    """Places of the body that planes are compared on."""
    smoothing: float = 1.5
    """Gaussian sigma, because no body is symmetric to the millimetre."""
    trend: float = 5.0
    """Gaussian sigma of what counts as trend: layers around a body fit any plane."""
    offsets: tuple[float, ...] = (-0.12, -0.06, 0.0, 0.06, 0.12)
    """First places tried, from the body's middle, as shares of its width."""
    tilts: tuple[float, ...] = (-0.12, 0.0, 0.12)
    """First tilts tried about both other axes: 0.12 is 7 degrees, a badly laid head."""
    evaluations: int = 120
    """Of the search that refines the best first plane."""
    missing: float = 1.0
    """Cost of a mirrored place outside the body, in mean differences of random pairs."""
    beside: float = 3.0
    """Places this close to the plane do not count for symmetry: they mirror themselves."""
    least_symmetry: float = 0.4
    """Symmetry that is clear: heads, torsos and abdomens have .43 and more, shapes drawn
    at random .31, a cropped head that a tumour pushes aside .33."""


CONSTANTS = SymmetryConstants()


@dataclass(frozen=True, slots=True, eq=False)
class SymmetryPlane:
    """A plane that mirrors left and right.

    Parameters
    ----------
    normal_zyx : (3,) float64 array
        Unit normal along array axes, in mm, pointing to the patient's left.
    offset_mm : float
        Distance of the plane from the scan's first voxel along the normal.
    symmetry : float
        Correlation of the intensities of mirrored places without the trend, times the
        share of the body whose mirrored place is in the body.
    """

    normal_zyx: NDArray[np.float64]
    offset_mm: float
    symmetry: float

    @property
    def is_clear(self) -> bool:
        """Whether the body is symmetric enough for left and right to be compared."""
        return self.symmetry >= CONSTANTS.least_symmetry

    def beyond_mm(self, points_zyx_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return how far points (k, 3) lie on the left of the plane."""
        return np.asarray(points_zyx_mm @ self.normal_zyx - self.offset_mm, np.float64)

    def mirrored(self, points_zyx_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the mirrored places of points (k, 3), in mm along array axes."""
        beyond = self.beyond_mm(points_zyx_mm)
        return np.asarray(
            points_zyx_mm - 2 * beyond[:, None] * self.normal_zyx, np.float64
        )


@dataclass(frozen=True, slots=True, eq=False)
class Symmetry:
    """A scan's tables and its plane of symmetry, found once for outliers and all cuts."""

    tables: ScanTables
    plane: SymmetryPlane

    @classmethod
    def of(cls, tables: ScanTables) -> Symmetry:
        """Find the plane of symmetry of a scan."""
        return cls(tables, find_symmetry_plane(tables.grid, tables.rank))


def find_symmetry_plane(
    grid: CoarseGrid, intensity: NDArray[np.floating]
) -> SymmetryPlane:
    """Find the plane that mirrors the body best.

    Parameters
    ----------
    grid : CoarseGrid
        Supervoxels on a coarse grid.
    intensity : (n_supervoxels,) float array
        Intensity of each supervoxel, or its rank.

    Returns
    -------
    SymmetryPlane
        The best plane, also where no plane fits well; see `SymmetryPlane.is_clear`.

    Notes
    -----
    The mean absolute difference of intensity between each place and its mirrored place is
    made as small as possible, over an offset and two tilts. Absolute differences let a
    lesion on one side count little.
    """
    if len(grid.inside) < 2:
        return SymmetryPlane(np.array([0.0, 0.0, 1.0]), 0.0, 0.0)
    body = np.zeros(grid.supervoxels.shape, np.bool_)
    body[tuple(grid.inside.T)] = True
    values = intensity.astype(np.float64)[grid.supervoxels]
    comparison = _Comparison.of(
        grid, _smoothed(values, body, CONSTANTS.smoothing), body
    )
    best = min(_first_planes(comparison.width_mm), key=comparison.cost)
    steps = np.diag([0.03 * comparison.width_mm, 0.05, 0.05])
    found = optimize.minimize(
        comparison.cost,
        best,
        method="Nelder-Mead",
        options={
            "maxfev": CONSTANTS.evaluations,
            "initial_simplex": best + np.vstack([np.zeros(3), steps]),
        },
    )
    normal, offset = comparison.plane(np.asarray(found.x))
    plane = SymmetryPlane(normal, offset, 0.0)
    detail = comparison.picture - _smoothed(values, body, CONSTANTS.trend)
    return SymmetryPlane(normal, offset, _symmetry(plane, grid, detail, body))


def _first_planes(width_mm: float) -> Iterator[NDArray[np.float64]]:
    for share in CONSTANTS.offsets:
        for first in CONSTANTS.tilts:
            for second in CONSTANTS.tilts:
                yield np.array([share * width_mm, first, second])


def _smoothed(
    values: NDArray[np.float64], body: NDArray[np.bool_], sigma: float
) -> NDArray[np.float64]:
    """Smooth values inside the body only; outside they hold the body's median."""
    middle = float(np.median(values[body]))
    held = ndimage.gaussian_filter(np.where(body, values - middle, 0.0), sigma)
    weight = ndimage.gaussian_filter(body.astype(np.float64), sigma)
    return np.asarray(np.where(body, middle + held / np.maximum(weight, 1e-9), middle))


def _symmetry(
    plane: SymmetryPlane,
    grid: CoarseGrid,
    detail: NDArray[np.float64],
    body: NDArray[np.bool_],
) -> float:
    """Return how well both sides agree, see `SymmetryPlane`."""
    points = grid.inside * grid.spacing_zyx_mm
    near = CONSTANTS.beside * float(grid.spacing_zyx_mm.max())
    is_far = np.abs(plane.beyond_mm(points)) > near
    places = np.round(plane.mirrored(points[is_far]) / grid.spacing_zyx_mm)
    is_held = ((places >= 0) & (places < body.shape)).all(axis=1)
    here = grid.inside[is_far][is_held]
    there = places[is_held].astype(np.int64)
    is_inside = body[tuple(there.T)]
    if is_inside.sum() < 3:
        return 0.0
    one, other = (detail[tuple(side[is_inside].T)] for side in (here, there))
    if one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    share = float(is_inside.sum()) / max(int(is_far.sum()), 1)
    return max(0.0, share * float(np.corrcoef(one, other)[0, 1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """Places of the body, and the pictures that their mirrored places are read from."""

    points_mm: NDArray[np.float64]
    values: NDArray[np.float64]
    picture: NDArray[np.float64]
    is_inside: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    middle_mm: NDArray[np.float64]
    width_mm: float
    usual: float

    @classmethod
    def of(
        cls, grid: CoarseGrid, picture: NDArray[np.float64], body: NDArray[np.bool_]
    ) -> _Comparison:
        inside = grid.inside
        some = inside[:: max(1, len(inside) // CONSTANTS.points)]
        sample = picture[tuple(some.T)]
        shuffled = np.random.default_rng(0).permutation(sample)
        width = float(np.ptp(inside[:, 2]) + 1) * float(grid.spacing_zyx_mm[2])
        return cls(
            some * grid.spacing_zyx_mm,
            sample,
            picture,
            body.astype(np.float64),
            grid.spacing_zyx_mm,
            inside.mean(axis=0) * grid.spacing_zyx_mm,
            width,
            max(float(np.abs(sample - shuffled).mean()), 1e-9),
        )

    def plane(
        self, parameters: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the unit normal and the offset of a plane."""
        shift, first, second = parameters.tolist()
        normal = np.array([first, second, 1.0])
        normal /= np.linalg.norm(normal)
        return normal, float(self.middle_mm @ normal + shift)

    def cost(self, parameters: NDArray[np.float64]) -> float:
        """Return the mean difference to mirrored places, in that of random places."""
        normal, offset = self.plane(parameters)
        beyond = self.points_mm @ normal - offset
        places = ((self.points_mm - 2 * beyond[:, None] * normal) / self.spacing_mm).T
        there = ndimage.map_coordinates(self.picture, places, order=1, mode="nearest")
        weight = ndimage.map_coordinates(self.is_inside, places, order=1)
        apart = np.abs(there - self.values) / self.usual
        return float((weight * apart + (1 - weight) * CONSTANTS.missing).mean())
