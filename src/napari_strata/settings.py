"""Settings: default, unit, limits and help of each, in one place.

The command line's flags, the TOML file and napari's form are made from these
dataclasses, so a default lives in one place only. The metadata keys are the ones that
magicgui reads.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from napari_strata.errors import SettingsError
from napari_strata.method_names import MethodName as MethodName

Device = Literal["auto", "cpu", "cuda", "mps"]
RuntimeName = Literal["auto", "openvino", "torch"]
DicomSegments = Literal["binary", "labelmap"]
MeshSpace = Literal["LPS", "RAS"]
Matching = Literal["ids", "overlap"]


def _setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    multiple_of: int | None = None,
    names: bool = False,
    unit: str = "",
) -> Any:
    metadata: dict[str, Any] = {"description": description, "unit": unit}
    if minimum is not None:
        metadata["minimum"] = minimum
    if maximum is not None:
        metadata["maximum"] = maximum
    if multiple_of is not None:
        metadata["multiple_of"] = multiple_of
    if names:
        metadata["names"] = True
    return field(default=default, metadata=metadata)


class _Checked:
    """Limit checks and TOML for a settings dataclass."""

    __slots__ = ()

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for setting in fields(self):  # type: ignore[arg-type]
            _check(
                setting.name,
                getattr(self, setting.name),
                hints[setting.name],
                dict(setting.metadata),
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for sidecars and TOML."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return settings from plain values.

        Raises
        ------
        SettingsError
            If a name is not known or a value is outside its limits.
        """
        known = {setting.name for setting in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise SettingsError(
                f"Unknown setting {', '.join(unknown)}. Known:"
                f" {', '.join(sorted(known))}."
            )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path, table: str) -> Self:
        """Read settings from one table of a TOML file; without the table, the defaults.

        Raises
        ------
        SettingsError
            If the file cannot be read or holds an unknown or bad value.
        """
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
            raise SettingsError(
                f"Cannot read settings from {path}: {err}. Check the path and the TOML"
                " syntax."
            ) from err
        values = document.get(table, {})
        if not isinstance(values, dict):
            raise SettingsError(
                f"In {path}, {table} is not a table. Write [{table}] with one setting"
                " per line under it."
            )
        return cls.from_dict(values)


def _check(name: str, value: Any, hint: Any, limits: dict[str, Any]) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise SettingsError(
                f"{name} is {value!r}; choose one of"
                f" {', '.join(map(repr, get_args(hint)))}."
            )
        return
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SettingsError(f"{name} is {value!r}; it must be of type {hint.__name__}.")
    low, high = limits.get("minimum"), limits.get("maximum")
    if hint in (int, float) and not (
        (low is None or value >= low) and (high is None or value <= high)
    ):
        raise SettingsError(
            f"{name} is {value}; it must lie between {low} and {high}"
            f" {limits.get('unit', '')}".rstrip()
            + "."
        )
    multiple = limits.get("multiple_of")
    if multiple is not None and value % multiple:
        raise SettingsError(f"{name} is {value}; it must be a multiple of {multiple}.")


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in a text, separated by commas or spaces."""
    return tuple(text.replace(",", " ").split())


@dataclass(frozen=True, slots=True)
class RunSettings(_Checked):
    """Where and how work runs; changes speed, not meaning."""

    device: Device = _setting(
        "auto", "Where the encoder runs; auto takes a CUDA GPU when there is one"
    )
    runtime: RuntimeName = _setting(
        "auto",
        "What runs the encoder; auto takes OpenVINO on a CPU where it is installed and"
        " the encoder is exported for it, else torch",
    )
    threads: int = _setting(
        0, "CPU threads; 0 takes every core", minimum=0, maximum=256
    )
    seed: int = _setting(0, "Seed of every random choice", minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True, slots=True)
class ProposeSettings(_Checked):
    """How a proposal is made.

    Examples
    --------
    >>> settings = strata.ProposeSettings(working_spacing_mm=1.5, supervoxels=20000)
    >>> settings.method, settings.working_spacing_mm
    ('strata', 1.5)
    >>> strata.ProposeSettings(supervoxels=5)
    Traceback (most recent call last):
    ...
    napari_strata.errors.SettingsError: supervoxels is 5; it must lie between 100 ...
    """

    method: MethodName = _setting(
        "strata",
        "Features of the learned encoder (strata), or a Gaussian mixture of intensities"
        " with a Markov random field and no encoder (gmm-mrf)",
    )
    working_spacing_mm: float = _setting(
        1.0,
        "Smallest voxel size for the encoder; finer scans are averaged down to it",
        minimum=0.3,
        maximum=10.0,
        unit="mm",
    )
    working_mvox: float = _setting(
        6.0,
        "Largest number of voxels (in millions) in the body's bounding box for the"
        " encoder; larger boxes are resampled coarser",
        minimum=0.1,
        maximum=1000.0,
    )
    memory_gb: float = _setting(
        2.0,
        "Memory for the encoder's layers, without its features; larger scans run in"
        " tiles",
        minimum=0.5,
        maximum=512.0,
        unit="GB",
    )
    flatten_bias: Literal["on", "off"] = _setting(
        "on",
        "Correct the bias field of MR scans (N4), before anything else",
    )
    supervoxels: int = _setting(
        48000,
        "Target number of supervoxels in the body; small bodies get fewer",
        minimum=100,
        maximum=200000,
    )
    mixture_classes: int = _setting(
        16,
        "Largest number of classes of the Gaussian mixture, with the method gmm-mrf",
        minimum=1,
        maximum=64,
    )
    feature_weight: float = _setting(
        1.0,
        "Weight of learned features, relative to intensity",
        minimum=0.0,
        maximum=10.0,
    )
    position_weight: float = _setting(
        0.3,
        "Weight of position in the tree of connected regions",
        minimum=0.0,
        maximum=10.0,
    )


@dataclass(frozen=True, slots=True)
class BatchSettings(_Checked):
    """How many scans of a batch run at once, and where; changes speed, not results."""

    workers: int = _setting(
        0,
        "Scans at once; 0 takes as many as cores and memory allow, 1 runs in this"
        " process without Dask",
        minimum=0,
        maximum=4096,
    )
    budget_gb: float = _setting(
        0.0,
        "Memory for all scans at work together; 0 takes nine tenths of the machine's,"
        " or on a cluster what each worker has",
        minimum=0.0,
        maximum=1e6,
        unit="GB",
    )
    scheduler: str = _setting(
        "",
        "Address of a running Dask scheduler, such as tcp://host:8786; empty starts"
        " workers on this machine",
    )
    cluster: str = _setting(
        "",
        "Class of a cluster to start with your Dask configuration, such as"
        " dask_jobqueue.SLURMCluster",
    )
    attempts: int = _setting(
        2,
        "Number of workers that may die on one scan before the scan counts as failed",
        minimum=1,
        maximum=100,
    )


@dataclass(frozen=True, slots=True)
class ServeSettings(_Checked):
    """Where the server listens, and how much it holds at once."""

    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; any other than this machine's own needs a token",
    )
    port: int = _setting(
        8000, "Port to listen on; 0 takes a free one", minimum=0, maximum=65535
    )
    max_upload_mb: int = _setting(
        2048,
        "Largest request that is accepted",
        minimum=1,
        maximum=1_000_000,
        unit="MB",
    )
    max_scan_mvox: float = _setting(
        600.0,
        "Largest scan that is accepted, in millions of voxels",
        minimum=0.001,
        maximum=100_000.0,
    )
    max_sessions: int = _setting(
        16,
        "Scans that clients may have on the server at once; one that was idle for ten"
        " minutes makes room",
        minimum=1,
        maximum=10_000,
    )
    session_minutes: float = _setting(
        60.0,
        "Time after its last use at which a scan is removed",
        minimum=0.01,
        maximum=100_000.0,
        unit="min",
    )
    max_waiting: int = _setting(
        8,
        "Requests for labels that may wait; one proposal is made at a time",
        minimum=1,
        maximum=1000,
    )
    proposals_in_memory: int = _setting(
        4,
        "Proposals that stay in memory; those of other scans are read from the disk",
        minimum=1,
        maximum=1000,
    )


@dataclass(frozen=True, slots=True)
class PretrainSettings(_Checked):
    """How an encoder is pretrained.

    Before you change a default, write its old value into `RECIPES`: a recipe must stay
    what made its weights.
    """

    network: Literal["light", "basic", "segresnet"] = _setting(
        "basic", "Architecture of the network"
    )
    width: int = _setting(16, "Channels of the finest level", minimum=4, maximum=64)
    channels: int = _setting(
        12,
        "Unit-length feature channels at each of four levels",
        minimum=2,
        maximum=64,
    )
    steps: int = _setting(4000, "Optimiser steps", minimum=1, maximum=10_000_000)
    batch: int = _setting(2, "Synthetic anatomies per step", minimum=1, maximum=256)
    views: int = _setting(2, "Renderings of each anatomy", minimum=1, maximum=4)
    patch_vox: int = _setting(
        64,
        "Side of a patch, a multiple of 16",
        minimum=16,
        maximum=256,
        multiple_of=16,
        unit="voxels",
    )
    bootstrapped_share: float = _setting(
        0.0,
        "Share of patches that are cut from real scans, with their own proposed regions"
        " as labels; needs scans",
        minimum=0.0,
        maximum=1.0,
    )
    without: str = _setting(
        "",
        "Families, contrasts or artefacts to leave out, separated by commas or spaces",
        names=True,
    )
    voxels_per_patch: int = _setting(
        512,
        "Voxels in the contrastive loss, per patch and label set",
        minimum=32,
        maximum=8192,
    )
    temperature: float = _setting(
        0.15, "Temperature of the contrastive loss", minimum=0.01, maximum=2.0
    )
    contrast_levels: Literal["four", "finest"] = _setting(
        "four", "Levels with a contrastive loss"
    )
    coarse_labels: Literal["structure", "tissue", "compartment"] = _setting(
        "structure",
        "Labels for the contrastive loss of the two coarse levels; the fine ones use tissues",
    )
    contrast_weight: float = _setting(
        1.0, "Weight of the contrastive loss between voxels", minimum=0.0, maximum=10.0
    )
    agreement_weight: float = _setting(
        0.5,
        "Weight of the agreement loss between two views of the same appearance",
        minimum=0.0,
        maximum=10.0,
    )
    prototype_weight: float = _setting(
        0.0,
        "Weight of finding a voxel's tissue among prototypes that all patches of a named"
        " contrast share",
        minimum=0.0,
        maximum=100.0,
    )
    region_weight: float = _setting(
        0.0,
        "Weight of finding the regions of one view again in another by their mean feature",
        minimum=0.0,
        maximum=100.0,
    )
    masked_share: float = _setting(
        0.15,
        "Share of 8-voxel blocks that are masked for inpainting",
        minimum=0.0,
        maximum=0.9,
    )
    inpaint_weight: float = _setting(
        0.5, "Weight of the inpainting loss", minimum=0.0, maximum=10.0
    )
    next_slice_weight: float = _setting(
        0.25,
        "Weight of the loss of predicting the slices after the last one seen",
        minimum=0.0,
        maximum=10.0,
    )
    next_slice_share: float = _setting(
        0.15,
        "Share of the images in which all slices after one are hidden and predicted",
        minimum=0.0,
        maximum=1.0,
    )
    learning_rate: float = _setting(
        2e-3, "Peak learning rate of AdamW", minimum=1e-6, maximum=1.0
    )
    checkpoint_minutes: float = _setting(
        2.0, "Time between checkpoints", minimum=0.1, maximum=1440.0, unit="min"
    )
    seed: int = _setting(0, "Seed of weights and scans", minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True, slots=True)
class AdaptSettings(_Checked):
    """How the encoder is adapted to unlabelled scans."""

    minutes: float = _setting(
        2.0,
        "Time for the whole adaptation, without reading the scans",
        minimum=0.05,
        maximum=1440.0,
        unit="min",
    )
    steps: int = _setting(
        80,
        "Largest number of training steps; the time limit may end them earlier",
        minimum=0,
        maximum=100_000,
    )
    batch: int = _setting(2, "Synthetic patches per step", minimum=1, maximum=64)
    learning_rate: float = _setting(
        1e-3, "Peak learning rate of AdamW", minimum=1e-6, maximum=0.1
    )
    patch_vox: int = _setting(
        48,
        "Side of a patch, a multiple of 16",
        minimum=16,
        maximum=256,
        multiple_of=16,
        unit="voxels",
    )
    statistics_batches: int = _setting(
        24,
        "Pairs of patches for the statistics of batch normalisation",
        minimum=2,
        maximum=1000,
    )
    statistics_share: float = _setting(
        0.5,
        "Weight of the scans' statistics, relative to those of the pretraining",
        minimum=0.0,
        maximum=1.0,
    )
    steps_share: float = _setting(
        0.5,
        "Share of the way from the old weights to the trained ones",
        minimum=0.0,
        maximum=1.0,
    )
    real_weight: float = _setting(
        0.5,
        "Weight of the losses on the scans, relative to those on synthetic patches",
        minimum=0.0,
        maximum=10.0,
    )
    most_fall: float = _setting(
        0.01,
        "Largest fall of a probe's score that is accepted",
        minimum=0.0,
        maximum=1.0,
    )
    least_gain: float = _setting(
        0.01,
        "Smallest gain for which new weights are written",
        minimum=-1.0,
        maximum=1.0,
    )
    seed: int = _setting(
        0, "Seed of patches and synthetic scans", minimum=0, maximum=2**31 - 1
    )


@dataclass(frozen=True, slots=True)
class ExportSettings(_Checked):
    """How meshes, DICOM SEG and tables are written."""

    mesh_space: MeshSpace = _setting(
        "LPS",
        "Axes of mesh coordinates (mm); DICOM, ITK and 3D Slicer use LPS",
    )
    mesh_smooth_vox: float = _setting(
        0.7,
        "Standard deviation of the Gaussian that smooths meshes; volumes are kept",
        minimum=0.0,
        maximum=3.0,
        unit="voxels",
    )
    dicom_segments: DicomSegments = _setting(
        "binary",
        "DICOM SEG as one bit mask per segment, which every viewer reads, or as a label"
        " map (DICOM 2024)",
    )
    match: Matching = _setting(
        "ids",
        "With a reference: compare regions with equal numbers (ids), or first join the"
        " regions that overlap most with the same reference label (overlap)",
    )
    tolerance_mm: float = _setting(
        2.0,
        "With a reference: distance up to which two surfaces count as the same",
        minimum=0.0,
        maximum=100.0,
        unit="mm",
    )


RECIPES = {"v1": PretrainSettings(batch=4, views=1, agreement_weight=0.0, steps=1670)}
"""Recipes by name; "v1" made the shipped weights, and a test compares it with them."""
