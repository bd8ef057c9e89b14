"""File names with "{id}" or "{name}" in them, which stand for one file per region."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from napari_strata.errors import WriteError
from napari_strata.volume import Region, Segmentation, default_regions, label_ids

_FIELD = re.compile(r"\{(id|name)\}")
_UNKNOWN_FIELD = re.compile(r"\{(?!(?:id|name)\})[^{}]*\}")


def has_region_field(path: Path) -> bool:
    """Return whether "{id}" or "{name}" stands in the file name."""
    return _FIELD.search(path.name) is not None


def unknown_field(path: Path) -> str | None:
    """Return the first other text in braces of the file name; None if there is none."""
    other = _UNKNOWN_FIELD.search(path.name)
    return None if other is None else other[0]


def region_path(path: Path, region: Region) -> Path:
    """Return the path with a region's id and name in place of "{id}" and "{name}".

    Characters of a region's name that file systems reject become "_".
    """
    values = {
        "id": str(region.id),
        "name": re.sub(r"[^\w-]+", "_", region.name).strip("_") or "region",
    }
    return path.with_name(_FIELD.sub(lambda field: values[field[1]], path.name))


def region_paths(path: Path, regions: Iterable[Region]) -> list[Path]:
    """Return every file that an export to a path may write.

    The path itself, or one path per region if "{id}" or "{name}" stands in its name.
    """
    return (
        [region_path(path, region) for region in regions]
        if has_region_field(path)
        else [path]
    )


def output_paths(path: Path, segmentation: Segmentation) -> list[Path]:
    """Return the files that an export of a segmentation to a path writes.

    Raises
    ------
    WriteError
        If two regions would be written to one file.
    """
    if not has_region_field(path):
        return [path]
    ids = label_ids(segmentation.labels)
    table = {
        region.id: region for region in (*default_regions(ids), *segmentation.regions)
    }
    paths = [region_path(path, table[i]) for i in ids]
    if len({one.name.casefold() for one in paths}) < len(paths):
        raise WriteError(
            f"Cannot write {path}: two regions have the same name. Put {{id}} into the"
            " file's name too."
        )
    return paths
