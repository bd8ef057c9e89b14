"""Tables over all scans of a batch: volumes, scans, failures, changes, agreement."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata.batch.inputs.discovery import SkippedPath
from napari_strata.batch.outputs import names
from napari_strata.batch.outputs.outlier_scores import OutlierScore, outlier_scores
from napari_strata.batch.outputs.results import ScanResult, shared_regions
from napari_strata.batch.workers.process import only_writer
from napari_strata.export.outputs import read_sidecar
from napari_strata.export.tables import table_columns
from napari_strata.filenames import ESCAPED, printable
from napari_strata.io.atomic import atomic_path

logger = logging.getLogger(__name__)

_SCAN_COLUMNS = ("scan", "path", "series", "modality", "cut", "strata_version")
_CODEBOOK_COLUMNS = ("drift", "fits")
"""Columns after those of the scan, if a codebook or a teaching was used."""
_RENAMED = {"id": "region_id", "name": "region"}
_FAILURE_COLUMNS = ("scan", "path", "series", "reason")
_OVERVIEW_COLUMNS = (
    *(
        "scan",
        "path",
        "series",
        "subject",
        "session",
        "kind",
        "status",
        "reason",
        "warning",
        "modality",
    ),
    *(
        "shape_zyx",
        "spacing_zyx_mm",
        "regions",
        "labelled_ml",
        "labelled_share",
        "confidence",
        "drift",
        "fits",
    ),
    *("edits", "edits_lost"),
    *("outlier_score", "outlier", "outlier_by", "strata_version"),
)
_CHANGE_COLUMNS = (
    *(
        "subject",
        "kind",
        "session",
        "scan",
        "region_id",
        "region",
        "volume_ml",
        "first_session",
        "change_from_first_ml",
    ),
    *(
        "change_from_first_percent",
        "change_from_previous_ml",
        "change_from_previous_percent",
        "fits",
    ),
)
_REPLAY_COLUMNS = ("scan", "case", "number", "edit", "status", "why")
_AGREEMENT_COLUMNS = ("scan", "measure", "class", "value")


@dataclass(frozen=True, slots=True)
class ScanRow:
    """A scan with its sidecar.

    Parameters
    ----------
    result : ScanResult
        Result of the scan.
    document : dict
        Its sidecar; empty for a scan that failed.
    outlier : OutlierScore
        How much it differs from the others.
    """

    result: ScanResult
    document: dict[str, Any]
    outlier: OutlierScore


@dataclass(frozen=True, slots=True)
class Collected:
    """Tables of a batch.

    Parameters
    ----------
    volumes, scans, failures : Path
        Tab-separated text, UTF-8, one header line.
    changes, agreement, replay : Path or None
        None if there are no follow-ups with a codebook or a teaching, no references, or
        no replayed edits.
    rows : tuple of ScanRow
        The scans, with the sidecars that the tables were made from.
    """

    volumes: Path
    scans: Path
    failures: Path
    changes: Path | None
    agreement: Path | None
    replay: Path | None
    rows: tuple[ScanRow, ...]


def collect(
    results: Sequence[ScanResult],
    folder: str | Path,
    passed: Sequence[SkippedPath] = (),
) -> Collected:
    """Write the tables for the scans of a batch.

    volumes.tsv has one row per scan and region, with the unit in each column's name; CT
    intensities (`mean_hu`) and MR ones (`mean`, no unit) have separate columns. A
    region's number has a meaning in its own scan only: tissue 3 of one scan is not
    tissue 3 of another, unless a codebook or a teaching was used. Then `drift` and
    `fits` are how well each scan fits it. scans.tsv has one row per scan, with its
    outlier score. failures.tsv has one row per scan that failed, with the reason, and
    one row without an id per image that was skipped. changes.tsv has the volume of each
    region in each session of a subject, with its change, if a codebook or a teaching
    was used. agreement.tsv has the scores of scans with a reference. replay.tsv has the
    result of each replayed edit. No table has times, or whether a scan was kept: a run
    that was stopped and continued ends with the same tables.

    Parameters
    ----------
    results : sequence of ScanResult
        From `run_batch`. Scans of earlier batches in the same folder are left out.
    folder : str or Path
        Folder of the tables; earlier ones are replaced.
    passed : sequence of SkippedPath
        What the search skipped, for failures.tsv.

    Raises
    ------
    WriteError
        If a table cannot be written, or another batch is writing to the folder.
    """
    target = Path(folder)
    rows = _rows(results)
    made = [row for row in rows if row.document]
    volumes = [line for row in made for line in _volume_rows(row)]
    failed = [
        _scan_cells(row.result) | {"reason": row.result.reason}
        for row in rows
        if row.result.status == "failed"
    ]
    failed += [
        {"path": printable(one.path), "reason": f"passed over: {one.reason}"}
        for one in passed
    ]
    changes, agreement = (
        list(_change_rows(made)),
        [line for row in made for line in _agreement_rows(row)],
    )
    replay = [line for row in made for line in _replay_rows(row)]
    with only_writer(target):
        _write(target / names.VOLUMES, _volume_columns(volumes), volumes)
        _write(
            target / names.SCANS, _OVERVIEW_COLUMNS, [_overview(row) for row in rows]
        )
        _write(target / names.FAILURES, _FAILURE_COLUMNS, failed)
        return Collected(
            volumes=target / names.VOLUMES,
            scans=target / names.SCANS,
            failures=target / names.FAILURES,
            changes=_write_or_remove(target / names.CHANGES, _CHANGE_COLUMNS, changes),
            agreement=_write_or_remove(
                target / names.AGREEMENT, _AGREEMENT_COLUMNS, agreement
            ),
            replay=_write_or_remove(target / names.REPLAY, _REPLAY_COLUMNS, replay),
            rows=rows,
        )


def _rows(results: Sequence[ScanResult]) -> tuple[ScanRow, ...]:
    documents = [
        (
            {}
            if one.status == "failed"
            else one.measured or whole_sidecar(one.outputs.sidecar)
        )
        for one in results
    ]
    scores = iter(
        outlier_scores([document for document in documents if "quality" in document])
    )
    no_score = OutlierScore(None, "")
    return tuple(
        ScanRow(one, document, next(scores) if "quality" in document else no_score)
        for one, document in zip(results, documents, strict=True)
    )


def whole_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of a batch; empty if other labels were saved over it."""
    document = read_sidecar(path) or {}
    return document if {"scan", "cut", "versions", "regions"} <= set(document) else {}


def _scan_cells(result: ScanResult) -> dict[str, Any]:
    return {
        "scan": result.scan.id,
        "path": printable(result.scan.path),
        "series": result.scan.series,
    }


def _fit_cells(document: dict[str, Any]) -> dict[str, Any]:
    shared = shared_regions(document)
    return (
        {"drift": shared["drift"], "fits": "yes" if shared["fits"] else "no"}
        if shared
        else {}
    )


def _volume_rows(row: ScanRow) -> list[dict[str, Any]]:
    document = row.document
    scan = {
        **_scan_cells(row.result),
        "modality": document["scan"]["modality"],
        "cut": (
            " ".join(f"{n} {tree}" for tree, n in document["cut"].items())
            or "changed by hand"
        ),
        "strata_version": document["versions"]["napari-strata"],
        **_fit_cells(document),
    }
    columns = table_columns(scan["modality"])
    return [
        scan | {_RENAMED.get(name, name): region.get(name) for name in columns}
        for region in document["regions"]
    ]


def _volume_columns(rows: list[dict[str, Any]]) -> list[str]:
    """Return the columns that the modalities of the rows need, in table order."""
    modalities = sorted({row["modality"] for row in rows}) or ["mr"]
    names = [
        _RENAMED.get(name, name)
        for modality in modalities
        for name in table_columns(modality)
    ]
    fitted = _CODEBOOK_COLUMNS if any("drift" in row for row in rows) else ()
    return list(dict.fromkeys((*_SCAN_COLUMNS, *fitted, *names)))


def _overview(row: ScanRow) -> dict[str, Any]:
    result, document = row.result, row.document
    scan = result.scan
    cells = {
        **_scan_cells(result),
        "subject": printable(scan.subject),
        "session": printable(scan.session),
        "kind": printable(scan.kind),
        "status": "failed" if result.status == "failed" else "ok",
        "reason": result.reason,
        "warning": result.warning,
        "outlier_score": row.outlier.score,
        "outlier": (
            "yes"
            if row.outlier.is_outlier
            else "no"
            if row.outlier.score is not None
            else ""
        ),
        "outlier_by": row.outlier.reason if row.outlier.is_outlier else "",
    }
    if not document:
        return cells
    grid = {
        key: " ".join(f"{n:g}" for n in document["scan"][key])
        for key in ("shape_zyx", "spacing_zyx_mm")
    }
    about = {
        "modality": document["scan"]["modality"],
        "regions": len(document["regions"]),
        "strata_version": document["versions"]["napari-strata"],
    }
    replay = document.get("replay", {})
    edits = {"edits": replay["edits"], "edits_lost": replay["lost"]} if replay else {}
    return (
        cells
        | grid
        | about
        | document.get("quality", {})
        | _fit_cells(document)
        | edits
    )


def _change_rows(rows: Sequence[ScanRow]) -> Iterator[dict[str, Any]]:
    """Yield the volume of each region of a subject in each session, with its change.

    Only scans with the same codebook or teaching are compared.
    """
    groups: dict[tuple[str, str, str], list[ScanRow]] = {}
    for row in rows:
        scan, shared = row.result.scan, shared_regions(row.document)
        if shared and scan.subject and scan.session:
            groups.setdefault((scan.subject, scan.kind, shared["sha256"]), []).append(
                row
            )
    for (subject, kind, _), group in groups.items():
        group.sort(
            key=lambda row: (_in_order(row.result.scan.session), row.result.scan.id)
        )
        if len({row.result.scan.session for row in group}) < 2:
            continue
        volumes = [
            {region["id"]: region["volume_ml"] for region in row.document["regions"]}
            for row in group
        ]
        names = {
            region["id"]: region["name"]
            for row in group
            for region in row.document["regions"]
        }
        for place, row in enumerate(group):
            scan = row.result.scan
            start = {
                "subject": subject,
                "kind": kind,
                "session": scan.session,
                "scan": scan.id,
                **_fit_cells(row.document),
            }
            start["first_session"] = group[0].result.scan.session
            for region, name in sorted(names.items()):
                series = [one.get(region, 0.0) for one in volumes[: place + 1]]
                yield start | {
                    "region_id": region,
                    "region": name,
                    "volume_ml": series[-1],
                    **_changes(series),
                }


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key for names: session 2 comes before session 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part.casefold())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _changes(series: list[float]) -> dict[str, Any]:
    """Return the change of the last volume from the first and from the one before.

    The percentage of nothing is None.
    """
    if len(series) < 2:
        return {}
    changes: dict[str, Any] = {}
    for word, before in (("first", series[0]), ("previous", series[-2])):
        changes[f"change_from_{word}_ml"] = float(f"{series[-1] - before:.6g}")
        changes[f"change_from_{word}_percent"] = (
            float(f"{100 * (series[-1] - before) / before:.4g}") if before else None
        )
    return changes


def _agreement_rows(row: ScanRow) -> Iterator[dict[str, Any]]:
    for measure, value in row.document.get("agreement", {}).items():
        for name, one in value.items() if isinstance(value, dict) else (("", value),):
            yield {
                "scan": row.result.scan.id,
                "measure": measure,
                "class": name,
                "value": one,
            }


def _replay_rows(row: ScanRow) -> Iterator[dict[str, Any]]:
    replay = row.document.get("replay", {})
    for step in replay.get("steps", ()):
        yield {
            "scan": row.result.scan.id,
            "case": printable(replay["case"]),
            **step,
            "edit": step["name"],
        }


def _write_or_remove(
    path: Path, columns: Iterable[str], rows: list[dict[str, Any]]
) -> Path | None:
    if rows:
        _write(path, columns, rows)
        return path
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(
        "\t".join(columns)
    ):
        path.unlink()  # written by an earlier run
    return None


def _write(path: Path, columns: Iterable[str], rows: list[dict[str, Any]]) -> None:
    with (
        atomic_path(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors=ESCAPED) as file,
    ):
        writer = csv.DictWriter(
            file,
            list(columns),
            delimiter="\t",
            lineterminator="\n",
            restval="",
            extrasaction="ignore",
        )
        writer.writeheader()
        writer.writerows(rows)
