"""Ways to break a scan into supervoxels, all given the same brightness.

Body and feature components.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from benchmarks.proposal.cells_by_codes import PIECES_PER_CELL, split_cells
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_parts
from skimage.segmentation import watershed

from napari_strata.encoder.embed import embed_intensity
from napari_strata.encoder.runtime.base import Runtime
from napari_strata.preprocess.intensity import encoder_intensity, resample
from napari_strata.proposal.supervoxels.clustering import (
    SupervoxelPlan,
    make_supervoxels,
)
from napari_strata.proposal.supervoxels.descriptors import (
    intensity_quantiles,
    intensity_rank,
)
from napari_strata.proposal.supervoxels.oversegmentation import (
    prepare_scan,
    principal_maps,
    segment_features,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Volume

_COMPONENT_WEIGHT = 0.03
"""Brightness that a feature component's unit is worth."""
_GRADIENT_VOX = 0.7
"""Channels are smoothed by this many voxels before their gradient is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The body's box of a scan, made ready for supervoxels.

    Parameters
    ----------
    channels : (z, y, x, 3) float32 array
        Brightness in [0, 1], and two feature components on a like scale.
    inside : (z, y, x) bool array
        The body.
    box : tuple of 3 slices
        Where the block lies in the scan.
    spacing_zyx_mm : (3,) array
        Voxel size.
    settings : ProposeSettings
        `supervoxels` is the number of pieces to aim for.
    seed : int
        Of everything random.
    """

    channels: NDArray[np.float32]
    inside: NDArray[np.bool_]
    box: tuple[slice, slice, slice]
    spacing_zyx_mm: NDArray[np.float64]
    settings: ProposeSettings
    seed: int = 0

    @classmethod
    def of(
        cls, volume: Volume, runtime: Runtime, settings: ProposeSettings, seed: int
    ) -> Block:
        """Look at a scan just as `strata.propose` does.

        Add feature components for the methods that use them.
        """
        sight = prepare_scan(volume, settings)
        seen = encoder_intensity(sight.intensity, sight.inside, volume.modality)
        features = embed_intensity(seen, sight.grid, runtime, settings=settings)
        looks, inside = segment_features(
            sight,
            intensity_rank(
                sight.intensity[sight.grid.box],
                intensity_quantiles(sight.intensity, sight.inside),
            ),
        )
        components = [
            resample(np.float32(_COMPONENT_WEIGHT) * part, inside.shape)
            for part in principal_maps(features, 2, seed=seed)
        ]
        channels = np.stack([looks, *components], axis=-1)
        return cls(
            channels, inside, sight.grid.box, volume.spacing_zyx_mm, settings, seed
        )


Method = Callable[[Block], NDArray[np.integer]]
"""Gives pieces (z, y, x); what it says outside the body does not matter."""


def strata(block: Block) -> NDArray[np.int32]:
    """Break the block as `strata.propose` does."""
    plan = SupervoxelPlan(target=block.settings.supervoxels)
    return make_supervoxels(block.channels, block.inside, block.spacing_zyx_mm, plan)


def slic_brightness(block: Block) -> NDArray[np.integer]:
    """Run SLIC on brightness."""
    return _slic(block, 1, block.settings.supervoxels)


def slic_features(block: Block) -> NDArray[np.integer]:
    """Run SLIC on brightness and the feature components."""
    return _slic(block, block.channels.shape[-1], block.settings.supervoxels)


def cells_by_codes(block: Block) -> NDArray[np.integer]:
    """Split coarse SLIC cells of brightness by tissue codes."""
    cells = _slic(
        block,
        1,
        block.settings.supervoxels // PIECES_PER_CELL,
        iterations=4,
        connected=False,
    )
    return split_cells(
        cells, block.channels, block.inside, block.spacing_zyx_mm, block.seed
    )


def gradient_watershed(block: Block) -> NDArray[np.integer]:
    """Flood the gradient of brightness and features from the flattest voxel of every cell.

    Of a regular grid.
    """
    steepness = np.zeros(block.inside.shape, np.float32)
    for channel in np.moveaxis(block.channels, -1, 0):
        smooth = ndimage.gaussian_filter(channel, _GRADIENT_VOX)
        slopes = (
            np.gradient(smooth, mm, axis=a) if smooth.shape[a] > 1 else 0.0
            for a, mm in enumerate(block.spacing_zyx_mm)
        )
        steepness += sum(slope**2 for slope in slopes)
    np.sqrt(steepness, out=steepness)
    markers = np.zeros(steepness.shape, np.int32)
    cell = _cells(steepness.shape, grid_steps(block, block.settings.supervoxels))[
        block.inside
    ]
    places = np.flatnonzero(block.inside)
    order = np.lexsort((steepness[block.inside], cell))
    _, first = np.unique(cell[order], return_index=True)
    markers.ravel()[places[order[first]]] = np.arange(1, len(first) + 1)
    return watershed(steepness, markers, mask=block.inside)


METHODS: dict[str, Method] = {
    "strata": strata,
    "SLIC, brightness": slic_brightness,
    "SLIC, brightness and features": slic_features,
    "SLIC cells split by codes": cells_by_codes,
    "watershed, gradient of features": gradient_watershed,
}


def tidy(pieces: NDArray[np.integer], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Make every connected part of a piece in the body a piece of its own, 1 .. n.

    Everything outside becomes piece 0.

    Connected means by faces, edges or corners.
    """
    kept = np.where(inside, pieces.astype(np.int64) - int(pieces.min()) + 1, 0)
    return label_parts(kept, connectivity=3, background=0).astype(np.int32)


def grid_steps(block: Block, count: int) -> tuple[int, ...]:
    """Choose the voxels along each axis of a cell.

    So that about `count` nearly cubic ones (in mm) fill the body.
    """
    per_cell = max(float(block.inside.sum()) / count, 1.0)
    side_mm = (per_cell * float(np.prod(block.spacing_zyx_mm))) ** (1 / 3)
    axes = []
    for mm, length in zip(block.spacing_zyx_mm, block.inside.shape, strict=True):
        axes.append(
            sorted(
                {
                    min(max(int(step), 1), length)
                    for step in (np.floor(side_mm / mm), np.ceil(side_mm / mm))
                }
            )
        )
    return min(
        itertools.product(*axes),
        key=lambda steps: abs(np.log(np.prod(steps) / per_cell)),
    )


def _cells(shape: tuple[int, ...], steps: tuple[int, ...]) -> NDArray[np.int64]:
    """Number the cells of a regular grid, (z, y, x)."""
    axes = [np.arange(n) // step for n, step in zip(shape, steps, strict=True)]
    z, y, x = np.ix_(*axes)
    return (z * (int(axes[1][-1]) + 1) + y) * (int(axes[2][-1]) + 1) + x


def _slic(
    block: Block,
    channels: int,
    count: int,
    *,
    iterations: int = 5,
    connected: bool = True,
) -> NDArray[np.integer]:
    """Run ITK's SLIC (Achanta et al., TPAMI 2012) on whole numbers.

    So that its sums do not depend on their order.
    """
    scaled = np.round(block.channels[..., :channels] * 255).astype(np.float32)
    image = sitk.GetImageFromArray(
        scaled if channels > 1 else scaled[..., 0], isVector=channels > 1
    )
    slic = sitk.SLICImageFilter()
    slic.SetSuperGridSize([int(step) for step in reversed(grid_steps(block, count))])
    slic.SetMaximumNumberOfIterations(iterations)
    slic.SetSpatialProximityWeight(10.0)
    slic.SetEnforceConnectivity(connected)
    return sitk.GetArrayFromImage(slic.Execute(image)).astype(np.int32)
