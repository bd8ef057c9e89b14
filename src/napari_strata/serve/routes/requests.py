"""What requests hold, and what all routes share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from napari_strata.errors import ServeError
from napari_strata.serve.guard import Access
from napari_strata.serve.log import LogLines
from napari_strata.serve.service import Service
from napari_strata.serve.uploads import MAX_FILES, Upload

_MAX_FIELDS = 100
_MAX_FIELD_BYTES = 4_000_000
"""Largest field that is no file; points of a client are sent so."""


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """What the routes work with.

    Parameters
    ----------
    service : Service
        What the server does.
    access : Access
        Who may speak to it.
    lines : LogLines
        Its log.
    """

    service: Service
    access: Access
    lines: LogLines


def state_of(request: Request) -> ServerState:
    """Return what the routes work with."""
    state: ServerState = request.app.state.strata
    return state


def service_of(request: Request) -> Service:
    """Return what the server does."""
    return state_of(request).service


async def form_of(request: Request) -> FormData:
    """Return the parts of a request.

    Raises
    ------
    ServeError
        If they are damaged or end early.
    """
    try:
        return await request.form(
            max_files=MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
    except HTTPException as err:
        raise ServeError(
            "The request's parts are damaged, too many, or end early. Send it again."
        ) from err
    except ClientDisconnect as err:
        raise ServeError("The client left before all was sent.") from err


def files_of(form: FormData, *names: str) -> list[Upload]:
    """Return the files of a form, under any of some names."""
    return [
        Upload(part.filename or "", part.file)
        for name, part in form.multi_items()
        if name in names and isinstance(part, UploadFile)
    ]


def file_of(form: FormData, name: str) -> Upload | None:
    """Return the file of a form under a name; None if there is none."""
    return next(iter(files_of(form, name)), None)


def object_of(text: object) -> dict[str, Any]:
    """Return a JSON object that a client sent as text.

    Raises
    ------
    ServeError
        If it is none.
    """
    if text is None or text == "":
        return {}
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as err:
        raise ServeError("The parameters are no JSON.") from err
    if not isinstance(value, dict):
        raise ServeError("The parameters must be a JSON object.")
    return value


async def json_of(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request's body; an empty one if there is no body.

    Raises
    ------
    ServeError
        If it is none, or too large.
    """
    body = await request.body()
    if len(body) > _MAX_FIELD_BYTES:
        raise ServeError("The parameters are too large.", 413)
    return object_of(body.decode("utf-8", "replace"))
