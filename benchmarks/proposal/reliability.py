"""The third part: is a proposal right as often as its confidence says?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from benchmarks.proposal.overlap import Overlap
from numpy.typing import NDArray

from napari_strata.proposal.proposal import Proposal, TreeName

CUTS: tuple[tuple[TreeName, int], ...] = (
    ("tissues", 8),
    ("tissues", 16),
    ("regions", 50),
    ("regions", 100),
)
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def confidence_figures(
    proposal: Proposal, found: Overlap
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give figures by subject.

    For each cut, the share that is right in each bin of confidence, and the share in
    the bin.

    A supervoxel of the body is right if most of its scored voxels are of the class that
    most scored voxels of its region are of; "other" is a class here. The subjects "...,
    classes" leave out supervoxels of "other" in regions of "other", which are right for
    little.
    """
    other = found.counts.shape[1] - 1
    weight = found.counts.sum(axis=1)
    own = found.counts.argmax(axis=1)
    for tree, n in CUTS:
        table = proposal.tree(tree).cut(n)
        region = found.joined(table).counts.argmax(axis=1)[table]
        used = (weight > 0) & (table > 0)
        told = used & ((own != other) | (region != other))
        for kind, chosen, votes in (
            ("voxels", used, weight),
            ("voxels, classes", told, weight),
            ("supervoxels", used, np.ones_like(weight)),
        ):
            sure = proposal.confidence_at(tree, n)[chosen]
            yield (
                f"{tree} {n}, by {kind}",
                reliability(sure, (own == region)[chosen], votes[chosen]),
            )


def reliability(
    confidence: NDArray[np.floating],
    right: NDArray[np.bool_],
    weight: NDArray[np.integer],
) -> dict[str, float]:
    """Give the weighted share that is right in each bin of confidence, how much lies in it.

    The calibration error.

    The expected calibration error is the mean difference, over bins, of the share that
    is right and the mean confidence, each bin weighted by how much lies in it (Guo et
    al., ICML 2017). The share of a bin that holds nothing is NaN.
    """
    place = np.clip(
        np.searchsorted(BINS, confidence, side="right") - 1, 0, len(BINS) - 2
    )
    held, hits, sure = (
        np.bincount(place, weights=w, minlength=len(BINS) - 1)
        for w in (weight, weight * right, weight * confidence)
    )
    names = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(BINS)]
    total = max(float(held.sum()), 1.0)
    shares = {
        name: float(hits[k] / held[k]) if held[k] else float("nan")
        for k, name in enumerate(names)
    }
    sizes = {f"share in {name}": float(held[k] / total) for k, name in enumerate(names)}
    error = float(np.abs(hits - sure).sum() / total)
    return {
        **shares,
        "right": float(hits.sum() / total),
        "calibration error": error,
        **sizes,
    }
