"""Labels of a scan: the models, and the strokes of a client."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import Response

from napari_strata.errors import ServeError
from napari_strata.serve.answers import (
    AnswerFormat,
    centroids,
    dicom_seg_bytes,
    file_name,
    label_bytes,
    multipart,
)
from napari_strata.serve.routes.requests import file_of, form_of, object_of, service_of
from napari_strata.serve.service import Labelled, Service

router = APIRouter(prefix="/infer")

Output = Literal["image", "json", "all", "dicom_seg"]


@router.post("/{model}")
async def infer(
    request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    output: Output | None = None,
) -> Response:
    """Return the labels that a model gives a scan, and what is told beside them."""
    form = await form_of(request)
    try:
        return await run_in_threadpool(
            _infer, service_of(request), model, form, session_id or image, output
        )
    finally:
        await form.close()


def _infer(
    service: Service, model: str, form: FormData, scan_id: str, output: Output | None
) -> Response:
    params = object_of(form.get("params"))
    wanted = AnswerFormat.of(params)
    label, file = file_of(form, "label"), file_of(form, "file")
    if file is None:
        if not scan_id:
            raise ServeError("Name a scan: image, session_id, or a file.")
        labelled = service.infer(model, service.scan(scan_id), params, label)
        return _answer(labelled, wanted, output)
    scan = service.add_scan([file])
    try:
        return _answer(service.infer(model, scan, params, label), wanted, output)
    finally:
        service.remove_scan(scan.id)


def _answer(
    labelled: Labelled, wanted: AnswerFormat, output: Output | None
) -> Response:
    told: dict[str, Any] = labelled.params
    if output in ("all", "json"):
        told = {**told, "centroids": centroids(labelled.segmentation)}
    if output == "json":
        return JSONResponse(told)
    if output == "dicom_seg":
        content = dicom_seg_bytes(
            labelled.segmentation, labelled.volume, labelled.folder
        )
        return _file(content, file_name(".dcm"), "application/dicom")
    content = label_bytes(labelled.segmentation, wanted, labelled.folder)
    name = file_name(wanted.suffix)
    if output == "image":
        return _file(content, name, "application/octet-stream")
    body, kind = multipart(told, name, content)
    return Response(body, media_type=kind)


def _file(content: bytes, name: str, kind: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)
