"""Which scans a batch is about, and a unique id for each."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_strata.batch import bids
from napari_strata.batch.lists import LIST_SUFFIXES, Row, read_list
from napari_strata.batch.scans import PlannedScan, planned
from napari_strata.errors import ReadError, WriteError
from napari_strata.export.outputs import outputs_beside, read_sidecar
from napari_strata.io.atomic import file_suffix
from napari_strata.io.dicom import is_dicom
from napari_strata.io.files import SCAN_SUFFIXES, list_series
from napari_strata.io.hashing import check_regular

__all__ = ["PlannedScan", "plan_scans"]

_DICOM_SUFFIXES = (".dcm", ".ima")
_LONGEST_ID = 120
"""In bytes. File systems take names of 255; DICOM trees have folders of 64 characters in folders of 64."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A scan without its id: the last `depth` of `words` name it, and more of them if they have to."""

    path: Path
    series: str | None
    words: tuple[str, ...]
    depth: int
    row: Row | None = None

    def name(self, more: int = 0) -> str:
        """Give the last words as one; folders that the file's own name repeats (sub-01/sub-01_T1w) are left out."""
        *folders, last = self.words[-self.depth - more :]
        said = last.split("_")
        words = [*(word for word in folders if word not in said), last]
        return re.sub(r"[^\w.+-]+", "_", "_".join(words)).strip("._") or "scan"

    def mark(self) -> str:
        return hashlib.sha256(f"{self.path}|{self.series}".encode()).hexdigest()[:6]

    def key(self) -> tuple[Path, str | None, int | None, str]:
        """Say which scan it is, however it was given; in a list one scan may stand twice under two ids."""
        index, name = (None, "") if self.row is None else (self.row.index, self.row.id)
        return self.path.resolve(), self.series, index, name

    def plan(self, name: str) -> PlannedScan:
        """Make the scan of the batch: what the list says, over what the path says."""
        scan = planned(name, self.path, self.series)
        if self.row is None:
            return scan
        return replace(
            scan,
            index=self.row.index,
            modality=self.row.modality,
            reference=self.row.reference,
            codebook=self.row.codebook,
            replay=self.row.replay,
            subject=self.row.subject or scan.subject,
            session=self.row.session or scan.session,
        )


def plan_scans(inputs: Sequence[str | Path], *, leave_out: Path | None = None) -> tuple[PlannedScan, ...]:
    """Find the scans of a batch.

    Parameters
    ----------
    inputs : sequence of str or Path
        Files, folders, globs ("**" goes into folders) and lists (CSV, see `read_list`). A folder, or one that a glob finds,
        is searched for scan files and DICOM series; hidden files and labels that Strata wrote are passed over. Of a BIDS
        data set the structural images are taken. A DICOM file stands for its folder.
    leave_out : Path, optional
        A folder that is not searched: the batch's own outputs.

    Returns
    -------
    tuple of PlannedScan
        Each scan once, in the order of the inputs; a list may name one twice, under two ids, and goes before a search. An id
        is the list's, the name in a BIDS data set, or the path below the folder or glob that was given; where two scans would
        share one, more of the path is added, or a mark made from it.

    Raises
    ------
    ReadError
        If an input does not exist, holds no scan, or is no list that can be read.
    WriteError
        If `leave_out` lies in a DICOM folder, whose every file counts when it is known again.
    """
    outputs = None if leave_out is None else _plain(leave_out)
    found: dict[tuple[Path, str | None, int | None, str], _Found] = {}
    for given in inputs:
        scans = list(_listed(_plain(given)) if _is_list(given) else _searched(str(given), outputs))
        if not scans:
            raise ReadError(f"There is no scan in {given}. Give scan files, folders that hold some, or a glob in quotes.")
        for one in scans:
            found.setdefault(one.key(), one)
    listed = {key[:2] for key, one in found.items() if one.row is not None}
    rows = [one for key, one in found.items() if one.row is not None or key[:2] not in listed]
    return tuple(row.plan(name) for name, row in zip(_unique_names(rows), rows, strict=True))


def _is_list(given: str | Path) -> bool:
    return Path(given).suffix.lower() in LIST_SUFFIXES and Path(given).is_file()


def _listed(path: Path) -> Iterator[_Found]:
    for row in read_list(path):
        name = row.id or row.path.name[: len(row.path.name) - len(file_suffix(row.path))]
        words = (*row.path.parent.parts[1:], name) if not row.id else (row.id,)
        yield _Found(row.path, row.series, words, 1, row)


def _searched(given: str, outputs: Path | None) -> Iterator[_Found]:
    places: dict[Path, Path] = {}
    for place, base in _places(given, outputs):
        places.setdefault(place, base)
    for place, base in places.items():
        yield from _scans_at(place, base, outputs)


def _plain(path: str | Path) -> Path:
    """Give the absolute path, with links as they are."""
    return Path(os.path.abspath(path))


def _places(given: str, outputs: Path | None) -> Iterator[tuple[Path, Path]]:
    """Give scan files and DICOM folders, each with the folder from which its name counts."""
    path = _plain(given)
    if path.is_dir():
        yield from ((place, path) for place in _in_folder(path, outputs))
    elif path.exists():
        check_regular(path)
        yield _place(path), path.parent
    elif glob.has_magic(given):
        base = _plain(Path(*_fixed_parts(given)))
        for match in sorted(_plain(text) for text in glob.iglob(given, recursive=True)):
            if match.is_dir():
                yield from ((place, base) for place in _in_folder(match, outputs))
            elif _is_scan(match) and not _within(match, outputs):
                yield _place(match), base
    else:
        raise ReadError(f"There is no file or folder {given}. Check the path.")


def _fixed_parts(pattern: str) -> list[str]:
    """Give the parts of a glob before the first that stands for several names."""
    parts = Path(pattern).parts
    first = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    return list(parts[:first])


def _in_folder(folder: Path, outputs: Path | None) -> Iterator[Path]:
    """Search a folder and all below it, in order of name."""
    if _within(folder, outputs):
        return
    if bids.is_dataset(folder):
        yield from bids.scans_in(folder)
        return
    for here, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith(".") and Path(here, name) != outputs)
        for name in sorted(names):
            if _is_scan(Path(here, name)):
                yield _place(Path(here, name))


def _place(file: Path) -> Path:
    """Give where the scan of a file is: a slice's folder, the header of a pair, else the file itself."""
    if _is_slice(file):
        return file.parent
    header = file.with_suffix(".hdr")
    return header if file_suffix(file) == ".img" and header.exists() else file


def _scans_at(place: Path, base: Path, outputs: Path | None) -> Iterator[_Found]:
    """Give the scan of a file, or one per series of a DICOM folder; a folder that cannot be listed fails later, with its reason."""
    depth = 1 if bids.name_of(place) else max(1, len(place.relative_to(base).parts))
    if not place.is_dir():
        stem = place.name[: len(place.name) - len(file_suffix(place))]
        yield _Found(place, None, (*place.parent.parts[1:], stem), depth)
        return
    if _within(outputs, place):
        raise WriteError(f"The output folder {outputs} lies in the DICOM folder {place}. Choose one elsewhere.")
    words = place.parts[1:]
    try:
        series = sorted(list_series(place), key=lambda one: one.uid)
    except ReadError:
        yield _Found(place, None, words, depth)
        return
    for one in series:
        label = () if len(series) == 1 else (one.description or one.modality or "series",)
        yield _Found(place, one.uid, (*words, *label), depth + len(label))


def _is_scan(path: Path) -> bool:
    """Say whether a file looks like a scan; pipes, sockets and devices do not, a link to nowhere may, and fails with its reason."""
    if path.name.startswith(".") or (path.exists() and not path.is_file()):
        return False
    return _is_slice(path) or (file_suffix(path) in SCAN_SUFFIXES and not _is_ours(path))


def _is_slice(path: Path) -> bool:
    """Say whether a file is part of a DICOM series; DICOMDIR, a table of contents, carries the mark but is none."""
    if path.name.upper() == "DICOMDIR" or file_suffix(path) in SCAN_SUFFIXES:
        return False
    return file_suffix(path) in _DICOM_SUFFIXES or is_dicom(path)


def _is_ours(path: Path) -> bool:
    """Say whether a file is labels that Strata wrote."""
    document = read_sidecar(outputs_beside(path).sidecar)
    return document is not None and document.get("labels") == path.name


def _within(path: Path | None, folder: Path | None) -> bool:
    return path is not None and folder is not None and path.is_relative_to(folder)


def _unique_names(found: list[_Found]) -> list[str]:
    names = [one.name() for one in found]
    for group in _alike(names):
        longest = max(len(found[k].words) for k in group)
        for more in range(1, longest):
            tried = [found[k].name(more) for k in group]
            if not _alike(tried):
                break
        else:
            tried = [f"{names[k]}-{found[k].mark()}" for k in group]
        for k, name in zip(group, tried, strict=True):
            names[k] = name
    for group in _alike(names):  # a longer name may be another scan's short one
        for k in group:
            names[k] += f"-{found[k].mark()}"
    return [_short(name, one.mark()) for name, one in zip(names, found, strict=True)]


def _short(name: str, mark: str) -> str:
    """Keep the end of a name that is too long for a file's, which tells most, with a mark made from the whole."""
    plain = name.encode()
    if len(plain) <= _LONGEST_ID:
        return name
    return plain[-_LONGEST_ID:].decode(errors="ignore").lstrip("._-") + f"-{mark}"


def _alike(names: list[str]) -> list[list[int]]:
    """Give the places of names that one file system or another takes for the same."""
    places: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        places.setdefault(name.casefold(), []).append(k)
    return [group for group in places.values() if len(group) > 1]
