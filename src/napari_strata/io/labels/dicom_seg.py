"""Read DICOM segmentations (SEG) as labels, through pydicom.

Binary, fractional and label map segmentations are read. Frames that were left out are
empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError, ReadError
from napari_strata.io.dicom.file_head import open_bounded
from napari_strata.io.dicom.header_values import quiet_pydicom
from napari_strata.io.dicom.slice import SKEW, off_right_angles, straight_axes
from napari_strata.io.grid import FileImage, check_shape, check_voxel_size, make_grid
from napari_strata.io.itk import affine_ras
from napari_strata.io.labels.objects import parse_errors
from napari_strata.volume import (
    BACKGROUND,
    Geometry,
    Region,
    default_regions,
    region_color,
    smallest_label_dtype,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"

_TRACKED = re.compile(r"Strata region (\d+)$")
_AT_LEAST = 0.5
"""Fraction of the maximum from which a voxel of a fractional segment belongs to it."""
_EVEN_MM = 0.05
"""Largest offset of a frame from the even stack; rounding in headers explains less."""
_PARALLEL = 1e-3
"""Largest difference of direction cosines of parallel planes (rounding in headers)."""
_SAME_PLACE_MM = 1e-3
"""Frames nearer than this lie in one plane; headers have three decimals or more."""
_NO_LIBRARY = "DICOM SEG needs pydicom: install napari-strata[dicom]."


@dataclass(frozen=True, slots=True, eq=False)
class DicomSeg:
    """Content of a DICOM SEG.

    Parameters
    ----------
    image : FileImage
        Labels (column, row, slice).
    regions : tuple of Region
        One per segment.
    """

    image: FileImage
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """Position and segment of every frame; all frames are parallel and of one size.

    Parameters
    ----------
    positions : (frame, 3) float64 array
        Of the first pixel, LPS mm.
    right, down : (3,) float64 arrays
        Unit vectors along a row and a column.
    spacing_mm : (2,) float64 array
        Between rows, between columns.
    between_mm : float or None
        Between slices, as the file says.
    thickness_mm : float or None
        Of a slice, as the file says.
    segments : tuple of int or None
        Segment number of each frame; None where a frame may hold any.
    """

    positions: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    between_mm: float | None
    thickness_mm: float | None
    segments: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """Slices that the frames form.

    The slice of each frame, the step from slice to slice and the first slice's
    position.
    """

    places: NDArray[np.int64]
    count: int
    step: NDArray[np.float64]
    origin: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_dicom_seg(path: str | Path, *, like: Geometry | None = None) -> DicomSeg:
    """Read a DICOM SEG on its own grid, whatever program wrote it.

    It may have fewer slices than the scan.

    Parameters
    ----------
    path : str or Path
        The file.
    like : Geometry or None
        The scan's, which tells how far slices are apart where the frames alone do not.

    Raises
    ------
    ReadError
        If pydicom is missing, the file is damaged, it is no segmentation of a volume,
        or its frames are no even stack.
    GeometryError
        If positions or voxel sizes cannot be used.
    """
    source = str(path)
    try:
        from pydicom import dcmread

        damaged = parse_errors()
    except ImportError as err:
        raise ReadError(_NO_LIBRARY) from err
    try:
        # of values that break DICOM's rules; what matters is checked here
        with quiet_pydicom():
            with open_bounded(Path(path)) as file:
                stored = dcmread(file, force=True)
            _name_syntax(stored)
            return _read(stored, source, like)
    except damaged as err:
        raise ReadError(
            f"{source} is a DICOM SEG that was cut short or damaged. Copy it again, or"
            " export it anew."
        ) from err
    except RuntimeError as err:
        raise ReadError(
            f"{source} is a DICOM SEG whose frames cannot be decompressed ({err})."
            " Export it uncompressed."
        ) from err


def _name_syntax(stored: Dataset) -> None:
    """Set the transfer syntax that pydicom guessed for a file without a head.

    Its pixels can be read then.
    """
    from pydicom.uid import (
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    if "TransferSyntaxUID" not in stored.file_meta:
        implicit, little = stored.original_encoding
        stored.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian
            if implicit
            else ExplicitVRLittleEndian
            if little
            else ExplicitVRBigEndian
        )


def _read(stored: Dataset, source: str, like: Geometry | None) -> DicomSeg:
    _check_kind(stored, source)
    n_frames, rows, columns = (
        int(stored.get("NumberOfFrames") or 1),
        int(stored.Rows),
        int(stored.Columns),
    )
    frames = _frames(stored, n_frames, source)
    check_voxel_size(source, frames.spacing_mm)
    stack = _stack(frames, source, like)
    check_shape(source, (columns, rows, stack.count), thin=True)
    regions, notes = _regions(stored), list(stack.notes)
    labels, over = _painted(
        stored, frames, stack, {number: region.id for number, region in regions.items()}
    )
    if over:
        notes.append(
            f"{over} voxels lie in several segments; the last one has the voxels that"
            " they share (segments that overlap)."
        )
    if _type(stored) == "FRACTIONAL":
        notes.append("Segments are fractional: a voxel is taken from one half up.")
    known = {region.id: region for region in regions.values()}
    unlisted = [
        int(i) for i in np.unique(labels) if i != BACKGROUND and int(i) not in known
    ]
    if unlisted:
        notes.append(
            "The file describes no segment for some labelled voxels; they are kept as"
            f" regions {', '.join(map(str, unlisted))}."
        )
    axes = np.column_stack(
        [
            frames.right * frames.spacing_mm[1],
            frames.down * frames.spacing_mm[0],
            stack.step,
        ]
    )
    grid = make_grid(
        source,
        "itk",
        (columns, rows, stack.count),
        affine_ras(stack.origin, np.ones(3), axes),
    )
    image = FileImage(labels.transpose(2, 1, 0), grid, None, tuple(notes))
    return DicomSeg(image, (*regions.values(), *default_regions(unlisted)))


def _type(stored: Dataset) -> str:
    said = str(stored.get("SegmentationType") or "").upper()
    return said or ("LABELMAP" if stored.get("SOPClassUID") == _LABEL_MAP else "BINARY")


def _check_kind(stored: Dataset, source: str) -> None:
    """Refuse objects that are no segmentation of a volume."""
    if "Rows" not in stored or "Columns" not in stored:
        raise AttributeError("no image")
    if "TotalPixelMatrixRows" in stored or "TotalPixelMatrixOriginSequence" in stored:
        raise ReadError(
            f"{source} is a segmentation of a microscope slide (tiled frames), not of a"
            " volume. Strata needs a 3D one."
        )
    if _type(stored) not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise ReadError(
            f"{source} is a DICOM SEG of type {_type(stored)}, which Strata does not"
            " know. Export it as BINARY."
        )
    if stored.get("NumberOfFrames") == 0 or not stored.get("PixelData"):
        if "PixelData" in stored or stored.get("NumberOfFrames") == 0:
            raise ReadError(
                f"{source} is a DICOM SEG without frames: nothing is segmented in it."
                " Give another one."
            )
        raise AttributeError("no pixel data")


def _frames(stored: Dataset, n_frames: int, source: str) -> _Frames:
    """Read the positions of frames from their own groups, or from the shared one."""
    shared = (stored.get("SharedFunctionalGroupsSequence") or [None])[0]
    groups = stored.get("PerFrameFunctionalGroupsSequence") or [None] * n_frames
    if len(groups) != n_frames:
        raise ValueError(f"{n_frames} frames but {len(groups)} groups")

    def found(group: Dataset | None, name: str) -> Dataset | None:
        for place in (group, shared):
            items = None if place is None else place.get(name)
            if items:
                return items[0]
        return None

    planes = [found(group, "PlanePositionSequence") for group in groups]
    if any(plane is None or not plane.get("ImagePositionPatient") for plane in planes):
        raise ReadError(
            f"{source} is a segmentation of a 2D image (its frames have no place in the"
            " patient). Strata needs one of a volume."
        )
    turned = _alike(
        [found(group, "PlaneOrientationSequence") for group in groups],
        "ImageOrientationPatient",
        source,
    )
    measured = [found(group, "PixelMeasuresSequence") for group in groups]
    spacing = _alike(measured, "PixelSpacing", source)
    if not np.isfinite(turned).all() or off_right_angles(turned) > SKEW:
        raise GeometryError(
            f"{source} has an orientation that is no rotation. Export it again."
        )
    right, down = straight_axes(turned).T[:2]
    named = [found(group, "SegmentIdentificationSequence") for group in groups]
    positions = np.array(
        [plane.ImagePositionPatient for plane in planes if plane is not None],
        np.float64,
    ).reshape(-1, 3)
    if not np.isfinite(positions).all():
        raise GeometryError(
            f"{source} has a frame whose position is no number. Export it again."
        )
    return _Frames(
        positions,
        right,
        down,
        spacing,
        _length(measured[0], "SpacingBetweenSlices"),
        _length(measured[0], "SliceThickness"),
        tuple(
            None if one is None else int(one.ReferencedSegmentNumber) for one in named
        ),
    )


def _alike(items: Sequence[Any], name: str, source: str) -> NDArray[np.float64]:
    """Return the numbers that all frames share."""
    values = np.array([item.get(name) for item in items], np.float64)
    if np.abs(values - values[0]).max() > _PARALLEL:
        raise ReadError(
            f"{source} has frames of different {name}, so they are no stack. Export it"
            " as one volume."
        )
    return values[0]


def _length(measures: Any, name: str) -> float | None:
    """Return a positive length; None if the file has none."""
    value = None if measures is None else measures.get(name)
    length = abs(float(value)) if value not in (None, "") else 0.0
    return length if np.isfinite(length) and length > 0 else None


def _stack(frames: _Frames, source: str, like: Geometry | None) -> _Stack:
    """Sort frames into the slices of an even stack.

    The stack is sheared if the frames are, as with a tilted gantry.
    """
    normal = np.cross(frames.right, frames.down)
    along = frames.positions @ normal
    first, last = frames.positions[along.argmin()], frames.positions[along.argmax()]
    levels = np.unique(along.round(3))
    levels = levels[np.diff(levels, prepend=levels[0] - 1) > _SAME_PLACE_MM]
    gaps = np.diff(levels)
    between, notes = _between(frames, gaps, source, like, normal)
    places = np.rint((along - along.min()) / between).astype(np.int64)
    count = int(places.max()) + 1
    step = (last - first) / (count - 1) if count > 1 else normal * between
    if np.abs(frames.positions - first - places[:, None] * step).max() > _EVEN_MM:
        raise ReadError(
            f"{source} has frames that are no even stack. Export it as one volume."
        )
    return _Stack(places, count, step, first, notes)


def _between(
    frames: _Frames,
    gaps: NDArray[np.float64],
    source: str,
    like: Geometry | None,
    normal: NDArray[np.float64],
) -> tuple[float, tuple[str, ...]]:
    """Return the distance of slices.

    From the file, else from the scan, else the smallest gap or the thickness.
    """
    by_scan = None if like is None else _slices_of(like, normal)
    for length in (frames.between_mm, by_scan):
        if length is not None and _fits(gaps, length):
            return length, ()
    thick = frames.thickness_mm
    if len(gaps) > 1 and np.ptp(gaps) <= _EVEN_MM:
        apart = float(gaps.mean())
        said = (
            f"The file does not say how far its slices are apart; {apart:.4g} mm is"
            " taken, as its frames lie."
        )
        return apart, () if thick is None or abs(thick - apart) <= _EVEN_MM else (said,)
    if thick is not None and _fits(gaps, thick):
        same = gaps.size and np.abs(gaps - thick).max() <= _EVEN_MM
        said = (
            "The file does not say how far its slices are apart; their thickness is"
            f" taken ({thick:.4g} mm)."
        )
        return thick, () if same else (said,)
    if not gaps.size:
        raise ReadError(
            f"{source} has one slice, and does not say how thick it is. Give the scan"
            " that it was drawn on, for example with `strata convert --like SCAN`."
        )
    between = float(gaps.min())
    if not _fits(gaps, between):
        raise ReadError(
            f"{source} has frames at uneven distances, which are no even stack. Export"
            " it as one volume."
        )
    return between, (
        (
            f"The file does not say how far its slices are apart; {between:.4g} mm is"
            " taken, the smallest step between frames."
        ),
    )


def _fits(gaps: NDArray[np.float64], length: float) -> bool:
    return bool(
        np.abs(gaps - np.rint(gaps / length) * length).max(initial=0) <= _EVEN_MM
        and (np.rint(gaps / length) >= 1).all()
    )


def _slices_of(like: Geometry, normal: NDArray[np.float64]) -> float | None:
    """Return the distance of a scan's planes along a normal in LPS.

    None if none of its axes has that direction.
    """
    inverse = np.linalg.inv(like.affine)[:3, :3]
    for row in inverse:
        towards = row / np.linalg.norm(row) * (-1, -1, 1)
        if abs(abs(float(towards @ normal)) - 1) < _PARALLEL:
            return float(1 / np.linalg.norm(row))
    return None


def _painted(
    stored: Dataset, frames: _Frames, stack: _Stack, id_of: dict[int, int]
) -> tuple[NDArray[np.unsignedinteger], int]:
    """Return labels (slice, row, column) of all segments, and the number of hidden voxels.

    A voxel is hidden if a later segment covers it.
    """
    rows, columns = int(stored.Rows), int(stored.Columns)
    if _type(stored) == "LABELMAP":
        return _mapped(stored, stack, id_of, (rows, columns)), 0
    order = {number: n for n, number in enumerate(id_of)}
    numbers = [
        number if number is not None else next(iter(id_of))
        for number in frames.segments
    ]
    if any(number not in id_of for number in numbers):
        raise ValueError("a frame of a segment that is not described")
    least = 1.0
    if _type(stored) == "FRACTIONAL":
        least = _AT_LEAST * float(stored.get("MaximumFractionalValue") or 255)
    labels = np.zeros(
        (stack.count, rows, columns), smallest_label_dtype(max(id_of.values()))
    )
    on_top = np.zeros(labels.shape, np.uint16)
    hidden = np.zeros(labels.shape, bool)
    for frame, number, place in zip(
        _pixels(stored, len(numbers)), numbers, stack.places, strict=True
    ):
        rank = order[number] + 1
        inside = frame.reshape(rows, columns) >= least
        plane, over = labels[place], on_top[place]
        hidden[place] |= inside & (over > 0) & (over != rank)
        shown = inside & (over <= rank)
        plane[shown], over[shown] = id_of[number], rank
    return labels, int(np.count_nonzero(hidden))


def _mapped(
    stored: Dataset, stack: _Stack, id_of: dict[int, int], plane: tuple[int, int]
) -> NDArray[np.unsignedinteger]:
    """Return the labels of a label map.

    A value without a segment keeps its number if that is free.
    """
    background = stored.get("PixelPaddingValue")
    values = np.zeros((stack.count, *plane), np.uint16)
    if background not in (None, 0):
        values[:] = int(background)
    for frame, place in zip(
        _pixels(stored, len(stack.places)), stack.places, strict=True
    ):
        values[place] = frame.reshape(plane)
    found = [int(value) for value in np.unique(values)]
    taken = max([*id_of.values(), *found])
    table = np.zeros(max(found) + 1, np.uint32)
    for value in found:
        if value in id_of:
            table[value] = id_of[value]
        elif value not in (0, background):
            taken += value in id_of.values()
            table[value] = taken if value in id_of.values() else value
    return table[values].astype(smallest_label_dtype(int(table.max())))


def _pixels(stored: Dataset, count: int) -> Iterator[NDArray[Any]]:
    """Yield the frames' pixels one by one, so that a large binary SEG needs little memory."""
    from pydicom.pixels.utils import iter_pixels

    given = 0
    for frame in iter_pixels(stored):
        given += 1
        yield frame
    if given != count:
        raise ValueError(f"{given} frames of {count}")


def _regions(stored: Dataset) -> dict[int, Region]:
    """Return the region of every segment number, in the order of the segments.

    The background of a label map is no region.
    """
    described = {int(one.SegmentNumber): one for one in stored.SegmentSequence}
    described.pop(BACKGROUND, None)
    if (
        len(described)
        != len(
            [
                one
                for one in stored.SegmentSequence
                if int(one.SegmentNumber) != BACKGROUND
            ]
        )
        or not described
    ):
        raise ValueError("segments without a number of their own")
    if _type(stored) == "LABELMAP" and stored.get("PixelPaddingValue") is not None:
        described.pop(int(stored.PixelPaddingValue), None)
    tracked = [
        _TRACKED.match(str(one.get("TrackingID", ""))) for one in described.values()
    ]
    ids = [int(match[1]) for match in tracked if match]
    if (
        len(set(ids)) != len(described)
        or min(ids, default=0) < 1
        or max(ids, default=0) >= 2**32
    ):
        ids = list(described)
    regions = {}
    for region_id, (number, one) in zip(ids, described.items(), strict=True):
        lab = one.get("RecommendedDisplayCIELabValue")
        color = (
            _rgb(lab) if lab is not None and len(lab) == 3 else region_color(region_id)
        )
        name, label = (
            str(one.get("SegmentDescription") or ""),
            str(one.get("SegmentLabel") or ""),
        )
        known = name if label and name.startswith(label) else label
        regions[number] = Region(region_id, known or f"segment {number}", color)
    return regions


def _rgb(stored: Sequence[int]) -> tuple[int, int, int]:
    """Convert DICOM's 16-bit CIELab (white D65) to sRGB bytes."""
    lightness, a, b = (
        stored[0] * 100 / 65535,
        stored[1] * 255 / 65535 - 128,
        stored[2] * 255 / 65535 - 128,
    )
    y = (lightness + 16) / 116
    shares = np.array([a / 500 + y, y, y - b / 200])
    xyz = np.where(shares**3 > 0.008856, shares**3, (shares - 16 / 116) / 7.787) * (
        0.95047,
        1.0,
        1.08883,
    )
    linear = (
        np.array(
            [
                [3.2406, -1.5372, -0.4986],
                [-0.9689, 1.8758, 0.0415],
                [0.0557, -0.2040, 1.0570],
            ]
        )
        @ xyz
    )
    bright = np.maximum(linear, 0.0031308)
    srgb = np.where(
        linear > 0.0031308, 1.055 * bright ** (1 / 2.4) - 0.055, 12.92 * linear
    )
    red, green, blue = (int(part) for part in np.clip(np.rint(srgb * 255), 0, 255))
    return red, green, blue
