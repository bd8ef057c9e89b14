"""Logistic regressions of being right on the predictors of confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from benchmarks.confidence.examples import CutExamples, ScanExamples
from benchmarks.proposal.reliability import reliability
from numpy.typing import NDArray
from scipy import optimize

from napari_strata.proposal.confidence import CUTS, PREDICTORS, ConfidenceFit

LEAST_COVERAGE = 0.5
"""Scans with less of their classes in the body are not fitted on: it was not found."""
_MOST_ROWS = 4000
"""Supervoxels per scan and cut that a fit sees, drawn at random."""
_RIDGE = 1e-3
"""Weight of the squared coefficients of standardised predictors, per scan and cut.

From 1e-4 to 1e-2 the error with the scan left out hardly changes.
"""


def fit_confidence(scans: Sequence[ScanExamples]) -> ConfidenceFit:
    """Fit a regression per tree, with an intercept per cut; every scan counts the same.

    Raises
    ------
    SystemExit
        If no scan can be fitted on.
    """
    used = [scan for scan in scans if scan.coverage >= LEAST_COVERAGE]
    if not used:
        raise SystemExit("There is no scan to fit on.")
    weights: dict[str, tuple[float, ...]] = {}
    offsets: dict[str, float] = {}
    for tree in ("tissues", "regions"):
        cuts = [f"{name} {n}" for name, n in CUTS if name == tree]
        found = _fit_tree(used, cuts)
        weights[tree] = tuple(found[: len(PREDICTORS)].round(5).tolist())
        offsets |= dict(
            zip(cuts, found[len(PREDICTORS) :].round(5).tolist(), strict=True)
        )
    return ConfidenceFit(weights, offsets)


def calibration_error(fit: ConfidenceFit, examples: CutExamples, cut: str) -> float:
    """Return the expected calibration error by voxel at a cut."""
    tree, n = cut.split(" ")
    sure = fit.probability(examples.columns, tree, int(n))
    return reliability(sure, examples.right, examples.voxels)["calibration error"]


def _fit_tree(scans: Sequence[ScanExamples], cuts: list[str]) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    blocks, right, weight = [], [], []
    for scan in scans:
        for place, cut in enumerate(cuts):
            one = scan.cuts[cut]
            count = min(_MOST_ROWS, len(one.voxels))
            rows = rng.choice(len(one.voxels), count, replace=False)
            intercept = np.zeros((count, len(cuts)))
            intercept[:, place] = 1.0
            blocks.append(np.hstack([one.columns[rows], intercept]))
            right.append(one.right[rows])
            weight.append(one.voxels[rows] / one.voxels[rows].sum())
    return _logistic(
        np.concatenate(blocks), np.concatenate(right), np.concatenate(weight)
    )


def _logistic(
    columns: NDArray[np.float64],
    right: NDArray[np.float32],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return coefficients; those of the predictors are drawn towards 0."""
    k = len(PREDICTORS)
    middle, spread = columns[:, :k].mean(axis=0), columns[:, :k].std(axis=0) + 1e-6
    scaled = columns.copy()
    scaled[:, :k] = (scaled[:, :k] - middle) / spread

    def loss(beta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total = scaled @ beta
        missed = weight * (np.logaddexp(0, total) - right * total)
        slope = scaled.T @ (weight * (1 / (1 + np.exp(-total)) - right))
        slope[:k] += 2 * _RIDGE * beta[:k]
        return float(missed.sum() + _RIDGE * (beta[:k] ** 2).sum()), slope

    start = np.zeros(columns.shape[1])
    beta = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    found = np.array(beta, np.float64)
    found[:k] /= spread
    found[k:] -= (found[:k] * middle).sum()
    return found
