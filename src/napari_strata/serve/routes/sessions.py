"""Sessions: a scan that a client sent for some time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from napari_strata.errors import ServeError
from napari_strata.serve.routes.requests import files_of, form_of, service_of
from napari_strata.serve.store import StoredScan

router = APIRouter(prefix="/session")


@router.put("/")
async def create(
    request: Request, uncompress: bool = False, expiry: int = 0
) -> dict[str, Any]:
    """Store a scan, and return the id of its session."""
    form = await form_of(request)
    try:
        scan = await run_in_threadpool(
            service_of(request).add_scan,
            files_of(form, "files", "file"),
            expiry_s=float(expiry),
            unpack=uncompress,
        )
    finally:
        await form.close()
    return {"session_id": scan.id, "session_info": session_info(scan)}


@router.get("/{session_id}")
def get(
    request: Request, session_id: str, update_ts: bool = False, image: bool = False
) -> Response:
    """Return what a session is, or its scan."""
    scan = service_of(request).store.get(session_id, touch=update_ts)
    if scan is None:
        raise ServeError("There is no such session. Send the scan again.", 404)
    return scan_response(scan) if image else JSONResponse(session_info(scan))


@router.delete("/{session_id}")
def remove(request: Request, session_id: str) -> dict[str, Any]:
    """End a session, and remove its scan."""
    return session_info(service_of(request).remove_scan(session_id))


def session_info(scan: StoredScan) -> dict[str, Any]:
    """Return what clients are told about a session; no place on the server is."""
    return {
        "name": scan.id,
        "path": "",
        "image": scan.file,
        "meta": scan.info,
        "create_ts": int(scan.created),
        "last_access_ts": int(scan.used),
        "expiry": int(scan.expiry_s),
    }


def scan_response(scan: StoredScan) -> FileResponse:
    """Return the file of a scan.

    Raises
    ------
    ServeError
        If it is a series of files.
    """
    if not scan.path.is_file():
        raise ServeError("The scan is a series of files, which is not sent back.", 404)
    return FileResponse(
        scan.path, media_type="application/octet-stream", filename=scan.file
    )
