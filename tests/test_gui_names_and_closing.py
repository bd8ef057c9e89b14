"""Naming regions and closing the window, with real events."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox

from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.tasks.closing import ClosingQuestion, closing_words
from napari_strata.gui.widgets.region_names import known_names, suggested_names
from napari_strata.io.files import read, write_scan
from phantoms import phantom_volume, propose_phantom
from test_gui_keys import desk, press, select  # noqa: F401
from test_gui_panel import add_scan
from windows import bring_to_front

pytestmark = pytest.mark.gui


def answer(button: str) -> list[str]:
    """Press a button of the message that comes up next; return what it said."""
    said: list[str] = []

    def when_open() -> None:
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(30, when_open)
            return
        said.append(box.text())
        assert box.width() <= box.screen().availableGeometry().width()
        choice = next(one for one in box.buttons() if one.text() == button)
        QTest.mouseClick(choice, Qt.MouseButton.LeftButton)

    QTimer.singleShot(0, when_open)
    return said


def type_name(panel, name: str) -> None:
    press("F2")
    line = QApplication.focusWidget()
    QTest.keyClicks(line, name)
    popup = line.completer().popup()
    if popup.isVisible():
        assert popup.width() >= popup.sizeHintForColumn(0)
        QTest.keyClick(popup, Qt.Key.Key_Escape)
    QTest.keyClick(line, Qt.Key.Key_Return)
    QApplication.processEvents()
    panel.settle()
    panel.refresh()


def names(panel) -> list[str]:
    return [row.name for row in panel.case.work.regions]


def test_a_region_is_named_with_the_keyboard_and_its_row_stays_in_view(desk):  # noqa: F811
    panel = desk.panel
    panel.case.work.cut(regions=30)
    panel.settle()
    panel.refresh()
    first, second = select(desk, 2)
    panel.sections.regions.table.select([first])
    desk.canvas.setFocus()
    type_name(panel, "zygoma")
    table = panel.sections.regions.table
    row = next(index for index in table.selectionModel().selectedRows())
    assert table.viewport().rect().intersects(table.visualRect(row))
    table.select([second])
    said = answer("Keep both")
    type_name(panel, "zygoma")
    assert said == ["Another region is called 'zygoma'. Merge this region into it?"]
    assert names(panel).count("zygoma") == 2
    third = next(row.id for row in panel.case.work.regions if row.name != "zygoma")
    table.select([third])
    answer("Cancel")
    type_name(panel, "zygoma")
    assert names(panel).count("zygoma") == 2
    answer("Merge")
    type_name(panel, "zygoma")
    assert third not in [row.id for row in panel.case.work.regions]


def test_common_names_come_without_a_side_and_sides_as_the_region_lies():
    offered = suggested_names(side="left")
    for name in ("white matter", "liver", "kidney", "ventricles", "tumour"):
        assert name in offered
    assert offered.index("left kidney") < offered.index("kidney")
    assert offered.index("kidney") < offered.index("right kidney")
    colors = known_names()
    far = sum(
        abs(a - b)
        for a, b in zip(colors["liver"].color, colors["kidney"].color, strict=True)
    )
    assert far > 150, "liver and kidney do not look alike"


def main_window(panel) -> QMainWindow:
    part = panel
    while not isinstance(part, QMainWindow):
        part = part.parentWidget()
    return part


class ByAPerson(QCloseEvent):
    """What a window manager sends; Qt marks only events from outside as spontaneous."""

    def spontaneous(self) -> bool:
        return True


def test_closing_during_a_job_is_asked_in_words(shared_viewer, qtbot):
    go_on = threading.Event()

    def slowly(volume, *, on_progress, **settings):
        go_on.wait(20)
        return propose_phantom(volume, on_progress=on_progress, **settings)

    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=slowly)
    viewer.window.add_dock_widget(panel, name="Strata")
    panel.sections.tour.leave()
    add_scan(viewer)
    bring_to_front(viewer)
    panel.proposals.start()
    window = main_window(panel)
    said = answer("Stay")
    question = panel.findChild(ClosingQuestion)
    assert question.eventFilter(window, ByAPerson()), "the window does not see it"
    assert said == ["Regions are being proposed; closing stops that."]
    assert window.isVisible()
    go_on.set()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)


def test_the_words_tell_what_happens_to_edits():
    assert closing_words(None, is_writing=False, edits=5) == ""
    words = closing_words("export", is_writing=True, edits=22)
    assert words == (
        "A file is being written; it is finished first. Your 22 edits are kept and"
        " offered when the scan is opened again."
    )


KILLED = """
import os, sys
import napari
from napari_strata.gui.canvas.layers import image_tuple
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.io.files import read
from qtpy.QtTest import QTest
from phantoms import propose_phantom

viewer = napari.Viewer(show=False)
panel = StrataPanel(viewer, propose=propose_phantom)
viewer.window.add_dock_widget(panel, name="Strata")
data, kwargs, _ = image_tuple(read(sys.argv[1]))
viewer.add_image(data, **kwargs)
panel.proposals.start()
while panel.case is None:
    QTest.qWait(20)
if sys.argv[2] == "edited":
    panel.sections.granularity.regions.click()
    panel.sections.granularity.count.setValue(9)
panel.settle()
panel.case.work._session.autosave.wait()
os._exit(1)
"""


@pytest.mark.parametrize("what", ["edited", "proposed only"])
def test_what_a_killed_window_had_is_offered_with_its_slider(
    shared_viewer, qtbot, tmp_path, what
):
    scan = write_scan(phantom_volume(), tmp_path / "scan.nii.gz")
    script = tmp_path / "killed.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{KILLED}",
        encoding="utf-8",
    )
    subprocess.run(
        [sys.executable, str(script), str(scan), what], timeout=120, check=False
    )
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    panel.sections.tour.leave()
    add_scan(viewer, read(scan))
    bring_to_front(viewer)
    banner = panel.sections.recovery
    qtbot.waitUntil(banner.isVisible, timeout=10000)
    assert ("not edited" in banner.words.text()) == (what != "edited")
    QTest.mouseClick(banner.resume, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    panel.settle()
    panel.refresh()
    section = panel.sections.granularity
    if what == "edited":
        # while an edit runs, the slider waits for it
        panel.case.finish()
        panel.refresh()
        work = panel.case.work.view
        assert (work.tree, work.granularity) == ("regions", 9)
        qtbot.waitUntil(
            lambda: (
                panel.refresh(),
                (section.tree, section.count.value()) == ("regions", 9),
            )[1],
            timeout=20000,
        )
    assert section.count.value() == panel.case.work.view.granularity
