"""The cutting line: what is drawn over a region on a plane parts it, and nothing else changes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_strata.gui.canvas.canvas import camera_of
from napari_strata.gui.tools.cut_line import DrawnLine
from test_gui_desk import proposed  # noqa: F401 (a fixture)
from test_gui_panel import messages, shown, two_regions

pytestmark = pytest.mark.gui


def draw(viewer, panel, *voxels: tuple[int, int, int]) -> None:
    event = SimpleNamespace(
        type="mouse_press",
        button=1,
        modifiers=(),
        handled=False,
        pos=np.zeros(2),
        position=None,
    )
    places = [tuple(panel.case.labels.data_to_world(voxel)) for voxel in voxels]
    event.position = places[0]
    drags = [
        drag
        for callback in list(viewer.mouse_drag_callbacks)
        if hasattr(drag := callback(viewer, event), "send")
    ]
    for drag in drags:
        next(drag, None)
    for number, place in enumerate(places[1:], 1):
        event.type, event.pos, event.position = (
            "mouse_move",
            np.array([20.0 * number, 0]),
            place,
        )
        for drag in drags:
            next(drag, None)
    event.type = "mouse_release"
    for drag in drags:
        next(drag, None)
    panel.settle()


def test_a_line_over_a_region_parts_it_through_every_slice(proposed):  # noqa: F811
    viewer, panel = proposed
    start = shown(panel).copy()
    region = two_regions(panel)[0]
    panel.sections.regions.table.select([region])
    viewer.dims.ndisplay = 3
    panel.editor.use_tool("cut")
    assert "drawn on a plane" in messages()
    panel.orientation.show_plane("coronal")
    panel.editor.use_tool("cut")
    layers = list(viewer.layers)

    draw(viewer, panel, (0, 14, 15), (12, 14, 16), (23, 14, 15))
    after = shown(panel)
    changed = start != after
    assert panel.case.work.history[-1].startswith("Split")
    assert set(np.unique(start[changed])) == {region}
    made = next(iter(set(np.unique(after[changed]))))
    # the hand strayed by a voxel; the cut is the straight line that was meant, the same
    # in every coronal slice
    sides = [np.flatnonzero((after == one).any(axis=(0, 1))) for one in (region, made)]
    assert sides[0].max() < sides[1].min() or sides[1].max() < sides[0].min()
    assert set(panel.sections.regions.table.selected) == {region, made}
    assert camera_of(viewer).mouse_pan
    assert list(viewer.layers) == layers
    draw(viewer, panel, (0, 14, 0), (1, 14, 0))
    assert "crosses no region" in messages()
    panel.editor.undo()
    np.testing.assert_array_equal(shown(panel), start)
    panel.editor.use_tool("select")
    assert len(viewer.layers) == len(layers) - 1


def test_nothing_is_cut_while_another_tool_is_in_hand(proposed):  # noqa: F811
    viewer, panel = proposed
    panel.orientation.show_plane("coronal")
    panel.editor.use_tool("cut")
    panel.case.labels.mode = "paint"
    draw(viewer, panel, (0, 14, 15), (12, 14, 16), (23, 14, 15))
    panel.editor.use_tool("cut")
    panel.sections.scan.buttons["ruler"].setChecked(True)
    assert panel.sections.edit.tool == "select"
    assert viewer.layers.selection.active == panel.views.ruler.layer
    draw(viewer, panel, (0, 14, 15), (12, 14, 16), (23, 14, 15))
    assert panel.case.work.history == ()


def test_the_region_is_the_one_most_of_the_line_crosses_however_slowly_the_hand_starts():
    labels = np.ones((3, 10, 100), np.uint8)
    labels[:, :, 20:] = 2
    slowly, quickly = (
        [[1, 5, 15 + 0.05 * step] for step in range(60)],
        [
            [1, 5, 50],
            [1, 5, 80],
        ],
    )
    assert DrawnLine(np.array(slowly + quickly, float), 0).region_of(labels, ()) == 2
