"""Surfaces of regions: closed, outward, in the right place in mm.

As large as their voxels, read back by trimesh.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

import napari_strata as strata
from exported import GRIDS, Case, make_case
from napari_strata.errors import WriteError
from napari_strata.export.mesh import region_meshes
from napari_strata.settings import ExportSettings
from napari_strata.volume import Geometry, Region, Segmentation, default_regions

LPS = np.array([-1, -1, 1])


@pytest.fixture(params=GRIDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(tmp_path, request.param)


@pytest.mark.parametrize("smooth", [0.0, 0.7, 2.0])
def test_every_region_is_closed_outward_and_within_one_percent(
    case: Case, tmp_path: Path, smooth: float
) -> None:
    strata.write(
        case.segmentation,
        tmp_path / "{id}.stl",
        settings=ExportSettings(mesh_smooth_vox=smooth),
    )
    for label in (3, 7, 300):
        mesh = trimesh.load_mesh(tmp_path / f"{label}.stl")
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        # negative if normals pointed inward
        assert mesh.volume / 1000 == pytest.approx(case.volume_ml(label), rel=0.01)
        np.testing.assert_allclose(
            mesh.center_mass * LPS, case.center_mm(label), atol=0.25
        )


def test_surfaces_follow_the_voxels_edges_to_the_scans_border(case: Case) -> None:
    by_id = {
        mesh.region.id: mesh
        for mesh in region_meshes(case.segmentation, smooth_vox=0, space="RAS")
    }
    to_file = np.linalg.inv(case.affine)
    corners = by_id[7].vertices_mm @ to_file[:3, :3].T + to_file[:3, 3]
    np.testing.assert_allclose(corners.min(axis=0), (17.5, 3.5, 1.5), atol=0.05)
    np.testing.assert_allclose(corners.max(axis=0), (18.5, 18.5, 13.5), atol=0.05)


def test_ras_and_lps_differ_by_two_signs_and_say_so(case: Case, tmp_path: Path) -> None:
    strata.write(
        case.segmentation,
        tmp_path / "ras.stl",
        settings=ExportSettings(mesh_space="RAS"),
    )
    strata.write(case.segmentation, tmp_path / "lps.stl")
    ras, lps = (
        trimesh.load_mesh(tmp_path / "ras.stl"),
        trimesh.load_mesh(tmp_path / "lps.stl"),
    )
    np.testing.assert_allclose(ras.bounds[:, 2], lps.bounds[:, 2], atol=1e-3)
    np.testing.assert_allclose(ras.bounds[:, :2], -lps.bounds[::-1, :2], atol=1e-3)
    assert ras.volume == pytest.approx(lps.volume, rel=1e-4)
    assert b"SPACE=RAS" in (tmp_path / "ras.stl").read_bytes()[:80]
    assert b"SPACE=LPS" in (tmp_path / "lps.stl").read_bytes()[:80]


def test_stl_normals_point_where_the_triangles_do(case: Case, tmp_path: Path) -> None:
    raw = strata.write(case.segmentation, tmp_path / "all.stl").read_bytes()[84:]
    rows = np.frombuffer(
        raw,
        np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("spare", "<u2")]),
    )
    turned = np.cross(
        rows["corners"][:, 1] - rows["corners"][:, 0],
        rows["corners"][:, 2] - rows["corners"][:, 0],
    )
    assert (np.einsum("ij,ij->i", turned, rows["normal"]) > 0).mean() > 0.999
    assert np.linalg.norm(rows["normal"], axis=1) == pytest.approx(1, abs=1e-4)


def test_obj_keeps_a_name_and_a_colour_per_region(case: Case, tmp_path: Path) -> None:
    scene = trimesh.load_scene(strata.write(case.segmentation, tmp_path / "all.obj"))
    assert set(scene.geometry) == {
        "3_Left_kidney",
        "7_Blutgefäß,_rechts",
        "300_region_300",
    }
    kidney = scene.geometry["3_Left_kidney"]
    assert kidney.volume / 1000 == pytest.approx(case.volume_ml(3), rel=0.01)
    np.testing.assert_allclose(kidney.center_mass * LPS, case.center_mm(3), atol=0.25)
    assert kidney.visual.material.main_color[:3].tolist() == [200, 30, 40]


def test_obj_finds_its_colours_beside_a_name_with_spaces(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    scene = trimesh.load_scene(
        strata.write(case.segmentation, tmp_path / "Left side.obj")
    )
    assert (tmp_path / "Left_side.mtl").is_file()
    assert scene.geometry["3_Left_kidney"].visual.material.main_color[:3].tolist() == [
        200,
        30,
        40,
    ]


def test_ply_keeps_colours(case: Case, tmp_path: Path) -> None:
    mesh = trimesh.load_mesh(
        strata.write(case.segmentation, tmp_path / "all.ply"), process=False
    )
    assert mesh.volume / 1000 == pytest.approx(
        sum(case.volume_ml(label) for label in (3, 7, 300)), rel=0.01
    )
    colors, counts = np.unique(
        mesh.visual.vertex_colors[:, :3], axis=0, return_counts=True
    )
    assert {tuple(color) for color in colors.tolist()} == {
        (200, 30, 40),
        (0, 90, 255),
        (255, 255, 0),
    }
    kidney = np.flatnonzero(
        (mesh.visual.vertex_colors[:, :3] == (200, 30, 40)).all(axis=1)
    )
    assert len(kidney) == counts.max()
    np.testing.assert_allclose(
        mesh.vertices[kidney].mean(axis=0) * LPS, case.center_mm(3), atol=0.5
    )


def test_thin_tubes_keep_their_volume() -> None:
    labels = np.zeros((12, 12, 30), np.uint8)
    labels[6, 6, 2:28] = 1
    labels[3:5, 2:4, :] = 2
    segmentation = Segmentation(
        labels,
        default_regions([1, 2]),
        Geometry.from_spacing(labels.shape, (2.0, 0.5, 0.5)),
    )
    for mesh in region_meshes(segmentation):
        assert mesh.volume_ml == pytest.approx(
            (labels == mesh.region.id).sum() * 0.5e-3, rel=0.01
        )


def test_every_part_of_a_region_has_a_closed_piece_of_its_own_volume() -> None:
    labels = np.zeros((26, 26, 44), np.uint8)
    z, y, x = np.indices(labels.shape)
    ball = (z - 12) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 100
    labels[ball] = 1
    labels[12, 12, 26:42] = 1  # a tube apart from the ball
    labels[3, 22, 30] = 1  # a speck
    segmentation = Segmentation(
        labels,
        default_regions([1]),
        Geometry.from_spacing(labels.shape, (2.0, 1.0, 1.0)),
    )
    (mesh,) = region_meshes(segmentation)
    pieces = sorted(
        trimesh.Trimesh(mesh.vertices_mm, mesh.faces).split(only_watertight=True),
        key=lambda piece: piece.volume,
    )
    assert [piece.volume for piece in pieces] == pytest.approx(
        [2, 32, 2 * ball.sum()], rel=0.01
    )


@pytest.mark.parametrize("smooth", [0.0, 0.7, 3.0])
def test_a_thin_vessel_reaches_as_far_as_its_voxels(smooth: float) -> None:
    labels = np.zeros((26, 26, 56), np.uint8)
    z, y, x = np.indices(labels.shape)
    labels[(z - 12) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 100] = 1
    labels[12, 12, 12:50] = 1
    segmentation = Segmentation(
        labels,
        default_regions([1]),
        Geometry.from_spacing(labels.shape, (1.0, 1.0, 1.0)),
    )
    (mesh,) = region_meshes(segmentation, smooth_vox=smooth, space="RAS")
    found = trimesh.Trimesh(mesh.vertices_mm, mesh.faces)
    assert found.is_watertight
    assert found.body_count == 1
    assert found.volume == pytest.approx(labels.sum(), rel=0.01)
    ijk = (
        np.c_[found.vertices, np.ones(len(found.vertices))]
        @ np.linalg.inv(segmentation.geometry.affine).T
    )[:, :3]
    assert ijk[:, 2].max() == pytest.approx(49.5, abs=0.5)
    vessel = ijk[(ijk[:, 2] > 30) & (ijk[:, 2] < 45)]
    # of about a voxel's width, no thread
    assert 0.4 < np.abs(vessel[:, :2] - 12).max() < 1


def test_nothing_to_draw_and_equal_names_are_told(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    empty = Segmentation(
        np.zeros_like(case.segmentation.labels), (), case.segmentation.geometry
    )
    with pytest.raises(WriteError, match="no region with voxels"):
        strata.write(empty, tmp_path / "x.ply")
    twins = case.segmentation.with_regions(
        tuple(type(row)(row.id, "same", row.color) for row in case.segmentation.regions)
    )
    with pytest.raises(WriteError, match=r"Put \{id\}"):
        strata.write(twins, tmp_path / "{name}.stl")
    capitals = twins.with_regions(
        tuple(
            Region(i, name, (1, 2, 3))
            for i, name in ((3, "Rib"), (7, "rib"), (300, "x"))
        )
    )
    # one file on a Mac's or Windows' disk
    with pytest.raises(WriteError, match="two regions have the same name"):
        strata.write(capitals, tmp_path / "{name}.stl")
    with pytest.raises(WriteError, match="only meshes"):
        strata.write(case.segmentation, tmp_path / "{id}.nii.gz")
    (tmp_path / "x.mtl").write_text("# a scanner's own\n")
    with pytest.raises(WriteError, match=r"x\.mtl is not Strata's"):
        strata.write(case.segmentation, tmp_path / "x.obj")
    assert (
        not list(tmp_path.glob("*.stl"))
        + list(tmp_path.glob("*.ply"))
        + list(tmp_path.glob("*.obj"))
    )
