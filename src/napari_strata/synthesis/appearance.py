"""Intensity and texture of tissues, behind a protocol so that it can be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import TISSUE_NUMBER, TISSUES, Anatomy, look_up
from napari_strata.synthesis.fields import Grid, smooth_noise

Contrast = Literal["t1", "t2", "flair", "pd", "ct", "random", "inverted"]

# Typical intensity per tissue on a scale of 0 to 1, from general knowledge of the
# contrasts: grey matter is darker than white matter on T1 and brighter on T2, fluid is
# dark on T1 and FLAIR and bright on T2, and so on.
_INTENSITY = {
    #                 t1    t2    flair pd
    "air": (0.02, 0.02, 0.02, 0.02),
    "skin": (0.55, 0.35, 0.35, 0.45),
    "fat": (0.95, 0.60, 0.65, 0.70),
    "muscle": (0.42, 0.25, 0.28, 0.45),
    "bone": (0.07, 0.06, 0.06, 0.08),
    "marrow": (0.75, 0.45, 0.45, 0.50),
    "csf": (0.16, 0.95, 0.14, 0.80),
    "grey matter": (0.48, 0.58, 0.62, 0.75),
    "white matter": (0.70, 0.40, 0.48, 0.60),
    "deep grey matter": (0.55, 0.48, 0.55, 0.68),
    "blood": (0.30, 0.15, 0.20, 0.40),
    "vessel wall": (0.38, 0.30, 0.35, 0.45),
    "lung": (0.06, 0.07, 0.06, 0.08),
    "liver": (0.58, 0.28, 0.32, 0.50),
    "spleen": (0.40, 0.50, 0.50, 0.55),
    "kidney cortex": (0.50, 0.55, 0.52, 0.60),
    "kidney medulla": (0.36, 0.66, 0.58, 0.62),
    "gut wall": (0.42, 0.38, 0.40, 0.48),
    "gut content": (0.30, 0.70, 0.40, 0.60),
    "gland": (0.60, 0.45, 0.45, 0.55),
    "disc": (0.40, 0.60, 0.45, 0.55),
    "eye": (0.14, 0.97, 0.14, 0.80),
    "lesion core": (0.22, 0.85, 0.40, 0.75),
    "lesion rim": (0.58, 0.65, 0.80, 0.72),
    "oedema": (0.42, 0.78, 0.85, 0.75),
    "inner air": (0.02, 0.02, 0.02, 0.02),
    "mucosa": (0.45, 0.75, 0.60, 0.60),
    "pancreas": (0.62, 0.42, 0.45, 0.52),
    "heart muscle": (0.46, 0.32, 0.34, 0.48),
    "venous blood": (0.36, 0.24, 0.26, 0.45),
    "urine": (0.15, 0.95, 0.16, 0.80),
    "stool": (0.50, 0.30, 0.34, 0.42),
    "dura": (0.36, 0.22, 0.32, 0.40),
    "lens": (0.40, 0.22, 0.30, 0.40),
    "cartilage": (0.45, 0.40, 0.38, 0.55),
}
_HU = {
    "air": -1000,
    "skin": 30,
    "fat": -100,
    "muscle": 55,
    "bone": 700,
    "marrow": 220,
    "csf": 8,
    "grey matter": 40,
    "white matter": 30,
    "deep grey matter": 37,
    "blood": 45,
    "vessel wall": 50,
    "lung": -840,
    "liver": 60,
    "spleen": 50,
    "kidney cortex": 36,
    "kidney medulla": 30,
    "gut wall": 42,
    "gut content": 18,
    "gland": 42,
    "disc": 75,
    "eye": 12,
    "lesion core": 22,
    "lesion rim": 50,
    "oedema": 22,
    "inner air": -990,
    "mucosa": 40,
    "pancreas": 42,
    "heart muscle": 46,
    "venous blood": 43,
    "urine": 6,
    "stool": 20,
    "dura": 60,
    "lens": 70,
    "cartilage": 95,
}
# HU added by contrast agent: in the arterial phase, and about a minute later.
_UPTAKE_EARLY = {
    "blood": 270,
    "venous blood": 40,
    "kidney cortex": 130,
    "kidney medulla": 25,
    "liver": 15,
    "spleen": 70,
    "pancreas": 55,
    "gut wall": 40,
    "lesion rim": 40,
    "heart muscle": 60,
    "mucosa": 30,
    "gland": 30,
    "muscle": 4,
}
_UPTAKE_LATE = {
    "blood": 120,
    "venous blood": 115,
    "kidney cortex": 140,
    "kidney medulla": 115,
    "liver": 50,
    "spleen": 65,
    "pancreas": 45,
    "gut wall": 35,
    "lesion rim": 45,
    "heart muscle": 55,
    "mucosa": 25,
    "gland": 40,
    "muscle": 10,
    "dura": 40,
}
CONTRASTS: tuple[Contrast, ...] = (
    "t1",
    "t2",
    "flair",
    "pd",
    "ct",
    "random",
    "inverted",
)


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A rendered scan without artefacts.

    Parameters
    ----------
    image : (z, y, x) float32 tensor
        HU for CT, otherwise an intensity of about 0 to 1.
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
    """Interface of a renderer that turns an anatomy into an image."""

    def render(self, anatomy: Anatomy, grid: Grid, contrast: Contrast) -> Rendering:
        """Render an anatomy on its grid in the given contrast."""
        ...


@dataclass(frozen=True, slots=True)
class TableAppearance:
    """Intensity from tables of tissue means, with random variation and texture.

    Parameters
    ----------
    jitter : float
        Standard deviation of a tissue's mean around its table value, in intensity (CT:
        in units of 120 HU).
    texture : float
        Largest standard deviation of the texture inside a tissue, in the same units.
    """

    jitter: float = 0.07
    texture: float = 0.07

    def render(self, anatomy: Anatomy, grid: Grid, contrast: Contrast) -> Rendering:
        """Render an anatomy; see `Appearance`."""
        unit = 120.0 if contrast == "ct" else 1.0
        tissue_of = torch.tensor(anatomy.tissue_of, device=grid.device)
        means = tissue_means(contrast, grid.generator, self.jitter)
        if contrast in ("random", "inverted") or anatomy.family == "shapes":
            means = _shrink_within_compartments(means, anatomy, grid)
        own = (
            torch.randn(len(tissue_of), generator=grid.generator, device=grid.device)
            * (0.025 if unit == 1.0 else 0.045)
            * unit
        )
        table = torch.cat(
            [
                (means[tissue_of] + own)[:, None],
                self._texture_table(anatomy, grid) * unit,
            ],
            dim=1,
        )
        table[0, 0] = means[0]
        table[tissue_of == 0, 1:] = 0
        image = look_up(table[:, 0], anatomy.structures)
        for column, noise in enumerate(_textures(grid), 1):
            image.addcmul_(look_up(table[:, column], anatomy.structures), noise)
        return Rendering(image, contrast)

    def _texture_table(self, anatomy: Anatomy, grid: Grid) -> Tensor:
        """Draw the amount of each of the four textures per structure, (structure, 4).

        Usually one texture dominates.
        """
        structures = len(anatomy.tissue_of)
        amount = (
            self.texture
            * torch.rand(
                (len(TISSUES), 1), generator=grid.generator, device=grid.device
            )
            ** 2
        )
        kinds = (
            torch.rand((len(TISSUES), 4), generator=grid.generator, device=grid.device)
            ** 3
        )
        play = 0.6 + 0.8 * torch.rand(
            (structures, 1), generator=grid.generator, device=grid.device
        )
        overall = grid.uniform(0.3, 1.3)
        per_tissue = amount * kinds / kinds.square().sum(1, keepdim=True).sqrt()
        return (
            per_tissue[torch.tensor(anatomy.tissue_of, device=grid.device)]
            * play
            * overall
        )


def _textures(grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw four textures (z, y, x) of unit variance.

    They are speckle, fine grain, streaks along one axis, and slow variation.
    """
    finest = min(grid.spacing_mm)
    stretched = [s / grid.uniform(1.0, 5.0) for s in grid.spacing_mm]
    stretched[grid.integer(0, 3)] = finest
    streaks = smooth_noise(
        grid.shape,
        (stretched[0], stretched[1], stretched[2]),
        grid.uniform(1.2, 4.0),
        grid.generator,
    )
    fine, slow = grid.uniform(2.0, 5.0), grid.uniform(7.0, 25.0)
    return (
        grid.noise(max(1.3 * finest, 1.0)),
        grid.noise(fine),
        streaks,
        grid.noise(slow),
    )


def _shrink_within_compartments(means: Tensor, anatomy: Anatomy, grid: Grid) -> Tensor:
    """Move tissue means toward the mean of their compartment by a random share.

    Some tissues of a compartment then have nearly the same intensity.
    """
    tissues = torch.tensor(anatomy.tissue_of, device=means.device)
    compartments = torch.tensor(anatomy.compartment_of, device=means.device)
    share = torch.rand(
        int(compartments.max()) + 1, generator=grid.generator, device=means.device
    ) * grid.uniform(0.0, 0.95)
    total = torch.zeros_like(share).index_add_(0, compartments, means[tissues])
    count = torch.zeros_like(share).index_add_(
        0, compartments, torch.ones_like(means[tissues])
    )
    center = (total / count.clamp_min(1))[compartments]
    moved = means.clone()
    moved[tissues] = means[tissues] + share[compartments] * (center - means[tissues])
    moved[0] = means[0]
    return moved


def tissue_means(
    contrast: Contrast, generator: torch.Generator, jitter: float
) -> Tensor:
    """Draw a mean for every tissue, (tissue,) float32, in HU for CT, else in intensity."""
    noise = torch.randn(len(TISSUES), generator=generator, device=generator.device)
    anything = torch.rand(len(TISSUES), generator=generator, device=generator.device)
    choice = torch.rand(4, generator=generator, device=generator.device).tolist()
    if contrast == "ct":
        return _ct_means(noise, anything, choice, jitter)
    if contrast == "random":
        means = anything.clone()
        means[TISSUE_NUMBER["inner air"]] = 0.02 if choice[0] < 0.7 else means[1]
        means[0] = 0.0 if choice[1] < 0.85 else 0.8 * choice[2]
        return means
    column = (
        ("t1", "t2", "flair", "pd").index(contrast)
        if contrast != "inverted"
        else int(3 * choice[3])
    )
    table = torch.tensor(
        [_INTENSITY.get(name, (-1.0,) * 4)[column] for name in TISSUES],
        device=noise.device,
    )
    known = table >= 0
    # Contrast varies between sequences, field strengths and ages: soft tissues move
    # toward or away from their mean value.
    strength = 0.45 + 0.7 * choice[0]
    soft = known & (table > 0.1)
    middle = table[soft].mean()
    table = torch.where(soft, middle + strength * (table - middle), table)
    means = torch.where(
        known,
        table + jitter * (0.3 + 0.9 * choice[1]) * noise * torch.where(soft, 1.0, 0.3),
        anything,
    )
    if contrast == "inverted":
        means = 1.0 - means
        means[TISSUE_NUMBER["inner air"]] = 1.0
        means[0] = 0.0 if choice[2] < 0.5 else 1.0
        return means.clamp_min(0.0)
    means[0] = 0.01
    return means.clamp_min(0.0)


def _ct_means(
    noise: Tensor, anything: Tensor, choice: list[float], jitter: float
) -> Tensor:
    uptake: dict[str, int] = (
        {} if choice[0] < 0.35 else _UPTAKE_EARLY if choice[0] < 0.6 else _UPTAKE_LATE
    )
    strength = 0.5 + 0.7 * choice[1]
    hu = torch.tensor(
        [_HU.get(name, 0.0) + strength * uptake.get(name, 0.0) for name in TISSUES],
        device=noise.device,
    )
    unknown = torch.tensor([name not in _HU for name in TISSUES], device=noise.device)
    spread = torch.where(
        hu > 150, 0.15 * hu.abs(), torch.where(hu < -300, 25.0, 8.0)
    ) * (jitter / 0.07)
    means = torch.where(unknown, anything * 220 - 90, hu + noise * spread)
    if choice[2] < 0.2:  # oral contrast agent
        means[TISSUE_NUMBER["gut content"]] += 120 + 300 * choice[3]
    if choice[2] > 0.9:  # excreted agent in the bladder and the renal pelvis
        means[TISSUE_NUMBER["urine"]] += 300 * choice[3]
    means[TISSUE_NUMBER["lung"]] += 120 * (choice[3] - 0.3)
    means[0] = -1000.0
    return means
