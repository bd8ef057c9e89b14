"""Modes of a region's evidence: a region may have several appearances.

A stroke that resembles its own region's evidence joins it. A stroke that resembles
another region's evidence more is an exception: it starts a mode of its own, which holds
near the stroke and leaves the rest of its region's model as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.refine.scribble.geodesic import GeodesicDistances


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Supervoxels that a stroke or a name showed to belong to a region.

    Parameters
    ----------
    supervoxels : (k,) integer array
        At least one, ascending.
    region : int
        Their region.
    is_air : bool
        Whether all are in the proposal's background; air and body are compared apart.
    """

    supervoxels: NDArray[np.intp]
    region: int
    is_air: bool


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """Evidence of one region that is alike.

    Parameters
    ----------
    region : int
        The region.
    members : tuple of Evidence
        Its evidence, oldest first.
    is_exception : bool
        Whether it contradicts the region's other modes.
    """

    region: int
    members: tuple[Evidence, ...]
    is_exception: bool

    @property
    def supervoxels(self) -> NDArray[np.intp]:
        """All supervoxels of its evidence, ascending."""
        return np.unique(np.concatenate([one.supervoxels for one in self.members]))


def grouped_into_modes(
    paths: GeodesicDistances, evidence: Sequence[Evidence]
) -> tuple[Mode, ...]:
    """Return the modes of some evidence, in the order in which it was shown."""
    modes: list[Mode] = []
    for one in evidence:
        unlike = [
            float(np.median(dissimilarity(paths, mode)[one.supervoxels]))
            for mode in modes
        ]
        own = [
            k
            for k, mode in enumerate(modes)
            if mode.region == one.region and mode.members[0].is_air == one.is_air
        ]
        rival = min(
            (unlike[k] for k, mode in enumerate(modes) if mode.region != one.region),
            default=np.inf,
        )
        nearest = min(own, key=lambda k: unlike[k], default=None)
        if nearest is None or unlike[nearest] > rival:
            modes.append(Mode(one.region, (one,), bool(own)))
        else:
            mode = modes[nearest]
            modes[nearest] = Mode(mode.region, (*mode.members, one), mode.is_exception)
    return tuple(modes)


def dissimilarity(paths: GeodesicDistances, mode: Mode) -> NDArray[np.float32]:
    """Return the dissimilarity to the nearest example of a mode, (n,)."""
    found: NDArray[np.float32] = np.minimum.reduce(
        [paths.dissimilarity(one.supervoxels) for one in mode.members]
    )
    return found


def path_length(
    paths: GeodesicDistances, evidence: Sequence[Evidence]
) -> NDArray[np.float32]:
    """Return the geodesic distance to the nearest of some evidence, (n,)."""
    found: NDArray[np.float32] = np.minimum.reduce(
        [paths.distance(one.supervoxels) for one in evidence]
    )
    return found
