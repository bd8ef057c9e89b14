"""One scan, from file to proposal: the data flow as code."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.cancellation import progress_scope
from napari_strata.errors import GeometryError, SettingsError
from napari_strata.settings import Device, ProposeSettings, RunSettings
from napari_strata.volume import Progress, Volume, no_progress

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal

logger = logging.getLogger(__name__)

_REPORTED = (
    "napari-strata",
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


@dataclass(slots=True)
class Stopwatch:
    """Seconds per stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)


def propose(
    volume: Volume,
    *,
    settings: ProposeSettings | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int = 0,
    weights: Path | None = None,
    on_progress: Progress = no_progress,
) -> Proposal:
    """Propose regions for a scan, with no labels, prompts or training.

    Parameters
    ----------
    volume : Volume
        The scan, from `read`.
    settings : ProposeSettings, optional
        Knobs; the defaults suit any scan.
    seed : int
        The same scan, settings, seed, kind of device and number of threads give the
        same labels.
    device : {"auto", "cpu", "cuda"}
        Where the encoder runs; "gmm-mrf" runs on the CPU.
    threads : int
        CPU threads; 0 takes every core.
    weights : Path, optional
        Another encoder than the shipped one: weights of ours (safetensors), the
        description of a MONAI network (.toml, .json) or a MONAI bundle's folder.
    on_progress : callable
        Called as (done, total, stage); raise `Cancelled` in it to stop.

    Returns
    -------
    Proposal
        Supervoxels, both trees and confidence.

    Raises
    ------
    GeometryError
        If the scan holds nothing but air, or values that are not finite.
    WeightsError
        If the weights cannot be used.
    SettingsError
        If a CUDA device is asked for and there is none, or weights are given to a
        method without an encoder.

    Examples
    --------
    >>> settings = strata.ProposeSettings(method="gmm-mrf")  # the default is "strata"
    >>> proposal = strata.propose(volume, settings=settings, seed=0)
    >>> tissues = proposal.tissues(4)
    >>> tissues.labels.shape, len(tissues.regions)
    ((24, 24, 24), 4)
    """
    if not np.isfinite(volume.data).all():
        raise GeometryError(
            f"{volume.name} holds NaN or infinite values. Read it with `strata.read`,"
            " or replace them (numpy.nan_to_num)."
        )
    chosen = settings or ProposeSettings()
    watch = Stopwatch()
    check_weights(chosen, weights)
    with progress_scope(on_progress) as report:
        if chosen.method == "gmm-mrf":
            proposal = _from_classes(
                volume, chosen, watch, seed=seed, threads=threads, on_progress=report
            )
        else:
            run = RunSettings(device=device, threads=threads, seed=seed)
            proposal = _from_features(
                volume, chosen, run, watch, weights=weights, on_progress=report
            )
    suggested = {
        "tissues": list(proposal.suggested("tissues")),
        "regions": list(proposal.suggested("regions")),
    }
    said = {**proposal.provenance, "suggested": suggested}
    how = {
        "settings": chosen.to_dict(),
        **said,
        "versions": versions(),
        "seconds": watch.seconds,
    }
    return replace(proposal, provenance=how)


def propose_with(
    volume: Volume,
    settings: ProposeSettings,
    run: RunSettings,
    *,
    weights: Path | None = None,
    on_progress: Progress = no_progress,
) -> Proposal:
    """Propose regions for a scan with settings as the command and the batch hold them.

    Parameters, result and errors are those of `propose`.
    """
    return propose(
        volume,
        settings=settings,
        seed=run.seed,
        device=run.device,
        threads=run.threads,
        weights=weights,
        on_progress=on_progress,
    )


def check_weights(settings: ProposeSettings, weights: Path | None) -> None:
    """Refuse weights where the method has no use for them.

    Raises
    ------
    SettingsError
        If weights are given to a method without an encoder.
    """
    if settings.method == "gmm-mrf" and weights is not None:
        raise SettingsError(
            f"gmm-mrf uses no encoder, but {weights} was given. Leave --encoder out, or"
            " take --method strata."
        )


def encoder_in_use(settings: ProposeSettings, weights: Path | None) -> str | None:
    """Give the hash of the encoder that `propose` would use, as its provenance keeps it.

    None for a method without one.

    Raises
    ------
    SettingsError
        If weights are given to a method without an encoder.
    WeightsError
        If the weights cannot be read.
    """
    check_weights(settings, weights)
    if settings.method == "gmm-mrf":
        return None
    from napari_strata.encoder.custom_network import encoder_hash

    return encoder_hash(weights)


def _from_features(
    volume: Volume,
    settings: ProposeSettings,
    run: RunSettings,
    watch: Stopwatch,
    *,
    weights: Path | None,
    on_progress: Progress,
) -> Proposal:
    """Propose with the encoder; the provenance says how it ran and with which weights."""
    from napari_strata.preprocess.intensity import encoder_intensity, filter_threads
    from napari_strata.proposal.supervoxels.prefetch import Prefetch

    with (
        filter_threads(run.threads),
        Prefetch(volume, settings, beside=run.threads != 1) as prefetch,
    ):
        # torch takes seconds to load, and so does finding the body
        with watch.stage("prepare"):
            on_progress(0, 1, "finding the body")
            from napari_strata.encoder.custom_network import (
                encoder_hash,
                encoder_record,
                open_encoder,
            )
            from napari_strata.encoder.embed import embed_intensity
            from napari_strata.encoder.network import pick_device, torch_threads
            from napari_strata.proposal.methods.learned import (
                ProposalInputs,
                build_proposal,
            )

            kind = pick_device(run.device).type
            encoder = open_encoder(weights)
            prepared = prefetch.prepared_scan(on_progress)
        with torch_threads(run.threads) as used_threads:
            with watch.stage("encode"):
                seen = encoder_intensity(
                    prepared.intensity, prepared.inside, volume.modality
                )
                features = embed_intensity(
                    seen,
                    prepared.grid,
                    encoder,
                    settings=settings,
                    device=run.device,
                    on_progress=on_progress,
                )
            with watch.stage("grow"):
                initial = prefetch.initial_segments(on_progress)
            with watch.stage("build"):
                proposal = build_proposal(
                    ProposalInputs(prepared, features),
                    settings,
                    seed=run.seed,
                    initial=initial,
                    on_progress=on_progress,
                )
    said = {
        "run": {"seed": run.seed, "device": kind, "threads": used_threads},
        "working_spacing_zyx_mm": [
            round(s / prepared.magnification, 4 + _decimals(prepared.magnification))
            for s in prepared.grid.spacing_zyx_mm
        ],
        "weights_sha256": encoder_hash(weights),
        "encoder": encoder_record(encoder),
    }
    return _at_true_size(proposal, volume, prepared.magnification, said)


def _from_classes(
    volume: Volume,
    settings: ProposeSettings,
    watch: Stopwatch,
    *,
    seed: int,
    threads: int,
    on_progress: Progress,
) -> Proposal:
    """Propose from brightness alone, without loading torch; the weights' hash is None then."""
    from napari_strata.preprocess.body import body_mask, magnified
    from napari_strata.preprocess.intensity import filter_threads, prepare_intensity
    from napari_strata.proposal.methods.gmm_mrf import propose_classes

    on_progress(0, 1, "finding the body")
    with filter_threads(threads):
        with watch.stage("prepare"):
            inside = body_mask(volume)
            seen, times = magnified(volume, inside)
            intensity = prepare_intensity(seen, inside, settings)
        with watch.stage("build"):
            proposal = propose_classes(
                seen, inside, intensity, settings, seed=seed, on_progress=on_progress
            )
    said = {
        "run": {"seed": seed, "device": "cpu", "threads": threads or os.cpu_count()},
        "working_spacing_zyx_mm": [
            round(float(s), 4 + _decimals(times)) for s in volume.spacing_zyx_mm
        ],
        "weights_sha256": None,
        "encoder": {"network": "none"},
    }
    return _at_true_size(proposal, volume, times, {**said, **proposal.provenance})


def _at_true_size(
    proposal: Proposal, volume: Volume, times: float, provenance: dict[str, Any]
) -> Proposal:
    """Return a proposal with the scan as it was read, where a small body was magnified.

    The provenance tells of it.
    """
    if times == 1.0:
        return replace(proposal, provenance=provenance)
    scale = (
        None
        if proposal.descriptor_scale is None
        else np.array(proposal.descriptor_scale)
    )
    if scale is not None:
        places = [name.startswith("position ") for name in proposal.descriptor_names]
        scale[:, places] /= np.float32(times)
    return replace(
        proposal,
        volume=volume,
        descriptor_scale=scale,
        provenance={**provenance, "magnification": round(times, 6)},
    )


def _decimals(times: float) -> int:
    """Return how many more decimals a length has that was magnified so many times."""
    return max(0, int(np.ceil(np.log10(times))))


def versions() -> dict[str, str]:
    """Give the versions that can change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
