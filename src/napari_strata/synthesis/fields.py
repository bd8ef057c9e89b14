"""Coordinate grids, smooth noise and soft shapes, all in millimetres."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Point = tuple[float, float, float]
"""A point as (left, front, up) in mm."""
Box = list[tuple[float, float]]
"""(low, high) in mm along left, front and up."""
Bounds = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """World coordinates of every voxel of a block, and a random generator.

    Parameters
    ----------
    left, front, up : (z, y, x) float32 tensors
        Distance toward the patient's Left, Anterior and Superior in mm.
    spacing_mm : tuple of 3 float
        Voxel size along z, y, x.
    generator : torch.Generator
        On the tensors' device; the same seed gives the same block.
    bounds : three pairs of (3, n) CPU tensors
        Smallest and largest left, front and up in every slice along z, y and x. They
        limit where a shape is evaluated.
    """

    left: Tensor
    front: Tensor
    up: Tensor
    spacing_mm: tuple[float, float, float]
    generator: torch.Generator
    bounds: Bounds

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y, x."""
        z, y, x = self.left.shape
        return z, y, x

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.left.device

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number in [low, high)."""
        return low + (high - low) * float(
            torch.rand((), generator=self.generator, device=self.device)
        )

    def integer(self, low: int, high: int) -> int:
        """Draw an integer in [low, high)."""
        return int(
            torch.randint(low, high, (), generator=self.generator, device=self.device)
        )

    def noise(self, length_mm: float) -> Tensor:
        """Draw smooth noise (z, y, x) that varies over `length_mm`.

        Its mean is 0 and its standard deviation about 1.
        """
        return smooth_noise(self.shape, self.spacing_mm, length_mm, self.generator)

    def drawing_from(self, generator: torch.Generator) -> Grid:
        """Return the same block with another random generator."""
        return replace(self, generator=generator)

    def every_second(self, axes: tuple[int, ...]) -> Grid:
        """Return the grid with every second voxel along the given axes."""
        if not axes:
            return self
        steps = tuple(slice(None, None, 2 if axis in axes else 1) for axis in range(3))
        size = [s * 2 if axis in axes else s for axis, s in enumerate(self.spacing_mm)]
        left, front, up = (
            part[steps].contiguous() for part in (self.left, self.front, self.up)
        )
        return Grid(
            left,
            front,
            up,
            (size[0], size[1], size[2]),
            self.generator,
            _bounds(left, front, up),
        )

    def warped(self, amplitude_mm: float, length_mm: float) -> Grid:
        """Return the same block with smoothly deformed coordinates."""
        left, front, up = (
            axis + amplitude_mm * self.noise(length_mm)
            for axis in (self.left, self.front, self.up)
        )
        return Grid(
            left, front, up, self.spacing_mm, self.generator, _bounds(left, front, up)
        )

    def mirrored(self) -> Grid:
        """Return the block with left and right folded together.

        A structure that is drawn once on it appears on both sides.
        """
        bounds = []
        for least, most in self.bounds:
            near = torch.where(
                (least[0] < 0) & (most[0] > 0),
                0.0,
                torch.minimum(least[0].abs(), most[0].abs()),
            )
            far = torch.maximum(least[0].abs(), most[0].abs())
            bounds.append(
                (torch.stack([near, *least[1:]]), torch.stack([far, *most[1:]]))
            )
        return replace(self, left=self.left.abs(), bounds=tuple(bounds))

    def ellipsoid(
        self, center: Point, radii: Point, power: float = 2.0, *, whole: bool = False
    ) -> Tensor:
        """Return the normalised radius (z, y, x) of an ellipsoid, below 1 inside.

        Centre and radii are (left, front, up) in mm. Far outside (beyond about 1.5) the
        result is 9 unless `whole`: it is not computed there, to save time.
        """
        parts = list(zip((self.left, self.front, self.up), center, radii, strict=True))
        window = (
            None
            if whole
            else self.window([(c - 1.5 * r, c + 1.5 * r) for _, c, r in parts])
        )
        if window is not None:
            parts = [(axis[window], c, r) for axis, c, r in parts]
        if power == 2.0:
            squares = [((axis - c) * (1.0 / r)).square_() for axis, c, r in parts]
            return self._paste(
                squares[0].add_(squares[1]).add_(squares[2]).sqrt_(), window
            )
        powers = [((axis - c) * (1.0 / r)).abs_().pow_(power) for axis, c, r in parts]
        return self._paste(
            powers[0].add_(powers[1]).add_(powers[2]).pow_(1.0 / power), window
        )

    def capsule(
        self, start: Point, end: Point, radius_mm: float, *, taper: float = 1.0
    ) -> Tensor:
        """Return the normalised distance (z, y, x) from the axis of a straight tube.

        It is below 1 inside, and 9 far outside.

        Parameters
        ----------
        start, end : tuples of 3 float
            Ends of the axis as (left, front, up) in mm.
        radius_mm : float
            Radius at the start.
        taper : float
            Ratio of the radius at the end to that at the start.
        """
        reach = 1.5 * radius_mm * max(1.0, taper)
        window = self.window(
            [
                (min(a, b) - reach, max(a, b) + reach)
                for a, b in zip(start, end, strict=True)
            ]
        )
        along = [b - a for a, b in zip(start, end, strict=True)]
        squared = max(sum(v * v for v in along), 1e-6)
        to = [
            axis[window] - a
            for axis, a in zip((self.left, self.front, self.up), start, strict=True)
        ]
        t = (
            (to[0] * along[0])
            .add_(to[1], alpha=along[1])
            .add_(to[2], alpha=along[2])
            .mul_(1.0 / squared)
            .clamp_(0, 1)
        )
        for part, a in zip(to, along, strict=True):
            part.sub_(t, alpha=a).square_()
        distance = to[0].add_(to[1]).add_(to[2]).sqrt_()
        return self._paste(
            distance / (t.mul_((taper - 1) * radius_mm).add_(radius_mm)), window
        )

    def window(self, box: Box) -> tuple[slice, slice, slice]:
        """Return the slices of the block that may overlap a box.

        The box is (low, high) in mm along left, front and up.
        """
        low, high = (torch.tensor([side[i] for side in box])[:, None] for i in (0, 1))
        found = []
        for least, most in self.bounds:
            at = torch.nonzero(((most >= low) & (least <= high)).all(0)).flatten()
            found.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
        return found[0], found[1], found[2]

    def cut(self, window: tuple[slice, slice, slice]) -> Grid:
        """Return a part of the block."""
        bounds = tuple(
            (least[:, along], most[:, along])
            for (least, most), along in zip(self.bounds, window, strict=True)
        )
        return replace(
            self,
            left=self.left[window],
            front=self.front[window],
            up=self.up[window],
            bounds=bounds,
        )

    def _paste(self, part: Tensor, window: tuple[slice, slice, slice] | None) -> Tensor:
        if window is None:
            return part
        full = torch.full(self.shape, 9.0, device=self.device)
        full[window] = part
        return full

    def slope(self, values: Tensor) -> Tensor:
        """Return the length of the gradient of a (z, y, x) field, per mm."""
        parts = torch.gradient(values, spacing=list(self.spacing_mm))
        return (parts[0].square() + parts[1].square() + parts[2].square()).sqrt_()


def make_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    center_mm: tuple[float, float, float],
    generator: torch.Generator,
    *,
    tilt_degrees: float = 0.0,
) -> Grid:
    """Return the grid of a block, with z toward Inferior, y Posterior and x Left.

    Parameters
    ----------
    shape, spacing_mm : tuples of 3
        Voxels and voxel size in mm, along z, y, x.
    center_mm : tuple of 3 float
        World position (left, front, up) of the block's centre.
    generator : torch.Generator
        Random generator; the block is made on its device.
    tilt_degrees : float
        Largest random rotation about each axis.
    """
    device = generator.device
    axes = [
        (torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * s
        for n, s in zip(shape, spacing_mm, strict=True)
    ]
    down, back, left = torch.meshgrid(*axes, indexing="ij")
    up, front = -down, -back
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(tilt_degrees) * (
            2 * float(torch.rand((), generator=generator, device=device)) - 1
        )
        parts = [left, front, up]
        a, b = parts[first], parts[second]
        parts[first] = a * math.cos(angle) - b * math.sin(angle)
        parts[second] = a * math.sin(angle) + b * math.cos(angle)
        left, front, up = parts
    left, front, up = left + center_mm[0], front + center_mm[1], up + center_mm[2]
    return Grid(left, front, up, spacing_mm, generator, _bounds(left, front, up))


def _bounds(left: Tensor, front: Tensor, up: Tensor) -> Bounds:
    """Return the smallest and largest left, front and up of every slice on each axis."""
    both = torch.stack([left, front, up])
    ends = [
        (both.amin(dim=rest).cpu(), both.amax(dim=rest).cpu())
        for rest in ((2, 3), (1, 3), (1, 2))
    ]
    return tuple(ends)


def radial(first: Tensor, second: Tensor) -> Tensor:
    """Return sqrt(first^2 + second^2) without a guard against overflow.

    This is several times faster than `torch.hypot`.
    """
    return first.square().add_(second.square()).sqrt_()


_SPLINE_VARIANCE = (151 / 315) ** 3
"""Variance of a 3D cubic B-spline of unit Gaussian noise, averaged over positions."""


def smooth_noise(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    length_mm: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw smooth noise (z, y, x) of variance about 1.

    Gaussian noise on a coarse grid of step `length_mm` is interpolated with cubic
    B-splines.
    """
    coarse = [
        math.ceil(n * s / length_mm) + 4 for n, s in zip(shape, spacing_mm, strict=True)
    ]
    out = torch.randn(coarse, generator=generator, device=generator.device) / math.sqrt(
        _SPLINE_VARIANCE
    )
    offset = torch.rand(3, generator=generator, device=generator.device)
    steps = [s / length_mm for s in spacing_mm]
    for axis in range(3):  # three small matrix products: the spline is separable
        at = (
            offset[axis]
            + 1
            + torch.arange(shape[axis], device=out.device) * steps[axis]
        )
        away = (at[:, None] - torch.arange(coarse[axis], device=out.device)).abs()
        inner = 2 / 3 - away**2 + away**3 / 2
        weights = torch.where(away < 1, inner, (2 - away).clamp_min(0) ** 3 / 6)
        out = torch.tensordot(out, weights, dims=([0], [1]))
    return out.contiguous()


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
        out = F.conv3d(
            F.pad(out, pad, mode="replicate"), (kernel / kernel.sum()).view(shape)
        )
    return out[0, 0]
