"""Outlier scores: which scans of a cohort differ from the others, and in what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_strata.batch.outputs.results import shared_regions

OUTLIER_ABOVE = 3.5
"""Robust z scores above this are outliers.

Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.
"""
FEWEST_SCANS = 5
"""Scans of a modality that are needed to compare them: fewer have no usual range."""
_NORMAL_MAD = 0.6745
"""Median absolute deviation of a normal distribution, in standard deviations."""
_LEAST_SPREAD = 0.05
"""Smallest spread (natural logarithm: about 5 %), so that a trifle is no outlier."""
_LEAST_SHARE = 0.005
"""Tissues with a smaller share of the labelled volume are left out: they scatter."""


@dataclass(frozen=True, slots=True)
class OutlierScore:
    """How far a scan lies from its cohort.

    Parameters
    ----------
    score : float or None
        Its largest robust z score; None if there are too few scans.
    reason : str
        The figure with that score, its value and the cohort's median.
    """

    score: float | None
    reason: str

    @property
    def is_outlier(self) -> bool:
        """Whether the score is above the usual limit."""
        return self.score is not None and self.score > OUTLIER_ABOVE


def outlier_scores(documents: Sequence[dict[str, Any]]) -> list[OutlierScore]:
    """Compare scans with the others of their modality.

    Parameters
    ----------
    documents : sequence of dict
        Sidecars of the scans.

    Returns
    -------
    list of OutlierScore
        One per scan. Compared are the labelled volume in mL and the mean confidence. If
        all scans have the same codebook or teaching, the drift and each tissue's share
        of the labelled volume are compared too. Logarithms are compared: half and
        double are equally far.
    """
    scores = [OutlierScore(None, "")] * len(documents)
    for modality in {document["scan"]["modality"] for document in documents}:
        members = [
            k
            for k, document in enumerate(documents)
            if document["scan"]["modality"] == modality
        ]
        if len(members) < FEWEST_SCANS:
            continue
        tables = _figures([documents[k] for k in members])
        for k, score in zip(members, _farthest(tables, len(members)), strict=True):
            scores[k] = score
    return scores


def _figures(documents: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the figures to compare, NaN where a scan lacks one."""
    quality = [document.get("quality", {}) for document in documents]
    tables = {
        "labelled mL": [float(one.get("labelled_ml") or math.nan) for one in quality],
        "confidence": [float(one.get("confidence") or math.nan) for one in quality],
    }
    shared = [shared_regions(document) for document in documents]
    if all(shared) and len({one["sha256"] for one in shared}) == 1:
        tables["drift"] = [float(one["drift"]) for one in shared]
        shares = [
            {row["name"]: row["volume_ml"] for row in document["regions"]}
            for document in documents
        ]
        for name in sorted({name for one in shares for name in one}):
            tables[f"share of {name}"] = [
                one.get(name, 0.0) / max(sum(one.values()), 1e-9) for one in shares
            ]
    return tables


def _farthest(tables: dict[str, list[float]], n: int) -> list[OutlierScore]:
    best = [OutlierScore(0.0, "")] * n
    for name, values in tables.items():
        figures = np.array(values)
        finite = figures[np.isfinite(figures)]
        if len(finite) < FEWEST_SCANS or (
            name.startswith("share") and np.median(finite) < _LEAST_SHARE
        ):
            continue
        logs = np.log(np.maximum(figures, _LEAST_SHARE / 10))
        middle = np.nanmedian(logs)
        spread = max(float(np.nanmedian(np.abs(logs - middle))), _LEAST_SPREAD)
        for k, z in enumerate((_NORMAL_MAD * np.abs(logs - middle) / spread).tolist()):
            if math.isfinite(z) and z > (best[k].score or 0.0):
                best[k] = OutlierScore(
                    round(z, 2),
                    f"{name} {figures[k]:.3g}, usually {float(np.median(finite)):.3g}",
                )
    return best
