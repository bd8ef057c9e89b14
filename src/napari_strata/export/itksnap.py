"""ITK-SNAP label descriptions.

A label description is a text table with the names and colours of labels. It is loaded
beside a label volume.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from napari_strata.errors import ReadError
from napari_strata.export.base import ExportFormat, ExportRequest
from napari_strata.filenames import ESCAPED
from napari_strata.volume import BACKGROUND, Region

_HEAD = """# ITK-SNAP label description, written by Strata
# IDX: label; R G B: colour, 0-255; A: opacity, 0-1; VIS, MSH: shown in slices and in 3D; \
LABEL: name
# IDX    R    G    B   A  VIS MSH LABEL
"""
_ROW = re.compile(
    r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.eE+-]+)\s+(\d+)\s+(\d+)\s+"(.*)"\s*$'
)


def description_text(regions: Iterable[Region]) -> str:
    """Return the region table as a label description.

    A double quote in a name, which the format cannot hold, becomes a single one.
    """
    rows = [(BACKGROUND, (0, 0, 0), 0, "Clear Label")]
    rows += [
        (region.id, region.color, 1, " ".join(region.name.replace('"', "'").split()))
        for region in regions
        if region.id != BACKGROUND
    ]
    lines = [
        f'{label:5d} {red:4d} {green:4d} {blue:4d}   {seen}   {seen}   {seen}  "{name}"'
        for label, (red, green, blue), seen, name in rows
    ]
    return _HEAD + "\n".join(lines) + "\n"


def is_description(path: str | Path) -> bool:
    """Return whether a file is a label description by Strata, from its first line."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline() == _HEAD.splitlines(keepends=True)[0]
    except (OSError, UnicodeDecodeError):
        return False


def read_description(path: str | Path) -> tuple[Region, ...]:
    """Read names and colours from a label description, ITK-SNAP's or ours.

    Raises
    ------
    ReadError
        If the file cannot be read, or a line is no row of such a table.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ReadError(
            f"Cannot read the label description {path}: {err}. Check the path."
        ) from err
    regions = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _ROW.match(line)
        if row is None:
            raise ReadError(
                f"Line {number} of {path} is no row of an ITK-SNAP label description."
                " Check that it is the right file."
            )
        label, red, green, blue = (int(part) for part in row.group(1, 2, 3, 4))
        if label != BACKGROUND:
            regions.append(
                Region(
                    label,
                    row.group(8),
                    (min(red, 255), min(green, 255), min(blue, 255)),
                )
            )
    return tuple(regions)


def _stage(request: ExportRequest) -> None:
    request.together.file(request.path).write_text(
        description_text(request.segmentation.regions), encoding="utf-8", errors=ESCAPED
    )


ITKSNAP_DESCRIPTION = ExportFormat(
    "ITK-SNAP label description",
    (".label", ".txt"),
    _stage,
    content="a label description (see --names)",
    is_ours=is_description,
)
