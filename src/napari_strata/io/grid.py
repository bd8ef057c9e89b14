"""File order and memory order: the one place where axes are permuted.

Memory order is (z, y, x) toward Inferior, Posterior, Left. A scan is brought there by
flips and swaps of axes only, so no intensity is interpolated and every label can go
back to the voxel it came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, GeometryError, ReadError, WriteError
from napari_strata.volume import FileGrid, Geometry, Modality

MAX_VOXELS = 2**31
"""Largest scan that is opened, in voxels (a 512 x 512 x 1000 CT has 2**28).

A larger count means a damaged header.
"""

MOST_SHEAR = 1e-4
"""Cosine between two axes up to which ITK reads a NIfTI file as square.

(tried with SimpleITK 2.5: 1e-4 is read, 5e-4 refused).
"""

_SMALLEST_VOXEL_MM, _LARGEST_VOXEL_MM, _FARTHEST_MM = 1e-6, 1e5, 1e7
"""Smallest and largest voxel size, largest distance from the origin.

Beyond these a header is damaged, and rounding would falsify positions in mm.
"""
_MOST_OPTIONS = 10_000
"""Volumes that a `ChoiceError` lists at most."""
_MEMORY_AXES = axcodes2ornt(("I", "P", "L"))


@dataclass(frozen=True, slots=True, eq=False)
class FileImage:
    """A reader's result: voxels in the file's own axis order, with grid and notes.

    Parameters
    ----------
    data : (i, j, k) real array
        Intensities, scaled as the file says; (i, j, k, volume) where every volume of
        the file was asked for.
    grid : FileGrid
        Same shape as `data`, of one volume.
    modality : {"ct", "mr"} or None
        What the file says; None when it does not.
    notes : tuple of str
        What a person should know about how the file was read.
    """

    data: NDArray[np.generic]
    grid: FileGrid
    modality: Modality | None = None
    notes: tuple[str, ...] = ()


def check_shape(source: str, shape: tuple[int, ...], *, thin: bool = False) -> None:
    """Raise unless `shape` is that of a 3D scan of a supported size.

    Parameters
    ----------
    source : str
        Names the file in messages.
    shape : tuple of int
        Voxels along the file's axes.
    thin : bool
        Whether one slice will do, as it does for labels.

    Raises
    ------
    ReadError
        For a 2D image, a single slice, or more than `MAX_VOXELS` voxels; `source` names
        the file.
    """
    size = " x ".join(map(str, shape))
    if min(shape, default=0) < 1:
        raise ReadError(
            f"{source} says that it has {size} voxels: its header is damaged. Export"
            " the scan again."
        )
    if math.prod(shape) > MAX_VOXELS:
        raise ReadError(
            f"{source} says that it has {size} voxels, more than can be opened: its"
            " header is damaged, or crop the scan first."
        )
    if len(shape) < 3:
        raise ReadError(
            f"{source} is a 2D image ({size}). Strata needs a 3D scan: give the whole"
            " volume or a DICOM folder."
        )
    if min(shape) < 2 and not thin:
        raise ReadError(
            f"{source} has one slice only ({size}). Strata needs a 3D scan: give the"
            " whole volume or a DICOM folder."
        )


def pick_volume(source: str, count: int, index: int | None) -> int:
    """Return the index of the volume to read out of `count`.

    Raises
    ------
    ChoiceError
        If there are several and none was chosen, or the choice is not there; the
        message says how to choose.
    """
    if count == 1 and index in (None, 0):
        return 0
    if index is None:
        options = [
            (f"volume {number} of 0 to {count - 1}", {"index": number})
            for number in range(min(count, _MOST_OPTIONS))
        ]
        raise ChoiceError(
            f"{source} holds {count} volumes; choose one with --index 0..{count - 1}.",
            options,
        )
    if not 0 <= index < count:
        raise ChoiceError(
            f"{source} has no volume {index}: it holds {count}; choose one with --index"
            f" 0..{count - 1}."
        )
    return index


def check_voxel_size(source: str, sizes_mm: NDArray[np.floating]) -> None:
    """Raise unless the three voxel sizes of the raw header are positive numbers.

    Raises
    ------
    GeometryError
        If one is zero, negative or not a number.
    """
    if not (np.isfinite(sizes_mm).all() and (sizes_mm > 0).all()):
        shown = " x ".join(f"{size:g}" for size in sizes_mm)
        raise GeometryError(
            f"{source} gives a voxel size of {shown} mm; each must be above zero."
            " Repair its header."
        )


def make_grid(
    source: str,
    kind: Literal["nifti", "mgh", "itk"],
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    *,
    header: bytes | None = None,
    suffix: str = "",
) -> FileGrid:
    """Return a file's grid, with the axis permutation to memory order.

    Parameters
    ----------
    source : str
        Names the file in messages.
    kind, shape, affine, header, suffix
        See `FileGrid`.

    Raises
    ------
    GeometryError
        If the affine is not finite or is singular, or gives sizes or places that no
        scan has.
    """
    try:
        Geometry(shape, affine)
    except GeometryError as err:
        raise GeometryError(f"{source}: {err}") from err
    sides_mm, far_mm = (
        np.linalg.norm(affine[:3, :3], axis=0),
        float(np.abs(affine[:3, 3]).max()),
    )
    if sides_mm.min() < _SMALLEST_VOXEL_MM or sides_mm.max() > _LARGEST_VOXEL_MM:
        shown = " x ".join(f"{side:g}" for side in sides_mm)
        raise GeometryError(
            f"{source} gives a voxel size of {shown} mm, which no scan has. Repair its"
            " header."
        )
    if far_mm > _FARTHEST_MM:
        raise GeometryError(
            f"{source} says that it lies {far_mm:g} mm from the scanner's middle."
            " Repair its header."
        )
    to_memory = ornt_transform(io_orientation(affine), _MEMORY_AXES)
    return FileGrid(kind, shape, affine, to_memory, header, suffix)


def check_shearless(target: Path, geometry: Geometry, suffix: str) -> None:
    """Raise if a sheared grid without a source file is written to a format misread by others.

    Raises
    ------
    WriteError
        If that is so; the message names the angle and formats that hold it.
    """
    axes = geometry.affine[:3, :3] / geometry.spacing_zyx_mm
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > MOST_SHEAR and suffix in (".nii", ".nii.gz", ".mgh", ".mgz"):
        angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
        raise WriteError(
            f"Cannot write {target}: the scan is sheared (two of its axes meet at"
            f" {angle:.2f} degrees, not 90), which other programs misread or refuse in"
            f" {suffix}. Choose .nrrd, or a surface or table, or resample the scan"
            " without shear."
        )


def plain_grid(geometry: Geometry) -> FileGrid:
    """Return a grid with axes toward Right, Anterior and Superior, for in-memory arrays."""
    to_ras = io_orientation(geometry.affine)
    affine = geometry.affine @ inv_ornt_aff(to_ras, geometry.shape_zyx)
    i, j, k = (geometry.shape_zyx[int(axis)] for axis in np.argsort(to_ras[:, 0]))
    return FileGrid(
        "itk",
        (i, j, k),
        affine,
        ornt_transform(io_orientation(affine), to_ras),
        None,
        ".nii.gz",
    )


def memory_geometry(grid: FileGrid) -> Geometry:
    """Return the geometry of an array in memory order."""
    affine = grid.affine @ inv_ornt_aff(grid.to_memory, grid.shape)
    z, y, x = (grid.shape[int(axis)] for axis in np.argsort(grid.to_memory[:, 0]))
    return Geometry((z, y, x), affine + 0.0, grid)


def to_memory_order(data: NDArray[np.generic], grid: FileGrid) -> NDArray[np.generic]:
    """Return an array in memory order: C-contiguous, native byte order, same values."""
    native = data.dtype.newbyteorder("=")
    return np.ascontiguousarray(apply_orientation(data, grid.to_memory), dtype=native)


def to_file_order(labels: NDArray[np.generic], grid: FileGrid) -> NDArray[np.generic]:
    """Return a view of a memory-order array in the file's own axis order.

    Raises
    ------
    GeometryError
        If the array is not on this grid.
    """
    to_file = np.empty((3, 2))
    for file_axis, (memory_axis, flip) in enumerate(grid.to_memory):
        to_file[int(memory_axis)] = file_axis, flip
    data = apply_orientation(labels, to_file)
    if data.shape != grid.shape:
        raise GeometryError(
            f"Labels in file order are {data.shape} but the scan's file is"
            f" {grid.shape}. Use their own scan."
        )
    return data
