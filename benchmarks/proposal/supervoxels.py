"""The first part: ways to make supervoxels, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from benchmarks.encoder.scans import LabelledScan
from benchmarks.proposal.edges import (
    achievable_accuracy,
    boundary_recall,
    strict_accuracy,
    undersegmentation_error,
)
from benchmarks.proposal.methods import METHODS, Block, Method, tidy
from benchmarks.proposal.overlap import overlap
from numpy.typing import NDArray

from napari_strata.settings import ProposeSettings

_MOST_RUNS, _NEAR = 3, 0.15
"""Runs of a method in search of the number of pieces.

How far off (natural logarithm) is near enough.
"""


def compare_methods(
    block: Block, scan: LabelledScan
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give each method's name and figures on one scan.

    The features are made already, and cost none of them time.
    """
    reference = np.ascontiguousarray(scan.reference[block.box])
    for name, method in METHODS.items():
        run = matched(method, block)
        yield name, {"seconds": run.seconds, **piece_figures(run.pieces, reference)}


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Pieces 1 .. n of the body (0 outside it), (z, y, x).

    The seconds that making them took.
    """

    pieces: NDArray[np.int32]
    seconds: float


def matched(method: Method, block: Block) -> Run:
    """Run a method, and again with another aim as long.

    As it gives far more or fewer pieces than were asked for.

    Methods read their aim differently (cells before they are split, boxes half filled
    by the body), and more pieces are always better: only methods that give about as
    many can be compared. The run that came nearest counts, and its time.
    """
    wanted = aim = block.settings.supervoxels
    limits = {knob.name: knob.metadata for knob in fields(ProposeSettings)}[
        "supervoxels"
    ]
    runs: list[Run] = []
    for _ in range(_MOST_RUNS):
        begun = time.perf_counter()
        pieces = method(
            replace(block, settings=replace(block.settings, supervoxels=aim))
        )
        seconds = time.perf_counter() - begun
        runs.append(Run(tidy(pieces, block.inside), seconds))
        ratio = max(int(runs[-1].pieces.max()), 1) / wanted
        if abs(np.log(ratio)) < _NEAR:
            break
        aim = int(np.clip(aim / ratio, limits["minimum"], limits["maximum"]))
    return min(
        runs, key=lambda run: abs(np.log(max(int(run.pieces.max()), 1) / wanted))
    )


def piece_figures(
    pieces: NDArray[np.int32], reference: NDArray[np.uint8]
) -> dict[str, float]:
    """Score pieces 1 .. n of the body (0 outside it), (z, y, x), against a reference."""
    n = int(pieces.max()) + 1
    found = overlap(pieces, reference, n)
    recall = boundary_recall(pieces, reference)
    return {
        "pieces": float(n - 1),
        "ASA": achievable_accuracy(found),
        "ASA, strict": strict_accuracy(found),
        "under-segmentation": undersegmentation_error(found),
        "recall, 1 voxel": recall.within_one,
        "by chance, 1 voxel": recall.within_one_by_chance,
        "recall, exact": recall.exact,
        "by chance, exact": recall.exact_by_chance,
    }
