"""One scan of a batch: path, id, subject, and what a list says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from napari_strata.batch.inputs.bids import BidsName, name_of
from napari_strata.io.atomic import file_suffix
from napari_strata.volume import Modality

_NOT_OF_KIND = ("sub", "ses", "run")
"""Entities of a name that do not say what kind of image it is."""


@dataclass(frozen=True, slots=True)
class PlannedScan:
    """One scan of a batch.

    Parameters
    ----------
    id : str
        Unique in the batch (without regard to case), fit for a file name.
    path : Path
        A file, or a DICOM folder.
    series : str or None
        SeriesInstanceUID in a DICOM folder.
    index : int or None
        Which volume of a 4D file.
    modality : {"ct", "mr"} or None
        How to read its intensities; None: as the recipe says.
    reference : Path or None
        Reference labels for scores.
    codebook : Path or None
        Its own codebook, instead of the recipe's.
    replay : Path or None
        A case of the scan whose edits are repeated on its proposal.
    subject, session : str
        Subject and session; "" if unknown.
    kind : str
        What kind of image of the subject it is, "T1w" for example: follow-ups are
        compared within a kind.
    bids : BidsName or None
        Its name in a BIDS data set, if it lies in one.
    """

    id: str
    path: Path
    series: str | None = None
    index: int | None = None
    modality: Modality | None = None
    reference: Path | None = None
    codebook: Path | None = None
    replay: Path | None = None
    subject: str = ""
    session: str = ""
    kind: str = ""
    bids: BidsName | None = None


@dataclass(frozen=True, slots=True)
class ScanIdentity:
    """Subject, session and kind of image by a path; "" for what it does not tell."""

    subject: str
    session: str
    kind: str


def identity_of(path: Path) -> ScanIdentity:
    """Return the `sub-...` and `ses-...` of a path, nearest the file first.

    The rest of the file name is the kind of image.
    """
    entities: dict[str, str] = {}
    stem = path.name[: len(path.name) - len(file_suffix(path))]
    for part in (stem, *reversed(path.parts[:-1])):
        match = re.fullmatch(r"(sub|ses)_(\w+)", part)  # off the standard
        for key, value in (
            [match.groups()]
            if match and part != stem
            else re.findall(r"(?:^|_)(sub|ses)-([^_]+)", part)
        ):
            entities.setdefault(key, value)
    words = [
        word for word in stem.split("_") if word.partition("-")[0] not in _NOT_OF_KIND
    ]
    return ScanIdentity(
        entities.get("sub", ""), entities.get("ses", ""), "_".join(words)
    )


def planned(name: str, path: Path, series: str | None = None) -> PlannedScan:
    """Return a scan of a batch, with what its path tells."""
    identity = identity_of(path)
    return PlannedScan(
        name,
        path,
        series,
        subject=identity.subject,
        session=identity.session,
        kind=identity.kind,
        bids=name_of(path),
    )
