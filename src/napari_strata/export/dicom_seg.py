"""DICOM segmentations (SEG) through highdicom (extra `dicom`).

The segments refer to the source series and carry coded terms.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext, ExportFormat, ExportRequest
from napari_strata.io.dicom.headers import no_validation, read_headers
from napari_strata.io.grid import plain_grid, to_file_order
from napari_strata.io.labels.terms import SCHEME, term_of
from napari_strata.measure import require_same_grid
from napari_strata.settings import DicomSegments
from napari_strata.volume import (
    Region,
    Segmentation,
    Volume,
    default_regions,
    pack_labels,
    smallest_label_dtype,
)

logger = logging.getLogger(__name__)

_LONGEST_LABEL = 64
"""Longest SegmentLabel, in characters: the limit of DICOM's type LO."""
_TRACKED = re.compile(r"Strata region (\d+)$")
_NO_LIBRARY = "DICOM SEG needs highdicom and pydicom: install napari-strata[dicom]."


def check_series(scan: Volume | None, path: str | Path) -> Volume:
    """Check before any work that a DICOM SEG can be written, and return the scan.

    Raises
    ------
    WriteError
        If highdicom is missing, or the scan was not read from a DICOM series.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as err:
        raise WriteError(_NO_LIBRARY) from err
    grid = None if scan is None else scan.geometry.file
    if (
        scan is None
        or grid is None
        or grid.kind != "itk"
        or grid.suffix
        or not scan.path
    ):
        raise WriteError(
            f"Cannot write {path}: a DICOM SEG refers to the DICOM series that was"
            " segmented. Give the folder of that series as the scan (`--like FOLDER`),"
            " or choose another format."
        )
    return scan


def write_dicom_seg(
    segmentation: Segmentation,
    path: Path,
    scan: Volume,
    *,
    segments: DicomSegments = "binary",
) -> None:
    """Write a DICOM SEG that refers to every slice of the scan's series.

    Parameters
    ----------
    segmentation : Segmentation
        On the scan's grid. Regions without voxels are left out; the others are numbered
        from 1, in order of id, and carry their id as "Strata region 7" in TrackingID.
    path : Path
        The file; written as it stands, so lend it a temporary name.
    scan : Volume
        Read from a DICOM series.
    segments : {"binary", "labelmap"}
        One bit per voxel and segment, which every viewer reads, or DICOM's newer and
        smaller label map.

    Raises
    ------
    WriteError
        If highdicom is missing, the scan is no DICOM series, or there is nothing to
        write.
    GeometryError
        If the labels are not on the scan's grid.
    OSError
        If the file cannot be written; `atomic_path` tells the user.
    """
    require_same_grid(
        segmentation.geometry,
        check_series(scan, path).geometry,
        "The labels",
        "the scan",
    )
    grid = scan.geometry.file or plain_grid(scan.geometry)
    labels = to_file_order(segmentation.labels, grid).transpose(2, 1, 0)
    ids, numbers = pack_labels(labels)
    if not ids:
        raise WriteError(
            "There is no region with voxels, and a DICOM SEG without segments is not"
            " allowed. Choose another format."
        )
    if len(ids) > 65535:
        raise WriteError(
            f"A DICOM SEG holds at most 65535 segments, not {len(ids)}. Merge regions,"
            " or choose another format."
        )
    table = {
        region.id: region for region in (*default_regions(ids), *segmentation.regions)
    }
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    headers = read_headers(scan.path, scan.series)
    with no_validation():
        dataset = _make(
            headers,
            numbers.astype(smallest_label_dtype(len(ids))),
            [table[i] for i in ids],
            spacing,
            segments,
        )
        dataset.save_as(path)


def _make(
    headers: tuple[Any, ...],
    numbers: NDArray[np.unsignedinteger],
    regions: list[Region],
    spacing_mm: NDArray[np.float64],
    segments: DicomSegments,
) -> Any:
    """Make the SEG in memory.

    `numbers` are segment numbers (slice, row, column), spacings those of column, row
    and slice.
    """
    import highdicom as hd

    column, row, between = (float(f"{step:.10g}") for step in spacing_mm)
    for header in headers:
        if not header.get("SliceThickness"):
            header.SliceThickness = between
    return hd.seg.Segmentation(
        source_images=list(headers),
        pixel_array=numbers,
        segmentation_type=segments.upper(),
        segment_descriptions=[
            _describe(n, region) for n, region in enumerate(regions, 1)
        ],
        pixel_measures=hd.PixelMeasuresSequence(
            (row, column), float(headers[0].SliceThickness), between
        ),
        series_instance_uid=hd.UID(),
        series_number=int(headers[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="The Strata developers",
        manufacturer_model_name="Strata",
        software_versions=__version__,
        device_serial_number="none",
        content_label="STRATA",
        content_description="Regions proposed and refined with Strata; research",
        series_description="Strata regions",
        specific_character_set="ISO_IR 192",
    )


def _describe(number: int, region: Region) -> Any:
    import highdicom as hd
    from highdicom.color import CIELabColor

    term = term_of(region.name)
    name = " ".join(region.name.replace("\\", "/").split()) or f"region {region.id}"
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:_LONGEST_LABEL],
        segmented_property_category=hd.sr.CodedConcept(
            term.category.value, SCHEME, term.category.meaning
        ),
        segmented_property_type=hd.sr.CodedConcept(
            term.kind.value, SCHEME, term.kind.meaning
        ),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "Strata",
            hd.sr.CodedConcept("123107", "DCM", "Cluster Analysis"),
            __version__,
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"Strata region {region.id}",
        display_color=CIELabColor.from_rgb(*region.color),
    )
    if len(name) > _LONGEST_LABEL:
        described.SegmentDescription = name
    if term.side is not None:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [
            hd.sr.CodedConcept(term.side.value, SCHEME, term.side.meaning)
        ]
    return described


def _check(path: Path, context: ExportContext) -> None:
    check_series(context.scan, path)


def _stage(request: ExportRequest) -> None:
    unfinished = request.together.file(request.path)
    write_dicom_seg(
        request.segmentation,
        unfinished,
        check_series(request.context.scan, request.path),
        segments=request.settings.dicom_segments,
    )


DICOM_SEG = ExportFormat(
    "DICOM segmentation",
    (".dcm",),
    _stage,
    named_first=True,
    needs_series=True,
    check=_check,
)
