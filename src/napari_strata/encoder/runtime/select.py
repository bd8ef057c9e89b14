"""Choose the runtime of an encoder by what is asked for and what is installed."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import sys
from pathlib import Path

from napari_strata.encoder.identity import SHIPPED, is_strata_encoder, weights_hash
from napari_strata.encoder.runtime.base import Runtime
from napari_strata.encoder.runtime.openvino_runtime import (
    OpenVinoRuntime,
    has_openvino,
    read_description,
)
from napari_strata.errors import SettingsError, WeightsError

logger = logging.getLogger(__name__)


def open_runtime(
    weights: Path | None = None,
    *,
    runtime: str = "auto",
    device: str = "auto",
    threads: int = 0,
) -> Runtime:
    """Open an encoder in the runtime that suits it.

    Parameters
    ----------
    weights : Path, optional
        The shipped encoder if not given; see `open_encoder`.
    runtime : {"auto", "openvino", "torch"}
        "auto" takes OpenVINO on a CPU where it is installed and the weights have been
        exported for it (the shipped ones are), else torch.
    device : {"auto", "cpu", "cuda", "mps"}
        "auto" takes a CUDA GPU when there is one and torch can use it.
    threads : int
        CPU threads; 0 takes every core.

    Raises
    ------
    SettingsError
        If the device or the runtime is not there, or they do not fit together.
    WeightsError
        If the weights cannot be used.
    """
    if uses_openvino(weights, runtime=runtime, device=device):
        return OpenVinoRuntime(exported_model(weights), threads=threads)
    if weights is not None and not weights.exists():
        raise WeightsError(
            f"Encoder weights: there is no {weights}. Check the name that was given."
        )
    _require_torch(weights)
    from napari_strata.encoder.custom_network import open_encoder
    from napari_strata.encoder.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(open_encoder(weights), device=device, threads=threads)


def uses_openvino(
    weights: Path | None = None, *, runtime: str = "auto", device: str = "auto"
) -> bool:
    """Return whether `open_runtime` would take OpenVINO.

    Raises
    ------
    SettingsError
        If OpenVINO is asked for and cannot be used.
    """
    if runtime == "torch":
        return False
    if runtime == "openvino":
        _check_openvino(weights, device)
        return True
    return (
        device in ("auto", "cpu")
        and has_openvino()
        and _can_run_exported(weights)
        and not (device == "auto" and _torch_has_cuda())
    )


def device_in_use(
    weights: Path | None = None, *, runtime: str = "auto", device: str = "auto"
) -> str:
    """Return the kind of device that `open_runtime` would take: "cpu", "cuda" or "mps".

    Raises
    ------
    SettingsError
        If the device is not there.
    """
    if uses_openvino(weights, runtime=runtime, device=device):
        return "cpu"
    _require_torch(weights)
    from napari_strata.encoder.network import pick_device

    return pick_device(device).type


def exported_model(weights: Path | None) -> Path:
    """Return where the OpenVINO model of a weights file lies: beside it, as .xml."""
    return (weights or SHIPPED).with_suffix(".xml")


def _require_torch(weights: Path | None) -> None:
    """Check that torch is installed.

    Raises
    ------
    SettingsError
        If it is not.
    """
    if importlib.util.find_spec("torch") is not None:
        return
    if not has_openvino():
        raise SettingsError(
            "Neither OpenVINO nor torch is installed, and one of them has to run the"
            " encoder. Install OpenVINO (pip install openvino), or use --method gmm-mrf."
        )
    own = "" if weights is None else f", or export {weights} where torch is installed"
    raise SettingsError(
        "This needs torch and MONAI, which are not installed: OpenVINO runs the encoder"
        " that ships, and weights exported with `strata export-encoder`, on the CPU."
        f" Install them (pip install torch monai){own}."
    )


def _is_exported(weights: Path | None) -> bool:
    """Return whether a model lies beside the weights and was exported from them.

    Raises
    ------
    WeightsError, ImportError
        If the model, or OpenVINO itself, cannot be loaded.
    """
    model = exported_model(weights)
    if not model.is_file() or (weights is not None and not is_strata_encoder(weights)):
        return False
    if read_description(model).weights_sha256 == weights_hash(weights):
        return True
    logger.warning(
        "%s has changed since it was exported to OpenVINO. Run `strata export-encoder`"
        " on it again; torch runs it until then.",
        weights or SHIPPED,
    )
    return False


def _can_run_exported(weights: Path | None) -> bool:
    try:
        return _is_exported(weights)
    except (WeightsError, ImportError) as err:
        logger.warning("OpenVINO is not used: %s", err)
        return False


def _check_openvino(weights: Path | None, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise SettingsError(
            f"OpenVINO runs on the CPU, not on {device}. Use --runtime torch for it."
        )
    if not has_openvino():
        raise SettingsError(
            "OpenVINO is not installed. Install it (pip install openvino), or use"
            " --runtime torch."
        )
    try:
        is_exported = _is_exported(weights)
    except ImportError as err:
        raise SettingsError(
            f"OpenVINO cannot be loaded ({err}). Install it again, or use --runtime"
            " torch."
        ) from err
    if not is_exported:
        raise SettingsError(
            f"{weights or SHIPPED} has not been exported for OpenVINO, or has changed"
            " since. Run `strata export-encoder` on it, or use --runtime torch."
        )


def _torch_has_cuda() -> bool:
    """Return whether torch can use a CUDA GPU; torch is imported only if there is one."""
    if importlib.util.find_spec("torch") is None or not _driver_counts_devices():
        return False
    import torch

    return torch.cuda.is_available()


def _driver_counts_devices() -> bool:
    """Ask NVIDIA's driver for the number of its devices, without torch."""
    try:
        driver = ctypes.CDLL(
            "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        )
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
