"""Coordinate grids, smooth noise and soft shapes, all in millimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """World coordinates of every voxel of a block, and a source of randomness.

    Parameters
    ----------
    left, front, up : (z, y, x) float32 tensors
        Distance toward the patient's Left, Anterior and Superior in mm.
    spacing_mm : tuple of 3 float
        Voxel size along z, y, x.
    generator : torch.Generator
        On the tensors' device; the same seed gives the same block.
    """

    left: Tensor
    front: Tensor
    up: Tensor
    spacing_mm: tuple[float, float, float]
    generator: torch.Generator

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.left.shape
        return z, y, x

    @property
    def device(self) -> torch.device:
        """Where the block lives."""
        return self.left.device

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw one number."""
        return low + (high - low) * float(torch.rand((), generator=self.generator, device=self.device))

    def integer(self, low: int, high: int) -> int:
        """Draw one whole number in [low, high)."""
        return int(torch.randint(low, high, (), generator=self.generator, device=self.device))

    def noise(self, length_mm: float) -> Tensor:
        """Draw smooth noise (z, y, x), mean 0 and standard deviation about 1, that varies over `length_mm`."""
        return smooth_noise(self.shape, self.spacing_mm, length_mm, self.generator)

    def warped(self, amplitude_mm: float, length_mm: float) -> Grid:
        """Give the same block with its coordinates bent smoothly."""
        return Grid(
            self.left + amplitude_mm * self.noise(length_mm),
            self.front + amplitude_mm * self.noise(length_mm),
            self.up + amplitude_mm * self.noise(length_mm),
            self.spacing_mm,
            self.generator,
        )

    def mirrored(self) -> Grid:
        """Fold the left side on the right one, so that what is drawn once appears on both."""
        return Grid(self.left.abs(), self.front, self.up, self.spacing_mm, self.generator)

    def ellipsoid(self, center: tuple[float, float, float], radii: tuple[float, float, float], power: float = 2.0) -> Tensor:
        """Give the normalised radius (z, y, x): below 1 inside; centre and radii as (left, front, up) in mm."""
        total = ((self.left - center[0]) / radii[0]).abs() ** power
        total = total + ((self.front - center[1]) / radii[1]).abs() ** power
        total = total + ((self.up - center[2]) / radii[2]).abs() ** power
        return total ** (1.0 / power)


def make_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    center_mm: tuple[float, float, float],
    generator: torch.Generator,
    *,
    tilt_degrees: float = 0.0,
) -> Grid:
    """Make the coordinates of a block in memory order (z toward Inferior, y toward Posterior, x toward Left).

    Parameters
    ----------
    shape, spacing_mm : tuples of 3
        Along z, y, x.
    center_mm : tuple of 3 float
        World position (left, front, up) of the block's centre.
    generator : torch.Generator
        Its device is where the block is made.
    tilt_degrees : float
        Largest random rotation about each axis.
    """
    device = generator.device
    axes = [(torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    down, back, left = torch.meshgrid(*axes, indexing="ij")
    up, front = -down, -back
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(tilt_degrees) * (2 * float(torch.rand((), generator=generator, device=device)) - 1)
        parts = [left, front, up]
        a, b = parts[first], parts[second]
        parts[first] = a * math.cos(angle) - b * math.sin(angle)
        parts[second] = a * math.sin(angle) + b * math.cos(angle)
        left, front, up = parts
    return Grid(left + center_mm[0], front + center_mm[1], up + center_mm[2], spacing_mm, generator)


def smooth_noise(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], length_mm: float, generator: torch.Generator
) -> Tensor:
    """Draw Gaussian noise on a coarse grid of step `length_mm` and lay cubic B-splines over it: (z, y, x), unit variance."""
    coarse = [math.ceil(n * s / length_mm) + 5 for n, s in zip(shape, spacing_mm, strict=True)]
    out = torch.randn(coarse, generator=generator, device=generator.device)
    offset = torch.rand(3, generator=generator, device=generator.device)
    for axis, n in enumerate(shape):
        at = offset[axis] + torch.arange(n, device=out.device) * (spacing_mm[axis] / length_mm)
        low = at.floor().long()
        t = at - low
        view = [1, 1, 1]
        view[axis] = n
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        parts = [out.index_select(axis, low + tap) * weight.view(view) for tap, weight in enumerate(weights)]
        out = parts[0] + parts[1] + parts[2] + parts[3]
    return out / out.std().clamp_min(1e-3)


def blur(image: Tensor, sigma_vox: tuple[float, float, float]) -> Tensor:
    """Smooth (z, y, x) with a separable Gaussian; sigma in voxels along z, y, x."""
    out = image[None, None]
    for axis, sigma in enumerate(sigma_vox):
        radius = math.ceil(3 * sigma)
        if sigma < 0.15 or radius < 1:
            continue
        at = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (at / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(at)
        pad = [0, 0, 0, 0, 0, 0]
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, pad, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return out[0, 0]
