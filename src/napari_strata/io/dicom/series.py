"""DICOM series: which files make one, and whether they are one even stack.

Every file's own header is read and checked before the voxels are: the values of a slice
and its place are right, or the series is refused by the name of the slice. Headers come
through pydicom, the order from `slice_order.py`, voxels from `pixels.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from napari_strata.errors import ChoiceError, ReadError
from napari_strata.io.dicom.file_head import is_dicom, is_segmentation
from napari_strata.io.dicom.folder_search import (
    FolderSeries,
    find_series,
    notes_on_subfolders,
)
from napari_strata.io.dicom.intensity_meaning import describe_intensities
from napari_strata.io.dicom.pixels import read_voxels
from napari_strata.io.dicom.slice import (
    Aside,
    HeaderError,
    Slice,
    class_name,
    read_slice,
)
from napari_strata.io.dicom.slice_order import (
    SliceStack,
    check_uniform,
    sort_slices,
    stack_affine,
)
from napari_strata.io.grid import FileImage, make_grid

__all__ = [
    "SeriesInfo",
    "dicom_shape",
    "is_dicom",
    "is_segmentation",
    "list_series",
    "read_dicom",
    "series_files",
    "series_slices",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One DICOM series in a folder.

    Parameters
    ----------
    uid : str
        SeriesInstanceUID, for `read(..., series=uid)`.
    description : str
        SeriesDescription, for people.
    modality : str
        As DICOM writes it: "CT", "MR" ...
    n_slices : int
        Images in the series.
    """

    uid: str
    description: str
    modality: str
    n_slices: int


def series_files(path: str | Path, series: str | None = None) -> tuple[Path, ...]:
    """Return the files of a series, in the order of the slices in `read_dicom`.

    Parameters
    ----------
    path : str or Path
        A folder, or one file of the series inside its folder.
    series : str or None
        SeriesInstanceUID; needed where a folder holds several.

    Raises
    ------
    ReadError
        As `read_dicom` does.
    """
    return tuple(one.path for one in series_slices(path, series))


def series_slices(path: str | Path, series: str | None = None) -> tuple[Slice, ...]:
    """Return the headers of a series' files, in the order of `series_files`.

    Parameters
    ----------
    path, series
        As for `series_files`.

    Raises
    ------
    ReadError
        As `read_dicom` does.
    """
    return _find_stack(Path(path), series).slices


def list_series(folder: str | Path) -> tuple[SeriesInfo, ...]:
    """List the DICOM series in a folder.

    If the folder itself holds none, its subfolders are searched.

    Parameters
    ----------
    folder : str or Path
        A folder with DICOM images.

    Returns
    -------
    tuple of SeriesInfo
        Sorted by number of slices, most first.

    Raises
    ------
    ReadError
        If the folder cannot be read or holds no DICOM images.

    Examples
    --------
    >>> for series in strata.list_series("dicom"):
    ...     print(series.n_slices, series.modality, series.description)
    3 MR T1 axial
    """
    return tuple(_info(slices) for slices in find_series(Path(folder)).series.values())


def dicom_shape(path: Path, series: str | None) -> tuple[int, ...]:
    """Return the numbers of columns, rows and slices of a series, from its headers.

    Raises the errors of `read_dicom` for invalid ones.
    """
    folder = path if path.is_dir() else path.parent
    asked = series or (None if path.is_dir() else _only(path).uid)
    slices = _chosen(folder, find_series(folder), asked)
    check_uniform(folder, slices)
    return (slices[0].pixels.columns, slices[0].pixels.rows, len(slices))


def read_dicom(path: Path, series: str | None) -> FileImage:
    """Read a DICOM series.

    Parameters
    ----------
    path : Path
        A folder, or one file of the series inside its folder.
    series : str or None
        SeriesInstanceUID; needed where a folder holds several.

    Returns
    -------
    FileImage
        Rescaled intensities (HU for CT) in the series' own order: columns, rows,
        slices.

    Raises
    ------
    ReadError
        If there are no images, slices are missing or doubled, or the series is not one
        stack of grey images.
    ChoiceError
        If the folder holds several series and none, or one that is not there, was
        chosen.
    GeometryError
        If the directions or a voxel size cannot be used.
    """
    folder = path if path.is_dir() else path.parent
    stack = _find_stack(path, series)
    read = read_voxels(stack.slices)
    modality, meaning = describe_intensities(stack.slices, read.data)
    data = read.data.transpose(2, 1, 0)
    columns, rows, n = data.shape
    grid = make_grid(
        str(folder), "itk", (columns, rows, n), stack_affine(stack), suffix=""
    )
    return FileImage(data, grid, modality, (*stack.notes, *read.notes, *meaning))


def _find_stack(path: Path, series: str | None) -> SliceStack:
    """Return the sorted slices of the series that a folder, a file or a UID selects."""
    folder = path if path.is_dir() else path.parent
    asked = series
    one = None if path.is_dir() else _only(path)
    if one is not None:
        asked = series or one.uid
    study = find_series(folder)
    if one is not None and one.is_aside and asked not in study.series:
        raise ReadError(
            f"{path} is no image of a scan ({class_name(one.storage_class)}). Give the"
            " folder of the series."
        )
    slices = _chosen(folder, study, asked)
    notes = (*study.notes, *notes_on_subfolders(folder, slices))
    stack = sort_slices(folder, slices)
    return SliceStack(stack.slices, stack.step, (*notes, *stack.notes))


def _only(path: Path) -> Slice:
    """Read the header of a file that was given by its name."""
    try:
        one = read_slice(path, sure=is_dicom(path))
    except HeaderError as err:
        raise ReadError(
            f"{path} is not a readable DICOM image: {err}. Copy it again, or give the"
            " folder of the series."
        ) from err
    if isinstance(one, Aside):
        raise ReadError(
            f"{path} is no image of a scan ({one.kind}). Give the folder of the series,"
            " or one of its images."
        )
    return one


def _info(slices: list[Slice]) -> SeriesInfo:
    return SeriesInfo(
        slices[0].uid, slices[0].description, slices[0].modality, len(slices)
    )


def _chosen(folder: Path, study: FolderSeries, series: str | None) -> list[Slice]:
    groups = study.series
    if series in groups:
        return groups[series]
    if series is None and len(groups) == 1:
        return next(iter(groups.values()))
    rows = [_info(slices) for slices in groups.values()]
    descriptions = [
        f"{row.description or 'no description'}, {row.modality}, {row.n_slices} slices"
        for row in rows
    ]
    known = "; ".join(
        f"{row.uid} ({text})" for row, text in zip(rows, descriptions, strict=True)
    )
    options = [
        (text, {"series": row.uid})
        for row, text in zip(rows, descriptions, strict=True)
    ]
    what = (
        f"holds {len(groups)} DICOM series"
        if series is None
        else f"has no series {series}"
    )
    raise ChoiceError(
        f"{folder} {what}; choose one with --series UID: {known}.", options
    )
