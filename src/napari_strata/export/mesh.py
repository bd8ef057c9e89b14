"""Closed surfaces of regions in mm, with the volumes of the regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import marching_cubes

from napari_strata.settings import MeshSpace
from napari_strata.volume import (
    Geometry,
    Progress,
    Region,
    Segmentation,
    default_regions,
    no_progress,
    pack_labels,
)


@dataclass(frozen=True, slots=True)
class MeshConstants:
    """Accuracy of surfaces, and the shapes that are too thin to smooth."""

    volume_error: float = 0.005
    """Largest relative difference of a surface's volume from that of its voxels."""
    trials: int = 20
    """Bisections of the level: a millionth of its range, far below the volume error."""
    margin: float = 0.02
    """Smallest distance of a voxel's value from the level, so that its side is kept."""
    speck_vox: int = 512
    """Boxes up to this size, in voxels, are cached: small parts repeat, large do not."""
    thin: float = 0.56
    """Parts whose smoothed mask is at most this in their middle are not smoothed."""
    thick: float = 0.74
    """Parts whose smoothed mask is above this in their middle are smoothed fully."""
    slender_vox: float = 0.7
    """Sigma of the Gaussian that tells lone voxels, tubes and plates apart."""
    outside: tuple[tuple[float, ...], tuple[float, ...]] = (
        (0.145, 0.275, 0.525),
        (0.45, 0.293, 0.0),
    )
    """Gaussian's value in a lone voxel, a tube and a plate one voxel wide, and the value
    that a voxel beside each needs, so that the level 0.5 encloses their volume."""


_CONSTANTS = MeshConstants()
_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The surface of one region.

    Parameters
    ----------
    region : Region
        Whose surface it is.
    vertices_mm : (n, 3) float64 array
        In mm along the patient's axes, in the space that was asked for; both LPS and
        RAS are right-handed.
    faces : (m, 3) int64 array
        Vertex indices, counter-clockwise seen from outside, so that normals point
        outward.
    """

    region: Region
    vertices_mm: NDArray[np.float64]
    faces: NDArray[np.int64]

    @property
    def volume_ml(self) -> float:
        """Volume that the surface encloses, in mL."""
        return enclosed(self.vertices_mm, self.faces) / 1000


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """A surface in array indices (z, y, x) of a box, with its signed volume in voxels."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    voxels: float


def region_meshes(
    segmentation: Segmentation,
    *,
    smooth_vox: float = 0.7,
    space: MeshSpace = "LPS",
    on_progress: Progress = no_progress,
) -> Iterator[Mesh]:
    """Yield the surface of every region that has voxels.

    Marching cubes (Lewiner et al., Journal of Graphics Tools 2003) on each connected
    part (by faces, edges or corners) of the region's mask, smoothed where the part is
    thick. Every voxel's centre stays on its side of the surface, so no part and no thin
    end is lost, and the level is chosen so that each part encloses the volume of its
    own voxels to within 0.5 %. Regions that the scan's border cuts are closed there.

    Parameters
    ----------
    segmentation : Segmentation
        Labels (z, y, x); ids that the table lacks get a default name.
    smooth_vox : float
        Standard deviation of the Gaussian, in voxels along each axis; 0 follows the
        voxels.
    space : {"LPS", "RAS"}
        Axes of the coordinates.
    on_progress : callable
        Raise `Cancelled` in it to stop.

    Yields
    ------
    Mesh
        In order of region id.
    """
    ids, packed = pack_labels(segmentation.labels)
    table = {
        region.id: region for region in (*default_regions(ids), *segmentation.regions)
    }
    for done, (region_id, box) in enumerate(
        zip(ids, ndi.find_objects(packed), strict=True)
    ):
        on_progress(done, len(ids), "making surfaces")
        surface = _surface(packed[box] == done + 1, smooth_vox)
        start = np.array([span.start for span in box])
        yield _in_space(table[region_id], surface, start, segmentation.geometry, space)


def enclosed(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float:
    """Return the signed volume inside a closed surface.

    Positive if normals point outward in a right-handed space.
    """
    a, b, c = (vertices[faces[:, n]] - vertices.mean(axis=0) for n in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _surface(mask: NDArray[np.bool_], smooth_vox: float) -> _Surface:
    """Return the surface of a region, in indices of the mask.

    Each connected part encloses the volume of its own voxels.
    """
    parts, _ = ndi.label(mask, np.ones((3, 3, 3)))
    known: dict[tuple[tuple[int, ...], bytes], _Surface] = {}
    found: list[_Surface] = []
    for number, box in enumerate(ndi.find_objects(parts), 1):
        part = parts[box] == number
        # specks are alike: each shape is worked out once
        key = (part.shape, np.packbits(part).tobytes())
        surface = known.get(key) or _part_surface(part, smooth_vox)
        if part.size <= _CONSTANTS.speck_vox:
            known[key] = surface
        found.append(
            _Surface(
                surface.vertices + [span.start for span in box],
                surface.faces,
                surface.voxels,
            )
        )
    firsts = np.cumsum([0, *(len(one.vertices) for one in found)])
    return _Surface(
        np.concatenate([one.vertices for one in found]),
        np.concatenate(
            [one.faces + first for one, first in zip(found, firsts, strict=False)]
        ),
        sum(one.voxels for one in found),
    )


def _part_surface(mask: NDArray[np.bool_], smooth_vox: float) -> _Surface:
    """Return the surface of one part.

    The centre of every voxel stays on its side of the surface. The level is chosen so
    that the surface encloses the part's own volume.
    """
    pad = 2 + int(np.ceil(4 * smooth_vox))
    inside = np.pad(mask, pad)
    field = _rounded(inside, smooth_vox)

    def at(level: float) -> _Surface:
        kept = field - np.float32(level)
        np.maximum(kept, _CONSTANTS.margin, out=kept, where=inside)
        np.minimum(kept, -_CONSTANTS.margin, out=kept, where=~inside)
        corners, faces, _, _ = marching_cubes(kept, 0.0)
        vertices, found = corners.astype(np.float64), faces.astype(np.int64)
        return _Surface(vertices - pad, found, abs(enclosed(vertices, found)))

    return _with_volume(at, float(mask.sum()))


def _rounded(inside: NDArray[np.bool_], smooth_vox: float) -> NDArray[np.float32]:
    """Smooth a mask, except where it is so thin that it would vanish.

    The level 0.5 then encloses about its volume.

    Parameters
    ----------
    inside : (z, y, x) bool array
        With a border of background as wide as the Gaussian.
    smooth_vox : float
        Standard deviation of the Gaussian, in voxels.

    Returns
    -------
    (z, y, x) float32 array
        In [0, 1], 0 at the border.
    """
    mask = inside.astype(np.float32)
    smooth = (
        ndi.gaussian_filter(mask, smooth_vox, mode="constant")
        if smooth_vox > 0
        else mask
    )
    near = ndi.maximum_filter(smooth * mask, 2 * int(np.ceil(smooth_vox)) + 1)
    places = (near > 0) & (near < _CONSTANTS.thick) if smooth_vox > 0 else near > 0
    if places.any():
        thin = (
            np.clip(
                (_CONSTANTS.thick - near[places])
                / (_CONSTANTS.thick - _CONSTANTS.thin),
                0,
                1,
            )
            if smooth_vox > 0
            else 1.0
        )
        slender = ndi.maximum_filter(
            ndi.gaussian_filter(mask, _CONSTANTS.slender_vox, mode="constant") * mask, 3
        )[places]
        outside = np.interp(slender, *_CONSTANTS.outside) * (slender > 0)
        smooth[places] += thin * (np.where(inside[places], 1, outside) - smooth[places])
    smooth[_shell(smooth.shape)] = 0
    return smooth


def _shell(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the outermost voxels of a box."""
    shell = np.ones(shape, bool)
    shell[1:-1, 1:-1, 1:-1] = False
    return shell


def _with_volume(at: Callable[[float], _Surface], voxels: float) -> _Surface:
    """Find the level at which a surface encloses `voxels` voxels.

    The volume falls as the level rises.
    """
    low, high, level = 0.0, 1.0, 0.5
    best = at(level)
    for _ in range(_CONSTANTS.trials):
        if abs(best.voxels - voxels) <= _CONSTANTS.volume_error * voxels:
            break
        low, high = (low, level) if best.voxels < voxels else (level, high)
        level = 0.5 * (low + high)
        best = at(level)
    return best


def _in_space(
    region: Region,
    surface: _Surface,
    start: NDArray[np.integer],
    geometry: Geometry,
    space: MeshSpace,
) -> Mesh:
    vertices = geometry.world_from_voxel(surface.vertices + start)
    if space == "LPS":
        vertices = vertices * _TO_LPS
    outward = enclosed(vertices, surface.faces) > 0
    return Mesh(region, vertices, surface.faces if outward else surface.faces[:, ::-1])
