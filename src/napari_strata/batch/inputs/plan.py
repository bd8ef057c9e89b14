"""Plan of a batch: its scans with unique ids, and what is skipped."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_strata.batch.inputs import bids
from napari_strata.batch.inputs.discovery import Search, SkippedPath, place_of
from napari_strata.batch.inputs.lists import LIST_SUFFIXES, ListRow, read_list
from napari_strata.batch.inputs.scans import PlannedScan, planned
from napari_strata.errors import ReadError, WriteError
from napari_strata.filenames import name_bytes, printable
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import list_series
from napari_strata.io.hashing import check_regular

__all__ = ["Plan", "PlannedScan", "SkippedPath", "plan_batch", "plan_scans"]

logger = logging.getLogger(__name__)

_Key = tuple[Path, tuple[str | None, str | None], int | None, str]
_LONGEST_ID = 120
"""Bytes of an id. File systems allow names of 255; DICOM trees nest names of 64."""


@dataclass(frozen=True, slots=True)
class _FoundScan:
    """A scan without its id.

    It is named by the last `depth` words of `words`, or by more of them if other scans
    have the same name.
    """

    path: Path
    series: str | None
    words: tuple[str, ...]
    depth: int
    row: ListRow | None = None
    bids_name: bids.BidsName | None = None

    def name(self, more: int = 0) -> str:
        """Return the last words as one name.

        Folders that the file's own name repeats (sub-01/sub-01_T1w) are left out.
        """
        *folders, last = self.words[-self.depth - more :]
        own_words = last.split("_")
        words = [*(word for word in folders if word not in own_words), last]
        return re.sub(r"[^\w.+-]+", "_", "_".join(words)).strip("._") or "scan"

    def mark(self) -> str:
        return hashlib.sha256(name_bytes(f"{self.path}|{self.series}")).hexdigest()[:6]

    def key(self) -> _Key:
        """Return what identifies a scan, however it was named.

        A list may hold one scan under two ids. In a BIDS data set two names are two
        scans, even if both are links to one file.
        """
        index, name = (None, "") if self.row is None else (self.row.index, self.row.id)
        return (
            Path(os.path.realpath(self.path)),
            (
                self.series,
                None if self.bids_name is None else self.bids_name.labels_stem,
            ),
            index,
            name,
        )

    def plan(self, name: str) -> PlannedScan:
        """Return the scan of the batch; values of a list override those of the path."""
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Scans of a batch, and what its search skipped.

    Parameters
    ----------
    scans : tuple of PlannedScan
        The scans.
    skipped : tuple of SkippedPath
        Images that the searches found and did not take, each with the reason.
    """

    scans: tuple[PlannedScan, ...]
    skipped: tuple[SkippedPath, ...]


def plan_scans(
    inputs: Sequence[str | Path], *, leave_out: Path | None = None
) -> tuple[PlannedScan, ...]:
    """Find the scans of a batch; see `plan_batch`.

    A warning is logged for each skipped image that may be a scan.
    """
    plan = plan_batch(inputs, leave_out=leave_out)
    for one in plan.skipped:
        if one.may_be_scan:
            logger.warning("%s is passed over: %s", printable(one.path), one.reason)
    return plan.scans


def plan_batch(inputs: Sequence[str | Path], *, leave_out: Path | None = None) -> Plan:
    """Find the scans of a batch, and what is skipped.

    Parameters
    ----------
    inputs : sequence of str or Path
        Files, folders, globs ("**" goes into folders) and lists (CSV, see `read_list`).
        Folders, also those that a glob finds, are searched for scan files and DICOM
        series, through links too, each folder once. Of a BIDS data set the structural
        images are taken. A DICOM file means its folder. A file that is named is always
        taken.
    leave_out : Path, optional
        A folder that is not searched: the batch's own outputs.

    Returns
    -------
    Plan
        Each scan once, in the order of the inputs; a list may name one twice, under two
        ids, and overrides a search. An id is the list's, the name in a BIDS data set, or
        the path below the folder or glob. If two scans would share an id, more of the
        path or a hash of it is added.

    Raises
    ------
    ReadError
        If an input does not exist, holds no scan, or is a list that cannot be read.
    WriteError
        If `leave_out` lies in a DICOM folder: its files would change the folder's hash.
    """
    search = Search(None if leave_out is None else _plain(leave_out))
    scans_by_key: dict[_Key, _FoundScan] = {}
    for source in inputs:
        n_skipped = len(search.skipped)
        scans_found = list(
            _listed(_plain(source))
            if _is_list(source)
            else _searched(str(source), search)
        )
        if not scans_found:
            skipped = _skipped_in_words(list(search.skipped.values())[n_skipped:])
            raise ReadError(
                f"There is no scan in {source}{skipped}. Give scan files, folders with"
                " scans, or a glob in quotes."
            )
        for scan in scans_found:
            earlier = scans_by_key.setdefault(scan.key(), scan)
            if earlier.path != scan.path:
                reason = f"the same scan as {earlier.path}, through a link"
                search.skipped.setdefault(
                    scan.path, SkippedPath(scan.path, reason, may_be_scan=False)
                )
    listed = {key[:2] for key, scan in scans_by_key.items() if scan.row is not None}
    rows = [
        scan
        for key, scan in scans_by_key.items()
        if scan.row is not None or key[:2] not in listed
    ]
    scans = tuple(
        row.plan(name) for name, row in zip(_unique_names(rows), rows, strict=True)
    )
    taken = {row.path for row in rows}
    return Plan(
        scans, tuple(one for one in search.skipped.values() if one.path not in taken)
    )


def _skipped_in_words(passed: list[SkippedPath]) -> str:
    """Return in a few words what was skipped, for when nothing else was found."""
    if not passed:
        return ""
    more = f", and {len(passed) - 1} more" if len(passed) > 1 else ""
    return f" except what was passed over ({passed[0].path}: {passed[0].reason}{more})"


def _is_list(source: str | Path) -> bool:
    return Path(source).suffix.lower() in LIST_SUFFIXES and Path(source).is_file()


def _listed(path: Path) -> Iterator[_FoundScan]:
    for row in read_list(path):
        name = (
            row.id or row.path.name[: len(row.path.name) - len(file_suffix(row.path))]
        )
        words = (*row.path.parent.parts[1:], name) if not row.id else (row.id,)
        yield _FoundScan(row.path, row.series, words, 1, row, bids.name_of(row.path))


def _searched(source: str, search: Search) -> Iterator[_FoundScan]:
    places: dict[Path, Path] = {}
    for place, base in _places(source, search):
        places.setdefault(place, base)
    for place, base in places.items():
        yield from _scans_at(place, base, search.outputs)


def _plain(path: str | Path) -> Path:
    """Return the absolute path, with links kept."""
    return Path(os.path.abspath(path))


def _places(source: str, search: Search) -> Iterator[tuple[Path, Path]]:
    """Yield scan files and DICOM folders, each with the folder that its id starts at."""
    path = _plain(source)
    if path.is_dir():
        yield from ((place, path) for place in search.in_folder(path))
    elif path.exists():
        check_regular(path)
        yield place_of(path), path.parent
    elif glob.has_magic(source):
        base = _plain(Path(*_fixed_parts(source)))
        yield from ((place, base) for place in search.in_glob(source))
    else:
        raise ReadError(f"There is no file or folder {source}. Check the path.")


def _fixed_parts(pattern: str) -> list[str]:
    """Return the parts of a glob before the first one with a wildcard."""
    parts = Path(pattern).parts
    first = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    return list(parts[:first])


def _scans_at(place: Path, base: Path, outputs: Path | None) -> Iterator[_FoundScan]:
    """Yield the scan of a file, or one per series of a DICOM folder.

    A folder that cannot be listed is yielded too. It fails later, with the reason.
    """
    bids_name = bids.name_of(place)
    depth = 1 if bids_name else max(1, len(place.relative_to(base).parts))
    if not place.is_dir():
        stem = place.name[: len(place.name) - len(file_suffix(place))]
        yield _FoundScan(
            place, None, (*place.parent.parts[1:], stem), depth, bids_name=bids_name
        )
        return
    if outputs is not None and outputs.is_relative_to(place):
        raise WriteError(
            f"The output folder {outputs} lies in the DICOM folder {place}. Choose one"
            " elsewhere."
        )
    words = place.parts[1:]
    try:
        series = sorted(list_series(place), key=lambda one: one.uid)
    except ReadError:
        yield _FoundScan(place, None, words, depth)
        return
    for one in series:
        label = (
            () if len(series) == 1 else (one.description or one.modality or "series",)
        )
        yield _FoundScan(place, one.uid, (*words, *label), depth + len(label))


def _unique_names(scans: list[_FoundScan]) -> list[str]:
    names = [scan.name() for scan in scans]
    for group in _same_names(names):
        longest = max(len(scans[k].words) for k in group)
        for more in range(1, longest):
            longer = [scans[k].name(more) for k in group]
            if not _same_names(longer):
                break
        else:
            longer = [f"{names[k]}-{scans[k].mark()}" for k in group]
        for k, name in zip(group, longer, strict=True):
            names[k] = name
    for group in _same_names(names):  # a longer name may be another scan's short one
        for k in group:
            names[k] += f"-{scans[k].mark()}"
    return [
        _shortened(name, scan.mark()) for name, scan in zip(names, scans, strict=True)
    ]


def _shortened(name: str, mark: str) -> str:
    """Return a name that fits a file name: its end, with a hash of the whole."""
    plain = name.encode()  # `_FoundScan.name` leaves letters only
    if len(plain) <= _LONGEST_ID:
        return name
    return plain[-_LONGEST_ID:].decode(errors="ignore").lstrip("._-") + f"-{mark}"


def _same_names(names: list[str]) -> list[list[int]]:
    """Return groups of names that some file system takes for the same."""
    places: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        places.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(k)
    return [group for group in places.values() if len(group) > 1]
