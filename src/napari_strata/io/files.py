"""Read scans and labels from all formats, and write labels on the scan's own grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, ReadError, WriteError
from napari_strata.filenames import (
    ITK_SUFFIXES,
    MGH_SUFFIXES,
    NIFTI_SUFFIXES,
    SCAN_SUFFIXES,
    printable,
)
from napari_strata.io.atomic import Together, atomic_path, file_suffix, same_file
from napari_strata.io.dicom.series import (
    SeriesInfo,
    is_dicom,
    is_segmentation,
    list_series,
    read_dicom,
)
from napari_strata.io.grid import (
    FileImage,
    check_shearless,
    memory_geometry,
    plain_grid,
    to_file_order,
    to_memory_order,
)
from napari_strata.io.hashing import check_regular, hash_file
from napari_strata.io.intensities import check_varies, finite
from napari_strata.io.itk import read_itk, write_itk
from napari_strata.io.labels.dicom_seg import read_dicom_seg
from napari_strata.io.labels.names import Names, mgh_names, nifti_names
from napari_strata.io.labels.objects import (
    SEGMENTATIONS,
    is_seg,
    object_kind,
    storage_class,
)
from napari_strata.io.labels.seg_nrrd import SUFFIX as SEG_NRRD
from napari_strata.io.labels.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from napari_strata.io.labels.values import HIGHEST_ID, layered_labels, whole_labels
from napari_strata.io.mgh import check_mgh_ids, mgh_bytes, read_mgh, write_mgh
from napari_strata.io.modality import guess_modality
from napari_strata.io.nifti import read_nifti, write_nifti, write_nifti_scan
from napari_strata.io.sidecar import read_names, table_text
from napari_strata.io.text_header import read_text_header
from napari_strata.volume import (
    FileGrid,
    Geometry,
    Modality,
    Region,
    Segmentation,
    Volume,
    default_regions,
    label_ids,
    smallest_label_dtype,
)

__all__ = [
    "LABEL_SUFFIXES",
    "SCAN_OUTPUTS",
    "SCAN_SUFFIXES",
    "SeriesInfo",
    "atomic_path",
    "check_label_path",
    "hash_file",
    "holds_segments",
    "list_series",
    "raw_labels",
    "read",
    "read_labels",
    "stage_labels",
    "write",
    "write_scan",
    "write_voxels",
]

logger = logging.getLogger(__name__)

_READERS = {
    **dict.fromkeys(NIFTI_SUFFIXES, read_nifti),
    **dict.fromkeys(MGH_SUFFIXES, read_mgh),
    **dict.fromkeys(ITK_SUFFIXES, read_itk),
}
_WRITERS = {
    **dict.fromkeys((".nii", ".nii.gz"), write_nifti),
    **dict.fromkeys((".mgh", ".mgz"), write_mgh),
    **dict.fromkeys((".nrrd", ".mha"), write_itk),
}
SCAN_OUTPUTS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Endings of the scan files that `write_scan` makes, in lower case."""
LABEL_SUFFIXES = (*_WRITERS, SEG_NRRD)
"""Endings of the label files that `write` makes, in lower case."""


def read(
    path: str | Path,
    *,
    index: int | None = None,
    series: str | None = None,
    modality: Modality | None = None,
) -> Volume:
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
        Data (z, y, x) toward Inferior, Posterior, Left; the native type, or float32
        where the file scales intensities. NaN, infinite voxels and those beyond float32
        are replaced by the lowest value, which `notes` tells.

    Raises
    ------
    ReadError
        If there is no such scan, it is damaged, not 3D, or says nothing (all voxels
        equal).
    ChoiceError
        If the input holds several scans and none was chosen (the message lists them),
        or `index` is given for DICOM or `series` for another file.
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
    data, notes = finite(to_memory_order(image.data, image.grid), str(source))
    check_varies(data, str(source))
    for note in (*image.notes, *notes):
        logger.warning("%s: %s", source, note)
    kind = modality or image.modality or guess_modality(data)
    geometry = memory_geometry(image.grid)
    return Volume(
        data,
        geometry,
        kind,
        printable(_stem(source)),
        str(source),
        (*image.notes, *notes),
        index,
        series,
    )


def read_labels(
    path: str | Path, *, index: int | None = None, like: Geometry | None = None
) -> Segmentation:
    """Read labels in the memory order of `read`.

    Names, colours and locks come from inside the file or the JSON file beside it.

    Parameters
    ----------
    path : str or Path
        A label file, for example labels.nii.gz; its table is looked for in labels.json,
        under "regions". 3D Slicer's segmentations and DICOM SEG hold their own; so may
        NIfTI (TotalSegmentator's extension) and MGZ (FreeSurfer's table).
    index : int or None
        Which volume of a 4D file holds the labels, from 0.
    like : Geometry or None
        That of the scan, if it is known: it tells how far the slices of a DICOM SEG are
        apart where that does not.

    Returns
    -------
    Segmentation
        The smallest unsigned type that holds the ids; default names where the table has
        none.

    Raises
    ------
    ReadError
        If the file cannot be read, its voxels are not whole numbers from 0 up, or our
        own table is damaged.
    ChoiceError
        If there are several volumes of labels and none was chosen.
    GeometryError
        If the affine or a voxel size cannot be used.
    """
    source = Path(path)
    found = _load_labels(source, index, like)
    labels: NDArray[Any] = to_memory_order(found.labels, found.grid)
    present = set(label_ids(labels))
    table = {region.id: region for region in default_regions(sorted(present))}
    table.update((region.id, region) for region in found.inside if region.id in present)
    table.update((region.id, region) for region in found.regions)
    notes = found.notes
    if not found.is_complete:
        beside, more = read_names(source.with_name(f"{_stem(source)}.json"))
        table.update((region.id, region) for region in beside)
        notes += more
    for note in notes:
        logger.warning("%s: %s", source, note)
    return Segmentation(
        labels, tuple(table[key] for key in sorted(table)), memory_geometry(found.grid)
    )


def raw_labels(path: Path, geometry: Geometry) -> Segmentation:
    """Read labels without a header, in the voxel order of the scan's file.

    Parameters
    ----------
    path : Path
        One or two bytes per voxel (little-endian), the first axis fastest.
    geometry : Geometry
        That of the scan.

    Raises
    ------
    ReadError
        If the number of bytes does not fit the scan.
    """
    grid = geometry.file or plain_grid(geometry)
    count = math.prod(geometry.shape_zyx)
    dtype = {count: "<u1", 2 * count: "<u2"}.get(path.stat().st_size)
    if dtype is None:
        raise ReadError(
            f"{path} has {path.stat().st_size} bytes, which is not one or two for each"
            f" of the scan's {count} voxels. Send labels of this scan."
        )
    stored = np.fromfile(path, dtype).reshape(grid.shape, order="F")
    labels: NDArray[Any] = to_memory_order(stored, grid)
    return Segmentation(labels, default_regions(label_ids(labels)), geometry)


def holds_segments(path: str | Path) -> bool:
    """Return whether a file's format holds segments: 3D Slicer's .seg.nrrd or DICOM SEG."""
    source = Path(path)
    suffix = file_suffix(source)
    try:
        if not source.is_file():
            return False
        if suffix in (".nrrd", ".nhdr"):
            return read_text_header(source, suffix).has_segments
        return suffix == SEG_NRRD or (is_dicom(source) and is_seg(source))
    except OSError:
        return False


def write(
    segmentation: Segmentation, path: str | Path, *, sidecar: bool = True
) -> Path:
    """Write labels on the grid of the scan's file, with their region table beside them.

    Either both files are written or neither.

    Parameters
    ----------
    segmentation : Segmentation
        Labels; `geometry.file` says on which grid they are written. Without it they are
        written with axes toward Right, Anterior and Superior.
    path : str or Path
        Ends in .nii, .nii.gz, .nrrd, .mha, .mgh, .mgz or .seg.nrrd.
    sidecar : bool
        Whether to write names, colours and locks to labels.json beside labels.nii.gz,
        where `read_labels` finds them; .seg.nrrd holds them itself.

    Returns
    -------
    Path
        Where the labels are now.

    Raises
    ------
    WriteError
        If the suffix is not known, a JSON file that Strata did not write or that other
        labels need stands where ours would go, or a file cannot be written; nothing new
        stands under either name then.
    GeometryError
        If the labels are not on the grid of their file.
    """
    with Together() as together:
        stage_labels(segmentation, path, together, sidecar=sidecar)
    return Path(path)


def stage_labels(
    segmentation: Segmentation,
    path: str | Path,
    together: Together,
    *,
    sidecar: bool = True,
) -> None:
    """Write labels as `write` does, but within a transaction.

    The files get their final names when `together` closes without an error.

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
    if highest > HIGHEST_ID:
        raise WriteError(
            f"Cannot write {target}: region id {highest} does not fit into 32 bits."
            " Renumber the regions."
        )
    if suffix in (".mgh", ".mgz"):
        check_mgh_ids(target, highest)
    if segmentation.geometry.file is None:
        check_shearless(target, segmentation.geometry, suffix)
    grid = segmentation.geometry.file or plain_grid(segmentation.geometry)
    labels = to_file_order(
        segmentation.labels.astype(smallest_label_dtype(highest), copy=False), grid
    )
    temporary = together.file(target)
    if suffix == SEG_NRRD:
        write_seg_nrrd(temporary, labels, grid, segmentation.regions)
    else:
        _WRITERS[suffix](temporary, labels, grid)
    if text is not None:
        together.file(table).write_text(text, encoding="utf-8")


def write_voxels(
    segmentation: Segmentation,
    path: Path,
    *,
    dtype: type[np.unsignedinteger] | None = None,
    compressed: bool = True,
) -> None:
    """Write the voxels of labels, without names, in the type that a program expects.

    For answers to other programs: what a person keeps is written by `write`.

    Parameters
    ----------
    segmentation : Segmentation
        Labels; written on the grid of the scan's file, as `write` does.
    path : Path
        Ends in .nii, .nii.gz, .nrrd or .mha; an existing file is replaced.
    dtype : type or None
        Smallest type to write; a wider one is taken if ids need it. None takes the
        smallest that fits.
    compressed : bool
        Whether the voxels of NRRD and MetaImage are compressed.

    Raises
    ------
    WriteError
        If the suffix is another one, or the file cannot be written.
    """
    suffix = file_suffix(path)
    if suffix not in SCAN_OUTPUTS:
        raise WriteError(
            f"Cannot write labels to {path}: the name must end in"
            f" {_listed(SCAN_OUTPUTS)}."
        )
    if segmentation.geometry.file is None:
        check_shearless(path, segmentation.geometry, suffix)
    grid = segmentation.geometry.file or plain_grid(segmentation.geometry)
    fitting = np.dtype(smallest_label_dtype(int(segmentation.labels.max(initial=0))))
    chosen = fitting if dtype is None else max(fitting, np.dtype(dtype))
    labels = to_file_order(segmentation.labels.astype(chosen, copy=False), grid)
    try:  # not by way of a temporary file, which would be flushed to the disk
        if suffix in (".nii", ".nii.gz"):
            write_nifti(path, labels, grid)
        else:
            write_itk(path, labels, grid, compressed=compressed)
    except OSError as err:
        raise WriteError(
            f"Cannot write {path}: {err.strerror or err}. Choose another folder."
        ) from err


def check_label_path(path: str | Path) -> None:
    """Check before any work that labels can be written under a name.

    Raises
    ------
    WriteError
        If the name's ending is not known.
    """
    if file_suffix(path) not in LABEL_SUFFIXES:
        raise WriteError(
            f"Cannot write labels to {path}: the name must end in"
            f" {_listed(LABEL_SUFFIXES)}."
        )


def write_scan(volume: Volume, path: str | Path) -> Path:
    """Write a scan on the grid of its file.

    A scan made in memory gets axes toward Right, Anterior and Superior.

    Parameters
    ----------
    volume : Volume
        Integer or float data.
    path : str or Path
        Ends in .nii, .nii.gz, .nrrd or .mha.

    Raises
    ------
    WriteError
        If the ending is not one of these, the scan's own file would be replaced, or the
        file cannot be written.
    """
    target = Path(path)
    suffix = file_suffix(target)
    if suffix not in SCAN_OUTPUTS:
        raise WriteError(
            f"Cannot write a scan to {target}: the name must end in"
            f" {_listed(SCAN_OUTPUTS)}."
        )
    if volume.path and same_file(target, volume.path):
        raise WriteError(f"{target} is the scan itself. Choose another name.")
    if volume.geometry.file is None:
        check_shearless(target, volume.geometry, suffix)
    grid = volume.geometry.file or plain_grid(volume.geometry)
    data = to_file_order(volume.data, grid)
    with atomic_path(target) as temporary:
        if suffix in (".nii", ".nii.gz"):
            write_nifti_scan(temporary, data, grid.affine)
        else:
            write_itk(temporary, data, grid)
    return target


@dataclass(frozen=True, slots=True, eq=False)
class _FileLabels:
    """Labels (i, j, k) of a file, with names and notes.

    `inside` are names of any labels, `regions` those of its own. A complete format
    holds its own names, so no JSON file is looked for.
    """

    labels: NDArray[np.generic]
    grid: FileGrid
    notes: tuple[str, ...] = ()
    inside: tuple[Region, ...] = ()
    regions: tuple[Region, ...] = ()
    is_complete: bool = False


# damaged headers hold any number; what cannot be used is refused
@np.errstate(over="ignore", invalid="ignore")
def _load_labels(source: Path, index: int | None, like: Geometry | None) -> _FileLabels:
    _check_there(source)
    suffix = file_suffix(source)
    if source.is_dir():
        return _load_label_folder(source, index, like)
    if suffix in (SEG_NRRD, ".nrrd", ".nhdr") and holds_segments(source):
        if index is not None:
            raise ChoiceError(
                f"{source} is a segmentation of 3D Slicer's, where --index cannot"
                " choose. Leave it out."
            )
        slicer = read_seg_nrrd(source)
        return _FileLabels(
            slicer.image.data,
            slicer.image.grid,
            slicer.image.notes,
            regions=slicer.regions,
            is_complete=True,
        )
    reader = _READERS.get(suffix)
    if reader is not None:
        return _of_volumes(
            reader(source, None, suffix=suffix, every=True), source, index
        )
    if suffix in (".dcm", ".ima") or is_dicom(source):
        return _load_dicom_labels(source, index, like)
    raise ReadError(
        f"{source} is of an unknown kind. Strata reads {_listed(_READERS)} and DICOM"
        " folders; labels also from DICOM SEG."
    )


def _of_volumes(image: FileImage, source: Path, index: int | None) -> _FileLabels:
    """Return the labels of all volumes of a file."""
    advice, names = "", Names()
    if image.grid.kind == "nifti":
        names = nifti_names(source, image.grid.suffix)
        if image.data.dtype == np.float64:
            advice = (
                "Choose the label file, or save the labels as integers, without a scale"
                " (scl_slope)"
            )
    elif image.grid.kind == "mgh":
        names = mgh_names(source, mgh_bytes(source))
    found = layered_labels(image.data, str(source), index=index, advice=advice)
    return _FileLabels(
        found.labels,
        image.grid,
        (*image.notes, *found.notes, *names.notes),
        names.regions,
    )


def _load_label_folder(
    source: Path, index: int | None, like: Geometry | None
) -> _FileLabels:
    """Read the only DICOM SEG of a folder, or a series of slices whose values are labels."""
    try:
        segs = sorted(
            one
            for one in source.iterdir()
            if one.is_file() and is_dicom(one) and is_seg(one)
        )
    except OSError as err:
        raise ReadError(
            f"Cannot list {source}: {err.strerror}. Check that you may read it."
        ) from err
    if len(segs) > 1:
        raise ChoiceError(
            f"{source} holds {len(segs)} DICOM SEG files. Give one of them:"
            f" {', '.join(one.name for one in segs)}."
        )
    return (
        _load_dicom_labels(segs[0], index, like) if segs else _of_series(source, index)
    )


def _load_dicom_labels(
    source: Path, index: int | None, like: Geometry | None
) -> _FileLabels:
    kind = storage_class(source)
    if (what := object_kind(kind)) is not None:
        raise ReadError(f"{source} is {what}")
    if kind not in SEGMENTATIONS:
        return _of_series(source, index)
    if index is not None:
        raise ChoiceError(
            f"{source} is DICOM, where --index cannot choose. Leave it out."
        )
    stored = read_dicom_seg(source, like=like)
    return _FileLabels(
        stored.image.data,
        stored.image.grid,
        stored.image.notes,
        regions=stored.regions,
        is_complete=True,
    )


def _of_series(source: Path, index: int | None) -> _FileLabels:
    image = _load_dicom(source, index, None)
    found = whole_labels(image.data, str(source))
    return _FileLabels(found.labels, image.grid, (*image.notes, *found.notes))


def _check_there(source: Path) -> None:
    """Raise unless a path is a readable folder or non-empty file."""
    try:
        if not source.exists():
            raise ReadError(f"There is no file or folder {source}. Check the path.")
        if source.is_dir():
            next(source.iterdir(), None)
            return
        check_regular(source)
        with source.open("rb") as file:
            if not file.read(1):
                raise ReadError(
                    f"{source} is an empty file. Copy or download it again."
                )
    except OSError as err:
        raise ReadError(
            f"Cannot read {source}: {err.strerror}. Check that you may read it."
        ) from err


# damaged headers hold any number; what cannot be used is refused
@np.errstate(over="ignore", invalid="ignore")
def _load(source: Path, index: int | None, series: str | None) -> FileImage:
    _check_there(source)
    if source.is_dir():
        return _load_dicom(source, index, series)
    suffix = file_suffix(source)
    reader = _READERS.get(suffix)
    if reader is not None:
        if series is not None:
            raise ChoiceError(
                f"{source} is no DICOM series, so --series cannot choose in it. Leave"
                " it out."
            )
        return reader(source, index, suffix=suffix)
    if suffix == SEG_NRRD or is_segmentation(source):
        raise ReadError(
            f"{source} is a segmentation, not a scan. Read it with"
            " `strata.read_labels`, or give the scan that it was drawn on."
        )
    if suffix in (".dcm", ".ima") or is_dicom(source):
        return _load_dicom(source, index, series)
    raise ReadError(
        f"{source} is of an unknown kind. Strata reads {_listed(_READERS)} and DICOM"
        " folders."
    )


def _load_dicom(source: Path, index: int | None, series: str | None) -> FileImage:
    if index is not None:
        raise ChoiceError(
            f"{source} is DICOM, where --index cannot choose. Leave it out, or choose a"
            " series with --series UID."
        )
    return read_dicom(source, series)


def _stem(path: Path) -> str:
    return (
        path.name[: len(path.name) - len(file_suffix(path))]
        if not path.is_dir()
        else path.resolve().name
    )


def _listed(table: Iterable[str]) -> str:
    *most, last = table
    return f"{', '.join(most)} or {last}"
