"""BIDS data sets: names of files, and which of them are structural scans.

The names follow the Brain Imaging Data Structure, version 1.10.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata.filenames import SCAN_SUFFIXES, name_bytes
from napari_strata.io.atomic import file_suffix

DESCRIPTION = "dataset_description.json"
"""Name of the file that describes a BIDS data set."""
_IMAGES = ("anat", "ct")
"""Folders of structural 3D images."""
_OTHERS = (
    "func",
    "dwi",
    "perf",
    "fmap",
    "pet",
    "eeg",
    "meg",
    "ieeg",
    "nirs",
    "mrs",
    "beh",
    "micr",
    "motion",
)
"""Folders of time series, diffusion, field maps and other kinds of data."""
NO_RAW_DATA = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")
"""Folders of a data set without raw scans."""
_NO_SCANS = ("defacemask", "mask", "dseg", "probseg", "seg", "label", "labels")
_PARTS = ("phase", "real", "imag")
_PHASES = ("phase", "phasediff", "phase1", "phase2")
_STRUCTURAL = (
    *(
        "t1w",
        "t2w",
        "pdw",
        "t2starw",
        "flair",
        "inplanet1",
        "inplanet2",
        "pdt2",
        "angio",
        "megre",
        "mese",
        "mp2rage",
        "unit1",
        "vfa",
    ),
    *("t1map", "t2map", "t2starmap", "t1", "t2", "ct", "mprage"),
)
"""Last words of names of structural images, in lower case, whatever their folder."""
_SUBJECT = re.compile(r"sub([-_].|\d)", re.IGNORECASE)
_MARK = 4
"""Hexadecimal digits of a hash that keeps names apart which differ in odd letters."""
_FIRST = (".nii.gz", ".nii")
"""Of several files with one stem, the first of these keeps the plain name."""


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why an image is skipped, and whether a person may want it nevertheless."""

    reason: str
    may_be_scan: bool


@dataclass(frozen=True, slots=True)
class BidsName:
    """Name of a file in a BIDS data set, with its parts.

    Parameters
    ----------
    root : Path
        The data set.
    folder : str
        Below the root, with "/": "sub-01/ses-1/anat".
    entities : tuple of (str, str)
        Keys and values in the order of the name; the key is "" for a word that breaks
        the standard ("run_1" is two words).
    suffix : str
        Last word of the name: "T1w". With a hash or the format, if the name would
        otherwise not be unique.
    file : str
        The file's name.
    """

    root: Path
    folder: str
    entities: tuple[tuple[str, str], ...]
    suffix: str
    file: str

    @property
    def labels_stem(self) -> str:
        """Path below the derivative data set, without ending.

        "sub-01/anat/sub-01_desc-T1w_dseg".
        """
        kept = [
            f"{key}-{value}" if key else value
            for key, value in self.entities
            if key != "desc"
        ]
        return f"{self.folder}/{'_'.join([*kept, f'desc-{self.suffix}'])}_dseg"

    @property
    def source(self) -> str:
        """BIDS URI of the scan."""
        return f"bids:raw:{self.folder}/{self.file}"


def is_dataset(folder: Path) -> bool:
    """Return whether a folder is a BIDS data set of scans, not of derivatives."""
    description = read_description(folder)
    return (
        isinstance(description, dict)
        and "BIDSVersion" in description
        and description.get("DatasetType", "raw") == "raw"
    )


def read_description(folder: Path) -> Any:
    """Read the description of a data set; None if there is none, or it is unreadable."""
    path = folder / DESCRIPTION
    try:
        return (
            json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else None
        )
    except (OSError, ValueError):
        return None


def is_subject(folder: str) -> bool:
    """Return whether a folder name is a subject's.

    "sub-01", or not quite to the standard "sub_01" or "sub01".
    """
    return _SUBJECT.match(folder) is not None


def name_of(path: Path) -> BidsName | None:
    """Return the name of a file in a subject's folder of a BIDS data set, or None.

    A name that breaks the standard (dashes and dots in values, underscores for dashes)
    is kept word by word.
    """
    suffix = file_suffix(path)
    if suffix not in SCAN_SUFFIXES or path.is_dir():
        return None
    root = next((folder for folder in path.parents if is_dataset(folder)), None)
    if root is None or path.parent == root:
        return None
    folder = path.parent.relative_to(root).as_posix()
    if not is_subject(folder.split("/")[0]):
        return None
    *words, last = path.name[: len(path.name) - len(suffix)].split("_")
    plain = [_plain(word) for word in words]
    kind = re.sub(r"[^A-Za-z0-9]", "", last)
    # two such names must not become one
    if (plain, _plain(last)) != (words, last) or not kind:
        kind += hashlib.sha256(name_bytes(path.name)).hexdigest()[:_MARK]
    kind += _ending_mark(path, path.name[len(path.name) - len(suffix) :])
    parts = [word.partition("-") for word in plain]
    return BidsName(
        root,
        folder,
        tuple((key, value) if dash else ("", key) for key, dash, value in parts),
        kind,
        path.name,
    )


def _ending_mark(path: Path, ending: str) -> str:
    """Return what the ending adds to the name of outputs.

    Something for formats other than NIfTI, and if another file has the same stem.
    """
    stem = path.name[: len(path.name) - len(ending)]
    before = _FIRST[: _FIRST.index(ending)] if ending in _FIRST else _FIRST
    is_twin = any(path.with_name(stem + other).exists() for other in before)
    return (
        "".join(part.title() for part in ending.split("."))
        if is_twin or ending.lower() not in _FIRST
        else ""
    )


def _plain(word: str) -> str:
    """Return a word of a name with only letters, digits, ".", "+" and "-"."""
    return re.sub(r"[^\w.+-]", "", word)


def is_phase(path: Path) -> bool:
    """Return whether a name is that of the phase, real or imaginary part of an image."""
    words = path.name[: len(path.name) - len(file_suffix(path))].lower().split("_")
    pairs = {*words, *("-".join(pair) for pair in itertools.pairwise(words))}
    return bool(pairs & {f"part-{part}" for part in _PARTS}) or words[-1] in _PHASES


def skip_reason(path: Path) -> SkipReason | None:
    """Return why an image is skipped, or None if it is a scan to propose on.

    Decided by its name and its folders below the root of the data set.
    """
    *folders, name = path.parts
    if not folders or not is_subject(folders[0]):
        return SkipReason(
            "it lies in no subject's folder (sub-...) of the BIDS data set; name the"
            " file to propose on it",
            may_be_scan=True,
        )
    kind = next(
        (one for one in reversed(folders[1:]) if one.lower() in (*_IMAGES, *_OTHERS)),
        "",
    ).lower()
    if kind in _OTHERS:
        return SkipReason(
            f"it lies in {kind}, not among structural images", may_be_scan=False
        )
    last = name[: len(name) - len(file_suffix(name))].split("_")[-1]
    if last.lower() in _NO_SCANS or last.lower().endswith("mask"):
        return SkipReason("a mask or labels, by its name", may_be_scan=False)
    if is_phase(path):
        return SkipReason(
            "a phase image, not the magnitude; name the file to propose on it",
            may_be_scan=True,
        )
    if not kind and last.lower() not in _STRUCTURAL:
        return SkipReason(
            "it lies in no anat or ct folder; name the file to propose on it",
            may_be_scan=True,
        )
    return None
