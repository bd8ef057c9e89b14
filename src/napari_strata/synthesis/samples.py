"""The three reproducible sample scans, and other synthetic scans as volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_strata.errors import SettingsError
from napari_strata.synthesis.anatomy import TISSUES
from napari_strata.synthesis.appearance import Contrast
from napari_strata.synthesis.synthesiser import Family, Synthesiser
from napari_strata.volume import Geometry, Region, Segmentation, Volume, region_color


@dataclass(frozen=True, slots=True)
class Sample:
    """Definition of a sample scan.

    Parameters
    ----------
    title : str
        Title to show.
    family, contrast : str
        Family of anatomy, and contrast.
    shape, spacing_mm : tuples of 3
        Voxels and voxel size in mm, along z, y, x.
    center_mm : tuple of 3 float
        Centre of the scan as (left, front, up) from the family's origin, in mm.
    seed : int
        Seed of the anatomy and the artefacts.
    thick : int
        Thin slices averaged into each slice of the scan.
    """

    title: str
    family: Family
    contrast: Contrast
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    center_mm: tuple[float, float, float]
    seed: int
    thick: int = 1


SAMPLES = {
    "head_t1": Sample(
        "Head T1", "head", "t1", (124, 136, 110), (1.6, 1.6, 1.6), (0.0, 2.0, -16.0), 12
    ),
    "chest_ct": Sample(
        "Chest and abdomen CT",
        "torso",
        "ct",
        (128, 92, 128),
        (3.0, 2.8, 2.8),
        (0.0, -2.0, -20.0),
        7,
    ),
    "thick_t2": Sample(
        "Thick-slice head T2",
        "head",
        "t2",
        (150, 210, 176),
        (1.0, 0.95, 0.95),
        (0.0, 2.0, -2.0),
        21,
        thick=6,
    ),
}


def make_sample(name: str) -> tuple[Volume, Segmentation]:
    """Return a sample scan and its ground truth.

    Parameters
    ----------
    name : str
        "head_t1", "chest_ct" or "thick_t2".

    Returns
    -------
    Volume, Segmentation
        The scan as int16, and its tissues as labels.

    Raises
    ------
    SettingsError
        If there is no such sample.
    """
    if name not in SAMPLES:
        raise SettingsError(
            f"There is no sample {name!r}. Choose one of {', '.join(SAMPLES)}."
        )
    sample = SAMPLES[name]
    made = Synthesiser(shape=sample.shape).make_whole(
        sample.seed,
        family=sample.family,
        contrast=sample.contrast,
        spacing_mm=sample.spacing_mm,
        center_mm=sample.center_mm,
    )
    image, labels = made.image, made.anatomy.tissues
    spacing = sample.spacing_mm
    if sample.thick > 1:
        slices = image.shape[0] // sample.thick
        blocks = image[: slices * sample.thick].reshape(
            slices, sample.thick, *image.shape[1:]
        )
        image, labels = (
            blocks.mean(1),
            labels[sample.thick // 2 :: sample.thick][:slices],
        )
        spacing = (spacing[0] * sample.thick, spacing[1], spacing[2])
    return _as_volume(image, labels, spacing, name, is_ct=made.is_ct)


def synthesise_scans(
    synthesiser: Synthesiser, seed: int, count: int
) -> Iterator[tuple[str, Volume, Segmentation]]:
    """Yield scans with their ground truth.

    Parameters
    ----------
    synthesiser : Synthesiser
        Makes the scans.
    seed : int
        Seed of the first scan; the others follow from it.
    count : int
        Number of scans, at least 1.

    Yields
    ------
    str, Volume, Segmentation
        A name such as "head_t1_0007", the scan (int16) and its tissues.

    Raises
    ------
    SettingsError
        If `count` is below 1 or the seed is negative.
    """
    if count < 1 or seed < 0:
        raise SettingsError(
            f"{count} scans from seed {seed} cannot be made. Ask for at least one, and"
            " give a seed of 0 or more."
        )
    for number in range(seed, seed + count):
        made = synthesiser.make(number)
        name = f"{made.anatomy.family}_{made.contrast}_{number:04d}"
        volume, truth = _as_volume(
            made.image, made.anatomy.tissues, made.spacing_mm, name, is_ct=made.is_ct
        )
        yield name, volume, truth


def _as_volume(
    image: Tensor,
    labels: Tensor,
    spacing_mm: tuple[float, float, float],
    name: str,
    *,
    is_ct: bool,
) -> tuple[Volume, Segmentation]:
    scale = 1.0 if is_ct else 1000.0
    data = (
        torch.round(image * scale / 6)
        .mul(6)
        .clamp(-1024, 3000)
        .to(torch.int16)
        .cpu()
        .numpy()
    )
    geometry = Geometry.from_spacing(
        (data.shape[0], data.shape[1], data.shape[2]), spacing_mm
    )
    volume = Volume(np.ascontiguousarray(data), geometry, "ct" if is_ct else "mr", name)
    truth = np.ascontiguousarray(labels.cpu().numpy())
    rows = tuple(
        Region(int(i), TISSUES[i], region_color(int(i))) for i in np.unique(truth) if i
    )
    return volume, Segmentation(truth, rows, geometry)
