"""Sessions of the server: bounds, clean-up, several at once, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_strata.cli import main
from napari_strata.errors import ServeError
from napari_strata.serve.store import LOCK, Store, open_store
from napari_strata.settings import ServeSettings
from serving import labels_like, server, stand_in, voxels, write_turned_scan

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    return [write_turned_scan(folder / f"{n}.nii.gz", seed=n) for n in range(4)]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def put(running, scan, query=""):
    sent = [("files", "x.nii.gz", scan.read_bytes())]
    answer = running.send("PUT", f"/session/{query}", sent)
    assert answer.status == 200, answer.body
    return answer.document["session_id"]


def infer(running, session, model="tissues", **params):
    return running.send(
        "POST",
        f"/infer/{model}?session_id={session}&output=image",
        [("params", None, json.dumps(params).encode())],
    )


def test_sessions_are_bounded_in_number_and_time(root, scans):
    now = [1000.0]
    bounds = ServeSettings(max_sessions=2, session_minutes=30.0)
    store = Store(root, bounds, keeps=False, clock=lambda: now[0])

    def add(expiry_s=0.0):
        folder = store.new_folder()
        (folder / "scan.nii.gz").write_bytes(b"x")
        return store.add(folder, "scan.nii.gz", expiry_s=expiry_s)

    first, _ = add()
    second, _ = add(expiry_s=100.0)
    with pytest.raises(ServeError, match="max-sessions"):
        add()
    now[0] += 90
    assert store.get(second.id).used == now[0]  # use prolongs it
    now[0] += 90
    assert store.sweep() == []
    now[0] += 20
    assert store.sweep() == [second]
    assert not second.folder.exists()
    third, _ = add()
    store.get(first.id)
    now[0] += 700
    store.get(first.id)
    fourth, removed = add()  # the one idle for longest makes room
    assert removed == [third]
    assert not third.folder.exists()
    now[0] += 31 * 60
    assert {scan.id for scan in store.sweep()} == {first.id, fourth.id}
    assert not first.folder.exists()
    assert not fourth.folder.exists()


def test_nothing_stays_when_a_session_ends(root, scans):
    with server(root) as running:
        session = put(running, scans[0])
        assert infer(running, session, n=3).status == 200
        assert running.ask("GET", f"/session/{session}?image=true").status == 200
        assert running.ask("DELETE", f"/session/{session}").status == 200
        assert list(root.iterdir()) == []
        assert running.ask("GET", f"/session/{session}").status == 404
        assert infer(running, session, n=3).status == 404
        # nor of a scan that was sent with the request for its labels
        sent = [("file", "x.nii.gz", scans[0].read_bytes())]
        assert running.send("POST", "/infer/tissues", sent).status == 200
        assert list(root.iterdir()) == []


def test_folders_of_a_killed_server_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with open_store(None, ServeSettings()) as running:
        left = running.root.parent / "left-behind"
        left.mkdir()
        (left / LOCK).write_text("")
        (left / "scan.nii.gz").write_bytes(b"a patient")
        os.utime(left, (1000, 1000))
        starting = running.root.parent / "starting"
        starting.mkdir()
        with open_store(None, ServeSettings()) as other:
            assert not left.exists()
            assert starting.exists()
            starting.rmdir()
            assert running.root.exists()  # its server runs
        assert not other.root.exists()
    assert list(running.root.parent.iterdir()) == []


def test_four_sessions_at_once_do_not_mix_and_one_proposal_is_made_at_a_time(
    root, scans, tmp_path
):
    at_work, most = [0], [0]
    lock = threading.Lock()

    def slow(volume, on_progress):
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.05)
        with lock:
            at_work[0] -= 1
        return stand_in(volume, on_progress)

    with server(root, proposer=slow, proposals_in_memory=2) as running:
        sessions = [put(running, scan) for scan in scans]
        alone = [infer(running, session, n=5).body for session in sessions]
        assert len(set(alone)) == 4
        open_scans = running.service._scans._open.values()
        assert sum(scan.proposal is not None for scan in open_scans) <= 2
        with ThreadPoolExecutor(4) as pool:
            together = list(
                pool.map(
                    lambda n: (n % 4, infer(running, sessions[n % 4], n=5).body),
                    range(16),
                )
            )
        assert all(body == alone[n] for n, body in together)
        assert sum(scan.proposal is not None for scan in open_scans) <= 4
    assert most[0] == 1


def test_a_busy_server_says_so_and_a_removed_scan_ends_its_proposal(root, scans):
    begun, go_on = threading.Event(), threading.Event()

    def slow(volume, on_progress):
        begun.set()
        assert go_on.wait(30)
        on_progress(1, 2, "half of it")
        return stand_in(volume, on_progress)

    with server(root, proposer=slow, max_waiting=1) as running:
        session = put(running, scans[0])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(infer, running, session, n=3)
            assert begun.wait(30)
            busy = infer(running, session, n=3)
            assert busy.status == 503
            assert "retry-after" in busy.headers
            running.service.store.remove(session)
            for scan in running.service._scans._open.values():
                scan.is_removed = True
            go_on.set()
            assert waiting.result().status == 410


def test_what_was_kept_is_there_after_a_restart(root, scans, tmp_path):
    labels = labels_like(
        scans[0], np.ones(voxels(scans[0]).shape), tmp_path / "l.nii.gz"
    )
    with server(root, keeps=True) as running:
        for name in ("a patient/é", "../b"):
            sent = [("file", "x.nii.gz", scans[0].read_bytes())]
            path = f"/datastore/?image={'a%20patient%2F%C3%A9' if name[0] == 'a' else '..%2Fb'}"
            assert running.send("PUT", path, sent).document == {"image": name}
        query = "image=..%2Fb&tag=final"
        for content in (labels.read_bytes(), scans[0].read_bytes()):
            last = running.send(
                "PUT", f"/datastore/label?{query}", [("label", "l.nii.gz", content)]
            )
        assert last.status == 400  # a scan is no label map, and replaces nothing
        session = put(running, scans[1])
        first = infer(running, session, n=4)
    with server(
        root, keeps=True, proposer=None
    ) as running:  # nothing is proposed again
        objects = running.ask("GET", "/datastore/?output=all").document["objects"]
        assert set(objects) == {"a patient/é", "../b"}
        got = running.ask("GET", "/datastore/label?label=..%2Fb&tag=final")
        assert got.body == labels.read_bytes()
        again = infer(running, session, n=4)
        assert again.body == first.body
        # a new version keeps the earlier one
        sent = [("label", "l.nii.gz", labels.read_bytes())]
        assert running.send("PUT", f"/datastore/label?{query}", sent).status == 200
        assert len(list(root.glob("*/label-final-*.nii.gz"))) == 2


def test_the_command_serves_is_killed_and_goes_on(tmp_path, scans):
    keep = tmp_path / "kept"
    command = [
        *(sys.executable, "-m", "napari_strata.cli", "serve", "--port", "0"),
        *("--keep", str(keep), "--method", "gmm-mrf", "--supervoxels", "300"),
    ]
    import http.client

    def start():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        address = process.stdout.readline().split(": ")[0]
        return process, http.client.HTTPConnection(address.removeprefix("http://"))

    process, connection = start()
    try:
        body, kind = _form([("file", "x.nii.gz", scans[0].read_bytes())])
        connection.request(
            "PUT", "/datastore/?image=head", body, {"content-type": kind}
        )
        assert connection.getresponse().read() == b'{"image":"head"}'
        answers = []
        for _ in range(2):
            body, kind = _form([("params", None, b'{"n": 3}')])
            path = "/infer/tissues?image=head&output=image"
            connection.request("POST", path, body, {"content-type": kind})
            answers.append(connection.getresponse().read())
            process.kill()
            process.communicate()
            connection.close()
            process, connection = start()
        assert answers[0] == answers[1]
        # it listens to signals only once it answers
        connection.request("GET", "/info/")
        assert connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    assert f"kept in {keep}" in out
    assert "head" not in err.replace("--", "")


def _form(parts):
    from serving import form

    return form(parts)


def test_the_command_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "napari_strata.serve.run.importlib.util.find_spec", lambda name: None
    )
    assert main(["serve"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert 'python -m pip install "napari-strata[serve]"' in err
    monkeypatch.undo()
    for arguments, part in (
        (["--allow-origin", "*"], "no origin"),
        (["--token-file", str(tmp_path / "no")], "token"),
        (["--taught", str(tmp_path / "no.strata-teaching")], "no.strata-teaching"),
        (["--host", "no.such.host.invalid", "--method", "gmm-mrf"], "--host"),
    ):
        assert main(["serve", "--quiet", *arguments]) == 2
        assert part in capsys.readouterr().err
    assert os.environ.get("STRATA_TOKEN") is None
