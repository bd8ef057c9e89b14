"""Labels with the files that belong beside them: JSON sidecar and region table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext
from napari_strata.export.document import (
    NOTICE,
    check_sidecar,
    document_text,
    labels_document,
    read_sidecar,
    scan_record,
)
from napari_strata.export.files import write as export
from napari_strata.export.tables import is_table, write_table
from napari_strata.io.atomic import Together, file_suffix, same_file
from napari_strata.io.files import LABEL_SUFFIXES, check_label_path, stage_labels
from napari_strata.io.labels.seg_nrrd import SUFFIX as SEG_NRRD
from napari_strata.io.sidecar import SIDECAR_FORMAT, sidecar_owner
from napari_strata.measure import measure_regions
from napari_strata.settings import ExportSettings
from napari_strata.volume import (
    BACKGROUND,
    Progress,
    Segmentation,
    Volume,
    no_progress,
)

__all__ = [
    "NOTICE",
    "SIDECAR_FORMAT",
    "Outputs",
    "check_outputs",
    "export_labels",
    "outputs_as_text",
    "outputs_beside",
    "read_sidecar",
    "scan_record",
    "write_outputs",
]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files that were written together.

    Parameters
    ----------
    labels, sidecar, table : Path
        Label volume, JSON sidecar, CSV region table.
    """

    labels: Path
    sidecar: Path
    table: Path


def outputs_beside(labels: str | Path) -> Outputs:
    """Return the files that belong to a label file.

    labels.json and labels.csv beside labels.nii.gz.
    """
    path = Path(labels)
    stem = path.name[: len(path.name) - len(file_suffix(path))]
    return Outputs(path, path.with_name(f"{stem}.json"), path.with_name(f"{stem}.csv"))


def check_outputs(labels: str | Path) -> None:
    """Check before any work that labels, sidecar and table can be written under a name.

    Raises
    ------
    WriteError
        If the ending is not known, or a JSON or CSV file that Strata did not write, or
        that belongs to other labels, stands where ours would go.
    """
    check_label_path(labels)
    named = outputs_beside(labels)
    check_sidecar(named.sidecar, named.labels)
    if named.table.exists() and not is_table(named.table):
        raise WriteError(
            f"{named.table} is not Strata's and would be replaced. Choose another name"
            " for the labels."
        )


def write_outputs(
    segmentation: Segmentation,
    volume: Volume,
    labels: str | Path,
    provenance: dict[str, Any],
    *,
    confidence: NDArray[np.floating] | None = None,
    together: Together | None = None,
) -> Outputs:
    """Write labels on the scan's own grid, with sidecar and table; all of them or none.

    Parameters
    ----------
    segmentation : Segmentation
        What to write.
    volume : Volume
        The scan, for intensity statistics and its file's hash.
    labels : str or Path
        The label file, for example labels.nii.gz.
    provenance : dict
        Plain values to keep in the sidecar: settings, seed, versions, timings.
    confidence : (z, y, x) float array, optional
        Of every voxel, for the table: ``proposal.confidence[proposal.supervoxels]``.
    together : Together, optional
        Other files that are written with them: all get their names when it closes, or
        none.

    Raises
    ------
    WriteError
        If anything cannot be written, or the labels would replace the scan; nothing
        stands under the final names then.
    """
    check_outputs(labels)
    named = outputs_beside(labels)
    if volume.path and same_file(named.labels, volume.path):
        raise WriteError(
            f"{named.labels} is the scan itself. Choose another name for the labels."
        )
    measures = measure_regions(segmentation, volume, confidence=confidence)
    document = labels_document(
        named.labels, volume, segmentation.regions, measures, provenance
    )
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(Together()) if together is None else together
        stage_labels(segmentation, named.labels, group, sidecar=False)
        write_table(measures, group.file(named.table), modality=volume.modality)
        group.file(named.sidecar).write_text(document_text(document), encoding="utf-8")
    return named


def export_labels(
    segmentation: Segmentation,
    known: ExportContext,
    path: str | Path,
    provenance: dict[str, Any],
    *,
    settings: ExportSettings | None = None,
    on_progress: Progress = no_progress,
) -> Path:
    """Export labels to a file.

    A label volume gets a sidecar and a table beside it; any other format is one file. A
    3D Slicer segmentation holds its names itself, and labels in a second format share the
    sidecar of the first, if the names are the same.

    Parameters
    ----------
    segmentation : Segmentation
        What to write.
    known : ExportContext
        The scan, without which there is no sidecar with provenance, and the confidence.
    path : str or Path
        Ends in one of `napari_strata.export.formats.EXPORT_SUFFIXES`.
    provenance : dict
        Plain values to keep in a sidecar.
    settings, on_progress
        See `napari_strata.write`.

    Raises
    ------
    WriteError
        If anything cannot be written; nothing stands under the final names then.
    """
    named = outputs_beside(path)
    holds_names = file_suffix(path) == SEG_NRRD
    shares = sidecar_owner(named.sidecar, named.labels) is not None
    is_volume = file_suffix(path) in LABEL_SUFFIXES and not holds_names and not shares
    if is_volume and known.scan is not None:
        return write_outputs(
            segmentation, known.scan, path, provenance, confidence=known.confidence
        ).labels
    return export(
        segmentation, path, known=known, settings=settings, on_progress=on_progress
    )


def only_regions(segmentation: Segmentation, ids: Collection[int]) -> Segmentation:
    """Return a segmentation in which every region except some is background."""
    kept = np.isin(segmentation.labels, list(ids))
    return Segmentation(
        np.where(kept, segmentation.labels, BACKGROUND).astype(
            segmentation.labels.dtype
        ),
        tuple(row for row in segmentation.regions if row.id in ids),
        segmentation.geometry,
    )


def outputs_as_text(outputs: Outputs) -> dict[str, str]:
    """Return the paths as plain text."""
    return {name: str(path) for name, path in asdict(outputs).items()}
