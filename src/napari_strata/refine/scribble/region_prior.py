"""What the proposal's hierarchy says before any stroke: which supervoxels belong together.

Two uses: paths of strokes are longer across borders of coarse regions, and supervoxels of
a region share their memberships unless strokes of two classes lie in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.scribble.geodesic import GeodesicDistances


@dataclass(frozen=True, slots=True)
class PriorConstants:
    """Constants of the prior, found with a simulated user (see docs/teaching.md)."""

    border_length: float = 4.0
    """Added length of a step across the coarsest border, in median differences of touching
    supervoxels; a stroke then fills its region before it crosses the border."""
    finest_border: float = 2000.0
    """Number of regions from which a border adds nothing; falls with the logarithm."""
    shared: float = 0.6
    """Share of a supervoxel's membership that comes from its regions."""
    shared_cuts: tuple[int, ...] = (150, 600)
    """Numbers of regions whose members share memberships: about an organ, and its parts."""
    own_regions: int = 300
    """Number of regions in which a stroke with scope "here" lies; it fills them first."""
    own_step: float = 0.5
    """Length in mm of a millimetre inside those regions."""


PRIOR = PriorConstants()


@dataclass(frozen=True, slots=True, eq=False)
class RegionPrior:
    """The hierarchy, as far as strokes use it.

    Parameters
    ----------
    paths : GeodesicDistances
        Geodesic distances that are longer across borders of regions, and
        dissimilarities with position.
    cuts : tuple of (n,) int32 arrays
        Regions that share memberships, coarse to fine.
    own_regions : (n,) int32 array
        Regions that a stroke with scope "here" fills first.
    pairs : (e, 2) int32 array
        Touching supervoxels.
    steps_mm : (e,) float32 array
        Distance of their centres in mm.
    intensity : (n,) float32 array
        Mean intensity of each supervoxel, in standard deviations of the body's.
    weights : (n,) float32 array
        Size of each supervoxel divided by the mean size; 0 in the background.
    """

    paths: GeodesicDistances
    cuts: tuple[NDArray[np.int32], ...]
    own_regions: NDArray[np.int32]
    pairs: NDArray[np.int32]
    steps_mm: NDArray[np.float32]
    intensity: NDArray[np.float32]
    weights: NDArray[np.float32]

    def shared(
        self,
        membership: NDArray[np.float32],
        fixed: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> NDArray[np.float32]:
        """Return memberships (n, k) that supervoxels of one region share.

        A region with strokes of two classes shares nothing.

        Parameters
        ----------
        membership : (n, k) float32 array
            Memberships of single supervoxels.
        fixed : tuple of two arrays
            Supervoxels with a stroke, and the column of each.
        """
        added = np.zeros_like(membership)
        for cut in self.cuts:
            added += self._shared_in(cut, membership, fixed)
        share = np.float32(PRIOR.shared / len(self.cuts))
        return np.asarray(
            (1 - np.float32(PRIOR.shared)) * membership + share * added, np.float32
        )

    def _shared_in(
        self,
        cut: NDArray[np.int32],
        membership: NDArray[np.float32],
        fixed: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> NDArray[np.float32]:
        count, k = int(cut.max()) + 1, membership.shape[1]
        stroked = np.zeros((count, k), np.bool_)
        stroked[cut[fixed[0]], fixed[1]] = True
        is_shared = stroked.sum(axis=1) <= 1
        is_shared[0] = False
        total = np.maximum(np.bincount(cut, self.weights, count), 1e-6)
        sums = [np.bincount(cut, c * self.weights, count) for c in membership.T]
        mean = (np.stack(sums, axis=1) / total[:, None]).astype(np.float32)
        found: NDArray[np.float32] = np.where(
            is_shared[cut][:, None], mean[cut], membership
        )
        return found

    def within_reach(
        self,
        seeds: NDArray[np.integer],
        allowed: NDArray[np.bool_],
        reach_mm: float,
    ) -> NDArray[np.bool_]:
        """Return a mask (n,) of the allowed supervoxels on paths of at most `reach_mm`.

        Paths run over allowed supervoxels, from centre to centre. Inside the seeds' own
        regions they cost half.
        """
        inside = allowed.copy()
        inside[seeds] = True
        own = np.isin(self.own_regions, np.unique(self.own_regions[seeds]))
        own &= self.own_regions > 0
        pairs = self.pairs[inside[self.pairs].all(axis=1)]
        steps = self.steps_mm[inside[self.pairs].all(axis=1)]
        steps = np.where(own[pairs].all(axis=1), PRIOR.own_step, 1.0) * steps
        members = np.flatnonzero(inside)
        a, b = np.searchsorted(members, pairs).T
        graph = csr_array((steps, (a, b)), shape=(len(members), len(members)))
        far = dijkstra(
            graph,
            directed=False,
            indices=np.searchsorted(members, seeds),
            min_only=True,
            limit=reach_mm,
        )
        reached = np.zeros(len(inside), np.bool_)
        reached[members] = np.isfinite(far)
        return reached


def region_prior(
    proposal: Proposal,
    points: NDArray[np.float32],
    n_appearance: int,
    centers_mm: NDArray[np.floating],
    weights: NDArray[np.float32],
) -> RegionPrior:
    """Compute the prior of a proposal, once per case.

    `points` are the supervoxels in feature space, of which the first `n_appearance`
    columns describe appearance; `centers_mm` (n, 3) their centres.
    """
    tree, pairs = proposal.region_tree, proposal.edges.reshape(-1, 2)
    joined = np.maximum(tree.joined_at(pairs), 1)
    finest = np.log(PRIOR.finest_border)
    borders = PRIOR.border_length * np.maximum(0, 1 - np.log(joined) / finest)
    steps = np.sqrt(((centers_mm[pairs[:, 0]] - centers_mm[pairs[:, 1]]) ** 2).sum(1))
    names = list(proposal.descriptor_names)
    column = names.index("brightness mean") if "brightness mean" in names else 0
    appearance = points[:, :n_appearance]
    return RegionPrior(
        paths=GeodesicDistances(appearance, pairs, borders, points),
        cuts=tuple(tree.cut(n) for n in PRIOR.shared_cuts),
        own_regions=tree.cut(PRIOR.own_regions),
        pairs=pairs,
        steps_mm=steps.astype(np.float32),
        intensity=np.nan_to_num(proposal.descriptors[:, column]).astype(np.float32),
        weights=weights,
    )
