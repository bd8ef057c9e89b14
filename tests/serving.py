"""A server on a free port of this machine, and scans to send to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_strata.serve.guard import Access
from napari_strata.serve.models import Model, build_models
from napari_strata.serve.service import Service
from napari_strata.serve.store import Store
from napari_strata.settings import ProposeSettings, ServeSettings
from phantoms import phantom_proposal, phantom_volume

SHAPE = (20, 24, 28)


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self):
        """The JSON of the body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    port: int
    service: Service

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict | None = None
    ) -> Answer:
        """Send one request, with the path as it stands."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def send(self, method: str, path: str, parts: list, headers: dict | None = None):
        """Send a form of (name, file name or None, content) parts."""
        body, kind = form(parts)
        return self.ask(method, path, body, {"content-type": kind, **(headers or {})})


def form(parts: list[tuple[str, str | None, bytes]]) -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    body = b""
    for name, file_name, content in parts:
        head = f'--XX\r\nContent-Disposition: form-data; name="{name}"'
        head += f'; filename="{file_name}"' if file_name is not None else ""
        body += head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--XX--\r\n", "multipart/form-data; boundary=XX"


def stand_in(volume, on_progress=lambda *_step: None):
    """Propose without an encoder."""
    on_progress(1, 2, "Looking at the phantom")
    proposal = phantom_proposal(volume)
    return replace(proposal, provenance={**proposal.provenance, "seconds": {}})


@contextmanager
def server(
    root: Path,
    *,
    proposer=stand_in,
    access: Access | None = None,
    keeps: bool = False,
    models: dict[str, Model] | None = None,
    source=None,
    **bounds,
) -> Iterator[Running]:
    """Run a server while the block runs."""
    import uvicorn

    from napari_strata.serve.application import create_app
    from napari_strata.serve.run import _listening, access_of

    settings = ServeSettings(port=0, **bounds)
    service = Service(
        Store(root, settings, keeps=keeps),
        models or build_models((), (), ProposeSettings(), None),
        proposer,
        settings,
        source=source,
    )
    listening = _listening(settings)
    port = listening.getsockname()[1]
    running = uvicorn.Server(
        uvicorn.Config(
            create_app(service, access or access_of(settings)),
            log_config=None,
            access_log=False,
        )
    )
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Running(f"http://127.0.0.1:{port}", port, service)
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def write_turned_scan(path: Path, seed: int = 0) -> Path:
    """Write a scan whose axes are turned, flipped and oblique."""
    data = phantom_volume(SHAPE, seed=seed).data.transpose(1, 2, 0)[::-1]
    turn = np.eye(4)
    angle = 0.2
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.array(
        [[0, 0, 2.0, -11.5], [-1.0, 0, 0, 30.25], [0, 1.5, 0, 7], [0, 0, 0, 1]]
    )
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def labels_like(scan: Path, labels: NDArray, path: Path) -> Path:
    """Write labels (i, j, k) on the grid of a scan."""
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), nib.load(scan).affine), path)
    return path


def voxels(path) -> NDArray:
    """Return the voxels of a NIfTI file as they stand in it."""
    return np.asanyarray(nib.load(path).dataobj)
