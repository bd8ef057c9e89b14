"""Images and labels that stay on the server for longer than a session."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from napari_strata.errors import ServeError
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import hash_file
from napari_strata.serve.routes.requests import (
    file_of,
    files_of,
    form_of,
    object_of,
    service_of,
)
from napari_strata.serve.routes.sessions import scan_response
from napari_strata.serve.store import StoredLabel, StoredScan

router = APIRouter(prefix="/datastore")

NOT_KEPT = (
    "This server keeps nothing: the labels are removed with the scan. Start it with"
    " --keep FOLDER to keep them."
)
"""What a client is told when it submits labels to a server that does not keep them."""


@router.get("/")
def listing(
    request: Request, output: Literal["stats", "all", "train"] | None = None
) -> Response:
    """Return how many images there are, all of them, or those with labels."""
    service = service_of(request)
    images = service.store.images()
    if output == "all":
        return JSONResponse(
            {
                "name": "Strata",
                "description": "Images that clients put here",
                "objects": {image.id: _object(image) for image in images},
            }
        )
    if output == "train":
        return JSONResponse(
            [{"image": image.id, "label": image.id} for image in images if image.labels]
        )
    return JSONResponse(service.statistics())


def _object(image: StoredScan) -> dict[str, Any]:
    return {
        "image": {"ext": file_suffix(image.file), "info": image_info(image)},
        "labels": {
            tag: {"ext": file_suffix(label.file), "info": label.info}
            for tag, label in image.labels.items()
        },
    }


def image_info(image: StoredScan) -> dict[str, Any]:
    """Return what clients are told about an image."""
    return {
        "ts": int(image.created),
        "name": f"{image.id}{_ending(image)}",
        **image.info,
    }


def _ending(image: StoredScan) -> str:
    return file_suffix(image.file) if image.path.is_file() else ""


@router.put("/")
@router.put("/image")
async def add_image(request: Request, image: str = "") -> dict[str, Any]:
    """Store an image under a name."""
    form = await form_of(request)
    files = files_of(form, "file", "files")
    name = image or (
        files[0].name.replace("\\", "/").rpartition("/")[2] if files else ""
    )
    if not image:
        name = name.removesuffix(file_suffix(name)) or "image"
    try:
        scan = await run_in_threadpool(
            service_of(request).add_scan, files, scan_id=name
        )
        scan.info.update(
            {
                key: value
                for key, value in object_of(form.get("params")).items()
                if key in ("client_id", "user")
            }
        )
    finally:
        await form.close()
    return {"image": scan.id}


@router.delete("/")
@router.delete("/image")
def remove_image(request: Request, id: str) -> dict[str, Any]:
    """Remove an image and its labels."""
    service_of(request).remove_scan(id)
    return {}


@router.head("/image")
def has_image(request: Request, image: str, check_sum: str = "") -> Response:
    """Return whether there is an image, and whether it has a checksum."""
    scan = service_of(request).scan(image)
    if check_sum:
        digest = check_sum.rpartition(":")[2].lower()
        if not scan.path.is_file() or digest != hash_file(scan.path):
            raise ServeError("The image has another checksum.", 404)
    return Response()


@router.get("/image")
def get_image(request: Request, image: str) -> Response:
    """Return the file of an image."""
    return scan_response(service_of(request).scan(image))


@router.get("/image/info")
def get_image_info(request: Request, image: str) -> dict[str, Any]:
    """Return what is stored about an image."""
    return image_info(service_of(request).scan(image))


@router.put("/image/info")
async def put_image_info(request: Request, image: str) -> dict[str, Any]:
    """Add to what is stored about an image."""
    service = service_of(request)
    form = await form_of(request)
    scan = await run_in_threadpool(service.scan, image)
    service.store.update_info(scan, object_of(form.get("info")))
    return {}


@router.put("/label")
async def put_label(request: Request, image: str, tag: str = "final") -> dict[str, Any]:
    """Store labels of an image."""
    service = service_of(request)
    form = await form_of(request)
    label = file_of(form, "label")
    if label is None:
        raise ServeError("The request holds no labels, the part called label.")
    info = {"params": object_of(form.get("params"))}
    try:
        scan = await run_in_threadpool(service.scan, image)
        await run_in_threadpool(service.save_label, scan, tag or "final", label, info)
    finally:
        await form.close()
    kept = {} if service.store.keeps else {"warning": NOT_KEPT}
    return {"image": image, "label": image, **kept}


@router.delete("/label")
def remove_label(request: Request, id: str, tag: str) -> dict[str, Any]:
    """Remove labels of an image."""
    service = service_of(request)
    if not service.store.remove_label(service.scan(id), tag):
        raise ServeError("The image has no such labels.", 404)
    return {}


@router.head("/label")
def has_label(request: Request, tag: str, image: str = "", label: str = "") -> Response:
    """Return whether an image has labels with a tag."""
    _label(request, label or image, tag)
    return Response()


@router.get("/label")
def get_label(request: Request, label: str, tag: str) -> Response:
    """Return the labels of an image that were stored with a tag."""
    scan, stored = _label(request, label, tag)
    return FileResponse(
        scan.folder / stored.file,
        media_type="application/octet-stream",
        filename=stored.file,
    )


@router.get("/label/info")
def get_label_info(request: Request, label: str, tag: str) -> dict[str, Any]:
    """Return what is stored about labels."""
    return _label(request, label, tag)[1].info


@router.put("/label/info")
@router.put("/updatelabelinfo")
async def put_label_info(request: Request, label: str, tag: str) -> dict[str, Any]:
    """Add to what is stored about labels."""
    form = await form_of(request)
    scan, _ = await run_in_threadpool(_label, request, label, tag)
    info = object_of(form.get("info") or form.get("params"))
    service_of(request).store.update_info(scan, info, tag)
    return {}


def _label(request: Request, scan_id: str, tag: str) -> tuple[StoredScan, StoredLabel]:
    scan = service_of(request).scan(scan_id)
    if tag not in scan.labels:
        raise ServeError("The image has no such labels.", 404)
    return scan, scan.labels[tag]
