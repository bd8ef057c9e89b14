"""What must not get lost in the panel: a case when its dock is closed, strokes, unsaved edits."""

from __future__ import annotations

import time

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_strata.gui.panel import proposal_controller
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.session import labels_painter as painter
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.widgets.region_table_columns import VOLUME
from napari_strata.io.files import read_labels
from phantoms import propose_phantom
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
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def merge_two(panel) -> None:
    panel.sections.regions.table.select(two_regions(panel))
    panel.editor.edit("merge")


def test_a_panel_opened_again_goes_on_with_the_case(proposed):
    viewer, first = proposed
    merge_two(first)
    work, labels, expected = first.case.work, first.case.labels, shown(first).copy()
    n = work.view.granularity
    viewer.window.remove_dock_widget(first)
    assert first.case is None
    assert not labels.keymap
    assert first.orientation.letters.shown, "the scan is still there"
    again = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(again, name="Strata")
    assert (again.case.work, again.case.labels) == (work, labels)
    assert len(viewer.layers) == 2
    np.testing.assert_array_equal(shown(again), expected)
    again.editor.undo()
    again.settle()
    assert len(again.case.work.regions) == n
    assert not first._refresh_timer.isActive()


def test_strokes_for_a_new_region_stay_new_when_the_slider_hands_out_ids(proposed):
    _, panel = proposed
    panel.sections.edit.show_target("new")
    panel.editor.use_tool("scribble")
    strokes = panel.case.brushes.scribble.layer
    strokes.paint((12, 12, 9), strokes.selected_label)
    panel.case.work.cut(regions=15)
    before = {row.id for row in panel.case.work.regions}
    panel.editor.edit("update")
    assert int(shown(panel)[12, 12, 9]) not in before


def test_an_update_that_fails_half_way_does_not_teach_twice(proposed):
    _, panel = proposed
    (first, second), labels = two_regions(panel), shown(panel).copy()
    panel.sections.edit.show_scope("here")
    for region in (first, second):
        panel.sections.regions.table.select([region])
        panel.editor.use_tool("scribble")
        panel.case.brushes.scribble.layer.brush_size = 1
        panel.case.brushes.scribble.layer.paint(
            tuple(np.argwhere(labels == region)[0]),
            panel.case.brushes.scribble.layer.selected_label,
        )
    panel.case.work.lock(second)
    panel.editor.edit("update")
    panel.settle()
    assert [strokes.region for strokes in panel.case.brushes.scribble.strokes()] == [
        second
    ]
    taught = len(panel.case.work.history)
    panel.editor.edit("update")
    panel.settle()
    assert "locked" in messages()
    assert len(panel.case.work.history) == taught


@pytest.mark.parametrize("answer", [False, True])
def test_unsaved_edits_are_replaced_only_when_the_answer_is_yes(
    proposed, monkeypatch, qtbot, answer
):
    _, panel = proposed
    asked = []
    monkeypatch.setattr(
        proposal_controller,
        "ask_replace",
        lambda parent: asked.append(parent) or answer,
    )
    merge_two(panel)
    panel.settle()
    work = panel.case.work
    panel.proposals.start()
    assert len(asked) == 1
    assert panel.jobs.is_running == answer
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)
    assert (panel.case.work is work) == (not answer)


def test_saved_edits_are_replaced_without_a_question(
    proposed, monkeypatch, qtbot, tmp_path
):
    _, panel = proposed
    monkeypatch.setattr(
        proposal_controller, "ask_replace", lambda parent: pytest.fail("asked")
    )
    merge_two(panel)
    work = panel.case.work
    panel.files.save_to(tmp_path / "case.strata")
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case.work is not work, timeout=20000)


def test_a_cancel_that_comes_too_late_for_a_file_says_that_it_was_written(qtbot):
    jobs, done = JobRunner(), []

    def body(progress):
        progress.cancel()
        return "written"

    notification_manager.records.clear()
    jobs.start(body, done.append, writes=True)
    qtbot.waitUntil(lambda: not jobs.is_running, timeout=20000)
    assert done == ["written"]
    assert "nothing was changed" not in messages()


def test_a_saved_case_is_opened_with_its_history(proposed, tmp_path, qtbot):
    _, panel = proposed
    panel.case.work.merge(two_regions(panel))
    expected, first = shown(panel).copy(), panel.case
    panel.files.save_to(tmp_path / "case.strata")
    # what is asked for while the file is written waits for it, and is not in it
    panel.editor.undo()
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    panel.settle()
    assert len(panel.case.work.regions) == first.work.view.granularity
    panel.files.open_case(tmp_path / "case.strata")
    qtbot.waitUntil(lambda: panel.case is not first, timeout=20000)
    np.testing.assert_array_equal(shown(panel), expected)
    panel.editor.undo()
    panel.settle()
    assert len(panel.case.work.regions) == first.work.view.granularity


def test_export_writes_what_is_on_the_screen(proposed, tmp_path, qtbot):
    _, panel = proposed
    region = two_regions(panel)[0]
    panel.case.work.rename(region, "liver")
    panel.sections.granularity.count.setValue(5)
    panel.files.export_to(tmp_path / "labels.nii.gz")
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    back = read_labels(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(back.labels, shown(panel))
    assert "liver" in [row.name for row in back.regions]


@pytest.mark.parametrize("edit", ["merge", "cut"])
def test_an_export_right_after_an_edit_writes_that_edit_and_takes_nothing_back(
    proposed, tmp_path, qtbot, monkeypatch, edit
):
    _, panel = proposed
    panel.settle()
    # what is on screen is painted at once, and the rest long after the edit is done
    monkeypatch.setattr(painter, "SLAB_VOXELS", 500)
    if edit == "merge":
        panel.case.submit(
            lambda: time.sleep(0.05) or panel.case.work.merge(two_regions(panel))
        )
    else:
        panel.sections.granularity.regions.click()
        panel.sections.granularity.count.setValue(15)
    panel.files.export_to(tmp_path / "labels.nii.gz")
    panel.case.submit(lambda: panel.case.work.merge(two_regions(panel)))
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    assert len(panel.case.work.history) == 2
    panel.editor.undo()
    np.testing.assert_array_equal(
        read_labels(tmp_path / "labels.nii.gz").labels, shown(panel)
    )
    np.testing.assert_array_equal(shown(panel), panel.case.work.labels)


def test_what_another_tool_wrote_is_exported_though_an_edit_is_still_painted(
    proposed, tmp_path, qtbot, monkeypatch
):
    _, panel = proposed
    before = shown(panel).copy()
    monkeypatch.setattr(painter, "SLAB_VOXELS", 500)
    merged = np.argwhere(np.isin(before, two_regions(panel)))
    z, y, x = next(
        voxel
        for voxel in np.argwhere(before == 0)
        if (voxel < merged.min(axis=0)).any()
    )
    panel.case.submit(lambda: panel.case.work.merge(two_regions(panel)))
    panel.case.labels.data[z, y, x] = 5
    panel.files.export_to(tmp_path / "labels.nii.gz")
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    assert len(panel.case.work.history) == 2
    assert read_labels(tmp_path / "labels.nii.gz").labels[z, y, x] == 5


def test_paint_is_taken_after_napari_wrote_it_however_quick_the_thread_is(proposed):
    _, panel = proposed
    locked, other = two_regions(panel)
    panel.case.work.lock(locked)
    before = shown(panel).copy()
    take = panel.case.queue._thread.submit

    def at_once(act):
        future = take(act)
        future.exception()
        return future

    panel.case.queue._thread.submit = at_once
    panel.case.labels.brush_size = 1
    panel.case.labels.paint(tuple(np.argwhere(before == locked)[0]), other)
    np.testing.assert_array_equal(shown(panel), before)


def test_an_export_that_fails_says_why(proposed, tmp_path, qtbot):
    _, panel = proposed
    panel.files.export_to(tmp_path / "nowhere" / "labels.nii.gz")
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)
    assert "nowhere" in messages()


def test_closing_the_panel_leaves_the_viewer_as_it_was(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    keys = set(viewer.keymap)
    panel = StrataPanel(viewer, propose=propose_phantom)
    dock = viewer.window.add_dock_widget(panel, name="Strata")
    assert set(viewer.keymap) > keys
    viewer.window.remove_dock_widget(dock)
    assert set(viewer.keymap) == keys
    assert not hasattr(viewer, "canvas") or "strata_left" not in viewer.canvas.overlays
    add_scan(viewer)


def test_the_plane_on_screen_shows_an_edit_before_anything_else_is_done(proposed):
    _, panel = proposed
    first, second = two_regions(panel)
    index = int(np.argwhere(shown(panel) == second)[0][0])
    panel.case.go_to((index, 0, 0))
    panel.case.submit(lambda: panel.case.work.merge([first, second]))
    panel.case.queue.finish()
    assert second not in np.asarray(panel.case.labels.data)[index]


def test_a_table_sorted_by_volume_keeps_its_selection_and_its_order(proposed):
    _, panel = proposed
    panel.settle()
    panel.refresh()
    table = panel.sections.regions.table
    chosen = table.regions.rows[2].id
    table.select([chosen])
    table.sortByColumn(VOLUME, Qt.SortOrder.DescendingOrder)
    sizes = [panel.case.work.view.sizes_vox[row.id] for row in table.regions.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert table.selected == (chosen,)
    assert [index.row() for index in table.selectionModel().selectedRows()] == [
        [row.id for row in table.regions.rows].index(chosen)
    ]


def test_a_closed_scan_lets_go_of_the_proposal(proposed):
    viewer, panel = proposed
    panel.settle()
    panel.refresh()
    assert panel.sections.granularity._proposal is panel.case.work.proposal
    viewer.layers.clear()
    panel.refresh()
    assert panel.sections.granularity._proposal is None
