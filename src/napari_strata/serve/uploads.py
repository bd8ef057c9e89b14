"""Files from clients: stored under names of our own, and checked before they are used."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from napari_strata.errors import ReadError, ServeError
from napari_strata.filenames import ITK_SUFFIXES
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import SCAN_OUTPUTS
from napari_strata.io.header import header_shape
from napari_strata.io.itk import holds_its_voxels

SCAN_SUFFIXES = (*SCAN_OUTPUTS, ".mgh", ".mgz", ".dcm")
"""Endings of scans that clients may send as one file: those that stand alone."""
LABEL_SUFFIXES = (*SCAN_OUTPUTS, ".seg.nrrd", ".mgh", ".mgz", ".dcm")
"""Endings of labels that clients may send."""
RAW_SUFFIX = ".bin"
"""Ending of OHIF's labels: voxels without a header, in the order of the scan's file."""
SLICES = "slices"
"""Name of the folder with the files of a DICOM series."""
MAX_FILES = 20_000
"""Most files of one upload; a DICOM series has one per slice."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client sent.

    Parameters
    ----------
    name : str
        The name that the client gave; only its ending is used.
    file : binary file
        Its bytes.
    """

    name: str
    file: BinaryIO


def store_scan(
    uploads: Sequence[Upload],
    folder: Path,
    *,
    max_mvox: float,
    max_bytes: int,
    unpack: bool = False,
) -> str:
    """Write an uploaded scan to a folder, and return the name of its file there.

    Parameters
    ----------
    uploads : sequence of Upload
        One file, or the files of a DICOM series.
    folder : Path
        An empty folder.
    max_mvox : float
        Largest scan, in millions of voxels.
    max_bytes : int
        Most bytes that an archive may hold.
    unpack : bool
        Whether the one file is an archive (.zip) with a scan or a DICOM series.

    Raises
    ------
    ServeError
        If there is no file, its kind is not known, or it is too large.
    ReadError
        If it is no scan.
    """
    if not uploads:
        raise ServeError("The request holds no file. Send the scan as a file.")
    if unpack:
        name = _unpack(uploads[0], folder, max_bytes)
    elif len(uploads) == 1:
        name = f"scan{known_suffix(uploads[0].name, SCAN_SUFFIXES)}"
        _write(uploads[0].file, folder / name)
    else:
        name = SLICES
        (folder / SLICES).mkdir()
        for number, upload in enumerate(uploads):
            _write(upload.file, folder / SLICES / f"{number:06d}.dcm")
    check_scan(folder / name, max_mvox)
    return name


def store_labels(
    upload: Upload, folder: Path, name: str, *, raw: bool, max_mvox: float
) -> Path:
    """Write uploaded labels to a folder, and return the file.

    Parameters
    ----------
    upload : Upload
        The labels.
    folder : Path
        Where to write them.
    name : str
        Name of the file without its ending.
    raw : bool
        Whether voxels without a header are allowed.
    max_mvox : float
        Largest labels, in millions of voxels.

    Raises
    ------
    ServeError
        If their kind is not known, or they are too large.
    ReadError
        If the file cannot be read.
    """
    known = (*LABEL_SUFFIXES, RAW_SUFFIX) if raw else LABEL_SUFFIXES
    path = folder / f"{name}{known_suffix(upload.name, known)}"
    _write(upload.file, path)
    if file_suffix(path) != RAW_SUFFIX:
        _check_alone(path)
        if file_suffix(path) != ".dcm":
            _check_size(path, max_mvox)
    return path


def known_suffix(name: str, known: Sequence[str]) -> str:
    """Return the ending of a client's file name, which must be one of `known`.

    Raises
    ------
    ServeError
        If it is not.
    """
    suffix = file_suffix(name.replace("\0", "").replace("\\", "/"))
    if suffix not in known:
        raise ServeError(
            f"The name of the file ends in {suffix[:20]!r}. Send one of"
            f" {', '.join(known)}.",
            415,
        )
    return suffix


def check_scan(path: Path, max_mvox: float) -> None:
    """Check that a scan names no other files and is not too large, from its header.

    Raises
    ------
    ServeError
        If it does, or is.
    ReadError
        If its header cannot be read.
    """
    _check_alone(path)
    _check_size(path, max_mvox)


def _check_alone(path: Path) -> None:
    suffix = file_suffix(path)
    text_suffix = ".nrrd" if suffix == ".seg.nrrd" else suffix
    if text_suffix in ITK_SUFFIXES and not holds_its_voxels(path, text_suffix):
        raise ServeError(
            "The file keeps its voxels in another file. Send a file that holds them,"
            " such as .nrrd or .nii.gz."
        )


def _check_size(path: Path, max_mvox: float) -> None:
    suffix = file_suffix(path)
    if suffix == ".seg.nrrd":
        return  # its voxels are bounded by the size of the upload and by ITK's header
    mvox = math.prod(header_shape(path)) / 1e6
    if mvox > max_mvox:
        raise ServeError(
            f"The scan has {mvox:.1f} million voxels, and the server takes {max_mvox:g}."
            " Crop it, or start the server with a larger --max-scan-mvox.",
            413,
        )


def _write(source: BinaryIO, path: Path) -> None:
    with path.open("xb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _unpack(upload: Upload, folder: Path, max_bytes: int) -> str:
    """Unpack an archive under names of our own; return the name of the scan's file."""
    try:
        with zipfile.ZipFile(upload.file) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if not 0 < len(members) <= MAX_FILES:
                raise ServeError(
                    f"The archive holds {len(members)} files. Send 1 to {MAX_FILES}."
                )
            if len(members) == 1:
                name = f"scan{known_suffix(members[0].filename, SCAN_SUFFIXES)}"
                paths = [folder / name]
            else:
                name = SLICES
                (folder / SLICES).mkdir()
                paths = [folder / SLICES / f"{n:06d}.dcm" for n in range(len(members))]
            left = max_bytes
            for member, path in zip(members, paths, strict=True):
                with archive.open(member) as source:
                    left -= _write_bounded(source, path, left)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as err:
        raise ReadError(
            "The archive is damaged or encrypted. Send a plain .zip."
        ) from err
    return name


def _write_bounded(source: object, path: Path, most: int) -> int:
    """Copy at most `most` bytes; return how many there were."""
    total = 0
    with path.open("xb") as target:
        while chunk := source.read(_CHUNK):  # type: ignore[attr-defined]
            total += len(chunk)
            if total > most:
                raise ServeError("The archive unpacks to more than may be sent.", 413)
            target.write(chunk)
    return total
