"""Search a folder for DICOM series, and note every file that is left out."""

from __future__ import annotations

import filecmp
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_strata.errors import ReadError
from napari_strata.io.dicom.file_head import head_of, is_dicom, is_system_file
from napari_strata.io.dicom.pixels import named, same_voxels
from napari_strata.io.dicom.slice import (
    Aside,
    HeaderError,
    Slice,
    class_name,
    read_slice,
)

_SUFFIXES = (".dcm", ".ima")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class FolderSeries:
    """The series below a folder, most slices first, and the notes on what was left out."""

    series: dict[str, list[Slice]]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _SearchResult:
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


def find_series(folder: Path) -> FolderSeries:
    """Find the series directly in a folder, or below it if there is none."""
    if not folder.is_dir():
        raise ReadError(
            f"{folder} is not a folder. Give the folder that holds the DICOM series."
        )
    found = _SearchResult()
    try:
        here = sorted(entry for entry in folder.iterdir() if entry.is_file())
        _classify_files(here, found)
        if not any(
            len(slices) > 1 for slices in found.series.values()
        ) or not _has_scan(found):
            _classify_files(_files_below(folder), found)
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
    return FolderSeries(
        dict(sorted(found.series.items(), key=lambda item: (-len(item[1]), item[0]))),
        _left_out_notes(found),
    )


def _files_below(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.rglob("*")
        if entry.parent != folder and entry.is_file()
    )


def _has_scan(found: _SearchResult) -> bool:
    return any(not one.is_aside for slices in found.series.values() for one in slices)


def _classify_files(files: Iterable[Path], found: _SearchResult) -> None:
    """Sort files into slices of series and other files.

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


def _leave_hidden_copies(found: _SearchResult) -> None:
    """Leave out hidden files that are copies of visible ones.

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


def _leave_copies(found: _SearchResult) -> None:
    """Leave out copies of a slice: the same UID, position and voxels, another file name."""
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


def _check_nothing_lost(found: _SearchResult) -> None:
    """Refuse a file that is not DICOM but is named like the slices: a damaged slice.

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


def _left_out_notes(found: _SearchResult) -> tuple[str, ...]:
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


def notes_on_subfolders(folder: Path, slices: Sequence[Slice]) -> tuple[str, ...]:
    """Return a note on images of the series in subfolders that were not read.

    Empty if images of subfolders were read.
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
