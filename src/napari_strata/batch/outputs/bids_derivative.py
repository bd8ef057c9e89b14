"""The BIDS derivative data set that the labels of a BIDS data set go into.

It follows the Brain Imaging Data Structure, version 1.10, "Derivatives: segmentations".
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from napari_strata._version import __version__
from napari_strata.batch.inputs.bids import DESCRIPTION, BidsName, read_description
from napari_strata.batch.outputs.names import NOT_BIDS
from napari_strata.filenames import ESCAPED, json_text
from napari_strata.io.atomic import atomic_path
from napari_strata.measure.exported_columns import EXPORTED_COLUMNS

BIDS_VERSION = "1.10.0"
_UNITS = {column.name: column.unit for column in EXPORTED_COLUMNS} | {
    column.name_for("ct"): "HU" for column in EXPORTED_COLUMNS if column.is_intensity
}
"""Unit of a column of the label table, by its name; "" for none."""


def write_description(folder: Path, root: Path, how: str = "") -> None:
    """Write the description, .bidsignore and README of a BIDS derivative data set.

    An existing description is updated (version, how the labels are made, source scans).
    What people added to it is kept; so is a description of another type.

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
        "# Strata: proposed tissue regions\n\nUnsupervised regions of the scans in the"
        " linked data set, proposed by Strata, each with its label table and a JSON"
        " file\nof settings and versions. Research software: it proposes, a person"
        " decides. Not for diagnosis.\n"
    )
    made = f"Unsupervised regions, {how}" if how else "Unsupervised regions"
    raw = os.path.relpath(root, folder).replace(os.sep, "/")
    description: dict[str, Any] = {
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
    texts = {
        DESCRIPTION: _with_others(folder, description),
        ".bidsignore": _with_ignored(folder),
        "README.md": about,
    }
    for name, text in texts.items():
        path = folder / name
        if text is not None and not (
            path.exists()
            and (
                name == "README.md"
                or path.read_text(encoding="utf-8", errors="replace") == text
            )
        ):
            with atomic_path(path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")


def _with_others(folder: Path, description: dict[str, Any]) -> str | None:
    """Return the description with our part updated, and the rest as people wrote it.

    None if it cannot be read, or is not of derivatives.
    """
    path, existing = folder / DESCRIPTION, read_description(folder)
    if existing is None:
        return None if path.exists() else json.dumps(description, indent=1) + "\n"
    makers = existing.get("GeneratedBy") if isinstance(existing, dict) else None
    if not isinstance(makers, list) or existing.get("DatasetType") != "derivative":
        return None
    ours = [
        k
        for k, one in enumerate(makers)
        if isinstance(one, dict) and one.get("Name") == "Strata"
    ]
    fresh = description["GeneratedBy"][0]
    kept = [
        makers[k] | fresh if k in ours else makers[k] for k in range(len(makers))
    ] + ([] if ours else [fresh])
    links = existing.get("DatasetLinks")
    links = {
        **(links if isinstance(links, dict) else {}),
        **description["DatasetLinks"],
    }
    return (
        json_text(
            {**description, **existing, "GeneratedBy": kept, "DatasetLinks": links},
            indent=1,
        )
        + "\n"
    )


def _with_ignored(folder: Path) -> str:
    """Return the text of .bidsignore: the patterns in it, and ours."""
    path = folder / ".bidsignore"
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines()
        if path.is_file()
        else []
    )
    return "\n".join([*lines, *(one for one in NOT_BIDS if one not in lines)]) + "\n"


def sidecar_keys(name: BidsName, document: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that BIDS asks for in the JSON file of labels.

    They include the meaning of each column of the label table.
    """
    columns = {}
    for column in _measured(document["regions"]):
        unit = _UNITS.get(column, "")
        columns[column] = {
            "Description": f"{column.replace('_', ' ')} of the region"
        } | ({"Units": unit} if unit else {})
    checked = (
        "corrected by a person's edits"
        if document.get("replay", {}).get("edits")
        else "a person has not checked them"
    )
    described = f"Tissue regions proposed without supervision; {checked}."
    return {
        "Description": described,
        "Sources": [name.source],
        "SpatialReference": name.source,
        "Manual": False,
        **columns,
    }


def _measured(rows: list[dict[str, Any]]) -> list[str]:
    return [
        name
        for name in (rows[0] if rows else {})
        if name not in ("id", "name", "color", "locked", "accepted", "code")
    ]


def write_label_table(table: Path, rows: list[dict[str, Any]]) -> None:
    """Write a BIDS label table (`_dseg.tsv`).

    The columns are index, name and colour, then the measures. A missing value is n/a.

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
            color = (
                "#{:02x}{:02x}{:02x}".format(*row["color"]) if "color" in row else "n/a"
            )
            cells = ["n/a" if row[name] is None else row[name] for name in measured]
            writer.writerow([row["id"], row["name"], color, *cells])
