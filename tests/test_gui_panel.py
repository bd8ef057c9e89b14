"""The dock widget in a napari window.

Propose, cut, select, merge, split, scribble, paint, undo, export.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_strata.errors import ReadError
from napari_strata.gui.canvas.layers import image_tuple
from napari_strata.gui.panel.panel import StrataPanel
from phantoms import phantom_proposal, phantom_volume, propose_phantom

pytestmark = pytest.mark.gui


def add_scan(viewer, volume=None):
    data, kwargs, _ = image_tuple(volume or phantom_volume())
    return viewer.add_image(data, **kwargs)


@pytest.fixture
def docked(shared_viewer, qtbot):
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


@pytest.fixture
def proposed(docked, qtbot):
    viewer, panel = docked
    add_scan(viewer)
    panel.sections.proposal.propose.click()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    return viewer, panel


def shown(panel) -> np.ndarray:
    panel.settle()
    panel.case.painter.finish()
    return np.asarray(panel.case.labels.data)


def messages() -> str:
    return " ".join(str(record.message) for record in notification_manager.records)


def two_regions(panel) -> list[int]:
    return [row.id for row in panel.case.work.regions][:2]


def test_a_proposal_shows_as_a_labels_layer_over_the_scan(proposed):
    viewer, panel = proposed
    labels, image = panel.case.labels, panel.scans.image
    assert labels in viewer.layers
    np.testing.assert_array_equal(shown(panel), panel.case.work.labels)
    np.testing.assert_allclose(labels.scale, image.scale)
    assert labels.units == image.units
    assert (
        len(panel.sections.regions.table.regions.rows)
        == len(panel.case.work.regions)
        == panel.case.work.proposal.as_proposed("tissues")
    )


def test_the_slider_cuts_and_the_table_and_colours_follow(proposed, qtbot):
    _, panel = proposed
    panel.sections.granularity.regions.click()
    panel.sections.granularity.count.setValue(15)
    np.testing.assert_array_equal(
        np.unique(shown(panel)[shown(panel) > 0]),
        [row.id for row in panel.case.work.regions],
    )
    assert (panel.case.work.view.tree, panel.case.work.view.granularity) == (
        "regions",
        15,
    )
    qtbot.waitUntil(
        lambda: len(panel.sections.regions.table.regions.rows) == 15, timeout=5000
    )
    for row in panel.case.work.regions:
        np.testing.assert_allclose(
            panel.case.labels.get_color(row.id)[:3] * 255, row.color, atol=1
        )
    panel.sections.granularity.slider.setValue(0)
    panel.settle()
    assert panel.case.work.view.granularity == 1


def test_volumes_and_brightness_in_the_table_are_those_of_the_voxels(proposed):
    _, panel = proposed
    labels, grey = shown(panel), panel.scans.volume.data
    for region, facts in panel.case.statistics().items():
        inside = grey[labels == region]
        assert facts.volume_ml == pytest.approx(inside.size * 2 / 1000)
        assert (facts.mean, facts.sd) == (
            pytest.approx(inside.mean(), rel=1e-4),
            pytest.approx(inside.std(), rel=1e-3),
        )


def test_merge_keeps_the_first_selected_and_undo_gives_everything_back(proposed):
    _, panel = proposed
    before = shown(panel).copy()
    second, first = two_regions(panel)
    panel.sections.regions.table.select([first, second])
    panel.sections.edit.merge.click()
    assert (shown(panel)[np.isin(before, [first, second])] == first).all()
    assert panel.sections.regions.table.selected == (first,)
    assert "Merge" in panel.sections.edit.undo.toolTip()
    panel.sections.edit.undo.click()
    np.testing.assert_array_equal(shown(panel), before)
    panel.sections.edit.redo.click()
    assert not (shown(panel) == second).any()


def test_split_parts_a_region_and_selects_the_parts(proposed):
    _, panel = proposed
    region = two_regions(panel)[0]
    before = shown(panel).copy()
    panel.sections.regions.table.select([region])
    panel.sections.edit.parts.setValue(3)
    panel.sections.edit.split.click()
    parts = np.unique(shown(panel)[before == region])
    assert len(parts) == 3
    assert set(panel.sections.regions.table.selected) == set(parts.tolist())


def test_scribbles_make_a_new_region_that_the_table_selects(proposed):
    viewer, panel = proposed
    panel.sections.edit.show_target("new")
    panel.sections.edit.tools["scribble"].click()
    strokes = viewer.layers.selection.active
    assert strokes == panel.case.brushes.scribble.layer
    strokes.paint((12, 12, 9), strokes.selected_label)
    panel.sections.edit.apply.click()
    new = int(shown(panel)[12, 12, 9])
    assert panel.sections.regions.table.selected == (new,)
    assert not np.asarray(strokes.data).any()
    assert "strokes" not in messages()


def test_scribbles_for_the_selected_region_and_the_background(proposed):
    _, panel = proposed
    region = two_regions(panel)[1]
    panel.sections.regions.table.select([region])
    panel.sections.edit.show_scope("everywhere")
    panel.editor.use_tool("scribble")
    panel.case.brushes.scribble.layer.paint(
        (12, 12, 9), panel.case.brushes.scribble.layer.selected_label
    )
    panel.sections.edit.show_target("background")
    panel.editor.use_tool("scribble")
    panel.case.brushes.scribble.layer.paint(
        (12, 14, 16), panel.case.brushes.scribble.layer.selected_label
    )
    panel.editor.edit("update")
    assert shown(panel)[12, 12, 9] == region
    assert shown(panel)[12, 14, 16] == 0


def test_update_without_strokes_says_what_to_do(proposed):
    _, panel = proposed
    panel.editor.edit("update")
    assert "no strokes" in messages()


def test_naparis_own_brush_is_part_of_the_history(proposed):
    _, panel = proposed
    region = two_regions(panel)[0]
    before = shown(panel).copy()
    panel.sections.regions.table.select([region])
    panel.editor.use_tool("paint")
    panel.case.labels.brush_size = 1
    z, y, x = np.argwhere(before == 0)[0]
    panel.case.labels.paint((z, y, x), region)
    panel.settle()
    assert panel.case.work.view.region_at((z, y, x)) == region
    panel.editor.undo()
    np.testing.assert_array_equal(shown(panel), before)


def test_names_colours_and_locks_are_edited_in_the_table(proposed):
    _, panel = proposed
    region = two_regions(panel)[0]
    panel.sections.regions.table.rename_asked.emit(region, "liver")
    panel.sections.regions.table.recolor_asked.emit(region, (1, 2, 3))
    panel.sections.regions.table.lock_asked.emit(region, True)
    panel.settle()
    row = next(row for row in panel.case.work.regions if row.id == region)
    assert (row.name, row.color, row.locked) == ("liver", (1, 2, 3), True)
    np.testing.assert_allclose(
        panel.case.labels.get_color(region)[:3] * 255, (1, 2, 3), atol=1
    )
    panel.sections.regions.table.select([region])
    panel.editor.edit("split")
    panel.settle()
    assert "locked" in messages()


def test_clicking_a_region_selects_it_and_ctrl_adds(proposed):
    _, panel = proposed
    first, second = two_regions(panel)
    panel.sections.regions.table.click(first)
    assert panel.sections.regions.table.selected == (first,)
    panel.sections.regions.table.click(second, add=True)
    assert panel.sections.regions.table.selected == (first, second)
    panel.sections.regions.table.click(first, add=True)
    assert panel.sections.regions.table.selected == (second,)


def test_the_region_under_the_mouse_is_found_in_2d_and_3d(proposed):
    viewer, panel = proposed
    labels = shown(panel)
    world = panel.case.labels.data_to_world((12, 14, 16))
    viewer.dims.set_point(range(3), world)
    assert panel.case.region_under(world, None, [1, 2]) == labels[12, 14, 16]
    viewer.dims.ndisplay = 3
    seen = panel.case.region_under(world, np.array([1.0, 0, 0]), [0, 1, 2])
    assert seen == labels[np.flatnonzero(labels[:, 14, 16])[0], 14, 16]


def mouse(panel, voxel, **more):
    event = SimpleNamespace(
        type="mouse_press",
        pos=np.zeros(2),
        button=1,
        modifiers=(),
        view_direction=None,
        dims_displayed=[1, 2],
    )
    event.position = panel.scans.image.data_to_world(voxel)
    for name, value in more.items():
        setattr(event, name, value)
    return event


def test_the_readout_says_where_the_cursor_is_and_what_is_there(proposed):
    viewer, panel = proposed
    viewer.dims.set_point(range(3), panel.scans.image.data_to_world((12, 14, 9)))
    panel.case.work.rename(int(shown(panel)[12, 14, 9]), "liver")
    panel.canvas_cursor.on_move(viewer, mouse(panel, (12, 14, 9)))
    text = panel.sections.scan.readout.text()
    assert text.startswith("R 6.5  P 0.5  I 1.0 mm")
    assert "liver" in text
    panel.canvas_cursor.on_move(viewer, mouse(panel, (12, 14, 900)))
    assert not panel.sections.scan.readout.text().strip()


def test_a_click_on_the_scan_selects_and_a_drag_does_not(proposed):
    viewer, panel = proposed
    viewer.dims.set_point(range(3), panel.scans.image.data_to_world((12, 14, 16)))
    event = mouse(panel, (12, 14, 16))
    dragging = panel.canvas_cursor.on_drag(viewer, event)
    next(dragging)
    event.type, event.pos = "mouse_move", np.array([30, 0])
    next(dragging)
    event.type = "mouse_release"
    assert next(dragging, None) is None
    assert panel.sections.regions.table.selected == ()
    clicking = panel.canvas_cursor.on_drag(viewer, mouse(panel, (12, 14, 16)))
    next(clicking)
    assert next(clicking, None) is None
    assert panel.sections.regions.table.selected == (int(shown(panel)[12, 14, 16]),)


def test_proposing_again_keeps_the_earlier_labels(proposed, qtbot):
    viewer, panel = proposed
    earlier = panel.case.labels
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and panel.case.labels != earlier, timeout=20000
    )
    assert earlier in viewer.layers
    assert not earlier.visible


def test_a_deleted_labels_layer_can_be_brought_back_with_its_work(proposed):
    viewer, panel = proposed
    panel.sections.regions.table.select(two_regions(panel))
    panel.editor.edit("merge")
    expected = shown(panel).copy()
    viewer.layers.remove(panel.case.labels)
    panel.refresh()
    assert not panel.sections.edit.isEnabled()
    panel.sections.show_again.click()
    np.testing.assert_array_equal(shown(panel), expected)
    assert panel.sections.edit.isEnabled()


def test_the_panel_lives_without_a_scan_and_with_several(docked, qtbot):
    viewer, panel = docked
    panel.proposals.start()
    assert "Open a scan first" in messages()
    panel.editor.edit("merge")
    first, second = add_scan(viewer), add_scan(viewer)
    panel.scans.choose(first)
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    panel.scans.choose(second)
    assert panel.case is None
    assert panel.sections.regions.table.regions.rows == ()
    panel.scans.choose(first)
    assert panel.sections.regions.table.regions.rows
    viewer.layers.clear()
    assert panel.scans.image is None


def test_a_bare_array_can_be_worked_on(docked, qtbot):
    viewer, panel = docked
    image = viewer.add_image(
        phantom_volume().data, scale=(2, 1, 1), translate=(5, 6, 7), name="array"
    )
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    np.testing.assert_allclose(panel.case.labels.translate, image.translate)
    assert not panel.orientation.letters.shown


class Held:
    """An engine that waits until it is told to go on, reporting progress all the while."""

    def __init__(self) -> None:
        self.started, self.stopped, self.go = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )

    def __call__(self, volume, *, on_progress, **_):
        self.started.set()
        try:
            while not self.go.wait(0.01):
                on_progress(1, 4, "Waiting")
        finally:
            self.stopped.set()
        return phantom_proposal(volume)


def start_held(viewer, panel, qtbot) -> Held:
    held = Held()
    panel.proposals.propose_with(held)
    panel.proposals.start()
    qtbot.waitUntil(held.started.is_set, timeout=10000)
    return held


def test_cancel_stops_the_work_and_changes_nothing(docked, qtbot):
    viewer, panel = docked
    add_scan(viewer)
    held = start_held(viewer, panel, qtbot)
    assert panel.sections.proposal.cancel.isEnabled()
    panel.sections.proposal.cancel.click()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=10000)
    assert held.stopped.is_set()
    assert len(viewer.layers) == 1
    assert "Cancelled" in messages()


def test_deleting_the_scan_ends_its_job(docked, qtbot):
    viewer, panel = docked
    image = add_scan(viewer)
    held = start_held(viewer, panel, qtbot)
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=10000)
    assert held.stopped.is_set()
    assert len(viewer.layers) == 0


def test_a_second_job_waits_its_turn(docked, qtbot):
    viewer, panel = docked
    add_scan(viewer)
    start_held(viewer, panel, qtbot)
    panel.proposals.start()
    assert "still running" in messages()


def test_closing_the_window_ends_the_job(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Strata")
    add_scan(viewer)
    held = start_held(viewer, panel, qtbot)
    del panel
    viewer.close()
    qtbot.waitUntil(held.stopped.is_set, timeout=10000)


def test_an_error_of_ours_is_one_line_and_the_panel_goes_on(docked, qtbot):
    viewer, panel = docked
    add_scan(viewer)

    def broken(volume, **_):
        raise ReadError("The scan is gone. Open it again.")

    panel.proposals.propose_with(broken)
    panel.proposals.start()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=10000)
    assert "The scan is gone. Open it again." in messages()
    assert panel.sections.proposal.propose.isEnabled()


def test_windows_change_the_contrast_of_the_scan(docked):
    viewer, panel = docked
    image = add_scan(viewer)
    panel.sections.scan.modality_chosen.emit("ct")
    panel.sections.scan.window_chosen.emit("Lung")
    assert tuple(image.contrast_limits) == (-1350, 150)


def test_keys_undo_on_the_labels_layer(proposed):
    _, panel = proposed
    before = shown(panel).copy()
    panel.case.work.merge(two_regions(panel))
    panel.case.labels.keymap[
        next(key for key in panel.case.labels.keymap if str(key) == "Ctrl+Z")
    ](panel.case.labels)
    np.testing.assert_array_equal(shown(panel), before)
