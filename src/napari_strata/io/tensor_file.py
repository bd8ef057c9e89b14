"""Safetensors files with a versioned JSON header: codebooks and teachings.

Such a file contains arrays and text only; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Arrays = dict[str, NDArray[Any]]


class DamagedTensorFileError(ValueError):
    """The file is not safetensors, or has no header of the expected kind."""


def tensor_bytes(
    kind: str,
    version: int,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> bytes:
    """Return the content of a file with arrays and a header.

    Parameters
    ----------
    kind : str
        Key of the header, for example "strata-codebook".
    version : int
        Version of the file's layout, kept in the header.
    header : mapping
        Plain values.
    arrays : mapping of str to array
        Arrays by name.
    """
    text = json.dumps({"version": version, **header}, sort_keys=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {kind: text})


def read_tensor_file(path: str | Path, kind: str) -> tuple[dict[str, Any], Arrays]:
    """Return header and arrays of a file written from `tensor_bytes`.

    Raises
    ------
    OSError
        If the file cannot be read.
    DamagedTensorFileError
        If the file is damaged or of another kind.
    """
    try:
        with safe_open(str(path), framework="np") as store:
            header = json.loads((store.metadata() or {})[kind])
            arrays = {name: store.get_tensor(name) for name in store.keys()}  # noqa: SIM118
        if not isinstance(header, dict) or "version" not in header:
            raise DamagedTensorFileError(f"{path} has no {kind} header.")
    except (SafetensorError, KeyError, ValueError, TypeError) as err:
        raise DamagedTensorFileError(f"{path} is not a {kind} file.") from err
    return header, arrays
