"""Examples to fit confidence on: predictors of supervoxels, and how often they are right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from benchmarks.encoder.scans import LabelledScan
from benchmarks.proposal.overlap import Overlap, overlap
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.proposal.confidence import (
    CUTS,
    ConfidenceInputs,
    predictors,
)
from napari_strata.proposal.cut_confidence import CutConfidence
from napari_strata.proposal.proposal import Proposal, TreeName


@dataclass(frozen=True, slots=True, eq=False)
class CutExamples:
    """The scored supervoxels of a scan's body at one cut.

    Parameters
    ----------
    columns : (k, predictor) float32 array
        Predictors, see `napari_strata.proposal.confidence.predictors`.
    voxels : (k,) int64 array
        Scored voxels.
    right : (k,) float32 array
        Share of them that are of the class that most scored voxels of the region are of.
    """

    columns: NDArray[np.float32]
    voxels: NDArray[np.int64]
    right: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ScanExamples:
    """Examples of a scan, per cut, named "tissues 16".

    `coverage` is the share of the classes' voxels that lie in the body.
    """

    name: str
    coverage: float
    cuts: dict[str, CutExamples]

    def save(self, path: Path) -> None:
        """Write them, so that a later fit needs no proposal."""
        arrays: dict[str, NDArray[np.generic]] = {
            "coverage": np.array(self.coverage, np.float64)
        }
        for cut, one in self.cuts.items():
            arrays |= {
                f"{cut} columns": one.columns,
                f"{cut} voxels": one.voxels,
                f"{cut} right": one.right,
            }
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, name: str, path: Path) -> ScanExamples:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            cuts = {
                f"{tree} {n}": CutExamples(
                    *(
                        arrays[f"{tree} {n} {part}"]
                        for part in ("columns", "voxels", "right")
                    )
                )
                for tree, n in CUTS
            }
            return cls(name, float(arrays["coverage"]), cuts)


def scan_examples(scan: LabelledScan, *, seed: int, threads: int) -> ScanExamples:
    """Propose regions for a scan, and collect its examples."""
    with _watched() as seen:
        proposal = strata.propose(scan.volume, seed=seed, device="cpu", threads=threads)
    (inputs,) = seen
    found = overlap(proposal.supervoxels, scan.reference, proposal.n_supervoxels)
    return ScanExamples(
        scan.name,
        _coverage(proposal, found),
        {
            f"{tree} {n}": cut_examples(proposal, inputs, found, tree, n)
            for tree, n in CUTS
        },
    )


def cut_examples(
    proposal: Proposal,
    inputs: ConfidenceInputs,
    found: Overlap,
    tree: TreeName,
    n: int,
) -> CutExamples:
    """Collect the examples of one cut."""
    table = proposal.tree(tree).cut(n)
    majority = found.joined(table).counts.argmax(axis=1)[table]
    voxels = found.counts.sum(axis=1)
    used = np.flatnonzero((voxels > 0) & (table > 0))
    hits = found.counts[used, majority[used]]
    return CutExamples(
        predictors(inputs, tree, n)[used],
        voxels[used],
        (hits / voxels[used]).astype(np.float32),
    )


def _coverage(proposal: Proposal, found: Overlap) -> float:
    """Return the share of the classes' voxels that lie in the body."""
    held = found.counts[:, :-1].sum(axis=1)
    inside = proposal.region_tree.cut(1) > 0
    return float(held[inside].sum() / max(int(held.sum()), 1))


@contextmanager
def _watched() -> Iterator[list[ConfidenceInputs]]:
    """Keep what confidence is estimated from; there may be no coefficients for it yet."""
    seen: list[ConfidenceInputs] = []

    def estimate(inputs: ConfidenceInputs) -> CutConfidence:
        seen.append(inputs)
        unknown = np.zeros((len(inputs.sizes), len(CUTS)), np.float16)
        return CutConfidence(CUTS, unknown)

    with patch("napari_strata.proposal.methods.learned.estimate_confidence", estimate):
        yield seen
