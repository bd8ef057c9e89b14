"""DICOM series through SimpleITK (GDCM).

Every file's own position is read and checked before the voxels are: ITK alone would stack slices over a gap, or over
two scans in one series, with no more than a warning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, GeometryError, ReadError
from napari_strata.io.grid import FileImage, check_shape, check_voxel_size, make_grid
from napari_strata.io.itk import affine_ras, quiet_stderr, voxels
from napari_strata.volume import Modality

logger = logging.getLogger(__name__)

_MODALITIES: dict[str, Modality] = {"CT": "ct", "MR": "mr"}
_SUFFIXES = (".dcm", ".ima", "")
_STORAGE_CLASS = b"\x02\x00\x02\x00UI"
_SLICE_CLASSES = tuple(b"1.2.840.10008.5.1.4.1.1." + part for part in (b"2", b"2.1", b"4", b"4.1", b"20", b"128", b"130"))
_SEGMENTATION_CLASS = b"1.2.840.10008.5.1.4.1.1.66."
_SAME_PLACE_MM = 1e-3
_SAME_SPACING = 1e-3
_GAP = 1.5
_UNEVEN = 0.25
_TILTED = 0.1


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


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    """What one file says; empty arrays where it says nothing."""

    path: Path
    uid: str
    description: str
    modality: str
    size: tuple[int, ...]
    values: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    rescale: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Slices of one series in order along their common normal, and the step from one to the next (LPS mm)."""

    slices: tuple[_Slice, ...]
    step: NDArray[np.float64]
    notes: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Say whether a file carries the DICOM mark; a pipe or a device does not, and is not opened: it might never answer."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_segmentation(path: str | Path) -> bool:
    """Say whether a file is a DICOM segmentation (SEG), by its head."""
    try:
        return Path(path).is_file() and _storage_class(Path(path)).startswith(_SEGMENTATION_CLASS)
    except OSError:
        return False


def series_files(path: str | Path, series: str | None = None) -> tuple[Path, ...]:
    """Give the files of a series in the order of the slices that `read_dicom` gives.

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
    return tuple(one.path for one in _find_stack(Path(path), series).slices)


def list_series(folder: str | Path) -> tuple[SeriesInfo, ...]:
    """List the DICOM series in a folder; if the folder itself holds none, those in its subfolders.

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
    return tuple(_info(slices) for slices in _group(Path(folder)).values())


def dicom_shape(path: Path, series: str | None) -> tuple[int, ...]:
    """Give the columns, rows and slices of a series, from the headers of its slices; raises what `read_dicom` does for bad ones."""
    folder = path if path.is_dir() else path.parent
    slices = _chosen(folder, _group(folder), series)
    return (*slices[0].size[:2], len(slices))


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
        Rescaled intensities (HU for CT) in the series' own order: columns, rows, slices.

    Raises
    ------
    ReadError
        If there are no images, slices are missing or doubled, or the series is not one stack of grey images.
    ChoiceError
        If the folder holds several series and none, or one that is not there, was chosen.
    GeometryError
        If the directions or a voxel size cannot be used.
    """
    folder = path if path.is_dir() else path.parent
    stack = _find_stack(path, series)
    first = stack.slices[0]
    image = _read_pixels(folder, stack)
    columns, rows, n = image.GetSize()
    grid = make_grid(str(folder), "itk", (columns, rows, n), _affine(image, stack), suffix="")
    return FileImage(_compact(voxels(image)), grid, _MODALITIES.get(first.modality), stack.notes)


def _find_stack(path: Path, series: str | None) -> _Stack:
    """Find the series that a folder, a file or a UID means, and put its slices in order."""
    if path.is_dir():
        return _stack(path, _chosen(path, _group(path), series))
    one = _read_slice(path)
    if one is None:
        raise ReadError(f"{path} is not a readable DICOM image. Copy it again, or give the folder of the series.")
    return _stack(path.parent, _chosen(path.parent, _group(path.parent), series or one.uid))


def _group(folder: Path) -> dict[str, list[_Slice]]:
    if not folder.is_dir():
        raise ReadError(f"{folder} is not a folder. Give the folder that holds the DICOM series.")
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not _is_directory(entry))
        if not any(map(is_dicom, files)):
            files = sorted(entry for entry in folder.rglob("*") if entry.is_file() and is_dicom(entry) and not _is_directory(entry))
    except OSError as err:
        raise ReadError(f"Cannot list {folder}: {err.strerror}. Check that you may read it.") from err
    groups: dict[str, list[_Slice]] = {}
    for file in files:
        one = None if is_segmentation(file) else _read_slice(file)
        if one is not None:
            groups.setdefault(one.uid, []).append(one)
    if not groups:
        raise ReadError(f"{folder} holds no DICOM images. Give the folder of a series, or the path of a scan file.")
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])))


def _is_directory(path: Path) -> bool:
    """Say whether a file is the table of contents of a DICOM disc, which carries the mark but holds no image."""
    return path.name.upper() == "DICOMDIR"


def _info(slices: list[_Slice]) -> SeriesInfo:
    return SeriesInfo(slices[0].uid, slices[0].description, slices[0].modality, len(slices))


def _chosen(folder: Path, groups: dict[str, list[_Slice]], series: str | None) -> list[_Slice]:
    if series in groups:
        return groups[series]
    if series is None and len(groups) == 1:
        return next(iter(groups.values()))
    rows = [_info(slices) for slices in groups.values()]
    words = [f"{row.description or 'no description'}, {row.modality}, {row.n_slices} slices" for row in rows]
    known = "; ".join(f"{row.uid} ({told})" for row, told in zip(rows, words, strict=True))
    options = [(told, {"series": row.uid}) for row, told in zip(rows, words, strict=True)]
    what = f"holds {len(groups)} DICOM series" if series is None else f"has no series {series}"
    raise ChoiceError(f"{folder} {what}; choose one with --series UID: {known}.", options)


def _read_slice(path: Path) -> _Slice | None:
    """Read one file's tags; None if it is no DICOM image."""
    if path.suffix.lower() not in _SUFFIXES and not is_dicom(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_stderr():
            reader.ReadImageInformation()
    except RuntimeError as err:
        if _may_be_a_slice(path):
            raise ReadError(
                f"{path} is a damaged or cut short DICOM image. Copy it again, or move it away if it is no part of the scan."
            ) from err
        logger.debug("%s is no DICOM image", path)
        return None
    slope, intercept = _numbers(reader, "0028|1053"), _numbers(reader, "0028|1052")
    return _Slice(
        path=path,
        uid=_text(reader, "0020|000e"),
        description=_text(reader, "0008|103e"),
        modality=_text(reader, "0008|0060"),
        size=tuple(reader.GetSize()),
        values=reader.GetNumberOfComponents(),
        position=_numbers(reader, "0020|0032"),
        orientation=_numbers(reader, "0020|0037"),
        spacing=_numbers(reader, "0028|0030"),
        rescale=(float(slope[0]) if slope.size else 1.0, float(intercept[0]) if intercept.size else 0.0),
    )


def _may_be_a_slice(path: Path) -> bool:
    """Say whether a file that GDCM cannot read may be a lost slice: not if its head names a class of reports, plans or the like."""
    name = _storage_class(path)
    if not name:
        return is_dicom(path) or path.suffix.lower() != ""
    return name in _SLICE_CLASSES or not name.startswith(b"1.2.840.10008.")


def _storage_class(path: Path) -> bytes:
    """Give the storage class that a file's head names; empty where it names none."""
    with path.open("rb") as file:
        _, found, rest = file.read(4096).partition(_STORAGE_CLASS)
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")].strip(b"\0 ") if found else b""


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    value: str = reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else ""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \0")


def _numbers(reader: sitk.ImageFileReader, tag: str) -> NDArray[np.float64]:
    try:
        return np.array([float(part) for part in _text(reader, tag).split("\\") if part.strip()])
    except ValueError:
        return np.array([])


def _stack(folder: Path, slices: list[_Slice]) -> _Stack:
    """Order slices along their normal; raise unless they make one even stack."""
    _check_alike(folder, slices)
    rows, columns = slices[0].orientation.reshape(2, 3)
    normal = np.cross(rows, columns)
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in ordered])
    along = positions @ normal
    _check_spread(folder, ordered, np.diff(along))
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    uneven = np.linalg.norm(positions - positions[0] - np.arange(len(ordered))[:, None] * step, axis=1).max()
    if uneven > _UNEVEN * np.linalg.norm(step):
        raise ReadError(f"{folder} has slices at uneven distances (up to {uneven:.2f} mm off). Export the series with even slices.")
    notes = []
    if uneven > 0.02 * np.linalg.norm(step):
        notes.append(f"Slices lie up to {uneven:.2f} mm off an even grid.")
    sideways = (len(ordered) - 1) * float(np.linalg.norm(step - (step @ normal) * normal))
    if sideways > _TILTED * slices[0].spacing.min():
        tilt = np.degrees(np.arctan2(sideways, along[-1] - along[0]))
        notes.append(f"The gantry was tilted by {tilt:.1f} degrees; the grid is sheared as the scan is.")
    return _Stack(tuple(ordered), step, tuple(notes))


def _check_alike(folder: Path, slices: list[_Slice]) -> None:
    first = slices[0]
    if any(one.values != 1 for one in slices):
        raise ReadError(f"{folder} holds colour images. Strata needs one intensity per voxel: choose another series.")
    if any(len(one.size) > 2 and one.size[2] > 1 for one in slices):
        raise ReadError(f"{folder} is a multi-frame DICOM, which Strata does not read. Convert it to NIfTI, for example with dcm2niix.")
    if len(slices) < 2:
        raise ReadError(f"{folder} has one slice only. Strata needs a 3D scan: give the folder with the whole series.")
    if any(one.size[:2] != first.size[:2] for one in slices):
        raise ReadError(f"{folder} has slices of different sizes. Export the series again, or choose another one.")
    if any(one.position.size != 3 or one.orientation.size != 6 for one in slices):
        raise ReadError(f"{folder} has images without a position in the patient. Choose a CT or MR series.")
    if any(one.spacing.size != 2 for one in slices):
        raise GeometryError(f"{folder} has images without a pixel spacing. Choose a CT or MR series.")
    check_voxel_size(str(folder), first.spacing)
    if any(not np.allclose(one.spacing, first.spacing, rtol=_SAME_SPACING, atol=0) for one in slices):
        raise ReadError(f"{folder} has slices of different pixel spacings. Export the series again, or choose another one.")
    if any(np.abs(one.orientation - first.orientation).max() > 1e-3 for one in slices):
        raise ReadError(f"{folder} has slices that are not parallel, like a localizer. Choose a series with one stack of slices.")
    check_shape(str(folder), (*first.size[:2], len(slices)))


def _check_spread(folder: Path, ordered: list[_Slice], steps_mm: NDArray[np.float64]) -> None:
    doubled = int((steps_mm < _SAME_PLACE_MM).sum())
    if doubled:
        raise ReadError(
            f"{folder} has {doubled} slices where another slice lies (several phases, echoes or copies in one series). "
            "Split the series, or convert it to a 4D NIfTI and choose a volume."
        )
    usual = float(np.sort(steps_mm)[(len(steps_mm) - 1) // 2])
    wide = np.flatnonzero(steps_mm > _GAP * usual)
    if wide.size:
        at = int(wide[0])
        missing = sum(max(1, round(float(step) / usual) - 1) for step in steps_mm[wide])
        raise ReadError(
            f"{folder} lacks {missing} {'slice' if missing == 1 else 'slices'}: between {ordered[at].path.name} and "
            f"{ordered[at + 1].path.name} lie {steps_mm[at]:.2f} mm, elsewhere {usual:.2f} mm. Copy the whole series again."
        )


def _read_pixels(folder: Path, stack: _Stack) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(one.path) for one in stack.slices])
    if len({one.rescale for one in stack.slices}) > 1:
        # ITK takes the voxel type of the first slice for all, and would round the others.
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        with quiet_stderr():
            return reader.Execute()
    except RuntimeError as err:
        raise ReadError(f"{folder} has a slice that is damaged or of an unknown compression. Copy the series again.") from err


def _compact(data: NDArray[np.generic]) -> NDArray[np.generic]:
    """Undo the wide types that ITK takes for a rescaled series, where no value changes (float32 for fractions)."""
    if data.dtype == np.float64:
        return data.astype(np.float32)
    limits = np.iinfo(np.int16)
    if data.dtype == np.int32 and limits.min <= data.min() and data.max() <= limits.max:
        return data.astype(np.int16)
    return data


def _affine(image: sitk.Image, stack: _Stack) -> NDArray[np.float64]:
    """Give ITK's affine where it puts the slices where the files say, else (tilted gantry) the files' own.

    Positions are rounded in the files: what is far less than a voxel at the last slice is no tilt.
    """
    first = stack.slices[0]
    by_itk = affine_ras(np.array(image.GetOrigin()), np.array(image.GetSpacing()), np.array(image.GetDirection()).reshape(3, 3))
    rows, columns = first.orientation.reshape(2, 3)
    axes = np.column_stack([rows * first.spacing[1], columns * first.spacing[0], stack.step])
    by_files = affine_ras(first.position, np.ones(3), axes)
    far = np.array([*(n - 1 for n in image.GetSize()), 1.0])
    apart = max(np.linalg.norm((by_itk - by_files)[:3] @ corner) for corner in (far, np.array([0.0, 0, 0, 1])))
    return by_itk if apart <= _TILTED * first.spacing.min() else by_files
