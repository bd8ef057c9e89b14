"""Statistics of the region table, from sums over supervoxels instead of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_strata.refine.state.assignment import State, loose_voxels, region_table
from napari_strata.refine.state.proposal_index import ProposalIndex


@dataclass(frozen=True, slots=True)
class RegionStatistics:
    """Statistics of one region.

    Parameters
    ----------
    voxels : int
        Number of voxels, painted and cut ones included.
    volume_ml : float
        Volume in mL.
    mean, sd : float
        Mean and population standard deviation of the intensities (HU for CT, the scan's
        own unit for MR), as in `measure_regions`.
    confidence : float
        Mean confidence of its supervoxels, weighted by voxels, in [0, 1]; NaN if it has
        none.
    """

    voxels: int
    volume_ml: float
    mean: float
    sd: float
    confidence: float


def region_statistics(
    state: State, index: ProposalIndex
) -> dict[int, RegionStatistics]:
    """Return the statistics of every region in use, background included."""
    table, bins = region_table(state, index), state.next_id
    shift, sums, squares = index.intensity_sums
    values = (index.sizes_vox.astype(np.float64), sums, squares)
    count, total, square = (
        np.bincount(table, weights=column, minlength=bins) for column in values
    )
    sure = index.proposal.confidence_at(state.tree, state.n)
    confidence = np.bincount(table, weights=index.sizes_vox * sure, minlength=bins)
    machine = count.copy()
    voxels, taken = loose_voxels(state, index)
    if len(voxels):
        grey = (
            np.asarray(index.proposal.volume.data).ravel()[voxels].astype(np.float64)
            - shift
        )
        left = table[index.supervoxels_at(voxels)]
        for column, weights in ((count, None), (total, grey), (square, grey**2)):
            column -= np.bincount(left, weights=weights, minlength=len(column))
            column += np.bincount(taken, weights=weights, minlength=len(column))
    voxel_ml = index.proposal.volume.geometry.voxel_volume_mm3 / 1000
    return {
        region: (
            _row(
                count[region],
                total[region],
                square[region],
                shift,
                voxel_ml,
                confidence[region] / machine[region],
            )
            if machine[region]
            else _row(
                count[region], total[region], square[region], shift, voxel_ml, np.nan
            )
        )
        for region in np.flatnonzero(count > 0).tolist()
    }


def _row(
    count: float,
    total: float,
    square: float,
    shift: float,
    voxel_ml: float,
    confidence: float,
) -> RegionStatistics:
    mean = total / count
    sd = float(np.sqrt(max(square / count - mean**2, 0.0)))
    return RegionStatistics(
        int(count), float(count * voxel_ml), float(mean + shift), sd, float(confidence)
    )
