"""Explain why a voxel is in its region and not in the runner-up, by kind of evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import RegionError
from napari_strata.explain.regions import EvidenceGroup, descriptor_groups
from napari_strata.proposal.proposal import Proposal

_PRIOR_SUPERVOXELS = 4.0
"""Weight, in supervoxels, of the body's variance (1) against a region's own."""
_BLOCK = 8192
"""Supervoxels computed at a time, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class VoxelEvidence:
    """Evidence for the region of a voxel, against the runner-up.

    The absolute values sum to 1, or all are zero.

    Parameters
    ----------
    features, intensity, position, strokes : float
        Encoder features; intensity inside and around; position in the scan; strokes on
        similar supervoxels. Positive speaks for the region, negative for the
        runner-up.
    """

    features: float
    intensity: float
    position: float
    strokes: float


@dataclass(frozen=True, slots=True)
class VoxelCard:
    """Explanation of why a voxel is in its region.

    Parameters
    ----------
    voxel_zyx : tuple of 3 int
        The voxel.
    supervoxel : int
        The supervoxel that holds it, of which everything here speaks.
    region : int
        The region that it is compared for.
    runner_up : int or None
        The region that its descriptors speak for most, besides that one; None where
        there is no other.
    likelihood : float
        How much more they speak for the region than for the runner-up, in [0, 1]; below
        0.5 they speak for the runner-up; 0 where the region has no supervoxel, only
        voxels that were painted or cut: it has no descriptors of its own. Not calibrated.
    confidence : float
        The proposal's confidence in the supervoxel, in [0, 1].
    evidence : VoxelEvidence
        The same split by kind.
    """

    voxel_zyx: tuple[int, int, int]
    supervoxel: int
    region: int
    runner_up: int | None
    likelihood: float
    confidence: float
    evidence: VoxelEvidence


Stroked = tuple[NDArray[np.integer], NDArray[np.integer]]
"""Supervoxels (k,) that strokes crossed, and the regions (k,) that the strokes assign."""


@dataclass(frozen=True, slots=True, eq=False)
class _Laws:
    """Gaussian per region with independent columns: ids (r,), means and variances (r, d)."""

    ids: NDArray[np.intp]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]


def explain_voxel(
    proposal: Proposal,
    table: NDArray[np.integer],
    voxel_zyx: ArrayLike,
    *,
    region: int | None = None,
    strokes: Stroked | None = None,
) -> VoxelCard:
    """Explain which evidence puts a voxel in its region, and name the runner-up region.

    Every region is a Gaussian with diagonal covariance over the descriptors of its
    supervoxels; evidence is the difference of log-likelihoods between the region and
    the runner-up, averaged over the columns of a kind, so that many columns do not
    outvote few. Strokes count by how much nearer the nearest supervoxel stroked for the
    one is than for the other.

    Parameters
    ----------
    proposal : Proposal
        What the table speaks of.
    table : (n_supervoxels,) integer array
        The region of each supervoxel, for example `Refinement.view.table`.
    voxel_zyx : (3,) integers
        The voxel as array indices.
    region : int or None
        The region that it is shown as, where that is not its supervoxel's: painted by
        hand or cut.
    strokes : tuple of two (k,) integer arrays, or None
        Supervoxels that strokes crossed and their regions: `Refinement.view.stroked`.

    Raises
    ------
    RegionError
        If the voxel lies outside the scan, or the table is not one of this proposal.
    """
    voxel = tuple(int(v) for v in np.asarray(voxel_zyx).reshape(-1))
    shape = proposal.supervoxels.shape
    if len(voxel) != 3 or any(
        not 0 <= v < n for v, n in zip(voxel, shape, strict=True)
    ):
        raise RegionError(
            f"Voxel {voxel} lies outside the scan, which has shape {shape}. Give z,"
            " y, x."
        )
    laws = _laws(proposal, table)
    supervoxel = int(proposal.supervoxels[voxel])
    own = int(table[supervoxel]) if region is None else int(region)
    parts = _by_group(proposal, laws, np.array([supervoxel]))
    total = np.sum(list(parts.values()), axis=0)[0]
    others = np.flatnonzero(laws.ids != own)
    mine = np.flatnonzero(laws.ids == own)
    evidence: dict[str, float] = dict.fromkeys(
        ("features", "intensity", "position", "strokes"), 0.0
    )
    runner_up = None
    best = int(others[total[others].argmax()]) if len(others) else 0
    if len(others):
        runner_up = int(laws.ids[best])
    if runner_up is not None and len(mine):
        evidence |= {
            name: float(part[0, mine[0]] - part[0, best])
            for name, part in parts.items()
        }
        evidence["strokes"] = _stroke_evidence(
            proposal, supervoxel, own, runner_up, strokes
        )
    weight = sum(abs(value) for value in evidence.values()) or 1.0
    z, y, x = voxel
    return VoxelCard(
        voxel_zyx=(z, y, x),
        supervoxel=supervoxel,
        region=own,
        runner_up=runner_up,
        likelihood=(
            _likelihood(sum(evidence.values()))
            if len(others) and len(mine)
            else float(len(others) == 0)
        ),
        confidence=float(proposal.confidence[supervoxel]),
        evidence=VoxelEvidence(
            **{name: value / weight for name, value in evidence.items()}
        ),
    )


def _likelihood(evidence: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(evidence, -50, 50))))


def uncertainty_map(
    proposal: Proposal, table: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return how near every supervoxel is to being in another region.

    1 - `VoxelCard.likelihood` without strokes.

    Parameters
    ----------
    proposal, table
        As for `explain_voxel`.

    Returns
    -------
    (n_supervoxels,) float32 array
        In [0, 1]; above 0.5 another region is likelier. 0 where there is only one
        region. Not calibrated.

    Raises
    ------
    RegionError
        If the table is not one of this proposal.
    """
    laws = _laws(proposal, table)
    found = np.zeros(len(table), np.float32)
    if len(laws.ids) < 2:
        return found
    own = np.searchsorted(laws.ids, table)
    for start in range(0, len(table), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(table)))
        total = np.sum(list(_by_group(proposal, laws, rows).values()), axis=0)
        mine = total[np.arange(len(rows)), own[rows]].copy()
        total[np.arange(len(rows)), own[rows]] = -np.inf
        found[rows] = 1 / (1 + np.exp(np.clip(mine - total.max(axis=1), -50, 50)))
    return found


def _laws(proposal: Proposal, table: NDArray[np.integer]) -> _Laws:
    if table.shape != (proposal.n_supervoxels,):
        raise RegionError(
            f"The table has shape {table.shape} but the proposal has"
            f" {proposal.n_supervoxels} supervoxels. Take the table from this"
            " proposal's trees or its refinement."
        )
    ids, place = np.unique(table, return_inverse=True)
    count = np.bincount(place).astype(np.float64)
    columns = proposal.descriptors.T.astype(np.float64)
    means = np.stack(
        [np.bincount(place, weights=column) / count for column in columns], axis=1
    )
    squares = np.stack(
        [np.bincount(place, weights=column**2) / count for column in columns], axis=1
    )
    spread = np.maximum(squares - means**2, 0) * count[:, None]
    variances = (spread + _PRIOR_SUPERVOXELS) / (count[:, None] + _PRIOR_SUPERVOXELS)
    return _Laws(ids, means, variances)


def _by_group(
    proposal: Proposal, laws: _Laws, supervoxels: NDArray[np.integer]
) -> dict[EvidenceGroup, NDArray[np.float64]]:
    """Return the mean log-likelihood per column of supervoxels under every region's Gaussian.

    An array (k, r) for each group of descriptors.
    """
    rows = proposal.descriptors[supervoxels].astype(np.float64)
    found: dict[EvidenceGroup, NDArray[np.float64]] = {}
    for name, columns in descriptor_groups(proposal).items():
        if not len(columns):
            continue
        precision = 1 / laws.variances[:, columns]
        mean = laws.means[:, columns]
        squares = (
            rows[:, columns] ** 2 @ precision.T
            - 2 * rows[:, columns] @ (mean * precision).T
            + (mean**2 * precision).sum(axis=1)
        )
        found[name] = (
            -0.5
            * (np.maximum(squares, 0) + np.log(laws.variances[:, columns]).sum(axis=1))
            / len(columns)
        )
    return found


def _stroke_evidence(
    proposal: Proposal, supervoxel: int, own: int, other: int, strokes: Stroked | None
) -> float:
    """Return half the difference of mean squared distances to the nearest strokes.

    The distance to the other region's strokes, less that to the region's own.
    """
    if strokes is None:
        return 0.0
    squares = (
        (proposal.descriptors[strokes[0]] - proposal.descriptors[supervoxel]).astype(
            np.float64
        )
        ** 2
    ).mean(axis=1)
    sides = [squares[strokes[1] == region] for region in (own, other)]
    if not len(sides[0]) and not len(sides[1]):
        return 0.0
    far = 2.0  # mean squared distance of two supervoxels anywhere in the body
    nearest = [
        float(side.min()) if len(side) else max(far, float(squares.min()))
        for side in sides
    ]
    return 0.5 * (nearest[1] - nearest[0])
