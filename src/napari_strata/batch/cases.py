"""Cases that people saved, and the scans of a batch that they belong to: their edits are replayed on what is proposed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_strata.batch.scans import PlannedScan
from napari_strata.errors import CaseError, ReadError, StrataError
from napari_strata.io.files import hash_file, read_labels
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.case import SUFFIX, ScanOfCase, file_name, read_case, scan_of_case
from napari_strata.refine.refinement import Refinement
from napari_strata.refine.replaying import replay_edits
from napari_strata.volume import Region, Segmentation

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Matched:
    """Scans with the cases that belong to them.

    Parameters
    ----------
    scans : tuple of PlannedScan
        All of them, in order.
    notes : tuple of str
        Cases that belong to none of the scans or cannot be read, each with the reason.
    """

    scans: tuple[PlannedScan, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    """Labels after the edits of a case.

    Parameters
    ----------
    segmentation : Segmentation
        The labels.
    said : dict
        What the sidecar keeps of it: the case, how many edits, and what became of each.
    warning : str
        Which edits could not be carried out; "" where all were.
    """

    segmentation: Segmentation
    said: dict[str, Any]
    warning: str


def with_cases(scans: Sequence[PlannedScan], places: Sequence[Path]) -> Matched:
    """Find the scan that each case belongs to: the one it was made on, or else the one whose id or file name it bears.

    Parameters
    ----------
    scans : sequence of PlannedScan
        A case that a list names for a scan goes before those found here.
    places : sequence of Path
        Cases, or folders that are searched for some with all below them.

    Raises
    ------
    ReadError
        If a place does not exist or holds no case.
    CaseError
        If two cases belong to one scan.
    """
    found: dict[int, list[Path]] = {}
    notes = []
    for case in dict.fromkeys(path for place in places for path in _cases_in(place)):
        try:
            numbers = _belongs(case, scan_of_case(case), scans)
        except CaseError as err:
            notes.append(f"{' '.join(str(err).split())} Its edits are not replayed.")
            continue
        if not numbers:
            notes.append(f"{case} belongs to none of the scans, so its edits are not replayed.")
        for number in numbers:
            found.setdefault(number, []).append(case)
    return Matched(tuple(_with_case(scan, found.get(number, [])) for number, scan in enumerate(scans)), tuple(notes))


def _cases_in(place: Path) -> list[Path]:
    if place.is_dir():
        found = sorted(path for path in place.rglob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))
        if not found:
            raise ReadError(f"There is no case ({SUFFIX}) in {place}. Give cases, or a folder that holds some.")
        return found
    if not place.is_file():
        raise ReadError(f"There is no file or folder {place}. Check the path.")
    return [place]


def _belongs(case: Path, of: ScanOfCase, scans: Sequence[PlannedScan]) -> list[int]:
    made_on = Path(of.path).resolve() if of.path else None
    same = [number for number, scan in enumerate(scans) if _is_made_on(made_on, of, scan)]
    stem = case.stem.removesuffix("_labels").casefold()
    named = [number for number, scan in enumerate(scans) if scan.id.casefold() == stem]
    alike = [number for number, scan in enumerate(scans) if of.path and scan.path.name == file_name(of.path)]
    return same or named or (alike if len(alike) == 1 else [])


def _is_made_on(path: Path | None, of: ScanOfCase, scan: PlannedScan) -> bool:
    own = scan.path.resolve()
    if path is None or own not in (path, path.parent if own.is_dir() else path):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in ((of.series, scan.series), (of.index, scan.index)))


def _with_case(scan: PlannedScan, cases: list[Path]) -> PlannedScan:
    if scan.replay is not None or not cases:
        return scan
    own = [case for case in cases if case.stem.removesuffix("_labels").casefold() == scan.id.casefold()]
    chosen = own if len(own) == 1 else cases
    if len(chosen) > 1:
        names = ", ".join(str(case) for case in chosen[:_MOST_NAMED])
        raise CaseError(
            f"{len(chosen)} cases belong to {scan.id}: {names}. Name the one to replay {scan.id}{SUFFIX}, or give it in a list, in the "
            "column `replay`."
        )
    return replace(scan, replay=chosen[0].absolute())


def is_of_case(case: Path, labels: Path) -> bool:
    """Say whether labels that a person saved are those of a case as it stands, so that nothing is lost where they are replaced."""
    try:
        saved, held = read_labels(labels), Refinement.load(case)
        return saved.labels.shape == held.volume.geometry.shape_zyx and bool(np.array_equal(saved.labels, held.labels))
    except StrataError:
        return False


def edited(case: Path, proposal: Proposal, labels: Segmentation, *, shared: tuple[Region, ...] = ()) -> Edited:
    """Carry out the edits of a scan's case on what was proposed for it.

    Parameters
    ----------
    case : Path
        The case; its scan must be the proposal's.
    proposal : Proposal
        Made anew.
    labels : Segmentation
        What the batch made of it.
    shared : tuple of Region
        All regions whose numbers mean the same in other scans, those that this one lacks, too: the edits are then carried out on
        the labels. Without any the case's own cut, and the moves of its slider, take their place.

    Raises
    ------
    CaseError
        If the case cannot be read, or is of another scan.
    GeometryError
        If the labels that it began from do not fit the scan.
    """
    shown = replace(labels, regions=shared) if shared else None
    found = replay_edits(read_case(case, proposal.volume), proposal, shown=shown)
    lost, total = found.lost, len(found.steps)
    warning = ""
    if lost:
        names = "; ".join(step.name for step in lost[:_MOST_NAMED]) + ("; ..." if len(lost) > _MOST_NAMED else "")
        warning = f"{len(lost)} of {total} edits of {case.name} could not be carried out ({names}); see replay.tsv."
    steps = [{"number": step.number, "name": step.name, "status": step.status, "why": step.why} for step in found.steps]
    said = {"case": str(case), "sha256": hash_file(case), "edits": total, "lost": len(lost), "warning": warning, "steps": steps}
    return Edited(found.segmentation, said, warning)
