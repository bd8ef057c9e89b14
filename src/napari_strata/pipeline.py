"""Pipeline from a scan to its proposal."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from napari_strata.cancellation import progress_scope
from napari_strata.errors import GeometryError, SettingsError
from napari_strata.parallel import worker_threads
from napari_strata.proposal.methods.base import MethodInputs, MethodResult
from napari_strata.proposal.methods.registry import find_method, method_names
from napari_strata.proposal.proposal import Proposal
from napari_strata.settings import Device, ProposeSettings, RunSettings, RuntimeName
from napari_strata.volume import Progress, Volume, no_progress

logger = logging.getLogger(__name__)

_REPORTED_PACKAGES = (
    "napari-strata",
    "openvino",
    "torch",
    "monai",
    "numpy",
    "scipy",
    "SimpleITK",
    "nibabel",
    "higra",
    "scikit-learn",
    "napari",
)
"""Packages whose versions the provenance records."""


@dataclass(slots=True)
class Stopwatch:
    """Seconds taken by each stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def propose(
    volume: Volume,
    *,
    settings: ProposeSettings | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int = 0,
    weights: Path | None = None,
    runtime: RuntimeName = "auto",
    on_progress: Progress = no_progress,
) -> Proposal:
    """Propose regions for a scan, with no labels, prompts or training.

    Parameters
    ----------
    volume : Volume
        The scan, from `read`.
    settings : ProposeSettings, optional
        Settings of the proposal; the defaults suit any scan.
    seed : int
        The same scan, settings, seed, kind of device and number of threads give the
        same labels.
    device : {"auto", "cpu", "cuda", "mps"}
        Device of the encoder; methods without an encoder run on the CPU.
    threads : int
        CPU threads; 0 takes every core.
    weights : Path, optional
        Encoder to use instead of the shipped one: weights of Strata's network
        (.safetensors), the description of a MONAI network (.toml, .json) or the folder
        of a MONAI bundle.
    runtime : {"auto", "openvino", "torch"}
        What runs the encoder. "auto" takes OpenVINO on a CPU where it is installed and
        the encoder has been exported for it (the shipped one has), else torch.
    on_progress : callable
        Called as (done, total, stage); raise `Cancelled` in it to stop.

    Returns
    -------
    Proposal
        Supervoxels, both trees and confidence.

    Raises
    ------
    GeometryError
        If the scan contains only air, or values that are not finite.
    WeightsError
        If the weights cannot be used.
    SettingsError
        If a CUDA device is requested and there is none, or weights are given to a
        method without an encoder.

    Examples
    --------
    >>> settings = strata.ProposeSettings(method="gmm-mrf")  # the default is "strata"
    >>> proposal = strata.propose(volume, settings=settings, seed=0)
    >>> tissues = proposal.tissues(4)
    >>> tissues.labels.shape, len(tissues.regions)
    ((24, 24, 24), 4)
    """
    run = RunSettings(device=device, threads=threads, seed=seed, runtime=runtime)
    return propose_with(
        volume,
        settings or ProposeSettings(),
        run,
        weights=weights,
        on_progress=on_progress,
    )


def propose_with(
    volume: Volume,
    settings: ProposeSettings,
    run: RunSettings,
    *,
    weights: Path | None = None,
    on_progress: Progress = no_progress,
) -> Proposal:
    """Propose regions as `propose` does, with device, threads and seed in one object.

    Parameters, result and errors are those of `propose`.
    """
    if not np.isfinite(volume.data).all():
        raise GeometryError(
            f"{volume.name} holds NaN or infinite values. Read it with `strata.read`,"
            " or replace them (numpy.nan_to_num)."
        )
    check_weights(settings, weights)
    watch = Stopwatch()
    with progress_scope(on_progress) as report, worker_threads(run.threads):
        result = find_method(settings.method).propose(
            MethodInputs(volume, settings, run, weights, report, watch.stage)
        )
    proposal = _at_true_size(result, volume, seed=run.seed)
    provenance = {
        "settings": settings.to_dict(),
        **proposal.provenance,
        "suggested": {
            "tissues": list(proposal.suggested("tissues")),
            "regions": list(proposal.suggested("regions")),
        },
        "versions": versions(),
        "seconds": watch.seconds,
    }
    return replace(proposal, provenance=provenance)


def check_weights(settings: ProposeSettings, weights: Path | None) -> None:
    """Check that weights are only given to a method with an encoder.

    Raises
    ------
    SettingsError
        If weights are given to a method without an encoder.
    """
    if weights is not None and not find_method(settings.method).needs_encoder:
        raise SettingsError(
            f"{settings.method} uses no encoder, but {weights} was given. Leave --encoder"
            f" out, or take --method {method_names(needs_encoder=True)}."
        )


def encoder_in_use(settings: ProposeSettings, weights: Path | None) -> str | None:
    """Return the hash of the encoder that `propose` would use, as in the provenance.

    None for a method without an encoder.

    Raises
    ------
    SettingsError
        If weights are given to a method without an encoder.
    WeightsError
        If the weights cannot be read.
    """
    check_weights(settings, weights)
    if not find_method(settings.method).needs_encoder:
        return None
    from napari_strata.encoder.identity import encoder_hash

    return encoder_hash(weights)


def _at_true_size(result: MethodResult, volume: Volume, *, seed: int) -> Proposal:
    """Return the proposal on the scan as it was read, with the run in its provenance.

    A small body is magnified before it is clustered. The provenance then holds the
    magnification, and the positions among the descriptors are scaled back.
    """
    times = result.magnification
    proposal = result.proposal
    provenance = {
        "run": {
            "seed": seed,
            "device": result.device,
            "threads": result.threads,
        },
        "working_spacing_zyx_mm": [
            round(spacing, 4 + _extra_decimals(times))
            for spacing in result.spacing_zyx_mm
        ],
        "weights_sha256": result.weights_sha256,
        "encoder": result.encoder,
        **proposal.provenance,
    }
    if times == 1.0:
        return replace(proposal, provenance=provenance)
    scale = proposal.descriptor_scale
    if scale is not None:
        scale = np.array(scale)
        positions = [name.startswith("position ") for name in proposal.descriptor_names]
        scale[:, positions] /= np.float32(times)
    return replace(
        proposal,
        volume=volume,
        descriptor_scale=scale,
        provenance={**provenance, "magnification": round(times, 6)},
    )


def _extra_decimals(times: float) -> int:
    """Return the decimals that a magnified length gains when it is scaled back."""
    return max(0, int(np.ceil(np.log10(times))))


def versions() -> dict[str, str]:
    """Return the versions of the software that can change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
