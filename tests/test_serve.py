"""The server's protocol, held against the clients' own code and requests."""

from __future__ import annotations

import io
import json
import re
import zipfile
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from napari_strata.cli import main
from napari_strata.io.files import read
from napari_strata.refine.session.refinement import Refinement
from napari_strata.serve.models import build_models
from napari_strata.serve.run import proposer_of
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import no_progress
from serving import labels_like, server, stand_in, voxels, write_turned_scan
from test_io_dicom import save_series

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_turned_scan(tmp_path_factory.mktemp("scan") / "head.nii.gz")


QUICK = ProposeSettings(method="gmm-mrf", supervoxels=300)


@pytest.fixture(scope="module")
def proposer():
    """How a server proposes without an encoder."""
    return proposer_of(QUICK, RunSettings(threads=1), None)


@pytest.fixture(scope="module")
def models(tmp_path_factory, scan, proposer):
    """The models of a server with a teaching."""
    work = Refinement(proposer(read(scan), no_progress), tissues=4)
    work.rename(1, "muscle")
    teaching = tmp_path_factory.mktemp("taught") / "limb.strata-teaching"
    work.teach().save(teaching)
    return build_models([teaching], [], QUICK, None)


@pytest.fixture(scope="module")
def running(tmp_path_factory, models):
    with server(tmp_path_factory.mktemp("server"), models=models) as one:
        yield one


@pytest.fixture
def client(running, tmp_path):
    return client_of(running, tmp_path)


def client_of(running, folder):
    """Return the client that 3D Slicer's module uses."""
    pytest.importorskip(
        "cgi", reason="monailabel's client needs Python up to 3.12, which has cgi"
    )
    module = pytest.importorskip(
        "monailabel.client",
        reason="not installed: python -m pip install --no-deps monailabel==0.8.5",
    )
    return module.MONAILabelClient(running.url, str(folder), "tester")


def proposed_file(scan, folder, monkeypatch, *cut):
    """Return the labels that `strata propose` writes."""
    monkeypatch.setattr(
        "napari_strata.pipeline.propose_with",
        lambda volume, *_settings, **_more: stand_in(volume),
    )
    path = folder / "proposed.nii.gz"
    assert main(["propose", str(scan), "-o", str(path), "--quiet", *cut]) == 0
    return path


@pytest.mark.parametrize(
    ("model", "params", "cut"),
    [
        ("tissues", {"n": 3}, ("--tissues", "3")),
        ("tissues", {"auto": True, "n": 16}, ("--tissues", "auto")),
        ("regions", {"n": 7, "auto": False}, ("--regions", "7")),
        ("regions", {}, ("--regions", "auto")),
    ],
)
def test_slicers_client_gets_the_labels_that_propose_writes(
    client, scan, tmp_path, monkeypatch, model, params, cut
):
    session = client.create_session(str(scan))["session_id"]
    assert client.get_session(session)["name"] == session
    answered, told = client.infer(model, "head", params, session_id=session)
    client.remove_session(session)
    expected = proposed_file(scan, tmp_path, monkeypatch, *cut)
    assert (
        nib.load(answered).header.binaryblock == nib.load(expected).header.binaryblock
    )
    assert np.array_equal(voxels(answered), voxels(expected))
    assert (
        sorted(told["label_names"].values()) == np.unique(voxels(answered))[1:].tolist()
    )


def test_slicers_own_parameters_give_the_same_voxels_as_nrrd(client, scan):
    session = client.create_session(str(scan))["session_id"]
    plain, _ = client.infer("tissues", "head", {"n": 4}, session_id=session)
    # what the module of 3D Slicer adds to every request
    slicer = {
        "n": 4,
        "auto": False,
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
    }
    answered, told = client.infer("tissues", "head", slicer, session_id=session)
    image = sitk.ReadImage(answered)
    assert image.GetPixelIDValue() == sitk.sitkUInt8
    assert np.array_equal(
        sitk.GetArrayFromImage(image).transpose(2, 1, 0), voxels(plain)
    )
    assert list(told["label_names"]) == ["tissue 1", "tissue 2", "tissue 3", "tissue 4"]
    origin = np.array(image.GetOrigin()) * (-1, -1, 1)
    assert np.allclose(origin, nib.load(scan).affine[:3, 3], atol=1e-4)


def test_info_is_what_the_clients_need(client, running):
    info = client.info()
    assert "config" not in info  # 3D Slicer then asks for a newer server
    assert set(info["models"]) == {"tissues", "regions", "scribbles", "taught:limb"}
    for model in info["models"].values():
        assert {"type", "description", "labels", "config"} <= set(model)
    assert info["models"]["taught:limb"]["labels"] == {"muscle": 1}
    assert info["labels"] == ["background", "structure", "muscle"]
    assert client.auth_enabled() is False
    assert client.auth_valid_token()
    assert client.train_status(check_if_running=True) is False
    assert client.train_stop() == {}
    for ask in (
        lambda: client.train_start("tissues", {}),
        lambda: client.train_status(),
        lambda: client.get_session("none"),
        lambda: client.infer("no-such-model", "head", {}),
        lambda: client.next_sample("no-such-strategy", {}),
    ):
        with pytest.raises(Exception, match="404"):
            ask()
    assert b"/info: 200" in running.ask("GET", "/logs/?lines=50").body
    assert running.ask("GET", "/batch/infer").status == 404
    assert running.ask("GET", "/model/tissues").status == 404


def test_a_teaching_labels_the_scan_it_came_from(scan, tmp_path, proposer, models):
    root = tmp_path / "root"
    root.mkdir()
    with server(root, models=models, proposer=proposer) as running:
        client = client_of(running, tmp_path)
        session = client.create_session(str(scan))["session_id"]
        answered, told = client.infer("taught:limb", "head", {}, session_id=session)
        tissues, _ = client.infer("tissues", "head", {"n": 4}, session_id=session)
    assert told["label_names"] == {"muscle": 1}
    assert told["taught"]["fits"]
    agree = (voxels(answered) == 1) == (voxels(tissues) == 1)
    assert agree.mean() > 0.95


def with_strokes(scan, path, mask, on, beside):
    """Write a structure with strokes on it and beside it, as 3D Slicer does."""
    labels = mask.astype(np.uint8)
    labels[beside] = 2
    labels[on] = 3
    return labels_like(scan, labels, path)


SLICER_LABELS = [
    {"name": "structure", "id": 1},
    {"name": "background_scribbles", "id": 2},
    {"name": "foreground_scribbles", "id": 3},
]


def test_strokes_of_slicer_teach_a_structure(client, scan, tmp_path):
    session = client.create_session(str(scan))["session_id"]
    tissues, _ = client.infer("tissues", "head", {"n": 5}, session_id=session)
    tissue = voxels(tissues)
    empty = np.zeros(tissue.shape, bool)
    params = {
        "label_info": SLICER_LABELS,
        "selected_label_name": "structure",
        "roi": [],
    }

    def stroke(mask, on, beside):
        sent = with_strokes(scan, tmp_path / "sent.nii.gz", mask, on, beside)
        path, told = client.infer(
            "scribbles", "head", dict(params), str(sent), session_id=session
        )
        assert told["label_names"] == {"structure": 1}
        return voxels(path) == 1

    inside = np.argwhere(tissue == 4)
    outside = np.argwhere(tissue == 1)
    on, beside = tuple(inside[:20].T), tuple(outside[:20].T)
    found = stroke(empty, on, beside)
    assert found[on].all()
    assert not found[beside].any()
    assert found[tissue == 4].mean() > 0.5  # similar supervoxels followed
    assert found[tissue == 1].mean() < 0.2
    # the same request gives the same answer, whatever the client shows meanwhile
    assert np.array_equal(stroke(found, on, beside), found)
    # a stroke that was erased has no effect any more
    wrong = tuple(np.concatenate([inside[:20], outside[-20:]]).T)
    assert stroke(found, wrong, beside)[tuple(outside[-20:].T)].all()
    assert np.array_equal(stroke(found, on, beside), found)
    # strokes that were cleared leave what they taught
    more = tuple(np.argwhere(tissue == 5)[:10].T)
    again = stroke(found, more, ([], [], []))
    assert again[on].all()
    assert again[more].all()


def test_a_structure_drawn_by_hand_is_where_strokes_start(client, scan, tmp_path):
    session = client.create_session(str(scan))["session_id"]
    drawn = np.zeros(voxels(scan).shape, bool)
    drawn[6:14, 6:20, 6:14] = True
    sent = with_strokes(
        scan, tmp_path / "sent.nii.gz", drawn, ([10], [19], [10]), ([7], [7], [7])
    )
    path, _ = client.infer(
        "scribbles",
        "head",
        {"label_info": SLICER_LABELS, "scope": "here"},
        str(sent),
        session_id=session,
    )
    found = voxels(path) == 1
    assert found[10, 19, 10]
    assert not found[7, 7, 7]
    assert found[drawn].mean() > 0.5


def test_images_and_labels_go_to_the_datastore_and_come_back(client, scan, tmp_path):
    assert client.upload_image(str(scan), "head 1")["image"] == "head 1"
    assert client.next_sample("first", {})["id"] == "head 1"
    answered, _ = client.infer("tissues", "head 1", {"n": 3})
    saved = client.save_label(
        "head 1", answered, params={"label_info": [{"name": "tissue 1", "idx": 1}]}
    )
    assert saved["label"] == "head 1"
    assert "--keep" in saved["warning"]
    stored = client.datastore()["objects"]["head 1"]
    assert stored["labels"]["final"]["info"]["params"]["label_info"][0]["idx"] == 1
    loaded = client.download_label("head 1", "final")
    assert np.array_equal(voxels(loaded), voxels(answered))
    assert client.next_sample("random", {}) == {}
    assert client.info()["datastore"]["completed"] == 1
    with pytest.raises(Exception, match=r"Status: 400"):
        client.save_label("head 1", str(write_text(tmp_path / "no.nii.gz")))


def write_text(path):
    path.write_text("this is no label file")
    return path


def ohif_answer(answer):
    """Take an answer apart as OHIF's MonaiLabelPanel does."""
    kind = answer.headers["content-type"]
    boundary = re.search(r"boundary=([^;]+)", kind)[1]
    parts = answer.body.decode("latin-1").split(f"--{boundary}")
    told = next(part for part in parts if "Content-Type: application/json" in part)
    image = next(
        part for part in parts if "Content-Type: application/octet-stream" in part
    )
    text = image.split("\r\n\r\n", 1)[1]
    content = text[: text.rindex("\r\n")].encode("latin-1")
    return json.loads(told[told.index("{") : told.rindex("}") + 1]), content


def test_requests_of_ohif_are_answered_as_it_reads_them(running, scan):
    series = "1.2.826.0.1.3680043.8.498.1"
    sent = running.send(
        "PUT",
        f"/datastore/?image={series}",
        [("file", "head.nii.gz", scan.read_bytes())],
    )
    assert sent.status == 200
    # services/MonaiLabelClient.js: one part, no label
    params = {
        "n": 4,
        "result_extension": ".nrrd",
        "result_dtype": "uint16",
        "result_compress": False,
        "restore_label_idx": False,
    }
    path = f"/infer/{quote('tissues')}?image={series}&output=all"
    answer = running.send(
        "POST",
        path,
        [("params", None, json.dumps(params).encode())],
        {"accept": "application/json,multipart/form-data"},
    )
    told, content = ohif_answer(answer)
    head, _, raw = content.partition(b"\n\n")
    assert b"encoding: raw" in head
    assert b"type: unsigned short" in head or b"type: uint16" in head
    labels = np.frombuffer(raw, "<u2").reshape(voxels(scan).shape, order="F")
    assert sorted(np.unique(labels)) == [0, 1, 2, 3, 4]
    for name, (label, *center) in told["centroids"].items():
        assert told["label_names"][name] == label
        assert np.allclose(np.argwhere(labels == label).mean(axis=0), center, atol=0.01)
    # its labels are voxels without a header, in the order of the file
    drawn = np.zeros(labels.shape, np.uint8)
    drawn[4:9, 5:9, 6:12] = 1
    answer = running.send(
        "PUT",
        f"/datastore/label?image={series}",
        [("params", None, b"{}"), ("label", "label.bin", drawn.tobytes(order="F"))],
    )
    assert answer.status == 200
    got = running.ask("GET", f"/datastore/label?label={series}&tag=final")
    assert got.body == drawn.tobytes(order="F")
    for method, path in (
        ("GET", "/info/"),
        ("POST", "/activelearning/random"),
        ("DELETE", "/train/"),
    ):
        assert running.ask(method, path).status == 200
    assert running.ask("GET", "/train/?check_if_running=true").status == 404


def test_a_series_is_sent_as_files_or_as_an_archive(running, tmp_path):
    folder = tmp_path / "series"
    save_series(folder)
    slices = sorted(folder.iterdir())
    parts = [("files", f"../{one.name}", one.read_bytes()) for one in slices]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for one in slices:
            archive.write(one, f"../../{one.name}")
    answers = []
    for path, sent in (
        ("/session/", parts),
        ("/session/?uncompress=true", [("files", "s.zip", packed.getvalue())]),
    ):
        created = running.send("PUT", path, sent)
        assert created.status == 200, created.body
        session = created.document["session_id"]
        asked = f"/infer/tissues?session_id={session}&output="
        params = [("params", None, b'{"n": 2}')]
        answers.append(running.send("POST", f"{asked}image", params).body)
        written = running.send("POST", f"{asked}dicom_seg", params)
        assert written.status == 200, written.body
        seg = pydicom.dcmread(io.BytesIO(written.body))
        assert seg.Modality == "SEG"
        first = pydicom.dcmread(slices[0])
        assert seg.StudyInstanceUID == first.StudyInstanceUID
    assert answers[0] == answers[1]
