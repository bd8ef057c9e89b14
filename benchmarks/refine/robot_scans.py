"""The scans of the robot user.

Each with its reference, and its proposal, made once and kept in a folder.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from benchmarks.encoder.scans import (
    OTHER,
    SYNTHETIC,
    LabelledScan,
    largest_classes,
    make_synthetic,
    mni152,
)
from numpy.typing import NDArray
from scipy import ndimage

import napari_strata as strata
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.synthesis.anatomy import TISSUE_NUMBER
from napari_strata.volume import Volume

_OTHER_MM = 3.0
_LESION_KIND = 2


@dataclass(frozen=True, eq=False)
class RobotScan:
    """A scan that is proposed, with what the robot knows about it.

    0 is not scored, 1 .. n are classes, 255 is background.
    """

    name: str
    proposal: Proposal
    reference: NDArray[np.uint8]

    @cached_property
    def taught(self) -> NDArray[np.uint8]:
        """What the robot teaches: classes, then background."""
        found = np.unique(self.reference)
        return found[found > 0]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Voxels of each taught value in each supervoxel, (n_supervoxels, taught)."""
        scored = self.reference > 0
        column = np.searchsorted(self.taught, self.reference[scored])
        flat = (
            self.proposal.supervoxels[scored].astype(np.int64) * len(self.taught)
            + column
        )
        size = self.proposal.n_supervoxels * len(self.taught)
        return (
            np.bincount(flat, minlength=size)
            .reshape(-1, len(self.taught))
            .astype(np.float64)
        )

    @property
    def ceiling(self) -> float:
        """Mean Dice of the classes if every supervoxel were named after its commonest class."""
        best = self.shares.argmax(axis=1)
        classes = [k for k, value in enumerate(self.taught) if value != OTHER]
        return float(
            np.mean(
                [
                    2
                    * self.shares[best == k, k].sum()
                    / (self.shares[best == k].sum() + self.shares[:, k].sum())
                    for k in classes
                ]
            )
        )


def other_beyond(
    labels: NDArray[np.integer],
    reference: NDArray[np.uint8],
    volume: Volume,
    mm: float = _OTHER_MM,
) -> NDArray[np.uint8]:
    """Call "other" what is farther than some millimetres from everything that has a label."""
    away = ndimage.distance_transform_edt(labels == 0, sampling=volume.spacing_zyx_mm)
    return np.where(away > mm, OTHER, reference).astype(np.uint8)


def labelled(name: str, scan: str, labels: str) -> LabelledScan:
    """Read a scan and its labels.

    As they are if they hold 255, else the eight largest, and "other" beyond 3 mm of
    all.
    """
    volume, truth = strata.read(scan), strata.read_labels(labels).labels
    if truth.shape != volume.data.shape:
        raise SystemExit(
            f"{labels} is {truth.shape} but {scan} is {volume.data.shape}. Bring them"
            " to one grid first."
        )
    if (truth == OTHER).any():
        return LabelledScan(name, volume, truth.astype(np.uint8))
    return LabelledScan(
        name, volume, other_beyond(truth, largest_classes(truth), volume)
    )


def coarser(scan: LabelledScan, mm: float) -> LabelledScan:
    """Bring a scan to a coarser grid of about `mm` isotropic voxels.

    Means of brightness, labels at their middles.
    """
    from napari_strata.volume import Geometry

    step = np.maximum(1, np.round(mm / scan.volume.spacing_zyx_mm)).astype(int)
    shape = np.array(scan.volume.data.shape) // step
    box = tuple(slice(0, int(n * k)) for n, k in zip(shape, step, strict=True))
    split = [m for n, k in zip(shape, step, strict=True) for m in (int(n), int(k))]
    data = scan.volume.data[box].astype(np.float32).reshape(split).mean(axis=(1, 3, 5))
    middle = tuple(
        slice(int(k // 2), int(n * k), int(k)) for n, k in zip(shape, step, strict=True)
    )
    z, y, x = (int(n) for n in data.shape)
    geometry = Geometry.from_spacing(
        (z, y, x), tuple(float(v) for v in scan.volume.spacing_zyx_mm * step)
    )
    volume = Volume(
        np.ascontiguousarray(data),
        geometry,
        scan.volume.modality,
        f"{scan.name} at {mm:g} mm",
    )
    return LabelledScan(
        volume.name, volume, np.ascontiguousarray(scan.reference[middle])
    )


def synthetic(number: int, kind: int) -> LabelledScan:
    """Make a held-out synthetic scan.

    Of a head with a lesion, the whole lesion is the only class.
    """
    scan = make_synthetic(
        SYNTHETIC[kind], number, f"synthetic {SYNTHETIC[kind].name} {number + 1}"
    )
    if kind != _LESION_KIND:
        return scan
    # classes are numbered by size: find the lesion again by what the maker keeps of it
    from benchmarks.encoder import scans as maker

    seed = maker.FIRST_SEED + 1000 * number + 100 * kind
    made = maker._make(SYNTHETIC[kind], seed)
    while maker._lesion_ml(made) < maker._LESION_ML:
        seed += 1
        made = maker._make(SYNTHETIC[kind], seed)
    tissues = made.anatomy.tissues.numpy()
    parts = [TISSUE_NUMBER[name] for name in ("lesion core", "lesion rim", "oedema")]
    reference = np.where(np.isin(tissues, parts), 1, OTHER).astype(np.uint8)
    return dataclasses.replace(scan, reference=reference)


def proposed(scan: LabelledScan, folder: Path) -> RobotScan:
    """Propose a scan, or read the proposal that the folder keeps under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scan.name.replace(' ', '_')}.strata"
    if path.exists():
        proposal = Refinement.load(path, volume=scan.volume).proposal
    else:
        proposal = strata.propose(scan.volume, seed=0, device="cpu", threads=1)
        Refinement(proposal).save(path)
    return RobotScan(scan.name, proposal, scan.reference)


def all_scans(
    pairs: list[list[str]], *, use_mni152: bool, synthetic_count: int, coarse: list[str]
) -> list[LabelledScan]:
    """Give the scans that the command line named."""
    found = [labelled(*pair) for pair in pairs]
    found += [coarser(scan, 3.0) for scan in found if scan.name in coarse]
    found += [mni152()] if use_mni152 else []
    found += [
        synthetic(number, kind)
        for number in range(synthetic_count)
        for kind in (0, 2, 3, 4, 7)
    ]
    return found
