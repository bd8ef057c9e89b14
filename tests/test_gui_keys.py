"""Keys and wheel as a person has them: real events, with the focus in every place.

Every key of the help overlay is pressed with the focus on the canvas, in a table row, in
the panel, in the layer list, in another plane, after a file dialog, and with ruler and
strokes in hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QKeySequence, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QFileDialog,
    QMainWindow,
    QScrollBar,
    QWidget,
)

from napari_strata.gui.actions import ACTIONS
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.widgets.dialogs import ask_case_path
from napari_strata.gui.widgets.help import HelpOverlay
from phantoms import propose_phantom
from test_gui_panel import add_scan, shown
from windows import bring_to_front

pytestmark = pytest.mark.gui


@pytest.fixture
def desk(shared_viewer, qtbot):
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    panel.sections.tour.leave()
    notification_manager.records.clear()
    add_scan(viewer)
    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and bool(panel.case.statistics()), timeout=20000
    )
    canvas = bring_to_front(viewer)
    panel.refresh()
    yield SimpleNamespace(viewer=viewer, panel=panel, canvas=canvas, qtbot=qtbot)
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def press(key: str) -> None:
    """Press a key where the focus is."""
    combination = QKeySequence(key)[0]
    target = QApplication.focusWidget() or QApplication.activeWindow()
    if target is None:  # no window manager here gives a window the focus again
        target = next(
            window
            for window in QApplication.topLevelWidgets()
            if isinstance(window, QMainWindow) and window.isVisible()
        )
    QTest.keyClick(target, combination.key(), combination.keyboardModifiers())


# Where the focus is


def on_canvas(desk) -> None:
    desk.canvas.setFocus()


def in_table(desk) -> None:
    table = desk.panel.sections.regions.table
    rows = table.selectionModel().selectedRows()
    table.scrollTo(rows[-1])
    QTest.mouseClick(
        table.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.ControlModifier,
        table.visualRect(rows[-1].siblingAtColumn(3)).center(),
    )
    QTest.mouseClick(
        table.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.ControlModifier,
        table.visualRect(rows[-1].siblingAtColumn(3)).center(),
    )
    assert table.hasFocus()


def on_button(desk) -> None:
    desk.panel.sections.edit.tools["scribble"].setFocus(Qt.FocusReason.TabFocusReason)


def on_combo_box(desk) -> None:
    desk.panel.sections.edit._target.setFocus(Qt.FocusReason.TabFocusReason)


def in_spin_box(desk) -> None:
    desk.panel.sections.granularity.count.setFocus()


def in_layer_list(desk) -> None:
    window = desk.canvas.window()
    layers = next(
        view
        for view in window.findChildren(QAbstractItemView)
        if type(view).__name__ == "QtLayerList"
    )
    layers.setFocus()


def in_other_plane(desk) -> None:
    desk.panel.sections.scan.buttons["planes"].setChecked(True)
    desk.panel.views.planes.views[0].canvas.canvas.native.setFocus()


def after_a_file_dialog(desk) -> None:
    desk.canvas.setFocus()

    def leave() -> None:
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, QFileDialog)
        QTest.keyClick(dialog, Qt.Key.Key_Escape)

    QTimer.singleShot(300, leave)
    assert ask_case_path(desk.panel, desk.panel.scans.volume) is None
    # a window manager gives the window the focus again; the test's screen has none
    window = desk.canvas.window()
    window.activateWindow()
    desk.qtbot.waitUntil(lambda: QApplication.activeWindow() is window)


def with_the_ruler(desk) -> None:
    if not desk.panel.sections.scan.buttons["ruler"].isChecked():
        desk.panel.sections.scan.buttons["ruler"].click()
    desk.canvas.setFocus()


def with_strokes(desk) -> None:
    desk.panel.editor.use_tool("scribble")
    desk.canvas.setFocus()


PLACES = (
    on_canvas,
    in_table,
    on_button,
    on_combo_box,
    in_spin_box,
    in_layer_list,
    in_other_plane,
    after_a_file_dialog,
    with_the_ruler,
    with_strokes,
)


# What each key has to do


@dataclass
class Case:
    """What a key finds, and what it has to have done."""

    keys: str
    done: Callable[[Any], object]
    before: Callable[[Any], object] = lambda desk: None
    after: Callable[[Any], object] = lambda desk: None


def select(desk, count: int = 2) -> list[int]:
    ids = [row.id for row in desk.panel.case.work.regions][:count]
    desk.panel.sections.regions.table.select(ids)
    return ids


def last_step(desk) -> str:
    desk.panel.settle()
    steps = desk.panel.case.work.history
    return steps[-1] if steps else ""


def undo(desk) -> None:
    desk.panel.editor.undo()
    desk.panel.settle()
    desk.panel.refresh()


def region(desk) -> Any:
    desk.panel.settle()
    last = desk.panel.sections.regions.table.selected[-1]
    return next(row for row in desk.panel.case.work.regions if row.id == last)


def stroke(desk) -> None:
    panel = desk.panel
    ruler = panel.sections.scan.buttons["ruler"].isChecked()
    select(desk, 1)
    layer = panel.case.brushes.pick_up_scribble(
        panel.sections.regions.table.selected[0], size=3
    ).layer
    layer.paint((12, 12, 9), layer.selected_label)
    panel.case.brushes.show_preview("here")
    panel.case.queue.finish()
    panel.case.preview.finish()
    if ruler:
        panel.views.ruler.pick_up(panel.scans.image)
    assert panel.case.preview.is_shown


def clear(desk) -> None:
    desk.panel.editor.edit("clear")
    desk.panel.settle()


def strokes_left(desk) -> bool:
    return bool(desk.panel.case.brushes.strokes())


def note_plane(desk) -> None:
    desk.panel.orientation.show_plane("axial")


def tool(name: str) -> Callable[[Any], object]:
    return lambda desk: desk.panel.sections.edit.tool == name


def ruler_is_up(desk) -> bool:
    return desk.panel.sections.scan.buttons["ruler"].isChecked()


def toggles(key: str, state: Callable[[Any], object]) -> Case:
    """A key that switches something on or off: it differs, and is switched back."""
    known: dict[str, object] = {}
    return Case(
        key,
        lambda desk: state(desk) != known["before"],
        lambda desk: known.update(before=state(desk)),
        lambda desk: press(key),
    )


def brush(desk) -> int:
    return desk.panel.sections.edit.brush_size


def larger(desk) -> None:
    desk.panel.sections.edit._size.setValue(5)


CASES = (
    Case("M", lambda d: last_step(d).startswith("Merge"), select, undo),
    Case("Shift+M", lambda d: last_step(d).startswith("Merge"), select, undo),
    Case("S", lambda d: last_step(d).startswith("Split"), lambda d: select(d, 1), undo),
    Case(
        "Shift+D",
        lambda d: last_step(d).startswith("Split"),
        lambda d: select(d, 1),
        undo,
    ),
    Case(
        "F2",
        lambda d: (
            d.panel.sections.regions.table.state()
            == QAbstractItemView.State.EditingState
        ),
        lambda d: select(d, 1),
        lambda d: press("Escape"),
    ),
    Case("A", lambda d: region(d).accepted, lambda d: select(d, 1), undo),
    Case("K", lambda d: region(d).locked, lambda d: select(d, 1), undo),
    Case(
        "Ctrl+Z",
        lambda d: last_step(d) == "",
        lambda d: (d.panel.case.work.merge(select(d)), d.panel.settle()),
    ),
    Case(
        "Ctrl+Shift+Z",
        lambda d: last_step(d).startswith("Merge"),
        lambda d: (d.panel.case.work.merge(select(d)), undo(d)),
        undo,
    ),
    Case(
        "W",
        lambda d: d.panel.jobs.is_running,
        lambda d: select(d, 1),
        lambda d: d.qtbot.waitUntil(lambda: not d.panel.is_busy, timeout=20000),
    ),
    Case("Shift+S", tool("scribble"), lambda d: select(d, 1)),
    Case("Shift+P", tool("paint"), lambda d: select(d, 1)),
    Case("Shift+X", tool("cut"), lambda d: select(d, 1)),
    Case("Shift+C", tool("select"), lambda d: select(d, 1)),
    Case(
        "Shift+U",
        lambda d: last_step(d).startswith("Scribble") and not strokes_left(d),
        stroke,
        undo,
    ),
    Case(
        "Space",
        lambda d: last_step(d).startswith("Scribble") and not strokes_left(d),
        stroke,
        undo,
    ),
    Case(
        "Escape",
        lambda d: (
            not d.panel.case.preview.is_shown
            and not strokes_left(d)
            and last_step(d) == ""
        ),
        stroke,
        clear,
    ),
    Case("[", lambda d: brush(d) == 4, larger),
    Case("]", lambda d: brush(d) == 6, larger),
    Case("N", lambda d: d.panel.settle() or d.panel.review.here is not None),
    Case(
        "Space",
        lambda d: last_step(d).startswith("Assign"),
        lambda d: (d.panel.review.next(), d.panel.settle()),
        lambda d: (undo(d), d.panel.review.leave()),
    ),
    Case("Shift+F", lambda d: d.viewer.dims.order[0] == 1, note_plane),
    Case("Shift+G", lambda d: d.viewer.dims.order[0] == 2, note_plane),
    Case("Shift+H", lambda d: d.viewer.dims.ndisplay == 3, note_plane, note_plane),
    Case(
        "Shift+A",
        lambda d: d.viewer.dims.order[0] == 0,
        lambda d: d.panel.orientation.show_plane("coronal"),
    ),
    toggles("G", lambda d: bool(d.panel.case.labels.contour)),
    Case(
        "Shift+O",
        lambda d: not d.panel.case.painter.hidden,
        lambda d: d.panel.case.painter.hide(frozenset(select(d, 1))),
    ),
    *(
        Case(
            f"Alt+{number}",
            lambda d, number=number: (
                d.panel.sections.scan.preset.currentIndex() == number - 1
            ),
            lambda d, number=number: d.panel.sections.scan.preset.setCurrentIndex(
                number % 4
            ),
        )
        for number in range(1, 5)
    ),
    toggles("Shift+R", ruler_is_up),
    Case(
        "H",
        lambda d: d.panel.findChildren(HelpOverlay),
        after=lambda d: [one.accept() for one in d.panel.findChildren(HelpOverlay)],
    ),
    toggles("Shift+T", lambda d: d.panel.views.planes is not None),
)


def test_the_table_of_cases_holds_every_key_of_the_overlay():
    keys = {key.text for action in ACTIONS for key in action.keys}
    only_ct = {f"Alt+{number}" for number in range(5, 8)}
    assert {case.keys for case in CASES} == keys - only_ct


def press_and_check(desk, place, case) -> bool:
    """Press one key in one place; return whether it did what it has to do."""
    case.before(desk)
    if not desk.panel.sections.regions.table.selected:
        select(desk, 1)
    place(desk)
    QApplication.processEvents()
    labels = shown(desk.panel).copy() if case.keys == "Escape" else None
    press(case.keys)
    done = bool(case.done(desk))
    if labels is not None:
        np.testing.assert_array_equal(shown(desk.panel), labels)
    case.after(desk)
    desk.panel.review.leave()
    desk.panel.settle()
    return done


def test_every_key_works_wherever_the_focus_is(desk):
    """One window for all places: making its layers anew for each would take minutes."""
    buttons = desk.panel.sections.scan.buttons
    wrong = []
    for place in PLACES:
        wrong += [
            (place.__name__, case.keys)
            for case in CASES
            if not press_and_check(desk, place, case)
        ]
        desk.panel.editor.use_tool("select")
        for name in ("ruler", "planes"):
            buttons[name].setChecked(False)
    assert not wrong


def test_letters_are_written_where_a_person_writes(desk):
    panel = desk.panel
    select(desk, 2)
    panel.sections.regions.filter.setFocus()
    QTest.keyClicks(QApplication.focusWidget(), "mask 1")
    assert panel.sections.regions.filter.text() == "mask 1"
    panel.sections.regions.filter.clear()
    panel.sections.regions.table.rename_last()
    QTest.keyClicks(QApplication.focusWidget(), "Mask")
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Return)
    QApplication.processEvents()
    assert region(desk).name == "Mask"
    panel.sections.edit.parts.setFocus()
    QTest.keyClick(
        panel.sections.edit.parts, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier
    )
    QTest.keyClicks(panel.sections.edit.parts, "5")
    assert panel.sections.edit.parts.value() == 5
    assert last_step(desk).startswith("Rename")


def test_a_letter_without_an_action_leaves_the_selection(desk):
    chosen = select(desk, 1)
    in_table(desk)
    press("T")
    press("R")
    assert desk.panel.sections.regions.table.selected == tuple(chosen)


def test_space_never_opens_a_combo_box(desk):
    for box in desk.panel.findChildren(QComboBox):
        if box.isVisible() and box.isEnabled():
            box.setFocus(Qt.FocusReason.TabFocusReason)
            press("Space")
            assert QApplication.activePopupWidget() is None, box.toolTip()


def turn_wheel(widget, modifiers=Qt.KeyboardModifier.NoModifier) -> bool:
    """Turn the wheel over a widget; return whether the widget took it."""
    middle = QPointF(widget.rect().center())
    for _ in range(3):
        event = QWheelEvent(
            middle,
            QPointF(widget.mapToGlobal(widget.rect().center())),
            QPoint(0, -120),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            modifiers,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(widget, event)
    return event.isAccepted()


def test_the_wheel_scrolls_the_panel_and_changes_nothing(desk):
    panel = desk.panel
    panel.sections.proposal.advanced.expand(False)
    QApplication.processEvents()
    kinds = (QAbstractSlider, QAbstractSpinBox, QComboBox)
    tried = 0
    for section in ("scan", "explanation", "regions"):
        panel.sections.show_section(section)
        QApplication.processEvents()
        desk.canvas.setFocus()
        for widget in panel.sections.findChildren(QWidget):
            if (
                not isinstance(widget, kinds)
                or isinstance(widget, QScrollBar)
                or not widget.isVisible()
            ):
                continue
            text = value_of(widget)
            assert not turn_wheel(widget), "the panel gets it, and scrolls"
            assert value_of(widget) == text, widget.toolTip()
            assert not widget.hasFocus()
            tried += 1
    assert tried >= 10
    count = panel.sections.granularity.count
    count.setFocus()
    before = count.value()
    turn_wheel(count)
    assert count.value() != before


def value_of(widget) -> object:
    return widget.currentText() if isinstance(widget, QComboBox) else widget.value()


def test_after_a_click_on_a_button_or_a_choice_keys_still_work(desk):
    """Neither takes the focus, where Space would press it and letters would choose."""
    panel = desk.panel
    select(desk, 1)
    desk.canvas.setFocus()
    QTest.mouseClick(panel.sections.edit.tools["scribble"], Qt.MouseButton.LeftButton)
    QTest.mouseClick(panel.sections.edit._target, Qt.MouseButton.LeftButton)
    QTest.keyClick(panel.sections.edit._target.view(), Qt.Key.Key_Down)
    QTest.keyClick(panel.sections.edit._target.view(), Qt.Key.Key_Return)
    assert panel.sections.edit.target == "new"
    assert not isinstance(QApplication.focusWidget(), (QAbstractButton, QComboBox))
    assert panel.sections.edit.tools["scribble"].isChecked()
    press("Shift+C")
    assert panel.sections.edit.tools["select"].isChecked()


@pytest.mark.parametrize("tool_key", ["Shift+S", "Shift+P"])
def test_keys_of_napari_never_retarget_strokes_silently(desk, tool_key):
    panel = desk.panel
    chosen = select(desk, 1)
    desk.canvas.setFocus()
    press(tool_key)
    layer = desk.viewer.layers.selection.active
    for key in ("=", "-", "X"):
        press(key)
        selected = panel.sections.regions.table.selected
        assert selected == (layer.selected_label,), key
    if tool_key == "Shift+S":
        assert selected == tuple(chosen)
    for key, size in (("]", 4), ("]", 5), ("[", 4)):
        press(key)
        assert (brush(desk), layer.brush_size) == (size, size)
    layer.brush_size = 9
    assert brush(desk) == 9
    panel.sections.edit._size.setValue(7)
    assert layer.brush_size == 7
    press("Shift+C")


def test_a_stroke_that_another_tool_interrupts_is_not_left_on_the_layer(desk):
    panel, canvas = desk.panel, desk.canvas
    select(desk, 1)
    canvas.setFocus()
    press("Shift+P")
    start = canvas.rect().center() - QPoint(60, 0)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 4):
        QTest.mouseMove(canvas, start + QPoint(25 * step, 10 * step))
    press("Shift+S")
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=start)
    written = panel.case.labels.data
    desk.qtbot.waitUntil(
        lambda: (
            not panel.case.queue.is_busy
            and np.array_equal(written, panel.case.work.labels)
        ),
        timeout=5000,
    )
