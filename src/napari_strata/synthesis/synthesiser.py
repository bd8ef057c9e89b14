"""From a seed to a scan with its ground truth: anatomy, then appearance, then artefacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Anatomy
from napari_strata.synthesis.appearance import CONTRASTS, Appearance, Contrast, TableAppearance
from napari_strata.synthesis.artefacts import degrade
from napari_strata.synthesis.fields import Grid, make_grid
from napari_strata.synthesis.head import HEAD_EXTENT_MM, draw_head
from napari_strata.synthesis.shapes import SHAPES_EXTENT_MM, draw_shapes
from napari_strata.synthesis.torso import TORSO_EXTENT_MM, draw_torso

Key = TypeVar("Key")
Family = Literal["head", "torso", "shapes"]

_FAMILIES: dict[Family, tuple[Callable[[Grid], Anatomy], tuple[float, float, float]]] = {
    "head": (draw_head, HEAD_EXTENT_MM),
    "torso": (draw_torso, TORSO_EXTENT_MM),
    "shapes": (draw_shapes, SHAPES_EXTENT_MM),
}
_PLACES_TRIED, _STRUCTURES_WANTED = 4, 5
"""A field of view that holds almost nothing is drawn again, a few times."""
_CHANCES: dict[Family, dict[Contrast, float]] = {
    "head": {"t1": 0.3, "t2": 0.15, "flair": 0.15, "pd": 0.05, "ct": 0.1, "random": 0.2, "inverted": 0.05},
    "torso": {"t1": 0.12, "t2": 0.1, "flair": 0.0, "pd": 0.05, "ct": 0.55, "random": 0.15, "inverted": 0.03},
    "shapes": {"t1": 0.05, "t2": 0.05, "flair": 0.05, "pd": 0.05, "ct": 0.2, "random": 0.5, "inverted": 0.1},
}


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticScan:
    """A made-up scan and the truth about it.

    Parameters
    ----------
    image : (z, y, x) float32 tensor
        HU for CT, else brightness.
    anatomy : Anatomy
        Structures on the same grid.
    contrast : str
        What it was rendered as.
    spacing_mm : tuple of 3 float
        Along z, y, x.
    """

    image: Tensor
    anatomy: Anatomy
    contrast: Contrast
    spacing_mm: tuple[float, float, float]

    @property
    def is_ct(self) -> bool:
        """Whether the image is in HU."""
        return self.contrast == "ct"


@dataclass(frozen=True, slots=True)
class Synthesiser:
    """Makes scans; the same seed gives the same scan on the same kind of device.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels along z, y, x.
    families : dict
        Chance of each family of anatomy.
    appearance : Appearance
        Turns tissues into brightness.
    device : str
        "cpu" or "cuda".
    """

    shape: tuple[int, int, int] = (64, 64, 64)
    families: dict[Family, float] = field(default_factory=lambda: {"head": 0.4, "torso": 0.4, "shapes": 0.2})
    appearance: Appearance = field(default_factory=TableAppearance)
    device: str = "cpu"

    def make(self, seed: int) -> SyntheticScan:
        """Make a block with random anatomy, place, voxel size, contrast and faults."""
        generator = torch.Generator(self.device).manual_seed(seed)
        family = _choose(self.families, generator)
        contrast = _choose(_CHANCES[family], generator)
        for _ in range(_PLACES_TRIED):
            grid = self._place(family, generator)
            anatomy = _FAMILIES[family][0](grid)
            sizes = torch.bincount(anatomy.structures.flatten().long())
            if int((sizes > 0.004 * anatomy.structures.numel()).sum()) >= _STRUCTURES_WANTED:
                break
        return self._render(anatomy, grid, contrast)

    def make_whole(
        self, seed: int, *, family: Family, contrast: Contrast, spacing_mm: tuple[float, float, float],
        center_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> SyntheticScan:  # fmt: skip
        """Make a scan of one family in one contrast at a given place and voxel size, in upright pose."""
        generator = torch.Generator(self.device).manual_seed(seed)
        grid = make_grid(self.shape, spacing_mm, center_mm, generator, tilt_degrees=3.0)
        return self._render(_FAMILIES[family][0](grid), grid, contrast, thick_slices=False)

    def _place(self, family: Family, generator: torch.Generator) -> Grid:
        """Choose a field of view: anything from a close look to most of the body."""
        first = make_grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), generator)
        spacing = 0.8 * (3.2 / 0.8) ** first.uniform()
        step = (spacing, spacing, spacing)
        if first.uniform() < 0.3:
            stretch = [1.0, 1.0, 1.0]
            stretch[first.integer(0, 3)] = first.uniform(1.0, 2.5)
            step = (spacing * stretch[0], spacing * stretch[1], spacing * stretch[2])
        extent = _FAMILIES[family][1]
        center = tuple(first.uniform(-0.36, 0.36) * e for e in extent)
        return make_grid(self.shape, step, (center[0], center[1], center[2]), generator, tilt_degrees=20.0)

    def _render(self, anatomy: Anatomy, grid: Grid, contrast: Contrast, *, thick_slices: bool = True) -> SyntheticScan:
        rendering = self.appearance.render(anatomy, grid, contrast)
        return SyntheticScan(degrade(rendering, grid, thick_slices=thick_slices), anatomy, contrast, grid.spacing_mm)


def _choose(chances: dict[Key, float], generator: torch.Generator) -> Key:
    weights = torch.tensor(list(chances.values()), device=generator.device)
    number = int(torch.multinomial(weights, 1, generator=generator))
    return list(chances)[number]


__all__ = ["CONTRASTS", "Family", "Synthesiser", "SyntheticScan"]
