"""One scan of a batch, from file to files.

The same code runs in this process and on every worker.
"""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from napari_strata.batch.cases import edited
from napari_strata.batch.inputs.bids import sidecar_keys, write_label_table
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.results import (
    Layout,
    ScanResult,
    move_in_place,
    outputs_of,
    settle,
    thumbnail_of,
    unfinished_folder,
)
from napari_strata.batch.recipe import Recipe
from napari_strata.batch.resume import EarlierResult, look
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
from napari_strata.measure import agree, compare, join_by_overlap, measure_regions
from napari_strata.pipeline import encoder_in_use, propose_run, versions
from napari_strata.preprocess.regrid import labels_of_part
from napari_strata.report import thumbnail
from napari_strata.volume import Progress, Region, Segmentation, Volume, no_progress

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What was made of a scan, before it is written; confidence is that of every voxel."""

    segmentation: Segmentation
    volume: Volume
    confidence: NDArray[np.float32]
    said: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with a scan; small and plain, so that it can be sent to a worker.

    Parameters
    ----------
    folder : Path
        Where outputs go.
    recipe : Recipe
        The same for all scans.
    layout : {"flat", "bids"}
        How outputs are named.
    """

    folder: Path
    recipe: Recipe
    layout: Layout = "flat"

    def __call__(
        self, scan: PlannedScan, on_progress: Progress = no_progress
    ) -> ScanResult:
        """Make what is missing or changed; what goes wrong is in the result.

        Raises
        ------
        Cancelled
            From `on_progress`.
        """
        begun, outputs = time.perf_counter(), outputs_of(scan, self.folder, self.layout)
        reset_peak()
        result = self._run(scan, outputs, on_progress)
        if result.status == "kept":
            return result
        return replace(
            result, seconds=round(time.perf_counter() - begun, 2), peak_gb=peak_gb()
        )

    def standing(self, scan: PlannedScan) -> ScanResult | None:
        """Give the result of a scan whose outputs stand.

        None for one that there is something to do for, or that cannot be told.
        """
        outputs = outputs_of(scan, self.folder, self.layout)
        try:
            if not (
                outputs.labels.is_file() and thumbnail_of(scan, self.folder).is_file()
            ):
                return None
            recipe = self.recipe.of(scan)
            found = look(scan, outputs, recipe)
            return (
                None
                if found.action == "make"
                else self._kept(scan, outputs, recipe, found)
            )
        except (StrataError, OSError):
            return None  # it fails again where its reason is kept

    def _kept(
        self, scan: PlannedScan, outputs: Outputs, recipe: Recipe, found: EarlierResult
    ) -> ScanResult:
        """Give the result of a scan that is left as it is.

        Draw its picture if it is gone, and measure labels changed by hand anew.
        """
        target = thumbnail_of(scan, self.folder)
        if found.action == "keep" and target.is_file():
            return ScanResult(scan, outputs, "kept", warning=found.warning)
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
        if found.action == "leave":
            regions = table_rows(measure_regions(labels, volume), volume.modality)
            measured = {
                "scan": scan_record(volume),
                "cut": {},
                "versions": versions(),
                "regions": regions,
            }
        return ScanResult(
            scan, outputs, "kept", warning=found.warning, measured=measured
        )

    def _run(
        self, scan: PlannedScan, outputs: Outputs, on_progress: Progress
    ) -> ScanResult:
        trace = ""
        try:
            recipe = self.recipe.of(scan)
            settle(self.folder, outputs)
            found = look(scan, outputs, recipe)
            if found.action != "make":
                return self._kept(scan, outputs, recipe, found)
            with threadpool_limits(recipe.threads):
                warning = self._make(scan, outputs, recipe, on_progress)
        except Cancelled:
            raise
        except StrataError as err:
            reason = " ".join(str(err).split())
        except MemoryError:
            reason = (
                f"{scan.path} needs more memory than there is. Lower memory_gb or"
                " supervoxels, or run it on a larger machine."
            )
        except Exception as err:  # noqa: BLE001 - a fault of ours in one scan must not cost the others; its traceback is kept
            reason = (
                f"Unforeseen {type(err).__name__}: {' '.join(str(err).split())}. Please"
                " report it, with what batch.jsonl says."
            )
            trace = traceback.format_exc()
        else:
            return ScanResult(scan, outputs, "done", warning=warning)
        logger.info("%s failed: %s", scan.id, reason)
        return ScanResult(scan, outputs, "failed", reason, traceback=trace)

    def _make(
        self, scan: PlannedScan, outputs: Outputs, recipe: Recipe, on_progress: Progress
    ) -> str:
        """Propose one scan and write it.

        Give the warning that it fits neither codebook nor teaching, or "".
        """
        begun = time.perf_counter()
        on_progress(0, 1, "reading")
        volume = read(
            scan.path, index=scan.index, series=scan.series, modality=recipe.modality
        )
        read_seconds = round(time.perf_counter() - begun, 2)
        if recipe.teaching is not None:
            recipe.teaching.check(
                volume.modality,
                encoder_in_use(recipe.settings, recipe.weights),
                str(scan.path),
            )
        reference = None
        # before the work: what is no reference is refused now
        if scan.reference is not None:
            reference = read_labels(scan.reference, like=volume.geometry)
            reference = labels_of_part(
                reference,
                volume.geometry,
                what=f"The reference labels {scan.reference}",
            )
        proposal = proposal_of(volume, recipe, on_progress)
        said = {
            **proposal.provenance,
            **recipe.asked(scan),
            "seconds": {"read": read_seconds, **proposal.provenance["seconds"]},
        }
        painted = _painted(proposal, recipe)
        if scan.replay is not None:
            on_progress(0, 1, "replaying edits")
            painted = _edited(painted, scan.replay, proposal, recipe.shared)
        segmentation, sure = (
            painted.segmentation,
            painted.confidence[proposal.supervoxels],
        )
        said |= painted.said | {"quality": _quality(segmentation, sure)}
        if reference is not None:
            on_progress(0, 1, "comparing")
            said["agreement"] = _agreement(segmentation, reference)
        on_progress(0, 1, "writing")
        self._write(scan, outputs, _Result(segmentation, volume, sure, said))
        return painted.warning

    def _write(self, scan: PlannedScan, outputs: Outputs, result: _Result) -> None:
        """Write everything into a hidden folder, then move it to its names."""
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
                result.said,
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
            if look(scan, outputs, self.recipe.of(scan)).action == "leave":
                raise WriteError(
                    f"{outputs.labels} was changed by hand while the scan was in work,"
                    " and is left as it is."
                )
            move_in_place(moves)


@dataclass(frozen=True, slots=True, eq=False)
class _Painted:
    """A proposal in regions, with what the sidecar says of them.

    Confidence is that of every supervoxel.
    """

    segmentation: Segmentation
    confidence: NDArray[np.float32]
    said: dict[str, Any] = field(default_factory=dict)
    warning: str = ""


def _painted(proposal: Proposal, recipe: Recipe) -> _Painted:
    """Give a scan the tissues of the codebook, the regions that were taught.

    Or a cut of its own tree.
    """
    if recipe.codebook is not None:
        assigned = recipe.codebook.apply(proposal)
        warning = assigned.warning()
        said = {
            "sha256": recipe.codebook.sha256,
            **assigned.record(),
            "warning": warning,
        }
        return _Painted(
            assigned.segmentation(proposal),
            proposal.confidence,
            {"codebook": said},
            warning,
        )
    if recipe.teaching is not None:
        taught = recipe.teaching.apply(proposal)
        warning = taught.warning()
        said = {
            "sha256": recipe.teaching.sha256,
            **taught.record(proposal),
            "warning": warning,
        }
        return _Painted(
            taught.segmentation(proposal), taught.confidence, {"taught": said}, warning
        )
    cut = (
        proposal.tissues(recipe.n)
        if recipe.tree == "tissues"
        else proposal.regions(recipe.n)
    )
    return _Painted(cut, proposal.confidence)


def _edited(
    painted: _Painted, case: Path, proposal: Proposal, shared: tuple[Region, ...]
) -> _Painted:
    """Carry out the edits of the scan's case.

    What could not be is told beside what else is to be known.
    """
    found = edited(case, proposal, painted.segmentation, shared=shared)
    warning = " ".join(one for one in (painted.warning, found.warning) if one)
    return replace(
        painted,
        segmentation=found.segmentation,
        said={**painted.said, "replay": found.said},
        warning=warning,
    )


def _agreement(labels: Segmentation, reference: Segmentation) -> dict[str, Any]:
    """Score labels against a reference.

    Overlap, and the surfaces of regions joined into the classes that they overlap most.
    """
    said = compare(labels, reference).to_dict()
    rows = agree(join_by_overlap(labels, reference), reference)
    for measure in ("hd95_mm", "nsd", "volume_difference_ml"):
        values = {row.id: getattr(row, measure) for row in rows}
        name = (
            f"nsd_{rows[0].tolerance_mm:g}_mm" if measure == "nsd" and rows else measure
        )
        said[name] = {
            number: float(f"{value:.6g}") if math.isfinite(value) else None
            for number, value in values.items()
        }
    return said


def _save_picture(volume: Volume, segmentation: Segmentation, path: Path) -> None:
    thumbnail(volume, segmentation).save(path, format="WEBP", quality=72, method=4)


def proposal_of(
    volume: Volume, recipe: Recipe, on_progress: Progress = no_progress
) -> Proposal:
    """Propose with the settings of a recipe."""
    return propose_run(
        volume,
        recipe.settings,
        replace(recipe.run, threads=recipe.threads),
        weights=recipe.weights,
        on_progress=on_progress,
    )


def _quality(
    segmentation: Segmentation, confidence: NDArray[np.float32]
) -> dict[str, Any]:
    """Give what a scan is compared by with others: how much is labelled, and how sure that is."""
    inside = segmentation.labels > 0
    sure = float(confidence[inside].mean()) if inside.any() else None
    labelled_ml = int(inside.sum()) * segmentation.geometry.voxel_volume_mm3 / 1000
    return {
        "labelled_ml": float(f"{labelled_ml:.6g}"),
        "labelled_share": round(float(inside.mean()), 4),
        "confidence": None if sure is None else round(sure, 4),
    }
