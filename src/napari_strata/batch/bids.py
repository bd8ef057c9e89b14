"""BIDS data sets: which scans they hold, and the derivative data set that labels go into.

The names follow the Brain Imaging Data Structure, version 1.10, "Derivatives: segmentations".
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata import __version__
from napari_strata.filenames import ESCAPED, json_text
from napari_strata.io.atomic import atomic_path, file_suffix

BIDS_VERSION = "1.10.0"
_DESCRIPTION = "dataset_description.json"
_IMAGES = ("anat", "ct")
"""Folders of 3D images of structure; others (func, dwi, perf) hold series over time or directions."""
_NO_SCANS = ("defacemask", "mask", "dseg", "probseg")
_IGNORED = (
    "*.html",
    "batch.jsonl",
    "cohort*.strata-codebook",
    "volumes.tsv",
    "scans.tsv",
    "failures.tsv",
    "changes.tsv",
    "agreement.tsv",
    "replay.tsv",
    "qc",
)
_UNITS = {"_ml": "mL", "_mm": "mm", "_mm2": "mm^2", "_hu": "HU", "voxels": "1", "_start": "1", "_stop": "1"}
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True, slots=True)
class BidsName:
    """What a file is called in a BIDS data set.

    Parameters
    ----------
    root : Path
        The data set.
    folder : str
        Below the root, with "/": "sub-01/ses-1/anat".
    entities : tuple of (str, str)
        Keys and values in the order of the name.
    suffix : str
        What the name ends in: "T1w".
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
        """Path below the derivative data set, without ending: "sub-01/anat/sub-01_desc-T1w_dseg"."""
        kept = [f"{key}-{value}" for key, value in self.entities if key != "desc"]
        return f"{self.folder}/{'_'.join(kept)}_desc-{self.suffix}_dseg"

    @property
    def source(self) -> str:
        """BIDS URI of the scan."""
        return f"bids:raw:{self.folder}/{self.file}"


def is_dataset(folder: Path) -> bool:
    """Say whether a folder is a BIDS data set of scans, not of derivatives."""
    said = _description_in(folder)
    return isinstance(said, dict) and "BIDSVersion" in said and said.get("DatasetType", "raw") == "raw"


def _description_in(folder: Path) -> Any:
    """Read the description of a data set; None where there is none that can be read."""
    path = folder / _DESCRIPTION
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        return None


def name_of(path: Path) -> BidsName | None:
    """Read the entities of a file in a BIDS data set; None for any other file."""
    suffix = file_suffix(path)
    *entities, last = path.name[: len(path.name) - len(suffix)].split("_")
    pairs = [_ENTITY.fullmatch(word) for word in entities]
    if not pairs or not all(pairs) or not entities[0].startswith("sub-") or suffix not in (".nii", ".nii.gz"):
        return None
    root = next((folder for folder in path.parents if is_dataset(folder)), None)
    if root is None:
        return None
    folder = path.parent.relative_to(root).as_posix()
    if folder.split("/")[0] != entities[0]:
        return None
    found = tuple((pair[1], pair[2]) for pair in pairs if pair)
    return BidsName(root, folder, found, re.sub(r"[^A-Za-z0-9]", "", last), path.name)


def scans_in(root: Path) -> Iterator[Path]:
    """Give the structural images of a data set in order of name, without masks."""
    for subject in sorted(root.glob("sub-*")):
        files = sorted(file for kind in _IMAGES for file in subject.glob(f"**/{kind}/*.nii*"))
        for file in files:
            name = name_of(file)
            if name is not None and name.suffix not in _NO_SCANS:
                yield file


def write_description(folder: Path, root: Path, how: str = "") -> None:
    """Write what makes a folder a BIDS derivative data set: its description, and what of ours a validator passes over.

    A description that stands there is brought up to date (who made the labels, with which version and how, and from which scans);
    what people added to it stays, and so does one that is not of derivatives.

    Parameters
    ----------
    folder, root : Path
        The derivative data set, and the one of the scans.
    how : str
        How the labels are made, in a few words.

    Raises
    ------
    WriteError
        If it cannot be written.
    """
    about = (
        "# Strata: proposed tissue regions\n\nUnsupervised regions of the scans in the linked data set, proposed by Strata, each with "
        "its label table and a JSON file\nof settings and versions. Research software: it proposes, a person decides. Not for diagnosis.\n"
    )
    made = f"Unsupervised regions, {how}" if how else "Unsupervised regions"
    raw = os.path.relpath(root, folder).replace(os.sep, "/")
    said: dict[str, Any] = {
        "Name": "Strata: proposed tissue regions",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "Strata",
                "Version": __version__,
                "Description": f"{made}; unchecked, unless a JSON file tells of edits.",
            }
        ],
        "SourceDatasets": [{"URL": raw}],
        "DatasetLinks": {"raw": raw},
    }
    texts = {_DESCRIPTION: _with_others(folder, said), ".bidsignore": _with_ignored(folder), "README.md": about}
    for name, text in texts.items():
        path = folder / name
        if text is not None and not (path.exists() and (name == "README.md" or path.read_text(encoding="utf-8", errors="replace") == text)):
            with atomic_path(path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")


def _with_others(folder: Path, said: dict[str, Any]) -> str | None:
    """Bring our part of a description up to date, and keep what people wrote; None where it cannot be read, or is not of derivatives."""
    path, found = folder / _DESCRIPTION, _description_in(folder)
    if found is None:
        return None if path.exists() else json.dumps(said, indent=1) + "\n"
    makers = found.get("GeneratedBy") if isinstance(found, dict) else None
    if not isinstance(makers, list) or found.get("DatasetType") != "derivative":
        return None
    ours = [k for k, one in enumerate(makers) if isinstance(one, dict) and one.get("Name") == "Strata"]
    fresh = said["GeneratedBy"][0]
    kept = [makers[k] | fresh if k in ours else makers[k] for k in range(len(makers))] + ([] if ours else [fresh])
    links = found.get("DatasetLinks")
    links = {**(links if isinstance(links, dict) else {}), **said["DatasetLinks"]}
    return json_text({**said, **found, "GeneratedBy": kept, "DatasetLinks": links}, indent=1) + "\n"


def _with_ignored(folder: Path) -> str:
    """Give the patterns that a validator passes over: those that stand there, and ours."""
    path = folder / ".bidsignore"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return "\n".join([*lines, *(one for one in _IGNORED if one not in lines)]) + "\n"


def sidecar_keys(name: BidsName, document: dict[str, Any]) -> dict[str, Any]:
    """Give what BIDS wants to stand in the JSON file of labels, the meaning of each column of the label table included."""
    columns = {}
    for column in _measured(document["regions"]):
        unit = next((unit for ending, unit in _UNITS.items() if column.endswith(ending)), None)
        columns[column] = {"Description": f"{column.replace('_', ' ')} of the region"} | ({} if unit is None else {"Units": unit})
    checked = "corrected by a person's edits" if document.get("replay", {}).get("edits") else "a person has not checked them"
    described = f"Tissue regions proposed without supervision; {checked}."
    return {"Description": described, "Sources": [name.source], "SpatialReference": name.source, "Manual": False, **columns}


def _measured(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in (rows[0] if rows else {}) if name not in ("id", "name", "color", "locked", "accepted", "code")]


def write_label_table(table: Path, rows: list[dict[str, Any]]) -> None:
    """Write a BIDS label table (`_dseg.tsv`): index, name and colour, then the measures, n/a where there is none.

    Parameters
    ----------
    table : Path
        The file to write.
    rows : list of dict
        The regions of a sidecar.
    """
    measured = _measured(rows)
    with open(table, "w", newline="", encoding="utf-8", errors=ESCAPED) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", "color", *measured])
        for row in rows:
            color = "#{:02x}{:02x}{:02x}".format(*row["color"]) if "color" in row else "n/a"
            cells = ["n/a" if row[name] is None else row[name] for name in measured]
            writer.writerow([row["id"], row["name"], color, *cells])
