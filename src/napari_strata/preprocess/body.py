"""Find the body in a scan: everything that is not air, table or padding.

The rest is background, which starts in region 0. The body is found on a coarse grid of
about 2 mm; voxels at its edge are then classified on the scan's own grid. Lengths in
this module assume a human body; a smaller one is magnified first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.errors import GeometryError
from napari_strata.volume import Geometry, Volume

_COARSE_MM = 2.0
"""Approximate voxel size of the coarse grid."""
_TISSUE_HU = -400.0
"""Threshold between lung (or fat mixed with air) and soft tissue."""
_CT_OPEN_MM, _MR_OPEN_MM = 5.0, 3.0
"""Width of the opening, which removes tables, covers of cushions, and noise."""
_SMALLEST_PART = 0.05
"""Parts of at least this share of the largest one are body."""
_LUNG_ABOVE_HU, _LUNG_ABOVE_AIR_HU, _LUNG_SHARE = -950.0, 60.0, 0.005
"""Least median density of a lung; least excess over the scan's 1st percentile; least share.

On a cropped CT of a heart the lungs' medians are -830 to -870 HU.
"""
_PADDING_BELOW_HU = -1050.0
"""Values below any air, which fill the outside of a CT's field of view."""
_SMOOTHED_MM = 1.2
"""Gaussian sigma that smooths an MR before thresholding."""
_AIR_BELOW = 0.25
"""Upper limit of air, as a share of the way from the darkest voxels to Otsu's threshold."""
_NOISE_TAIL = 4.0
"""Largest ratio of (25th - 10th) to (10th - 5th) percentile in pure noise.

It is 1.7 for Gaussian noise; a larger one shows tissue among the air.
"""
_PADDING_SHARE = 0.15
"""A single value on at least this share of the voxels of an MR is padding, not tissue."""
_LONELY_SHARE = 0.5
"""Largest share of padding voxels next to another value; above it they are clipped noise."""
_BELOW_SHARE = 0.01
"""Largest share of other voxels below a value at which noise was clipped.

Resampling overshoots a little, so it is not 0.
"""
_FEWEST_SPECKS, _SPECK_SHARE = 20, 0.002
"""Least number of separate parts, and per voxel of padding, that shows clipped noise.

A real head whose noise was mostly clipped has 0.004 parts per voxel, stripped brains 0,
a synthetic thick T2 0.0008.
"""
_FAINT, _FADES = 0.03, 1.5
"""Largest intensity next to clipped noise, as a share; least increase one voxel further in.

A skull-stripped MNI152 begins at 0.15.
"""
_MIN_BRIGHT_NEIGHBORS = 3
"""Bright face neighbours that keep a bright voxel at the edge: as many as a corner has."""
_MOST_FILLED_VOXELS = 30_000_000
"""Padded scans above this keep their holes, because filling takes too long."""
_SMALL_BODY_MM = 50.0
"""A body smaller than this in every direction is a specimen or an animal, to be magnified."""
_SMALLEST_BODY_MM = 0.1
"""Smaller bodies are not scanned (an embryo has 1 mm); the voxel size is not in mm."""
_MAGNIFIED_VOXEL_MM = 1.0
"""Finest voxel size of a magnified body, which suits the encoder best."""
_FACES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def body_mask(volume: Volume) -> NDArray[np.bool_]:
    """Find the body: everything that is not air, table or padding around it.

    Holes such as lungs are filled.

    CT: what is denser than -400 HU, opened by a few mm so that the table drops off, and
    lungs that the field of view cuts. MR with padding (one value on many voxels, as
    after skull stripping): what is not padding. Other MR, also where noise was cut off
    at a value but for some of it: Otsu's threshold on a smoothed scan, lowered to just
    above the noise of the air. Only parts of at least a twentieth of the largest one
    are kept. Along axes finer than 1.3 mm, voxels within 2 mm of the edge are decided
    by themselves: padding or not, or which side of the threshold a voxel and its six
    neighbours are on. A body of less than 50 mm, as of a mouse, is looked for as if its
    voxels were 1 mm.

    Parameters
    ----------
    volume : Volume
        The scan, (z, y, x).

    Returns
    -------
    (z, y, x) bool array
        True inside; all True if no background can be told apart.
    """
    spacing = volume.spacing_zyx_mm
    body = _body_at(volume, spacing)
    times = _magnification(body, spacing)
    return body if times == 1.0 else _body_at(volume, spacing * times)


def magnified(volume: Volume, inside: NDArray[np.bool_]) -> tuple[Volume, float]:
    """Return a scan of a small body at a size at which lengths made for people fit it.

    Parameters
    ----------
    volume : Volume
        The scan, (z, y, x).
    inside : (z, y, x) bool array
        Its body, from `body_mask`.

    Returns
    -------
    Volume
        The same voxels with larger voxel sizes in mm; the scan itself where the body is
        not small.
    float
        How many times larger; 1.0 where the body measures 50 mm or more, or has voxels
        of 1 mm or more.

    Raises
    ------
    GeometryError
        If the body is smaller than anything that is scanned (a voxel size in other
        units than mm).
    """
    size_mm = _largest_side_mm(inside, volume.spacing_zyx_mm)
    if 0 < size_mm < _SMALLEST_BODY_MM:
        raise GeometryError(
            f"The body is only {size_mm:.3g} mm across. Check the voxel size in the"
            " scan's header."
        )
    times = _magnification(inside, volume.spacing_zyx_mm)
    if times == 1.0:
        return volume, times
    affine = volume.geometry.affine @ np.diag([times, times, times, 1.0])
    return replace(volume, geometry=Geometry(volume.geometry.shape_zyx, affine)), times


def _magnification(
    inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64]
) -> float:
    """Return by how much the lengths of a small body have to grow; 1.0 for all others."""
    finest_mm = float(spacing_zyx_mm.min())
    if finest_mm >= _MAGNIFIED_VOXEL_MM:
        return 1.0
    return (
        1.0
        if _largest_side_mm(inside, spacing_zyx_mm) >= _SMALL_BODY_MM
        else _MAGNIFIED_VOXEL_MM / finest_mm
    )


def _largest_side_mm(
    inside: NDArray[np.bool_], spacing_zyx_mm: NDArray[np.float64]
) -> float:
    """Return the longest side of the box around a body; 0 of nothing."""
    sides_mm = [0.0]
    for axis, voxel_mm in enumerate(spacing_zyx_mm):
        used = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if used.size:
            sides_mm.append(float((used[-1] + 1 - used[0]) * voxel_mm))
    return max(sides_mm)


def _body_at(volume: Volume, spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the body of a scan whose voxels count as this large, in mm along z, y, x."""
    data = volume.data
    step = [max(1, round(_COARSE_MM / s)) for s in spacing]
    small = np.ascontiguousarray(
        data[:: step[0], :: step[1], :: step[2]], dtype=np.float32
    )
    padding = _padding_value(data, small) if volume.modality == "mr" else None
    above = _TISSUE_HU
    if padding is not None:
        coarse = _filled(_large_parts(small != padding))
    elif volume.modality == "ct":
        coarse = _ct_body(small, spacing * step)
    else:
        coarse, above = _mr_body(small, spacing * step)
    if not coarse.any() or coarse.all():
        return np.ones(data.shape, bool)
    raise_if_cancelled()
    near = np.ones([1 + 2 * (k > 1) for k in step], bool)
    possible = _every_voxel(ndimage.binary_dilation(coarse, near), step, data.shape)
    if padding is not None:
        return possible & _without_holes(data != padding)
    body = _every_voxel(
        ndimage.binary_erosion(coarse, near, border_value=1), step, data.shape
    )
    edge = np.nonzero(possible & ~body)
    body[edge] = _stand_out(data, edge, above)
    return _without_pockets(body, possible)


def _every_voxel(
    coarse: NDArray[np.bool_], step: Sequence[int], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Bring a mask of every `step`-th voxel to all voxels, each from the nearest."""
    nearest = [
        np.minimum((np.arange(n) + k // 2) // k, m - 1)
        for n, k, m in zip(shape, step, coarse.shape, strict=True)
    ]
    return coarse[np.ix_(*nearest)]


def _without_holes(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what is closed in, such as ventricles that are as dark as the padding."""
    if known.size > _MOST_FILLED_VOXELS or not known.any():
        return known
    box = _box_around(known)
    filled = known.copy()
    filled[box] = _without_enclosed(known[box], ndimage.generate_binary_structure(3, 1))
    return filled


def _box_around(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the box around a mask that is not empty, one voxel wider where it can be."""
    z, y, x = (
        slice(max(0, int(at[0]) - 1), int(at[-1]) + 2)
        for at in (
            np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            for axis in range(3)
        )
    )
    return z, y, x


def _stand_out(
    data: NDArray[np.generic], places: tuple[NDArray[np.intp], ...], above: float
) -> NDArray[np.bool_]:
    """Return which voxels are above a threshold, (n,), judged with their six neighbours.

    Isolated bright voxels count as noise.
    """
    own = np.asarray(data[places], np.float32) > above
    bright = np.zeros(len(own), np.uint8)
    for offset in _FACES:
        beside = tuple(
            np.clip(index + k, 0, n - 1)
            for index, k, n in zip(places, offset, data.shape, strict=True)
        )
        bright += np.asarray(data[beside], np.float32) > above
    return (own & (bright >= _MIN_BRIGHT_NEIGHBORS)) | (bright >= len(_FACES) - 1)


def _without_pockets(
    body: NDArray[np.bool_], possible: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Fill dark pockets near the edge that are closed: skull bone, gas under the skin."""
    box = _box_around(possible)
    parts, n = ndimage.label(~body[box])
    open_parts = np.zeros(n + 1, bool)
    open_parts[np.unique(parts[~possible[box]])] = True
    body[box] |= ~open_parts[parts]
    return body


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the parts that are not small beside the largest one."""
    parts, n = ndimage.label(mask)
    if n < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= _SMALLEST_PART * sizes.max())[parts]


def _opened(
    mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64], open_mm: float
) -> NDArray[np.bool_]:
    """Drop what is thin, unless that is everything."""
    radius = [max(0, round(open_mm / 2 / s)) for s in spacing_mm]
    opened = ndimage.binary_opening(mask, np.ones([2 * r + 1 for r in radius], bool))
    return opened if opened.any() else mask


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes: in 3D, and in each axial slice so that cut-off lungs count as body."""
    faces = ndimage.generate_binary_structure(3, 1)
    filled = _without_enclosed(mask, faces)
    if mask.shape[0] == 1:
        return filled
    faces[[0, 2]] = False
    return _without_enclosed(filled, faces)


def _without_enclosed(
    mask: NDArray[np.bool_], neighbors: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Fill what is not connected with the array's border.

    `neighbors` says which voxels are connected; only the axes along which it reaches
    have a border.
    """
    parts, n = ndimage.label(~mask, neighbors)
    is_open = np.zeros(n + 1, bool)
    for axis in range(mask.ndim):
        if neighbors.any(axis=axis).sum() < neighbors.sum():
            is_open[parts.take([0, -1], axis=axis)] = True
    is_open[0] = False
    return ~is_open[parts]


def _ct_body(
    small: NDArray[np.float32], spacing_mm: NDArray[np.float64]
) -> NDArray[np.bool_]:
    body = _filled(_large_parts(_opened(small > _TISSUE_HU, spacing_mm, _CT_OPEN_MM)))
    return body | _open_lungs(body, small)


def _open_lungs(
    body: NDArray[np.bool_], small: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Find lungs that a tightly cropped CT cuts off at its faces, and the vessels in them.

    A lung is denser than air, and most of what it borders on is body: the foam in a
    table is neither.
    """
    real = small[small >= _PADDING_BELOW_HU]
    air = float(np.percentile(real, 1.0)) if real.size else _PADDING_BELOW_HU
    above = max(_LUNG_ABOVE_HU, air + _LUNG_ABOVE_AIR_HU)
    lungs = _denser_parts(
        ~(body | (small > _TISSUE_HU)),
        body,
        small,
        above_hu=above,
        fewest=int(_LUNG_SHARE * body.size),
    )
    if lungs.any():
        body = body | lungs
        lungs |= _denser_parts(~body, body, small, above_hu=above, fewest=0)
    return lungs


def _denser_parts(
    where: NDArray[np.bool_],
    body: NDArray[np.bool_],
    small: NDArray[np.float32],
    *,
    above_hu: float,
    fewest: int,
) -> NDArray[np.bool_]:
    """Return parts of more than `fewest` voxels, of high median density, mostly in the body."""
    parts, n = ndimage.label(where)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    wanted = np.zeros(n + 1, bool)
    large = [number for number in np.flatnonzero(sizes > fewest).tolist() if number]
    medians: list[float] = (
        np.atleast_1d(ndimage.median(small, parts, large)).tolist() if large else []
    )
    boxes = ndimage.find_objects(parts)
    for number, median in zip(large, medians, strict=True):
        if median > above_hu:
            box = tuple(
                slice(max(0, along.start - 1), along.stop + 1)
                for along in boxes[number - 1]
            )
            own = parts[box] == number
            rim = ndimage.binary_dilation(own) & ~own
            wanted[number] = rim.any() and body[box][rim].mean() > 0.5
    return wanted[parts]


def _padding_value(
    data: NDArray[np.generic], small: NDArray[np.float32]
) -> float | None:
    """Return the value that fills the outside of a stripped or masked MR, if there is one.

    `small` is the scan on a coarse grid.
    """
    edge = np.concatenate(
        [np.take(data, i, axis=a).ravel() for a in range(3) for i in (0, -1)]
    )
    values, counts = np.unique(
        edge[:: max(1, edge.size // 200_000)], return_counts=True
    )
    value = values[counts.argmax()]
    share = float(np.mean(data == value))
    if share < _PADDING_SHARE or counts.max() <= 0.5 * counts.sum():
        return None
    same = data[:: max(1, data.shape[0] // 32)] == value
    alone = same[:, 1:-1, 1:-1] & ~(
        same[:, :-2, 1:-1] & same[:, 2:, 1:-1] & same[:, 1:-1, :-2] & same[:, 1:-1, 2:]
    )
    if alone.sum() > _LONELY_SHARE * max(
        1, same[:, 1:-1, 1:-1].sum()
    ) or _is_noise_cut_off(small, float(value)):
        return None
    return float(value)


def _is_noise_cut_off(small: NDArray[np.float32], value: float) -> bool:
    """Return whether a value is clipped noise of the air, and not padding.

    Clipped noise leaves specks, or intensities that fade out beside the tissue.
    """
    known = small != value
    if not known.any() or np.mean(small[known] < value) > _BELOW_SHARE:
        return False
    parts: int = ndimage.label(known)[1]
    if parts > max(_FEWEST_SPECKS, _SPECK_SHARE * float(np.count_nonzero(~known))):
        return True
    first = known & ndimage.binary_dilation(~known)
    second = known & ~first & ndimage.binary_dilation(first)
    if not (first.any() and second.any()):
        return False
    outer, inner = (float(np.median(small[layer])) - value for layer in (first, second))
    return (
        outer < _FAINT * (float(np.percentile(small[known], 99.0)) - value)
        and inner > _FADES * outer
    )


def _mr_body(
    small: NDArray[np.float32], spacing_mm: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], float]:
    """Find the body on a coarse grid, and the intensity above which it is body."""
    smooth = ndimage.gaussian_filter(small, _SMOOTHED_MM / np.maximum(spacing_mm, 0.5))
    low, high = (float(value) for value in np.percentile(smooth, (0.1, 99.0)))
    clipped = np.clip(smooth, low, high)
    above = _noise_threshold(clipped, low)
    return (
        _filled(_large_parts(_opened(clipped > above, spacing_mm, _MR_OPEN_MM))),
        above,
    )


def _noise_threshold(clipped: NDArray[np.float32], low: float) -> float:
    """Return an intensity just above the noise of the air at the scan's faces.

    If there is no air at the faces, it is one above the darkest voxels.
    """
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.SetNumberOfHistogramBins(256)
    threshold.Execute(sitk.GetImageFromArray(clipped))
    otsu = threshold.GetThreshold()
    edge = np.concatenate(
        [np.take(clipped, i, axis=a).ravel() for a in range(3) for i in (0, -1)]
    )
    darkest, dark, quarter = np.percentile(edge, (5, 10, 25))
    # air and tissue: noise alone is not so skewed
    mixed = quarter - dark > _NOISE_TAIL * (dark - darkest)
    center = float(dark if mixed else quarter)
    # the body fills the field of view: what lies at its faces is not air
    if center > low + _AIR_BELOW * (otsu - low):
        return float(low + _AIR_BELOW * (otsu - low))
    below = clipped[clipped <= center]
    spread = 1.4826 * float(np.median(center - below))
    return float(
        min(otsu, max(center + 6.0 * spread, center + _AIR_BELOW * (otsu - center)))
    )
