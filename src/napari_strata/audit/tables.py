"""An audit as a table (TSV) and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_strata.audit.run import Disagreement, StructureAudit
from napari_strata.filenames import json_text, printable
from napari_strata.io.atomic import Together

COLUMNS = (
    "rank",
    "labels",
    "id",
    "name",
    "score",
    "reasons",
    "voxels",
    "x_mm",
    "y_mm",
    "z_mm",
    "edge_share",
    "edge_gain",
    "step_gain",
    "flat_share",
    "cut_share",
    "islands",
    "hole_share",
    "odd_slice",
    "partner",
    "volume_ratio",
)
"""Columns of the table; x, y, z are toward Right, Anterior, Superior."""


def table_text(audits: Sequence[StructureAudit]) -> str:
    """Return a table with one line per structure, the most suspicious first."""
    lines = ["\t".join(COLUMNS)]
    for rank, one in enumerate(audits, start=1):
        values = {
            "rank": rank,
            "labels": one.labels,
            "id": one.id,
            "name": one.name,
            "score": one.score,
            "reasons": "; ".join(one.reasons),
            "voxels": one.voxels,
            **dict(zip(("x_mm", "y_mm", "z_mm"), one.center_ras_mm, strict=True)),
            **(asdict(one.border) if one.border else {}),
            **(asdict(one.shape) if one.shape else {}),
            **(asdict(one.side) if one.side else {}),
        }
        lines.append("\t".join(_cell(values.get(column)) for column in COLUMNS))
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return printable(text.replace("\t", " "))


def document(
    audits: Sequence[StructureAudit], disagreements: Sequence[Disagreement]
) -> dict[str, Any]:
    """Return an audit as plain values."""
    return {
        "structures": [asdict(one) for one in audits],
        "disagreements": [asdict(one) for one in disagreements],
    }


def write_audit(
    path: Path,
    audits: Sequence[StructureAudit],
    disagreements: Sequence[Disagreement],
) -> None:
    """Write an audit as .tsv, or as .json with the disagreements.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    is_table = path.suffix.lower() == ".tsv"
    text = (
        table_text(audits)
        if is_table
        else json_text(document(audits, disagreements), indent=1)
    )
    with Together() as together:
        together.file(path).write_text(text, encoding="utf-8")
