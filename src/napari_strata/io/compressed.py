"""Compressed voxels, read to the end of their stream.

The checksum of a gzip or zlib stream follows its data. A reader that stops at the last
voxel never compares it, and accepts a damaged file that still decompresses.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from napari_strata.errors import ReadError

UNREADABLE = (OSError, EOFError, zlib.error)
"""What is raised on files that are cut short or wrongly compressed."""

_GZIP = b"\x1f\x8b"
_GZIP_ONLY, _GZIP_OR_ZLIB = 31, 47
"""zlib's codes for the kind of stream; for either of the two, the first bytes tell."""
_CHUNK = 2**16
"""Bytes read at a time: they unpack to 1,100 times as many at most."""


def damaged(source: str) -> ReadError:
    """Return the error for a file that ends too early or cannot be decompressed."""
    return ReadError(f"{source} is damaged or cut short. Copy or download it again.")


def wrong_checksum(source: str, kind: str = "gzip") -> ReadError:
    """Return the error for a file whose compressed data do not match their checksum."""
    return ReadError(
        f"{source} is damaged: its {kind} checksum does not fit. Copy it again from"
        " where it came."
    )


def more_bytes(count: int) -> tuple[str, ...]:
    """Return a note on bytes beyond the voxels of the header; none for 0 bytes."""
    if count <= 0:
        return ()
    return (
        f"The voxels take {count:,} bytes more than the header says; those at the end"
        " are ignored. If the file was sent as text, its values are wrong.",
    )


def stored_voxels(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    offset: int,
    volume: int | None,
    is_last: bool,
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the stored voxels of a NIfTI or MGH file, a .gz or .mgz file to its end.

    Parameters
    ----------
    path : Path
        The file with the voxels.
    shape : tuple of int
        Voxels along i, j, k and the further axes.
    dtype : dtype
        Their type in the file.
    offset : int
        Byte at which they begin, uncompressed.
    volume : int or None
        Which (i, j, k) volume; None for all of them.
    is_last : bool
        Whether the format has nothing behind the voxels: a note tells of what is there.

    Returns
    -------
    array, notes
        (i, j, k), or the whole shape; and what is to be told of the file.

    Raises
    ------
    ReadError
        If the file is damaged or cut short, its checksum is wrong, or the voxels do not
        fit into memory.
    """
    source = str(path)
    which: tuple[Any, ...] = (...,)
    if volume is not None:
        which = (slice(None),) * 3 + tuple(
            int(i) for i in np.unravel_index(volume, shape[3:], order="F")
        )
    try:
        with ImageOpener(source, "rb") as file:
            proxy = ArrayProxy(file, (shape, dtype, offset, 1.0, 0.0), mmap=False)
            data = np.asarray(proxy[which])
            needed = offset + math.prod(shape) * dtype.itemsize
            notes = _to_the_end(file, needed)
            return data, notes + (more_bytes(file.tell() - needed) if is_last else ())
    except gzip.BadGzipFile as err:
        wrong = "CRC" in str(err) or "length" in str(err)
        raise wrong_checksum(source) if wrong else damaged(source) from err
    except (*UNREADABLE, ValueError) as err:
        raise damaged(source) from err
    except MemoryError as err:
        raise ReadError(
            f"{source} does not fit into memory. Crop or downsample it, or use a"
            " machine with more memory."
        ) from err


def _to_the_end(file: ImageOpener, needed: int) -> tuple[str, ...]:
    """Move to the end. A gzip file is read, so that its checksum is compared.

    Raises
    ------
    OSError, EOFError, zlib.error
        If it is damaged, or unpacks to fewer than `needed` bytes.
    """
    if not isinstance(file.fobj, gzip.GzipFile):
        file.seek(0, os.SEEK_END)
        return ()
    try:
        while file.read(2**20):
            pass
    except gzip.BadGzipFile as err:
        # what follows a whole stream is no stream: other programs ignore it too
        if "Not a gzipped file" not in str(err) or file.tell() < needed:
            raise
        return ("Bytes behind the end of the gzip data are ignored.",)
    if file.tell() < needed:
        raise EOFError("fewer bytes than the header says")
    return ()


def unpacked(
    file: BinaryIO, source: str, *, limit: int | None = None, zlib_too: bool = False
) -> Iterator[bytes]:
    """Return the decompressed gzip data that begin at a file's position.

    Parameters
    ----------
    file : binary file
        Stands at the first compressed byte.
    source : str
        Names the file in messages.
    limit : int or None
        How many compressed bytes there are, if it is known.
    zlib_too : bool
        Whether it may be one zlib stream, or one of gzip; else one or more of gzip.

    Raises
    ------
    ReadError
        If they are damaged or cut short, or the checksum is wrong.
    """
    left, packed = limit, b""
    while True:
        stream = zlib.decompressobj(wbits=_GZIP_OR_ZLIB if zlib_too else _GZIP_ONLY)
        try:
            while not stream.eof:
                if not packed:
                    packed = file.read(_CHUNK if left is None else min(_CHUNK, left))
                    left = None if left is None else left - len(packed)
                    if not packed:
                        raise damaged(source)
                yield stream.decompress(packed)
                packed = stream.unused_data
        except zlib.error as err:
            wrong = "data check" in str(err) or "length check" in str(err)
            kind = "zlib" if zlib_too else "gzip"
            raise wrong_checksum(source, kind) if wrong else damaged(source) from err
        packed = packed or file.read(_CHUNK)
        if zlib_too or not packed.startswith(_GZIP):
            return
