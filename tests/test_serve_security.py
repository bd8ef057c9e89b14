"""Who may speak to the server, and what a stranger cannot do with it.

The list of docs/serve.md, point by point.
"""

from __future__ import annotations

import ast
import gzip
import http.client
import io
import os
import socket
import struct
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_strata.errors import ServeError
from napari_strata.serve import run
from napari_strata.serve.guard import Access
from serving import server, write_turned_scan

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

SOURCES = Path(run.__file__).parent
SECRET = b"what nobody may read"

NAMES = [
    "../outside.nii.gz",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/etc/passwd.nii.gz",
    "..",
    ".",
    "",
    "a/../../b.nii.gz",
    "..\\..\\outside.nii.gz",
    "C:\\Windows\\outside.nii.gz",
    "\\\\host\\share\\x.nii.gz",
    "a\0b.nii.gz",
    "..%2foutside.nii.gz",
    "%2e%2e%2f%2e%2e%2foutside.nii.gz",
    "..%252foutside.nii.gz",
    "..%c0%afoutside.nii.gz",
    "\u2025/outside.nii.gz",
    "\uff0e\uff0e\uff0foutside.nii.gz",
    "日本語" * 80 + ".nii.gz",
    "x" * 5000 + ".nii.gz",
    "record.json",
    "proposal.strata",
    ".strata-serve-lock",
    "~/outside.nii.gz",
    "$(touch outside).nii.gz",
    "`touch outside`.nii.gz",
    "; touch outside; .nii.gz",
    "con.nii.gz",
    "a\r\nX-Evil: 1.nii.gz",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a file that nobody may read, and the store's folder in it."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "outside.nii.gz").write_bytes(SECRET)
    (folder / "scans").mkdir()
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_turned_scan(
        tmp_path_factory.mktemp("scan") / "head.nii.gz"
    ).read_bytes()


@pytest.fixture(scope="module")
def running(place):
    with server(place / "scans", keeps=True, max_upload_mb=1, max_scan_mvox=0.5) as one:
        yield one


def files_in(folder: Path) -> set[str]:
    """Return all files of a folder, but not what lies in the store."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if "scans" not in path.relative_to(folder).parts
    }


def check_nothing_escaped(place, before, here) -> None:
    assert files_in(place) == before
    assert (place / "outside.nii.gz").read_bytes() == SECRET
    assert set(os.listdir()) == here
    for path in (place / "scans").rglob("*"):
        assert path.resolve().is_relative_to(place / "scans")
        assert not path.is_symlink()


def ask_by_every_way(running, name: str, scan: bytes) -> None:
    """Use a name wherever the protocol takes one; no answer holds what nobody may read."""
    parts = [("file", name.replace("\r", "").replace("\n", ""), scan)]
    labels = [("label", name.replace("\r", "").replace("\n", ""), scan)]
    raw, coded = quote(name, safe="/%\\$`;~()"), quote(name, safe="")
    answers = [
        running.send("PUT", "/session/", [("files", parts[0][1], scan)]),
        running.send("PUT", "/datastore/", parts),
        running.send("PUT", f"/datastore/?image={coded}", [("file", "h.nii.gz", scan)]),
        running.send("PUT", f"/datastore/label?image={coded}&tag={coded}", labels),
        running.send(
            "POST", f"/infer/{coded}?image={coded}", [("params", None, b"{}")]
        ),
        running.send(
            "POST", f"/infer/tissues?session_id={coded}", [("params", None, b"")]
        ),
    ]
    for path in (raw, coded):
        for start in (
            "session/",
            "datastore/",
            "infer/",
            "model/",
            "logs/",
            "static/",
            "",
        ):
            answers.append(running.ask("GET", f"/{start}{path}"))
        answers.append(running.ask("GET", f"/session/{path}?image=true"))
        answers.append(running.ask("DELETE", f"/session/{path}"))
    for query in (
        f"datastore/image?image={coded}",
        f"datastore/label?label={coded}&tag={coded}",
        f"datastore/label?label=head&tag={coded}",
    ):
        answers.append(running.ask("GET", f"/{query}"))
    for answer in answers:
        assert answer.status < 500, (name, answer.status, answer.body[:200])
        assert SECRET not in answer.body
        assert b"root:" not in answer.body
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_stores_folder(running, place, scan, name, tmp_path):
    before, here = files_in(place), set(os.listdir())
    ask_by_every_way(running, name, scan)
    check_nothing_escaped(place, before, here)


@settings(max_examples=10)
@given(
    st.lists(
        st.sampled_from(
            [
                "..",
                "/",
                "\\",
                "%2e",
                "%2f",
                "%00",
                "\0",
                "a",
                ".nii.gz",
                "é",
                "\u202e",
                "~",
            ]
        ),
        max_size=8,
    ).map("".join)
)
def test_no_made_up_name_does(running, place, scan, name):
    before, here = files_in(place), set(os.listdir())
    ask_by_every_way(running, name, scan)
    check_nothing_escaped(place, before, here)


def test_answers_name_no_folder_of_the_server(running, place, scan):
    broken = running.send("PUT", "/session/", [("files", "x.nii.gz", scan[:200])])
    assert broken.status == 400
    assert str(place).encode() not in broken.body
    made = running.send("PUT", "/session/", [("files", "x.nii.gz", scan)]).document
    assert str(place) not in str(made)
    path = f"/infer/scribbles?session_id={made['session_id']}"
    answer = running.send("POST", path, [("label", "x.nii.gz", scan[:200])])
    assert answer.status == 400
    assert str(place).encode() not in answer.body


# Uploads


def test_too_large_uploads_are_refused(running, place):
    before = len(list((place / "scans").iterdir()))
    large = running.send("PUT", "/session/", [("files", "x.nii.gz", b"0" * 1_100_000)])
    assert large.status == 413
    # without a length, the bound holds while the body comes
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    start = b'--XX\r\nContent-Disposition: form-data; name="files"; filename="x.nii.gz"'
    chunks = (start + b"\r\n\r\n" if n == 0 else b"0" * 100_000 for n in range(15))
    try:
        connection.request(
            "PUT",
            "/session/",
            chunks,
            {"content-type": "multipart/form-data; boundary=XX"},
            encode_chunked=True,
        )
        assert connection.getresponse().status == 413
    finally:
        connection.close()
    assert len(list((place / "scans").iterdir())) == before
    assert running.ask("GET", "/info/").status == 200


def test_a_small_file_that_becomes_a_large_scan_is_refused(running):
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 100, 100, 100, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<4f", header, 76, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    bomb = gzip.compress(bytes(header) + bytes(4) + bytes(1_000_000))
    answer = running.send("PUT", "/session/", [("files", "x.nii.gz", bomb)])
    assert answer.status == 413
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.nii.gz", bytes(3_000_000))
    answer = running.send(
        "PUT", "/session/?uncompress=true", [("files", "x.zip", packed.getvalue())]
    )
    assert answer.status == 413


def test_truncated_uploads_are_refused_and_nothing_of_them_stays(running, place, scan):
    before = {path.name for path in (place / "scans").iterdir()}
    # the file ends early, though the request is whole
    cut = running.send("PUT", "/session/", [("files", "x.nii.gz", scan[:100])])
    assert cut.status == 400
    # the request's body ends early, with the length that it has
    head = b'--XX\r\nContent-Disposition: form-data; name="files"; filename="x.nii.gz"'
    kind = {"content-type": "multipart/form-data; boundary=XX"}
    body = head + b"\r\n\r\n" + scan
    for end in (len(body), len(head) + 2, 30, 0):
        assert running.ask("PUT", "/session/", body[:end], kind).status == 400
    # the client leaves before all is sent
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(
            b"PUT /session/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data;"
            b" boundary=XX\r\nContent-Length: 100000\r\n\r\n" + body[:500]
        )
    assert running.ask("GET", "/info/").status == 200
    left = {path.name for path in (place / "scans").iterdir()}
    assert left == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
                   b"data file: ../outside.nii.gz\n\n"),
        ("x.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
                   b"DataFile: /etc/passwd\n\n"),
        ("x.mha", b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
                  b"ElementDataFile = /etc/passwd\n"),
        ("x.mha", b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
                  b"ElementDataFile = LIST\n/etc/passwd\n"),
        ("x.mhd", b"NDims = 3\n"),
        ("x.nhdr", b"NRRD0004\n"),
        ("x.hdr", b"0"),
        ("x.pkl", b"cos\nsystem\n(S'touch outside'\ntR."),
        ("x.npy", b"\x93NUMPY"),
        ("x.strata", b"0"),
        ("x.pt", b"0"),
        ("x.py", b"0"),
        ("x", b"0"),
    ],
)  # fmt: skip
def test_files_that_name_others_or_are_no_scans_are_refused(running, name, content):
    for method, path, part in (
        ("PUT", "/session/", "files"),
        ("PUT", "/datastore/?image=x", "file"),
        ("POST", "/infer/tissues?image=x", "file"),
    ):
        answer = running.send(method, path, [(part, name, content)])
        assert answer.status in (400, 415), answer.body
        assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "params",
    [
        b"{", b"[]", b"1", b'"x"', b"[" * 5000, b'{"n": 0}', b'{"n": -1}', b'{"n": 1.5}',
        b'{"n": "4"}', b'{"n": true}', b'{"n": 1e99}', b'{"n": [1]}', b'{"n": 99999999999}',
        b'{"result_extension": "/../../x"}', b'{"result_extension": ".exe"}',
        b'{"result_extension": ["a"]}',
    ],
)  # fmt: skip
def test_odd_parameters_are_refused_in_one_line(running, scan, params):
    running.send("PUT", "/datastore/?image=odd", [("file", "h.nii.gz", scan)])
    answer = running.send(
        "POST", "/infer/tissues?image=odd", [("params", None, params)]
    )
    assert answer.status == 400, answer.body
    assert set(answer.document) == {"detail"}


# Who may speak to it


def test_without_the_token_nothing_is_answered(place, scan):
    (place / "scans" / "token").mkdir(exist_ok=True)
    token = "a-token-that-is-long-enough"
    right = {"authorization": f"Bearer {token}"}
    with server(place / "scans" / "token", access=Access(token)) as running:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {token}"},
            {"authorization": token},
            {"authorization": f"Bearer {token}x"},
            {"authorization": f"Bearer {token[:-1]}"},
            {"authorization": "Bearer "},
            {"authorization": "Bearer \xff\xfe"},
        ):
            for method, path in (
                ("GET", "/"),
                ("GET", "/info/"),
                ("GET", "/logs/"),
                ("GET", "/datastore/?output=all"),
                ("PUT", "/session/"),
                ("POST", "/infer/tissues"),
                ("GET", "/auth/token/valid"),
                ("GET", "/auth/token/"),
                ("GET", "//auth/"),
                ("OPTIONS", "/info/"),
                ("GET", "/no-such-page"),
            ):
                answer = running.ask(method, path, headers=headers)
                assert answer.status == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert running.ask("GET", "/info/", headers=right).status == 200
        assert running.ask("GET", "/auth/").document["enabled"] is True
        form = {"content-type": "application/x-www-form-urlencoded"}
        for password, status in (("wrong", 401), (token, 200)):
            body = f"username=me&password={password}&grant_type=password".encode()
            answer = running.ask("POST", "/auth/token", body, form)
            assert answer.status == status
        given = answer.document
        assert given == {"access_token": token, "token_type": "bearer"}


def test_a_server_that_others_can_reach_has_a_token(tmp_path):
    from napari_strata.settings import ServeSettings

    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.5"):
        access = run.access_of(ServeSettings(host=host))
        assert (access.token, access.is_local) == ("", True)
    tokens = set()
    for host in ("0.0.0.0", "::", "192.168.1.4", "hospital.example"):
        access = run.access_of(ServeSettings(host=host))
        assert not access.is_local
        assert len(access.token) >= 32
        tokens.add(access.token)
    assert len(tokens) == 4
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ServeError, match="too short"):
        run.read_token(tmp_path / "short")


def test_web_pages_may_not_use_it_unless_they_are_named(place):
    (place / "scans" / "cors").mkdir(exist_ok=True)
    ohif = "http://localhost:3000"
    others = (
        "http://evil.example",
        "null",
        "http://localhost:3001",
        f"{ohif}.evil.example",
    )
    preflight = {"access-control-request-method": "POST"}
    with server(place / "scans" / "cors") as running:
        for origin in (ohif, *others, running.url):
            for method, more in (("GET", {}), ("POST", {}), ("OPTIONS", preflight)):
                answer = running.ask(
                    method, "/info/", headers={"origin": origin, **more}
                )
                assert answer.status == 403
                assert not any(
                    name.startswith("access-control") for name in answer.headers
                )
        # a page that gives this machine a name of its own (DNS rebinding)
        for host in (
            "evil.example",
            f"evil.example:{running.port}",
            "127.0.0.1.evil.example",
            "",
        ):
            assert running.ask("GET", "/info/", headers={"host": host}).status == 421
    with server(place / "scans" / "cors", access=Access(origins=(ohif,))) as running:
        for method, more in (("GET", {}), ("OPTIONS", preflight)):
            answer = running.ask(method, "/info/", headers={"origin": ohif, **more})
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == ohif
            for origin in others:
                answer = running.ask(
                    method, "/info/", headers={"origin": origin, **more}
                )
                assert answer.status == 403
                assert "access-control-allow-origin" not in answer.headers
    for origin in ("*", "http://*", "localhost:3000", "http://a/b", "file://", "null"):
        with pytest.raises(ServeError, match="no origin"):
            run.access_of(_local(), origins=[origin])


def _local():
    from napari_strata.settings import ServeSettings

    return ServeSettings()


# What the code does not do


def test_nothing_is_unpickled_and_no_shell_is_run():
    forbidden = {
        "pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "subprocess", "pty",
        "commands", "torch", "importlib.machinery",
    }  # fmt: skip
    calls = {
        "eval",
        "exec",
        "compile",
        "__import__",
        "system",
        "popen",
        "Popen",
        "load_module",
    }
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            elif isinstance(node, ast.Call):
                called = node.func
                name = getattr(called, "id", getattr(called, "attr", ""))
                is_pattern = isinstance(called, ast.Attribute) and name == "compile"
                assert is_pattern or name not in calls, (path, name)
                continue
            else:
                continue
            assert not names & forbidden, (path, names & forbidden)
