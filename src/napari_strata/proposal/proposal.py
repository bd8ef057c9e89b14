"""Proposal of a scan: supervoxels, merge trees and confidence, before any edit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.proposal.hierarchy.stable_cut import (
    STABLE_REGIONS,
    STABLE_TISSUES,
    stable_count,
)
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.volume import (
    Segmentation,
    Volume,
    default_regions,
    smallest_label_dtype,
)

logger = logging.getLogger(__name__)

TreeName = Literal["regions", "tissues"]

SUGGESTED_RANGE: dict[TreeName, tuple[int, int]] = {
    "tissues": (2, 64),
    "regions": (4, 400),
}
"""Coarsest and finest cut that may be suggested."""
STABLE_RANGE: dict[TreeName, tuple[int, int]] = {
    "tissues": STABLE_TISSUES,
    "regions": STABLE_REGIONS,
}
"""Fewest and most tissues and regions that a proposal opens on."""
_DEFAULT_CUT: dict[TreeName, int] = {"tissues": 16, "regions": 100}
"""Number of regions for trees without a stable cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Supervoxels, two trees over them, and confidence.

    Parameters
    ----------
    volume : Volume
        The scan.
    supervoxels : (z, y, x) int32 array
        Supervoxel id 0 .. n - 1 of every voxel of the scan, every id in use.
    descriptors : (n, d) float32 array
        Descriptors of each supervoxel, standardised over the body. Columns are named by
        `descriptor_names`.
    descriptor_names : tuple of str
        For example "feature 0.3", "brightness mean", "position z".
    region_tree, tissue_tree : Hierarchy
        Trees of touching supervoxels, and of similar supervoxels anywhere in the scan.
    confidence : (n,) float32 array
        In [0, 1], per supervoxel.
    edges : (e, 2) int32 array
        Pairs of touching supervoxels, first id smaller.
    provenance : dict
        Settings, seed, versions, weights hash, timings: plain values, for the sidecar.
    descriptor_scale : (2, d) float32 array or None
        Mean and spread that each column was standardised by, so that scans can be
        compared; None in cases of earlier versions.

    Examples
    --------
    >>> proposal.tissues(4).regions[0].name  # alike, anywhere in the scan
    'tissue 1'
    >>> len(proposal.regions(6).regions)  # connected
    6
    >>> sure = proposal.confidence[proposal.supervoxels]  # of every voxel
    >>> sure.shape
    (24, 24, 24)
    """

    volume: Volume
    supervoxels: NDArray[np.int32]
    descriptors: NDArray[np.float32]
    descriptor_names: tuple[str, ...]
    region_tree: Hierarchy
    tissue_tree: Hierarchy
    confidence: NDArray[np.float32]
    edges: NDArray[np.int32]
    provenance: dict[str, Any] = field(default_factory=dict)
    descriptor_scale: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.supervoxels.shape != self.volume.data.shape:
            raise GeometryError(
                f"Supervoxels are {self.supervoxels.shape} but the volume is"
                f" {self.volume.data.shape}."
            )

    @property
    def n_supervoxels(self) -> int:
        """Number of supervoxels, background included."""
        return len(self.descriptors)

    @property
    def magnification(self) -> float:
        """Factor by which the scan was magnified; 1.0 except for small bodies (a mouse's)."""
        return float(self.provenance.get("magnification", 1.0))

    def tree(self, name: TreeName) -> Hierarchy:
        """Return the tree called "regions" or "tissues"."""
        return self.region_tree if name == "regions" else self.tissue_tree

    def suggested(self, name: TreeName) -> tuple[int, ...]:
        """Return up to four cuts at which a tree is stable, coarse to fine.

        See `Hierarchy.marks`.
        """
        return self.tree(name).marks(*SUGGESTED_RANGE[name])

    def middle_suggestion(self, name: TreeName) -> int:
        """Return the middle one of `suggested` (the finer of two).

        If there is none, return 16 tissues or 100 regions, or as many as the tree has.
        """
        marks = self.suggested(name)
        return (
            marks[len(marks) // 2]
            if marks
            else min(_DEFAULT_CUT[name], self.tree(name).max_regions)
        )

    def as_proposed(self, name: TreeName) -> int:
        """Return the number of tissues or regions that a person sees first.

        Each branch is shown at a level where it is stable, see `stable_cut`. A proposal
        of an earlier version, or of a method that chooses none, opens on its most
        persistent cut of as many regions.
        """
        chosen = self.provenance.get("as_proposed", {}).get(name)
        if chosen is None:
            return stable_count(self.tree(name), *STABLE_RANGE[name])
        return max(1, min(int(chosen), self.tree(name).max_regions))

    def tissues(self, n: int | Literal["auto"]) -> Segmentation:
        """Cut the tissue tree: n groups of similar supervoxels besides region 0.

        "auto" takes as many as `as_proposed` says.
        """
        return self._segmentation("tissues", n)

    def regions(self, n: int | Literal["auto"]) -> Segmentation:
        """Cut the region tree: n connected regions besides region 0.

        "auto" takes as many as `as_proposed` says.
        """
        return self._segmentation("regions", n)

    def _segmentation(
        self, name: TreeName, count: int | Literal["auto"]
    ) -> Segmentation:
        tree = self.tree(name)
        n = self.as_proposed(name) if count == "auto" else count
        if n > tree.max_regions:
            logger.warning(
                "Asked for %d %s; the scan has only %d supervoxels in the body, so it"
                " gets that many.",
                n,
                name,
                tree.max_regions,
            )
        table = tree.cut(n)
        dtype = smallest_label_dtype(int(table.max(initial=0)))
        labels = table.astype(dtype)[self.supervoxels]
        return Segmentation(
            labels,
            default_regions(np.unique(table), name.removesuffix("s")),
            self.volume.geometry,
        )
