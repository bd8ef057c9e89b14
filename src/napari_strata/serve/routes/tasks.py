"""The next image, and what other servers of this protocol do: training, scoring, logs.

Strata is not trained through the server, so those answer that nothing runs.
"""

from __future__ import annotations

import random
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from starlette.responses import Response

from napari_strata.errors import ServeError
from napari_strata.io.files import hash_file
from napari_strata.serve.routes.datastore import image_info
from napari_strata.serve.routes.requests import json_of, service_of, state_of
from napari_strata.serve.service import STRATEGIES

router = APIRouter()

NO_TRAINING = (
    "Strata is not trained through the server. Strokes teach it at once; `strata teach`"
    " saves what they taught, and `strata serve --taught FILE` offers it as a model."
)
"""Answer to a client that wants to train a model."""


@router.post("/activelearning/{strategy}")
async def next_image(request: Request, strategy: str) -> dict[str, Any]:
    """Return the next image without labels; an empty answer if there is none."""
    await json_of(request)
    if strategy not in STRATEGIES:
        raise ServeError(
            f"There is no strategy {strategy[:80]!r}. There are:"
            f" {', '.join(STRATEGIES)}.",
            404,
        )
    service = service_of(request)
    left = [image for image in service.store.images() if not image.labels]
    if not left:
        return {}
    image = random.choice(left) if strategy == "random" else left[0]
    found: dict[str, Any] = {"id": image.id, **image_info(image)}
    if image.path.is_file():
        found["checksum"] = f"SHA256:{hash_file(image.path)}"
    return found


def _nothing_runs() -> Response:
    raise ServeError("No such task was started.", 404)


def _stopped() -> dict[str, Any]:
    return {}


def _refused() -> Response:
    raise ServeError(NO_TRAINING, 404)


for _path in ("/train/", "/scoring/", "/batch/infer"):
    router.add_api_route(_path, _nothing_runs, methods=["GET"])
    router.add_api_route(_path, _stopped, methods=["DELETE"])
for _path in ("/train/", "/train/{name}", "/scoring/", "/scoring/{name}"):
    router.add_api_route(_path, _refused, methods=["POST"])


@router.post("/batch/infer/{name}")
def batch(name: str) -> Response:
    """Refuse to label all images at once."""
    raise ServeError("Many scans are labelled with `strata batch`, not here.", 404)


@router.get("/model/{name}")
@router.get("/model/info/{name}")
def model_file(name: str) -> Response:
    """Refuse to send a model."""
    raise ServeError("The server sends no model files.", 404)


@router.get("/logs/")
def logs(request: Request, lines: int = 300) -> PlainTextResponse:
    """Return the last lines of the log."""
    return PlainTextResponse(state_of(request).lines.last(lines))


@router.get("/logs/gpu")
def processor() -> PlainTextResponse:
    """Return that no other program is asked about the graphics card."""
    return PlainTextResponse(
        "Strata works on the CPU unless --device says otherwise.\n"
    )
