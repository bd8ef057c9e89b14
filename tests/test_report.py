"""The montage: what a person sees on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_strata.errors import GeometryError, WriteError
from napari_strata.report import montage
from napari_strata.volume import Geometry, Region, Segmentation, Volume

BODY, MARK = (90, 90, 90), (250, 10, 10)


def marked_case(
    side: str, spacing_zyx_mm: tuple[float, float, float] = (1, 1, 1)
) -> tuple[Volume, Segmentation]:
    """Give a body with a marked region on one side of the patient."""
    shape = (24, 24, 24)
    geometry = Geometry.from_spacing(shape, spacing_zyx_mm)
    labels = np.zeros(shape, np.uint8)
    labels[3:21, 3:21, 3:21] = 1
    axis, wanted = {
        "R": (0, 1),
        "L": (0, -1),
        "A": (1, 1),
        "P": (1, -1),
        "S": (2, 1),
        "I": (2, -1),
    }[side]
    world = geometry.world_from_voxel(np.moveaxis(np.indices(shape), 0, -1))[..., axis]
    labels[(labels == 1) & (world * wanted > 4 * geometry.spacing_zyx_mm.max())] = 2
    volume = Volume(labels.astype(np.float32) * 100, geometry, "mr", name="marked")
    return volume, Segmentation(
        labels, (Region(1, "body", BODY), Region(2, "mark", MARK)), geometry
    )


def page(case: tuple[Volume, Segmentation], path: Path) -> np.ndarray:
    montage(*case, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def marks(picture: np.ndarray) -> np.ndarray:
    """Find the marked region's reddish pixels left of the legend."""
    red = (picture[..., 0] > 100) & (picture[..., 0] > picture[..., 1] * 1.6)
    red[:, -290:] = False
    return red


def bodies(picture: np.ndarray) -> np.ndarray:
    body = picture.max(axis=-1) > 30
    body[:, -290:] = False
    return body


def center_of_row(picture: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean (y, x) of the mark and of the whole body in the third region picture.

    Of a row of the page.
    """
    height, width = picture.shape[:2]
    window = np.zeros((height, width), bool)
    rows, columns = (height - 110) // 3, (width - 290) // 6
    window[
        80 + row * rows + 30 : 80 + (row + 1) * rows - 30,
        3 * columns + 20 : 4 * columns + 20,
    ] = True
    return np.argwhere(marks(picture) & window).mean(axis=0), np.argwhere(
        bodies(picture) & window
    ).mean(axis=0)


@pytest.mark.parametrize(
    ("side", "row", "axis", "direction"),
    [
        ("L", 0, 1, 1),
        ("R", 0, 1, -1),
        ("A", 0, 0, -1),
        ("L", 1, 1, 1),
        ("S", 1, 0, -1),
        ("A", 2, 1, -1),
        ("P", 2, 1, 1),
        ("I", 2, 0, 1),
    ],
)
def test_planes_are_upright_and_radiological(tmp_path, side, row, axis, direction):
    mark, body = center_of_row(page(marked_case(side), tmp_path / "page.png"), row)
    assert (mark[axis] - body[axis]) * direction > 10


def test_thick_slices_are_drawn_true_to_scale(tmp_path):
    volume, segmentation = marked_case("L", (3, 1, 1))
    cube = np.zeros(volume.data.shape, np.uint8)
    cube[8:16, :, :] = 2  # 24 mm in every direction
    segmentation = Segmentation(cube, segmentation.regions, volume.geometry)
    red = marks(page((volume, segmentation), tmp_path / "page.png"))
    rows = np.flatnonzero(red.any(axis=1))
    blocks = np.split(rows, np.flatnonzero(np.diff(rows) > 3) + 1)
    heights = [len(block) for block in blocks]
    assert len(heights) == 3
    assert max(heights) - min(heights) <= 3


def test_the_legend_shows_colours_of_the_table(tmp_path):
    picture = page(marked_case("L"), tmp_path / "page.png")
    legend = picture[:, -290:].reshape(-1, 3).tolist()
    assert list(MARK) in legend
    assert list(BODY) in legend


@pytest.mark.parametrize(
    "data",
    [np.zeros((1, 9, 12)), np.full((5, 9, 12), -1000, np.int16)],
    ids=["one slice", "constant"],
)
def test_a_page_without_regions_still_shows_the_scan(tmp_path, data):
    geometry = Geometry.from_spacing(data.shape, (5, 1, 1))
    montage(
        Volume(data, geometry),
        Segmentation(np.zeros(data.shape, np.uint8), (), geometry),
        tmp_path / "page.png",
    )
    assert Image.open(tmp_path / "page.png").width > 400


def test_many_regions_with_odd_names(tmp_path):
    labels = np.arange(1, 24 * 24 * 24 + 1, dtype=np.uint16).reshape(24, 24, 24)
    geometry = Geometry.from_spacing(labels.shape, (1, 1, 1))
    named = (
        Region(5, "Äußerst lange Bezeichnung " * 5, (1, 2, 3)),
        Region(6, "肝臓", (4, 5, 6)),
    )
    montage(
        Volume(labels.astype(np.float32), geometry),
        Segmentation(labels, named, geometry),
        tmp_path / "page.png",
    )
    assert Image.open(tmp_path / "page.png").format == "PNG"


def test_the_same_case_gives_the_same_file(tmp_path):
    for name in ("one.png", "two.png"):
        montage(*marked_case("L"), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_refuses_other_formats_and_other_grids(tmp_path):
    volume, segmentation = marked_case("L")
    with pytest.raises(WriteError, match=r"does not end in \.png"):
        montage(volume, segmentation, tmp_path / "page.jpg")
    with pytest.raises(GeometryError, match="affines differ"):
        montage(marked_case("L", (2, 1, 1))[0], segmentation, tmp_path / "page.png")
    assert list(tmp_path.iterdir()) == []
