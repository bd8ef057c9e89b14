"""The fourth part: does a scan get the same proposal when it is changed a little?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.encoder.stability import (
    BIAS,
    NOISE_HU,
    NOISE_SHARE,
    adjusted_rand,
    bias_field,
)
from numpy.typing import NDArray

from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import Volume

SMALL = 0.5
"""Noise and bias field here, as a share of those of the encoder bench."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A changed scan, and whether left and right are swapped in it."""

    name: str
    volume: Volume
    flipped: bool = False

    def undo(self, labels: NDArray[np.integer]) -> NDArray[np.integer]:
        """Bring labels (z, y, x) of the changed scan back to the scan it was made from."""
        return labels[:, :, ::-1] if self.flipped else labels


def small_changes(
    volume: Volume, inside: NDArray[np.bool_], seed: int = 0
) -> Iterator[Change]:
    """Give a scan with a little noise, flipped left to right, and for MR with a weak bias field.

    An MR's noise is Rician, of 1.5 % of its range of intensity; a CT's is Gaussian, of
    10 HU. The field spans 1 +- 0.2.
    """
    rng = np.random.default_rng(seed)
    data = volume.data.astype(np.float32)
    low, high = float(data.min()), float(np.percentile(data[inside], 99.5))
    if volume.modality == "mr":
        sigma = np.float32(SMALL * NOISE_SHARE * (high - low))
        real, imaginary = (
            sigma * rng.standard_normal(data.shape, dtype=np.float32) for _ in range(2)
        )
        yield Change(
            "noise",
            replace(
                volume, data=np.hypot(data - low + real, imaginary) + np.float32(low)
            ),
        )
        field = 1 + np.float32(SMALL) * (bias_field(volume.geometry, rng) - 1)
        yield Change(
            f"bias +-{SMALL * BIAS:.1f}",
            replace(volume, data=(data - low) * field + low),
        )
    else:
        sigma = np.float32(SMALL * NOISE_HU)
        yield Change(
            "noise",
            replace(
                volume,
                data=data + sigma * rng.standard_normal(data.shape, dtype=np.float32),
            ),
        )
    yield Change(
        "flip",
        replace(volume, data=np.ascontiguousarray(data[:, :, ::-1])),
        flipped=True,
    )


def stability_figures(
    proposal: Proposal, inside: NDArray[np.bool_], propose: Callable[[Volume], Proposal]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give, for each change, the adjusted Rand index of tissues (4 and 16) and regions (100).

    Over the body's voxels, and over the whole image, where air is a region like any
    other.

    Parameters
    ----------
    proposal : Proposal
        Of the scan as it is.
    inside : (z, y, x) bool array
        Its body.
    propose : callable
        Makes a proposal for a changed scan just as the first was made.
    """
    before = _cuts(proposal)
    for change in small_changes(proposal.volume, inside):
        after = _cuts(propose(change.volume))
        undone = {name: change.undo(labels) for name, labels in after.items()}
        figures = {
            f"ARI, {name}": adjusted_rand(before[name][inside], undone[name][inside])
            for name in before
        }
        whole = {
            f"whole image, {name}": adjusted_rand(
                before[name].ravel(), undone[name].ravel()
            )
            for name in before
        }
        yield change.name, figures | whole


def _cuts(proposal: Proposal) -> dict[str, NDArray[np.integer]]:
    return {
        "tissues 4": proposal.tissues(4).labels,
        "tissues 16": proposal.tissues(16).labels,
        "regions 100": proposal.regions(100).labels,
    }
