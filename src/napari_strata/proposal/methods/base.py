"""Interface that every clustering method implements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from napari_strata.proposal.proposal import Proposal
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Progress, Volume, no_progress

Stage = Callable[[str], AbstractContextManager[None]]
"""Return a context manager that times the named stage."""


def untimed(name: str) -> AbstractContextManager[None]:
    """Return a context manager that times nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True, eq=False)
class MethodInputs:
    """Inputs of a clustering method.

    Parameters
    ----------
    volume : Volume
        The scan, with finite values only.
    settings : ProposeSettings
        Settings of the proposal.
    run : RunSettings
        Device, threads and seed.
    weights : Path or None
        Encoder to use instead of the shipped one; always None for a method without an
        encoder.
    on_progress : callable
        Called as (done, total, stage); raises `Cancelled` to stop.
    stage : callable
        Called with a stage's name; returns the context manager that times the stage.
    """

    volume: Volume
    settings: ProposeSettings
    run: RunSettings
    weights: Path | None = None
    on_progress: Progress = no_progress
    stage: Stage = untimed


@dataclass(frozen=True, slots=True, eq=False)
class MethodResult:
    """Result of a clustering method.

    Parameters
    ----------
    proposal : Proposal
        Supervoxels, both trees and the confidence, which each method estimates in its
        own way. The provenance holds only what is specific to the method.
    device : str
        Kind of device that was used, for example "cpu".
    threads : int or None
        CPU threads that were used.
    spacing_zyx_mm : sequence of float
        Voxel size of the working grid in mm, at the scan's true size.
    magnification : float
        Factor by which a small body was magnified; 1.0 for most scans. The proposal is
        still at the magnified size.
    weights_sha256 : str or None
        Hash of the encoder's weights; None for a method without an encoder.
    encoder : dict
        Description of the encoder, for the provenance.
    """

    proposal: Proposal
    device: str
    threads: int | None
    spacing_zyx_mm: Sequence[float]
    magnification: float = 1.0
    weights_sha256: str | None = None
    encoder: dict[str, Any] = field(default_factory=lambda: {"network": "none"})


class ClusteringMethod(Protocol):
    """Method that turns a scan into a proposal."""

    @property
    def name(self) -> str:
        """Name in settings, on the command line and in provenance."""

    @property
    def needs_encoder(self) -> bool:
        """Whether the method uses the encoder, and so torch, a device and weights."""

    def propose(self, inputs: MethodInputs) -> MethodResult:
        """Propose regions for a scan.

        Raises
        ------
        GeometryError
            If the scan contains no body.
        """
