"""Which encoder a file holds, and its hash, read without torch."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from napari_strata.errors import WeightsError
from napari_strata.filenames import WEIGHTS_SUFFIX, plain_name

SHIPPED = Path(__file__).parent / "shipped" / "strata-encoder.safetensors"
"""The weights that come with the package; see the model card beside them."""


def is_strata_encoder(path: Path) -> bool:
    """Return whether a file holds weights of Strata's own network.

    True for a .safetensors file that cannot be read, so that its reader names the
    fault.
    """
    if path.suffix.lower() != WEIGHTS_SUFFIX or path.is_dir():
        return False
    try:
        return _metadata(path).get("format", "").startswith("strata-encoder")
    except (SafetensorError, OSError):
        return True


def read_recipe(path: Path | None = None) -> dict[str, Any]:
    """Return the training recipe from the header of a weights file.

    Parameters
    ----------
    path : Path, optional
        Weights that `load_encoder` can load; the shipped ones if not given.

    Raises
    ------
    WeightsError
        If the header cannot be read.
    """
    source = path or SHIPPED
    try:
        recipe = json.loads(_metadata(source).get("recipe", "{}"))
    except (SafetensorError, OSError, ValueError) as err:
        raise WeightsError(
            f"The recipe in {source} cannot be read ({err}). Use weights made by"
            " `strata pretrain`."
        ) from err
    return recipe if isinstance(recipe, dict) else {}


def encoder_hash(path: Path | None = None) -> str:
    """Return the SHA-256 of what `open_encoder` reads, for sidecars and cases.

    For a network that a user brings it covers the description (or the bundle's config)
    and the weights.

    Raises
    ------
    WeightsError
        If a file is missing.
    """
    if path is None or is_strata_encoder(path):
        return weights_hash(path)
    from napari_strata.encoder.description import read_description  # imports MONAI

    try:
        files = tuple(
            (file, file.stat().st_size, file.stat().st_mtime_ns)
            for file in read_description(path).files
        )
    except OSError as err:
        raise WeightsError(
            f"Encoder weights not found at {err.filename}. Check what {path} says."
        ) from err
    return _hash_together(files)


def weights_hash(path: Path | None = None) -> str:
    """Return the SHA-256 of a weights file, for sidecars and cases.

    Parameters
    ----------
    path : Path, optional
        The shipped weights if not given.

    Raises
    ------
    WeightsError
        If it cannot be read.
    """
    source = path or SHIPPED
    try:
        now = source.stat()
        return _hash_of(source.absolute(), now.st_size, now.st_mtime_ns)
    except OSError as err:
        raise WeightsError(
            f"Encoder weights in {source} cannot be read ({err.strerror}). Check the"
            " name."
        ) from err


def _metadata(path: Path) -> dict[str, str]:
    with plain_name(path) as name, safe_open(name, framework="np") as store:
        return store.metadata() or {}


@lru_cache(maxsize=8)
def _hash_of(path: Path, size: int, changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=8)
def _hash_together(files: tuple[tuple[Path, int, int], ...]) -> str:
    each = [hashlib.sha256(file.read_bytes()).digest() for file, _, _ in files]
    return hashlib.sha256(b"".join(each)).hexdigest()
