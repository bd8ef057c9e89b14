"""The JSON beside a label file.

It holds the names, colours and locks of regions, and how the labels were made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from glob import escape as glob_escape
from pathlib import Path
from typing import Any

from napari_strata.errors import ReadError, WriteError
from napari_strata.filenames import json_text
from napari_strata.io.atomic import file_suffix
from napari_strata.io.labels.terms import coded
from napari_strata.volume import BACKGROUND, Region, default_regions

SIDECAR_FORMAT = "strata-labels-1"
_LABELS = (".nii", ".nii.gz", ".mgh", ".mgz", ".nrrd", ".mha")
_LONGEST = 2**28
"""Bytes: a larger JSON file is none of ours."""
_HEAD = 4096
_BOM = b"\xef\xbb\xbf"
_REWRITTEN = (
    "The labels and this table were written again later; what else stands here tells of"
    " the labels before."
)


def table_text(path: Path, labels: Path, regions: Sequence[Region]) -> str | None:
    """Return the text of the JSON file beside labels.

    None if the file of other labels already says the same, and is to stay.

    Parameters
    ----------
    path : Path
        The JSON file. What one of Strata's knows besides the regions is kept, and
        marked as older than the labels.
    labels : Path
        The labels that it is for.
    regions : sequence of Region
        Their table.

    Raises
    ------
    WriteError
        If Strata did not write the file that stands there, or it belongs to other
        labels and tells other names.
    """
    document: dict[str, Any] = {"format": SIDECAR_FORMAT}
    if path.is_file():
        document = _ours(path)
        owner = sidecar_owner(path, labels)
        if owner is not None:
            if _named(read_table(path)) == _named(regions):
                return None
            raise WriteError(
                f"{path} is the table of {owner.name}, which has other names or"
                " colours. Choose another name."
            )
        if set(document) - {"format", "labels", "regions"}:
            document["rewritten"] = _REWRITTEN
    rows = [
        {"id": row.id, "name": row.name, "color": list(row.color), "locked": row.locked}
        | ({"accepted": True} if row.accepted else {})
        | ({"code": code} if (code := coded(row.name)) is not None else {})
        for row in regions
    ]
    return (
        json_text({**document, "labels": labels.name, "regions": rows}, indent=1) + "\n"
    )


def sidecar_owner(path: Path, labels: Path) -> Path | None:
    """Return the other labels in the folder that a JSON file belongs to.

    None if it may belong to `labels`.
    """
    document = _document(path)
    if document is None:
        return None
    name = document.get("labels") if isinstance(document, dict) else None
    if isinstance(name, str):
        others = [path.with_name(Path(name).name)] if Path(name).name else []
    else:  # of a version that did not say whose it is
        others = sorted(
            one
            for one in path.parent.glob(f"{glob_escape(path.stem)}.*")
            if file_suffix(one) in _LABELS
        )
    return next(
        (one for one in others if one.name != labels.name and one.is_file()), None
    )


def read_table(path: Path) -> tuple[Region, ...]:
    """Read the regions from the JSON beside labels.

    Return no regions if there is no such file or another program wrote it.

    Raises
    ------
    ReadError
        If Strata wrote the file, and it is damaged.
    """
    return read_names(path)[0]


def has_table(path: Path) -> bool:
    """Return whether a JSON file beside an image holds a region table.

    The image is labels then. The table may be by Strata, damaged or not, or similar.
    """
    try:
        return bool(read_names(path)[0]) or (
            path.is_file() and _is_ours(_document(path))
        )
    except ReadError:
        return True


def read_names(path: Path) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Read the regions as `read_table` does, and give notes.

    A file of another program stands there.

    Raises
    ------
    ReadError
        If Strata wrote the file, and it is damaged.
    """
    if not path.is_file():
        return (), ()
    document = _document(path)
    rows = document.get("regions", []) if isinstance(document, dict) else None
    try:
        return _rows(rows), () if _is_ours(document) or rows else (_foreign(path),)
    except (ValueError, KeyError, TypeError, OverflowError) as err:
        if _is_ours(document) or (document is None and _mentions_us(path)):
            raise ReadError(
                f"The region table {path} is damaged. Repair it, or move it away to"
                " read the labels without names."
            ) from err
        return (), (_foreign(path),)


def _document(path: Path) -> Any:
    """Read a JSON file in any of Unicode's encodings; None for what is none."""
    try:
        if path.stat().st_size > _LONGEST:
            return None
        raw = path.read_bytes()
        return json.loads(raw.decode("utf-8-sig") if raw.startswith(_BOM) else raw)
    except (OSError, ValueError, RecursionError):
        return None


def _is_ours(document: Any) -> bool:
    return isinstance(document, dict) and str(document.get("format", "")).startswith(
        "strata-labels"
    )


def _mentions_us(path: Path) -> bool:
    """Return whether a damaged file was written by Strata, by its second line."""
    try:
        with path.open("rb") as file:
            return b'"strata-labels' in file.read(_HEAD)
    except OSError:
        return False


def _foreign(path: Path) -> str:
    return (
        f"{path.name} beside it holds no region table of Strata's, so the names of the"
        " regions are not taken from it."
    )


def _rows(rows: Any) -> tuple[Region, ...]:
    """Check and read the rows of a table.

    Raises
    ------
    ValueError, KeyError, TypeError, OverflowError
        If one is no row, or two are of one region.
    """
    if not isinstance(rows, list):
        raise TypeError("regions are no list")
    if not all(isinstance(row, dict) for row in rows):
        raise TypeError("a row is no object")
    regions = [
        Region(
            _id(row["id"]),
            _name(row["name"]),
            _color(row["color"]),
            bool(row.get("locked", False)),
            bool(row.get("accepted", False)),
        )
        for row in rows
    ]
    if len({region.id for region in regions}) < len(regions):
        raise ValueError("two rows of one region")
    return tuple(region for region in regions if region.id > BACKGROUND)


def _id(value: Any) -> int:
    number = int(value)
    if number != float(value) or not 0 <= number < 2**32 or isinstance(value, bool):
        raise ValueError(f"id {value}")
    return number


def _name(value: Any) -> str:
    # halves of characters cannot be written anywhere
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _color(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"colour {values}")
    return red, green, blue


def _ours(path: Path) -> dict[str, Any]:
    document = _document(path)
    if not _is_ours(document):
        raise WriteError(
            f"{path} is not Strata's and would be replaced. Choose another name for the"
            " labels, or move it away."
        )
    ours: dict[str, Any] = document
    return ours


def _named(regions: Sequence[Region]) -> dict[int, Region]:
    """Return the regions of a table that differ from the default ones."""
    return {
        region.id: region
        for region in regions
        if (region,) != default_regions([region.id])
    }
