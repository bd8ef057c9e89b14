"""Scans on Dask workers: the same labels as here, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.log import read_log
from napari_strata.batch.run import Recipe, run_batch
from napari_strata.batch.workers.cluster import Workers, workers_here
from napari_strata.batch.workers.local import LocalExecutor
from napari_strata.batch.workers.memory import estimate_gb
from napari_strata.cli.command_line import main
from napari_strata.errors import ClusterError
from napari_strata.io.files import write_scan
from napari_strata.settings import BatchSettings, ProposeSettings, RunSettings
from phantoms import phantom_volume

pytest.importorskip("distributed")
RECIPE = Recipe(
    "tissues",
    4,
    ProposeSettings(method="gmm-mrf", supervoxels=300),
    RunSettings(threads=1),
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> tuple[PlannedScan, ...]:
    folder = tmp_path_factory.mktemp("scans")
    for k in range(6):
        write_scan(
            phantom_volume((12 + 2 * k, 20, 24), (3, 2, 2), k),
            folder / f"sub-{k}.nii.gz",
        )
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    return plan_scans([folder])


@pytest.fixture(scope="module")
def alone(scans, tmp_path_factory) -> dict[str, bytes]:
    """What a plain run in this process makes."""
    out = tmp_path_factory.mktemp("alone")
    run_batch(scans, out, RECIPE)
    return made_in(out)


def made_in(folder: Path) -> dict[str, bytes]:
    """Give the bytes of labels, region tables and pictures."""
    files = [*folder.glob("*.nii.gz"), *folder.glob("*.csv"), *folder.glob("qc/*")]
    return {file.name: file.read_bytes() for file in sorted(files)}


FORKED = """
import os, sys
import napari_strata.batch.run, napari_strata.proposal.methods.gmm_mrf
from distributed.cli.dask_worker import main
for _ in range(int(sys.argv.pop(1)) - 1):
    if os.fork() == 0:
        break
main()
"""
"""Starts workers, each a process of its own, that load their packages once."""


@contextmanager
def process(*words: str | int | Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, *map(str, words)]
    running = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait(30)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """Start a scheduler and workers, each a process of its own."""
    said = folder / "scheduler.json"
    words = (
        "--scheduler-file",
        said,
        "--port",
        "0",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    )
    with process("-m", "distributed.cli.dask_scheduler", *words):
        deadline = time.monotonic() + 60
        while not said.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        words = (
            "--scheduler-file",
            said,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            folder,
        )
        with ExitStack() as stack:
            # elsewhere a fork is not safe, or not to be had
            if sys.platform == "linux":
                stack.enter_context(process("-c", FORKED, workers, *words))
            else:
                for _ in range(workers):
                    stack.enter_context(
                        process("-m", "distributed.cli.dask_worker", *words)
                    )
            yield json.loads(said.read_text())["address"]


def test_three_workers_of_a_scheduler_give_the_bytes_of_one_process_though_one_is_killed(
    scans, alone, tmp_path
):
    out, killed = tmp_path / "out", []

    def kill_one(result) -> None:
        """Kill the process of the worker that did the first scan.

        Has the next one by then.
        """
        if not killed and result.worker:
            port = int(result.worker.rpartition(":")[2])
            killed.extend(
                one.pid
                for one in psutil.net_connections("tcp")
                if one.laddr.port == port and one.status == "LISTEN" and one.pid
            )
            os.kill(killed[0], signal.SIGKILL)

    with cluster(tmp_path, 3) as address:
        results = run_batch(
            scans,
            out,
            RECIPE,
            settings=BatchSettings(scheduler=address),
            on_result=kill_one,
        )
    assert killed
    # "kept": killed after it had written
    assert [one.scan.id for one in results if one.status == "failed"] == ["broken"], (
        read_log(out)
    )
    assert made_in(out) == alone
    assert len({one.worker for one in results if one.worker}) >= 2


def test_a_scan_that_kills_two_workers_is_set_aside_and_named(
    scans, alone, tmp_path, monkeypatch
):
    """The sitecustomize of the workers kills the process that reads one of the scans.

    As want of memory would.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, os, sys\n"
        "def watch(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('sub-3.nii.gz'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv):\n"
        "    sys.addaudithook(watch)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    out = tmp_path / "out"
    some = [one for one in scans if one.id in ("sub-0", "sub-1", "sub-3", "broken")]
    results = run_batch(some, out, RECIPE, settings=BatchSettings(workers=2))
    (lost,) = [one for one in results if one.scan.id == "sub-3"]
    assert lost.status == "failed"
    assert "killed its worker twice" in lost.reason
    assert "sub-3.nii.gz" in lost.reason
    assert made_in(out) == {
        name: content
        for name, content in alone.items()
        if name.startswith(("sub-0", "sub-1"))
    }
    assert [
        line["times"] for line in read_log(out) if line["event"] == "worker died"
    ] == [1, 2]


def test_a_scan_over_the_budget_is_not_begun(scans, tmp_path):
    (small,) = [one for one in scans if one.id == "sub-0"]
    (result,) = run_batch(
        [small], tmp_path, RECIPE, settings=BatchSettings(workers=1, budget_gb=0.1)
    )
    assert result.status == "failed"
    assert "GB" in result.reason
    assert "--budget-gb" in result.reason


def test_memory_is_told_from_the_header(tmp_path):
    scan = plan_scans(
        [write_scan(phantom_volume((40, 40, 40), (1, 1, 1)), tmp_path / "a.nii.gz")]
    )[0]
    need = estimate_gb(scan, ProposeSettings())
    assert need is not None
    assert 0.7 < need < 1.2
    assert (
        estimate_gb(PlannedScan("gone", tmp_path / "gone.nii.gz"), ProposeSettings())
        is None
    )


@pytest.mark.parametrize(
    ("needs", "budget", "cores", "expected"),
    [
        ([1.0] * 9, 100, 4, 4),
        ([3.0] * 9, 10, 8, 3),
        ([1.0] * 2, 100, 8, 2),
        ([6.0, 1.0, 1.0, 1.0], 8, 8, 3),
        ([50.0], 8, 8, 1),
    ],
)
def test_as_many_workers_as_cores_memory_and_scans_allow(
    needs, budget, cores, expected
):
    assert (
        workers_here(BatchSettings(budget_gb=budget), needs, threads=1, cores=cores)
        == expected
    )


def test_without_dask_a_batch_runs_here_and_asking_for_workers_says_what_to_install(
    scans, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("napari_strata.batch.run.is_installed", lambda: False)
    few = [
        "batch",
        str(scans[1].path),
        str(scans[2].path),
        "-o",
        str(tmp_path),
        "--tissues",
        "4",
        "--method",
        "gmm-mrf",
        "--supervoxels",
        "300",
    ]
    assert main([*few, "--quiet"]) == 0
    assert {
        line["kind"] for line in read_log(tmp_path) if line["event"] == "engine"
    } == {"this process"}
    assert main([*few, "--quiet", "--tissues", "3", "--workers", "2"]) == 2
    assert "napari-strata[cluster]" in capsys.readouterr().err


def test_a_wrong_address_is_said_at_once(scans, tmp_path):
    with pytest.raises(ClusterError, match="address"):
        run_batch(
            scans, tmp_path, RECIPE, settings=BatchSettings(scheduler="nonsense://x")
        )
    with pytest.raises(ClusterError, match="Name a class"):
        run_batch(
            scans,
            tmp_path,
            RECIPE,
            settings=BatchSettings(cluster="no_such_package.Cluster"),
        )
    assert LocalExecutor  # the plain engine stays importable without Dask


def test_a_scheduler_that_goes_away_is_said_in_a_line(scans):
    def gone(*given: object, **more: object) -> None:
        raise OSError("connection closed")

    client = SimpleNamespace(
        sync=gone, cancel=gone, scheduler=SimpleNamespace(identity=None)
    )
    workers = Workers(client, lambda scan: 0.5, None, 2, lambda event, **said: None)
    with pytest.raises(ClusterError, match="no longer answers"):
        next(workers.run(lambda scan: None, scans, lambda done, total, stage: None))


def test_a_worker_that_dies_with_the_answer_costs_no_result(scans):
    """It had ended the scan, and nobody had asked for what it said."""

    class Answer:
        status = "finished"

        def __init__(self, whole: bool) -> None:
            self.whole = whole

        def result(self, timeout: float) -> str:
            if not self.whole:
                self.status = "pending"
                raise TimeoutError
            return "made"

    answers = [Answer(False), Answer(True)]
    known = iter([["tcp://a:1"], ["tcp://a:1"], ["tcp://b:2"]])
    last: list[str] = []

    def identity(*given: object, **more: object) -> dict:
        last[:] = next(known, last)
        return {"workers": {address: {"memory_limit": 8e9} for address in last}}

    client = SimpleNamespace(
        sync=identity,
        scheduler=SimpleNamespace(identity=None),
        submit=lambda *given, **more: answers.pop(0),
        cancel=lambda *given, **more: None,
    )
    said: list[str] = []
    workers = Workers(
        client, lambda scan: 0.5, None, 2, lambda event, **more: said.append(event)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "napari_strata.batch.workers.cluster._Round._wait", lambda self: None
        )
        outcomes = list(
            workers.run(lambda scan: None, scans[:1], lambda done, total, stage: None)
        )
    assert [(one.value, one.worker) for one in outcomes] == [("made", "tcp://b:2")]
    assert said == ["started", "worker died", "started"]
