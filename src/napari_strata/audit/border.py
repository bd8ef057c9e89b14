"""How well the border of a structure follows the scan's own borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.proposal import Proposal

MOVES_VOX = (-2, -1, 1, 2)
"""By how much a structure is moved along each axis, to see whether it fits better."""
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Border:
    """What the scan shows along the border of a structure.

    Parameters
    ----------
    edge_share : float
        Share of the surface on borders of supervoxels, 0 to 1.
    step : float
        Mean step of intensity across the surface, in units of the scan.
    edge_gain : float
        How much larger `edge_share` would be if the structure were moved by one or two
        voxels in the best direction; below 0 where it lies best.
    step_gain : float
        `step` after the best move, over `step`; below 1 where it lies best.
    flat_share : float
        Largest share of the surface that lies in one plane of voxels, faces one way and
        follows no border of supervoxels, 0 to 1.
    cut_share : float
        Volume of supervoxels that are cut, on the smaller side, over the structure's.
    """

    edge_share: float
    step: float
    edge_gain: float
    step_gain: float
    flat_share: float
    cut_share: float


class ScanBorders:
    """Borders of supervoxels, and steps of intensity, of a whole scan.

    Parameters
    ----------
    proposal : Proposal
        Of the scan.
    """

    def __init__(self, proposal: Proposal) -> None:
        self._supervoxels = proposal.supervoxels
        self._data = proposal.volume.data
        spacing = proposal.volume.spacing_zyx_mm
        self._areas = np.prod(spacing) / spacing
        self._sizes = np.bincount(
            proposal.supervoxels.reshape(-1), minlength=proposal.n_supervoxels
        )

    def along(self, mask: NDArray[np.bool_], box: Box) -> Border:
        """Measure the border of a structure.

        Parameters
        ----------
        mask : (z, y, x) bool array
            The structure in its box, which has two voxels around it where the scan does.
        box : tuple of 3 slices
            Where the box lies in the scan.
        """
        edges = [np.diff(self._supervoxels[box], axis=axis) != 0 for axis in range(3)]
        data = self._data[box].astype(np.float32, copy=False)
        steps = [np.abs(np.diff(data, axis=axis)) for axis in range(3)]
        step, share = self._surface(mask, edges, steps)
        moved = [
            self._surface(np.roll(mask, by, axis=axis), edges, steps)
            for axis in range(3)
            for by in MOVES_VOX
        ]
        inside = np.bincount(self._supervoxels[box][mask], minlength=len(self._sizes))
        cut = np.minimum(inside, self._sizes - inside).sum()
        return Border(
            share,
            step,
            max(one[1] for one in moved) - share,
            max(one[0] for one in moved) / step if step else 1.0,
            self._flat_share(mask, edges),
            float(cut / max(int(inside.sum()), 1)),
        )

    def _surface(
        self,
        mask: NDArray[np.bool_],
        edges: list[NDArray[np.bool_]],
        steps: list[NDArray[np.floating]],
    ) -> tuple[float, float]:
        """Return the mean step across a surface, and its share on edges."""
        total = step = share = 0.0
        for axis, area in enumerate(self._areas):
            faces = np.diff(mask.view(np.int8), axis=axis) != 0
            total += np.count_nonzero(faces) * area
            share += np.count_nonzero(edges[axis][faces]) * area
            step += float(steps[axis][faces].sum()) * area
        return (step / total, share / total) if total else (0.0, 0.0)

    def _flat_share(
        self, mask: NDArray[np.bool_], edges: list[NDArray[np.bool_]]
    ) -> float:
        total = largest = 0.0
        for axis, area in enumerate(self._areas):
            change = np.diff(mask.view(np.int8), axis=axis)
            total += np.count_nonzero(change) * area
            others = tuple(other for other in range(3) if other != axis)
            for sign in (-1, 1):
                off = (change == sign) & ~edges[axis]
                largest = max(largest, np.count_nonzero(off, axis=others).max() * area)
        return float(largest / total) if total else 0.0
