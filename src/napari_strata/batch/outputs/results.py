"""Outputs of a scan: their names, how they are moved in place, and the result."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.names import (
    LABELS_STEM,
    THUMBNAILS,
    UNFINISHED_SUFFIXES,
)
from napari_strata.errors import StrataError, WriteError
from napari_strata.export.outputs import Outputs, outputs_beside, read_sidecar
from napari_strata.io.atomic import atomic_path, link_end
from napari_strata.io.files import hash_file

Layout = Literal["flat", "bids"]
"""Names of outputs: by the id of the scan, or as a BIDS derivative data set."""
_UNFINISHED_FOLDER = ".strata-batch-"
"""Start of the name of the hidden folder in which the outputs of a scan are made."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of one scan.

    Parameters
    ----------
    scan : PlannedScan
        The scan.
    outputs : Outputs
        Its labels, sidecar and table; if `status` is "failed" they are missing, or
        of an earlier run.
    status : {"done", "kept", "failed"}
        "kept": the outputs of an earlier run are up to date.
    reason : str
        Why it failed, in one line; "" otherwise.
    warning : str
        That the scan does not fit the codebook or the teaching, or that its labels were
        changed by hand; "" otherwise.
    seconds : float
        Duration; 0 if the outputs were kept.
    peak_gb : float or None
        Peak memory of the process (Linux only).
    worker : str
        Address of the worker; "" for this process.
    traceback : str
        Traceback of an unexpected error; "" otherwise.
    measured : dict or None
        For labels that were changed by hand: a sidecar's content for the labels as they
        are now.
    """

    scan: PlannedScan
    outputs: Outputs
    status: Literal["done", "kept", "failed"]
    reason: str = ""
    warning: str = ""
    seconds: float = 0.0
    peak_gb: float | None = None
    worker: str = ""
    traceback: str = ""
    measured: dict[str, Any] | None = None


def shared_regions(document: dict[str, Any]) -> dict[str, Any]:
    """Return a sidecar's record of the codebook or the teaching; empty without one."""
    return document.get("codebook") or document.get("taught") or {}


def layout_of(scans: Sequence[PlannedScan]) -> Layout:
    """Return the BIDS layout if all scans lie in one BIDS data set, else flat."""
    roots = {None if scan.bids is None else scan.bids.root for scan in scans}
    return "bids" if len(roots) == 1 and None not in roots else "flat"


def outputs_of(scan: PlannedScan, folder: Path, layout: Layout) -> Outputs:
    """Return the names of the labels, sidecar and table of a scan."""
    if layout == "flat" or scan.bids is None:
        return outputs_beside(folder / f"{scan.id}{LABELS_STEM}.nii.gz")
    stem = folder / scan.bids.labels_stem
    return Outputs(
        *(stem.with_name(stem.name + suffix) for suffix in (".nii.gz", ".json", ".tsv"))
    )


def thumbnail_of(scan: PlannedScan, folder: Path) -> Path:
    """Return the name of the picture of a scan for the page."""
    return folder / THUMBNAILS / f"{scan.id}.webp"


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside the outputs; it is removed at the end.

    Finished files are moved out of it before.

    Raises
    ------
    WriteError
        If it cannot be made.
    """
    made = folder / f"{_UNFINISHED_FOLDER}{secrets.token_hex(6)}"
    try:
        made.mkdir()
    except OSError as err:
        raise WriteError(
            f"Cannot write to {folder}: {err.strerror}. Choose another folder."
        ) from err
    try:
        yield made
    finally:
        _repair(made, folder)
        shutil.rmtree(made, ignore_errors=True)


def move_in_place(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move finished files to their names, the sidecar last.

    An earlier sidecar is first moved into the hidden folder, beside the new one. If the
    process is killed in between, `repair_interrupted` and `remove_unfinished` know by
    the two sidecars that the labels are a batch's. Labels never stand beside the
    sidecar of other labels.

    Parameters
    ----------
    moves : sequence of (Path, Path)
        Source and target, on the same disk; the last one is the sidecar.

    Raises
    ------
    WriteError
        If a file cannot be moved.
    """
    unfinished, sidecar = moves[-1]
    try:
        if sidecar.exists() and not sidecar.is_symlink():
            os.replace(sidecar, _earlier(unfinished))
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(source, target)
    except OSError as err:
        raise WriteError(
            f"Cannot write to {sidecar.parent}: {err.strerror}. Check that you may"
            " write there."
        ) from err


def _move(source: Path, target: Path) -> None:
    """Move a file to its final name.

    If that is a link, the file that it leads to is replaced, also on another disk.
    """
    end = link_end(target)
    if end == target:
        os.replace(source, target)
        return
    with atomic_path(target) as unfinished:
        shutil.copyfile(source, unfinished)


def repair_interrupted(folder: Path, outputs: Outputs) -> None:
    """Repair the outputs of a scan whose worker died while it moved them.

    No other process may work on the scan.
    """
    if outputs.labels.is_file() and not outputs.sidecar.exists():
        for hidden in folder.glob(f"{_UNFINISHED_FOLDER}*"):
            _repair_one(hidden / outputs.sidecar.relative_to(folder), outputs)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed batches left unfinished.

    No other batch may be writing there: see `only_writer`.
    """
    for left in (*folder.glob(".strata-*"), *(folder / THUMBNAILS).glob(".strata-*")):
        if left.is_dir() and left.name.startswith(_UNFINISHED_FOLDER):
            _repair(left, folder)
            shutil.rmtree(left, ignore_errors=True)
        elif left.is_file() and left.suffix in UNFINISHED_SUFFIXES:
            left.unlink(missing_ok=True)


def _earlier(unfinished: Path) -> Path:
    return unfinished.with_name(f"{unfinished.name}.earlier")


def _repair(hidden: Path, folder: Path) -> None:
    """Repair all outputs that have files in a hidden folder."""
    for unfinished in hidden.rglob("*.json"):
        sidecar = folder / unfinished.relative_to(hidden)
        _repair_one(unfinished, outputs_beside(sidecar.with_suffix(".nii.gz")))


def _repair_one(unfinished: Path, outputs: Outputs) -> None:
    """Move the earlier sidecar back to its labels, or remove new labels without one.

    Labels that neither sidecar knows are a person's, and stay.
    """
    if outputs.sidecar.exists() or not outputs.labels.is_file():
        return
    earlier = _earlier(unfinished)
    with contextlib.suppress(OSError, StrataError):
        recorded = [
            (read_sidecar(path) or {}).get("labels_sha256")
            for path in (earlier, unfinished)
        ]
        actual = hash_file(outputs.labels)
        if actual == recorded[0] != recorded[1]:
            os.replace(earlier, outputs.sidecar)
        elif actual in recorded:
            outputs.labels.unlink()


def check_names(scans: Sequence[PlannedScan], folder: Path, layout: Layout) -> None:
    """Refuse scans whose outputs would have one name.

    Raises
    ------
    WriteError
        If two would be written to one file.
    """
    taken: dict[Path, PlannedScan] = {}
    for scan in scans:
        labels = outputs_of(scan, folder, layout).labels
        other = taken.setdefault(labels, scan)
        if other is not scan:
            raise WriteError(
                f"{other.path} and {scan.path} would both be written to {labels.name}."
                " Leave one out, or run them separately."
            )
