"""Sort the slices of a DICOM series by position, and check that they form one even stack.

Slices are sorted by their position along the common normal of the image planes, never
by file name or instance number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError, ReadError
from napari_strata.io.dicom.pixels import named
from napari_strata.io.dicom.slice import SKEW, Slice, off_right_angles, straight_axes
from napari_strata.io.grid import check_shape, check_voxel_size
from napari_strata.io.itk import affine_ras

_GREY = ("", "MONOCHROME1", "MONOCHROME2")
"""Photometric interpretations of grey images; "" where the header has none."""


@dataclass(frozen=True, slots=True)
class StackTolerances:
    """How far slices may be off an even stack before they are refused or noted."""

    same_position_mm: float = 1e-3
    """Slices nearer than this lie in one place; headers have three decimals or more."""
    spacing: float = 1e-3
    """Relative difference of pixel spacings that rounding in headers explains."""
    direction: float = 1e-3
    """Difference of direction cosines that rounding in headers explains."""
    gap: float = 1.5
    """A distance above this many usual distances means that a slice is missing."""
    uneven: float = 0.25
    """Largest offset from the even grid, in slice distances, before refusal."""
    uneven_noted: float = 0.02
    """Offset from the even grid, in slice distances, above which a note is made."""
    sideways: float = 0.5
    """Largest offset within the image plane, in pixels, before refusal.

    Up to half a pixel, the nearest voxel of the grid is still the right one.
    """
    sideways_noted: float = 0.1
    """Offset within the image plane, in pixels, above which a note is made."""
    tilt: float = 0.1
    """Sideways shift over the stack, in pixels, above which the gantry was tilted."""
    rounded: float = 0.002
    """Deviation of directions from orthonormal above which a note is made."""


_TOLERANCES = StackTolerances()


@dataclass(frozen=True, slots=True, eq=False)
class SliceStack:
    """Slices of one series, sorted along their common normal.

    Parameters
    ----------
    slices : tuple of Slice
        In order of position.
    step : (3,) float64 array
        Vector from one slice to the next, LPS mm.
    notes : tuple of str
        What a person should know about the stack.
    """

    slices: tuple[Slice, ...]
    step: NDArray[np.float64]
    notes: tuple[str, ...]


def sort_slices(folder: Path, slices: list[Slice]) -> SliceStack:
    """Return the slices sorted along their common normal.

    Raises
    ------
    ReadError, GeometryError
        If they do not form one evenly spaced stack of parallel slices.
    """
    check_uniform(folder, slices)
    _check_placement(folder, slices)
    _check_rescale(slices)
    normal = straight_axes(slices[0].orientation)[:, 2]
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in ordered])
    along = positions @ normal
    _check_distances(folder, ordered, np.diff(along))
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    offsets = positions - positions[0] - np.arange(len(ordered))[:, None] * step
    uneven = np.linalg.norm(offsets, axis=1).max()
    if uneven > _TOLERANCES.uneven * np.linalg.norm(step):
        raise ReadError(
            f"{folder} has slices at uneven distances (up to {uneven:.2f} mm off)."
            " Export the series with even slices."
        )
    within_plane = offsets @ straight_axes(slices[0].orientation)[:, :2]
    pixels_off = np.abs(within_plane / slices[0].spacing[::-1]).max()
    if pixels_off > _TOLERANCES.sideways:
        raise ReadError(
            f"{folder} has slices that are shifted sideways by up to"
            f" {np.abs(within_plane).max():.2f} mm ({pixels_off:.1f} pixels) against"
            " one another. Export the series as one straight stack."
        )
    notes = []
    rounded = off_right_angles(slices[0].orientation)
    if rounded > _TOLERANCES.rounded:
        notes.append(
            f"Directions of rows and columns are rounded (by {rounded:.2g}); they were"
            " made one long and at right angles."
        )
    if (
        uneven > _TOLERANCES.uneven_noted * np.linalg.norm(step)
        or pixels_off > _TOLERANCES.sideways_noted
    ):
        notes.append(f"Slices lie up to {uneven:.2f} mm off an even grid.")
    sideways = (len(ordered) - 1) * float(
        np.linalg.norm(step - (step @ normal) * normal)
    )
    if sideways > _TOLERANCES.tilt * slices[0].spacing.min():
        tilt = np.degrees(np.arctan2(sideways, along[-1] - along[0]))
        notes.append(
            f"The gantry was tilted by {tilt:.1f} degrees; the grid is sheared as the"
            " scan is."
        )
    return SliceStack(tuple(ordered), step, tuple(notes))


def check_uniform(folder: Path, slices: list[Slice]) -> None:
    """Refuse slices that are not grey images of one size, and name the slice."""
    for one in slices:
        if one.samples != 1 or one.pixels.photometric not in _GREY:
            raise ReadError(
                f"{one.path} is a colour image"
                f" ({one.pixels.photometric or 'several values per voxel'}). Strata"
                " needs one intensity per voxel: choose another series."
            )
        if one.frames > 1:
            raise ReadError(
                f"{one.path} is a multi-frame DICOM ({one.frames} frames), which Strata"
                " does not read. Convert it to NIfTI, for example with dcm2niix."
            )
        if one.faults:
            raise ReadError(f"{one.path} {one.faults[0]}.")
    if len(slices) < 2:
        raise ReadError(
            f"{folder} has one slice only. Strata needs a 3D scan: give the folder with"
            " the whole series."
        )
    pixels = slices[0].pixels
    odd = _first_unusual(slices, lambda one: (one.pixels.rows, one.pixels.columns))
    if odd is not None:
        size = f"{odd.pixels.rows} rows and {odd.pixels.columns} columns"
        raise ReadError(
            f"{folder} has slices of different sizes: {odd.path.name} has {size}."
            " Export the series again, or choose another one."
        )
    check_shape(str(folder), (pixels.columns, pixels.rows, len(slices)))


def _check_placement(folder: Path, slices: list[Slice]) -> None:
    """Refuse slices without a position, or that are not parallel."""
    for one in slices:
        if not (one.position.size and one.orientation.size):
            raise ReadError(
                f"{folder} has images without a position in the patient"
                f" ({one.path.name}). Choose a CT or MR series."
            )
        if not one.spacing.size:
            raise GeometryError(
                f"{folder} has images without a pixel spacing ({one.path.name}). Choose"
                " a CT or MR series."
            )
        check_voxel_size(str(one.path), one.spacing)
        if off_right_angles(one.orientation) > SKEW:
            raise GeometryError(
                f"{one.path} has directions of rows and columns that are not at right"
                " angles. Repair its header."
            )
    first = slices[0]
    if any(
        not np.allclose(one.spacing, first.spacing, rtol=_TOLERANCES.spacing, atol=0)
        for one in slices
    ):
        odd = (
            _first_unusual(slices, lambda one: one.spacing.round(3).tobytes()) or first
        )
        size = " x ".join(f"{part:g}" for part in odd.spacing)
        raise ReadError(
            f"{folder} has slices of different pixel spacings: {odd.path.name} has"
            f" {size} mm. Export the series again, or choose another one."
        )
    if any(
        np.abs(one.orientation - first.orientation).max() > _TOLERANCES.direction
        for one in slices
    ):
        odd = (
            _first_unusual(slices, lambda one: one.orientation.round(2).tobytes())
            or first
        )
        raise ReadError(
            f"{folder} has slices that are not parallel, like a localizer"
            f" ({odd.path.name}). Choose a series with one stack of slices."
        )


def _first_unusual(
    slices: Sequence[Slice], key: Callable[[Slice], Hashable]
) -> Slice | None:
    """Return the first slice that differs from most."""
    usual = Counter(map(key, slices)).most_common(1)[0][0]
    return next((one for one in slices if key(one) != usual), None)


def _check_rescale(slices: list[Slice]) -> None:
    """Refuse a CT in which only some slices have a rescale to HU.

    The others would be wrong by the offset.
    """
    without = [one for one in slices if not one.rescale.is_given]
    differ = any(not one.rescale.is_identity for one in slices)
    if (
        without
        and differ
        and len(without) < len(slices)
        and any(one.modality == "CT" for one in slices)
    ):
        raise ReadError(
            f"{without[0].path.parent} has {len(without)} of {len(slices)} slices"
            " without the rescale to Hounsfield units that the others have"
            f" ({named([one.path for one in without])}): their values are unknown."
            " Export the series again."
        )


def _check_distances(
    folder: Path, ordered: list[Slice], steps_mm: NDArray[np.float64]
) -> None:
    doubled = np.flatnonzero(steps_mm < _TOLERANCES.same_position_mm)
    if doubled.size:
        at = int(doubled[0])
        raise ReadError(
            f"{folder} has {doubled.size} {'slice' if doubled.size == 1 else 'slices'}"
            f" where another slice lies, such as {ordered[at].path.name} and"
            f" {ordered[at + 1].path.name} (several phases, echoes or copies in one"
            " series). Split the series, or convert it to a 4D NIfTI and choose a"
            " volume."
        )
    usual = float(np.sort(steps_mm)[(len(steps_mm) - 1) // 2])
    wide = np.flatnonzero(steps_mm > _TOLERANCES.gap * usual)
    if wide.size:
        at = int(wide[0])
        missing = sum(max(1, round(float(step) / usual) - 1) for step in steps_mm[wide])
        raise ReadError(
            f"{folder} lacks {missing} {'slice' if missing == 1 else 'slices'}: between"
            f" {ordered[at].path.name} and {ordered[at + 1].path.name} lie"
            f" {steps_mm[at]:.2f} mm, elsewhere {usual:.2f} mm. Copy the whole series"
            " again."
        )


def stack_affine(stack: SliceStack) -> NDArray[np.float64]:
    """Return the affine (file index to RAS+ mm) of a sorted stack.

    The axes are orthogonal if that places the slices where the files say; else (tilted
    gantry) the slice axis is the files' own. Positions are rounded in the files, so a
    shift far below a voxel at the last slice is no tilt.
    """
    first = stack.slices[0]
    straight = straight_axes(first.orientation)  # headers round directions
    spacing = np.array([first.spacing[1], first.spacing[0], np.linalg.norm(stack.step)])
    by_angles = affine_ras(first.position, spacing, straight)
    by_files = affine_ras(
        first.position,
        np.ones(3),
        np.column_stack(
            [straight[:, 0] * spacing[0], straight[:, 1] * spacing[1], stack.step]
        ),
    )
    far = np.array(
        [first.pixels.columns - 1, first.pixels.rows - 1, len(stack.slices) - 1, 1.0]
    )
    apart = max(
        np.linalg.norm((by_angles - by_files)[:3] @ corner)
        for corner in (far, np.array([0.0, 0, 0, 1]))
    )
    return by_angles if apart <= _TOLERANCES.tilt * first.spacing.min() else by_files
