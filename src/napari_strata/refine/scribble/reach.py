"""How far a stroke reaches: as far as no earlier evidence speaks against it.

With scope "everywhere", a stroke takes supervoxels for its own region only. Its reach is
the largest at which it undoes little of what earlier evidence was sure about. With scope
"here", it takes what has its own range of intensity and is connected to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.modes import Evidence, Mode, path_length
from napari_strata.refine.scribble.scribble_classifier import STAY, FeatureSpace
from napari_strata.refine.scribble.stroke_model import StrokeModel


@dataclass(frozen=True, slots=True)
class ReachConstants:
    """Constants of the check, found with a simulated user (see docs/teaching.md)."""

    ladder: tuple[float, ...] = (np.inf, 4.0, 2.8, 2.0, 1.4, 1.0, 0.7)
    """Reaches that are tried, largest first: the path to the stroke as a share of the path
    to the nearest evidence of another region."""
    least: float = 0.5
    """Reach of a stroke that contradicts all others; it is granted without a check."""
    gained: float = 0.04
    """Most sure volume that an exception may take, as a share of its region's volume."""
    gained_alike: float = 0.5
    """The same for a stroke that agrees with its region."""
    lost: float = 0.1
    """Most sure volume that another region may lose, as a share of its volume."""
    unsure: float = 0.6
    """Membership (0 to 1) up to which earlier evidence is not sure of a supervoxel."""
    least_spread: float = 0.08
    """Least spread of intensity of a stroke with scope "here", in standard deviations of
    the body's intensity, as a stroke in one supervoxel has none."""


REACH_CONSTANTS = ReachConstants()
_NEITHER = 0.5
"""Sureness (0 to 1) where no evidence speaks for or against a region."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a stroke with scope "here" goes.

    Parameters
    ----------
    mm : float
        Length of paths from the stroke in mm, half of it inside its own regions.
    tolerance_sd : float
        Range of intensity around the stroke's mean, in its standard deviations.
    """

    mm: float = 10.0
    tolerance_sd: float = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """The case before a stroke.

    Parameters
    ----------
    table : (n,) int32 array
        Region of each supervoxel.
    own : (n,) int32 array
        Region of each supervoxel before strokes spread.
    model : StrokeModel or None
        Memberships by the earlier evidence; None if there is none.
    sizes : (n,) int64 array
        Number of voxels of each supervoxel.
    """

    table: NDArray[np.int32]
    own: NDArray[np.int32]
    model: StrokeModel | None
    sizes: NDArray[np.int64]

    def sureness(self) -> NDArray[np.float32]:
        """Return how sure earlier evidence is of each supervoxel's region, 0 to 1.

        It is 1 where an earlier check kept a region against the evidence.
        """
        sure = np.ones(len(self.table), np.float32)
        if self.model is None:
            return sure
        result = self.model.result
        best = result.membership.argmax(axis=1)
        choice = result.choices[best]
        agrees = np.where(choice == STAY, self.own, choice) == self.table
        highest = result.membership[np.arange(len(best)), best]
        sure = np.where(agrees, highest, sure)
        regions = [mode.region for mode in self.model.modes]
        only_air = np.setdiff1d(regions, self.taught_in_body())
        sure[np.isin(self.table, only_air)] = _NEITHER
        return sure.astype(np.float32)

    def taught_in_body(self) -> NDArray[np.int64]:
        """Return the regions with evidence in the body; air says nothing about it."""
        modes = () if self.model is None else self.model.modes
        found = {mode.region for mode in modes if not mode.members[0].is_air}
        last = int(self.table.max(initial=0))
        return np.array(sorted(r for r in found if r <= last), np.int64)


def taken_everywhere(
    space: FeatureSpace,
    before: Before,
    model: StrokeModel,
    choices: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Return a mask (n,) of the supervoxels that the latest stroke takes for its region.

    Parameters
    ----------
    space : FeatureSpace
        The supervoxels.
    before : Before
        The case before the stroke.
    model : StrokeModel
        Memberships by all evidence, the stroke's included.
    choices : (n,) int32 array
        Region of each free supervoxel by the model, otherwise `STAY`.
    """
    stroke, mode = _latest(model)
    taken = (choices == stroke.region) & (before.table != stroke.region)
    in_body = taken & ~space.background
    rivals = [
        one
        for other in model.modes
        for one in other.members
        if one.region != stroke.region
    ]
    if not rivals:
        return taken
    paths = space.prior.paths
    sure = before.sureness()
    relative = paths.distance(stroke.supervoxels) / (
        path_length(paths, rivals) + np.float32(1e-6)
    )
    relative *= sure / _NEITHER
    limit = REACH_CONSTANTS.unsure
    undone = before.sizes * np.maximum(0, (sure - limit) / (1 - limit))
    for reach in REACH_CONSTANTS.ladder:
        within = in_body & (relative <= reach)
        if _undoes_little(space, before, undone, within, stroke, mode):
            break
    else:
        within = in_body & (relative <= REACH_CONSTANTS.least)
    return within | (taken & space.background)


def _latest(model: StrokeModel) -> tuple[Evidence, Mode]:
    latest = model.latest
    mode = next(mode for mode in model.modes if latest in mode.members)
    return latest, mode


def _undoes_little(
    space: FeatureSpace,
    before: Before,
    undone: NDArray[np.floating],
    within: NDArray[np.bool_],
    stroke: Evidence,
    mode: Mode,
) -> bool:
    """Return whether a reach undoes little of what earlier evidence was sure about."""
    body = ~space.background
    count = int(before.table.max()) + 1
    volume = np.bincount(before.table[body], before.sizes[body], count)
    lost = np.bincount(before.table[within], undone[within], count)
    share = (
        REACH_CONSTANTS.gained if mode.is_exception else REACH_CONSTANTS.gained_alike
    )
    held = volume[stroke.region] if stroke.region < count else 0.0
    if held > 0 and lost.sum() > share * held:
        return False
    return bool((lost <= REACH_CONSTANTS.lost * volume).all())


def taken_here(
    space: FeatureSpace,
    stroke: Evidence,
    touched: NDArray[np.integer],
    rivals: tuple[Evidence, ...],
    allowed: NDArray[np.bool_],
    reach: Reach,
    reach_mm: float,
) -> NDArray[np.bool_]:
    """Return a mask (n,) of the supervoxels that a stroke takes around itself.

    They have its own range of intensity, are connected to it within its reach, and lie
    nearer to it than to the strokes of other regions.

    Parameters
    ----------
    space : FeatureSpace
        The supervoxels.
    stroke : Evidence
        The supervoxels under the stroke.
    touched : (k,) integer array
        Voxels of the stroke in each of them.
    rivals : tuple of Evidence
        Evidence of other regions.
    allowed : (n,) bool array
        Supervoxels that may be taken.
    reach : Reach
        How far it goes.
    reach_mm : float
        Its length in the scan's own millimetres.
    """
    prior, seeds = space.prior, stroke.supervoxels
    values = prior.intensity[seeds]
    mean = float(np.average(values, weights=touched))
    spread = float(np.sqrt(np.average((values - mean) ** 2, weights=touched)))
    spread = max(spread, REACH_CONSTANTS.least_spread)
    alike = np.abs(prior.intensity - mean) <= reach.tolerance_sd * spread
    if not stroke.is_air:
        alike &= ~space.background
    alike &= allowed
    if rivals:
        paths = prior.paths
        alike &= paths.distance(seeds) <= path_length(paths, rivals)
    return prior.within_reach(seeds, alike, reach_mm)
