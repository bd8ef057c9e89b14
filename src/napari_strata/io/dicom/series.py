"""DICOM series: which files make one, in which order, and whether they are one even stack.

Every file's own header is read and checked before the voxels are: the values of a slice
and its place are right, or the series is refused by the name of the slice. Headers come
through pydicom, voxels as `dicom_pixels` tells.
"""

from __future__ import annotations

import filecmp
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, GeometryError, ReadError
from napari_strata.io.dicom.pixels import named, read_voxels, same_voxels
from napari_strata.io.dicom.slice import (
    SKEW,
    Aside,
    HeaderError,
    Slice,
    class_name,
    head_of,
    is_dicom,
    is_segmentation,
    is_system_file,
    off_right_angles,
    read_slice,
    straight_axes,
)
from napari_strata.io.grid import FileImage, check_shape, check_voxel_size, make_grid
from napari_strata.io.itk import affine_ras
from napari_strata.io.modality import guess_modality
from napari_strata.volume import Modality

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

_MODALITIES: dict[str, Modality] = {"CT": "ct", "MR": "mr"}
_SUFFIXES = (".dcm", ".ima")
_GREY = ("", "MONOCHROME1", "MONOCHROME2")
_HU = ("", "HU", "HU_MOD", "US")
"""Rescale types that leave a CT in HU; "US" (unspecified) is what ITK writes beside its own."""
_SAME_PLACE_MM = 1e-3
_SAME_SPACING = 1e-3
_GAP = 1.5
_UNEVEN = 0.25
_TILTED = 0.1
_UNSHIFTED_WATER, _WATER, _AIR_AT_MOST = (900, 1200), (-150, 150), -150
"""Stored values of soft tissue where 1024 stands for 0 HU.

Soft tissue in HU; no CT with air around has all voxels above this.
"""
_SAMPLES = 200_000
_ROUNDED = 0.002
"""How far directions may be from one long and at right angles without a word."""
_DIGITS = re.compile(r"\d+")


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
class _Stack:
    """Slices of one series in order along their common normal.

    The step from one to the next (LPS mm).
    """

    slices: tuple[Slice, ...]
    step: NDArray[np.float64]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Study:
    """The series below a folder, most slices first, and the notes on what was left out."""

    series: dict[str, list[Slice]]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _FoundSeries:
    """What a search has come across: slices, other DICOM objects, and files that are no DICOM.

    Texts and files of the operating system have a DICOM ending, other files do not.
    Damaged files and copies are hidden ones, as a copying program that was stopped
    leaves them.
    """

    series: dict[str, list[Slice]] = field(default_factory=dict)
    asides: list[Aside] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    system: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    copies: list[Path] = field(default_factory=list)
    doubles: list[Path] = field(default_factory=list)


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
    return tuple(one.path for one in series_slices(path, series))


def series_slices(path: str | Path, series: str | None = None) -> tuple[Slice, ...]:
    """Give what the files of a series say of themselves, in the order of `series_files`.

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

    If the folder itself holds none, those in its subfolders.

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
    return tuple(_info(slices) for slices in _study(Path(folder)).series.values())


def dicom_shape(path: Path, series: str | None) -> tuple[int, ...]:
    """Give the columns, rows and slices of a series, from the headers of its slices.

    Raises what `read_dicom` does for bad ones.
    """
    folder = path if path.is_dir() else path.parent
    asked = series or (None if path.is_dir() else _only(path).uid)
    slices = _chosen(folder, _study(folder), asked)
    _check_alike(folder, slices)
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
    modality, meaning = _meaning(stack.slices, read.data)
    data = read.data.transpose(2, 1, 0)
    columns, rows, n = data.shape
    grid = make_grid(str(folder), "itk", (columns, rows, n), _affine(stack), suffix="")
    return FileImage(data, grid, modality, (*stack.notes, *read.notes, *meaning))


def _find_stack(path: Path, series: str | None) -> _Stack:
    """Find the series that a folder, a file or a UID means, and put its slices in order."""
    folder = path if path.is_dir() else path.parent
    asked = series
    one = None if path.is_dir() else _only(path)
    if one is not None:
        asked = series or one.uid
    study = _study(folder)
    if one is not None and one.is_aside and asked not in study.series:
        raise ReadError(
            f"{path} is no image of a scan ({class_name(one.storage_class)}). Give the"
            " folder of the series."
        )
    slices = _chosen(folder, study, asked)
    notes = (*study.notes, *_left_below(folder, slices))
    stack = _stack(folder, slices)
    return _Stack(stack.slices, stack.step, (*notes, *stack.notes))


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


def _study(folder: Path) -> _Study:
    """Find the series directly in a folder, or below it if there is none."""
    if not folder.is_dir():
        raise ReadError(
            f"{folder} is not a folder. Give the folder that holds the DICOM series."
        )
    found = _FoundSeries()
    try:
        here = sorted(entry for entry in folder.iterdir() if entry.is_file())
        _search(here, found)
        if not any(
            len(slices) > 1 for slices in found.series.values()
        ) or not _has_scan(found):
            _search(_files_below(folder), found)
    except OSError as err:
        raise ReadError(
            f"Cannot list {folder}: {err.strerror}. Check that you may read it."
        ) from err
    _leave_hidden_copies(found)
    _leave_copies(found)
    _check_nothing_lost(found)
    if not found.series:
        what = ", ".join(sorted({aside.kind for aside in found.asides}))
        more = f" (only {what})" if what else ""
        raise ReadError(
            f"{folder} holds no DICOM images{more}. Give the folder of a series, or the"
            " path of a scan file."
        )
    if _has_scan(found):
        for uid in [
            uid
            for uid, slices in found.series.items()
            if all(one.is_aside for one in slices)
        ]:
            found.asides += [
                Aside(one.path, class_name(one.storage_class))
                for one in found.series.pop(uid)
            ]
    return _Study(
        dict(sorted(found.series.items(), key=lambda item: (-len(item[1]), item[0]))),
        _left_out(found),
    )


def _files_below(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.rglob("*")
        if entry.parent != folder and entry.is_file()
    )


def _has_scan(found: _FoundSeries) -> bool:
    return any(not one.is_aside for slices in found.series.values() for one in slices)


def _search(files: Iterable[Path], found: _FoundSeries) -> None:
    """Sort files into slices of series and what is none.

    Raises
    ------
    ReadError
        If a file may be a lost slice.
    """
    for file in files:
        if file.name.upper() == "DICOMDIR":
            continue
        head, claims = head_of(file), file.suffix.lower() in _SUFFIXES
        if is_system_file(file, head):
            if claims:
                found.system.append(file)
            continue
        sure = is_dicom(file)
        if not (sure or claims):
            found.others.append(file)
            continue
        try:
            one = read_slice(file, sure=sure)
        except HeaderError as err:
            if file.name.startswith("."):
                found.damaged.append(file)
            elif sure or not _is_text(head):
                raise ReadError(
                    f"{file} is"
                    f" {'an empty file' if not head else 'a damaged or cut short DICOM image'}."
                    " Copy it again, or move it away if it is no part of the scan."
                ) from err
            else:
                found.texts.append(file)
        else:
            if isinstance(one, Aside):
                found.asides.append(one)
            else:
                found.series.setdefault(one.uid, []).append(one)


def _leave_hidden_copies(found: _FoundSeries) -> None:
    """Leave out hidden files of what is there unhidden too.

    Raises
    ------
    ReadError
        If a hidden file is damaged and may be a lost slice.
    """
    for slices in found.series.values():
        plain = {one.instance for one in slices if not one.path.name.startswith(".")}
        hidden = [
            one
            for one in slices
            if one.path.name.startswith(".") and one.instance in plain
        ]
        found.copies += [one.path for one in hidden]
        slices[:] = [one for one in slices if one not in hidden]
    names = [one.path.name for slices in found.series.values() for one in slices]
    for path in found.damaged:
        if not any(name in path.name for name in names):
            raise ReadError(
                f"{path} is a damaged or cut short DICOM image. Copy it again, or move"
                " it away if it is no part of the scan."
            )


def _leave_copies(found: _FoundSeries) -> None:
    """Leave out a slice that is there twice.

    The same SOPInstanceUID, place and voxels under another name.
    """
    for slices in found.series.values():
        first: dict[str, Slice] = {}
        kept = []
        for one in slices:
            original = first.setdefault(one.instance or str(one.path), one)
            if original is not one and _is_copy(one, original):
                found.doubles.append(one.path)
            else:
                kept.append(one)
        slices[:] = kept


def _is_copy(one: Slice, other: Slice) -> bool:
    same_place = all(
        np.array_equal(ours, theirs)
        for ours, theirs in (
            (one.position, other.position),
            (one.orientation, other.orientation),
            (one.spacing, other.spacing),
        )
    )
    if not same_place or one.rescale != other.rescale or one.faults or other.faults:
        return False
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    is_plain = {one.frames, other.frames, one.samples, other.samples} == {
        1
    } and not one.rescale.table
    return is_plain and same_voxels(one, other)


def _is_text(head: bytes) -> bool:
    return bool(head) and not any(byte < 9 or 13 < byte < 27 for byte in head)


def _check_nothing_lost(found: _FoundSeries) -> None:
    """Refuse a file that is no DICOM but is named like the slices beside it: a lost slice.

    Raises
    ------
    ReadError
        If there is one.
    """
    slices = [one.path for group in found.series.values() for one in group]
    names = Counter(
        (path.parent, _DIGITS.sub("#", path.name))
        for path in slices
        if _DIGITS.search(path.name)
    )
    for path in (*found.texts, *found.others):
        if names[path.parent, _DIGITS.sub("#", path.name)] > 1:
            raise ReadError(
                f"{path} is named like the slices beside it, but is no DICOM file: it"
                " is damaged or empty. Copy it again, or move it away if it is no part"
                " of the scan."
            )


def _left_out(found: _FoundSeries) -> tuple[str, ...]:
    notes = []
    for kind in sorted({aside.kind for aside in found.asides}):
        paths = [aside.path for aside in found.asides if aside.kind == kind]
        notes.append(f"Left out, as no image of a scan: {named(paths)} ({kind}).")
    if found.texts:
        notes.append(f"Left out, as text: {named(found.texts)}.")
    hidden = [*found.copies, *found.damaged]
    if hidden:
        notes.append(f"Left out, as hidden copies of other slices: {named(hidden)}.")
    if found.doubles:
        notes.append(f"Left out, as copies of other slices: {named(found.doubles)}.")
    if found.system:
        notes.append(
            f"Left out, as files of the operating system: {named(found.system)}."
        )
    return tuple(notes)


def _left_below(folder: Path, slices: Sequence[Slice]) -> tuple[str, ...]:
    """Tell of images of a series in subfolders.

    Where only those in the folder itself were taken.
    """
    if any(one.path.parent != folder for one in slices):
        return ()
    more = 0
    for file in _files_below(folder):
        if file.suffix.lower() in _SUFFIXES or is_dicom(file):
            try:
                one = read_slice(file, sure=False)
            except (HeaderError, OSError):
                continue
            more += isinstance(one, Slice) and one.uid == slices[0].uid
    return (
        (f"Subfolders hold {more} more images of this series, which were not read.",)
        if more
        else ()
    )


def _info(slices: list[Slice]) -> SeriesInfo:
    return SeriesInfo(
        slices[0].uid, slices[0].description, slices[0].modality, len(slices)
    )


def _chosen(folder: Path, study: _Study, series: str | None) -> list[Slice]:
    groups = study.series
    if series in groups:
        return groups[series]
    if series is None and len(groups) == 1:
        return next(iter(groups.values()))
    rows = [_info(slices) for slices in groups.values()]
    words = [
        f"{row.description or 'no description'}, {row.modality}, {row.n_slices} slices"
        for row in rows
    ]
    known = "; ".join(
        f"{row.uid} ({told})" for row, told in zip(rows, words, strict=True)
    )
    options = [
        (told, {"series": row.uid}) for row, told in zip(rows, words, strict=True)
    ]
    what = (
        f"holds {len(groups)} DICOM series"
        if series is None
        else f"has no series {series}"
    )
    raise ChoiceError(
        f"{folder} {what}; choose one with --series UID: {known}.", options
    )


def _stack(folder: Path, slices: list[Slice]) -> _Stack:
    """Order slices along their normal; raise unless they make one even stack."""
    _check_alike(folder, slices)
    _check_place(folder, slices)
    _check_rescale(slices)
    normal = straight_axes(slices[0].orientation)[:, 2]
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in ordered])
    along = positions @ normal
    _check_spread(folder, ordered, np.diff(along))
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    uneven = np.linalg.norm(
        positions - positions[0] - np.arange(len(ordered))[:, None] * step, axis=1
    ).max()
    if uneven > _UNEVEN * np.linalg.norm(step):
        raise ReadError(
            f"{folder} has slices at uneven distances (up to {uneven:.2f} mm off)."
            " Export the series with even slices."
        )
    notes = []
    rounded = off_right_angles(slices[0].orientation)
    if rounded > _ROUNDED:
        notes.append(
            f"Directions of rows and columns are rounded (by {rounded:.2g}); they were"
            " made one long and at right angles."
        )
    if uneven > 0.02 * np.linalg.norm(step):
        notes.append(f"Slices lie up to {uneven:.2f} mm off an even grid.")
    sideways = (len(ordered) - 1) * float(
        np.linalg.norm(step - (step @ normal) * normal)
    )
    if sideways > _TILTED * slices[0].spacing.min():
        tilt = np.degrees(np.arctan2(sideways, along[-1] - along[0]))
        notes.append(
            f"The gantry was tilted by {tilt:.1f} degrees; the grid is sheared as the"
            " scan is."
        )
    return _Stack(tuple(ordered), step, tuple(notes))


def _check_alike(folder: Path, slices: list[Slice]) -> None:
    """Refuse what is no series of grey images of one size, by the name of the slice."""
    for one in slices:
        if one.samples != 1 or one.pixels.photometric not in _GREY:
            raise ReadError(
                f"{one.path} is a colour image"
                f" ({one.pixels.photometric or 'several values per voxel'}). Strata"
                " needs one intensity per voxel: choose another series."
            )
        if one.frames > 1:
            raise ReadError(
                f"{one.path} is a multi-frame DICOM ({one.frames} frames), which Strata"
                " does not read. Convert it to NIfTI, for example with dcm2niix."
            )
        if one.faults:
            raise ReadError(f"{one.path} {one.faults[0]}.")
    if len(slices) < 2:
        raise ReadError(
            f"{folder} has one slice only. Strata needs a 3D scan: give the folder with"
            " the whole series."
        )
    pixels = slices[0].pixels
    odd = _odd(slices, lambda one: (one.pixels.rows, one.pixels.columns))
    if odd is not None:
        size = f"{odd.pixels.rows} rows and {odd.pixels.columns} columns"
        raise ReadError(
            f"{folder} has slices of different sizes: {odd.path.name} has {size}."
            " Export the series again, or choose another one."
        )
    check_shape(str(folder), (pixels.columns, pixels.rows, len(slices)))


def _check_place(folder: Path, slices: list[Slice]) -> None:
    """Refuse slices that do not say where they lie, or lie askew to each other."""
    for one in slices:
        if not (one.position.size and one.orientation.size):
            raise ReadError(
                f"{folder} has images without a position in the patient"
                f" ({one.path.name}). Choose a CT or MR series."
            )
        if not one.spacing.size:
            raise GeometryError(
                f"{folder} has images without a pixel spacing ({one.path.name}). Choose"
                " a CT or MR series."
            )
        check_voxel_size(str(one.path), one.spacing)
        if off_right_angles(one.orientation) > SKEW:
            raise GeometryError(
                f"{one.path} has directions of rows and columns that are not at right"
                " angles. Repair its header."
            )
    first = slices[0]
    if any(
        not np.allclose(one.spacing, first.spacing, rtol=_SAME_SPACING, atol=0)
        for one in slices
    ):
        odd = _odd(slices, lambda one: one.spacing.round(3).tobytes()) or first
        size = " x ".join(f"{part:g}" for part in odd.spacing)
        raise ReadError(
            f"{folder} has slices of different pixel spacings: {odd.path.name} has"
            f" {size} mm. Export the series again, or choose another one."
        )
    if any(np.abs(one.orientation - first.orientation).max() > 1e-3 for one in slices):
        odd = _odd(slices, lambda one: one.orientation.round(2).tobytes()) or first
        raise ReadError(
            f"{folder} has slices that are not parallel, like a localizer"
            f" ({odd.path.name}). Choose a series with one stack of slices."
        )


def _odd(slices: Sequence[Slice], key: Callable[[Slice], Hashable]) -> Slice | None:
    """Give the first slice that is unlike most."""
    usual = Counter(map(key, slices)).most_common(1)[0][0]
    return next((one for one in slices if key(one) != usual), None)


def _check_rescale(slices: list[Slice]) -> None:
    """Refuse a CT some of whose slices do not say how to get HU while others do.

    They would be off by the offset.
    """
    without = [one for one in slices if not one.rescale.is_given]
    differ = any(not one.rescale.is_identity for one in slices)
    if (
        without
        and differ
        and len(without) < len(slices)
        and any(one.modality == "CT" for one in slices)
    ):
        raise ReadError(
            f"{without[0].path.parent} has {len(without)} of {len(slices)} slices"
            " without the rescale to Hounsfield units that the others have"
            f" ({named([one.path for one in without])}): their values are unknown."
            " Export the series again."
        )


def _check_spread(
    folder: Path, ordered: list[Slice], steps_mm: NDArray[np.float64]
) -> None:
    doubled = np.flatnonzero(steps_mm < _SAME_PLACE_MM)
    if doubled.size:
        at = int(doubled[0])
        raise ReadError(
            f"{folder} has {doubled.size} {'slice' if doubled.size == 1 else 'slices'}"
            f" where another slice lies, such as {ordered[at].path.name} and"
            f" {ordered[at + 1].path.name} (several phases, echoes or copies in one"
            " series). Split the series, or convert it to a 4D NIfTI and choose a"
            " volume."
        )
    usual = float(np.sort(steps_mm)[(len(steps_mm) - 1) // 2])
    wide = np.flatnonzero(steps_mm > _GAP * usual)
    if wide.size:
        at = int(wide[0])
        missing = sum(max(1, round(float(step) / usual) - 1) for step in steps_mm[wide])
        raise ReadError(
            f"{folder} lacks {missing} {'slice' if missing == 1 else 'slices'}: between"
            f" {ordered[at].path.name} and {ordered[at + 1].path.name} lie"
            f" {steps_mm[at]:.2f} mm, elsewhere {usual:.2f} mm. Copy the whole series"
            " again."
        )


def _meaning(
    slices: Sequence[Slice], data: NDArray[np.generic]
) -> tuple[Modality | None, list[str]]:
    """Say what the values are, and what a person should know about them."""
    notes = []
    inverted = [one.path for one in slices if one.pixels.photometric == "MONOCHROME1"]
    if inverted:
        which = (
            "Slices are"
            if len(inverted) == len(slices)
            else f"{named(inverted)} {'is' if len(inverted) == 1 else 'are'}"
        )
        notes.append(
            f"{which} meant to be shown inverted (MONOCHROME1); values are as stored."
        )
    modalities = sorted({one.modality for one in slices})
    if len(modalities) > 1:
        notes.append(f"Slices are of different modalities ({', '.join(modalities)}).")
        return None, notes
    modality = _MODALITIES.get(modalities[0])
    without = [one.path for one in slices if not one.rescale.is_given]
    if modality != "ct":
        if (
            without
            and len(without) < len(slices)
            and any(not one.rescale.is_identity for one in slices)
        ):
            notes.append(
                f"{named(without)} {'has' if len(without) == 1 else 'have'} no rescale,"
                " which other slices have; values are as stored."
            )
        return modality, notes
    kinds = sorted({one.rescale.kind for one in slices} - set(_HU))
    if kinds:
        notes.append(
            f"The header says that values are {', '.join(kinds)}, not Hounsfield units."
        )
        return guess_modality(data), notes
    if not without:
        if all(one.rescale.is_identity for one in slices) and _is_unshifted(data):
            notes.append(
                "Values are no Hounsfield units, though the header says so: soft tissue"
                " lies near 1024, air near 0."
            )
            return guess_modality(data), notes
        return modality, notes
    guess = guess_modality(data)
    end = (
        "look like it and are taken for that"
        if guess == "ct"
        else "are taken as stored, and are no Hounsfield units"
    )
    notes.append(
        f"This CT does not say how to rescale to Hounsfield units; its values {end}."
    )
    return guess, notes


def _is_unshifted(data: NDArray[np.generic]) -> bool:
    """Say whether a CT is stored without its offset.

    No air below zero, and soft tissue near 1024 rather than near 0.
    """
    flat = data.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLES)]
    if sample.min() < _AIR_AT_MOST:
        return False
    inside = sample[sample > sample.min()]
    unshifted, plain = (
        np.count_nonzero((inside >= low) & (inside <= high))
        for low, high in (_UNSHIFTED_WATER, _WATER)
    )
    return unshifted > max(plain, inside.size // 20)


def _affine(stack: _Stack) -> NDArray[np.float64]:
    """Give a grid of right angles where that puts the slices where the files say, else.

    (tilted gantry) the files' own.

    Positions are rounded in the files: what is far less than a voxel at the last slice
    is no tilt.
    """
    first = stack.slices[0]
    straight = straight_axes(first.orientation)  # headers round directions
    spacing = np.array([first.spacing[1], first.spacing[0], np.linalg.norm(stack.step)])
    by_angles = affine_ras(first.position, spacing, straight)
    by_files = affine_ras(
        first.position,
        np.ones(3),
        np.column_stack(
            [straight[:, 0] * spacing[0], straight[:, 1] * spacing[1], stack.step]
        ),
    )
    far = np.array(
        [first.pixels.columns - 1, first.pixels.rows - 1, len(stack.slices) - 1, 1.0]
    )
    apart = max(
        np.linalg.norm((by_angles - by_files)[:3] @ corner)
        for corner in (far, np.array([0.0, 0, 0, 1]))
    )
    return by_angles if apart <= _TILTED * first.spacing.min() else by_files
