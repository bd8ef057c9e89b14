"""The second part: how well a proposal's tissues.

Regions and tree nodes agree with a reference.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
from benchmarks.encoder.scans import OTHER, LabelledScan
from benchmarks.proposal.edges import achievable_accuracy, strict_accuracy
from benchmarks.proposal.nodes import best_node_dice
from benchmarks.proposal.overlap import Overlap
from numpy.typing import NDArray

from napari_strata.measure import compare
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.volume import Segmentation

CUTS: tuple[tuple[TreeName, int | Literal["auto"]], ...] = (
    ("tissues", 8),
    ("tissues", 16),
    ("tissues", 32),
    ("tissues", "auto"),
    ("regions", 50),
    ("regions", 100),
    ("regions", 200),
    ("regions", "auto"),
)
OUTLIERS = 3
"""Outliers that are compared with the classes."""


def proposal_figures(
    proposal: Proposal, scan: LabelledScan, found: Overlap
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give figures by subject.

    Each cut, the best node of each tree, and the outliers.

    Dice of a cut is many-to-one: every region goes to the class that it shares most
    voxels with, or to "other", which takes part but is not in the mean.
    """
    reference = Segmentation(scan.reference, (), scan.volume.geometry)
    for tree, n in CUTS:
        cut = proposal.tissues(n) if tree == "tissues" else proposal.regions(n)
        yield f"{tree} {n}", _cut_figures(cut, reference)
    for tree in ("tissues", "regions"):
        dice = best_node_dice(proposal.tree(tree), found)
        yield (
            f"best node of {tree}",
            _named(
                float(dice.mean()), dict(zip(found.classes, dice.tolist(), strict=True))
            ),
        )
    yield "outliers", outlier_figures(proposal, found)


def outlier_figures(proposal: Proposal, found: Overlap) -> dict[str, float]:
    """Give, for each class, which of the first outliers fits it best, and its Dice.

    A lesion should be among them; organs of a healthy scan need not be.
    """
    figures: dict[str, float] = {}
    begun = time.perf_counter()
    outliers = proposal.outliers(OUTLIERS)
    figures["s"] = time.perf_counter() - begun
    scored = np.column_stack([found.counts, found.unscored])
    held = np.array([scored[one.supervoxels].sum(axis=0) for one in outliers])
    for place, number in enumerate(found.classes):
        total = found.counts[:, place].sum()
        dice = [2 * one[place] / max(one.sum() + total, 1) for one in held]
        figures[f"class {number}, rank"] = float(np.argmax(dice) + 1 if dice else 0)
        figures[f"class {number}, Dice"] = float(max(dice, default=0.0))
    return figures


def proposal_costs(proposal: Proposal, found: Overlap) -> dict[str, float]:
    """Give the number of supervoxels, what they could reach, and the seconds of each stage."""
    sizes = {
        "supervoxels": float(proposal.n_supervoxels),
        "in the body": float(proposal.region_tree.max_regions),
    }
    stages: dict[str, float] = proposal.provenance.get("seconds", {})
    seconds = {f"{stage}, s": float(value) for stage, value in stages.items()}
    best = {"ASA": achievable_accuracy(found), "ASA, strict": strict_accuracy(found)}
    return {**sizes, **best, **seconds, "all stages, s": sum(seconds.values())}


def _cut_figures(cut: Segmentation, reference: Segmentation) -> dict[str, float]:
    """Give Dice, many-to-one and one-to-one, the share of border, and the number of regions."""
    scores = compare(cut, reference, ignore=(0,), other=(OTHER,))
    return {
        **_named(scores.many_to_one_mean, scores.many_to_one),
        "one-to-one Dice": scores.one_to_one_mean,
        "border share": border_share(cut.labels),
        "n": float(len(cut.regions)),
    }


def border_share(labels: NDArray[np.integer]) -> float:
    """Give the share of voxel faces inside the body that lie between two labels.

    High where tissues are confetti: shells of partial volume, noise parted into classes.
    """
    between = inside = 0
    for axis in range(labels.ndim):
        rolled = np.moveaxis(labels, axis, 0)
        both = (rolled[1:] > 0) & (rolled[:-1] > 0)
        inside += int(both.sum())
        between += int((both & (rolled[1:] != rolled[:-1])).sum())
    return between / max(inside, 1)


def _named(mean: float, dice: dict[int, float]) -> dict[str, float]:
    return {
        "mean Dice": mean,
        **{f"class {number}": value for number, value in sorted(dice.items())},
    }
