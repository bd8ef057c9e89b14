"""Patches of real scans: rendered anew with other artefacts, or imitated synthetically."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_strata.encoder.pretraining.tasks import Batch
from napari_strata.errors import GeometryError
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import (
    choose_grid,
    encoder_intensity,
    prepare_intensity,
    resample,
)
from napari_strata.settings import ProposeSettings
from napari_strata.synthesis.artefacts import bias_field, gamma, rician, thicken
from napari_strata.synthesis.fields import Grid, blur, make_grid
from napari_strata.volume import Volume

_STEP_VOX = 16
"""Sides of patches are multiples of this, as the encoder needs."""
_QUANTILES = 256
"""Quantiles used in histogram matching."""


@dataclass(frozen=True, slots=True, eq=False)
class WorkingScan:
    """A preprocessed scan, as the encoder receives it.

    Parameters
    ----------
    intensity : (z, y, x) float32 tensor
        Intensity in [0, 1] on the working grid, padded so that a patch fits.
    body : (n,) int64 array
        Flat indices of the voxels inside the body.
    is_ct : bool
        Whether it is CT. CT has a fixed scale, so it is varied less.
    thick_axis, thickness : int, float
        The axis with the thickest slices, and the slice thickness in working voxels.
    spacing_mm : tuple of 3 float
        Voxel size of the working grid.
    """

    intensity: Tensor
    body: NDArray[np.int64]
    is_ct: bool
    thick_axis: int
    thickness: float
    spacing_mm: tuple[float, float, float]

    @classmethod
    def prepare(
        cls, volume: Volume, patch_vox: int, settings: ProposeSettings | None = None
    ) -> WorkingScan:
        """Find the body of a scan, scale its intensity and resample it to its working grid.

        All steps are those of `embed`.

        Raises
        ------
        GeometryError
            If the scan has no body, non-finite values, or the same value everywhere.
        """
        if not np.isfinite(volume.data).all():
            raise GeometryError(
                "it holds NaN or infinite values. Read it with `strata.read`."
            )
        if volume.data.min() == volume.data.max():
            raise GeometryError(
                f"it is empty: every voxel is {volume.data.min():g}. Check that it is"
                " the right scan."
            )
        chosen = settings or ProposeSettings()
        inside = body_mask(volume)
        volume, _ = magnified(volume, inside)
        grid = choose_grid(inside, volume, chosen)
        seen = encoder_intensity(
            prepare_intensity(volume, inside, chosen), inside, volume.modality
        )
        intensity = resample(np.ascontiguousarray(seen[grid.box]), grid.shape_zyx)
        mask = resample(inside[grid.box].astype(np.float32), grid.shape_zyx) > 0.5
        pad = [
            (0, max(0, min(patch_vox, -(-n // _STEP_VOX) * _STEP_VOX) - n))
            for n in intensity.shape
        ]
        mask = (
            np.pad(mask, pad)
            if mask.any()
            else np.ones(
                [n + more for n, (_, more) in zip(intensity.shape, pad, strict=True)],
                bool,
            )
        )
        slices = np.asarray(volume.spacing_zyx_mm) / grid.spacing_zyx_mm
        axis = int(np.argmax(volume.spacing_zyx_mm))
        image = torch.from_numpy(np.pad(intensity, pad, mode="edge"))
        return cls(
            image,
            np.flatnonzero(mask),
            volume.modality == "ct",
            axis,
            float(slices[axis]),
            grid.spacing_zyx_mm,
        )

    def patch(self, patch_vox: int, rng: np.random.Generator) -> Tensor:
        """Return a patch (z, y, x) around a random voxel of the body, flipped at random.

        Its sides are at most `patch_vox` voxels.
        """
        center = np.unravel_index(rng.choice(self.body), self.intensity.shape)
        corner = []
        for at, n in zip(center, self.intensity.shape, strict=True):
            side = min(patch_vox, n)
            start = int(
                np.clip(
                    int(at) - rng.integers(side // 4, side - side // 4 + 1), 0, n - side
                )
            )
            corner.append(slice(start, start + side // _STEP_VOX * _STEP_VOX))
        cut = self.intensity[tuple(corner)]
        return torch.flip(
            cut, [axis for axis in range(3) if rng.random() < 0.5]
        ).contiguous()

    def grid(self, shape: Sequence[int], seed: int) -> Grid:
        """Return the grid of a patch of this scan, with a seeded random generator."""
        z, y, x = shape
        return make_grid(
            (z, y, x),
            self.spacing_mm,
            (0.0, 0.0, 0.0),
            torch.Generator().manual_seed(seed),
        )


def rerender(image: Tensor, grid: Grid, scan: WorkingScan) -> Tensor:
    """Return a patch (z, y, x) in [0, 1] with the artefacts of another scanner.

    These are thicker slices or blur, gamma, bias field, intensity range and noise.
    """
    freedom = 0.25 if scan.is_ct else 1.0
    if scan.thickness > 1.3 and grid.uniform() < 0.3:
        image = thicken(
            image,
            axis=scan.thick_axis,
            factor=max(2, round(scan.thickness * grid.uniform(0.8, 1.5))),
        )
    elif grid.uniform() < 0.3:
        soft = grid.uniform(0.3, 0.8)
        image = blur(image, (soft, soft, soft))
    image = gamma(image, math.exp(freedom * grid.uniform(-0.35, 0.35)))
    image = image * bias_field(grid, strength=freedom * grid.uniform(0.0, 0.35))
    image = image * (1.0 + freedom * grid.uniform(-0.12, 0.1)) + freedom * grid.uniform(
        -0.03, 0.05
    )
    return rician(image.clamp_min(0.0), grid, sigma=grid.uniform(0.0, 0.05)).clamp(
        0.0, 1.0
    )


def real_views(scan: WorkingScan, patch_vox: int, seed: int) -> Tensor:
    """Return two renderings (2, 1, z, y, x) of a patch that differ only by artefacts."""
    patch = scan.patch(patch_vox, np.random.default_rng(seed))
    grid = scan.grid(patch.shape, seed)
    return torch.stack([rerender(patch, grid, scan), rerender(patch, grid, scan)])[
        :, None
    ]


def dress(batch: Batch, scan: WorkingScan, seed: int) -> Batch:
    """Make the last view of synthetic patches look like a scan.

    It gets the intensity histogram of a patch of the scan, upright or inverted
    (histogram matching), and the thickness of its slices. Range and contrast then come
    from the scan, while the labels are still known.

    Parameters
    ----------
    batch : Batch
        Synthetic patches with the same number of views each.
    scan : WorkingScan
        The scan to imitate.
    seed : int
        The same seed gives the same batch.
    """
    rng = np.random.default_rng(seed)
    views = len(batch.clean_image_ids[0])
    image = batch.image.clone()
    for last in range(views - 1, len(image), views):
        plain = image[last, 0]
        like = scan.patch(max(plain.shape), rng)
        worn = match_intensity(plain, like, backward=bool(rng.random() < 0.5))
        if scan.thickness > 1.3:
            worn = thicken(
                worn, axis=scan.thick_axis, factor=max(2, round(scan.thickness))
            )
        image[last, 0] = rerender(
            worn, scan.grid(plain.shape, int(rng.integers(2**31))), scan
        )
    ids = tuple((*own[:-1], max(own) + 1) for own in batch.clean_image_ids)
    return Batch(image, batch.labels, ids)


def match_intensity(image: Tensor, like: Tensor, *, backward: bool = False) -> Tensor:
    """Return a patch with the intensity histogram of another one (histogram matching).

    With `backward` the histogram is inverted: dark voxels become bright.
    """
    share = np.linspace(0.0, 1.0, _QUANTILES)
    have = np.quantile(image.numpy(), share)
    want = np.quantile(like.numpy(), 1.0 - share if backward else share)
    distinct = np.concatenate([[True], np.diff(have) > 1e-6])
    return torch.from_numpy(
        np.interp(image.numpy(), have[distinct], want[distinct]).astype(np.float32)
    )
