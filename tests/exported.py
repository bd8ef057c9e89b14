"""Labels on awkward grids for tests of exports, made with nibabel alone.

In the file's own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.volume import Region

REGIONS = (
    Region(3, "Left kidney", (200, 30, 40)),
    Region(7, "Blutgefäß, rechts", (0, 90, 255)),
    Region(300, "region 300", (255, 255, 0)),
)


def _turned(
    degrees: tuple[float, float], spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    a, b = np.radians(degrees)
    about_z = np.array(
        [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 12.25, 140.0)
    return affine


GRIDS = {
    "anisotropic": _turned((0, 0), (0.75, 1.0, 3.5)),
    "oblique": _turned((24, -11), (1.25, 0.8, 2.0)),
    "flipped": _turned((180, 0), (1.0, 1.5, -2.25))[:, [2, 0, 1, 3]],
}
"""Affines (i, j, k) -> RAS+ mm by what is awkward about them."""


@dataclass(frozen=True)
class Case:
    """A scan and its labels: the truth in file order (i, j, k), and both as Strata reads them."""

    affine: NDArray[np.float64]
    truth: NDArray[np.uint16]
    scan: strata.Volume
    segmentation: strata.Segmentation

    def center_mm(self, label: int) -> NDArray[np.float64]:
        """Centre of mass of a label, RAS+ mm, from the truth alone."""
        return (self.affine @ (*np.argwhere(self.truth == label).mean(axis=0), 1))[:3]

    def volume_ml(self, label: int) -> float:
        return float(
            (self.truth == label).sum() * abs(np.linalg.det(self.affine[:3, :3])) / 1000
        )


def make_case(folder: Path, grid: str = "oblique") -> Case:
    """Write a CT-like scan and labels.

    An ellipsoid (3), a thin plate at the scan's border (7) and a single voxel (300).
    """
    shape, affine = (22, 19, 16), GRIDS[grid]
    place = np.indices(shape).astype(float)
    truth = np.zeros(shape, np.uint16)
    truth[
        (
            (
                (place - np.array([8, 9, 7])[:, None, None, None])
                / np.array([5.5, 6, 5])[:, None, None, None]
            )
            ** 2
        ).sum(axis=0)
        <= 1
    ] = 3
    truth[18, 4:19, 2:14] = 7
    truth[2, 16, 14] = 300
    data = np.random.default_rng(0).integers(-1000, 200, shape).astype(np.int16)
    data[truth == 3] = 50
    nib.save(nib.Nifti1Image(data, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(truth, affine), folder / "truth.nii.gz")
    scan = strata.read(folder / "scan.nii.gz", modality="ct")
    return Case(
        affine,
        truth,
        scan,
        strata.read_labels(folder / "truth.nii.gz").with_regions(REGIONS),
    )
