"""One scan of a batch, from file to outputs.

The same code runs in this process and on every worker.
"""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from napari_strata.batch.cases import apply_case
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.bids_derivative import (
    sidecar_keys,
    write_label_table,
)
from napari_strata.batch.outputs.names import LOG
from napari_strata.batch.outputs.results import (
    Layout,
    ScanResult,
    move_in_place,
    outputs_of,
    repair_interrupted,
    thumbnail_of,
    unfinished_folder,
)
from napari_strata.batch.recipe import Recipe
from napari_strata.batch.resume import EarlierResult, check_earlier
from napari_strata.batch.workers.process import peak_gb, reset_peak
from napari_strata.errors import Cancelled, StrataError, WriteError
from napari_strata.export.outputs import (
    Outputs,
    check_outputs,
    outputs_beside,
    scan_record,
    write_outputs,
)
from napari_strata.export.tables import table_rows
from napari_strata.filenames import json_text
from napari_strata.io.atomic import atomic_path, same_file
from napari_strata.io.files import hash_file, read, read_labels
from napari_strata.labelling import label_proposal
from napari_strata.measure import agree, compare, join_by_overlap, measure_regions
from napari_strata.pipeline import encoder_in_use, propose_with, versions
from napari_strata.preprocess.regrid import labels_of_part
from napari_strata.report import thumbnail
from napari_strata.volume import Progress, Region, Segmentation, Volume, no_progress

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal

_UNLIKE = 3
"""Regions of a scan that the page names as unlike the rest of it, at most."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """Labels of a scan before they are written; `confidence` is per voxel."""

    segmentation: Segmentation
    volume: Volume
    confidence: NDArray[np.float32]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Task of one scan: plain values only, so that it can be sent to a worker.

    Parameters
    ----------
    folder : Path
        Output folder.
    recipe : Recipe
        What is done, the same for all scans.
    layout : {"flat", "bids"}
        Names of outputs.
    """

    folder: Path
    recipe: Recipe
    layout: Layout = "flat"

    def __call__(
        self, scan: PlannedScan, on_progress: Progress = no_progress
    ) -> ScanResult:
        """Make what is missing or changed; errors are kept in the result.

        Raises
        ------
        Cancelled
            From `on_progress`.
        """
        start, outputs = time.perf_counter(), outputs_of(scan, self.folder, self.layout)
        reset_peak()
        result = self._run(scan, outputs, on_progress)
        if result.status == "kept":
            return result
        return replace(
            result, seconds=round(time.perf_counter() - start, 2), peak_gb=peak_gb()
        )

    def earlier_result(self, scan: PlannedScan) -> ScanResult | None:
        """Return the result of a scan whose outputs are up to date.

        None if something is to be done, or cannot be checked.
        """
        outputs = outputs_of(scan, self.folder, self.layout)
        try:
            if not (
                outputs.labels.is_file() and thumbnail_of(scan, self.folder).is_file()
            ):
                return None
            recipe = self.recipe.of(scan)
            earlier = check_earlier(scan, outputs, recipe)
            return (
                None
                if earlier.action == "make"
                else self._kept_result(scan, outputs, recipe, earlier)
            )
        except (StrataError, OSError):
            return None  # it fails again in the task, where the reason is kept

    def _kept_result(
        self,
        scan: PlannedScan,
        outputs: Outputs,
        recipe: Recipe,
        earlier: EarlierResult,
    ) -> ScanResult:
        """Return the result of a scan that is kept.

        Draw its picture if that is missing, and measure labels that were changed by
        hand.
        """
        target = thumbnail_of(scan, self.folder)
        if earlier.action == "keep" and target.is_file():
            return ScanResult(scan, outputs, "kept", warning=earlier.warning)
        volume, labels = (
            read(
                scan.path,
                index=scan.index,
                series=scan.series,
                modality=recipe.modality,
            ),
            read_labels(outputs.labels),
        )
        target.parent.mkdir(exist_ok=True)
        with atomic_path(target) as unfinished:
            _save_picture(volume, labels, unfinished)
        measured = None
        if earlier.action == "leave":
            regions = table_rows(measure_regions(labels, volume), volume.modality)
            measured = {
                "scan": scan_record(volume),
                "cut": {},
                "versions": versions(),
                "regions": regions,
            }
        return ScanResult(
            scan, outputs, "kept", warning=earlier.warning, measured=measured
        )

    def _run(
        self, scan: PlannedScan, outputs: Outputs, on_progress: Progress
    ) -> ScanResult:
        trace = ""
        try:
            recipe = self.recipe.of(scan)
            repair_interrupted(self.folder, outputs)
            earlier = check_earlier(scan, outputs, recipe)
            if earlier.action != "make":
                return self._kept_result(scan, outputs, recipe, earlier)
            with threadpool_limits(recipe.threads):
                warning = self._make(scan, outputs, recipe, on_progress)
        except Cancelled:
            raise
        except StrataError as err:
            reason = " ".join(str(err).split())
        except MemoryError:
            reason = (
                f"{scan.path} needs more memory than there is. Lower memory_gb or"
                " supervoxels, or use a larger machine."
            )
        # a bug in one scan must not stop the others; its traceback is kept
        except Exception as err:  # noqa: BLE001
            reason = (
                f"Unexpected {type(err).__name__}: {' '.join(str(err).split())}. Please"
                f" report it, with the traceback in {LOG}."
            )
            trace = traceback.format_exc()
        else:
            return ScanResult(scan, outputs, "done", warning=warning)
        logger.info("%s failed: %s", scan.id, reason)
        return ScanResult(scan, outputs, "failed", reason, traceback=trace)

    def _make(
        self, scan: PlannedScan, outputs: Outputs, recipe: Recipe, on_progress: Progress
    ) -> str:
        """Propose one scan and write it; return the warning that it does not fit, or ""."""
        start = time.perf_counter()
        on_progress(0, 1, "reading")
        volume = read(
            scan.path, index=scan.index, series=scan.series, modality=recipe.modality
        )
        read_seconds = round(time.perf_counter() - start, 2)
        if recipe.teaching is not None:
            recipe.teaching.check(
                volume.modality,
                encoder_in_use(recipe.settings, recipe.weights),
                str(scan.path),
            )
        reference = None
        # read before the work, so that a bad reference is refused early
        if scan.reference is not None:
            reference = read_labels(scan.reference, like=volume.geometry)
            reference = labels_of_part(
                reference,
                volume.geometry,
                what=f"The reference labels {scan.reference}",
            )
        proposal = proposal_of(volume, recipe, on_progress)
        provenance = {
            **proposal.provenance,
            **recipe.inputs_record(scan),
            "seconds": {"read": read_seconds, **proposal.provenance["seconds"]},
        }
        labels = _labels_of(proposal, recipe)
        if scan.replay is not None:
            on_progress(0, 1, "replaying edits")
            labels = _with_edits(labels, scan.replay, proposal, recipe.shared)
        segmentation = labels.segmentation
        confidence = labels.confidence[proposal.supervoxels]
        provenance |= labels.record | {"quality": _quality(segmentation, confidence)}
        unlike = [one.record() for one in proposal.outliers(_UNLIKE)]
        provenance["unlike_the_rest"] = unlike
        if reference is not None:
            on_progress(0, 1, "comparing")
            provenance["agreement"] = _agreement(segmentation, reference)
        on_progress(0, 1, "writing")
        self._write(
            scan, outputs, _Result(segmentation, volume, confidence, provenance)
        )
        return labels.warning

    def _write(self, scan: PlannedScan, outputs: Outputs, result: _Result) -> None:
        """Write all outputs into a hidden folder, then move them to their names."""
        if same_file(outputs.labels, result.volume.path):
            raise WriteError(
                f"{outputs.labels} is the scan itself. Choose another folder."
            )
        check_outputs(outputs.labels)
        try:
            self._write_files(scan, outputs, result)
        except OSError as err:
            raise WriteError(
                f"Cannot write to {self.folder}: {err.strerror or err}. Check the space"
                " on the disk."
            ) from err

    def _write_files(
        self, scan: PlannedScan, outputs: Outputs, result: _Result
    ) -> None:
        with unfinished_folder(self.folder) as hidden:
            place = hidden / outputs.labels.parent.relative_to(self.folder)
            place.mkdir(parents=True, exist_ok=True)
            made = outputs_beside(place / outputs.labels.name)
            write_outputs(
                result.segmentation,
                result.volume,
                made.labels,
                result.provenance,
                confidence=result.confidence,
            )
            document = json.loads(made.sidecar.read_text(encoding="utf-8"))
            document["labels_sha256"] = hash_file(made.labels)
            if self.layout == "bids" and scan.bids is not None:
                document |= sidecar_keys(scan.bids, document)
                made = replace(made, table=made.table.with_suffix(".tsv"))
                write_label_table(made.table, document["regions"])
            made.sidecar.write_text(
                json_text(document, indent=1) + "\n", encoding="utf-8"
            )
            picture, target = hidden / "picture.webp", thumbnail_of(scan, self.folder)
            _save_picture(result.volume, result.segmentation, picture)
            moves = [
                (picture, target),
                (made.labels, outputs.labels),
                (made.table, outputs.table),
                (made.sidecar, outputs.sidecar),
            ]
            if check_earlier(scan, outputs, self.recipe.of(scan)).action == "leave":
                raise WriteError(
                    f"{outputs.labels} was changed by hand while the scan was processed,"
                    " and is kept."
                )
            move_in_place(moves)


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Labels of a scan, with the keys that its sidecar adds and its warning.

    `confidence` is that of each supervoxel.
    """

    segmentation: Segmentation
    confidence: NDArray[np.float32]
    record: dict[str, Any]
    warning: str


def _labels_of(proposal: Proposal, recipe: Recipe) -> _Labels:
    """Return the labels of a proposal by the codebook, the teaching or the cut."""
    labelled = label_proposal(proposal, recipe.source)
    record = {
        key: {**values, "warning": labelled.warning}
        for key, values in labelled.provenance.items()
    }
    return _Labels(labelled.segmentation, labelled.confidence, record, labelled.warning)


def _with_edits(
    labels: _Labels, case: Path, proposal: Proposal, shared: tuple[Region, ...]
) -> _Labels:
    """Return the labels after the edits of the scan's case."""
    replayed = apply_case(case, proposal, labels.segmentation, shared=shared)
    warnings = (labels.warning, replayed.warning)
    return replace(
        labels,
        segmentation=replayed.segmentation,
        record={**labels.record, "replay": replayed.record},
        warning=" ".join(warning for warning in warnings if warning),
    )


def _agreement(labels: Segmentation, reference: Segmentation) -> dict[str, Any]:
    """Return scores of labels against a reference: overlap, and surface distances.

    For the surfaces, regions are joined to the class that they overlap most.
    """
    scores = compare(labels, reference).to_dict()
    rows = agree(join_by_overlap(labels, reference), reference)
    for measure in ("hd95_mm", "nsd", "volume_difference_ml"):
        values = {row.id: getattr(row, measure) for row in rows}
        name = (
            f"nsd_{rows[0].tolerance_mm:g}_mm" if measure == "nsd" and rows else measure
        )
        scores[name] = {
            number: float(f"{value:.6g}") if math.isfinite(value) else None
            for number, value in values.items()
        }
    return scores


def _save_picture(volume: Volume, segmentation: Segmentation, path: Path) -> None:
    thumbnail(volume, segmentation).save(path, format="WEBP", quality=72, method=4)


def proposal_of(
    volume: Volume, recipe: Recipe, on_progress: Progress = no_progress
) -> Proposal:
    """Return the proposal of a scan as a recipe says."""
    return propose_with(
        volume,
        recipe.settings,
        replace(recipe.run, threads=recipe.threads),
        weights=recipe.weights,
        on_progress=on_progress,
    )


def _quality(
    segmentation: Segmentation, confidence: NDArray[np.float32]
) -> dict[str, Any]:
    """Return figures to compare scans by: labelled volume and mean confidence."""
    is_labelled = segmentation.labels > 0
    mean_confidence = (
        float(confidence[is_labelled].mean()) if is_labelled.any() else None
    )
    labelled_ml = int(is_labelled.sum()) * segmentation.geometry.voxel_volume_mm3 / 1000
    return {
        "labelled_ml": float(f"{labelled_ml:.6g}"),
        "labelled_share": round(float(is_labelled.mean()), 4),
        "confidence": None if mean_confidence is None else round(mean_confidence, 4),
    }
