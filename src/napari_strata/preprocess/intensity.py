"""Scale a scan's intensity to [0, 1], and choose the encoder's working grid."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.errors import GeometryError
from napari_strata.parallel import each
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Modality, Volume

CT_KNOTS_HU = (-1000.0, -200.0, 300.0, 2000.0)
CT_KNOTS_INTENSITY = (0.0, 0.15, 0.85, 1.0)
"""CT is mapped by straight lines between these.

Soft tissue gets most of the range, air and bone stay apart.
"""

_PERCENTILES = (0.5, 99.5)
_BIAS_GRIDS_MM = (12.0, 8.0, 5.0)
"""Cell sizes for N4; the first one with enough cells in the body is used.

Coarse cells with many iterations and no early stop work best. On a head with a known
bias (log standard deviation 0.298), 12 mm left 0.148. 5 mm with 40 iterations and the
default stop left 0.223 and took more than twice as long.
"""
_BIAS_ITERATIONS = (50, 50)
_FEWEST_BIAS_CELLS = 500
_SAME_SHARE = 0.06
"""Axes whose number of voxels would change by less than this share are not resampled."""
_PADDED_TO, _ROUNDED_SHARE = 16, 0.06
"""Sides that the encoder takes, and by which share an axis is changed at most to have one.

A head of 164 x 221 x 165 voxels would be padded to 176 x 224 x 176, a fifth more.
"""


@contextmanager
def filter_threads(threads: int) -> Iterator[None]:
    """Let ITK's filters take this many threads inside the block; 0 leaves the choice as it is."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads or before)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def scale_intensity(
    data: NDArray[np.generic],
    modality: Modality,
    *,
    inside: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Map intensities to [0, 1].

    CT by fixed HU knots, MR by percentiles of what is inside the body.

    Parameters
    ----------
    data : (z, y, x) real array
        HU for CT, anything for MR.
    modality : {"ct", "mr"}
        How to read them.
    inside : (z, y, x) bool array, optional
        Where the body is; MR percentiles are taken there (everywhere if not given).

    Returns
    -------
    (z, y, x) float32 array
        In [0, 1].
    """
    if modality == "ct":
        return _by_planes(
            lambda plane: np.interp(plane, CT_KNOTS_HU, CT_KNOTS_INTENSITY), data
        )
    values = np.asarray(data, dtype=np.float32)
    sample = values[inside] if inside is not None and inside.any() else values.ravel()
    low, high = np.percentile(sample[:: max(1, sample.size // 500_000)], _PERCENTILES)
    if inside is not None:
        low = min(
            low,
            float(
                np.percentile(
                    values.ravel()[:: max(1, values.size // 500_000)], _PERCENTILES[0]
                )
            ),
        )
    width = max(float(high - low), 1e-6)
    return _by_planes(lambda plane: np.clip((plane - low) / width, 0.0, 1.0), values)


def _by_planes(
    function: Callable[..., Any], *arrays: NDArray[np.generic]
) -> NDArray[np.float32]:
    """Return a function of arrays (z, y, x), voxel by voxel, computed plane by plane."""
    out = np.empty(arrays[0].shape, np.float32)

    def fill(z: int) -> None:
        out[z] = function(*(array[z] for array in arrays))

    each(fill, range(len(out)))
    return out


def gamma_to_middle(values: NDArray[np.float32]) -> float:
    """Return the exponent, 0.5 to 2, that brings the median intensity to one half.

    Values lie in [0, 1].
    """
    middle = float(np.median(values[:: max(1, values.size // 500_000)]))
    return float(np.clip(np.log(0.5) / np.log(np.clip(middle, 0.01, 0.99)), 0.5, 2.0))


def flatten_bias(
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Correct the bias field of an MR with N4 on a coarse copy.

    Parameters
    ----------
    intensity : (z, y, x) float32 array
        Intensity in [0, 1].
    inside : (z, y, x) bool array
        The body.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.

    Returns
    -------
    (z, y, x) float32 array
        Intensity in [0, 1], flattened inside the body; unchanged where the body is too
        small to tell.

    Notes
    -----
    Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE TMI 2010, as in SimpleITK.
    """
    for cell_mm in _BIAS_GRIDS_MM:
        step = [max(1, round(cell_mm / s)) for s in spacing_zyx_mm]
        share = block_mean(inside.astype(np.float32), step)
        small = block_mean((intensity + np.float32(0.05)) * inside, step) / np.maximum(
            share, np.float32(0.01)
        )
        mask = (share > 0.5) & (small > 0.1)
        if min(mask.shape) >= 4 and mask.sum() >= _FEWEST_BIAS_CELLS:
            break
    else:
        return intensity
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(_BIAS_ITERATIONS))
    n4.SetConvergenceThreshold(0.0)
    n4.SetNumberOfControlPoints([4, 4, 4])
    n4.SetNumberOfThreads(1)
    image = sitk.GetImageFromArray(small)
    image.SetSpacing(
        [float(s * k) for s, k in zip(spacing_zyx_mm, step, strict=True)][::-1]
    )
    label = sitk.GetImageFromArray(mask.astype(np.uint8))
    label.CopyInformation(image)
    _execute(n4, image, label)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).astype(np.float32)
    field -= np.median(field[mask])
    z, y, x = (n * k for n, k in zip(field.shape, step, strict=True))
    whole = resample(np.clip(field, -1.2, 1.2), (z, y, x))
    flat = _by_planes(
        lambda plane, log_field: plane * np.exp(-log_field),
        intensity,
        whole[tuple(slice(n) for n in intensity.shape)],
    )
    high = float(
        np.percentile(
            flat[inside][:: max(1, int(inside.sum()) // 500_000)], _PERCENTILES[1]
        )
    )
    brightest = max(high, 1e-3)
    return _by_planes(lambda plane: np.clip(plane / brightest, 0.0, 1.0), flat)


def _execute(n4: sitk.N4BiasFieldCorrectionImageFilter, *images: sitk.Image) -> None:
    """Run a filter that can be stopped between its iterations."""
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            raise_if_cancelled()
        # the filter would replace the error by its own; it is raised below
        except BaseException as err:  # noqa: BLE001
            raised.append(err)
        if raised or interrupts:
            n4.Abort()

    with _interrupts_kept() as interrupts:
        n4.AddCommand(sitk.sitkIterationEvent, ask)
        try:
            n4.Execute(*images)
        except RuntimeError:
            if not raised and not interrupts:
                raise
        finally:
            n4.RemoveAllCommands()
    if raised:
        raise raised[0]


@contextmanager
def _interrupts_kept() -> Iterator[list[int]]:
    """Defer Ctrl-C until the block ends; in a filter's callback it would be lost."""
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(
        before
    ):
        yield came
        return
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(came[0], None)


def block_mean(data: NDArray[np.float32], step: Sequence[int]) -> NDArray[np.float32]:
    """Average blocks of `step` voxels; the array is filled up with zeros to whole blocks."""
    filled = np.pad(data, [(0, -n % k) for n, k in zip(data.shape, step, strict=True)])
    for axis, k in enumerate(step):
        starts = np.arange(0, filled.shape[axis], k)
        filled = (np.add.reduceat(filled, starts, axis=axis) / k).astype(np.float32)
    return filled


@dataclass(frozen=True, slots=True, eq=False)
class WorkingGrid:
    """The part of a scan that the encoder sees, and its voxel size there.

    Parameters
    ----------
    box : tuple of 3 slices
        The part of the scan, in scan voxels (z, y, x).
    shape_zyx : tuple of 3 int
        Voxels of the working grid over that box.
    spacing_zyx_mm : tuple of 3 float
        Voxel size of the working grid.
    """

    box: tuple[slice, slice, slice]
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Scan voxels in the box."""
        z, y, x = (s.stop - s.start for s in self.box)
        return z, y, x


def working_grid(
    inside: NDArray[np.bool_],
    spacing_zyx_mm: NDArray[np.float64],
    *,
    finest_mm: float,
    most_voxels: int,
    margin_mm: float = 6.0,
) -> WorkingGrid:
    """Choose the box around the body and the encoder's voxel size.

    Axes finer than `finest_mm` are averaged down to it; axes coarser than three times
    the finest axis are interpolated up to that; and all axes are made coarser together
    until the box holds at most `most_voxels`. Axes that are resampled get a multiple of
    16 voxels where that is near, because the encoder would pad them to it.

    Raises
    ------
    GeometryError
        If `inside` is empty.
    """
    if not inside.any():
        raise GeometryError(
            "The scan holds no body: every voxel looks like air. Check the file, or"
            " give --modality."
        )
    spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
    box = []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(inside.any(axis=other))
        margin = int(np.ceil(margin_mm / spacing[axis]))
        box.append(
            slice(
                max(0, int(used[0]) - margin),
                min(inside.shape[axis], int(used[-1]) + 1 + margin),
            )
        )
    size_mm = np.array([s.stop - s.start for s in box]) * spacing
    step = np.maximum(spacing, finest_mm)
    step = np.minimum(step, 3.0 * step.min())
    step = step * max(1.0, float(np.prod(size_mm / step) / most_voxels) ** (1 / 3))
    shape = np.maximum(np.round(size_mm / step), 1).astype(int)
    same = np.array([s.stop - s.start for s in box])
    whole = np.round(shape / _PADDED_TO).astype(int) * _PADDED_TO
    near = np.abs(whole - shape) <= _ROUNDED_SHARE * shape
    shape = np.where(
        np.abs(shape - same) <= _SAME_SHARE * same, same, np.where(near, whole, shape)
    )
    return WorkingGrid(
        (box[0], box[1], box[2]),
        tuple(shape.tolist()),
        tuple((size_mm / shape).tolist()),
    )


def resample(
    data: NDArray[np.float32], shape_zyx: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Resample an array to another shape over the same extent.

    Axes that get coarser are averaged; others are interpolated linearly.

    Parameters
    ----------
    data : (z, y, x) float32 array
        Voxel centres lie at (i + 0.5) / n of the extent.
    shape_zyx : tuple of 3 int
        The new shape.

    Returns
    -------
    (z, y, x) float32 array
        With `shape_zyx`.
    """
    raise_if_cancelled()
    if data.shape == tuple(shape_zyx):
        return data
    ratio = np.array(data.shape) / np.array(shape_zyx)
    smooth = ndimage.gaussian_filter(
        data, 0.4 * np.where(ratio > 1.2, ratio, 0.0), mode="nearest", truncate=2.5
    )
    image = sitk.GetImageFromArray(smooth)
    image.SetSpacing([1.0, 1.0, 1.0])
    size = [int(n) for n in reversed(shape_zyx)]
    step = [float(r) for r in reversed(ratio)]
    origin = [(s - 1.0) / 2.0 for s in step]
    out = sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        origin,
        step,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
        True,
    )
    return sitk.GetArrayFromImage(out)


def prepare_intensity(
    volume: Volume, inside: NDArray[np.bool_], settings: ProposeSettings
) -> NDArray[np.float32]:
    """Map a scan to intensity in [0, 1], (z, y, x) float32.

    An MR's bias is flattened if the settings say so.
    """
    intensity = scale_intensity(volume.data, volume.modality, inside=inside)
    if volume.modality == "mr" and settings.flatten_bias == "on":
        intensity = flatten_bias(intensity, inside, volume.spacing_zyx_mm)
    return intensity


def encoder_intensity(
    intensity: NDArray[np.float32],
    inside: NDArray[np.bool_],
    modality: Modality,
    *,
    box: tuple[slice, slice, slice] | None = None,
) -> NDArray[np.float32]:
    """Return intensity (z, y, x) as the encoder's input.

    For MR it is raised to the power that brings the body's median to one half. With a
    box, what lies outside of it is left at 0.
    """
    if modality != "mr":
        return intensity
    power = np.float32(gamma_to_middle(intensity[inside]))
    if box is None:
        return _by_planes(lambda plane: plane**power, intensity)
    out = np.zeros(intensity.shape, np.float32)
    out[box] = _by_planes(lambda plane: plane**power, intensity[box])
    return out


def choose_grid(
    inside: NDArray[np.bool_], volume: Volume, settings: ProposeSettings
) -> WorkingGrid:
    """Choose the working grid of a scan by `working_spacing_mm` and `working_mvox`."""
    most = int(settings.working_mvox * 1e6)
    return working_grid(
        inside,
        volume.spacing_zyx_mm,
        finest_mm=settings.working_spacing_mm,
        most_voxels=most,
    )
