"""A short job by mouse and keyboard from outside: xdotool moves the pointer of the X server.

Skipped where xdotool is not installed.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from qtpy.QtTest import QTest

from test_gui_keys import desk, value_of  # noqa: F401

pytestmark = [
    pytest.mark.gui,
    pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool is missing"),
]


def xdotool(*words: object) -> None:
    subprocess.run(["xdotool", *map(str, words)], check=True, timeout=30)
    QTest.qWait(150)


def point_at(widget, across: float = 0.5, down: float = 0.5) -> None:
    place = widget.mapToGlobal(widget.rect().topLeft())
    x = place.x() + round(across * widget.width())
    y = place.y() + round(down * widget.height())
    xdotool("mousemove", x, y)


def test_a_region_is_chosen_stroked_taken_and_undone_from_outside(desk, qtbot):  # noqa: F811
    panel = desk.panel
    point_at(desk.canvas, 0.5, 0.5)
    xdotool("click", 1)
    table = panel.sections.regions.table
    qtbot.waitUntil(lambda: len(table.selected) == 1, timeout=5000)

    for widget in (
        panel.sections.edit._target,
        panel.sections.edit._size,
        panel.sections.granularity.count,
        panel.sections.granularity.slider,
    ):
        before = value_of(widget)
        point_at(widget)
        xdotool("click", 5, "click", 5)
        assert value_of(widget) == before

    point_at(desk.canvas, 0.5, 0.5)
    xdotool("key", "shift+s")
    qtbot.waitUntil(lambda: panel.sections.edit.tool == "scribble", timeout=5000)
    xdotool("mousedown", 1)
    point_at(desk.canvas, 0.55, 0.52)
    point_at(desk.canvas, 0.6, 0.55)
    xdotool("mouseup", 1)
    qtbot.waitUntil(lambda: bool(panel.case.brushes.strokes()), timeout=5000)
    qtbot.waitUntil(lambda: panel.case.preview.is_shown, timeout=10000)
    xdotool("key", "space")
    qtbot.waitUntil(lambda: len(panel.case.work.history) == 1, timeout=10000)
    xdotool("key", "ctrl+z")
    qtbot.waitUntil(lambda: len(panel.case.work.history) == 0, timeout=10000)
