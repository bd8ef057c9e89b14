"""One table over all scans of a batch, and one of what failed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata.batch.run import ScanResult
from napari_strata.export.outputs import read_sidecar
from napari_strata.export.tables import table_columns
from napari_strata.io.atomic import atomic_path

_SCAN_COLUMNS = ("scan", "path", "series", "modality", "cut", "strata_version")
_CODEBOOK_COLUMNS = ("drift", "fits")
"""After the columns of the scan, where a codebook was used."""
_RENAMED = {"id": "region_id", "name": "region"}
_FAILURE_COLUMNS = ("scan", "path", "series", "reason")


@dataclass(frozen=True, slots=True)
class Collected:
    """The tables of a batch.

    Parameters
    ----------
    volumes, failures : Path
        Tab-separated text, UTF-8, one header line.
    """

    volumes: Path
    failures: Path


def collect(results: Sequence[ScanResult], folder: str | Path) -> Collected:
    """Write volumes.tsv and failures.tsv for the scans of a batch.

    volumes.tsv has one row per scan and region, with the unit in each column's name; CT intensities (`mean_hu`) and MR
    ones (`mean`, no unit) have columns of their own. A region's number means the same thing in one scan only: tissue 3
    of one scan is not tissue 3 of another, unless a codebook was used; then `drift` and `fits` say how well each scan
    fits it. failures.tsv has one row per scan that failed, with the reason.

    Parameters
    ----------
    results : sequence of ScanResult
        From `run_batch`. Scans of earlier batches in the same folder are not in the tables.
    folder : str or Path
        Where the tables go, replacing earlier ones.

    Raises
    ------
    WriteError
        If a table cannot be written.
    """
    target = Path(folder)
    documents = [(one, read_sidecar(one.outputs.sidecar)) for one in results if one.status != "failed"]
    rows = [row for one, document in documents if document for row in _volume_rows(one, document)]
    failed = [
        {"scan": one.scan.id, "path": str(one.scan.path), "series": one.scan.series, "reason": one.reason}
        for one in results
        if one.status == "failed"
    ]
    collected = Collected(target / "volumes.tsv", target / "failures.tsv")
    _write(collected.volumes, _volume_columns(rows), rows)
    _write(collected.failures, _FAILURE_COLUMNS, failed)
    return collected


def _volume_rows(result: ScanResult, document: dict[str, Any]) -> list[dict[str, Any]]:
    scan = {
        "scan": result.scan.id,
        "path": str(result.scan.path),
        "series": result.scan.series,
        "modality": document["scan"]["modality"],
        "cut": " ".join(f"{n} {tree}" for tree, n in document["cut"].items()),
        "strata_version": document["versions"]["napari-strata"],
    }
    if "codebook" in document:
        scan |= {"drift": document["codebook"]["drift"], "fits": "yes" if document["codebook"]["fits"] else "no"}
    columns = table_columns(scan["modality"])
    return [scan | {_RENAMED.get(name, name): region.get(name) for name in columns} for region in document["regions"]]


def _volume_columns(rows: list[dict[str, Any]]) -> list[str]:
    """Name the columns that the modalities among the rows need, in the order of the region table."""
    modalities = sorted({row["modality"] for row in rows}) or ["mr"]
    names = [_RENAMED.get(name, name) for modality in modalities for name in table_columns(modality)]
    fitted = _CODEBOOK_COLUMNS if any("drift" in row for row in rows) else ()
    return list(dict.fromkeys((*_SCAN_COLUMNS, *fitted, *names)))


def _write(path: Path, columns: Iterable[str], rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
