"""Page over a batch: one HTML file that shows at a glance which scans went wrong."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_strata.batch.outputs.names import PAGE
from napari_strata.batch.outputs.results import shared_regions, thumbnail_of
from napari_strata.batch.outputs.tables import Collected, ScanRow
from napari_strata.batch.workers.process import only_writer
from napari_strata.export.outputs import NOTICE
from napari_strata.filenames import json_text, printable
from napari_strata.io.atomic import atomic_path
from napari_strata.pipeline import versions
from napari_strata.proposal.codebook import codebook
from napari_strata.refine import transfer as taught


def write_page(tables: Collected, folder: str | Path) -> Path:
    """Write the page: a sortable table of all scans, outliers first.

    It has thumbnails, a plot of drift, settings and versions. It opens from the disk,
    loads nothing from the network, and contains no time: the same results give the same
    page.

    Parameters
    ----------
    tables : Collected
        From `collect`.
    folder : str or Path
        Of the outputs, with the thumbnails; the page is qc.html in it.

    Raises
    ------
    WriteError
        If it cannot be written, or another batch is writing to the folder.
    """
    target = Path(folder) / PAGE
    data = {
        "notice": NOTICE,
        **_limit(tables.rows),
        "scans": [_scan(row, Path(folder)) for row in tables.rows],
        "settings": _settings(tables.rows),
        "versions": versions(),
    }
    # "</script>" or "<!--" in a file's name must not end the script that carries the
    # data
    json_data = json_text(data, separators=(",", ":")).replace("<", "\\u003c")
    html = (
        (files("napari_strata.batch") / "page.html")
        .read_text(encoding="utf-8")
        .replace("__DATA__", json_data)
    )
    with only_writer(target.parent), atomic_path(target) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return target


def _limit(rows: tuple[ScanRow, ...]) -> dict[str, Any]:
    """Return the drift up to which a scan fits, and whether to a codebook or a teaching."""
    by_teaching = any("taught" in row.document for row in rows)
    return {
        "fits_below": taught.FITS_BELOW if by_teaching else codebook.FITS_BELOW,
        "fits_what": "teaching" if by_teaching else "codebook",
    }


def _scan(row: ScanRow, folder: Path) -> dict[str, Any]:
    result, document = row.result, row.document
    row_data: dict[str, Any] = {
        "id": result.scan.id,
        "path": printable(result.scan.path),
        "subject": printable(result.scan.subject),
        "session": printable(result.scan.session),
        "failed": result.status == "failed",
        "reason": result.reason,
        "warning": result.warning,
        "score": row.outlier.score,
        "outlier": row.outlier.is_outlier,
        "why": row.outlier.reason,
    }
    if not document:
        return row_data
    shared, quality = shared_regions(document), document.get("quality", {})
    return row_data | {
        "modality": document["scan"]["modality"],
        "shape": document["scan"]["shape_zyx"],
        "regions": len(document["regions"]),
        "ml": quality.get("labelled_ml"),
        "confidence": quality.get("confidence"),
        "drift": shared.get("drift"),
        "fits": shared.get("fits"),
        "unfit": _unfit(shared),
        "unlike": _unlike(document),
        "note": result.warning.replace(str(shared.get("warning") or "\n"), "").strip(),
        "image": _picture(thumbnail_of(result.scan, folder)),
    }


def _unlike(document: dict[str, Any]) -> list[str]:
    """Return what in a scan is unlike the rest of it, a line per region with reasons."""
    return [
        f"{one['volume_ml']:.3g} mL: {', '.join(one['reasons'])}"
        for one in document.get("unlike_the_rest", ())
        if one["reasons"]
    ]


def _unfit(shared: dict[str, Any]) -> str:
    """Return in a few words that a scan does not fit; "" if it does."""
    return f"drift {shared['drift']:.2f}" if shared and not shared["fits"] else ""


def _picture(path: Path) -> str:
    """Return a thumbnail as a data URI; "" if the file is missing."""
    try:
        return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode(
            "ascii"
        )
    except OSError:
        return ""


def _settings(rows: tuple[ScanRow, ...]) -> list[dict[str, Any]]:
    """Return the different settings of the scans, the most frequent first."""
    counted: dict[str, dict[str, Any]] = {}
    for row in rows:
        document = row.document
        if "settings" not in document:
            continue
        settings: dict[str, Any] = {
            "cut": " ".join(f"{n} {tree}" for tree, n in document["cut"].items()),
            "codebook": str(document.get("codebook", {}).get("sha256", "none"))[:12],
            "teaching": str(document.get("taught", {}).get("sha256", "none"))[:12],
            "encoder": str(document.get("weights_sha256") or "none")[:12],
            "seed": document["batch"]["seed"],
            "threads": document.get("run", {}).get("threads"),
            "device": document.get("run", {}).get("device"),
            "strata": document["versions"]["napari-strata"],
            **document["settings"],
        }
        entry = counted.setdefault(
            json.dumps(settings, sort_keys=True), settings | {"scans": 0}
        )
        entry["scans"] += 1
    return sorted(counted.values(), key=lambda settings: -settings["scans"])
