"""Label volumes as an export: NIfTI, 3D Slicer, NRRD, MetaImage and FreeSurfer."""

from __future__ import annotations

import logging

from napari_strata.errors import CaseError
from napari_strata.export.base import ExportFormat, ExportRequest
from napari_strata.export.document import document_text, labels_document
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import LABEL_SUFFIXES, stage_labels
from napari_strata.io.labels.seg_nrrd import SUFFIX as SEG_NRRD
from napari_strata.io.sidecar import table_text
from napari_strata.measure import measure_regions

logger = logging.getLogger(__name__)


def _stage_label_volume(request: ExportRequest) -> None:
    """Write a label volume and the JSON file beside it.

    If it is known how the labels were made, the JSON file holds measures, scan and
    provenance; else the region table only.
    """
    segmentation, path, together = request.segmentation, request.path, request.together
    scan, provenance = request.context.scan, request.context.provenance
    if (
        not request.sidecar
        or file_suffix(path) == SEG_NRRD
        or scan is None
        or provenance is None
    ):
        stage_labels(segmentation, path, together, sidecar=request.sidecar)
        return
    stem = path.name[: len(path.name) - len(file_suffix(path))]
    sidecar = path.with_name(f"{stem}.json")
    stage_labels(segmentation, path, together, sidecar=False)
    if table_text(sidecar, path, segmentation.regions) is None:
        return  # the same labels in another format already have this JSON file
    confidence = request.context.confidence
    try:
        measures = measure_regions(segmentation, scan, confidence=confidence)
    except CaseError as err:
        logger.warning("%s holds no intensities: %s", sidecar.name, err)
        measures = measure_regions(segmentation, confidence=confidence)
    document = labels_document(path, scan, segmentation.regions, measures, provenance)
    together.file(sidecar).write_text(document_text(document), encoding="utf-8")


NIFTI = ExportFormat("NIfTI labels", (".nii.gz", ".nii"), _stage_label_volume)
SLICER_SEGMENTATION = ExportFormat(
    "3D Slicer segmentation", (SEG_NRRD,), _stage_label_volume, stem="segmentation"
)
OTHER_VOLUMES = ExportFormat(
    "NRRD, MetaImage or FreeSurfer labels",
    tuple(
        suffix
        for suffix in LABEL_SUFFIXES
        if suffix not in (*NIFTI.suffixes, *SLICER_SEGMENTATION.suffixes)
    ),
    _stage_label_volume,
    stem="regions",
)
