"""Read a scan or labels from any known file, and write labels on the scan's own grid."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, ReadError, WriteError
from napari_strata.io.atomic import Together, atomic_path, file_suffix, same_file
from napari_strata.io.dicom import SeriesInfo, is_dicom, is_segmentation, list_series, read_dicom
from napari_strata.io.grid import FileImage, memory_geometry, plain_grid, to_file_order, to_memory_order
from napari_strata.io.hashing import check_regular, hash_file
from napari_strata.io.itk import read_itk, write_itk
from napari_strata.io.mgh import read_mgh, write_mgh
from napari_strata.io.modality import guess_modality
from napari_strata.io.nifti import read_nifti, write_nifti, write_nifti_scan
from napari_strata.io.seg_nrrd import SUFFIX as SEG_NRRD
from napari_strata.io.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from napari_strata.io.sidecar import read_table, table_text
from napari_strata.volume import Modality, Segmentation, Volume, default_regions, smallest_label_dtype

__all__ = [
    "LABEL_SUFFIXES",
    "SCAN_OUTPUTS",
    "SCAN_SUFFIXES",
    "SeriesInfo",
    "atomic_path",
    "check_label_path",
    "hash_file",
    "list_series",
    "read",
    "read_labels",
    "stage_labels",
    "write",
    "write_scan",
]

logger = logging.getLogger(__name__)

_READERS = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".img"), read_nifti),
    **dict.fromkeys((".mgh", ".mgz"), read_mgh),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), read_itk),
}
SCAN_SUFFIXES = tuple(_READERS)
"""Endings of scan files, in lower case; DICOM files are known by their mark instead."""
_WRITERS = {
    **dict.fromkeys((".nii", ".nii.gz"), write_nifti),
    **dict.fromkeys((".mgh", ".mgz"), write_mgh),
    **dict.fromkeys((".nrrd", ".mha"), write_itk),
}
SCAN_OUTPUTS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Endings of the scan files that `write_scan` makes, in lower case."""
LABEL_SUFFIXES = (*_WRITERS, SEG_NRRD)
"""Endings of the label files that `write` makes, in lower case."""


def read(path: str | Path, *, index: int | None = None, series: str | None = None, modality: Modality | None = None) -> Volume:
    """Read a scan: NIfTI, a DICOM folder, NRRD, MetaImage, MGH or MGZ.

    Parameters
    ----------
    path : str or Path
        A file, or the folder of a DICOM series (or one file in it).
    index : int or None
        Which volume of a 4D file, from 0.
    series : str or None
        SeriesInstanceUID, where a DICOM folder holds several.
    modality : {"ct", "mr"} or None
        Overrides what the file or the histogram says.

    Returns
    -------
    Volume
        Data (z, y, x) toward Inferior, Posterior, Left; the native type, or float32 where the file scales intensities.
        NaN, infinite voxels and those beyond float32 are replaced by the lowest value, which `notes` tells.

    Raises
    ------
    ReadError
        If there is no such scan, it is damaged, not 3D, or says nothing (all voxels equal).
    ChoiceError
        If the input holds several scans and none was chosen (the message lists them), or `index` is given for DICOM or
        `series` for another file.
    GeometryError
        If the affine or a voxel size cannot be used.

    Examples
    --------
    >>> volume = strata.read("scan.nii.gz")
    >>> volume.modality, volume.data.shape
    ('mr', (24, 24, 24))
    """
    source = Path(path)
    image = _load(source, index, series)
    data, notes = _finite(to_memory_order(image.data, image.grid), source)
    lowest, highest = data.min(), data.max()
    if lowest == highest:
        raise ReadError(f"{source} is empty: every voxel is {lowest:g}. Check that it is the right scan.")
    for note in (*image.notes, *notes):
        logger.warning("%s: %s", source, note)
    kind = modality or image.modality or guess_modality(data)
    geometry = memory_geometry(image.grid)
    return Volume(data, geometry, kind, _stem(source), str(source), (*image.notes, *notes), index, series)


def read_labels(path: str | Path) -> Segmentation:
    """Read labels in the memory order of `read`, with names, colours and locks from the JSON file beside them.

    Parameters
    ----------
    path : str or Path
        A label file, for example labels.nii.gz; its table is looked for in labels.json, under "regions". 3D Slicer's
        .seg.nrrd holds its own.

    Returns
    -------
    Segmentation
        The smallest unsigned type that holds the ids; default names where the table has none.

    Raises
    ------
    ReadError
        If the file cannot be read, its voxels are not whole numbers from 0 up, or the table is damaged.
    GeometryError
        If the affine or a voxel size cannot be used.
    """
    source = Path(path)
    if file_suffix(source) == SEG_NRRD and source.is_file():
        slicer = read_seg_nrrd(source)
        for note in slicer.image.notes:
            logger.warning("%s: %s", source, note)
        inside: NDArray[Any] = to_memory_order(slicer.image.data, slicer.image.grid)
        return Segmentation(inside, slicer.regions, memory_geometry(slicer.image.grid))
    image = _load(source, None, None)
    values: NDArray[Any] = image.data
    lowest, highest = values.min(), values.max()
    whole = values.dtype.kind in "iu" or bool((values == np.round(values)).all())
    if not (whole and lowest >= 0 and highest < 2**32):
        raise ReadError(f"{source} is not a label file: labels are whole numbers from 0 up. Choose the label file.")
    labels = to_memory_order(values.astype(smallest_label_dtype(int(highest))), image.grid)
    table = {region.id: region for region in default_regions(np.unique(labels))}
    table.update((region.id, region) for region in read_table(source.with_name(f"{_stem(source)}.json")))
    return Segmentation(labels, tuple(table[key] for key in sorted(table)), memory_geometry(image.grid))  # type: ignore[arg-type]


def write(segmentation: Segmentation, path: str | Path, *, sidecar: bool = True) -> Path:
    """Write labels on the grid of the file that the scan came from, and their region table beside them; both or neither.

    Parameters
    ----------
    segmentation : Segmentation
        Labels; `geometry.file` says on which grid they are written. Without it they are written with axes toward
        Right, Anterior and Superior.
    path : str or Path
        Ends in .nii, .nii.gz, .nrrd, .mha, .mgh, .mgz or .seg.nrrd.
    sidecar : bool
        Whether to write names, colours and locks to labels.json beside labels.nii.gz, where `read_labels` finds them;
        .seg.nrrd holds them itself.

    Returns
    -------
    Path
        Where the labels are now.

    Raises
    ------
    WriteError
        If the suffix is not known, a JSON file that Strata did not write or that other labels need stands where ours
        would go, or a file cannot be written; nothing new stands under either name then.
    GeometryError
        If the labels are not on the grid of their file.
    """
    with Together() as together:
        stage_labels(segmentation, path, together, sidecar=sidecar)
    return Path(path)


def stage_labels(segmentation: Segmentation, path: str | Path, together: Together, *, sidecar: bool = True) -> None:
    """Do what `write` does, but let the files get their names only when `together` closes without an error.

    Raises
    ------
    WriteError, GeometryError
        As `write` does; nothing new stands under any name of `together` then.
    """
    target = Path(path)
    check_label_path(target)
    suffix = file_suffix(target)
    table = target.with_name(f"{_stem(target)}.json")
    sidecar = sidecar and suffix != SEG_NRRD
    text = table_text(table, target, segmentation.regions) if sidecar else None
    highest = int(segmentation.labels.max(initial=0))
    if highest >= 2**32:
        raise WriteError(f"Cannot write {target}: region id {highest} does not fit into 32 bits. Renumber the regions.")
    grid = segmentation.geometry.file or plain_grid(segmentation.geometry)
    labels = to_file_order(segmentation.labels.astype(smallest_label_dtype(highest), copy=False), grid)
    temporary = together.file(target)
    if suffix == SEG_NRRD:
        write_seg_nrrd(temporary, labels, grid, segmentation.regions)
    else:
        _WRITERS[suffix](temporary, labels, grid)
    if text is not None:
        together.file(table).write_text(text, encoding="utf-8")


def check_label_path(path: str | Path) -> None:
    """Say early that labels cannot be written under a name.

    Raises
    ------
    WriteError
        If the name's ending is not known.
    """
    if file_suffix(path) not in LABEL_SUFFIXES:
        raise WriteError(f"Cannot write labels to {path}: the name must end in {_listed(LABEL_SUFFIXES)}.")


def write_scan(volume: Volume, path: str | Path) -> Path:
    """Write a scan: on the grid of its file, or with axes toward Right, Anterior and Superior if it was made in memory.

    Parameters
    ----------
    volume : Volume
        Integer or float data.
    path : str or Path
        Ends in .nii, .nii.gz, .nrrd or .mha.

    Raises
    ------
    WriteError
        If the ending is not one of these, the scan's own file would be replaced, or the file cannot be written.
    """
    target = Path(path)
    suffix = file_suffix(target)
    if suffix not in SCAN_OUTPUTS:
        raise WriteError(f"Cannot write a scan to {target}: the name must end in {_listed(SCAN_OUTPUTS)}.")
    if volume.path and same_file(target, volume.path):
        raise WriteError(f"{target} is the scan itself. Choose another name.")
    grid = volume.geometry.file or plain_grid(volume.geometry)
    data = to_file_order(volume.data, grid)
    with atomic_path(target) as temporary:
        if suffix in (".nii", ".nii.gz"):
            write_nifti_scan(temporary, data, grid.affine)
        else:
            write_itk(temporary, data, grid)
    return target


def _load(source: Path, index: int | None, series: str | None) -> FileImage:
    try:
        if not source.exists():
            raise ReadError(f"There is no file or folder {source}. Check the path.")
        if source.is_dir():
            next(source.iterdir(), None)
            return _load_dicom(source, index, series)
        check_regular(source)
        with source.open("rb") as file:
            if not file.read(1):
                raise ReadError(f"{source} is an empty file. Copy or download it again.")
    except OSError as err:
        raise ReadError(f"Cannot read {source}: {err.strerror}. Check that you may read it.") from err
    suffix = file_suffix(source)
    reader = _READERS.get(suffix)
    if reader is not None:
        if series is not None:
            raise ChoiceError(f"{source} is no DICOM series, so --series cannot choose in it. Leave it out.")
        return reader(source, index, suffix=suffix)
    if suffix == SEG_NRRD or is_segmentation(source):
        raise ReadError(
            f"{source} is a segmentation, not a scan. Read it with `strata.read_labels`, or give the scan that it was drawn on."
        )
    if suffix in (".dcm", ".ima") or is_dicom(source):
        return _load_dicom(source, index, series)
    raise ReadError(f"{source} is of an unknown kind. Strata reads {_listed(_READERS)} and DICOM folders.")


def _load_dicom(source: Path, index: int | None, series: str | None) -> FileImage:
    if index is not None:
        raise ChoiceError(f"{source} is DICOM, where --index cannot choose. Leave it out, or choose a series with --series UID.")
    return read_dicom(source, series)


def _finite(data: NDArray[Any], source: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Replace NaN and infinite voxels, and those that float32 cannot hold, by the lowest other value, and say so."""
    if data.dtype.kind != "f":
        return data, ()
    bad, what = ~np.isfinite(data), "NaN or infinite"
    if data.dtype.itemsize > 4:
        limit = float(np.finfo(np.float32).max)
        beyond = ((data > limit) | (data < -limit)) & ~bad
        if beyond.any():
            bad, what = bad | beyond, "NaN, infinite or too large (beyond float32)"
    count = int(bad.sum())
    if not count:
        return data, ()
    if count == data.size:
        raise ReadError(f"{source} holds no number: every voxel is {what}. Export the scan again.")
    lowest = data[~bad].min()
    noun = f"1 {what} voxel was" if count == 1 else f"{count} {what} voxels were"
    return np.where(bad, lowest, data), (f"{noun} set to the lowest value ({lowest:g}).",)


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(file_suffix(path))] if not path.is_dir() else path.resolve().name


def _listed(table: Iterable[str]) -> str:
    *most, last = table
    return f"{', '.join(most)} or {last}"
