"""FreeSurfer MGH and MGZ through nibabel."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from napari_strata.errors import ReadError
from napari_strata.io.grid import FileImage, check_shape, check_voxel_size, make_grid, pick_volume
from napari_strata.io.nifti import UNREADABLE, check_compression, damaged
from napari_strata.volume import FileGrid

_START = np.dtype([("version", ">i4"), ("dims", ">i4", 4), ("type", ">i4"), ("dof", ">i4"), ("good_ras", ">i2"), ("delta", ">f4", 3)])
_BYTES_PER_VOXEL = {0: 1, 1: 4, 3: 4, 4: 2}
_HEADER_BYTES = 284


def read_mgh(path: Path, index: int | None, *, suffix: str) -> FileImage:
    """Read one 3D volume of an MGH or MGZ file.

    Parameters
    ----------
    path : Path
        The file.
    index : int or None
        Which frame of a 4D file.
    suffix : str
        The file's suffix in lower case.

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
    check_shape(source, (i, j, k))
    frame = pick_volume(source, frames, index)
    if start["good_ras"]:
        check_voxel_size(source, start["delta"].astype(np.float64))
    try:
        image = nib.MGHImage.from_filename(path)
        data = np.asarray(image.dataobj[..., frame] if image.ndim == 4 else image.dataobj)
    except (*UNREADABLE, ValueError, nib.filebasedimages.ImageFileError) as err:
        raise damaged(source) from err
    grid = make_grid(source, "mgh", (i, j, k), np.asarray(image.affine, dtype=np.float64), suffix=suffix)
    return FileImage(data, grid)


def mgh_shape(path: Path, *, suffix: str) -> tuple[int, ...]:
    """Give the voxels along i, j, k of one frame, from the header alone; raises what `read_mgh` does for a bad header."""
    return tuple(int(n) for n in _read_start(path)["dims"][:3])


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
    """
    highest = int(labels.max())
    dtype = np.uint8 if highest < 2**8 else np.int16 if highest < 2**15 else np.int32
    nib.MGHImage(labels.astype(dtype), grid.affine).to_filename(path)


def _read_start(path: Path) -> np.void:
    """Read the first header fields and compare the size that they promise with the file's."""
    check_compression(path)
    try:
        with ImageOpener(str(path), "rb") as file:
            raw = file.read(_START.itemsize)
    except UNREADABLE as err:
        raise damaged(str(path)) from err
    start = np.frombuffer(raw.ljust(_START.itemsize, b"\0")[: _START.itemsize], _START)[0]
    kind = int(start["type"])
    if start["version"] != 1 or kind not in _BYTES_PER_VOXEL or min(start["dims"]) < 1:
        raise ReadError(f"{path} is not an MGH file, whatever its name says. Check that it is the right file, or export the scan again.")
    needed = _HEADER_BYTES + math.prod(int(n) for n in start["dims"]) * _BYTES_PER_VOXEL[kind]
    if path.suffix.lower() == ".mgh" and path.stat().st_size < needed:
        raise damaged(str(path))
    return start
