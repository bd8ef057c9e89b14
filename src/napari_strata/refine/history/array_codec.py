"""Arrays and plain values as compressed bytes, with a checksum and without pickle."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_LEVEL = 1
"""Level of zlib. Neighbour differences in byte planes compress well at the fastest one."""


def pack(arrays: Arrays, values: dict[str, Any]) -> bytes:
    """Encode named arrays and plain values as bytes."""
    entries, blobs = [], []
    for name, array in arrays.items():
        is_row = array.ndim == 1 and array.dtype.kind == "i" and array.size > 1
        plain = np.diff(array, prepend=array.dtype.type(0)) if is_row else array
        entries.append([name, array.dtype.str, list(array.shape), is_row])
        blobs.append(
            np.ascontiguousarray(plain)
            .reshape(-1)
            .view(np.uint8)
            .reshape(-1, array.dtype.itemsize)
            .T.tobytes()
        )
    head = json.dumps({"arrays": entries, "values": values}).encode()
    return zlib.compress(
        len(head).to_bytes(4, "little") + head + b"".join(blobs), _LEVEL
    )


def unpack(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """Decode arrays and values from bytes; tuples become lists.

    Raises
    ------
    ValueError, KeyError, TypeError, zlib.error
        If the bytes are damaged.
    """
    plain = zlib.decompress(data)
    start = 4 + int.from_bytes(plain[:4], "little")
    head = json.loads(plain[4:start])
    arrays: Arrays = {}
    for name, code, shape, is_row in head["arrays"]:
        dtype = np.dtype(code)
        size = int(np.prod(shape)) * dtype.itemsize
        planes = np.frombuffer(plain, np.uint8, size, start).reshape(dtype.itemsize, -1)
        array = np.ascontiguousarray(planes.T).reshape(-1).view(dtype).reshape(shape)
        arrays[name] = np.cumsum(array, dtype=dtype) if is_row else array
        start += size
    return arrays, head["values"]
