"""Closing the window in the middle of things.

What reads is stopped, what writes is finished, and no edit is lost.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from qtpy.QtCore import QObject, QThreadPool
from qtpy.QtGui import QGuiApplication

from napari_strata.errors import Cancelled, WriteError
from napari_strata.gui.session.edit_queue import EditQueue
from napari_strata.gui.tasks.jobs import JobRunner

pytestmark = pytest.mark.gui

LEAVES = """
import threading, time
import napari
from napari_strata.gui.canvas.layers import image_tuple
from napari_strata.gui.panel.panel import StrataPanel
from phantoms import phantom_volume

begun = threading.Event()

def propose(volume, *, on_progress, **settings):
    while True:
        begun.set()
        on_progress(0, 1, "For ever")
        time.sleep(0.3)

viewer = napari.Viewer(show=False)
panel = StrataPanel(viewer, propose=propose)
viewer.window.add_dock_widget(panel, name="Strata")
data, kwargs, _ = image_tuple(phantom_volume())
viewer.add_image(data, **kwargs)
panel.proposals.start()
assert begun.wait(20)
viewer.close()
print("left")
"""


def test_python_ends_well_after_a_window_was_closed_during_a_proposal(tmp_path):
    script = tmp_path / "leaves.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{LEAVES}",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["left"]
    assert "Traceback" not in ended.stderr
    assert "QThread: Destroyed" not in ended.stderr


def job_left_by_its_window(qtbot, end, *, writes: bool) -> list[str]:
    """Start a job, take its window away, let it end, and give what happened."""
    window, may_end, seen, told = QObject(), threading.Event(), [], []
    runner = JobRunner(window)

    def body(progress):
        may_end.wait(10)
        try:
            progress(1, 1, "Nearly done")
        except Cancelled:
            seen.append("cancelled")
            raise
        seen.append(end())

    runner.start(body, lambda _result: told.append("told"), writes=writes)
    with qtbot.waitSignal(window.destroyed, timeout=5000):
        window.deleteLater()
    may_end.set()
    assert QThreadPool.globalInstance().waitForDone(10_000)
    qtbot.wait(20)
    assert told == []
    return seen


def test_a_window_that_goes_stops_what_reads_and_lets_what_writes_finish(qtbot):
    assert job_left_by_its_window(qtbot, lambda: "read", writes=False) == ["cancelled"]
    assert job_left_by_its_window(qtbot, lambda: "written", writes=True) == ["written"]


def test_a_file_that_could_not_be_written_after_the_window_went_is_logged(
    qtbot, caplog
):
    def fail() -> str:
        raise WriteError("The disk is full.")

    assert job_left_by_its_window(qtbot, fail, writes=True) == []
    assert "The disk is full." in caplog.text


def test_the_last_window_stops_what_reads_before_napari_waits_for_it(qtbot):
    runner, stopped = JobRunner(), threading.Event()

    def body(progress):
        try:
            while True:
                progress(0, 1, "For ever")
                threading.Event().wait(0.01)
        except Cancelled:
            stopped.set()
            raise

    runner.start(body, lambda _result: None)
    QGuiApplication.instance().lastWindowClosed.emit()
    assert stopped.wait(10)
    qtbot.waitUntil(lambda: not runner.is_running, timeout=5000)


@pytest.mark.parametrize("how", ["closed", "destroyed"])
def test_edits_that_wait_are_carried_out_in_order_when_their_queue_goes(qtbot, how):
    window, done, may_go_on, all_done = (
        QObject(),
        [],
        threading.Event(),
        threading.Event(),
    )
    queue = EditQueue(window)
    queue.submit(lambda: (may_go_on.wait(10), done.append("first")))
    for name in ("second", "third"):
        queue.submit(partial(done.append, name), lambda _nothing: pytest.fail("shown"))
    queue.submit(all_done.set)
    if how == "closed":
        may_go_on.set()
        queue.close()
    else:
        with qtbot.waitSignal(window.destroyed, timeout=5000):
            window.deleteLater()
        may_go_on.set()
    assert all_done.wait(10)
    assert done == ["first", "second", "third"]


def test_edits_of_a_case_that_is_discarded_are_dropped(qtbot):
    queue, may_go_on, done = EditQueue(), threading.Event(), []
    first_is_done = threading.Event()
    queue.submit(lambda: (may_go_on.wait(10), first_is_done.set()))
    queue.submit(partial(done.append, "second"))
    queue.close(drop=True)
    may_go_on.set()
    assert first_is_done.wait(10)
    qtbot.wait(50)
    assert done == []
