"""What the canvas really shows: planes and 3D, with marks whose place in the patient is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_strata.gui.canvas.canvas import EDGES, look_along
from napari_strata.gui.canvas.layers import image_tuple, labels_tuple
from napari_strata.gui.canvas.orientation import PLANES, CanvasOrientation
from napari_strata.volume import Geometry, Region, Segmentation, Volume

pytestmark = pytest.mark.gui

SHAPE = (30, 32, 34)
MARKS = {
    "left": ((15, 16, 29), (255, 0, 0)),
    "head": ((3, 16, 17), (0, 255, 0)),
    "front": ((15, 3, 17), (0, 0, 255)),
    "back": ((15, 29, 17), (255, 255, 0)),
}
"""Voxel (z, y, x) and colour.

X runs toward the patient's left, z toward the feet, y toward the back.
"""


def marked_segmentation() -> Segmentation:
    labels = np.zeros(SHAPE, np.uint8)
    for number, (center, _) in enumerate(MARKS.values(), start=1):
        labels[tuple(slice(c - 2, c + 3) for c in center)] = number
    regions = tuple(
        Region(number, name, rgb)
        for number, (name, (_, rgb)) in enumerate(MARKS.items(), start=1)
    )
    return Segmentation(labels, regions, Geometry.from_spacing(SHAPE, (2, 1.5, 1.5)))


@pytest.fixture(scope="module")
def shown_window(shared_window):
    """Show one window for all tests of this file: a new one translates all shaders anew.

    The others want it hidden.
    """
    shared_window.open().window.show()
    yield
    shared_window.close()


@pytest.fixture
def marked(shown_window, shared_viewer):
    viewer = shared_viewer
    viewer.window.show()
    segmentation = marked_segmentation()
    data, kwargs, _ = image_tuple(
        Volume(np.zeros(SHAPE, np.float32), segmentation.geometry, name="marks")
    )
    image = viewer.add_image(data, **kwargs)
    labels, kwargs, _ = labels_tuple(segmentation, name="marks", opacity=1)
    viewer.add_labels(labels, **kwargs)
    orientation = CanvasOrientation(viewer)
    orientation.set_scan(image)
    yield viewer, orientation
    orientation.close()


def picture_of(viewer) -> np.ndarray:
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)


def place_in(picture: np.ndarray, name: str) -> np.ndarray | None:
    """Return where a mark is on the canvas.

    As (down, across) from the middle in half canvases, None if it is not seen.
    """
    wanted = np.array(MARKS[name][1])
    bright = picture.max(axis=-1) > 60
    hue = (picture > 0.5 * picture.max(axis=-1, keepdims=True)) == (wanted > 127)
    places = np.argwhere(bright & hue.all(axis=-1))
    if len(places) < 20:
        return None
    half = np.array(picture.shape[:2]) / 2
    return (places.mean(axis=0) - half) / half


def go_to(viewer, name: str) -> None:
    viewer.dims.set_point(range(3), viewer.layers[0].data_to_world(MARKS[name][0]))


def test_planes_are_upright_with_the_patients_left_on_the_right(marked):
    viewer, orientation = marked
    places = {
        "axial": ("left", "front"),
        "coronal": ("left", "head"),
        "sagittal": ("front", "head"),
    }
    for plane in PLANES:
        orientation.show_plane(plane)
        across, up = places[plane]
        go_to(viewer, across)
        assert (
            place_in(picture_of(viewer), across)[1] * (1 if across == "left" else -1)
            > 0.2
        )
        go_to(viewer, up)
        assert place_in(picture_of(viewer), up)[0] < -0.2


def test_letters_stand_at_the_edges_and_follow_the_camera_in_3d(marked):
    viewer, orientation = marked

    def letters() -> str:
        return "".join(orientation.letters.shown.values())

    orientation.show_plane("axial")
    assert letters() == "RLAP"
    viewer.dims.roll()
    assert letters() == "APSI"
    viewer.dims.transpose()
    assert letters() == "SIAP"
    if hasattr(viewer, "canvas"):
        assert [
            viewer.canvas.overlays[f"strata_{edge}"].text for edge in EDGES
        ] == list("SIAP")
        assert all(viewer.canvas.overlays[f"strata_{edge}"].visible for edge in EDGES)
    else:
        assert (viewer.text_overlay.text, viewer.text_overlay.visible) == (
            "left S · right I · top A · bottom P",
            True,
        )
    orientation.show_plane("axial")
    orientation.show_3d()
    assert letters() == "RLSI"
    look_along(viewer, (0, 0, 1), (-1, 0, 0))
    # from the patient's right: the face looks to the right of the screen
    assert letters() == "PASI"
    orientation.letters.show({})
    assert place_in(picture_of(viewer), "front")[1] > 0.2
    orientation.close()
    assert not orientation.letters.shown


@pytest.mark.parametrize("before", PLANES)
def test_3d_is_seen_from_the_front_and_is_no_mirror_image(marked, before):
    viewer, orientation = marked
    orientation.show_plane(before)
    orientation.show_3d()
    orientation.letters.show({})
    picture = picture_of(viewer)
    assert place_in(picture, "left")[1] > 0.2
    assert place_in(picture, "head")[0] < -0.2
    # The mark in front hides the one behind it: were depth turned round, left and head
    # alone would prove nothing.
    assert place_in(picture, "front") is not None
    assert place_in(picture, "back") is None


def test_napari_own_3d_button_gives_the_same_view(marked):
    viewer, orientation = marked
    viewer.dims.order = (1, 0, 2)
    viewer.dims.ndisplay = 3
    viewer.fit_to_view()
    orientation.letters.show({})
    picture = picture_of(viewer)
    assert place_in(picture, "left")[1] > 0.2
    assert place_in(picture, "head")[0] < -0.2
    assert place_in(picture, "front") is not None
    assert place_in(picture, "back") is None
