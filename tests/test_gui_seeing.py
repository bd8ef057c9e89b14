"""What a person sees: the scan that is open, what is selected, thick slices, progress.

Real clicks and keys on the widgets, as in `test_gui_keys`.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QComboBox

from napari_strata.gui import preferences
from napari_strata.gui.canvas.canvas import camera_of
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.session.selection_outline import SELECTION_NAME
from napari_strata.gui.tasks.job_bar import share_done
from napari_strata.gui.tasks.worker import ProgressStep
from napari_strata.io.files import write_scan
from phantoms import phantom_volume, propose_phantom
from test_gui_keys import desk, press, select, turn_wheel  # noqa: F401
from test_gui_panel import add_scan, messages, shown
from windows import bring_to_front

pytestmark = pytest.mark.gui


def click(widget) -> None:
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
    QApplication.processEvents()


def choose(box: QComboBox, row: int) -> None:
    """Choose a row of a combo box with mouse and keys."""
    QTest.mouseClick(box, Qt.MouseButton.LeftButton)
    view = box.view()
    view.setCurrentIndex(box.model().index(row, 0))
    QTest.keyClick(view, Qt.Key.Key_Return)
    QApplication.processEvents()


def note(viewer) -> str:
    overlay = viewer.canvas.overlays["strata_note"]
    return overlay.text if overlay.visible else ""


def test_the_selection_is_outlined_and_named_on_the_canvas(desk):  # noqa: F811
    viewer, panel = desk.viewer, desk.panel
    first, second, *_ = ids = [row.id for row in panel.case.work.regions]
    panel.case.work.rename(first, "liver")
    panel.settle()
    select(desk, 2)
    QApplication.processEvents()
    layer = viewer.layers[SELECTION_NAME]
    assert layer.visible
    assert note(viewer) == f"2 selected: liver, tissue {second}"
    assert layer.get_color(first)[3] == layer.get_color(second)[3] == 1
    assert layer.get_color(ids[2])[3] == 0
    active = viewer.layers.selection.active
    assert active == panel.case.labels, "the outline takes no tool and no key"
    press("M")
    panel.settle()
    QApplication.processEvents()
    np.testing.assert_array_equal(layer.data, shown(panel))
    assert note(viewer) == "1 selected: liver"
    panel.sections.regions.table.select([])
    QApplication.processEvents()
    assert not layer.visible
    assert note(viewer) == ""


def test_a_scan_that_is_opened_or_chosen_is_the_one_on_the_canvas(
    desk,  # noqa: F811
    tmp_path,
    qtbot,
):
    viewer, panel = desk.viewer, desk.panel
    first, regions = panel.scans.image, panel.case.labels
    far = phantom_volume((10, 20, 22), seed=3)
    path = write_scan(far, tmp_path / "second.nii.gz")
    panel.files.open_scan(path)
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)
    second = panel.scans.image
    assert second != first
    assert (second.visible, first.visible, regions.visible) == (True, False, False)
    assert panel.sections.regions.table.regions.rows == ()
    choose(panel.sections.scan.scans, 0)
    assert panel.scans.image == first
    assert (second.visible, first.visible, regions.visible) == (False, True, True)
    assert len(panel.sections.regions.table.regions.rows) > 0
    viewer.open(path, plugin="napari-strata")
    assert panel.scans.image == viewer.layers[-1]
    assert not first.visible


def test_thick_slices_keep_their_steps_and_their_place(shared_viewer, qtbot):
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    panel.sections.tour.leave()
    add_scan(viewer, phantom_volume((12, 28, 32), (6.5, 0.5, 0.75)))
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and bool(panel.case.statistics()), timeout=20000
    )
    bring_to_front(viewer)
    viewer.dims.set_current_step(0, 4)
    steps, point = viewer.dims.nsteps, viewer.dims.point
    for key in ("Shift+T", "Shift+R", "Shift+R", "N", "Shift+X", "Shift+C", "Shift+T"):
        press(key)
        panel.settle()
        QApplication.processEvents()
        if key == "N":
            point = viewer.dims.point
        assert viewer.dims.nsteps == steps, key
        np.testing.assert_allclose(viewer.dims.point, point, err_msg=key)
    before = viewer.dims.current_step[0]
    press("Right")
    assert viewer.dims.current_step[0] == before + 1
    point = viewer.dims.point
    press("Shift+H")
    press("Shift+A")
    np.testing.assert_allclose(viewer.dims.point, point)
    assert viewer.dims.ndisplay == 2


def test_a_labels_layer_shown_again_comes_back_where_it_was(desk):  # noqa: F811
    viewer, panel = desk.viewer, desk.panel
    select(desk, 1)
    press("Shift+S")
    QTest.qWait(60)
    order = [layer.name for layer in viewer.layers]
    viewer.layers.remove(panel.case.labels)
    QTest.qWait(200)
    click(panel.sections.show_again)
    QTest.qWait(200)
    assert [layer.name for layer in viewer.layers] == order


def test_closing_the_panel_keeps_the_letters_right(desk):  # noqa: F811
    viewer, panel = desk.viewer, desk.panel
    panel.orientation.show_plane("axial")
    viewer.window.remove_dock_widget(panel)
    assert viewer.canvas.overlays["strata_left"].text == "R"
    viewer.dims.order = (2, 0, 1)
    assert viewer.canvas.overlays["strata_left"].text == "A"
    again = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(again, name="Strata")
    again.orientation.show_plane("coronal")
    assert viewer.canvas.overlays["strata_left"].text == "R"
    viewer.layers.clear()
    QApplication.processEvents()
    again.close_down()
    assert "strata_left" not in viewer.canvas.overlays


def test_tools_look_next_and_export_are_in_reach_at_1280_by_720(desk):  # noqa: F811
    panel = desk.panel
    places = {}
    for text in ("", "Wrote a file.\nWith a second line."):
        panel.sections.export.show_result(text)
        panel.sections.review.show_place(text)
        QApplication.processEvents()
        for name, widget in (
            *panel.sections.edit.buttons.items(),
            ("update", panel.sections.edit.apply),
            ("next", panel.sections.review.next),
            ("export", panel.sections.export.export),
        ):
            inside = widget.visibleRegion().boundingRect()
            assert inside == widget.rect(), f"{name} is cut off"
            place = widget.mapTo(panel, widget.rect().topLeft())
            assert places.setdefault(name, place) == place, f"{name} moved"


def test_progress_stands_where_the_job_was_asked_for(shared_viewer, qtbot):
    viewer, go_on, begun = shared_viewer, threading.Event(), []

    def slowly(volume, *, on_progress, **settings):
        begun.append(volume)
        on_progress(5, 10, "encoding")
        go_on.wait(20)
        return propose_phantom(volume, on_progress=on_progress, **settings)

    panel = StrataPanel(viewer, propose=slowly)
    viewer.window.add_dock_widget(panel, name="Strata")
    panel.sections.tour.leave()
    add_scan(viewer)
    bring_to_front(viewer)
    click(panel.sections.proposal.propose)
    click(panel.sections.proposal.propose)
    job = panel.sections.proposal.job
    qtbot.waitUntil(lambda: 0.2 < job.bar.value() / job.bar.maximum() < 0.4)
    assert job.isVisible()
    assert not panel.sections.export.job.isVisible()
    go_on.set()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    assert len(begun) == 1
    assert not job.isVisible()


def test_the_bar_never_stands_at_nothing_while_stages_go_by():
    stages = ("finding the body", "encoding", "supervoxels", "tree of tissues")
    shares = [share_done(ProgressStep(0, 1, stage)) for stage in stages]
    assert shares == sorted(shares)
    assert shares[0] > 0
    half = share_done(ProgressStep(3, 6, "encoding"))
    assert shares[1] < half < shares[2]


def test_the_wheel_moves_slices_and_planes_are_equal_where_a_person_prefers_that(
    desk,  # noqa: F811
    monkeypatch,
):
    viewer, panel = desk.viewer, desk.panel
    known = {"wheel_moves_slices": True, "equal_planes": True}
    monkeypatch.setattr(
        preferences,
        "_preference",
        lambda _group, name, default: known.get(name, default),
    )
    before, zoom = viewer.dims.current_step[0], camera_of(viewer).zoom
    turn_wheel(desk.canvas)
    assert viewer.dims.current_step[0] == before + 3
    assert camera_of(viewer).zoom == zoom
    turn_wheel(desk.canvas, Qt.KeyboardModifier.ControlModifier)
    assert viewer.dims.current_step[0] == before + 3
    assert camera_of(viewer).zoom < zoom
    desk.canvas.window().resize(1900, 800)
    press("Shift+T")

    def widths() -> list[int]:
        views = panel.views.planes.views
        return sorted([desk.canvas.width(), *(view.width() for view in views)])

    desk.qtbot.waitUntil(lambda: widths()[2] < 1.15 * widths()[0], timeout=15000)
    press("Shift+T")
    known["wheel_moves_slices"] = False
    step = viewer.dims.current_step[0]
    turn_wheel(desk.canvas, Qt.KeyboardModifier.ControlModifier)
    assert viewer.dims.current_step[0] != step, "napari's own way is back"


def test_a_part_of_a_position_is_enough(desk):  # noqa: F811
    viewer, panel = desk.viewer, desk.panel
    line = panel.sections.scan.position
    panel.sections.show_section("scan")
    line.setFocus()
    QTest.keyClicks(line, "R 6.5 P 0.5 I 1")
    QTest.keyClick(line, Qt.Key.Key_Return)
    before = viewer.dims.point
    line.clear()
    QTest.keyClicks(line, "S 5")
    QTest.keyClick(line, Qt.Key.Key_Return)
    np.testing.assert_allclose(viewer.dims.point[1:], before[1:])
    assert viewer.dims.point[0] != before[0]


def test_stroking_for_a_locked_region_says_so_at_once(desk):  # noqa: F811
    panel = desk.panel
    (chosen,) = select(desk, 1)
    desk.canvas.setFocus()
    press("K")
    panel.settle()
    panel.refresh()
    press("Shift+S")
    assert "is locked" in messages()
    assert panel.sections.edit.tool == "select"
    assert panel.sections.regions.table.selected == (chosen,)
