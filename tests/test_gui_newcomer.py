"""What a newcomer tries first, and what happens; the table in docs/gui.md says the same."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.plugin.napari_open import get_reader
from napari_strata.gui.widgets import dialogs
from napari_strata.io.files import read_labels, write_scan
from phantoms import phantom_volume
from test_gui_panel import add_scan, messages, propose_phantom, shown, two_regions

pytestmark = pytest.mark.gui


@pytest.fixture
def scan(tmp_path):
    return write_scan(phantom_volume(), tmp_path / "scan.nii.gz")


def dock(viewer) -> StrataPanel:
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    return panel


@pytest.fixture
def proposed(shared_viewer, qtbot, scan):
    viewer = shared_viewer
    panel = dock(viewer)
    viewer.open(str(scan), plugin="napari-strata")
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None and not panel.is_busy, timeout=20000)
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def merge_two(panel) -> np.ndarray:
    panel.sections.regions.table.select(two_regions(panel))
    panel.editor.edit("merge")
    return shown(panel).copy()


def test_ctrl_s_writes_the_labels_on_the_scans_grid(proposed, tmp_path):
    _, panel = proposed
    expected = merge_two(panel)
    panel.case.labels.save(str(tmp_path / "saved.nii.gz"), plugin="napari-strata")
    np.testing.assert_array_equal(
        read_labels(tmp_path / "saved.nii.gz").labels, expected
    )


@pytest.mark.parametrize("how", ["delete the scan", "close the window"])
def test_edits_that_were_not_saved_are_offered_again(
    proposed, scan, how, make_napari_viewer_proxy, qtbot
):
    viewer, panel = proposed
    expected = merge_two(panel)
    if how == "delete the scan":
        viewer.layers.remove(panel.scans.image)
        assert panel.case is None
    else:
        # what a program that ends does to the lock on its journal
        panel.case.work.storage.end_autosave(keep=True)
        viewer.close()
        viewer = make_napari_viewer_proxy()
        panel = dock(viewer)
    viewer.layers.clear()
    viewer.open(str(scan), plugin="napari-strata")
    qtbot.waitUntil(lambda: not panel.sections.recovery.isHidden(), timeout=20000)
    assert "Merge" in panel.sections.recovery.words.text()
    panel.sections.recovery.resume.click()
    qtbot.waitUntil(lambda: panel.case is not None and not panel.is_busy, timeout=20000)
    np.testing.assert_array_equal(shown(panel), expected)
    panel.editor.undo()
    panel.settle()
    opened_on = panel.case.work.proposal.as_proposed("tissues")
    assert len(panel.case.work.regions) == opened_on


def test_an_autosave_folder_that_cannot_be_written_is_told_and_the_work_goes_on(
    make_napari_viewer_proxy, qtbot, scan, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        "napari_strata.gui.session.scan_case.autosave_folder",
        lambda: tmp_path / "file" / "folder",
    )
    viewer = make_napari_viewer_proxy()
    panel = dock(viewer)
    viewer.open(str(scan), plugin="napari-strata")
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None and not panel.is_busy, timeout=20000)
    assert "memory only" in messages()
    merge_two(panel)
    assert len(panel.case.work.history) == 1


def test_a_second_scan_leaves_the_first_ones_case_alone(proposed):
    viewer, panel = proposed
    expected, first = merge_two(panel), panel.scans.image
    second = add_scan(viewer, phantom_volume(seed=3))
    assert panel.scans.image == first
    panel.sections.scan.scan_chosen.emit(1)
    assert panel.scans.image == second
    assert panel.case is None
    panel.scans.choose(first)
    np.testing.assert_array_equal(shown(panel), expected)


def test_3d_and_back_keeps_everything_and_edits_work_there(proposed):
    viewer, panel = proposed
    viewer.dims.ndisplay = 3
    expected = merge_two(panel)
    viewer.dims.ndisplay = 2
    np.testing.assert_array_equal(np.asarray(panel.case.labels.data), expected)
    np.testing.assert_array_equal(panel.case.work.labels, expected)


def test_naparis_shuffled_colours_are_a_look_and_change_nothing(proposed):
    _, panel = proposed
    before = panel.case.work.regions
    panel.case.labels.new_colormap()
    panel.settle()
    assert panel.case.work.regions == before
    region = two_regions(panel)[0]
    panel.sections.regions.table.recolor_asked.emit(region, (1, 2, 3))
    panel.settle()
    np.testing.assert_allclose(
        panel.case.labels.get_color(region)[:3] * 255, (1, 2, 3), atol=1
    )


def test_region_tools_and_accept_are_steps_that_can_be_undone(proposed):
    _, panel = proposed
    region = two_regions(panel)[1]
    start = shown(panel).copy()
    panel.sections.regions.table.select([region])
    panel.sections.edit.tool_asked.emit("grow")
    panel.settle()
    assert (shown(panel) == region).sum() > (start == region).sum()
    panel.sections.edit.tool_asked.emit("accept")
    panel.settle()
    panel.refresh()
    row = next(
        row for row in panel.sections.regions.table.regions.rows if row.id == region
    )
    assert (row.accepted, row.locked) == (True, True)
    panel.sections.history.jump_asked.emit(0)
    np.testing.assert_array_equal(shown(panel), start)
    panel.sections.regions.table.select([])
    panel.sections.edit.tool_asked.emit("fill_holes")
    assert "Select a region" in messages()


def test_a_file_of_several_volumes_is_asked_about_and_the_chosen_one_opens(
    make_napari_viewer_proxy, qtbot, tmp_path, monkeypatch
):
    stack = np.random.default_rng(0).normal(100, 20, (8, 7, 6, 5)).astype(np.float32)
    nib.save(
        nib.Nifti1Image(stack, np.diag([1, 1, 2, 1.0])), tmp_path / "series.nii.gz"
    )
    asked, answers = [], [2, None, 4]

    def choose(_parent, _title, question, words, *_rest):
        asked.append(question)
        number = answers.pop(0)
        return words[number or 0], number is not None

    monkeypatch.setattr(dialogs.QInputDialog, "getItem", choose)
    viewer = make_napari_viewer_proxy()
    panel = dock(viewer)
    viewer.add_image(np.zeros((3, 4, 5, 6)), name="another reader's")
    assert "Open scan" in panel.sections.scan.scans.currentText()
    for _dropped in range(2):
        viewer.open(str(tmp_path / "series.nii.gz"), plugin="napari-strata")
    panel.files.open_scan(tmp_path / "series.nii.gz")
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=20000)
    assert asked == ["series.nii.gz holds 5 scans. Open which one?"] * 3
    assert [layer.name for layer in viewer.layers][1:] == [
        "series, volume 2",
        "series, volume 4",
    ]
    for layer, number in zip(list(viewer.layers)[1:], (2, 4), strict=True):
        np.testing.assert_allclose(
            np.sort(layer.data.ravel()), np.sort(stack[..., number].ravel())
        )
    assert panel.scans.volume.index == 4, "the scan opened last is the one in hand"


def test_a_folder_without_scans_is_left_to_other_readers(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    assert get_reader(str(tmp_path)) is None
