"""Export a segmentation to one or several files, and read labels of any format.

The file name's suffix selects the format from `napari_strata.export.formats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_strata.deprecated import moved_names
from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext, ExportFormat, ExportRequest
from napari_strata.export.formats import EXPORT_FORMATS, EXPORT_SUFFIXES, format_of
from napari_strata.export.per_region import (
    has_region_field,
    output_paths,
    unknown_field,
)
from napari_strata.export.targets import check_distinct, check_may_replace
from napari_strata.io import files
from napari_strata.io.atomic import Together
from napari_strata.measure import require_same_grid
from napari_strata.preprocess.regrid import labels_on_grid
from napari_strata.settings import ExportSettings
from napari_strata.volume import (
    Geometry,
    Progress,
    Segmentation,
    Volume,
    no_progress,
)

_PER_REGION_SUFFIXES = tuple(
    suffix
    for export_format in EXPORT_FORMATS
    if export_format.one_file_per_region
    for suffix in export_format.suffixes
)


def write(
    segmentation: Segmentation,
    path: str | Path,
    *,
    scan: Volume | None = None,
    known: ExportContext | None = None,
    settings: ExportSettings | None = None,
    sidecar: bool = True,
    on_progress: Progress = no_progress,
) -> Path:
    """Write a segmentation in the format of the file name's suffix.

    - .nii .nii.gz .nrrd .mha .mgh .mgz: label volume on the scan's own grid, with the
      region table in a JSON file beside it
    - .seg.nrrd: label volume for 3D Slicer, with names and colours inside
    - .dcm: DICOM SEG that refers to the scan's series (extra `dicom`)
    - .stl .obj .ply: closed surfaces in mm
    - .label .txt: ITK-SNAP label description (names and colours only)
    - .csv .tsv .parquet: table of measures, one row per region

    Parameters
    ----------
    segmentation : Segmentation
        Labels, region table and geometry.
    path : str or Path
        The file. For meshes "{id}" and "{name}" in it stand for each region's, and give
        a file per region.
    scan : Volume, optional
        The scan that the labels lie on; short for ``known=ExportContext(scan)``.
    known : ExportContext, optional
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
        known = replace(known or ExportContext(), scan=scan)
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
    known: ExportContext | None = None,
    settings: ExportSettings | None = None,
    sidecar: bool = True,
    on_progress: Progress = no_progress,
) -> tuple[Path, ...]:
    """Write a segmentation in several formats; all files or none. See `write`."""
    chosen, context = settings or ExportSettings(), known or ExportContext()
    targets = [Path(path) for path in paths]
    check_paths(targets, context)
    if context.scan is not None:
        require_same_grid(
            segmentation.geometry, context.scan.geometry, "The labels", "the scan"
        )
        segmentation = replace(segmentation, geometry=context.scan.geometry)
    outputs = {target: output_paths(target, segmentation) for target in targets}
    check_distinct(path for paths in outputs.values() for path in paths)
    with Together() as together:
        for target in targets:
            _known_format(target).stage(
                ExportRequest(
                    segmentation=segmentation,
                    path=target,
                    together=together,
                    context=context,
                    settings=chosen,
                    sidecar=sidecar,
                    on_progress=on_progress,
                )
            )
    return tuple(
        target.parent if has_region_field(target) else target for target in targets
    )


def check_paths(paths: Sequence[Path], context: ExportContext) -> None:
    """Check before any work that all files can be written.

    Raises
    ------
    WriteError
        See `write`.
    """
    for path in paths:
        export_format = _known_format(path)
        if field := unknown_field(path):
            raise WriteError(
                f"Cannot write {path}: {field} is no field; only {{id}} and {{name}}"
                " are."
            )
        if has_region_field(path) and not export_format.one_file_per_region:
            raise WriteError(
                f"Cannot write {path}: only meshes ({', '.join(_PER_REGION_SUFFIXES)})"
                " can be written as one file per region."
            )
        export_format.check(path, context)
        check_may_replace(path, context.scan)
    check_distinct(paths)


def _known_format(path: Path) -> ExportFormat:
    """Return the format of a path.

    Raises
    ------
    WriteError
        If the suffix belongs to no format.
    """
    if (export_format := format_of(path)) is None:
        raise WriteError(
            f"Cannot write {path}: the name must end in"
            f" {', '.join(EXPORT_SUFFIXES[:-1])} or {EXPORT_SUFFIXES[-1]}."
        )
    return export_format


def read_labels(
    path: str | Path, *, like: Volume | Geometry | None = None, index: int | None = None
) -> Segmentation:
    """Read labels of any format that keeps voxels.

    These are label volumes, 3D Slicer's segmentations and DICOM SEG.

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


__getattr__ = moved_names("export.files")
