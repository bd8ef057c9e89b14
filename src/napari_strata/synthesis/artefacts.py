"""Artefacts: partial volume, thick slices, bias, noise, ringing, motion, metal streaks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_strata.synthesis.appearance import Rendering
from napari_strata.synthesis.fields import Grid, blur

FAULTS = (
    "soft",
    "thick",
    "jumps",
    "gamma",
    "bias",
    "ringing",
    "motion",
    "noise",
    "metal",
    "window",
    "crop",
    "strip",
)
"""Names of the artefacts, each of which can be left out.

"crop" (the scan ends inside the block) and "strip" (a skull-stripped head) clear a part
of the image and of the labels. The others change the image only.
"""


def degrade(
    rendering: Rendering, grid: Grid, *, without: frozenset[str] = frozenset()
) -> Tensor:
    """Return the image of a rendering with a random set of artefacts.

    Parameters
    ----------
    rendering : Rendering
        A clean image, (z, y, x).
    grid : Grid
        The grid it was rendered on. Its generator draws the artefacts.
    without : frozenset of str
        Artefacts of `FAULTS` to leave out.

    Returns
    -------
    (z, y, x) float32 tensor
        HU for CT, otherwise an intensity of about 0 to 1. Ringing and counting noise can
        make it slightly negative.
    """
    image = rendering.image

    def happens(fault: str, chance: float) -> bool:
        return grid.uniform() < chance and fault not in without

    soft = grid.uniform(0.3, 0.75)
    if happens("soft", 1.0):
        image = blur(image, (soft, soft, soft))
    if happens("thick", 0.25):
        image = thicken(image, axis=grid.integer(0, 3), factor=grid.integer(2, 9))
    if rendering.is_ct:
        if happens("metal", 0.08):
            image = image + metal_streaks(rendering.image, grid)
        if happens("noise", 1.0):
            image = ct_noise(image, grid, sigma_hu=grid.uniform(4.0, 40.0))
        if happens("window", 0.2):
            image = soft_window(image, grid)
        return image
    if happens("gamma", 0.5):
        image = gamma(image, math.exp(grid.uniform(-0.45, 0.45)))
    if happens("bias", 0.85):
        image = image * bias_field(grid, strength=grid.uniform(0.0, 0.6))
    if happens("jumps", 0.08):
        image = slice_jumps(
            image, grid, axis=grid.integer(0, 3), strength=grid.uniform(0.02, 0.12)
        )
    if happens("ringing", 0.12):
        image = ringing(image, keep=grid.uniform(0.55, 0.9))
    if happens("motion", 0.12):
        image = motion(image, grid)
    if happens("noise", 1.0):
        sigma = (
            grid.uniform(0.002, 0.05)
            if grid.uniform() < 0.8
            else grid.uniform(0.05, 0.11)
        )
        image = (
            rician(image, grid, sigma=sigma)
            if grid.uniform() < 0.75
            else counting_noise(image, grid, sigma=sigma)
        )
    return image


def ct_noise(image: Tensor, grid: Grid, *, sigma_hu: float) -> Tensor:
    """Add noise of a given standard deviation in HU, smoothed by a random amount.

    The smoothing imitates soft and sharp reconstruction kernels.
    """
    grain = torch.randn(image.shape, generator=grid.generator, device=grid.device)
    softness = grid.uniform(0.0, 0.9)
    grain = blur(grain, (softness, softness, softness))
    return image + grain * (sigma_hu / grain.std().clamp_min(1e-3))


def soft_window(image: Tensor, grid: Grid) -> Tensor:
    """Clip HU to a random soft-tissue window, as in scans exported for viewing."""
    middle, width = grid.uniform(20, 80), grid.uniform(250, 500)
    return image.clamp(middle - width / 2, middle + width / 2)


def gamma(image: Tensor, exponent: float) -> Tensor:
    """Apply a gamma curve, image ** exponent, to an intensity of about 0 to 1."""
    return image.clamp_min(0) ** exponent


def thicken(image: Tensor, *, axis: int, factor: int) -> Tensor:
    """Imitate thick slices that were resampled to thin ones.

    Every `factor` slices along an axis are averaged, and the averages interpolated.
    """
    n = image.shape[axis]
    if n < 2 * factor:
        return image
    kernel, size = [1, 1, 1], list(image.shape)
    kernel[axis], size[axis] = factor, max(2, n // factor)
    thick = F.interpolate(
        F.avg_pool3d(image[None, None], kernel), size=size, mode="nearest"
    )
    return F.interpolate(
        thick, size=image.shape, mode="trilinear", align_corners=False
    )[0, 0]


def slice_jumps(image: Tensor, grid: Grid, *, axis: int, strength: float) -> Tensor:
    """Scale every slice along an axis by a random factor of about 1 +- strength.

    Interleaved acquisition causes such jumps.
    """
    size = [1, 1, 1]
    size[axis] = image.shape[axis]
    return image * torch.exp(
        strength * torch.randn(size, generator=grid.generator, device=grid.device)
    )


def bias_field(grid: Grid, *, strength: float) -> Tensor:
    """Draw a smooth multiplicative bias field (z, y, x) of about 1 +- strength."""
    extent = max(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    field = grid.noise(max(0.5 * extent, 50.0)) + 0.3 * grid.noise(
        max(0.25 * extent, 30.0)
    )
    field = field - field.mean()
    return 1.0 + strength * torch.tanh(1.2 * field / field.std().clamp_min(0.3))


def rician(image: Tensor, grid: Grid, *, sigma: float) -> Tensor:
    """Add Rician noise: Gaussian noise in both channels of a complex signal."""
    real = (
        torch.randn(image.shape, generator=grid.generator, device=grid.device)
        .mul_(sigma)
        .add_(image)
    )
    other = torch.randn(image.shape, generator=grid.generator, device=grid.device).mul_(
        sigma
    )
    return torch.hypot(real, other)


def counting_noise(image: Tensor, grid: Grid, *, sigma: float) -> Tensor:
    """Add Poisson-like noise whose variance grows with the signal.

    The variance is sigma squared where the image is 0.5.
    """
    grain = torch.randn(image.shape, generator=grid.generator, device=grid.device)
    return image + sigma * grain * (2.0 * image.clamp_min(0.002)).sqrt_()


def ringing(image: Tensor, *, keep: float) -> Tensor:
    """Remove the highest in-plane frequencies, which causes Gibbs ringing.

    `keep` is the share of the frequencies along each axis that remains.
    """
    spectrum = torch.fft.fftshift(torch.fft.fftn(image, dim=(1, 2)), dim=(1, 2))
    for axis in (1, 2):
        n = image.shape[axis]
        cut = int(n * (1 - keep) / 2)
        if cut:
            spectrum.narrow(axis, 0, cut).zero_()
            spectrum.narrow(axis, n - cut, cut).zero_()
    return torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(1, 2)), dim=(1, 2)).real


def motion(image: Tensor, grid: Grid) -> Tensor:
    """Blur along one in-plane axis and add faint shifted copies (ghosts).

    This imitates movement, breathing and pulsation.
    """
    axis = 1 + grid.integer(0, 2)
    smear = [0.0, 0.0, 0.0]
    smear[axis] = grid.uniform(0.0, 1.4)
    out = blur(image, (smear[0], smear[1], smear[2]))
    shift, strength = (
        int(image.shape[axis] / grid.uniform(2, 6)),
        grid.uniform(0.02, 0.12),
    )
    return out + strength * (
        image.roll(shift, dims=axis) + 0.6 * image.roll(-shift, dims=axis) - image
    )


def metal_streaks(clean_hu: Tensor, grid: Grid) -> Tensor:
    """Return metal streaks in HU: dark and bright rays through a random dense voxel."""
    dense = torch.nonzero(clean_hu > 400)
    if len(dense) == 0:
        return torch.zeros_like(clean_hu)
    z, y, x = dense[grid.integer(0, len(dense))].tolist()
    back = torch.arange(clean_hu.shape[1], device=grid.device).view(-1, 1) - y
    side = torch.arange(clean_hu.shape[2], device=grid.device).view(1, -1) - x
    angle = torch.atan2(back.float(), side.float())
    distance = torch.hypot(back.float(), side.float())
    rays = torch.sin(
        grid.integer(6, 24) * angle + grid.uniform(0, 2 * math.pi)
    ) * torch.exp(-distance / grid.uniform(20, 80))
    slab = torch.exp(
        -(
            ((torch.arange(clean_hu.shape[0], device=grid.device) - z).float() / 3.0)
            ** 2
        )
    )
    metal = 2500.0 * torch.exp(-((distance / grid.uniform(1.0, 3.0)) ** 2))
    return slab.view(-1, 1, 1) * (grid.uniform(100, 400) * rays + metal)


def edge_of_scan(grid: Grid) -> Tensor:
    """Draw a mask (z, y, x) of the scan's extent, if it ends inside the block.

    Up to 45 % of the block is cut off at one or two sides.
    """
    inside = torch.ones(grid.shape, dtype=torch.bool, device=grid.device)
    for _ in range(1 + grid.integer(0, 2)):
        axis = grid.integer(0, 3)
        cut = int(grid.uniform(0.05, 0.45) * grid.shape[axis])
        start = 0 if grid.uniform() < 0.5 else grid.shape[axis] - cut
        inside.narrow(axis, start, cut).fill_(False)
    return inside
