"""Hashes of a scan's files, by which a scan is recognised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from napari_strata.errors import ReadError
from napari_strata.io.atomic import file_suffix, half_of_pair
from napari_strata.io.dicom.series import is_segmentation


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a scan's bytes, by which it is recognised.

    Parameters
    ----------
    path : str or Path
        A file, with its second half for .hdr/.img, .mhd and .nhdr; or a folder, whose
        files count in any order and under any name; segmentations that were put beside
        the images do not.

    Raises
    ------
    ReadError
        If it cannot be read.
    """
    source = Path(path)
    try:
        if not source.is_dir():
            check_regular(source)
            files = [source, *_companions(source)]
            return (
                _digest(files[0])
                if len(files) == 1
                else _joined([_digest(file) for file in files])
            )
        return _joined(
            sorted(
                _digest(file)
                for file in source.rglob("*")
                if file.is_file() and not is_segmentation(file)
            )
        )
    except OSError as err:
        raise ReadError(
            f"Cannot read {source}: {err.strerror}. Check the path."
        ) from err


def check_regular(path: Path) -> None:
    """Refuse a pipe, a socket or a device before it is opened.

    Reading one might block or never end.

    Raises
    ------
    ReadError
        If it is there and is no regular file.
    """
    if path.exists() and not path.is_file():
        raise ReadError(
            f"{path} is a pipe, a socket or a device, not a file. Give a file."
        )


def _companions(path: Path) -> Iterator[Path]:
    """Return the file with the voxels of a header file, or the other half of a pair."""
    suffix = file_suffix(path)
    if suffix in (".hdr", ".img"):
        yield half_of_pair(path, ".img" if suffix == ".hdr" else ".hdr")
    elif suffix in (".mhd", ".nhdr"):
        for line in os.fsdecode(path.read_bytes()).splitlines():
            key, _, value = line.replace(":", "=", 1).partition("=")
            other = path.parent / value.strip()
            if (
                key.strip().lower() in ("elementdatafile", "data file", "datafile")
                and other.is_file()
            ):
                yield other


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()
