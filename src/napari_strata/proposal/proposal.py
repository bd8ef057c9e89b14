"""Proposal of a scan: supervoxels, merge trees and confidence, before any edit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError
from napari_strata.proposal.cut_confidence import CutConfidence
from napari_strata.proposal.hierarchy.stable_cut import (
    STABLE_REGIONS,
    STABLE_TISSUES,
    stable_count,
)
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.reading.mirror_pairs import MirrorPair, find_pairs
from napari_strata.proposal.reading.outliers import Outlier, find_outliers
from napari_strata.proposal.reading.palette import Color, tree_colors
from napari_strata.proposal.reading.scan_tables import DescriptorTable, scan_tables
from napari_strata.proposal.reading.symmetry_plane import Symmetry
from napari_strata.volume import (
    Segmentation,
    Volume,
    colored_regions,
    smallest_label_dtype,
)

_COLORS: WeakKeyDictionary[Proposal, dict[TreeName, tuple[Color, ...]]]
_COLORS = WeakKeyDictionary()
"""Colours that were chosen already, because a cut is to take no time."""

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


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
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
        In [0, 1], per supervoxel; the mean over the cuts of `cut_confidence`.
    edges : (e, 2) int32 array
        Pairs of touching supervoxels, first id smaller.
    provenance : dict
        Settings, seed, versions, weights hash, timings: plain values, for the sidecar.
    descriptor_scale : (2, d) float32 array or None
        Mean and spread that each column was standardised by, so that scans can be
        compared; None in cases of earlier versions.
    cut_confidence : CutConfidence or None
        Confidence at a few cuts, see `confidence_at`; None in cases of earlier versions,
        and for methods that estimate one confidence only.

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
    cut_confidence: CutConfidence | None = None

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

    def confidence_at(self, name: TreeName, n: int) -> NDArray[np.float32]:
        """Return the confidence of every supervoxel at a cut, (n_supervoxels,) float32.

        It is the probability that a voxel is of the class that most of its region is of:
        a coarse cut is right less often than a fine one. `confidence`, where a proposal
        holds no other.
        """
        if self.cut_confidence is None:
            return self.confidence
        return self.cut_confidence.at(name, n)

    def symmetry(self) -> Symmetry:
        """Find the plane of symmetry, and collect what outliers and pairs need."""
        tables = scan_tables(
            self.supervoxels,
            self._descriptor_table(),
            self.region_tree,
            self.volume.geometry,
            self.volume.modality,
        )
        return Symmetry.of(tables)

    def outliers(self, n: int = 10) -> tuple[Outlier, ...]:
        """Return up to n regions of the region tree that are unlike the rest of the scan.

        They do not overlap, and the most unlike comes first. They fit no other part of
        the scan, or differ from their mirrored place. This is no diagnosis: the heart of
        a chest, or the fluid around a brain, is unlike the rest too. It takes half a
        second for a head of 256³ voxels; see `find_outliers`.
        """
        return find_outliers(self.symmetry(), n)

    def pairs(self, n: int | Literal["auto"] = "auto") -> tuple[MirrorPair, ...]:
        """Return the regions of a cut that are mirror images, such as two kidneys.

        Ids are those of ``regions(n)``. There are no pairs in a body without a clear
        plane of symmetry; see `find_pairs`.
        """
        count = self.as_proposed("regions") if n == "auto" else n
        return find_pairs(self.symmetry(), self.region_tree.cut(count))

    def colors(self, name: TreeName) -> tuple[Color, ...]:
        """Return the colours of the ids 1, 2, ... of a tree, the same in every cut.

        Like intensities look alike, and touching regions differ; see `tree_colors`.
        """
        known = _COLORS.setdefault(self, {})
        if name not in known:
            table = self._descriptor_table()
            intensity = table.column("brightness mean", "intensity mean")
            if intensity is None:
                intensity = np.zeros(self.n_supervoxels, np.float32)
            known[name] = tree_colors(self.tree(name), intensity, self.edges)
        return known[name]

    def _descriptor_table(self) -> DescriptorTable:
        return DescriptorTable(
            self.descriptors, self.descriptor_names, self.descriptor_scale
        )

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
            colored_regions(
                np.unique(table), name.removesuffix("s"), self.colors(name)
            ),
            self.volume.geometry,
        )
