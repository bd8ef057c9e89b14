"""The scans of the bench.

MNI152, pairs SCAN LABELS that a user has, and synthetic scans with held-out seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import napari_strata as strata
from napari_strata.synthesis.anatomy import TISSUE_NUMBER
from napari_strata.synthesis.appearance import Contrast
from napari_strata.synthesis.synthesiser import Family, Synthesiser, SyntheticScan
from napari_strata.volume import Geometry, Volume

OTHER = 255
"""Reference value of what is no class at all.

It costs a clustering that leaks there, but the probe never sees it.
"""
MOST_CLASSES = 8
FIRST_SEED = 900_000_000
"""Pretraining draws its seeds from 0 upward (`seed` of the recipe times ten million).

These are never trained on.
"""
_NEAR_MM = 3.0
_LESION_ML = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScan:
    """A scan with its reference.

    Parameters
    ----------
    name : str
        For the table.
    volume : Volume
        The scan, (z, y, x).
    reference : (z, y, x) uint8 array
        0 is not scored, 1..n are classes, 255 is none of them.
    """

    name: str
    volume: Volume
    reference: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SyntheticKind:
    """How a synthetic scan of the bench is made.

    `thick` thin slices are averaged into each slice.
    """

    name: str
    family: Family
    contrast: Contrast
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    center_mm: tuple[float, float, float] = (0.0, 2.0, -10.0)
    thick: int = 1
    with_lesion: bool = False


SYNTHETIC = (
    SyntheticKind("head t1", "head", "t1", (104, 112, 92), (2.0, 2.0, 2.0)),
    SyntheticKind("head t2", "head", "t2", (104, 112, 92), (2.0, 2.0, 2.0)),
    SyntheticKind(
        "head flair lesion",
        "head",
        "flair",
        (104, 112, 92),
        (2.0, 2.0, 2.0),
        with_lesion=True,
    ),
    SyntheticKind(
        "torso ct", "torso", "ct", (112, 88, 120), (3.0, 3.0, 3.0), (0.0, -2.0, -20.0)
    ),
    SyntheticKind(
        "torso t1", "torso", "t1", (112, 88, 120), (3.0, 3.0, 3.0), (0.0, -2.0, -20.0)
    ),
    SyntheticKind(
        "shapes", "shapes", "random", (64, 64, 64), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)
    ),
    SyntheticKind(
        "head inverted thick",
        "head",
        "inverted",
        (90, 200, 170),
        (2.0, 1.0, 1.0),
        thick=3,
    ),
    SyntheticKind(
        "torso inverted thick",
        "torso",
        "inverted",
        (84, 140, 190),
        (3.0, 1.8, 1.8),
        (0.0, -2.0, -20.0),
        thick=3,
    ),
)
"""At least one scan per family, and two with thick slices and inverted contrast."""


def mni152() -> LabelledScan:
    """Give nilearn's MNI152 T1 at 1 mm with 1 CSF, 2 grey and 3 white matter.

    255 beyond 3 mm from the brain mask.
    """
    from nilearn.datasets import (
        load_mni152_brain_mask,
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    loaders = {
        "t1": load_mni152_template,
        "mask": load_mni152_brain_mask,
        "grey": load_mni152_gm_template,
        "white": load_mni152_wm_template,
    }
    found: dict[str, Volume] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, load in loaders.items():
            path = Path(folder) / f"{name}.nii.gz"
            load(resolution=1).to_filename(path)
            found[name] = strata.read(path)
    brain, grey, white = (
        found[name].data.astype(np.float32) / float(found[name].data.max())
        for name in ("mask", "grey", "white")
    )
    inside = brain > 0
    shares = np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
    labels = np.where(inside, 1 + shares.argmax(axis=0), 0).astype(np.uint8)
    labels[ndimage.distance_transform_edt(~inside) > _NEAR_MM] = OTHER
    return LabelledScan("mni152", found["t1"], labels)


def pair(name: str, scan: str, labels: str) -> LabelledScan:
    """Read a scan and its labels.

    All classes if the labels hold 255 (other), else the eight largest.
    """
    volume, truth = strata.read(scan), strata.read_labels(labels).labels
    if truth.shape != volume.data.shape:
        raise SystemExit(
            f"{labels} is {truth.shape} but {scan} is {volume.data.shape}. Bring them"
            " to one grid first."
        )
    return LabelledScan(
        name,
        volume,
        truth.astype(np.uint8) if (truth == OTHER).any() else largest_classes(truth),
    )


def largest_classes(truth: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Keep the eight largest classes as 1..8, the largest first.

    The rest becomes 0, not scored.
    """
    sizes = np.bincount(truth.ravel().astype(np.int64))
    sizes[0] = 0
    table = np.zeros(len(sizes), np.uint8)
    kept = [
        label
        for label in np.argsort(-sizes, kind="stable")[:MOST_CLASSES]
        if sizes[label]
    ]
    table[kept] = np.arange(1, len(kept) + 1)
    return table[truth]


def synthetic(count: int) -> Iterator[LabelledScan]:
    """Make `count` scans of each synthetic kind.

    Air is "other", tissues beyond the eight largest are not scored.
    """
    for kind in SYNTHETIC:
        for number in range(count):
            name = f"synthetic {kind.name}" + (f" {number + 1}" if count > 1 else "")
            yield make_synthetic(kind, number, name)


def make_synthetic(kind: SyntheticKind, number: int, name: str) -> LabelledScan:
    """Make the `number`-th held-out scan of a kind."""
    seed = FIRST_SEED + 1000 * number + 100 * SYNTHETIC.index(kind)
    made = _make(kind, seed)
    while kind.with_lesion and _lesion_ml(made) < _LESION_ML:
        seed += 1
        made = _make(kind, seed)
    image, tissues, spacing = (
        made.image.numpy(),
        made.anatomy.tissues.numpy(),
        kind.spacing_mm,
    )
    if kind.thick > 1:
        slices = image.shape[0] // kind.thick
        image = (
            image[: slices * kind.thick]
            .reshape(slices, kind.thick, *image.shape[1:])
            .mean(axis=1)
        )
        tissues = tissues[kind.thick // 2 :: kind.thick][:slices]
        spacing = (spacing[0] * kind.thick, spacing[1], spacing[2])
    reference = largest_classes(_lesion_first(tissues) if kind.with_lesion else tissues)
    reference[tissues == 0] = OTHER
    shape = (image.shape[0], image.shape[1], image.shape[2])
    volume = Volume(
        np.ascontiguousarray(image),
        Geometry.from_spacing(shape, spacing),
        "ct" if made.is_ct else "mr",
        name,
    )
    return LabelledScan(name, volume, reference)


def _make(kind: SyntheticKind, seed: int) -> SyntheticScan:
    synthesiser = Synthesiser(kind.shape)
    return synthesiser.make_whole(
        seed,
        family=kind.family,
        contrast=kind.contrast,
        spacing_mm=kind.spacing_mm,
        center_mm=kind.center_mm,
    )


def _lesion_ml(made: SyntheticScan) -> float:
    return float(
        _is_lesion(made.anatomy.tissues.numpy()).sum() * np.prod(made.spacing_mm) / 1000
    )


def _is_lesion(tissues: NDArray[np.integer]) -> NDArray[np.bool_]:
    return np.isin(
        tissues,
        [TISSUE_NUMBER[name] for name in ("lesion core", "lesion rim", "oedema")],
    )


def _lesion_first(tissues: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join a lesion's parts.

    Drop the smallest other classes so that it is among the eight largest.
    """
    joined = np.where(
        _is_lesion(tissues), TISSUE_NUMBER["lesion core"], tissues
    ).astype(np.uint8)
    sizes = np.bincount(joined.ravel(), minlength=256)
    sizes[[0, TISSUE_NUMBER["lesion core"]]] = 0
    kept = [TISSUE_NUMBER["lesion core"], *np.argsort(-sizes)[: MOST_CLASSES - 1]]
    return np.where(np.isin(joined, kept), joined, 0).astype(np.uint8)
