"""The worker process: the same proposal, killed by a cancel, missed by nobody when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.errors import Cancelled, GeometryError, WorkerError
from napari_strata.gui.tasks import compute
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.worker.pool import WorkerPool
from napari_strata.worker.process import WorkerProcess
from phantoms import phantom_volume

SETTINGS = strata.ProposeSettings(method="gmm-mrf")
PIPELINE = "napari_strata.pipeline:propose"
USER = "a window"


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool()
    pool.open(USER)
    yield pool
    pool.shut_down()
    assert pool.processes == ()


@pytest.fixture(scope="module")
def volume():
    """A scan whose array lies in memory as that of a file does: turned and mirrored."""
    plain = phantom_volume((12, 16, 20), (3.0, 2.0, 2.0))
    data = np.ascontiguousarray(plain.data.transpose(2, 0, 1)[:, ::-1])
    return strata.Volume(data[:, ::-1].transpose(1, 2, 0), plain.geometry, "mr")


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


class Kills:
    """Does something to the process at the first progress of the job."""

    def __init__(self, act):
        self.act, self.stages = act, []

    def __call__(self, done, total, stage):
        if stage != "Loading the engine":
            self.stages.append(stage)
            if len(self.stages) == 1:
                self.act()


def cancel():
    raise Cancelled("enough")


def test_a_worker_gives_the_same_proposal_and_the_very_scan(pool, volume, monkeypatch):
    here = strata.propose(volume, settings=SETTINGS)
    stages = set()
    monkeypatch.setenv(compute.SWITCH, "1")
    monkeypatch.setattr(compute, "WORKERS", pool)
    there = compute.propose_for_window(
        volume, settings=SETTINGS, on_progress=lambda *step: stages.add(step[2])
    )
    lookups, there = there.lookups, there.proposal
    assert there.volume is volume
    index = ProposalIndex(here)
    np.testing.assert_array_equal(lookups["boxes"], index.boxes)
    seeds = np.array([1, 3])
    np.testing.assert_array_equal(
        lookups["feature_space"].geodesic.distance(seeds),
        index.feature_space.geodesic.distance(seeds),
    )
    for name in ("supervoxels", "descriptors", "confidence", "edges"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    np.testing.assert_array_equal(there.tissues(5).labels, here.tissues(5).labels)
    np.testing.assert_array_equal(there.regions(7).labels, here.regions(7).labels)
    assert there.descriptor_names == here.descriptor_names
    assert there.provenance.keys() == here.provenance.keys()
    assert there.provenance["versions"] == here.provenance["versions"]
    assert len(stages) > 1


def test_errors_and_warnings_of_a_worker_are_those_of_this_process(pool, caplog):
    air = strata.Volume(
        np.full((8, 8, 8), np.nan), strata.Geometry.from_spacing((8, 8, 8), (1, 1, 1))
    )
    with pytest.raises(GeometryError, match="NaN") as raised:
        pool.call(PIPELINE, {"volume": air}, lambda *_: None)
    assert "pipeline.py" in str(raised.value.__cause__)
    with pytest.raises(AttributeError):  # a fault of ours keeps its kind
        pool.call("napari_strata.pipeline:nothing", {}, lambda *_: None)
    before = pool.processes
    assert len(before) == 1


def test_a_cancel_kills_and_the_next_job_finds_a_new_process(pool, volume):
    until(lambda: pool.processes)
    (before,) = pool.processes
    with pytest.raises(Cancelled):
        pool.call(PIPELINE, {"volume": volume, "settings": SETTINGS}, Kills(cancel))
    assert before.wait(10)
    assert is_gone(before.pid)
    until(lambda: pool.processes and pool.processes[0] is not before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_worker_that_dies_is_told_and_replaced(pool, volume):
    until(lambda: pool.processes)
    (before,) = pool.processes
    kill = Kills(lambda: os.kill(before.pid, signal.SIGKILL))
    arguments = {"volume": volume, "settings": SETTINGS}
    with pytest.raises(WorkerError, match=r"edits are kept.*Propose again.*killed"):
        pool.call(PIPELINE, arguments, kill)
    # one that dies while it waits is replaced without a word
    until(lambda: pool.processes)
    (idle,) = pool.processes
    assert idle is not before
    os.kill(idle.pid, signal.SIGKILL)
    proposal = pool.call(PIPELINE, arguments, lambda *_: None)
    assert proposal.n_supervoxels > 10


def test_the_worker_waits_only_while_a_window_needs_it(pool):
    until(lambda: pool.processes)
    (idle,) = pool.processes
    pool.close(USER)
    assert idle.wait(10)
    assert pool.processes == ()
    pool.open(USER)
    until(lambda: pool.processes)


@pytest.mark.gui
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_is_told_in_the_window_and_edits_are_kept(
    pool, shared_viewer, qtbot, monkeypatch
):
    from napari_strata.gui.canvas.layers import image_tuple
    from napari_strata.gui.panel import proposal_controller
    from napari_strata.gui.panel.panel import StrataPanel

    monkeypatch.setenv(compute.SWITCH, "1")
    monkeypatch.setattr(compute, "WORKERS", pool)
    monkeypatch.setattr(proposal_controller, "ask_replace", lambda _parent: True)
    told = []
    monkeypatch.setattr("napari_strata.gui.tasks.jobs.show_error", told.append)
    panel = StrataPanel(shared_viewer)
    shared_viewer.window.add_dock_widget(panel, name="Strata")
    data, kwargs, _ = image_tuple(phantom_volume((12, 16, 20), (3.0, 2.0, 2.0)))
    shared_viewer.add_image(data, **kwargs)

    panel.proposals.start()
    qtbot.waitUntil(
        lambda: panel.case is not None and not panel.is_busy, timeout=60_000
    )
    case = panel.case
    panel.settle()
    case.work.merge([row.id for row in case.work.regions][1:3])

    kill = Kills(lambda: os.kill(next(iter(pool._busy)).pid, signal.SIGKILL))

    def call_and_kill(function, arguments, on_progress):
        return WorkerPool.call(
            pool, function, arguments, lambda *step: (on_progress(*step), kill(*step))
        )

    monkeypatch.setattr(pool, "call", call_and_kill)
    panel.proposals.start()
    qtbot.waitUntil(lambda: bool(told), timeout=60_000)
    assert "edits are kept. Propose again" in told[0]
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=60_000)
    assert panel.case is case
    assert len(case.work.history) == 1

    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not case, timeout=60_000)
    panel.close_down()


ORPHAN = """
import os, signal, sys
from napari_strata.worker.process import WorkerProcess
print(WorkerProcess().pid, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A user's script without `if __name__ == "__main__"`, which ends as it is told."""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", ["killed", "ends"])
def test_a_worker_ends_when_its_window_is_gone(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(ORPHAN, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), how], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().isdigit(), done.stderr
    until(lambda: is_gone(int(done.stdout)))


def test_a_worker_that_cannot_start_says_why(monkeypatch, volume):
    monkeypatch.setattr("napari_strata.worker.process._BOOT", "import no_such_thing")
    process = WorkerProcess()
    with pytest.raises(WorkerError, match=r"could not start.*no_such_thing") as raised:
        process.call(PIPELINE, {"volume": volume}, lambda *_: None)
    assert not raised.value.has_started


def test_an_error_of_the_system_in_a_job_is_told_and_the_job_not_done_again(
    monkeypatch, volume
):
    class FullDisk:
        def call(self, *_arguments):
            raise OSError("No space left on device")

    monkeypatch.setenv(compute.SWITCH, "1")
    monkeypatch.setattr(compute, "WORKERS", FullDisk())
    with pytest.raises(OSError, match="No space left"):
        compute.propose_for_window(volume, settings=SETTINGS)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows has no SIGSTOP")
def test_a_process_that_does_not_read_can_be_cancelled():
    process = WorkerProcess()
    os.kill(process.pid, signal.SIGSTOP)
    asked = []

    def cancel_at_third(*_step):
        asked.append(time.monotonic())
        if len(asked) == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        process.call(PIPELINE, {"data": np.zeros(30_000_000)}, cancel_at_third)
    assert process.wait()
