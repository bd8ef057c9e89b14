"""DICOM segmentations (SEG) through highdicom (extra `dicom`): segments that refer to the source series, with coded terms."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata import __version__
from napari_strata.errors import ReadError, WriteError
from napari_strata.io.dicom_headers import dicom_errors, no_validation, read_headers
from napari_strata.io.grid import make_grid, memory_geometry, plain_grid, to_file_order, to_memory_order
from napari_strata.io.terms import SCHEME, term_of
from napari_strata.measure import require_same_grid
from napari_strata.settings import DicomSegments
from napari_strata.volume import Region, Segmentation, Volume, default_regions, pack_labels, region_color, smallest_label_dtype

logger = logging.getLogger(__name__)

_LONGEST_LABEL = 64
_TRACKED = re.compile(r"Strata region (\d+)$")
_AT_LEAST = 0.5
_EVEN_MM = 0.05
_NO_LIBRARY = "DICOM SEG needs highdicom and pydicom: install napari-strata[dicom]."


def check_series(scan: Volume | None, path: str | Path) -> Volume:
    """Say early that a DICOM SEG cannot be written.

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
    if scan is None or grid is None or grid.kind != "itk" or grid.suffix or not scan.path:
        raise WriteError(
            f"Cannot write {path}: a DICOM SEG refers to the DICOM series that was segmented. "
            "Give the folder of that series as the scan (`--like FOLDER`), or choose another format."
        )
    return scan


def write_dicom_seg(segmentation: Segmentation, path: Path, scan: Volume, *, segments: DicomSegments = "binary") -> None:
    """Write a DICOM SEG that refers to every slice of the scan's series.

    Parameters
    ----------
    segmentation : Segmentation
        On the scan's grid. Regions without voxels are left out; the others are numbered from 1, in order of id, and
        carry their id as "Strata region 7" in TrackingID.
    path : Path
        The file; written as it stands, so lend it a temporary name.
    scan : Volume
        Read from a DICOM series.
    segments : {"binary", "labelmap"}
        One bit per voxel and segment, which every viewer reads, or DICOM's newer and smaller label map.

    Raises
    ------
    WriteError
        If highdicom is missing, the scan is no DICOM series, or there is nothing to write.
    GeometryError
        If the labels are not on the scan's grid.
    OSError
        If the file cannot be written; `atomic_path` tells the user.
    """
    require_same_grid(segmentation.geometry, check_series(scan, path).geometry, "The labels", "the scan")
    grid = scan.geometry.file or plain_grid(scan.geometry)
    labels = to_file_order(segmentation.labels, grid).transpose(2, 1, 0)
    ids, numbers = pack_labels(labels)
    if not ids:
        raise WriteError("There is no region with voxels, and a DICOM SEG without segments is not allowed. Choose another format.")
    if len(ids) > 65535:
        raise WriteError(f"A DICOM SEG holds at most 65535 segments, not {len(ids)}. Merge regions, or choose another format.")
    table = {region.id: region for region in (*default_regions(ids), *segmentation.regions)}
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    headers = read_headers(scan.path, scan.series)
    with no_validation():
        dataset = _make(headers, numbers.astype(smallest_label_dtype(len(ids))), [table[i] for i in ids], spacing, segments)
        dataset.save_as(path)


def read_dicom_seg(path: str | Path) -> Segmentation:
    """Read a DICOM SEG, ours or another program's, on its own grid: that of its slices, which may be fewer than the scan's.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Segmentation
        Ids are those that Strata gave, else the segments' numbers. Where segments overlap, the later one is on top.
        Fractional segments count from one half.

    Raises
    ------
    ReadError
        If highdicom is missing, the file is damaged, or its frames are no even stack.
    """
    try:
        import highdicom as hd

        damaged = dicom_errors()
    except ImportError as err:
        raise ReadError(_NO_LIBRARY) from err
    try:
        stored = hd.seg.segread(path)
        regions = _regions(stored)
        labels, affine_lps = _flatten(stored, [region.id for region in regions], str(path))
    except damaged as err:
        raise ReadError(f"{path} is a DICOM SEG that was cut short or damaged. Copy it again, or export it anew.") from err
    except (ValueError, RuntimeError) as err:
        if "reshape" in str(err):  # there are fewer voxels than its head says
            raise ReadError(f"{path} is a DICOM SEG that was cut short: voxels are missing. Copy it again.") from err
        raise ReadError(f"{path} cannot be read as labels of a volume ({err}). Its frames have to be one even stack.") from err
    slices, rows, columns = labels.shape
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps @ np.eye(4)[[2, 1, 0, 3]] + 0.0
    grid = make_grid(str(path), "itk", (columns, rows, slices), affine)
    found: NDArray[Any] = to_memory_order(labels.transpose(2, 1, 0), grid)
    return Segmentation(found, regions, memory_geometry(grid))


def _flatten(stored: Any, ids: list[int], source: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]:
    """Lay segments over each other: labels (slice, row, column), and the affine from such indices to LPS mm."""
    numbers = [int(n) for n in stored.segment_numbers]
    dtype = smallest_label_dtype(max(ids))
    if stored.segmentation_type.value == "FRACTIONAL":
        stacks = [stored.get_volume(segment_numbers=[n]) for n in numbers]
        labels = np.zeros(stacks[0].array.shape[:3], dtype)
        for region_id, stack in zip(ids, stacks, strict=True):
            labels[stack.array[..., 0] >= _AT_LEAST] = region_id
        return labels, stacks[0].affine
    if stored.get_volume_geometry() is None:
        return _stack(stored, dict(zip(numbers, ids, strict=True)))
    try:
        volume = stored.get_volume(combine_segments=True)
    except RuntimeError as err:
        if "overlap" not in str(err):
            raise
        logger.warning("%s has segments that overlap; the last one has the voxels that they share.", source)
        import highdicom as hd

        anew = hd.seg.segread(source)  # the first attempt leaves highdicom's index of frames locked
        volume = anew.get_volume(combine_segments=True, skip_overlap_checks=True)
    new_id = np.zeros(max(numbers) + 1, dtype)
    new_id[numbers] = ids
    return new_id[volume.array], volume.affine


def _stack(stored: Any, id_of: dict[int, int]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float64]]:
    """Stack frames that lie askew, as a tilted gantry leaves them, which highdicom does not; later frames are on top.

    Raises
    ------
    ValueError
        If the frames are no even stack.
    """
    shared = stored.SharedFunctionalGroupsSequence[0]
    right, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, np.float64).reshape(2, 3)
    between_rows, between_columns = (float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing)
    groups = stored.PerFrameFunctionalGroupsSequence
    positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], np.float64)
    along = positions @ np.cross(right, down)
    levels = np.unique(along.round(3))
    if len(levels) < 2:
        raise ValueError("there is one slice only")
    place = np.rint((along - along.min()) / np.diff(levels).min()).astype(int)
    first, last = positions[along.argmin()], positions[along.argmax()]
    step = (last - first) / place.max()
    if np.abs(positions - first - place[:, None] * step).max() > _EVEN_MM:
        raise ValueError("frames lie at uneven distances")
    frames = stored.pixel_array.reshape(len(groups), stored.Rows, stored.Columns)
    labels = np.zeros((int(place.max()) + 1, *frames.shape[1:]), smallest_label_dtype(max(id_of.values())))
    for frame, group, k in zip(frames, groups, place, strict=True):
        named = group.get("SegmentIdentificationSequence")
        for number in [int(named[0].ReferencedSegmentNumber)] if named else id_of:
            labels[k][frame == (1 if named else number)] = id_of[number]
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, down * between_rows, right * between_columns, first])
    return labels, affine


def _make(
    headers: tuple[Any, ...],
    numbers: NDArray[np.unsignedinteger],
    regions: list[Region],
    spacing_mm: NDArray[np.float64],
    segments: DicomSegments,
) -> Any:
    """Make the SEG in memory: `numbers` are segment numbers (slice, row, column), spacings those of column, row and slice."""
    import highdicom as hd

    column, row, between = (float(f"{step:.10g}") for step in spacing_mm)
    for header in headers:
        if not header.get("SliceThickness"):
            header.SliceThickness = between
    return hd.seg.Segmentation(
        source_images=list(headers),
        pixel_array=numbers,
        segmentation_type=segments.upper(),
        segment_descriptions=[_describe(n, region) for n, region in enumerate(regions, 1)],
        pixel_measures=hd.PixelMeasuresSequence((row, column), float(headers[0].SliceThickness), between),
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
        segmented_property_category=hd.sr.CodedConcept(term.category.value, SCHEME, term.category.meaning),
        segmented_property_type=hd.sr.CodedConcept(term.kind.value, SCHEME, term.kind.meaning),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "Strata", hd.sr.CodedConcept("123107", "DCM", "Cluster Analysis"), __version__
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"Strata region {region.id}",
        display_color=CIELabColor.from_rgb(*region.color),
    )
    if len(name) > _LONGEST_LABEL:
        described.SegmentDescription = name
    if term.side is not None:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept(term.side.value, SCHEME, term.side.meaning)]
    return described


def _regions(stored: Any) -> tuple[Region, ...]:
    """Give the region table of a SEG, in the order of its segments."""
    from highdicom.color import CIELabColor

    numbers = [int(n) for n in stored.segment_numbers]
    described = [stored.get_segment_description(n) for n in numbers]
    tracked = [_TRACKED.match(str(one.get("TrackingID", ""))) for one in described]
    ids = [int(match[1]) for match in tracked if match]
    if len(set(ids)) != len(numbers) or min(ids) < 1:
        ids = numbers
    regions = []
    for region_id, one in zip(ids, described, strict=True):
        lab = one.get("RecommendedDisplayCIELabValue")
        color = CIELabColor.from_dicom_value(lab).to_rgb(clip=True) if lab else region_color(region_id)
        red, green, blue = (int(part) for part in color)
        name = str(one.get("SegmentDescription") or "")
        label = str(one.SegmentLabel)
        regions.append(Region(region_id, name if label and name.startswith(label) else label, (red, green, blue)))
    return tuple(regions)
