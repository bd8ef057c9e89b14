"""The reading desk: windows by mouse, positions, planes, ruler, surfaces, previews, names.

Places to look at, other tools' edits.
"""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_strata.gui.actions import ACTIONS, help_rows
from napari_strata.gui.canvas.canvas import camera_of, grid_of
from napari_strata.gui.canvas.surfaces import surface_of
from napari_strata.gui.panel.linked_planes import CROSSHAIR_NAME
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.session.followup import FollowUp
from napari_strata.gui.tools.hand_paint import paint_from_event
from napari_strata.gui.widgets.help import (
    TOUR,
    HelpOverlay,
    note_tour_seen,
    tour_was_seen,
)
from napari_strata.gui.widgets.region_names import (
    known_names,
    own_names,
    remember_name,
    suggested_names,
)
from napari_strata.io.labels.terms import coded
from phantoms import phantom_volume, propose_phantom
from test_gui_panel import add_scan, messages, shown, two_regions

pytestmark = pytest.mark.gui


@pytest.fixture
def proposed(shared_viewer, qtbot):
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    add_scan(viewer)
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and bool(panel.case.statistics()), timeout=20000
    )
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def stroke(panel, voxel=(12, 12, 9)) -> Labels:
    panel.sections.edit.show_target("new")
    panel.editor.use_tool("scribble")
    layer = panel.case.brushes.scribble.layer
    layer.paint(voxel, layer.selected_label)
    panel.editor.show_preview()
    panel.case.queue.finish()
    panel.case.preview.finish()
    return layer


def test_a_preview_shows_what_update_then_does_and_space_takes_it(proposed):
    viewer, panel = proposed
    before = shown(panel).copy()
    stroke(panel)
    preview = np.asarray(panel.case.preview.layer.data).copy()
    np.testing.assert_array_equal(panel.case.work.labels, before)
    assert panel.case.work.history == ()
    assert preview[12, 12, 9]
    viewer.keymap[next(key for key in viewer.keymap if str(key) == "Space")](viewer)
    after = shown(panel)
    np.testing.assert_array_equal(preview > 0, after != before)
    assert not np.asarray(panel.case.preview.layer.data).any()
    assert "Space" not in [str(key) for key in viewer.keymap]


def test_escape_drops_the_strokes_and_changes_nothing(proposed):
    viewer, panel = proposed
    before = shown(panel).copy()
    layer = stroke(panel)
    viewer.keymap[next(key for key in viewer.keymap if str(key) == "Escape")](viewer)
    assert not np.asarray(layer.data).any()
    assert not np.asarray(panel.case.preview.layer.data).any()
    np.testing.assert_array_equal(shown(panel), before)
    assert panel.case.work.history == ()


def test_names_bring_their_colour_along_and_a_persons_own_are_remembered(proposed):
    _, panel = proposed
    first, second = two_regions(panel)
    panel.sections.regions.table.rename_asked.emit(first, "Left-Hippocampus")
    panel.sections.regions.table.rename_asked.emit(second, "suspicious thing")
    panel.settle()
    rows = {row.id: row for row in panel.case.work.regions}
    assert rows[first].color == (220, 216, 20)
    assert own_names() == ["suspicious thing"]
    assert suggested_names()[0] == "suspicious thing"


def test_the_list_of_names_has_codes_and_colours():
    names = known_names()
    assert len(names) > 140
    assert (
        names["liver"].snomed_ct,
        names["kidney_left"].side,
        names["Left-Putamen"].color,
    ) == ("10200004", "left", (236, 13, 176))
    assert all(
        known.snomed_ct == (coded(name) or {}).get("value", "")
        for name, known in names.items()
    ), "as an export says"
    assert all(0 <= part <= 255 for name in names.values() for part in name.color)


def test_names_that_cannot_be_written_are_forgotten_quietly(tmp_path):
    (tmp_path / "file").write_text("")
    remember_name("mine", tmp_path / "file" / "names.txt")
    assert own_names(tmp_path / "file" / "names.txt") == []


def test_hidden_and_solo_regions_are_not_drawn_and_still_exported(proposed):
    _, panel = proposed
    first, second = two_regions(panel)
    panel.sections.regions.table.asked.emit("solo", (first,))
    assert panel.case.labels.get_color(first)[3] == 1
    assert panel.case.labels.get_color(second)[3] == 0
    assert (shown(panel) == second).any()
    panel.sections.regions.show_all.click()
    assert panel.case.labels.get_color(second)[3] == 1
    panel.sections.regions.table.show_asked.emit(second, False)
    assert panel.case.labels.get_color(second)[3] == 0


def test_the_table_filters_sorts_and_jumps(proposed):
    viewer, panel = proposed
    region = two_regions(panel)[1]
    panel.case.work.rename(region, "Right thing")
    panel.refresh()
    panel.sections.regions.filter.setText("right")
    assert panel.sections.regions.table.sorted.rowCount() == 1
    panel.sections.regions.filter.setText("")
    assert panel.sections.regions.table.sorted.rowCount() == len(
        panel.case.work.regions
    )
    panel.sections.regions.table.asked.emit("jump", (region,))
    panel.settle()
    voxel = np.rint(panel.case.labels.world_to_data(viewer.dims.point)).astype(int)
    assert shown(panel)[tuple(voxel)] == region


def test_the_history_lists_every_step_and_goes_back_to_one(proposed):
    _, panel = proposed
    first, second = two_regions(panel)
    start = shown(panel).copy()
    for region, name in ((first, "one"), (second, "two")):
        panel.sections.regions.table.rename_asked.emit(region, name)
    panel.settle()
    panel.refresh()
    steps = [
        panel.sections.history.steps.item(row).text()
        for row in range(panel.sections.history.steps.count())
    ]
    assert steps == [
        "Start",
        f"Rename: tissue {first} to one",
        f"Rename: tissue {second} to two",
    ]
    panel.sections.history.jump_asked.emit(1)
    panel.settle()
    assert len(panel.case.work.history) == 1
    panel.sections.history.jump_asked.emit(0)
    np.testing.assert_array_equal(shown(panel), start)


def test_next_goes_to_an_unsure_place_and_accept_keeps_it(proposed):
    viewer, panel = proposed
    panel.review.next()
    panel.settle()
    place = panel.review.here
    assert panel.sections.regions.table.selected == (place.region,)
    np.testing.assert_allclose(
        viewer.dims.point, panel.case.labels.data_to_world(place.voxel_zyx)
    )
    panel.sections.review.accept.click()
    panel.settle()
    assert panel.case.work.history[-1].startswith("Assign")
    assert panel.review.here.voxel_zyx != place.voxel_zyx


def test_what_another_tool_writes_in_the_labels_becomes_a_step(proposed, qtbot):
    viewer, panel = proposed
    region = two_regions(panel)[0]
    z, y, x = np.argwhere(shown(panel) == 0)[0]
    viewer.dims.set_point(range(3), panel.case.labels.data_to_world((z, y, x)))
    panel.case.labels.data[z, y, x : x + 3] = region
    panel.case.labels.refresh()
    qtbot.waitUntil(lambda: len(panel.case.work.history) == 1, timeout=5000)
    assert panel.case.work.view.region_at((z, y, x)) == region
    panel.editor.undo()
    assert shown(panel)[z, y, x] == 0


def test_a_labels_array_of_another_shape_is_refused_and_nothing_is_lost(
    proposed, qtbot
):
    _, panel = proposed
    before = shown(panel).copy()
    panel.case.labels.data = np.zeros((4, 4, 4), np.uint8)
    qtbot.waitUntil(lambda: panel.case.labels.data.shape == before.shape, timeout=5000)
    np.testing.assert_array_equal(shown(panel), before)
    assert "another shape" in messages()


def test_paint_events_of_every_napari_are_understood():
    seen = []
    layer = Labels(np.zeros((4, 5, 6), np.uint8))
    layer.events.paint.connect(
        lambda event: seen.append(paint_from_event(event.value, layer.data.shape))
    )
    layer.brush_size = 2
    layer.paint((1, 2, 3), 7)
    layer.fill((0, 0, 0), 5)
    layer.data_setitem((np.array([3, 3]), np.array([0, 1]), np.array([2, 2])), 4)
    expected = np.zeros(layer.data.size, int)
    for paint in seen:
        expected[paint.flat] = paint.values
    np.testing.assert_array_equal(expected.reshape(layer.data.shape), layer.data)
    assert paint_from_event([object()], (2, 2, 2)) is None


def test_a_right_drag_changes_the_window_and_the_other_keys_of_the_mouse_do_not(
    proposed, qtbot
):
    viewer, panel = proposed
    panel.editor.use_tool("select")
    limits = tuple(panel.scans.image.contrast_limits)
    event = type(
        "Event",
        (),
        {
            "type": "mouse_press",
            "button": 2,
            "modifiers": (),
            "pos": np.array([10.0, 10.0]),
            "handled": False,
        },
    )()
    drag = panel.views.on_drag(viewer, event)
    next(drag)
    event.type, event.pos = "mouse_move", np.array([110.0, 10.0])
    next(drag)
    assert np.diff(panel.scans.image.contrast_limits) > np.diff(limits)
    event.type = "mouse_release"
    assert next(drag, None) is None
    assert camera_of(viewer).mouse_zoom
    event.button = 1
    assert next(panel.views.on_drag(viewer, event), None) is None


def test_go_to_shows_the_place_and_refuses_what_lies_outside(proposed):
    viewer, panel = proposed
    panel.views.go_to("R 6.5 P 0.5 I 1")
    np.testing.assert_allclose(
        panel.scans.image.world_to_data(viewer.dims.point), (12, 14, 9)
    )
    panel.views.go_to("R 600 P 0 I 1")
    assert "outside" in messages()


def test_three_planes_follow_each_other_and_the_regions(proposed, qtbot):
    viewer, panel = proposed
    panel.orientation.show_plane("axial")
    panel.sections.scan.buttons["planes"].click()
    coronal, sagittal = panel.views.planes.views
    assert [view.model.dims.order[0] for view in (coronal, sagittal)] == [1, 2]
    letters = [view.orientation.letters.shown["left"] for view in (coronal, sagittal)]
    assert letters == ["R", "A"]
    panel.views.go_to("R 6.5 P 0.5 I 1")
    for view in (coronal, sagittal):
        np.testing.assert_allclose(view.model.dims.point, viewer.dims.point)
    coronal.model.dims.set_current_step(1, 5)
    assert viewer.dims.current_step[1] == 5
    panel.sections.regions.table.select(two_regions(panel))
    panel.editor.edit("merge")
    panel.settle()
    assert np.shares_memory(sagittal.labels.data, panel.case.labels.data)
    panel.orientation.show_plane("sagittal")
    assert [view.model.dims.order[0] for view in (coronal, sagittal)] == [0, 1]
    panel.sections.scan.buttons["planes"].click()
    assert CROSSHAIR_NAME not in viewer.layers
    assert panel.views.planes is None


def test_the_ruler_tells_lengths_in_mm(proposed):
    _, panel = proposed
    panel.sections.scan.buttons["ruler"].click()
    layer = panel.views.ruler.layer
    layer.add_lines(np.array([[0, 0, 0], [0, 3, 4]]) / layer.scale[0])
    assert list(layer.features["length"]) == ["5.0 mm"]
    panel.sections.scan.buttons["ruler"].click()
    assert str(layer.mode) == "pan_zoom"


def test_surfaces_lie_where_the_region_lies(proposed, qtbot):
    viewer, panel = proposed
    region = two_regions(panel)[1]
    panel.sections.regions.table.select([region])
    panel.sections.scan.buttons["surfaces"].click()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)
    surface = viewer.layers[-1]
    inside = np.argwhere(shown(panel) == region)
    low, high = (
        panel.case.labels.data_to_world(inside.min(axis=0)),
        panel.case.labels.data_to_world(inside.max(axis=0)),
    )
    extent = surface.extent.world
    np.testing.assert_allclose(extent[0], low, atol=2.1)
    np.testing.assert_allclose(extent[1], high, atol=2.1)


def test_a_large_surface_is_made_coarser_and_stays_in_place(monkeypatch):
    ball = (
        np.linalg.norm(
            np.indices((40, 40, 40)) - np.array([20, 18, 22])[:, None, None, None],
            axis=0,
        )
        < 12
    )
    fine, _ = surface_of(ball)
    monkeypatch.setattr("napari_strata.gui.canvas.surfaces.MAX_VOXELS", 5000)
    coarse, _ = surface_of(ball)
    assert len(coarse) < len(fine) / 4
    np.testing.assert_allclose(
        coarse.min(axis=0) + coarse.max(axis=0),
        fine.min(axis=0) + fine.max(axis=0),
        atol=1.5,
    )


def test_two_viewers_do_not_disturb_each_other(
    proposed, make_napari_viewer_proxy, qtbot
):
    _, first = proposed
    viewer = make_napari_viewer_proxy()
    second = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(second, name="Strata")
    add_scan(viewer, phantom_volume(seed=1))
    second.proposals.start()
    qtbot.waitUntil(lambda: second.case is not None, timeout=20000)
    expected = shown(first).copy()
    second.sections.regions.table.select(two_regions(second))
    second.editor.edit("merge")
    second.settle()
    np.testing.assert_array_equal(shown(first), expected)
    assert first.case.work.history == ()
    viewer.close()
    first.editor.undo()
    first.sections.regions.table.select(two_regions(first))
    first.editor.edit("merge")
    first.settle()
    assert len(first.case.work.history) == 1


def test_two_time_points_are_compared_by_name(proposed, qtbot):
    viewer, panel = proposed
    first = panel.scans.image
    second = add_scan(viewer, phantom_volume(seed=5))
    panel.views.compare()
    assert "other scan" in messages()
    panel.scans.choose(second)
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and bool(panel.case.statistics()), timeout=20000
    )
    panel.views.compare()
    dialog = panel.findChild(FollowUp)
    names = [dialog.table.item(row, 0).text() for row in range(dialog.table.rowCount())]
    assert len(names) == len(panel.cases.of(first).work.regions)
    row = names.index(names[2])
    before = next(
        one for one in panel.cases.of(first).work.regions if one.name == names[2]
    )
    assert float(dialog.table.item(row, 1).text()) == pytest.approx(
        panel.cases.of(first).statistics()[before.id].volume_ml, abs=0.006
    )
    assert grid_of(viewer).enabled
    dialog.close()
    assert not grid_of(viewer).enabled


def test_keys_reach_the_panel_and_napari_keeps_its_own(proposed, qtbot):
    viewer, panel = proposed
    panel.sections.regions.table.select(two_regions(panel))
    handled = {str(key) for key in viewer.keymap}
    for key in ("M", "S", "N", "K", "W", "G", "H", "F2"):
        assert key in handled
    for key in ("Space", "1", "2", "E", "P", "V", "Ctrl+R", "["):
        assert key not in handled
    panel.case.labels.keymap[
        next(key for key in panel.case.labels.keymap if str(key) == "M")
    ](panel.case.labels)
    panel.settle()
    assert panel.case.work.history[-1].startswith("Merge")
    assert "M" not in {str(key) for key in Labels(np.zeros((2, 2), int)).keymap}


def test_every_action_of_the_table_can_be_run(shared_viewer):
    panel = StrataPanel(shared_viewer, propose=propose_phantom)
    for action in ACTIONS:
        action.run(panel)
    assert "There are no regions to edit yet" in messages()
    panel.close_down()


def test_the_help_lists_every_key(proposed, qtbot):
    _, panel = proposed
    panel.sections.show_help()
    overlay = panel.findChild(HelpOverlay)
    for rows in help_rows().values():
        for keys, _ in rows:
            assert keys in overlay.words.text()
    QTest.keyClick(overlay, Qt.Key.Key_Escape)


def test_the_tour_comes_once_and_can_be_skipped(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer)
    panel.sections.tour.begin()
    for _ in TOUR:
        panel.sections.tour.next.click()
    assert panel.sections.tour.isHidden()
    assert tour_was_seen()
    panel.sections.tour.begin()
    panel.sections.tour.skip.click()
    assert panel.sections.tour.isHidden()
    note_tour_seen()
    panel.close_down()


def test_a_stroke_with_the_mouse_makes_a_preview(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    add_scan(viewer)
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and not panel.case.queue.is_busy, timeout=20000
    )
    panel.sections.edit.show_target("new")
    panel.editor.use_tool("scribble")
    canvas = next(
        widget
        for widget in QApplication.allWidgets()
        if isinstance(widget, QOpenGLWidget) and widget.isVisible()
    )
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    QTest.mouseMove(canvas, middle + QPoint(10, 0))
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(10, 0))
    qtbot.waitUntil(lambda: panel.case.preview.is_shown, timeout=10000)
