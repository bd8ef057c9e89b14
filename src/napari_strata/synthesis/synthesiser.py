"""Synthesis of a scan with ground truth from a seed: anatomy, appearance, artefacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_strata.errors import SettingsError
from napari_strata.synthesis.anatomy import Anatomy
from napari_strata.synthesis.appearance import (
    CONTRASTS,
    Appearance,
    Contrast,
    Rendering,
    TableAppearance,
)
from napari_strata.synthesis.artefacts import FAULTS, degrade, edge_of_scan
from napari_strata.synthesis.fields import Grid, make_grid
from napari_strata.synthesis.head import HEAD_EXTENT_MM, INSIDE_SKULL, draw_head
from napari_strata.synthesis.shapes import SHAPES_EXTENT_MM, draw_shapes
from napari_strata.synthesis.torso import TORSO_EXTENT_MM, draw_torso

Key = TypeVar("Key")
Family = Literal["head", "torso", "shapes"]

_FAMILIES: dict[Family, tuple[Callable[..., Anatomy], tuple[float, float, float]]] = {
    "head": (draw_head, HEAD_EXTENT_MM),
    "torso": (draw_torso, TORSO_EXTENT_MM),
    "shapes": (draw_shapes, SHAPES_EXTENT_MM),
}
_PLACES_TRIED, _STRUCTURES_WANTED = 4, 5
"""Fields of view drawn at most, until one shows at least this many structures."""
_HALVED_ONE, _HALVED_ALL = 0.15, 0.02
"""Chance that a block is drawn at half the voxel size along its thickest axis, or along all.

It is then averaged down, which gives partial volume.
"""
_CHANCES: dict[Family, dict[Contrast, float]] = {
    "head": {
        "t1": 0.34,
        "t2": 0.14,
        "flair": 0.17,
        "pd": 0.05,
        "ct": 0.08,
        "random": 0.17,
        "inverted": 0.05,
    },
    "torso": {
        "t1": 0.09,
        "t2": 0.1,
        "pd": 0.03,
        "ct": 0.6,
        "random": 0.14,
        "inverted": 0.04,
    },
    "shapes": {
        "t1": 0.05,
        "t2": 0.05,
        "flair": 0.05,
        "pd": 0.05,
        "ct": 0.2,
        "random": 0.5,
        "inverted": 0.1,
    },
}


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticScan:
    """A synthetic scan and its ground truth.

    Parameters
    ----------
    image : (z, y, x) float32 tensor
        HU for CT, otherwise intensity.
    anatomy : Anatomy
        Structures on the same grid.
    contrast : str
        Contrast of the image.
    spacing_mm : tuple of 3 float
        Voxel size along z, y, x.
    clean_image_id : int
        Number of the clean image. Views of one anatomy with the same number differ only
        by artefacts.
    """

    image: Tensor
    anatomy: Anatomy
    contrast: Contrast
    spacing_mm: tuple[float, float, float]
    clean_image_id: int = 0

    @property
    def is_ct(self) -> bool:
        """Whether the image is in HU."""
        return self.contrast == "ct"


@dataclass(frozen=True, slots=True)
class Synthesiser:
    """Maker of synthetic scans.

    The same seed gives the same scan on the same kind of device.

    Parameters
    ----------
    shape : tuple of 3 int
        Number of voxels along z, y, x.
    families : dict
        Chance of each family of anatomy.
    appearance : Appearance
        Renders the anatomy.
    device : str
        "cpu" or "cuda".
    without : tuple of str
        Families, contrasts, artefacts (`artefacts.FAULTS`) and "lesion" to leave out,
        for example for held-out tests.
    spacing_mm : float, optional
        Voxel size along all axes; by default each scan draws its own.

    Raises
    ------
    SettingsError
        If a name in `families` or `without` is unknown, nothing is left to draw, or the
        shape or voxel size is invalid.
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    families: dict[Family, float] = field(
        default_factory=lambda: {"head": 0.4, "torso": 0.45, "shapes": 0.15}
    )
    appearance: Appearance = field(default_factory=TableAppearance)
    device: str = "cpu"
    without: tuple[str, ...] = ()
    spacing_mm: float | None = None

    def __post_init__(self) -> None:
        known = (*_FAMILIES, *CONTRASTS, *FAULTS, "lesion")
        if self.spacing_mm is not None and not 0 < self.spacing_mm < 1000:
            raise SettingsError(
                f"A voxel size of {self.spacing_mm} mm cannot be drawn. Give a number"
                " above 0."
            )
        if min(self.shape) < 2:
            raise SettingsError(
                f"A scan of {self.shape} voxels cannot be drawn. Give at least 2 along"
                " each axis."
            )
        for family in self.families:
            if family not in _FAMILIES:
                raise SettingsError(
                    f"There is no family of anatomy {family!r}. Choose from"
                    f" {', '.join(_FAMILIES)}."
                )
        for name in self.without:
            if name not in known:
                raise SettingsError(
                    f"There is no {name!r} to synthesise or to leave out. Choose from"
                    f" {', '.join(known)}."
                )
        if not any(
            self.families.get(name, 0) > 0
            for name in _FAMILIES
            if name not in self.without
        ):
            raise SettingsError(
                "Every family of anatomy is left out; keep one of head, torso and"
                " shapes."
            )
        for family in self.families:
            if not any(
                chance > 0 and name not in self.without
                for name, chance in _CHANCES[family].items()
            ):
                raise SettingsError(
                    f"Every contrast of the family {family!r} is left out; keep one."
                )

    def make(self, seed: int) -> SyntheticScan:
        """Return a block of random anatomy, place, voxel size, contrast and artefacts.

        It is the first of `make_views`.
        """
        return self.make_views(seed, count=1)[0]

    def make_views(
        self,
        seed: int,
        count: int = 2,
        *,
        draw: Callable[[Grid], Anatomy] | None = None,
    ) -> tuple[SyntheticScan, ...]:
        """Return several scans of one anatomy on one grid.

        In half of the cases the views share the clean image (contrast, tissue means and
        texture) and differ only by artefacts. Otherwise each view draws its own
        contrast, means and texture.

        Parameters
        ----------
        seed : int
            The same seed gives the same views. More views begin with the same ones.
        count : int
            Number of views, at least 1.
        draw : callable, optional
            Draws the anatomy on a grid around (0, 0, 0) mm, instead of a formula. It is
            rendered in the contrasts of the family "shapes".

        Returns
        -------
        tuple of SyntheticScan
            They share `anatomy`.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        family = _choose(
            {
                name: chance
                for name, chance in self.families.items()
                if name not in self.without
            },
            generator,
        )
        if draw is not None:
            family = "shapes"
        for _ in range(_PLACES_TRIED):
            grid, halved = self._place(family, generator, centered=draw is not None)
            fine = (
                draw(grid)
                if draw is not None
                else _draw(family, grid, lesions="lesion" not in self.without)
            )
            sizes = torch.bincount(fine.structures.flatten().int(), minlength=256)
            if (
                int((sizes > 0.004 * fine.structures.numel()).sum())
                >= _STRUCTURES_WANTED
            ):
                break
        anatomy, coarse = fine.every_second(halved), grid.every_second(halved)
        keep = self._keep(anatomy, coarse)
        shared = coarse.uniform() < 0.5
        first = int(torch.randint(2**40, (), generator=generator, device=self.device))
        shown = anatomy if keep is None else anatomy.within(keep)
        views: list[SyntheticScan] = []
        for number in range(count):
            own = torch.Generator(self.device).manual_seed(first + number)
            if number == 0 or not shared:
                contrast = self._contrast(family, own)
                rendering = _halve(
                    self.appearance.render(fine, grid.drawing_from(own), contrast),
                    halved,
                )
            image = degrade(
                rendering, coarse.drawing_from(own), without=frozenset(self.without)
            )
            views.append(
                SyntheticScan(
                    _emptied(image, keep, rendering),
                    shown,
                    contrast,
                    coarse.spacing_mm,
                    0 if shared else number,
                )
            )
        return tuple(views)

    def make_whole(
        self,
        seed: int,
        *,
        family: Family,
        contrast: Contrast,
        spacing_mm: tuple[float, float, float],
        center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> SyntheticScan:
        """Return an upright scan of a given family, contrast, place and voxel size.

        It has neither thick slices nor clipped intensity.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        grid = make_grid(self.shape, spacing_mm, center_mm, generator, tilt_degrees=3.0)
        anatomy = _draw(family, grid, lesions="lesion" not in self.without)
        rendering = self.appearance.render(anatomy, grid, contrast)
        image = degrade(
            rendering, grid, without=frozenset((*self.without, "thick", "window"))
        )
        return SyntheticScan(image, anatomy, contrast, spacing_mm)

    def _contrast(self, family: Family, generator: torch.Generator) -> Contrast:
        return _choose(
            {
                name: chance
                for name, chance in _CHANCES[family].items()
                if name not in self.without
            },
            generator,
        )

    def _place(
        self, family: Family, generator: torch.Generator, *, centered: bool = False
    ) -> tuple[Grid, tuple[int, ...]]:
        """Draw a field of view, and the axes along which its voxel size is halved.

        It ranges from a close-up to most of the body. `centered` puts it at (0, 0, 0).
        """
        first = make_grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), generator)
        spacing = 0.8 * (3.2 / 0.8) ** first.uniform()
        step = [spacing, spacing, spacing]
        if first.uniform() < 0.3:
            step[first.integer(0, 3)] *= first.uniform(1.0, 2.5)
        if self.spacing_mm is not None:
            step = [self.spacing_mm] * 3
        extent = _FAMILIES[family][1]
        center = tuple(first.uniform(-0.36, 0.36) * e * (not centered) for e in extent)
        chance, axis = first.uniform(), first.integer(0, 3)
        thickest = max(range(3), key=lambda i: (step[i], i == axis))
        halved = (
            (0, 1, 2)
            if chance < _HALVED_ALL
            else (thickest,)
            if chance < _HALVED_ALL + _HALVED_ONE
            else ()
        )
        shape = [
            2 * n - 1 if axis in halved else n for axis, n in enumerate(self.shape)
        ]
        fine = [s / 2 if axis in halved else s for axis, s in enumerate(step)]
        grid = make_grid(
            (shape[0], shape[1], shape[2]),
            (fine[0], fine[1], fine[2]),
            (center[0], center[1], center[2]),
            generator,
            tilt_degrees=20.0,
        )
        return grid, halved

    def _keep(self, anatomy: Anatomy, grid: Grid) -> Tensor | None:
        """Draw a mask of the voxels to keep, or None to keep the whole block.

        The mask is the inside of the skull, or the extent of a scan that ends in the
        block.
        """
        chance = grid.uniform()
        if anatomy.family == "head" and chance < 0.2 and "strip" not in self.without:
            inside = anatomy.inside(INSIDE_SKULL)
            return inside if bool(inside.float().mean() > 0.1) else None
        if 0.2 <= chance < 0.28 and "crop" not in self.without:
            return edge_of_scan(grid)
        return None


def _draw(family: Family, grid: Grid, *, lesions: bool) -> Anatomy:
    return _FAMILIES[family][0](grid, lesions=lesions)


def _halve(rendering: Rendering, axes: tuple[int, ...]) -> Rendering:
    """Average a rendering at half the voxel size down to the full voxel size.

    Each voxel is averaged over itself and half of its neighbours.
    """
    image = rendering.image[None, None]
    for axis in axes:
        view, pad = [1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]
        view[axis + 2] = 3
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = 1
        stride = [2 if number == axis else 1 for number in range(3)]
        kernel = torch.tensor([0.25, 0.5, 0.25], device=image.device).view(view)
        image = F.conv3d(F.pad(image, pad, mode="replicate"), kernel, stride=stride)
    return Rendering(image[0, 0], rendering.contrast)


def _emptied(image: Tensor, keep: Tensor | None, rendering: Rendering) -> Tensor:
    """Set the voxels outside the mask `keep` to padding: 0, or -1024 HU."""
    if keep is None:
        return image
    return torch.where(
        keep, image, torch.full_like(image, -1024.0 if rendering.is_ct else 0.0)
    )


def _choose(chances: dict[Key, float], generator: torch.Generator) -> Key:
    weights = torch.tensor(list(chances.values()), device=generator.device)
    number = int(torch.multinomial(weights, 1, generator=generator))
    return list(chances)[number]


__all__ = ["CONTRASTS", "Family", "Synthesiser", "SyntheticScan"]
