"""The one way out: a segmentation to any format, as a file's name ends.

The labels of any format back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import CaseError, WriteError
from napari_strata.export.dicom_seg import check_series, write_dicom_seg
from napari_strata.export.document import document_text, labels_document
from napari_strata.export.itksnap import DESCRIPTION_SUFFIXES, description_text
from napari_strata.export.mesh import region_meshes
from napari_strata.export.mesh_files import MESH_SUFFIXES, stage_meshes
from napari_strata.export.tables import TABLE_SUFFIXES, check_parquet, write_table
from napari_strata.export.targets import check_distinct, check_may_replace
from napari_strata.filenames import ESCAPED
from napari_strata.io import files
from napari_strata.io.atomic import Together, file_suffix
from napari_strata.io.files import LABEL_SUFFIXES, stage_labels
from napari_strata.io.labels.seg_nrrd import SUFFIX as SEG_NRRD
from napari_strata.io.sidecar import table_text
from napari_strata.measure import (
    agree,
    join_by_overlap,
    measure_regions,
    require_same_grid,
)
from napari_strata.preprocess.regrid import labels_on_grid
from napari_strata.settings import ExportSettings
from napari_strata.volume import (
    Geometry,
    Progress,
    Region,
    Segmentation,
    Volume,
    default_regions,
    label_ids,
    no_progress,
)

logger = logging.getLogger(__name__)

DICOM_SUFFIX = ".dcm"
FORMATS = {
    "NIfTI labels": (".nii.gz", ".nii"),
    "3D Slicer segmentation": (".seg.nrrd",),
    "DICOM segmentation": (DICOM_SUFFIX,),
    "NRRD, MetaImage or FreeSurfer labels": tuple(
        suffix for suffix in LABEL_SUFFIXES if not suffix.startswith((".nii", ".seg"))
    ),
    "Surfaces": MESH_SUFFIXES,
    "ITK-SNAP label description": DESCRIPTION_SUFFIXES,
    "Table of measures": TABLE_SUFFIXES,
}
"""What `write` makes, for people, with the endings of the names in lower case."""
EXPORT_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Endings that `write` knows, in lower case."""

_FIELD = re.compile(r"\{(id|name)\}")
_OTHER_FIELD = re.compile(r"\{(?!(?:id|name)\})[^{}]*\}")


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known besides the labels; formats take what they need.

    Parameters
    ----------
    scan : Volume or None
        The scan that the labels lie on. DICOM SEG needs it, tables take intensities
        from it, label files its own grid.
    confidence : (z, y, x) float array or None
        Of every voxel, in [0, 1], for tables:
        ``proposal.confidence[proposal.supervoxels]``.
    reference : Segmentation or None
        Labels to compare with, for tables: id by id, or with
        ``ExportSettings(match="overlap")`` after regions were joined.
    provenance : dict or None
        How the labels were made (settings, seed, versions, edits), as plain values for
        the JSON beside a label volume, which then tells measures and the scan, too.
    """

    scan: Volume | None = None
    confidence: NDArray[np.floating] | None = None
    reference: Segmentation | None = None
    provenance: dict[str, Any] | None = None


def write(
    segmentation: Segmentation,
    path: str | Path,
    *,
    scan: Volume | None = None,
    known: Known | None = None,
    settings: ExportSettings | None = None,
    sidecar: bool = True,
    on_progress: Progress = no_progress,
) -> Path:
    """Write a segmentation in the format that the name ends in.

    ============================================
    ========================================================= .nii .nii.gz .nrrd .mha
    .mgh .mgz              label volume on the scan's own grid, region table beside it
    .seg.nrrd                                      the same for 3D Slicer, names and
    colours inside .dcm                                           DICOM SEG that refers
    to the scan's series (extra `dicom`) .stl .obj .ply
    closed surfaces in mm .label .txt                                    ITK-SNAP label
    description (names and colours only) .csv .tsv .parquet
    one row of measures per region ============================================
    =========================================================

    Parameters
    ----------
    segmentation : Segmentation
        Labels, region table and geometry.
    path : str or Path
        The file. For meshes "{id}" and "{name}" in it stand for each region's, and give
        a file per region.
    scan : Volume, optional
        The scan that the labels lie on; short for ``known=Known(scan)``.
    known : Known, optional
        Scan, confidence and reference.
    settings : ExportSettings, optional
        Space and smoothing of meshes, kind of DICOM SEG, tolerance.
    sidecar : bool
        Whether label volumes get labels.json beside labels.nii.gz.
    on_progress : callable
        Raise `Cancelled` in it to stop; nothing is written then.

    Returns
    -------
    Path
        The file, or the folder of the files.

    Raises
    ------
    WriteError
        If the ending is not known, what the format needs is missing, the scan would be
        replaced, or a file cannot be written; nothing new stands under any final name
        then.
    GeometryError
        If labels, scan and reference do not lie on one grid; `labels_on_grid` brings
        labels to a scan's.

    Examples
    --------
    >>> tissues = proposal.tissues(4)
    >>> strata.write(tissues, "labels.nii.gz").name  # and labels.json beside it
    'labels.nii.gz'
    >>> strata.write(tissues, "measures.csv", scan=volume).name
    'measures.csv'
    """
    if known is None or known.scan is None:
        known = replace(known or Known(), scan=scan)
    elif scan is not None and scan is not known.scan:
        raise WriteError(
            f"Cannot write {path}: `scan` and `known.scan` are two scans. Give one of"
            " them."
        )
    return write_together(
        segmentation,
        [path],
        known=known,
        settings=settings,
        sidecar=sidecar,
        on_progress=on_progress,
    )[0]


def write_together(
    segmentation: Segmentation,
    paths: Sequence[str | Path],
    *,
    known: Known | None = None,
    settings: ExportSettings | None = None,
    sidecar: bool = True,
    on_progress: Progress = no_progress,
) -> tuple[Path, ...]:
    """Write a segmentation in several formats; all files or none. See `write`."""
    chosen, beside = settings or ExportSettings(), known or Known()
    targets = [Path(path) for path in paths]
    check_paths(targets, beside)
    if beside.scan is not None:
        require_same_grid(
            segmentation.geometry, beside.scan.geometry, "The labels", "the scan"
        )
        segmentation = replace(segmentation, geometry=beside.scan.geometry)
    owned = {target: _own_paths(target, segmentation) for target in targets}
    check_distinct(path for paths in owned.values() for path in paths)
    with Together() as together:
        for target in targets:
            suffix = file_suffix(target)
            if suffix in LABEL_SUFFIXES:
                _stage_labels(segmentation, target, together, beside, sidecar=sidecar)
            elif suffix == DICOM_SUFFIX:
                unfinished = together.file(target)
                write_dicom_seg(
                    segmentation,
                    unfinished,
                    check_series(beside.scan, target),
                    segments=chosen.dicom_segments,
                )
            elif suffix in MESH_SUFFIXES:
                _stage_surfaces(segmentation, target, together, chosen, on_progress)
            elif suffix in DESCRIPTION_SUFFIXES:
                together.file(target).write_text(
                    description_text(segmentation.regions),
                    encoding="utf-8",
                    errors=ESCAPED,
                )
            else:
                _stage_table(segmentation, target, together, beside, chosen)
    return tuple(
        target.parent if _FIELD.search(target.name) else target for target in targets
    )


def check_paths(paths: Sequence[Path], known: Known) -> None:
    """Say early that something cannot be written.

    Raises
    ------
    WriteError
        See `write`.
    """
    for path in paths:
        suffix = file_suffix(path)
        if suffix not in EXPORT_SUFFIXES:
            raise WriteError(
                f"Cannot write {path}: the name must end in"
                f" {', '.join(EXPORT_SUFFIXES[:-1])} or {EXPORT_SUFFIXES[-1]}."
            )
        if other := _OTHER_FIELD.search(path.name):
            raise WriteError(
                f"Cannot write {path}: {other[0]} stands for nothing; only {{id}} and"
                " {name} do."
            )
        if _FIELD.search(path.name) and suffix not in MESH_SUFFIXES:
            raise WriteError(
                f"Cannot write {path}: only meshes ({', '.join(MESH_SUFFIXES)}) come as"
                " one file per region."
            )
        if suffix == DICOM_SUFFIX:
            check_series(known.scan, path)
        if suffix == ".parquet":
            check_parquet()
        check_may_replace(path, known.scan)
    check_distinct(paths)


def read_labels(
    path: str | Path, *, like: Volume | Geometry | None = None, index: int | None = None
) -> Segmentation:
    """Read labels of any format that keeps voxels.

    Label volumes, 3D Slicer's segmentations, DICOM SEG.

    Parameters
    ----------
    path : str or Path
        The file.
    like : Volume or Geometry, optional
        A scan on whose grid the labels are wanted: by nearest neighbour, exact where
        the two share their voxels.
    index : int, optional
        Which volume of a 4D file holds the labels, from 0.

    Raises
    ------
    ReadError
        If the file cannot be read as labels.
    ChoiceError
        If a 4D file holds several volumes of labels and none was chosen.
    GeometryError
        If the geometry cannot be used, or no label lies on the grid of `like`.

    Examples
    --------
    >>> path = strata.write(proposal.tissues(4), "labels.nii.gz")
    >>> labels = strata.read_labels(path)
    >>> [region.name for region in labels.regions]
    ['tissue 1', 'tissue 2', 'tissue 3', 'tissue 4']
    """
    geometry = like.geometry if isinstance(like, Volume) else like
    found = files.read_labels(path, index=index, like=geometry)
    return (
        found
        if geometry is None
        else labels_on_grid(found, geometry, what=f"The labels {path}")
    )


def _stage_surfaces(
    segmentation: Segmentation,
    path: Path,
    together: Together,
    settings: ExportSettings,
    on_progress: Progress,
) -> None:
    space = settings.mesh_space
    meshes = list(
        region_meshes(
            segmentation,
            smooth_vox=settings.mesh_smooth_vox,
            space=space,
            on_progress=on_progress,
        )
    )
    if not meshes:
        raise WriteError(
            f"Cannot write {path}: there is no region with voxels, so there is no"
            " surface."
        )
    if not _FIELD.search(path.name):
        stage_meshes(meshes, path, together, space=space)
        return
    for mesh in meshes:
        stage_meshes([mesh], _own_path(path, mesh.region), together, space=space)


def _own_paths(path: Path, segmentation: Segmentation) -> list[Path]:
    """Give the files that one target becomes.

    Raises
    ------
    WriteError
        If two regions would be written to one file.
    """
    if not _FIELD.search(path.name):
        return [path]
    ids = label_ids(segmentation.labels)
    table = {
        region.id: region for region in (*default_regions(ids), *segmentation.regions)
    }
    paths = [_own_path(path, table[i]) for i in ids]
    if len({one.name.casefold() for one in paths}) < len(paths):
        raise WriteError(
            f"Cannot write {path}: two regions have the same name. Put {{id}} into the"
            " file's name too."
        )
    return paths


def region_paths(path: Path, regions: Iterable[Region]) -> list[Path]:
    """Name every file that a target may become.

    Itself, or one for each region where "{id}" or "{name}" stands in its name.
    """
    return (
        [_own_path(path, region) for region in regions]
        if _FIELD.search(path.name)
        else [path]
    )


def _own_path(path: Path, region: Region) -> Path:
    """Put a region's id and name where "{id}" and "{name}" stand.

    What file systems dislike becomes "_".
    """
    words = {
        "id": str(region.id),
        "name": re.sub(r"[^\w-]+", "_", region.name).strip("_") or "region",
    }
    return path.with_name(_FIELD.sub(lambda field: words[field[1]], path.name))


def _stage_labels(
    segmentation: Segmentation,
    path: Path,
    together: Together,
    known: Known,
    *,
    sidecar: bool,
) -> None:
    """Write a label volume.

    The JSON beside it tells all that is known, if it is known how they were made.
    """
    scan, provenance = known.scan, known.provenance
    if (
        not sidecar
        or file_suffix(path) == SEG_NRRD
        or scan is None
        or provenance is None
    ):
        stage_labels(segmentation, path, together, sidecar=sidecar)
        return
    beside = path.with_name(
        f"{path.name[: len(path.name) - len(file_suffix(path))]}.json"
    )
    stage_labels(segmentation, path, together, sidecar=False)
    if table_text(beside, path, segmentation.regions) is None:
        return  # that of the same labels in another format, which says the same
    try:
        measures = measure_regions(segmentation, scan, confidence=known.confidence)
    except CaseError as err:
        logger.warning("%s tells no intensities: %s", beside.name, err)
        measures = measure_regions(segmentation, confidence=known.confidence)
    document = labels_document(path, scan, segmentation.regions, measures, provenance)
    together.file(beside).write_text(document_text(document), encoding="utf-8")


def _stage_table(
    segmentation: Segmentation,
    path: Path,
    together: Together,
    known: Known,
    settings: ExportSettings,
) -> None:
    if known.reference is not None and settings.match == "overlap":
        segmentation = join_by_overlap(segmentation, known.reference)
    measures = measure_regions(segmentation, known.scan, confidence=known.confidence)
    agreements = (
        ()
        if known.reference is None
        else agree(segmentation, known.reference, tolerance_mm=settings.tolerance_mm)
    )
    modality = None if known.scan is None else known.scan.modality
    write_table(measures, together.file(path), modality=modality, agreements=agreements)
