"""Ways to learn from strokes, on the same supervoxels.

Ours, its parts left out, and what others use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from benchmarks.refine.robot_scans import RobotScan
from benchmarks.refine.robot_user import region_of
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import cg
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels.descriptors import Pooler
from napari_strata.refine.scribble import scribble_classifier as teaching
from napari_strata.refine.state.proposal_index import ProposalIndex

Decide = Callable[[NDArray[np.int32]], NDArray[np.int32]]
"""Takes the region that strokes showed for each supervoxel.

(-1 for none), gives a region for each.
"""


def ours(scan: RobotScan, proposal: Proposal | None = None) -> Decide:
    """Strata's head."""
    space = ProposalIndex(proposal or scan.proposal).feature_space

    def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
        said = teaching.classify(
            space,
            teaching.StrokeExamples(
                examples, np.zeros(len(examples), np.int32), examples < 0
            ),
        )
        return np.where(said == teaching.STAY, 0, said)

    return decide


def ours_without(prefix: str) -> Callable[[RobotScan], Decide]:
    """Strata's head with some descriptors left out."""

    def make(scan: RobotScan) -> Decide:
        kept = [
            k
            for k, name in enumerate(scan.proposal.descriptor_names)
            if not name.startswith(prefix)
        ]
        names = tuple(scan.proposal.descriptor_names[k] for k in kept)
        return ours(
            scan,
            dataclasses.replace(
                scan.proposal,
                descriptors=scan.proposal.descriptors[:, kept],
                descriptor_names=names,
            ),
        )

    return make


def ours_with(**constants: float) -> Callable[[RobotScan], Decide]:
    """Strata's head with other weights of its terms."""

    def make(scan: RobotScan) -> Decide:
        inner = ours(scan)

        def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
            before = teaching.CONSTANTS
            try:
                teaching.CONSTANTS = dataclasses.replace(before, **constants)
                return inner(examples)
            finally:
                teaching.CONSTANTS = before

        return decide

    return make


def classifier(
    model: Callable[[], object], columns: Callable[[RobotScan], NDArray[np.float32]]
) -> Callable[[RobotScan], Decide]:
    """A classifier that is fitted to the supervoxels that strokes crossed, nothing else."""

    def make(scan: RobotScan) -> Decide:
        table = columns(scan)

        def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
            shown = np.flatnonzero(examples >= 0)
            return model().fit(table[shown], examples[shown]).predict(table)  # type: ignore[attr-defined]

        return decide

    return make


def spread(scan: RobotScan) -> tuple[NDArray[np.float32], sparse.csr_array]:
    space = ProposalIndex(scan.proposal).feature_space
    return space.points[:, : space.n_appearance], space.neighbours


def ways_alone(scan: RobotScan) -> Decide:
    """The region whose stroke is nearest over like neighbours (a geodesic Voronoi diagram)."""
    points, _ = spread(scan)
    a, b = scan.proposal.edges.T
    apart = np.sqrt(((points[a] - points[b]) ** 2).sum(axis=1))
    graph = sparse.csr_array(
        (apart / np.median(apart) + 0.1, (a, b)), shape=(len(points),) * 2
    )

    def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
        shown = np.flatnonzero(examples >= 0)
        _, _, source = dijkstra(
            graph,
            directed=False,
            indices=shown,
            min_only=True,
            return_predecessors=True,
        )
        return np.where(source >= 0, examples[np.maximum(source, 0)], 0).astype(
            np.int32
        )

    return decide


def random_walker(scan: RobotScan) -> Decide:
    """Random walker (Grady, 2006) on the supervoxel graph, strokes as seeds."""
    points, _ = spread(scan)
    a, b = scan.proposal.edges.T
    apart = ((points[a] - points[b]) ** 2).sum(axis=1)
    weight = np.exp(-apart / np.median(apart)) + 1e-5
    half = sparse.csr_array((weight, (a, b)), shape=(len(points),) * 2)
    links = sparse.csr_array(half + half.T)
    laplacian = sparse.csr_array(
        sparse.diags_array(np.asarray(links.sum(axis=1)).ravel()) - links
    )

    def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
        shown, free = np.flatnonzero(examples >= 0), np.flatnonzero(examples < 0)
        inner, border = laplacian[free][:, free], laplacian[free][:, shown]
        precondition = sparse.diags_array(1 / np.maximum(inner.diagonal(), 1e-12))
        choices = np.unique(examples[shown])
        chance = [
            cg(
                inner,
                -(border @ (examples[shown] == c)),
                M=precondition,
                rtol=1e-3,
                maxiter=300,
            )[0]
            for c in choices
        ]
        said = examples.copy()
        said[free] = choices[np.argmax(chance, axis=0)]
        return said

    return decide


def forest_spread(scan: RobotScan) -> Decide:
    """A random forest on descriptors.

    Its votes evened out over touching supervoxels with strokes held fast.
    """
    table, (_, links) = descriptors(scan), spread(scan)

    def decide(examples: NDArray[np.int32]) -> NDArray[np.int32]:
        shown = np.flatnonzero(examples >= 0)
        choices, column = np.unique(examples[shown], return_inverse=True)
        votes = forest().fit(table[shown], examples[shown]).predict_proba(table)
        now = votes
        for _ in range(8):
            now = 0.2 * votes + 0.8 * (links @ now)
            now[shown] = 0
            now[shown, column] = 1
        return choices[now.argmax(axis=1)].astype(np.int32)

    return decide


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(100, random_state=0, n_jobs=1)


def descriptors(scan: RobotScan) -> NDArray[np.float32]:
    """All descriptors of the proposal, position too."""
    return np.nan_to_num(scan.proposal.descriptors)


def filter_bank(scan: RobotScan) -> NDArray[np.float32]:
    """What ilastik looks at, averaged over supervoxels, and the position.

    Six scales of smoothing, edges and texture.
    """
    volume, n = scan.proposal.volume, scan.proposal.n_supervoxels
    low, high = np.percentile(volume.data, (1, 99.5))
    intensity = np.clip(
        (np.asarray(volume.data, np.float32) - low) / max(high - low, 1e-6), -0.5, 1.5
    ).astype(np.float32)
    pooler = Pooler(scan.proposal.supervoxels, n)
    columns = [
        pooler.mean(intensity[..., None])[:, 0],
        np.sqrt(np.maximum(pooler.mean((intensity * intensity)[..., None])[:, 0], 0)),
    ]
    for sigma in (0.7, 1.0, 1.6, 3.5, 5.0, 10.0):
        columns += [
            pooler.mean(np.ascontiguousarray(one[..., None]))[:, 0]
            for one in _filtered(intensity, sigma)
        ]
    place = [
        k
        for k, name in enumerate(scan.proposal.descriptor_names)
        if name.startswith("position")
    ]
    table = np.column_stack([*columns, scan.proposal.descriptors[:, place]])
    return ((table - table.mean(axis=0)) / (table.std(axis=0) + 1e-6)).astype(
        np.float32
    )


def _filtered(
    intensity: NDArray[np.float32], sigma: float
) -> list[NDArray[np.float32]]:
    smooth = ndimage.gaussian_filter(intensity, sigma, truncate=3)
    slope = np.gradient(smooth)
    steep = np.sqrt(sum(one * one for one in slope))
    if sigma in (0.7, 10.0):
        return [smooth, steep]
    curve = [np.gradient(one) for one in slope]
    (zz, zy, zx), (_, yy, yx), (_, _, xx) = curve
    size = np.sqrt(zz**2 + yy**2 + xx**2 + 2 * (zy**2 + zx**2 + yx**2))
    volume = np.cbrt(
        zz * (yy * xx - yx**2) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
    )
    rough = np.sqrt(
        np.maximum(
            ndimage.gaussian_filter(intensity * intensity, sigma, truncate=3)
            - smooth**2,
            0,
        )
    )
    return [
        smooth,
        steep,
        zz + yy + xx,
        size,
        volume,
        rough,
        ndimage.gaussian_filter(steep, sigma, truncate=3),
    ]


HEADS: dict[str, Callable[[RobotScan], Decide]] = {
    "ours": ours,
    "ours, no encoder features": ours_without("feature"),
    "ours, no position": ours_without("position"),
    "ours, no ways": ours_with(geodesic_weight=0.0),
    "ours, no common scatter": ours_with(pooled_weight=0.0),
    "ours, nothing learnt from the sure": ours_with(self_training_weight=0.0),
    "ours, no limit": ours_with(unlike_limit=1e6),
    "ours, not evened out": ours_with(iterations=0, first_iterations=0),
    "filter bank + forest (ilastik-like)": classifier(forest, filter_bank),
    "descriptors + forest": classifier(forest, descriptors),
    "descriptors + forest + evened out": forest_spread,
    "descriptors + logistic": classifier(
        lambda: LogisticRegression(max_iter=300), descriptors
    ),
    "descriptors + LDA": classifier(
        lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3), descriptors
    ),
    "descriptors + boosting": classifier(
        lambda: HistGradientBoostingClassifier(
            max_iter=40, min_samples_leaf=2, random_state=0
        ),
        descriptors,
    ),
    "descriptors + prototypes": classifier(NearestCentroid, descriptors),
    "random walker": random_walker,
    "ways alone": ways_alone,
}
"""By name; how each performs is in docs/refine.md."""


class TableClicks:
    """Clicks that teach a head, on the table of supervoxels.

    Voxels of strokes win over it, as painted ones do.
    """

    def __init__(self, scan: RobotScan, decide: Decide) -> None:
        self.scan, self.decide = scan, decide
        self.regions = [region_of(value) for value in scan.taught]
        self.counts = np.zeros(
            (scan.proposal.n_supervoxels, len(self.regions)), np.int32
        )
        self.told = np.full(scan.proposal.supervoxels.size, -1, np.int32)
        self.clicks = 0

    def __call__(self, voxels: NDArray[np.int64], region: int) -> NDArray[np.integer]:
        flat = np.ravel_multi_index(
            tuple(voxels.T), self.scan.proposal.supervoxels.shape
        )
        held, old = self.scan.proposal.supervoxels.ravel()[flat], self.told[flat]
        np.subtract.at(self.counts, (held[old >= 0], old[old >= 0]), 1)
        np.add.at(self.counts, (held, self.regions.index(region)), 1)
        self.told[flat] = self.regions.index(region)
        self.clicks += 1
        if self.clicks < len(self.regions):
            # nobody looks before every class has its click
            return np.zeros(1, np.uint8)
        names = np.array(self.regions, np.int32)
        shown = self.counts.max(axis=1) > 0
        examples = np.where(shown, names[self.counts.argmax(axis=1)], -1).astype(
            np.int32
        )
        table = np.where(shown, examples, self.decide(examples)).astype(np.uint8)
        labels = table[self.scan.proposal.supervoxels]
        at = np.flatnonzero(self.told >= 0)
        labels.ravel()[at] = names[self.told[at]]
        return labels
