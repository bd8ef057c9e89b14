"""Calibrated confidence of each supervoxel: logistic regressions on a few predictors.

The coefficients are in confidence_fit.json, which `python -m benchmarks.confidence`
fits on labelled scans and writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.deprecated import moved_names
from napari_strata.parallel import each
from napari_strata.proposal.cut_confidence import CutConfidence
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.supervoxels.clustering import Contacts

PREDICTORS = (
    "margin",
    "company",
    "margin of the region",
    "company of the region",
    "size",
    "intensity explained",
    "brain alone",
    "border share",
    "mean margin",
)
"""Names of the predictors, the columns of `predictors`."""
CUTS: tuple[tuple[Literal["regions", "tissues"], int], ...] = (
    ("tissues", 8),
    ("tissues", 16),
    ("tissues", 32),
    ("regions", 50),
    ("regions", 100),
    ("regions", 200),
)
"""Cuts that confidence is estimated at: the usual 16 and 100, half and double."""
FIT_FILE = "confidence_fit.json"
_SIZE_UNIT = 10.0
"""Divisor of the log of the voxels, which brings it to the range of the others."""
_UNEXPLAINED = 0.01
"""Share of the variance of intensity that always counts as unexplained."""
_LARGEST_BRAIN_ML = 2000.0
"""A padded scan with a larger body is a head whose air was blanked, not a brain."""
_PADDED_SHARE = 0.95
"""Share of voxels outside the body with one value that shows a padded scan."""
_STEP = 2
"""Every second voxel along each axis is looked at for padding."""
_ROWS_AT_ONCE = 4096
"""Supervoxels compared at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceInputs:
    """Inputs of `estimate_confidence`.

    Parameters
    ----------
    tissue_vectors, region_vectors : (n, d) float32 arrays
        Vectors that the two trees were built from. The first column of the regions'
        vectors is intensity.
    tissues, regions : Hierarchy
        The trees.
    contacts : Contacts
        Which supervoxels touch, and over how many faces.
    sizes : (n,) integer array
        Voxels.
    is_brain : bool
        Whether the scan holds a brain alone, see `is_brain_alone`.
    """

    tissue_vectors: NDArray[np.float32]
    region_vectors: NDArray[np.float32]
    tissues: Hierarchy
    regions: Hierarchy
    contacts: Contacts
    sizes: NDArray[np.integer]
    is_brain: bool = False


@dataclass(frozen=True, slots=True)
class ConfidenceFit:
    """Coefficients of the logistic regressions.

    Parameters
    ----------
    weights : dict of str to tuple of float
        Per tree, the coefficient of each of `PREDICTORS`.
    offsets : dict of str to float
        The intercept of each cut, named "tissues 16".
    """

    weights: dict[str, tuple[float, ...]]
    offsets: dict[str, float]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> ConfidenceFit:
        """Read coefficients from a document as the fit command writes it."""
        return cls(
            {tree: tuple(one) for tree, one in document["weights"].items()},
            {name: float(value) for name, value in document["offsets"].items()},
        )

    def probability(
        self, columns: NDArray[np.floating], tree: str, n: int
    ) -> NDArray[np.float64]:
        """Return the probability of being right, from `predictors`, (n,) float64."""
        total = columns @ np.array(self.weights[tree]) + self.offsets[f"{tree} {n}"]
        return np.asarray(1.0 / (1.0 + np.exp(-total)))


@lru_cache(maxsize=1)
def shipped_fit() -> ConfidenceFit:
    """Return the coefficients that are shipped with this version."""
    text = files("napari_strata.proposal").joinpath(FIT_FILE).read_text("utf-8")
    return ConfidenceFit.from_document(json.loads(text))


def estimate_confidence(
    inputs: ConfidenceInputs, fit: ConfidenceFit | None = None
) -> CutConfidence:
    """Return the probability that a supervoxel is of its region's majority class.

    Parameters
    ----------
    inputs : ConfidenceInputs
        Trees, vectors and contacts.
    fit : ConfidenceFit, optional
        Other coefficients than the shipped ones. docs/proposal.md lists the scans of
        these, and the calibration with the scan in question left out.
    """
    fit = fit or shipped_fit()
    faces = _Faces.of(inputs.contacts, len(inputs.sizes))
    columns = each(
        lambda cut: fit.probability(_predictors(inputs, faces, *cut), *cut), CUTS
    )
    return CutConfidence(CUTS, np.stack(columns, axis=1).astype(np.float16))


def predictors(
    inputs: ConfidenceInputs, tree: Literal["regions", "tissues"], n: int
) -> NDArray[np.float32]:
    """Return the predictors of confidence at a cut, per supervoxel.

    Margin: 1 minus the distance to the own region's mean over that to the runner-up's
    (tissues: any other; regions: any that touches). Company: share of the supervoxel's
    faces that border on its own region. Both are relative to the mean of the body, and
    both are also averaged over the region. Size: a tenth of the logarithm of the voxels.
    The others are the same for all supervoxels of a scan: how much of the variance of
    intensity the cut explains (minus the logarithm of what it leaves; 0 in brains
    alone), whether the scan is a brain alone, the share of the body's faces that lie
    between two regions, and the mean margin.

    Returns
    -------
    (n, predictor) float32 array
        Predictors; columns are named by `PREDICTORS`.
    """
    faces = _Faces.of(inputs.contacts, len(inputs.sizes))
    return _predictors(inputs, faces, tree, n)


def _predictors(
    inputs: ConfidenceInputs,
    faces: _Faces,
    tree: Literal["regions", "tissues"],
    n: int,
) -> NDArray[np.float32]:
    hierarchy = inputs.tissues if tree == "tissues" else inputs.regions
    table = hierarchy.cut(min(n, hierarchy.max_regions))
    weight = np.where(table > 0, inputs.sizes, 0).astype(np.float64)
    margin = (
        _margin_anywhere(inputs.tissue_vectors, inputs.sizes, table)
        if tree == "tissues"
        else _margin_beside(inputs, faces, table)
    )
    company, border = faces.shares(table)
    mean_margin, mean_company = (_mean(one, weight) for one in (margin, company))
    explained = _explained(inputs.region_vectors[:, 0], weight, table)
    of_scan = (
        0.0 if inputs.is_brain else -np.log(1 - explained + _UNEXPLAINED),
        float(inputs.is_brain),
        border,
        mean_margin,
    )
    columns = [
        margin - mean_margin,
        company - mean_company,
        _region_mean(margin, weight, table) - mean_margin,
        _region_mean(company, weight, table) - mean_company,
        np.log(np.maximum(inputs.sizes, 1)) / _SIZE_UNIT,
        *(np.full(len(table), value) for value in of_scan),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def is_brain_alone(
    data: NDArray[Any], inside: NDArray[np.bool_], voxel_mm3: float
) -> bool:
    """Return whether a scan holds a skull-stripped brain.

    Its body is no larger than a brain, and almost all other voxels have one value.

    Parameters
    ----------
    data : (z, y, x) array
        The scan.
    inside : (z, y, x) bool array
        Its body.
    voxel_mm3 : float
        Volume of a voxel.
    """
    some = (slice(None, None, _STEP),) * 3
    body, values = inside[some], np.asarray(data[some])
    outside = values[~body]
    if not outside.size or body.sum() * _STEP**3 * voxel_mm3 / 1000 > _LARGEST_BRAIN_ML:
        return False
    return bool((outside == outside.min()).mean() >= _PADDED_SHARE)


def _mean(values: NDArray[np.floating], weight: NDArray[np.float64]) -> float:
    return float((values * weight).sum() / max(float(weight.sum()), 1e-9))


def _region_mean(
    values: NDArray[np.floating],
    weight: NDArray[np.float64],
    table: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Return the mean of each supervoxel's region, (n,) float64."""
    held = np.bincount(table, weights=weight)
    sums = np.bincount(table, weights=weight * values)
    return np.asarray((sums / np.maximum(held, 1e-9))[table])


def _explained(
    intensity: NDArray[np.float32],
    weight: NDArray[np.float64],
    table: NDArray[np.int32],
) -> float:
    """Return the share of the variance of intensity that lies between regions."""
    values = intensity.astype(np.float64)
    total = _mean((values - _mean(values, weight)) ** 2, weight)
    inside = _mean((values - _region_mean(values, weight, table)) ** 2, weight)
    return float(np.clip(1 - inside / max(total, 1e-12), 0.0, 1.0))


def _means(
    vectors: NDArray[np.float32], sizes: NDArray[np.integer], table: NDArray[np.int32]
) -> NDArray[np.float32]:
    count = int(table.max(initial=0)) + 1
    weight = np.maximum(np.bincount(table, weights=sizes, minlength=count), 1)
    sums = [
        np.bincount(table, weights=sizes * column, minlength=count)
        for column in vectors.T
    ]
    return (np.stack(sums, axis=1) / weight[:, None]).astype(np.float32)


def _distances(
    vectors: NDArray[np.float32], means: NDArray[np.float32]
) -> NDArray[np.float32]:
    squares = (
        (vectors**2).sum(axis=1)[:, None]
        + (means**2).sum(axis=1)[None]
        - 2.0 * vectors @ means.T
    )
    return np.sqrt(np.maximum(squares, 0.0))


def _distance_to(
    vectors: NDArray[np.float32],
    rows: NDArray[np.integer],
    means: NDArray[np.float32],
    regions: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Return the distance of each chosen vector from the mean of a region, (k,) float32."""
    out = np.empty(len(rows), np.float32)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        step = vectors.take(rows[part], axis=0)
        step -= means.take(regions[part], axis=0)
        out[part] = np.linalg.norm(step, axis=1)
    return out


def _margin_anywhere(
    vectors: NDArray[np.float32], sizes: NDArray[np.integer], table: NDArray[np.int32]
) -> NDArray[np.float32]:
    distance = _distances(vectors, _means(vectors, sizes, table))
    rows = np.arange(len(table))
    own = distance[rows, table]
    distance[rows, table] = np.inf
    other = (
        distance.min(axis=1)
        if distance.shape[1] > 1
        else np.full(len(table), 2.0, np.float32)
    )
    return np.clip(1.0 - own / np.maximum(other, 1e-6), -1.0, 1.0)


def _margin_beside(
    inputs: ConfidenceInputs, faces: _Faces, table: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the margin over touching regions; 1 for supervoxels that touch no other."""
    vectors = inputs.region_vectors
    means = _means(vectors, inputs.sizes, table)
    own = _distance_to(vectors, np.arange(len(table)), means, table)
    border = np.flatnonzero(table.take(faces.first) != table.take(faces.second))
    first, second = faces.first.take(border), faces.second.take(border)
    # each supervoxel with each region that it touches, once; sorting is faster than
    # numpy.unique
    beside = np.sort(
        np.concatenate([first, second]).astype(np.int64) * len(means)
        + table.take(np.concatenate([second, first]))
    )
    beside = beside[np.append(True, beside[1:] != beside[:-1])[: len(beside)]]
    supervoxel, region = np.divmod(beside, len(means))
    distance = _distance_to(vectors, supervoxel, means, region)
    other = np.full(len(table), np.inf, np.float32)
    np.minimum.at(other, supervoxel, distance)
    return np.clip(1.0 - own / np.maximum(other, 1e-6), -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Faces:
    """Contacts with their columns apart, and the faces of each supervoxel."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    faces: NDArray[np.float64]
    of_each: NDArray[np.float64]

    @classmethod
    def of(cls, contacts: Contacts, n: int) -> _Faces:
        first, second = (column.astype(np.intp) for column in contacts.edges.T)
        faces = contacts.faces.astype(np.float64)
        of_each = np.bincount(first, faces, n) + np.bincount(second, faces, n)
        return cls(first, second, faces, of_each.astype(np.float64))

    def shares(self, table: NDArray[np.int32]) -> tuple[NDArray[np.float64], float]:
        """Return each supervoxel's share of faces toward its own region, and the border.

        The border is the share of faces inside the body that lie between two regions.
        """
        one, other = table.take(self.first), table.take(self.second)
        is_same = one == other
        same = np.where(is_same, self.faces, 0.0)
        own = np.bincount(self.first, same, len(table))
        own += np.bincount(self.second, same, len(table))
        share = np.where(self.of_each > 0, own / np.maximum(self.of_each, 1), 1.0)
        inside = np.where((one > 0) & (other > 0), self.faces, 0.0)
        border = float(inside[~is_same].sum() / max(float(inside.sum()), 1.0))
        return share, border


__getattr__ = moved_names("proposal.confidence")
