"""Volumes, their geometry, and labels with a region table (numpy only).

In memory every array is (z, y, x) with axis 0 toward Inferior, axis 1 toward Posterior
and axis 2 toward Left, so that napari's defaults show all three planes upright in the
radiological convention.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import GeometryError

Modality = Literal["ct", "mr"]
Progress = Callable[[int, int, str], None]
"""Called as `on_progress(done, total, stage)`; it may raise `Cancelled` to stop the work."""

BACKGROUND = 0
"""Label of air, table and all else that belongs to no region."""
_COUNTED_UP_TO = 2**24
"""Largest id for which labels are looked up rather than sorted: a table of 16 MB."""
_COUNTED_AT_ONCE = 2**18
"""Voxels that are looked at in one step."""


def no_progress(done: int, total: int, stage: str) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True, eq=False)
class FileGrid:
    """Grid of a file, as its header states it.

    Labels are written back on exactly this grid.

    Parameters
    ----------
    kind : {"nifti", "mgh", "itk"}
        The family of the file; "itk" covers DICOM, NRRD and MetaImage.
    shape : tuple of 3 int
        Voxels along the file's own axes, in index order (i, j, k).
    affine : (4, 4) float64 array
        File index (i, j, k) -> RAS+ mm, bit for bit as in the file.
    to_memory : (3, 2) float64 array
        nibabel orientation transform that takes the file's axes to memory order (z, y,
        x).
    header : bytes or None
        The raw NIfTI header, for codes and units; None for other kinds.
    suffix : str
        The file's suffix, for example ".nii.gz", or "" for a DICOM folder.
    """

    kind: Literal["nifti", "mgh", "itk"]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    to_memory: NDArray[np.float64]
    header: bytes | None = None
    suffix: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Shape of an array, and where it lies in the patient.

    Parameters
    ----------
    shape_zyx : tuple of 3 int
        Voxels along memory axes.
    affine : (4, 4) float64 array
        Array index (z, y, x) -> RAS+ mm (voxel centres).
    file : FileGrid or None
        The grid of the file it came from; None for an array made in memory.

    Raises
    ------
    GeometryError
        If the shape is not three positive numbers, or the affine is not finite or not
        invertible.

    Examples
    --------
    >>> geometry = strata.Geometry.from_spacing((20, 64, 64), (3.0, 1.0, 1.0))
    >>> geometry.spacing_zyx_mm.tolist()
    [3.0, 1.0, 1.0]
    >>> round(geometry.voxel_volume_mm3, 6)
    3.0
    >>> geometry.world_from_voxel([9.5, 31.5, 31.5]).tolist()  # the middle
    [0.0, 0.0, 0.0]
    """

    shape_zyx: tuple[int, int, int]
    affine: NDArray[np.float64]
    file: FileGrid | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape_zyx)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(
                "A volume needs three axes with at least one voxel each, got shape"
                f" {shape}."
            )
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(
                "The affine is not a finite 4x4 matrix. Repair the scan's header and"
                " try again."
            )
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if (lengths <= 0).any() or abs(
            np.linalg.det(affine[:3, :3] / np.where(lengths > 0, lengths, 1))
        ) < 1e-6:
            raise GeometryError(
                "The affine is singular: two axes point the same way. Repair the scan's"
                " header and try again."
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape_zyx", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(
        cls, shape_zyx: tuple[int, int, int], spacing_zyx_mm: ArrayLike
    ) -> Geometry:
        """Return an axis-aligned geometry in memory order, centred on the origin."""
        spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = (
            -spacing[0],
            -spacing[1],
            -spacing[2],
            1.0,
        )
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape_zyx) - 1) / 2)
        return cls(shape_zyx, affine)

    @property
    def spacing_zyx_mm(self) -> NDArray[np.float64]:
        """Voxel size along z, y, x in mm, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3 (right for sheared grids too)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_oblique(self) -> bool:
        """Whether any axis deviates from the patient's axes by more than half a degree."""
        cosines = np.abs(self.affine[:3, :3] / self.spacing_zyx_mm)
        return bool((cosines.max(axis=0) < np.cos(np.radians(0.5))).any())

    def world_from_voxel(self, voxels_zyx: ArrayLike) -> NDArray[np.float64]:
        """Map array indices (..., 3) to RAS+ mm (..., 3)."""
        return (
            np.asarray(voxels_zyx, dtype=np.float64) @ self.affine[:3, :3].T
            + self.affine[:3, 3]
        )

    def voxel_from_world(self, points_ras_mm: ArrayLike) -> NDArray[np.float64]:
        """Map RAS+ mm (..., 3) to fractional array indices (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        return (
            np.asarray(points_ras_mm, dtype=np.float64) @ inverse[:3, :3].T
            + inverse[:3, 3]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scan: intensities with their geometry.

    Parameters
    ----------
    data : (z, y, x) real array
        Intensities, finite everywhere; HU for CT.
    geometry : Geometry
        Same shape as `data`.
    modality : {"ct", "mr"}
        What the intensities mean.
    name : str
        Display name, usually the file's name.
    path : str
        Where it was read from; "" for an array made in memory.
    notes : tuple of str
        What the reader repaired or noticed, one sentence each (replaced NaN, missing
        slices ...).
    index : int or None
        Which volume of a 4D file was chosen, from 0; None if none was chosen.
    series : str or None
        SeriesInstanceUID that was chosen in a DICOM folder; None if none was
        chosen.

    Examples
    --------
    >>> geometry = strata.Geometry.from_spacing((20, 64, 64), (3.0, 1.0, 1.0))
    >>> data = np.random.default_rng(0).normal(40, 10, geometry.shape_zyx)
    >>> volume = strata.Volume(data, geometry, "ct", name="made in memory")
    >>> volume.modality, volume.data.shape
    ('ct', (20, 64, 64))
    """

    data: NDArray[np.generic]
    geometry: Geometry
    modality: Modality = "mr"
    name: str = "scan"
    path: str = ""
    notes: tuple[str, ...] = ()
    index: int | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        if self.data.shape != self.geometry.shape_zyx:
            raise GeometryError(
                f"Image data have shape {self.data.shape}, but the geometry has"
                f" {self.geometry.shape_zyx}."
            )

    @property
    def spacing_zyx_mm(self) -> NDArray[np.float64]:
        """Voxel size along z, y, x in mm, shape (3,)."""
        return self.geometry.spacing_zyx_mm


@dataclass(frozen=True, slots=True)
class Region:
    """One row of the region table.

    Parameters
    ----------
    id : int
        Positive, never reused within a case.
    name : str
        Name chosen by a person, or "region 7" / "tissue 3".
    color : tuple of 3 int
        RGB, 0-255.
    locked : bool
        Locked regions are never changed, neither by an edit nor by a brush.
    accepted : bool
        A person checked the region and accepted it.

    Examples
    --------
    >>> region = strata.Region(3, "liver", (221, 130, 101), locked=True)
    >>> region.name, region.locked
    ('liver', True)
    """

    id: int
    name: str
    color: tuple[int, int, int]
    locked: bool = False
    accepted: bool = False

    @property
    def is_named(self) -> bool:
        """Whether a person named it; "region 7" and "tissue 7" are default names."""
        return self.name not in (f"region {self.id}", f"tissue {self.id}")


def region_color(region_id: int) -> tuple[int, int, int]:
    """Return the default RGB colour (0-255) of a region id.

    Colours of neighbouring ids differ clearly, by steps of the golden ratio in hue.
    """
    hue = (region_id * 0.61803398875) % 1.0
    saturation = (0.85, 0.6, 0.95)[region_id % 3]
    value = (0.95, 0.9, 0.75)[(region_id // 3) % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def default_regions(ids: Iterable[int], kind: str = "region") -> tuple[Region, ...]:
    """Return table rows with default names ("region 3") and colours, without region 0."""
    return tuple(
        Region(int(i), f"{kind} {int(i)}", region_color(int(i)))
        for i in ids
        if int(i) != BACKGROUND
    )


def colored_regions(
    ids: Iterable[int], kind: str, colors: Sequence[tuple[int, int, int]]
) -> tuple[Region, ...]:
    """Return the rows of `default_regions` with the colours of the ids 1, 2, ... given.

    Ids beyond them have their default colour.
    """
    return tuple(
        replace(row, color=colors[row.id - 1]) if row.id <= len(colors) else row
        for row in default_regions(ids, kind)
    )


def smallest_label_dtype(max_id: int) -> type[np.unsignedinteger]:
    """Return the smallest unsigned integer type that holds `max_id`.

    napari is far faster on uint8 and uint16.
    """
    return np.uint8 if max_id < 2**8 else np.uint16 if max_id < 2**16 else np.uint32


def label_ids(labels: NDArray[np.generic]) -> list[int]:
    """Return the ids in labels, in order, without the background."""
    highest = int(labels.max(initial=0))
    if highest > _COUNTED_UP_TO:
        ids = np.unique(labels)
    else:  # far faster than sorting, in the order of memory and parts that fit a cache
        is_there = np.zeros(highest + 1, np.bool_)
        flat = labels.ravel(order="K")
        for start in range(0, flat.size, _COUNTED_AT_ONCE):
            is_there[flat[start : start + _COUNTED_AT_ONCE].astype(np.intp)] = True
        ids = np.flatnonzero(is_there)
    return [int(i) for i in ids if i != BACKGROUND]


def pack_labels(labels: NDArray[np.generic]) -> tuple[list[int], NDArray[np.int32]]:
    """Return the ids of `label_ids`, and labels renumbered 1, 2, ... in their order."""
    ids = label_ids(labels)
    if max(ids, default=0) > _COUNTED_UP_TO:
        packed = np.searchsorted(ids, labels).astype(np.int32) + 1
        return ids, np.where(labels == BACKGROUND, 0, packed).astype(np.int32)
    number = np.zeros(max(ids, default=0) + 1, np.int32)
    number[ids] = np.arange(1, len(ids) + 1)
    return ids, number[labels]


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Labels on a grid, with their region table.

    Parameters
    ----------
    labels : (z, y, x) unsigned integer array
        0 is background.
    regions : tuple of Region
        Rows for the ids in `labels` (region 0 has none).
    geometry : Geometry
        Same shape as `labels`.

    Examples
    --------
    >>> labels = np.zeros((20, 64, 64), np.uint8)
    >>> labels[5:15, 20:40, 20:40] = 3
    >>> geometry = strata.Geometry.from_spacing(labels.shape, (3.0, 1.0, 1.0))
    >>> liver = strata.Region(3, "liver", (221, 130, 101))
    >>> segmentation = strata.Segmentation(labels, (liver,), geometry)
    >>> [region.name for region in segmentation.regions]
    ['liver']
    """

    labels: NDArray[np.unsignedinteger]
    regions: tuple[Region, ...]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.labels.shape != self.geometry.shape_zyx:
            raise GeometryError(
                f"Labels have shape {self.labels.shape}, but the volume has"
                f" {self.geometry.shape_zyx}. Load the scan that the labels were"
                " drawn on."
            )
        if self.labels.dtype.kind != "u":
            raise GeometryError(
                f"Labels must be unsigned integers, got {self.labels.dtype}."
            )

    @property
    def table(self) -> tuple[Region, ...]:
        """The region table; another name for `regions`."""
        return self.regions

    def with_regions(self, regions: tuple[Region, ...]) -> Segmentation:
        """Return the same labels with another region table."""
        return replace(self, regions=regions)
