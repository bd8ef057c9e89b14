"""What must not get lost in the panel: a case when its dock is closed, strokes, unsaved edits."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_strata.errors import EditError
from napari_strata.gui import panel as panel_module
from napari_strata.gui.jobs import JobRunner
from napari_strata.gui.panel import StrataPanel
from test_gui_panel import add_scan, messages, propose_phantom, shown, two_regions

pytestmark = pytest.mark.gui


@pytest.fixture
def proposed(make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    add_scan(viewer)
    panel.start_proposal()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def merge_two(panel) -> None:
    panel.table.select(two_regions(panel))
    panel.edit("merge")


def test_a_panel_opened_again_goes_on_with_the_case(proposed):
    viewer, first = proposed
    merge_two(first)
    work, labels, expected = first.case.work, first.case.labels, shown(first).copy()
    viewer.window.remove_dock_widget(first)
    assert first.case is None
    assert not labels.keymap
    assert "strata_left" not in viewer.canvas.overlays
    again = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(again, name="Strata")
    assert (again.case.work, again.case.labels) == (work, labels)
    assert len(viewer.layers) == 2
    np.testing.assert_array_equal(shown(again), expected)
    heard = []
    first.refresh = again.refresh = lambda: heard.append(1)
    again.edit("undo")
    assert len(again.case.work.regions) == 8
    assert not first._refresh_timer.isActive()


def test_strokes_for_a_new_region_stay_new_when_the_slider_hands_out_ids(proposed):
    _, panel = proposed
    panel.edits.show_target("new")
    panel.use_tool("scribble")
    strokes = panel.case.brush.layer
    strokes.paint((12, 12, 9), strokes.selected_label)
    panel.case.work.cut(regions=15)
    before = {row.id for row in panel.case.work.regions}
    panel.edit("update")
    assert int(shown(panel)[12, 12, 9]) not in before


def test_an_update_that_fails_half_way_does_not_teach_twice(proposed, monkeypatch):
    _, panel = proposed
    first, second = two_regions(panel)
    for region, voxel in ((first, (12, 12, 9)), (second, (12, 14, 16))):
        panel.table.select([region])
        panel.use_tool("scribble")
        panel.case.brush.layer.paint(voxel, panel.case.brush.layer.selected_label)
    panel.case.work.lock(second)
    panel.edit("update")
    assert [strokes.region for strokes in panel.case.brush.strokes()] == [second]
    with pytest.raises(EditError):
        panel.case.apply_strokes("here")


@pytest.mark.parametrize("answer", [False, True])
def test_unsaved_edits_are_replaced_only_when_the_answer_is_yes(proposed, monkeypatch, qtbot, answer):
    _, panel = proposed
    asked = []
    monkeypatch.setattr(panel_module, "ask_replace", lambda parent: asked.append(parent) or answer)
    merge_two(panel)
    work = panel.case.work
    panel.start_proposal()
    assert asked == [panel]
    assert panel.jobs.is_running == answer
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)
    assert (panel.case.work is work) == (not answer)


def test_saved_edits_are_replaced_without_a_question(proposed, monkeypatch, qtbot, tmp_path):
    _, panel = proposed
    monkeypatch.setattr(panel_module, "ask_replace", lambda parent: pytest.fail("asked"))
    merge_two(panel)
    work = panel.case.work
    panel.save_to(tmp_path / "case.strata")
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)
    panel.start_proposal()
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
