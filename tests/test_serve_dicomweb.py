"""Series that OHIF names are fetched from a PACS: here a stand-in that speaks DICOMweb."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pydicom
import pytest

from napari_strata.errors import ServeError
from napari_strata.io.files import read
from napari_strata.serve.dicomweb import DicomWeb
from serving import server, stand_in
from test_io_dicom import UID, save_series

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

STUDY = f"{UID}.9"


class Pacs(BaseHTTPRequestHandler):
    """QIDO-RS and WADO-RS of one series; some UIDs answer wrongly."""

    slices: list[bytes]
    asked: list[str]
    logins: list[str | None]

    def do_GET(self):
        self.asked.append(self.path)
        self.logins.append(self.headers.get("authorization"))
        path, _, query = self.path.partition("?")
        if path == "/dicom-web/series":
            uid = query.partition("&")[0].partition("=")[2]
            if uid == "1.404":
                return self.answer(204, "application/dicom+json", b"")
            if uid == "1.500":
                return self.answer(500, "text/plain", b"broken")
            if uid == "1.301":
                self.send_response(301)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                return self.end_headers()
            if uid == "1.1":
                return self.answer(200, "application/dicom+json", b'[{"x": 1}]')
            study = "../../etc" if uid == "1.2" else STUDY
            found = [{"0020000D": {"vr": "UI", "Value": [study]}}]
            return self.answer(
                200, "application/dicom+json", json.dumps(found).encode()
            )
        body = b"".join(
            b"\r\n--MARK\r\nContent-Type: application/dicom\r\n\r\n" + one
            for one in self.slices
        )
        body = body[2:] + b"\r\n--MARK--\r\n"
        body = body[: len(body) // 2] if path.endswith("1.3") else body
        kind = 'multipart/related; type="application/dicom"; boundary="MARK"'
        return self.answer(200, kind, body)

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return save_series(tmp_path_factory.mktemp("series"))


@pytest.fixture
def pacs(series):
    Pacs.slices = [one.read_bytes() for one in sorted(series.iterdir())]
    Pacs.asked, Pacs.logins = [], []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Pacs)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/dicom-web/"
    running.shutdown()
    thread.join()
    running.server_close()


def test_ohif_gets_the_labels_of_a_series_that_it_only_names(pacs, series, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    with server(root, source=DicomWeb(pacs, 10**7, "me:secret")) as running:
        path = f"/infer/tissues?image={UID}&output="
        params = [("params", None, b'{"n": 2, "result_extension": ".nrrd"}')]
        answer = running.send("POST", f"{path}all", params)
        assert answer.status == 200, answer.body
        written = running.send("POST", f"{path}dicom_seg", params)
        seg = pydicom.dcmread(io.BytesIO(written.body))
        stored = running.service.store.get(UID)
        assert np.array_equal(read(stored.path).data, read(series).data)
        assert running.send("POST", "/infer/tissues?image=1.404", params).status == 404
        assert running.send("POST", "/infer/tissues?image=../x", params).status == 404
        assert running.send("POST", "/infer/tissues?image=1.500", params).status == 502
    assert seg.StudyInstanceUID == STUDY
    assert {str(one.ReferencedSOPInstanceUID) for one in _sources(seg)} == {
        str(pydicom.dcmread(one).SOPInstanceUID) for one in series.iterdir()
    }
    # the series was fetched once, and only UIDs were asked for
    assert sum("/studies/" in path for path in Pacs.asked) == 1
    assert not any(".." in path for path in Pacs.asked)
    assert set(Pacs.logins) == {"Basic bWU6c2VjcmV0"}
    assert stand_in(read(series)).n_supervoxels > 1


def _sources(seg):
    return seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence


@pytest.mark.parametrize(
    ("uid", "part"),
    [
        ("1.500", "answered 500"),
        ("1.301", "answered 301"),
        ("1.1", "damaged"),
        ("1.2", "no UID"),
        ("1.3", "ended early"),
    ],
)
def test_what_a_pacs_does_wrong_is_told(pacs, tmp_path, uid, part):
    with pytest.raises(ServeError, match=part):
        DicomWeb(pacs, 10**7).pull(uid, tmp_path)


def test_bounds_and_addresses(pacs, tmp_path):
    with pytest.raises(ServeError, match="larger than allowed"):
        DicomWeb(pacs, 2000).pull(UID, tmp_path)
    with pytest.raises(ServeError, match="cannot be reached"):
        DicomWeb("http://127.0.0.1:1/x", 10**7).pull(UID, tmp_path)
    for url in ("file:///etc/passwd", "localhost:8042", "ftp://x/y", "http://"):
        with pytest.raises(ServeError, match="no address"):
            DicomWeb(url, 10**7)
    with pytest.raises(ServeError, match="STRATA_DICOMWEB_LOGIN"):
        DicomWeb("http://me:secret@pacs/x", 10**7)
    for name in (
        "head",
        "1..2",
        "1.2/..",
        "1.2?x=1",
        "1.2\n",
        "9" * 65,
        "",
        "\u0661.2",
    ):
        assert DicomWeb(pacs, 10**7).pull(name, tmp_path) is None
    assert all("/studies/" not in path or UID in path for path in Pacs.asked)


ORTHANC = os.environ.get("STRATA_ORTHANC") or shutil.which("Orthanc")
PLUGIN = os.environ.get(
    "STRATA_ORTHANC_DICOMWEB", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
)


@pytest.fixture
def orthanc(series, tmp_path):
    """A real Orthanc with the series in it."""
    if not ORTHANC or not os.path.exists(PLUGIN):
        pytest.skip("no Orthanc: apt-get install orthanc orthanc-dicomweb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "StorageDirectory": str(tmp_path / "db"),
        "IndexDirectory": str(tmp_path / "db"),
        "Plugins": [PLUGIN],
        "RegisteredUsers": {"me": "secret"},
        "AuthenticationEnabled": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [ORTHANC, str(tmp_path / "orthanc.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for path in series.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID = "1"
            content = io.BytesIO()
            dataset.save_as(content)
            post(f"http://127.0.0.1:{port}/instances", content.getvalue())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def post(url, content=None):
    """Send to Orthanc, or ask it, as soon as it answers."""
    login = base64.b64encode(b"me:secret").decode()
    request = urllib.request.Request(url, content, {"Authorization": f"Basic {login}"})
    for _ in range(100):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()
        except urllib.error.URLError as err:
            if isinstance(err, urllib.error.HTTPError):
                raise
            time.sleep(0.2)
    raise AssertionError("Orthanc does not answer")


def test_a_series_comes_from_orthanc_and_its_seg_goes_back(orthanc, series, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    source = DicomWeb(f"{orthanc}/dicom-web", 10**7, "me:secret")
    with server(root, source=source) as running:
        path = f"/infer/tissues?image={UID}&output="
        seg = running.send("POST", f"{path}dicom_seg", [("params", None, b'{"n": 2}')])
        assert seg.status == 200, seg.body
        stored = running.service.store.get(UID)
        assert np.array_equal(read(stored.path).data, read(series).data)
        unknown = running.send(
            "POST", "/infer/tissues?image=1.2.3", [("params", None, b"")]
        )
        assert unknown.status == 404
    with pytest.raises(ServeError, match="answered 401"):
        DicomWeb(f"{orthanc}/dicom-web", 10**7).pull(UID, tmp_path)
    post(f"{orthanc}/instances", seg.body)
    found = json.loads(post(f"{orthanc}/dicom-web/series?Modality=SEG"))
    assert [one["0020000D"]["Value"] for one in found] == [[STUDY]]
