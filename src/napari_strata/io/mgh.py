"""FreeSurfer MGH and MGZ through nibabel."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from napari_strata.errors import ReadError, WriteError
from napari_strata.io.compressed import UNREADABLE, damaged, stored_voxels
from napari_strata.io.grid import (
    FileImage,
    check_shape,
    check_voxel_size,
    make_grid,
    pick_volume,
)
from napari_strata.io.nifti import HIGHEST_GZIP_RATIO, check_compression
from napari_strata.volume import FileGrid

_START = np.dtype(
    [
        ("version", ">i4"),
        ("dims", ">i4", 4),
        ("type", ">i4"),
        ("dof", ">i4"),
        ("good_ras", ">i2"),
        ("delta", ">f4", 3),
        ("axes", ">f4", (3, 3)),
        ("center", ">f4", 3),
    ]
)
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_NAMES = {
    2: "64-bit integers",
    5: "bits",
    6: "tensors",
    7: "complex numbers",
    8: "64-bit floats",
    9: "colours",
}
_HEADER_BYTES = 284
_HIGHEST_ID = 2**31 - 1
_PLAUSIBLE_TYPES = 100
"""Voxel type codes are below this; a higher one means that the file is no MGH file."""


def read_mgh(
    path: Path, index: int | None, *, suffix: str, every: bool = False
) -> FileImage:
    """Read one 3D volume of an MGH or MGZ file, or every volume of it.

    Parameters
    ----------
    path : Path
        The file.
    index : int or None
        Which frame of a 4D file.
    suffix : str
        The file's suffix in lower case.
    every : bool
        Give all frames, as labels need them: voxels are (i, j, k, frame) then, and may
        be one slice.

    Raises
    ------
    ReadError
        If the file is damaged, not MGH, or not a 3D scan.
    ChoiceError
        If it holds several frames and `index` does not choose one.
    GeometryError
        If the affine or a voxel size cannot be used.
    """
    source = str(path)
    start = _read_start(path)
    i, j, k, frames = (int(n) for n in start["dims"])
    check_shape(source, (i, j, k), thin=every)
    frame = 0 if every else pick_volume(source, frames, index)
    affine, notes = _affine(start, source)
    grid = make_grid(source, "mgh", (i, j, k), affine, suffix=suffix)
    data, more = stored_voxels(
        path,
        (i, j, k, frames),
        np.dtype(_TYPES[int(start["type"])]),
        offset=_HEADER_BYTES,
        volume=None if every else frame,
        is_last=False,
    )
    return FileImage(data, grid, None, notes + more)


def mgh_shape(path: Path, *, suffix: str) -> tuple[int, ...]:
    """Return the voxels along i, j, k of one frame, from the header alone.

    Raises the errors of `read_mgh` for an invalid header.
    """
    return tuple(int(n) for n in _read_start(path)["dims"][:3])


def mgh_bytes(path: Path) -> int:
    """Return the bytes that the voxels take, uncompressed.

    A bad header raises the errors of `read_mgh`.
    """
    return _n_bytes(_read_start(path))


def write_mgh(path: Path, labels: NDArray[np.generic], grid: FileGrid) -> None:
    """Write labels as MGH or MGZ, which know uint8, int16 and int32 only.

    Parameters
    ----------
    path : Path
        Ends in .mgh or .mgz.
    labels : (i, j, k) unsigned integer array
        In the file's own order.
    grid : FileGrid
        Its affine is stored.

    Raises
    ------
    WriteError
        If a label needs more than 31 bits.
    """
    highest = int(labels.max())
    check_mgh_ids(path, highest)
    dtype = np.uint8 if highest < 2**8 else np.int16 if highest < 2**15 else np.int32
    nib.MGHImage(labels.astype(dtype), grid.affine).to_filename(path)


def check_mgh_ids(path: Path, highest: int) -> None:
    """Check before any work that labels fit into MGH's integers.

    Raises
    ------
    WriteError
        If so.
    """
    if highest > _HIGHEST_ID:
        raise WriteError(
            f"Cannot write {path}: MGH holds ids up to {_HIGHEST_ID}, and the labels go"
            f" up to {highest}. Write .nii.gz or .nrrd, which hold them, or renumber"
            " the regions."
        )


def _affine(start: np.void, source: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine (i, j, k) -> RAS+ mm, in 32-bit floats as nibabel has it.

    nibabel's default if the header has none.
    """
    sizes, axes, center = start["delta"], start["axes"], start["center"]
    notes: tuple[str, ...] = ()
    if start["good_ras"] == 0:
        sizes, axes, center = (
            np.ones(3, "f4"),
            np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]], "f4"),
            np.zeros(3, "f4"),
        )
        notes = (
            (
                "The header does not say how the patient lies (good-RAS flag 0): left"
                " and right are a guess, and so are the other directions and 1 mm a"
                " voxel."
            ),
        )
    check_voxel_size(source, sizes.astype(np.float64))
    scaled = axes.T * sizes
    affine = np.eye(4)
    affine[:3, :3] = scaled
    affine[:3, 3] = (center - scaled.dot(start["dims"][:3]) / 2).astype("f4")
    return affine, notes


def _n_bytes(start: np.void) -> int:
    return (
        math.prod(int(n) for n in start["dims"])
        * np.dtype(_TYPES[int(start["type"])]).itemsize
    )


def _read_start(path: Path) -> np.void:
    """Read the first header fields and compare the size that they promise with the file's."""
    check_compression(path)
    try:
        with ImageOpener(str(path), "rb") as file:
            raw = file.read(_START.itemsize)
    except UNREADABLE as err:
        raise damaged(str(path)) from err
    start = np.frombuffer(raw.ljust(_START.itemsize, b"\0")[: _START.itemsize], _START)[
        0
    ]
    kind = int(start["type"])
    # FreeSurfer 7.3 and later write what a file is for (labels, a warp ...) above the
    # version's first byte.
    if (
        int(start["version"]) & 0xFF != 1
        or not 0 <= int(start["version"]) < 2**24
        or min(start["dims"]) < 1
        or not 0 <= kind < _PLAUSIBLE_TYPES
    ):
        raise ReadError(
            f"{path} is not an MGH file, whatever its name says. Check that it is the"
            " right file, or export the scan again."
        )
    if kind not in _TYPES:
        what = _NAMES.get(kind, "an unknown kind")
        raise ReadError(
            f"{path} is an MGH file with voxels of type {kind} ({what}), which Strata"
            " does not read. Export integers or floats."
        )
    most = path.stat().st_size * (
        1 if path.suffix.lower() == ".mgh" else HIGHEST_GZIP_RATIO
    )
    if most < _HEADER_BYTES + _n_bytes(start):
        raise damaged(str(path))
    return start
