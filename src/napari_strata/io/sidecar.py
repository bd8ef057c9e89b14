"""The JSON beside a label file: names, colours and locks, and what else is known of the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from glob import escape as glob_escape
from pathlib import Path
from typing import Any

from napari_strata.errors import ReadError, WriteError
from napari_strata.filenames import json_text
from napari_strata.io.atomic import file_suffix
from napari_strata.io.terms import coded
from napari_strata.volume import BACKGROUND, Region, default_regions

SIDECAR_FORMAT = "strata-labels-1"
_LABELS = (".nii", ".nii.gz", ".mgh", ".mgz", ".nrrd", ".mha")
_REWRITTEN = "The labels and this table were written again later; what else stands here tells of the labels before."


def table_text(path: Path, labels: Path, regions: Sequence[Region]) -> str | None:
    """Give the text of the JSON beside labels; None where one of other labels says the same already, and is to stay.

    Parameters
    ----------
    path : Path
        The JSON file. What one of Strata's knows besides the regions is kept, and marked as older than the labels.
    labels : Path
        The labels that it is for.
    regions : sequence of Region
        Their table.

    Raises
    ------
    WriteError
        If Strata did not write the file that stands there, or it belongs to other labels and tells other names.
    """
    document: dict[str, Any] = {"format": SIDECAR_FORMAT}
    if path.is_file():
        document = _ours(path)
        owner = sidecar_owner(path, labels)
        if owner is not None:
            if _named(read_table(path)) == _named(regions):
                return None
            raise WriteError(f"{path} is the table of {owner.name}, which has other names or colours. Choose another name.")
        if set(document) - {"format", "labels", "regions"}:
            document["rewritten"] = _REWRITTEN
    rows = [
        {"id": row.id, "name": row.name, "color": list(row.color), "locked": row.locked}
        | ({"accepted": True} if row.accepted else {})
        | ({"code": code} if (code := coded(row.name)) is not None else {})
        for row in regions
    ]
    return json_text({**document, "labels": labels.name, "regions": rows}, indent=1) + "\n"


def sidecar_owner(path: Path, labels: Path) -> Path | None:
    """Give the other labels in the folder that a JSON file belongs to; None where it may be that of `labels`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = document.get("labels") if isinstance(document, dict) else None
    if isinstance(name, str):
        others = [path.with_name(Path(name).name)]
    else:  # of a version that did not say whose it is
        others = sorted(one for one in path.parent.glob(f"{glob_escape(path.stem)}.*") if file_suffix(one) in _LABELS)
    return next((one for one in others if one.name != labels.name and one.is_file()), None)


def read_table(path: Path) -> tuple[Region, ...]:
    """Read the regions from the JSON beside labels; none where there is no such file.

    Raises
    ------
    ReadError
        If the file is damaged.
    """
    if not path.is_file():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get("regions", [])
        regions = [
            Region(int(row["id"]), str(row["name"]), _color(row["color"]), bool(row.get("locked", False)), bool(row.get("accepted", False)))
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ReadError(f"The region table {path} is damaged. Repair it, or move it away to read the labels without names.") from err
    return tuple(region for region in regions if region.id > BACKGROUND)


def _color(values: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _ours(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not str(document.get("format", "")).startswith("strata-labels"):
        raise WriteError(f"{path} is not Strata's and would be replaced. Choose another name for the labels.")
    return document


def _named(regions: Sequence[Region]) -> dict[int, Region]:
    """Give what a table says beyond the default names."""
    return {region.id: region for region in regions if (region,) != default_regions([region.id])}
