"""Answers with labels: the file that a client asked for, and what is told beside it."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ServeError
from napari_strata.export.files import write
from napari_strata.io.files import SCAN_OUTPUTS, write_voxels
from napari_strata.volume import Geometry, Segmentation, Volume

_DTYPES: dict[str, type[np.unsignedinteger]] = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
}
_DEFAULT_SUFFIX = ".nii.gz"


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How a client wants the labels.

    Parameters
    ----------
    suffix : str
        Ending of the label file.
    dtype : type or None
        Smallest type of its voxels; None for the smallest that fits.
    compressed : bool
        Whether NRRD and MetaImage are compressed.
    """

    suffix: str = _DEFAULT_SUFFIX
    dtype: type[np.unsignedinteger] | None = None
    compressed: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> AnswerFormat:
        """Return the format that a client's parameters name.

        Raises
        ------
        ServeError
            If the ending is not known.
        """
        suffix = params.get("result_extension") or _DEFAULT_SUFFIX
        if suffix not in SCAN_OUTPUTS:
            raise ServeError(
                f"result_extension is {str(suffix)[:20]!r}; choose one of"
                f" {', '.join(SCAN_OUTPUTS)}."
            )
        return cls(
            suffix,
            _DTYPES.get(str(params.get("result_dtype"))),
            params.get("result_compress") is True,
        )


def label_bytes(
    segmentation: Segmentation, wanted: AnswerFormat, folder: Path
) -> bytes:
    """Return the label file of a segmentation, on the grid of the scan's file.

    Parameters
    ----------
    segmentation : Segmentation
        The labels.
    wanted : AnswerFormat
        How to write them.
    folder : Path
        Where the file lies for a moment.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / f"labels{wanted.suffix}"
        write_voxels(
            segmentation, path, dtype=wanted.dtype, compressed=wanted.compressed
        )
        return path.read_bytes()


def dicom_seg_bytes(segmentation: Segmentation, scan: Volume, folder: Path) -> bytes:
    """Return a DICOM SEG of a segmentation.

    Raises
    ------
    WriteError
        If the scan is no DICOM series, or highdicom is not installed.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "labels.dcm"
        write(segmentation, path, scan=scan)
        return path.read_bytes()


def multipart(params: dict[str, Any], name: str, content: bytes) -> tuple[bytes, str]:
    """Return a multipart body with parameters and a file, and its content type.

    OHIF looks for the parts by their content types, 3D Slicer by the file's name.
    """
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="params"\r\n'
        "Content-Type: application/json\r\n\r\n"
        f"{json.dumps(params)}\r\n"
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode("ascii") + content + f"\r\n--{boundary}--\r\n".encode("ascii")
    return body, f"multipart/form-data; boundary={boundary}"


def file_name(suffix: str) -> str:
    """Return a name for an answer's file that no other answer has.

    Clients write it to a folder of theirs under this name.
    """
    return f"strata-{secrets.token_hex(8)}{suffix}"


def label_names(segmentation: Segmentation) -> dict[str, int]:
    """Return names and ids of the labels, ascending; names that come twice get their id.

    3D Slicer gives the names to the label values in this order.
    """
    names: dict[str, int] = {}
    for region in sorted(segmentation.regions, key=lambda region: region.id):
        is_free = region.name not in names
        names[region.name if is_free else f"{region.name} ({region.id})"] = region.id
    return names


def centroids(segmentation: Segmentation) -> dict[str, list[float]]:
    """Return id and centre of each label as [id, i, j, k], in voxels of the scan's file."""
    ids = np.array([region.id for region in segmentation.regions], np.int64)
    sums = _sums(segmentation.labels)
    counts = np.maximum(sums[0][ids], 1)
    centres = np.column_stack([total[ids] / counts for total in sums[1:]])
    places = _file_indices(centres, segmentation.geometry)
    return {
        name: [label, *np.round(place, 2).tolist()]
        for (name, label), place in zip(
            sorted(label_names(segmentation).items(), key=lambda item: item[1]),
            places[np.argsort(ids)],
            strict=True,
        )
    }


def _sums(labels: NDArray[np.unsignedinteger]) -> list[NDArray[np.float64]]:
    """Return per label the number of voxels, and the sums of their indices along each axis."""
    most = int(labels.max(initial=0)) + 1
    result = [np.zeros(most) for _ in range(4)]
    for axis in range(3):
        for number, plane in enumerate(np.moveaxis(labels, axis, 0)):
            counts = np.bincount(plane.reshape(-1), minlength=most)
            result[1 + axis] += number * counts
            if axis == 0:
                result[0] += counts
    return result


def _file_indices(
    places_zyx: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float64]:
    """Return places in the array as indices (i, j, k) into the scan's file."""
    if geometry.file is None:
        return places_zyx[:, ::-1]
    world = geometry.world_from_voxel(places_zyx)
    inverse = np.asarray(np.linalg.inv(geometry.file.affine), np.float64)
    return world @ inverse[:3, :3].T + inverse[:3, 3]
