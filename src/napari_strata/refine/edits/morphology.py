"""Morphology of label arrays: parts, holes, islands, smoothing, distances, mirroring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy import optimize
from skimage.measure import points_in_poly

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer]

_TRUNCATE = 3.0
"""Radius of a Gaussian kernel, in standard deviations."""
_PLANE_POINTS = 4000
_PLANE_GRID = 64
"""Size of the grid, along the body's longest side, on which its symmetry is measured."""


def parts_of(mask: Mask) -> NDArray[np.int32]:
    """Return the number of each voxel's connected part: 1 is the largest, 0 outside.

    Voxels are connected by faces.
    """
    found, count = ndi.label(mask)
    sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    return rank[found]


def holes_of(mask: Mask) -> Mask:
    """Return the holes of a mask: voxels that no path over faces connects to the outside."""
    return np.asarray(ndi.binary_fill_holes(mask) & ~mask, np.bool_)


def most_touching_label(
    parts: NDArray[np.int32], labels: Labels, allowed: Mask
) -> NDArray[np.int64]:
    """Return for each part 0 .. n the label that shares most voxel faces with it.

    It is -1 for a part that no allowed voxel touches.

    Parameters
    ----------
    parts : (z, y, x) int32 array
        Numbered parts, 0 elsewhere.
    labels : (z, y, x) integer array
        Region of every voxel.
    allowed : (z, y, x) bool array
        Voxels whose label counts; voxels in parts never count.
    """
    pairs = []
    asked = allowed & (parts == 0)
    for axis in range(3):
        for there, here in (
            (slice(1, None), slice(None, -1)),
            (slice(None, -1), slice(1, None)),
        ):
            one, two = (
                tuple(side if k == axis else slice(None) for k in range(3))
                for side in (here, there)
            )
            touch = (parts[one] > 0) & asked[two]
            pairs.append(
                np.stack(
                    [
                        parts[one][touch].astype(np.int64),
                        labels[two][touch].astype(np.int64),
                    ]
                )
            )
    kinds, faces = np.unique(np.concatenate(pairs, axis=1), axis=1, return_counts=True)
    best = np.full(int(parts.max(initial=0)) + 1, -1, np.int64)
    order = np.argsort(faces, kind="stable")
    best[kinds[0][order]] = kinds[1][order]
    return best


def nearest_label(
    labels: Labels, allowed: Mask, spacing_zyx_mm: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Return for every voxel the label of the nearest allowed voxel; -1 if there is none."""
    if not allowed.any():
        return np.full(labels.shape, -1, np.int64)
    places = ndi.distance_transform_edt(
        ~allowed, sampling=spacing_zyx_mm, return_distances=False, return_indices=True
    )
    return labels[tuple(places)].astype(np.int64)


def distance_mm(
    mask: Mask, spacing_zyx_mm: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the distance (mm) of every voxel centre to the nearest one in a mask.

    It is infinite if the mask is empty.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(
        ndi.distance_transform_edt(~mask, sampling=spacing_zyx_mm), np.float64
    )


def smoothed(
    labels: Labels, sd_vox: NDArray[np.floating], left_out: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return labels with smooth borders: each voxel gets the label of largest weight.

    The weight is the Gaussian-smoothed mask of a label.

    Parameters
    ----------
    labels : (z, y, x) integer array
        Region of every voxel.
    sd_vox : (3,) array
        Standard deviation along each axis, in voxels.
    left_out : integer array
        Labels that no voxel may get. Voxels with only such labels around get -1.
    """
    best = np.zeros(labels.shape, np.float32)
    winner = np.full(labels.shape, -1, np.int64)
    reach = np.ceil(_TRUNCATE * sd_vox).astype(int) + 1
    ids = np.flatnonzero(np.bincount(labels.ravel()))
    place = np.zeros(int(ids[-1]) + 1, np.int32)
    place[ids] = np.arange(1, len(ids) + 1)
    boxes = ndi.find_objects(place[labels])
    for label, found in zip(ids.tolist(), boxes, strict=True):
        if label in left_out:
            continue
        box = tuple(
            slice(max(part.start - pad, 0), part.stop + pad)
            for part, pad in zip(found, reach, strict=True)
        )
        weight = ndi.gaussian_filter(
            (labels[box] == label).astype(np.float32),
            sd_vox,
            truncate=_TRUNCATE,
            mode="nearest",
        )
        better = weight > best[box]
        best[box][better] = weight[better]
        winner[box][better] = label
    return winner


def side_of_line(
    points: NDArray[np.floating],
    line: NDArray[np.floating],
    direction: NDArray[np.floating],
) -> Mask:
    """Return a mask of the points on one side of a drawn line, seen along a direction.

    The line is extended straight at both ends.

    Parameters
    ----------
    points : (n, 3) array
        Points in mm.
    line : (k, 3) array
        The line, at least two points apart.
    direction : (3,) array
        The direction of view.
    """
    view = direction / np.linalg.norm(direction)
    along = line[-1] - line[0] - ((line[-1] - line[0]) @ view) * view
    along = along / np.linalg.norm(along)
    across = np.cross(view, along)
    flat, drawn = (
        (part - line[0]) @ np.stack([along, across], axis=1) for part in (points, line)
    )
    far = 4 * float(np.abs(np.concatenate([flat, drawn])).max()) + 1.0
    begin, end = (drawn[0] - drawn[1]), (drawn[-1] - drawn[-2])
    ends = [
        drawn[0] + far * begin / max(np.linalg.norm(begin), 1e-9),
        drawn[-1] + far * end / max(np.linalg.norm(end), 1e-9),
    ]
    corners = np.array([[ends[1][0], 4 * far], [ends[0][0], 4 * far]])
    inside: Mask = points_in_poly(
        flat, np.concatenate([ends[:1], drawn, ends[1:], corners])
    )
    return inside


def mirrored(
    mask: Mask,
    reflection: NDArray[np.floating],
    offset: NDArray[np.floating],
    shape: tuple[int, ...],
) -> Mask:
    """Return a mask sampled at reflected points.

    Voxel v of the result, which has a given shape, is the value at `reflection @ v +
    offset`.
    """
    sampled = ndi.affine_transform(
        mask.astype(np.float32), reflection, offset, output_shape=shape, order=1
    )
    return np.asarray(sampled >= 0.5, np.bool_)


def symmetry_plane(
    body: Mask, affine: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the plane of best left-right symmetry of a body.

    Parameters
    ----------
    body : (z, y, x) bool array
        The body.
    affine : (4, 4) array
        Array index to RAS+ mm.

    Returns
    -------
    point, normal : (3,) arrays
        In RAS+ mm; the normal has length 1 and points right, to within 30 degrees.
    """
    stride = max(1, int(np.ceil(max(body.shape) / _PLANE_GRID)))
    coarse = body[::stride, ::stride, ::stride]
    matrix = np.asarray(affine, np.float64)[:3, :3] * stride
    start = np.asarray(affine, np.float64)[:3, 3]
    spacing = np.linalg.norm(matrix, axis=0)
    padded = np.pad(coarse, 1)
    depth = ndi.distance_transform_edt(
        padded, sampling=spacing
    ) - ndi.distance_transform_edt(~padded, sampling=spacing)
    inside = np.argwhere(coarse)
    if len(inside) == 0:
        return start + matrix @ (np.array(coarse.shape) / 2), np.array([1.0, 0.0, 0.0])
    points = inside[:: max(1, len(inside) // _PLANE_POINTS)] @ matrix.T + start
    own = ndi.map_coordinates(
        depth,
        ((points - start) @ np.linalg.inv(matrix).T + 1).T,
        order=1,
        mode="nearest",
    )
    center = points.mean(axis=0)

    def unlike(knobs: NDArray[np.floating]) -> float:
        normal, shift = _normal(knobs), float(knobs[2])
        other = points - 2 * ((points - center) @ normal - shift)[:, None] * normal
        there = ndi.map_coordinates(
            depth,
            ((other - start) @ np.linalg.inv(matrix).T + 1).T,
            order=1,
            mode="nearest",
        )
        return float(np.abs(there - own).mean())

    first = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 5.0]])
    knobs = optimize.minimize(
        unlike,
        np.zeros(3),
        method="Nelder-Mead",
        options={"initial_simplex": first, "maxiter": 200},
    ).x
    normal = _normal(knobs)
    return center + float(knobs[2]) * normal, normal


def _normal(knobs: NDArray[np.floating]) -> NDArray[np.float64]:
    turned = np.array([1.0, *np.clip(knobs[:2], -0.5, 0.5)])
    return turned / np.linalg.norm(turned)
