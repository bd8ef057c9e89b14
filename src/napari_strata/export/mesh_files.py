"""STL, OBJ and PLY files of surfaces, in mm.

Each declares its space as 3D Slicer reads it ("SPACE=LPS").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportFormat, ExportRequest
from napari_strata.export.mesh import Mesh, region_meshes
from napari_strata.export.per_region import has_region_field, region_path
from napari_strata.filenames import ESCAPED, printable
from napari_strata.io.atomic import Together, file_suffix
from napari_strata.settings import MeshSpace

_MARK = "Strata"
_STL_TRIANGLE = np.dtype(
    [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("spare", "<u2")]
)
_PLY_VERTEX = np.dtype([("place", "<f4", 3), ("color", "u1", 3)])
_PLY_FACE = np.dtype([("corners", "u1"), ("vertices", "<i4", 3)])


def stage_meshes(
    meshes: Sequence[Mesh], path: Path, together: Together, *, space: MeshSpace
) -> None:
    """Write surfaces to one file that gets its final name when `together` closes.

    OBJ files get their materials (.mtl) beside them.

    Parameters
    ----------
    meshes : sequence of Mesh
        At least one. STL keeps shapes only; OBJ and PLY keep colours, OBJ names too.
    path : Path
        Ends in .stl, .obj or .ply.
    together : Together
        Gets the unfinished files.
    space : {"LPS", "RAS"}
        What the file says of its coordinates.

    Raises
    ------
    WriteError
        If a material file that Strata did not write would be replaced.
    """
    suffix = file_suffix(path)
    # readers of OBJ split names at spaces
    materials = path.with_name("_".join(path.stem.split()) + ".mtl")
    if suffix == ".obj" and materials.exists() and not _is_ours(materials):
        raise WriteError(
            f"{materials} is not Strata's and would be replaced. Choose another name"
            " for the mesh."
        )
    unfinished = together.file(path)
    if suffix == ".stl":
        unfinished.write_bytes(_stl(meshes, space))
    elif suffix == ".ply":
        unfinished.write_bytes(_ply(meshes, space))
    else:
        # the file names the other one by its exact bytes
        unfinished.write_text(
            _obj(meshes, space, materials.name),
            encoding="utf-8",
            errors="surrogateescape",
        )
        together.file(materials).write_text(
            _mtl(meshes), encoding="utf-8", errors=ESCAPED
        )


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return _MARK in file.readline()


def _stl(meshes: Sequence[Mesh], space: MeshSpace) -> bytes:
    corners = np.concatenate([mesh.vertices_mm[mesh.faces] for mesh in meshes])
    triangles = np.zeros(len(corners), _STL_TRIANGLE)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
    triangles["corners"] = corners
    header = f"{_MARK} SPACE={space} UNIT=mm".encode("ascii").ljust(80)
    return (
        header + np.uint32(len(triangles)).astype("<u4").tobytes() + triangles.tobytes()
    )


def _ply(meshes: Sequence[Mesh], space: MeshSpace) -> bytes:
    vertices = np.zeros(sum(len(mesh.vertices_mm) for mesh in meshes), _PLY_VERTEX)
    faces = np.zeros(sum(len(mesh.faces) for mesh in meshes), _PLY_FACE)
    faces["corners"] = 3
    vertex = face = 0
    for mesh in meshes:
        end = vertex + len(mesh.vertices_mm)
        vertices["place"][vertex:end] = mesh.vertices_mm
        vertices["color"][vertex:end] = mesh.region.color
        faces["vertices"][face : face + len(mesh.faces)] = mesh.faces + vertex
        vertex, face = end, face + len(mesh.faces)
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_MARK} SPACE={space} UNIT=mm",
        *(
            f"comment region {mesh.region.id} {_ascii(mesh.region.name)}"
            for mesh in meshes
        ),
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {part}" for part in ("red", "green", "blue")),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(lines).encode("ascii") + vertices.tobytes() + faces.tobytes()


def _obj(meshes: Sequence[Mesh], space: MeshSpace, materials: str) -> str:
    lines = [f"# {_MARK} SPACE={space} UNIT=mm", f"mtllib {materials}"]
    first = 1
    for mesh in meshes:
        lines += [f"o {_token(mesh)}", f"usemtl {_token(mesh)}"]
        lines += [
            "v {:.5f} {:.5f} {:.5f}".format(*place)
            for place in mesh.vertices_mm.tolist()
        ]
        lines += [
            "f {} {} {}".format(*corners) for corners in (mesh.faces + first).tolist()
        ]
        first += len(mesh.vertices_mm)
    return "\n".join(lines) + "\n"


def _mtl(meshes: Iterable[Mesh]) -> str:
    lines = [f"# {_MARK}"]
    for mesh in meshes:
        shade = " ".join(f"{part / 255:.6g}" for part in mesh.region.color)
        lines += [
            f"newmtl {_token(mesh)}",
            f"Kd {shade}",
            "Ka 0 0 0",
            "Ks 0 0 0",
            "d 1",
            "illum 1",
        ]
    return "\n".join(lines) + "\n"


def _token(mesh: Mesh) -> str:
    """Return a region's name as one word, for OBJ; the id makes it unique."""
    return f"{mesh.region.id}_" + "_".join(printable(mesh.region.name).split())


def _ascii(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode("ascii")


def _stage_surfaces(request: ExportRequest) -> None:
    """Write the surfaces of all regions, to one file or to one file per region.

    Raises
    ------
    WriteError
        If no region has voxels.
    """
    path, settings = request.path, request.settings
    space = settings.mesh_space
    meshes = list(
        region_meshes(
            request.segmentation,
            smooth_vox=settings.mesh_smooth_vox,
            space=space,
            on_progress=request.on_progress,
        )
    )
    if not meshes:
        raise WriteError(
            f"Cannot write {path}: there is no region with voxels, so there is no"
            " surface."
        )
    if not has_region_field(path):
        stage_meshes(meshes, path, request.together, space=space)
        return
    for mesh in meshes:
        own_path = region_path(path, mesh.region)
        stage_meshes([mesh], own_path, request.together, space=space)


SURFACES = ExportFormat(
    "Surfaces",
    (".stl", ".obj", ".ply"),
    _stage_surfaces,
    stem="surfaces",
    content="a mesh",
    companions=(".mtl",),
    one_file_per_region=True,
    named_first=True,
)
