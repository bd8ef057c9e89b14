"""Closed surfaces of regions in millimetres, as large as the regions are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import marching_cubes

from napari_strata.settings import MeshSpace
from napari_strata.volume import Geometry, Progress, Region, Segmentation, default_regions, no_progress, pack_labels

_VOLUME_ERROR = 0.005
_TRIALS = 20
_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The surface of one region.

    Parameters
    ----------
    region : Region
        Whose surface it is.
    vertices_mm : (n, 3) float64 array
        In mm along the patient's axes, in the space that was asked for; both LPS and RAS are right-handed.
    faces : (m, 3) int64 array
        Vertex indices, counter-clockwise seen from outside, so that normals point outward.
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
    """A surface in array indices (z, y, x) of a box, with the volume in voxels that it encloses (signed)."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    voxels: float


def region_meshes(
    segmentation: Segmentation, *, smooth_vox: float = 0.7, space: MeshSpace = "LPS", on_progress: Progress = no_progress
) -> Iterator[Mesh]:
    """Make the surface of every region that has voxels, one after another.

    Marching cubes (Lewiner et al., Journal of Graphics Tools 2003) on the region's mask, smoothed; the level is chosen so
    that the surface encloses the volume of the region's voxels to within 0.5 %, however thin the region is. Regions that
    the scan's border cuts are closed there.

    Parameters
    ----------
    segmentation : Segmentation
        Labels (z, y, x); ids that the table lacks get a default name.
    smooth_vox : float
        Standard deviation of the Gaussian, in voxels along each axis; 0 follows the voxels.
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
    table = {region.id: region for region in (*default_regions(ids), *segmentation.regions)}
    for done, (region_id, box) in enumerate(zip(ids, ndi.find_objects(packed), strict=True)):
        on_progress(done, len(ids), "making surfaces")
        surface = _surface(packed[box] == done + 1, smooth_vox)
        start = np.array([span.start for span in box])
        yield _in_space(table[region_id], surface, start, segmentation.geometry, space)


def enclosed(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float:
    """Give the signed volume inside a closed surface: positive where normals point outward in a right-handed space."""
    a, b, c = (vertices[faces[:, n]] - vertices.mean(axis=0) for n in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _surface(mask: NDArray[np.bool_], smooth_vox: float) -> _Surface:
    """Find the surface that encloses the mask's own volume, in indices of the mask."""
    pad = 1 + int(np.ceil(4 * smooth_vox))
    field = np.pad(mask, pad).astype(np.float32)
    if smooth_vox > 0:
        field = ndi.gaussian_filter(field, smooth_vox, mode="constant")
        field[_shell(field.shape)] = 0
    wanted = float(mask.sum())

    def at(level: float) -> _Surface:
        vertices, faces, _, _ = marching_cubes(field, level)
        found = faces.astype(np.int64)
        return _Surface(vertices.astype(np.float64) - pad, found, abs(enclosed(vertices.astype(np.float64), found)))

    return _with_volume(at, wanted, highest=float(field.max()))


def _shell(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the outermost voxels of a box."""
    shell = np.ones(shape, bool)
    shell[1:-1, 1:-1, 1:-1] = False
    return shell


def _with_volume(at: Callable[[float], _Surface], wanted: float, *, highest: float) -> _Surface:
    """Search the level at which a surface encloses `wanted` voxels; the volume falls as the level rises."""
    low, high = 1e-4 * highest, (1 - 1e-4) * highest
    level = min(0.5, 0.5 * (low + high))
    best = at(level)
    for _ in range(_TRIALS):
        if abs(best.voxels - wanted) <= _VOLUME_ERROR * wanted:
            break
        low, high = (low, level) if best.voxels < wanted else (level, high)
        level = 0.5 * (low + high)
        best = at(level)
    return best


def _in_space(region: Region, surface: _Surface, start: NDArray[np.integer], geometry: Geometry, space: MeshSpace) -> Mesh:
    vertices = geometry.world_from_voxel(surface.vertices + start)
    if space == "LPS":
        vertices = vertices * _TO_LPS
    outward = enclosed(vertices, surface.faces) > 0
    return Mesh(region, vertices, surface.faces if outward else surface.faces[:, ::-1])
