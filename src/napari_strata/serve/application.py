"""The web application: routes, answers to errors, and the sweep of old scans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from napari_strata._version import __version__
from napari_strata.errors import ServeError, StrataError
from napari_strata.serve.guard import Access, Guard
from napari_strata.serve.log import LogLines
from napari_strata.serve.routes import about, datastore, inference, sessions, tasks
from napari_strata.serve.routes.requests import ServerState, service_of
from napari_strata.serve.service import Service

logger = logging.getLogger(__name__)

SWEEP_S = 20.0
"""Seconds between two looks for scans whose time is over."""


def create_app(service: Service, access: Access | None = None) -> Guard:
    """Return the web application of a service.

    Parameters
    ----------
    service : Service
        What it does. It is closed when the application ends.
    access : Access, optional
        Who may speak to it; by default, whoever is on this machine.
    """
    access = access or Access()
    lines = LogLines()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        ours = logging.getLogger("napari_strata.serve")
        was = ours.level, ours.propagate
        ours.addHandler(lines)
        ours.setLevel(logging.INFO)
        ours.propagate = False
        sweeping = asyncio.create_task(_sweep(service))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await run_in_threadpool(service.close)
            ours.removeHandler(lines)
            ours.setLevel(was[0])
            ours.propagate = was[1]

    # its pages of documentation would load scripts from other servers
    app = FastAPI(
        title="Strata",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.strata = ServerState(service, access, lines)
    app.add_exception_handler(StrataError, _answer_error)
    for module in (about, sessions, inference, datastore, tasks):
        app.include_router(module.router)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
        )
    return Guard(app, access)


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        await run_in_threadpool(service.sweep)


async def _answer_error(request: Request, err: Exception) -> JSONResponse:
    """Answer a request that a user can mend with one line."""
    status = err.status if isinstance(err, ServeError) else 400
    headers: dict[str, Any] = {"retry-after": "30"} if status == 503 else {}
    reason = err if isinstance(err, StrataError) else ServeError("The server failed.")
    text = service_of(request).message(reason)
    return JSONResponse({"detail": text}, status, headers)
