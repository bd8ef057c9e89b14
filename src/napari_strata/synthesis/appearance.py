"""How bright each tissue is: one replaceable object, so that a learned appearance can take its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import TISSUES, Anatomy
from napari_strata.synthesis.fields import Grid

Contrast = Literal["t1", "t2", "flair", "pd", "ct", "random", "inverted"]

# Typical brightness per tissue on a scale of 0 to 1, drawn from general knowledge of the contrasts: grey and white
# matter swap places between T1 and T2, fluid is dark on T1 and FLAIR and bright on T2, and so on.
# fmt: off
_BRIGHTNESS = {
    #                 t1    t2    flair pd
    "air":            (0.02, 0.02, 0.02, 0.02), "skin":         (0.55, 0.35, 0.35, 0.45), "fat":          (0.95, 0.60, 0.65, 0.70),
    "muscle":         (0.42, 0.25, 0.28, 0.45), "bone":         (0.07, 0.06, 0.06, 0.08), "marrow":       (0.75, 0.45, 0.45, 0.50),
    "csf":            (0.16, 0.95, 0.14, 0.80), "grey matter":  (0.48, 0.58, 0.62, 0.75), "white matter": (0.70, 0.40, 0.48, 0.60),
    "deep grey matter": (0.55, 0.48, 0.55, 0.68), "blood":      (0.30, 0.15, 0.20, 0.40), "vessel wall":  (0.38, 0.30, 0.35, 0.45),
    "lung":           (0.06, 0.07, 0.06, 0.08), "liver":        (0.58, 0.28, 0.32, 0.50), "spleen":       (0.40, 0.50, 0.50, 0.55),
    "kidney cortex":  (0.50, 0.55, 0.52, 0.60), "kidney medulla": (0.36, 0.66, 0.58, 0.62), "gut wall":   (0.42, 0.38, 0.40, 0.48),
    "gut content":    (0.30, 0.70, 0.40, 0.60), "gland":        (0.60, 0.45, 0.45, 0.55), "disc":         (0.40, 0.60, 0.45, 0.55),
    "eye":            (0.14, 0.97, 0.14, 0.80), "lesion core":  (0.22, 0.85, 0.40, 0.75), "lesion rim":   (0.58, 0.65, 0.80, 0.72),
    "oedema":         (0.42, 0.78, 0.85, 0.75),
}
_HU = {
    "air": -1000, "skin": 30, "fat": -100, "muscle": 55, "bone": 700, "marrow": 220, "csf": 8, "grey matter": 40, "white matter": 30,
    "deep grey matter": 37, "blood": 45, "vessel wall": 50, "lung": -840, "liver": 60, "spleen": 50, "kidney cortex": 36,
    "kidney medulla": 30, "gut wall": 42, "gut content": 18, "gland": 42, "disc": 75, "eye": 12, "lesion core": 22, "lesion rim": 50,
    "oedema": 22,
}
_UPTAKE = {"blood": 190, "kidney cortex": 150, "kidney medulla": 90, "liver": 50, "spleen": 70, "gland": 45, "gut wall": 35,
           "lesion rim": 50, "muscle": 8, "vessel wall": 30, "gut content": 60}
# fmt: on
CONTRASTS: tuple[Contrast, ...] = ("t1", "t2", "flair", "pd", "ct", "random", "inverted")


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A scan before the scanner's faults.

    Parameters
    ----------
    image : (z, y, x) float32 tensor
        HU for CT, else a brightness of about 0 to 1.
    contrast : str
        One of `CONTRASTS`.
    """

    image: Tensor
    contrast: Contrast

    @property
    def is_ct(self) -> bool:
        """Whether the image is in HU."""
        return self.contrast == "ct"


class Appearance(Protocol):
    """Anything that turns an anatomy into an image."""

    def render(self, anatomy: Anatomy, grid: Grid, contrast: Contrast) -> Rendering:
        """Render an anatomy on its grid in the given contrast."""
        ...


class TableAppearance:
    """Brightness from tables with random changes: tissue means, small differences between structures, texture.

    Parameters
    ----------
    jitter : float
        Standard deviation of a tissue's mean around the table, in brightness (CT: in units of 60 HU).
    """

    def __init__(self, jitter: float = 0.07) -> None:
        self.jitter = jitter

    def render(self, anatomy: Anatomy, grid: Grid, contrast: Contrast) -> Rendering:
        """Render an anatomy; see `Appearance`."""
        means = tissue_means(contrast, grid.generator, self.jitter)
        per_structure = means[torch.tensor(anatomy.tissue_of, device=grid.device)]
        unit = 1.0 if contrast != "ct" else 60.0
        own = torch.randn(len(per_structure), generator=grid.generator, device=grid.device) * 0.025 * unit
        own[torch.tensor(anatomy.tissue_of, device=grid.device) == 0] = 0
        index = anatomy.structures.long()
        image = (per_structure + own)[index]
        rough = torch.rand(len(TISSUES), generator=grid.generator, device=grid.device) * 0.05 * unit
        rough[0] = 0
        amount = rough[torch.tensor(anatomy.tissue_of, device=grid.device)][index]
        texture = 0.7 * grid.noise(grid.uniform(2.0, 5.0)) + 0.7 * grid.noise(grid.uniform(6.0, 16.0))
        return Rendering(image + amount * texture, contrast)


def tissue_means(contrast: Contrast, generator: torch.Generator, jitter: float) -> Tensor:
    """Draw a mean for every tissue, (number of tissues,) float32: HU for CT, else brightness."""
    device = generator.device
    noise = torch.randn(len(TISSUES), generator=generator, device=device)
    anything = torch.rand(len(TISSUES), generator=generator, device=device)
    if contrast == "ct":
        uptake = float(torch.rand((), generator=generator, device=device)) * (anything[1] > 0.35)
        hu = [_HU.get(name, 0.0) + float(uptake) * _UPTAKE.get(name, 0.0) for name in TISSUES]
        means = torch.tensor(hu, device=device)
        unknown = torch.tensor([name not in _HU for name in TISSUES], device=device)
        means = torch.where(unknown, anything * 260 - 100, means)
        spread = torch.where(means.abs() > 300, 90.0, 9.0) * (jitter / 0.07)
        means = means + noise * spread
        means[0] = -1000.0
        return means
    if contrast in ("random", "inverted"):
        means = anything
        if contrast == "inverted":
            column = torch.tensor([_BRIGHTNESS.get(name, (0.5,) * 4)[0] for name in TISSUES], device=device)
            means = 1.0 - column + jitter * noise
        means[0] = 0.0 if anything[0] < 0.85 else float(anything[2])
        return means.clamp_min(0.0)
    column_number = ("t1", "t2", "flair", "pd").index(contrast)
    table = [_BRIGHTNESS.get(name, (-1.0,) * 4)[column_number] for name in TISSUES]
    means = torch.tensor(table, device=device)
    means = torch.where(means < 0, anything, means + jitter * noise)
    means[0] = 0.01
    return means.clamp_min(0.0)
