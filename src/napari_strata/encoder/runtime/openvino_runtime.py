"""Run an exported encoder with OpenVINO on the CPU, without torch."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.encoder.memory import release_memory
from napari_strata.errors import WeightsError
from napari_strata.machine import core_count

FORMAT = "strata-encoder-openvino-1"
"""Format name in the metadata of every exported model."""
METADATA = "strata"
"""Entry of a model that holds its description."""
_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()
_CHECK_EVERY_MS = 100
"""Time between two checks for cancellation."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Metadata of an exported encoder.

    Parameters
    ----------
    weights_sha256 : str
        Hash of the weights file that the model was exported from.
    strides, channels, multiple_of, halo_vox, live_channels
        As in `Runtime`.
    """

    weights_sha256: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    multiple_of: int
    halo_vox: int
    live_channels: int

    def to_json(self) -> str:
        """Return the metadata as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> ModelDescription:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is of another format.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT}")
        try:
            return cls(
                str(values["weights_sha256"]),
                tuple(values["strides"]),
                tuple(values["channels"]),
                int(values["multiple_of"]),
                int(values["halo_vox"]),
                int(values["live_channels"]),
            )
        except (KeyError, TypeError) as err:
            raise ValueError("its metadata are of another version") from err


def has_openvino() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return "openvino" in sys.modules or importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """Import OpenVINO with its telemetry package hidden, so that none is sent.

    Raises
    ------
    ImportError
        If OpenVINO is not installed, or its libraries cannot be loaded.
    """
    with _importing:
        if "openvino" not in sys.modules:
            with _hidden(_TELEMETRY):
                return importlib.import_module("openvino")
    return importlib.import_module("openvino")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make an import of a package fail inside the block."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(package, None)
        if before is not None:
            sys.modules[package] = before


def read_description(path: Path) -> ModelDescription:
    """Read the metadata of an exported encoder.

    Parameters
    ----------
    path : Path
        The .xml file; its .bin lies beside it.

    Raises
    ------
    WeightsError
        If the model cannot be read or was not exported by Strata.
    """
    return _read_model(path)[1]


def _read_model(path: Path) -> tuple[Any, ModelDescription]:
    try:
        at = path.stat()
        weights = path.with_suffix(".bin").stat()
    except OSError as err:
        raise WeightsError(
            f"The OpenVINO model {path} cannot be read ({err.strerror}). Export it again"
            " with `strata export-encoder`, or use --runtime torch."
        ) from err
    return _read_once(path, at.st_mtime_ns, weights.st_mtime_ns, weights.st_size)


@lru_cache(maxsize=2)
def _read_once(
    path: Path, _changed: int, _weights_changed: int, _size: int
) -> tuple[Any, ModelDescription]:
    openvino = import_openvino()
    try:
        core = openvino.Core()
        # a file that is mapped into memory cannot be replaced on Windows
        core.set_property({"ENABLE_MMAP": False})
        model = core.read_model(str(path))
        text = model.get_rt_info([METADATA]).astype(str)
        return model, ModelDescription.from_json(text)
    except (RuntimeError, ValueError) as err:
        raise WeightsError(
            f"The OpenVINO model {path} cannot be used ({' '.join(str(err).split())[:200]})."
            " Export it again with `strata export-encoder`, or use --runtime torch."
        ) from err


class OpenVinoRuntime:
    """An exported encoder that runs on the CPU in float32.

    Parameters
    ----------
    path : Path
        The .xml file.
    threads : int
        CPU threads; 0 takes every core that this process may use.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self._model, description = _read_model(path)
        self.weights_sha256 = description.weights_sha256
        self.strides = description.strides
        self.channels = description.channels
        self.multiple_of = description.multiple_of
        self.halo_vox = description.halo_vox
        self.live_channels = description.live_channels
        self.threads = threads or core_count()

    @property
    def record(self) -> dict[str, Any]:
        """Network and runtime, as plain values for a sidecar."""
        return {
            "network": "strata",
            "strides": list(self.strides),
            "runtime": self.name,
        }

    def encode(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the feature maps of (z, y, x); see `Runtime.encode`."""
        openvino = import_openvino()
        z, y, x = image.shape
        model = self._model.clone()
        model.reshape([1, 1, z, y, x])
        request = (
            openvino.Core()
            .compile_model(model, "CPU", self._properties())
            .create_infer_request()
        )
        tile = np.ascontiguousarray(image, np.float32)[None, None]
        request.set_input_tensor(openvino.Tensor(tile, shared_memory=True))
        request.start_async()
        try:
            while not request.wait_for(_CHECK_EVERY_MS):
                raise_if_cancelled()
        except BaseException:
            request.cancel()
            with suppress(RuntimeError):  # raised for a cancelled request
                request.wait()
            raise
        # views: OpenVINO is slower where it has to write into arrays of ours
        maps = tuple(
            request.get_output_tensor(number).data[0]
            for number in range(len(self.strides))
        )
        del request, model
        release_memory()
        return maps

    def _properties(self) -> dict[str, Any]:
        return {
            # bfloat16, where a processor has it, would give other labels
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # pinned threads would fight with the other threads of a proposal
            "ENABLE_CPU_PINNING": False,
        }
