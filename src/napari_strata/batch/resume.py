"""Earlier results: what is up to date, what is made again, what a person changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from napari_strata.batch.cases import is_of_case
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.results import shared_regions
from napari_strata.batch.recipe import Recipe
from napari_strata.errors import WriteError
from napari_strata.export.outputs import Outputs, read_sidecar
from napari_strata.io.atomic import same_file
from napari_strata.io.files import hash_file
from napari_strata.pipeline import versions


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """State of the earlier outputs of a scan, and what to do.

    Parameters
    ----------
    action : {"keep", "make", "leave"}
        "leave": labels that were changed since Strata made them; they are a person's
        work and stay.
    reason : str
        Why, in a few words.
    warning : str
        Warning of the codebook, the teaching or the replayed edits of kept labels.
    """

    action: str
    reason: str
    warning: str = ""


def check_earlier(scan: PlannedScan, outputs: Outputs, recipe: Recipe) -> EarlierResult:
    """Compare the earlier outputs of a scan with the recipe.

    Raises
    ------
    ReadError
        If the scan, its reference or its labels cannot be read.
    WriteError
        If the labels there belong to another scan that still exists, or were changed
        by a person. Or if they have a person's edits, and the numbers of another
        codebook or teaching.
    """
    document = read_sidecar(outputs.sidecar)
    if not outputs.labels.is_file():
        return EarlierResult(
            "make", "not made yet" if document is None else "its labels are gone"
        )
    if document is None or document.get("labels_sha256") != hash_file(outputs.labels):
        return _left_as_is(scan, outputs, document or {}, recipe)
    if document.get("replay") and scan.replay is None:
        return _with_edits(scan, outputs, document, recipe)
    if not outputs.table.is_file():
        return EarlierResult("make", "its table is gone")
    changed = [
        key
        for key, value in recipe.inputs_record(scan).items()
        if document.get(key) != value
    ]
    if document.get("versions", {}).get("napari-strata") != _version():
        changed.append("version")
    if document.get("scan", {}).get("sha256") != hash_file(scan.path):
        changed.append("scan")
    if changed:
        _check_id(scan, outputs, document.get("scan", {}))
        return EarlierResult("make", f"changed: {', '.join(changed)}")
    return EarlierResult("keep", "up to date", _warnings(document))


def _warnings(document: dict[str, Any]) -> str:
    """Return the warnings of labels that are kept: bad fit, lost edits."""
    warnings = (
        shared_regions(document).get("warning", ""),
        document.get("replay", {}).get("warning", ""),
    )
    return " ".join(warning for warning in warnings if warning)


def _with_edits(
    scan: PlannedScan, outputs: Outputs, document: dict[str, Any], recipe: Recipe
) -> EarlierResult:
    """Keep labels with replayed edits if no case for them is given now.

    Settings, seed, weights and version may have changed.

    Raises
    ------
    WriteError
        If they belong to another scan, or their numbers to another codebook or
        teaching: they would count as this scan's.
    """
    scan_record, with_edits = (
        document.get("scan", {}),
        f"{outputs.labels} has the edits of {document['replay'].get('case')}",
    )
    if scan_record.get("sha256") != hash_file(scan.path) or _is_other_part(
        scan, scan_record
    ):
        _check_id(scan, outputs, scan_record)
        raise WriteError(
            f"{with_edits}, made on another scan, or on this one before it changed"
            f" ({scan_record.get('path')}). It is left as it is; move it away to have"
            f" {scan.path} made, or choose another folder."
        )
    if shared_regions(document).get("sha256") != recipe.shared_sha256:
        raise WriteError(
            f"{with_edits}, on {_numbers(document)}, and this run has"
            f" {_numbers_now(recipe)}: the same number would mean something else. It is"
            " kept. Give --replay again to repeat the edits, or move it away to make"
            " the labels without them."
        )
    note = (
        f"{outputs.labels.name} has the edits of {document['replay'].get('case')}, and"
        " is kept without --replay."
    )
    return EarlierResult(
        "keep",
        "its labels have a person's edits",
        " ".join(one for one in (_warnings(document), note) if one),
    )


def _numbers(document: dict[str, Any]) -> str:
    """Return in words which numbers a sidecar's labels have."""
    return _numbers_in_words(
        "codebook" if document.get("codebook") else "teaching",
        shared_regions(document).get("sha256"),
    )


def _numbers_now(recipe: Recipe) -> str:
    return _numbers_in_words(
        "codebook" if recipe.codebook is not None else "teaching", recipe.shared_sha256
    )


def _numbers_in_words(kind: str, sha256: str | None) -> str:
    return (
        f"the numbers of the {kind} {sha256[:12]}"
        if sha256
        else "numbers of each scan's own"
    )


def _is_other_part(scan: PlannedScan, scan_record: dict[str, Any]) -> bool:
    """Return whether a scan is another series or volume of a sidecar's file."""
    chosen = (
        (scan_record.get("series"), scan.series),
        (scan_record.get("index"), scan.index),
    )
    return any(None not in pair and pair[0] != pair[1] for pair in chosen)


def _check_id(scan: PlannedScan, outputs: Outputs, scan_record: dict[str, Any]) -> None:
    """Refuse to replace the labels of another scan that had this id before.

    That scan still exists, unchanged.

    Raises
    ------
    WriteError
        If there is one.
    """
    earlier = Path(scan_record.get("path") or "")
    other = _is_other_part(scan, scan_record)
    if (
        not scan_record.get("path")
        or not earlier.exists()
        or (same_file(earlier, scan.path) and not other)
    ):
        return
    digest = hash_file(earlier)
    if digest == scan_record.get("sha256") and (
        other or digest != hash_file(scan.path)
    ):
        which = "".join(
            f", {name} {scan_record[name]}"
            for name in ("series", "index")
            if scan_record.get(name) is not None
        )
        raise WriteError(
            f"{outputs.labels.name} belongs to another scan of the same id,"
            f" {earlier}{which}, and would be replaced. Give each scan an id of its own"
            " in a list, or take another folder."
        )


def _left_as_is(
    scan: PlannedScan, outputs: Outputs, document: dict[str, Any], recipe: Recipe
) -> EarlierResult:
    """Keep labels that no sidecar of a batch belongs to: they are a person's work.

    Raises
    ------
    WriteError
        If they were drawn on another scan than this.
    """
    if scan.replay is not None and is_of_case(scan.replay, outputs.labels):
        return EarlierResult(
            "make", "its labels are its case's, whose edits are replayed"
        )
    scan_record = document.get("scan", {})
    if scan_record.get("sha256") and (
        scan_record["sha256"] != hash_file(scan.path)
        or _is_other_part(scan, scan_record)
    ):
        raise WriteError(
            f"{outputs.labels} was changed by hand and belongs to another scan, or to"
            f" this one before it changed ({scan_record.get('path')}). It is left as it is; move"
            f" it away to have {scan.path} made, or choose another folder."
        )
    numbers = ""
    if recipe.shared_sha256 not in (None, shared_regions(document).get("sha256")):
        numbers = (
            f" Nothing says that it has {_numbers_now(recipe)}, as the other scans"
            " have: do not compare its numbers with theirs."
        )
    what = "was changed since Strata made it" if document else "was not made by a batch"
    return EarlierResult(
        "leave",
        "its labels were changed" if document else "its labels are not a batch's",
        f"{outputs.labels.name} {what}; it is left and measured as it is. Move it away"
        f" to have it made anew.{numbers}",
    )


@cache
def _version() -> str:
    return versions()["napari-strata"]
