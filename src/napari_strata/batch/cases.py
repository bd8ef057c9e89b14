"""Cases that people saved, matched to the scans of a batch.

Their edits are repeated on the new proposals.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_strata.batch.inputs.discovery import Search
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.names import LABELS_STEM, REPLAY
from napari_strata.deprecated import moved_names
from napari_strata.errors import CaseError, ReadError, StrataError
from napari_strata.io.files import hash_file, read, read_labels
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.session.replay import replay_edits
from napari_strata.refine.storage.case_file import (
    SUFFIX,
    ScanOfCase,
    read_case,
    scan_of_case,
)
from napari_strata.volume import Region, Segmentation

_MOST_NAMED = 3
"""Cases or edits that are named as examples."""


@dataclass(frozen=True, slots=True)
class MatchedCases:
    """Scans with the cases that belong to them.

    Parameters
    ----------
    scans : tuple of PlannedScan
        All scans, in order.
    notes : tuple of str
        Cases that belong to no scan or cannot be read, each with the reason.
    """

    scans: tuple[PlannedScan, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EditedLabels:
    """Labels after the edits of a case.

    Parameters
    ----------
    segmentation : Segmentation
        Labels after the edits.
    said : dict
        What the sidecar keeps: the case, the number of edits, and the result of each.
    warning : str
        Which edits could not be carried out; "" if all were.
    """

    segmentation: Segmentation
    record: dict[str, Any]
    warning: str


def with_cases(scans: Sequence[PlannedScan], places: Sequence[Path]) -> MatchedCases:
    """Match cases to the scans that they were made on.

    A case belongs to the scan at the path that it was made on. If there is none, it
    belongs to the scan with its id, or to the scan whose path has the longest end in
    common with its own, provided that the grid and the intensities agree; the scan is
    read to check this. If several cases match one scan, those matched by path come
    first, then by id, then by the end of the path.

    Parameters
    ----------
    scans : sequence of PlannedScan
        A case that a list names for a scan is preferred to those found here.
    places : sequence of Path
        Cases, or folders that are searched for cases, with all folders below.

    Raises
    ------
    ReadError
        If a place does not exist or holds no case.
    CaseError
        If two cases match one scan equally well.
    """
    matches_of: dict[int, list[_Match]] = {}
    places_of: dict[Path, list[int]] = {}
    for number, scan in enumerate(scans):
        places_of.setdefault(Path(os.path.realpath(scan.path)), []).append(number)
    notes: list[str] = []
    for case in dict.fromkeys(
        path for place in places for path in _cases_in(place, notes)
    ):
        try:
            matches = _matches(case, scan_of_case(case), scans, places_of)
        except CaseError as err:
            notes.append(f"{' '.join(str(err).split())} Its edits are not replayed.")
            continue
        if not matches:
            notes.append(
                f"{case} belongs to none of the scans, so its edits are not replayed."
            )
        for match in matches:
            matches_of.setdefault(match.number, []).append(match)
    chosen = list(scans)
    for number, matches in matches_of.items():
        best = min(match.rank for match in matches)
        chosen[number] = scan = _with_case(
            scans[number], [match.case for match in matches if match.rank == best]
        )
        notes += [
            f"{match.case} is not replayed on {scan.id}: {scan.replay} goes before it."
            for match in matches
            if match.rank > best
        ]
    return MatchedCases(tuple(chosen), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Match:
    """A case, a scan that it belongs to, and how it was matched.

    `rank` is 0 by path, 1 by id, 2 by the end of the path.
    """

    case: Path
    number: int
    rank: int


def _cases_in(place: Path, notes: list[str]) -> list[Path]:
    if place.is_dir():
        search = Search()
        cases = [
            path
            for path in search.files(place)
            if path.suffix.lower() == SUFFIX and path.is_file() and path.name[0] != "."
        ]
        notes += [
            f"{one.path} is passed over: {one.reason}."
            for one in search.skipped.values()
            if one.may_be_scan
        ]
        if not cases:
            raise ReadError(
                f"There is no case ({SUFFIX}) in {place}. Give cases, or a folder that"
                " holds some."
            )
        return cases
    if not place.is_file():
        raise ReadError(f"There is no file or folder {place}. Check the path.")
    return [place]


def _matches(
    case: Path,
    of: ScanOfCase,
    scans: Sequence[PlannedScan],
    places_of: dict[Path, list[int]],
) -> list[_Match]:
    """Return the scans of a case; `places_of` has the scans at each real path."""
    same = [
        _Match(case, number, 0)
        for number in _made_on(of, places_of)
        if _is_part(of, scans[number])
    ]
    if same:
        return same
    named = [
        _Match(case, number, 1)
        for number, scan in enumerate(scans)
        if _is_named_after(case, scan)
    ]
    alike = [_Match(case, number, 2) for number in _same_path_end(of, scans)]
    return next(
        ([match] for match in (*named, *alike) if _is_scan_of(of, scans[match.number])),
        [],
    )


def _is_named_after(case: Path, scan: PlannedScan) -> bool:
    return case.stem.removesuffix(LABELS_STEM).casefold() == scan.id.casefold()


def _made_on(of: ScanOfCase, places_of: dict[Path, list[int]]) -> list[int]:
    """Return the scans at a case's path, or in the folder of its DICOM file."""
    if not of.path:
        return []
    path = Path(os.path.realpath(of.path))
    return places_of.get(path, []) + places_of.get(path.parent, [])


def _is_part(of: ScanOfCase, scan: PlannedScan) -> bool:
    """Return whether a scan may be the same series of a folder, or volume of a file."""
    return all(
        None in pair or pair[0] == pair[1]
        for pair in ((of.series, scan.series), (of.index, scan.index))
    )


def _same_path_end(of: ScanOfCase, scans: Sequence[PlannedScan]) -> list[int]:
    """Return the scan whose path has most of its end in common with a case's.

    The file was moved. Nothing is returned if several scans share equally much.
    """
    parts = of.path.replace("\\", "/").rstrip("/").split("/")[::-1]
    shared = [
        (
            _common_length(parts, scan.path.parts[::-1])
            if of.path and _is_part(of, scan)
            else 0
        )
        for scan in scans
    ]
    most = max(shared, default=0)
    return [shared.index(most)] if most and shared.count(most) == 1 else []


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    return next(
        (k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def _is_scan_of(of: ScanOfCase, scan: PlannedScan) -> bool:
    """Read a scan, and return whether it is a case's.

    A scan that cannot be read is not; it fails with its reason when it is proposed.
    """
    try:
        return of.is_like(
            read(
                scan.path, index=scan.index, series=scan.series, modality=scan.modality
            )
        )
    except StrataError:
        return False


def _with_case(scan: PlannedScan, cases: list[Path]) -> PlannedScan:
    if scan.replay is not None or not cases:
        return scan
    own = [case for case in cases if _is_named_after(case, scan)]
    chosen = own if len(own) == 1 else cases
    if len(chosen) > 1:
        names = ", ".join(str(case) for case in chosen[:_MOST_NAMED])
        raise CaseError(
            f"{len(chosen)} cases belong to {scan.id}: {names}. Name the one to replay"
            f" {scan.id}{SUFFIX}, or give it in a list, in the column `replay`."
        )
    return replace(scan, replay=chosen[0].absolute())


def is_of_case(case: Path, labels: Path) -> bool:
    """Return whether saved labels equal those of a case, so that nothing is lost."""
    try:
        saved, held = read_labels(labels), Refinement.load(case)
        return saved.labels.shape == held.proposal.volume.geometry.shape_zyx and bool(
            np.array_equal(saved.labels, held.labels)
        )
    except StrataError:
        return False


def apply_case(
    case: Path,
    proposal: Proposal,
    labels: Segmentation,
    *,
    shared: tuple[Region, ...] = (),
) -> EditedLabels:
    """Repeat the edits of a scan's case on its new proposal.

    Parameters
    ----------
    case : Path
        A case of the proposal's scan.
    proposal : Proposal
        The new proposal.
    labels : Segmentation
        Its labels before the edits.
    shared : tuple of Region
        Regions of the codebook or teaching, with those that this scan lacks: the edits
        are then carried out on `labels`. Without any, the case's own cut and its slider
        moves replace `labels`.

    Raises
    ------
    CaseError
        If the case cannot be read, or is of another scan.
    GeometryError
        If the labels that the case started from do not fit the scan.
    """
    shown = replace(labels, regions=shared) if shared else None
    replayed = replay_edits(read_case(case, proposal.volume), proposal, shown=shown)
    lost, total = replayed.lost, len(replayed.steps)
    warning = ""
    if lost:
        names = "; ".join(step.name for step in lost[:_MOST_NAMED]) + (
            "; ..." if len(lost) > _MOST_NAMED else ""
        )
        warning = (
            f"{len(lost)} of {total} edits of {case.name} could not be carried out"
            f" ({names}); see {REPLAY}."
        )
    steps = [
        {
            "number": step.number,
            "name": step.name,
            "status": step.status,
            "why": step.why,
        }
        for step in replayed.steps
    ]
    record = {
        "case": str(case),
        "sha256": hash_file(case),
        "edits": total,
        "lost": len(lost),
        "warning": warning,
        "steps": steps,
    }
    return EditedLabels(replayed.segmentation, record, warning)


__getattr__ = moved_names("batch.cases")
