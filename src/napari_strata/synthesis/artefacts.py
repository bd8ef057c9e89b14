"""What a scanner does to an image: partial volume, thick slices, bias, noise, ringing, motion, metal streaks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_strata.synthesis.appearance import Rendering
from napari_strata.synthesis.fields import Grid, blur


def degrade(rendering: Rendering, grid: Grid, *, thick_slices: bool = True) -> Tensor:
    """Give a rendering a random set of a scanner's faults.

    Parameters
    ----------
    rendering : Rendering
        A clean image, (z, y, x).
    grid : Grid
        The grid it was rendered on; its generator makes the choices.
    thick_slices : bool
        Whether slices may be thickened in place (up to 1:8).

    Returns
    -------
    (z, y, x) float32 tensor
        HU for CT, else a non-negative brightness.
    """
    soft = grid.uniform(0.35, 0.75)
    image = blur(rendering.image, (soft, soft, soft))
    if thick_slices and grid.uniform() < 0.25:
        image = thicken(image, axis=grid.integer(0, 3), factor=grid.integer(2, 9))
    if rendering.is_ct:
        return _degrade_ct(image, rendering, grid)
    if grid.uniform() < 0.85:
        image = image * bias_field(grid, strength=grid.uniform(0.0, 0.6))
    if grid.uniform() < 0.15:
        image = ringing(image, keep=grid.uniform(0.55, 0.9))
    if grid.uniform() < 0.1:
        image = ghost(image, grid)
    return rician(image, grid, sigma=grid.uniform(0.002, 0.06) if grid.uniform() < 0.8 else grid.uniform(0.06, 0.12))


def _degrade_ct(image: Tensor, rendering: Rendering, grid: Grid) -> Tensor:
    if grid.uniform() < 0.1:
        image = image + metal_streaks(rendering.image, grid)
    sigma = grid.uniform(3.0, 35.0)
    grain = torch.randn(image.shape, generator=grid.generator, device=grid.device)
    softness = grid.uniform(0.0, 0.9)
    grain = blur(grain, (softness, softness, softness))
    return image + sigma * grain / grain.std().clamp_min(1e-3)


def thicken(image: Tensor, *, axis: int, factor: int) -> Tensor:
    """Average `factor` slices along an axis and interpolate back, as thick slices look after resampling."""
    n = image.shape[axis]
    if n < 2 * factor:
        return image
    kernel, size = [1, 1, 1], list(image.shape)
    kernel[axis], size[axis] = factor, max(2, n // factor)
    thick = F.interpolate(F.avg_pool3d(image[None, None], kernel), size=size, mode="nearest")
    return F.interpolate(thick, size=image.shape, mode="trilinear", align_corners=False)[0, 0]


def bias_field(grid: Grid, *, strength: float) -> Tensor:
    """Draw a smooth multiplicative field, (z, y, x), with values in about 1 - strength .. 1 + strength."""
    extent = max(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    field = grid.noise(max(0.6 * extent, 60.0)) + 0.3 * grid.noise(max(0.25 * extent, 30.0))
    return torch.exp(strength * torch.tanh(0.7 * field))


def rician(image: Tensor, grid: Grid, *, sigma: float) -> Tensor:
    """Add noise to both channels of a complex signal and take the magnitude."""
    real = image + sigma * torch.randn(image.shape, generator=grid.generator, device=grid.device)
    other = sigma * torch.randn(image.shape, generator=grid.generator, device=grid.device)
    return torch.hypot(real, other)


def ringing(image: Tensor, *, keep: float) -> Tensor:
    """Cut the highest frequencies off in-plane (Gibbs ringing); `keep` is the part of each axis that stays."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(image, dim=(1, 2)), dim=(1, 2))
    for axis in (1, 2):
        n = image.shape[axis]
        cut = int(n * (1 - keep) / 2)
        if cut:
            spectrum.narrow(axis, 0, cut).zero_()
            spectrum.narrow(axis, n - cut, cut).zero_()
    return torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(1, 2)), dim=(1, 2)).real


def ghost(image: Tensor, grid: Grid) -> Tensor:
    """Add a faint copy shifted along one axis, as breathing and pulsation do."""
    axis = 1 + grid.integer(0, 2)
    shift = int(image.shape[axis] / grid.integer(2, 5))
    return image + grid.uniform(0.03, 0.12) * image.roll(shift, dims=axis)


def metal_streaks(clean_hu: Tensor, grid: Grid) -> Tensor:
    """Give dark and bright rays through a random dense point of the image, in HU."""
    dense = torch.nonzero(clean_hu > 400)
    if len(dense) == 0:
        return torch.zeros_like(clean_hu)
    z, y, x = dense[grid.integer(0, len(dense))].tolist()
    back = torch.arange(clean_hu.shape[1], device=grid.device).view(-1, 1) - y
    side = torch.arange(clean_hu.shape[2], device=grid.device).view(1, -1) - x
    angle = torch.atan2(back.float(), side.float())
    distance = torch.hypot(back.float(), side.float())
    rays = torch.sin(grid.integer(6, 24) * angle + grid.uniform(0, 2 * math.pi)) * torch.exp(-distance / grid.uniform(20, 80))
    slab = torch.exp(-(((torch.arange(clean_hu.shape[0], device=grid.device) - z).float() / 3.0) ** 2))
    return grid.uniform(100, 400) * slab.view(-1, 1, 1) * rays
