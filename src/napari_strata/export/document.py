"""The JSON file beside labels.

Names, colours, codes and measures of the regions, the scan, and how the labels were
made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_strata.errors import WriteError
from napari_strata.export.tables import table_rows
from napari_strata.filenames import json_text
from napari_strata.io.hashing import hash_file
from napari_strata.io.labels.terms import coded
from napari_strata.io.sidecar import SIDECAR_FORMAT, sidecar_owner
from napari_strata.measure import RegionMeasure
from napari_strata.volume import Region, Volume, default_regions

NOTICE = "Research software: it proposes, a person decides. Not for diagnosis."


def labels_document(
    labels: Path,
    volume: Volume,
    regions: Sequence[Region],
    measures: Sequence[RegionMeasure],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of the JSON file beside labels, as plain values.

    Parameters
    ----------
    labels : Path
        The label file.
    volume : Volume
        The scan.
    regions : sequence of Region
        The region table; regions that it lacks get default names and colours.
    measures : sequence of RegionMeasure
        A row for each region.
    provenance : dict
        Plain values to keep: settings, seed, versions, timings, edits.
    """
    table = {
        region.id: region
        for region in (*default_regions(measure.id for measure in measures), *regions)
    }
    rows = [
        {**row, **_region_facts(table[measure.id])}
        for row, measure in zip(
            table_rows(measures, volume.modality), measures, strict=True
        )
    ]
    head = {
        "format": SIDECAR_FORMAT,
        "notice": NOTICE,
        "labels": labels.name,
        "scan": scan_record(volume),
    }
    return {**head, **provenance, "regions": rows}


def check_sidecar(sidecar: Path, labels: Path) -> None:
    """Check before any work that a JSON file may be replaced by that of some labels.

    Raises
    ------
    WriteError
        If Strata did not write it, or it belongs to other labels.
    """
    if sidecar.exists() and read_sidecar(sidecar) is None:
        raise WriteError(
            f"{sidecar} is not Strata's and would be replaced. Choose another name for"
            " the labels, or move it away."
        )
    if (owner := sidecar_owner(sidecar, labels)) is not None:
        raise WriteError(
            f"{sidecar} belongs to {owner.name} and would be replaced. Choose another"
            " name for the labels."
        )


def read_sidecar(path: str | Path) -> dict[str, Any] | None:
    """Read the JSON beside labels; None where there is no readable file of Strata's."""
    try:
        if not Path(path).is_file():
            return None
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return (
        document
        if isinstance(document, dict) and document.get("format") == SIDECAR_FORMAT
        else None
    )


def document_text(document: dict[str, Any]) -> str:
    """Return the text of the JSON file."""
    return json_text(document, indent=1) + "\n"


def scan_record(volume: Volume) -> dict[str, Any]:
    """Describe a scan for sidecars.

    The record holds the file, the volume or series chosen in it, its hash, the grid, the
    modality and what the reader mended.
    """
    geometry = volume.geometry
    return {
        "name": volume.name,
        "path": volume.path,
        "index": volume.index,
        "series": volume.series,
        "sha256": (
            hash_file(volume.path)
            if volume.path and Path(volume.path).exists()
            else None
        ),
        "modality": volume.modality,
        "shape_zyx": list(geometry.shape_zyx),
        "spacing_zyx_mm": [round(float(s), 6) for s in geometry.spacing_zyx_mm],
        "oblique": geometry.is_oblique,
        "notes": list(volume.notes),
    }


def _region_facts(region: Region) -> dict[str, Any]:
    """Return colour, lock, acceptance and code of a region, for the JSON file."""
    code = coded(region.name)
    facts: dict[str, Any] = {
        "color": list(region.color),
        "locked": region.locked,
        "accepted": region.accepted,
    }
    return facts if code is None else facts | {"code": code}
