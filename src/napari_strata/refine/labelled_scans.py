"""Teachings from labelled scans: every supervoxel is an example, of background too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.errors import GeometryError, TeachingError
from napari_strata.proposal.codebook.cohort_table import (
    IntensityMap,
    Leaves,
    align_intensity,
    leaves_of,
)
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.transfer import (
    Teaching,
    comparable_features,
    comparable_table,
    inputs_of_head,
    usual_distance,
)
from napari_strata.refine.transfer_head import TransferHead
from napari_strata.volume import BACKGROUND, Region, Segmentation

_PURE_SHARE = 0.8
"""A supervoxel teaches if at least this share of its voxels has one label."""
_PER_REGION, _BACKGROUND_EXAMPLES = 1500, 6000
"""Most supervoxels of a region and of background that the classifier sees, per scan."""
_NEAREST_PER_REGION, _NEAREST_BACKGROUND = 600, 1500
"""Of them, those that are kept as nearest examples, over all scans.

More of them let background win near every border (docs/teaching.md).
"""


_FARTHEST_PERCENT, _UNLIKE_FACTOR = 99.9, 3.0
"""What lies farther from every example than this multiple of the farthest one in the
teaching scans is like nothing that was taught, such as lungs for an abdominal scan."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledProposal:
    """A proposal and labels of the same scan.

    Parameters
    ----------
    proposal : Proposal
        Of the scan.
    labels : Segmentation
        Labels on the scan's grid; 0 is background.

    Raises
    ------
    GeometryError
        If the labels lie on another grid.
    """

    proposal: Proposal
    labels: Segmentation

    def __post_init__(self) -> None:
        if self.labels.labels.shape != self.proposal.supervoxels.shape:
            raise GeometryError(
                f"The labels are {self.labels.labels.shape} voxels and the scan"
                f" {self.proposal.supervoxels.shape}. Give labels of this scan."
            )

    def table(self, ids: dict[int, int]) -> NDArray[np.int32]:
        """Return the region of each supervoxel, -1 where labels are mixed.

        Parameters
        ----------
        ids : dict of int to int
            Region id of each label; others are background.
        """
        values, index = np.unique(self.labels.labels, return_inverse=True)
        own = np.array([ids.get(int(value), BACKGROUND) for value in values], np.int32)
        width = int(own.max(initial=0)) + 1
        n = self.proposal.n_supervoxels
        count = np.bincount(
            self.proposal.supervoxels.ravel().astype(np.int64) * width
            + own[index.ravel()],
            minlength=n * width,
        ).reshape(n, width)
        best = count.argmax(axis=1)
        pure = count[np.arange(n), best] >= _PURE_SHARE * count.sum(axis=1)
        return np.where(pure, best, -1).astype(np.int32)


def teach_labels(scans: Sequence[LabelledProposal], *, seed: int = 0) -> Teaching:
    """Fit a teaching to labelled scans; several scans add up.

    Regions of the same name are one region. Intensities of MR scans are brought to the
    scale of the first scan. The position along an axis counts only where the body of
    every scan ends inside the scan, because a share of a field of view means nothing in
    another one.

    Parameters
    ----------
    scans : sequence of LabelledProposal
        At least one; all of one modality and seen with one encoder.
    seed : int
        Seed for the choice of examples.

    Raises
    ------
    TeachingError
        If there is no labelled supervoxel, or the scans differ in modality or encoder.
    """
    if not scans:
        raise TeachingError("There is no labelled scan to teach from. Give one.")
    regions, ids = _joined_regions([scan.labels for scan in scans])
    axes = _axes_inside([scan.proposal for scan in scans])
    first = comparable_table(scans[0].proposal)
    reference = leaves_of(first, seed=seed)
    rng = np.random.default_rng(seed)
    features, inputs, taught = [], [], []
    for scan, own in zip(scans, ids, strict=True):
        described = comparable_table(scan.proposal)
        if (described.modality, described.weights_sha256, described.names) != (
            first.modality,
            first.weights_sha256,
            first.names,
        ):
            raise TeachingError(
                f"{scan.proposal.volume.name} differs from"
                f" {scans[0].proposal.volume.name} in modality or encoder. Teach with"
                " scans of one kind."
            )
        mapped = _map(scan, scans[0], reference, seed)
        table = np.where(described.body, scan.table(own), -1)
        picked = _pick(table, rng)
        taught.append(table[picked])
        features.append(
            comparable_features(scan.proposal, described, mapped, axes)[picked]
        )
        inputs.append(inputs_of_head(scan.proposal, described, mapped, axes)[picked])
    example_regions = np.concatenate(taught)
    there = set(np.unique(example_regions).tolist()) - {BACKGROUND}
    if not there:
        raise TeachingError(
            "No supervoxel of the body lies inside a label, so nothing can be taught."
            " Check that the labels belong to the scan and are not empty."
        )
    head = TransferHead.fit(np.concatenate(inputs), example_regions)
    near = _pick(example_regions, rng, _NEAREST_PER_REGION, _NEAREST_BACKGROUND)
    kept = np.concatenate(features)[near]
    return Teaching(
        regions=tuple(region for region in regions if region.id in there),
        features=kept,
        example_regions=example_regions[near].astype(np.int32),
        reference=reference,
        typical_distance=usual_distance(kept, example_regions[near]),
        modality=first.modality,
        weights_sha256=first.weights_sha256,
        names=first.names,
        about={
            "seed": seed,
            "scan": ", ".join(scan.proposal.volume.name for scan in scans),
            "napari_strata": __version__,
            "settings": first.settings,
        },
        head=head,
        place_axes=axes,
        unlike_above=_UNLIKE_FACTOR
        * usual_distance(kept, example_regions[near], _FARTHEST_PERCENT),
    )


def _map(
    scan: LabelledProposal, first: LabelledProposal, reference: Leaves, seed: int
) -> IntensityMap:
    """Return the map of a scan's intensity to that of the first scan."""
    if scan is first or scan.proposal.volume.modality == "ct":
        return IntensityMap()
    return align_intensity(
        leaves_of(comparable_table(scan.proposal), seed=seed), reference
    )


def _pick(
    table: NDArray[np.integer],
    rng: np.random.Generator,
    per_region: int = _PER_REGION,
    background: int = _BACKGROUND_EXAMPLES,
) -> NDArray[np.intp]:
    """Return rows of each region, at most so many, chosen at random; -1 is left out."""
    chosen = [
        rng.permutation(np.flatnonzero(table == region))[
            : background if region == BACKGROUND else per_region
        ]
        for region in np.unique(table)
        if region >= 0
    ]
    return np.concatenate(chosen) if chosen else np.empty(0, np.intp)


def _joined_regions(
    labels: Sequence[Segmentation],
) -> tuple[tuple[Region, ...], list[dict[int, int]]]:
    """Return the regions of all scans, and for each scan the region id of each label.

    Ids are kept where they are free, so that labels of one scan keep theirs.
    """
    by_name: dict[str, Region] = {}
    ids: list[dict[int, int]] = []
    for one in labels:
        own: dict[int, int] = {}
        for region in one.regions:
            if region.id == BACKGROUND:
                continue
            key = region.name.casefold()
            if key not in by_name:
                used = {known.id for known in by_name.values()}
                free = region.id if region.id not in used else max(used) + 1
                by_name[key] = replace(region, id=free)
            own[region.id] = by_name[key].id
        ids.append(own)
    return tuple(sorted(by_name.values(), key=lambda region: region.id)), ids


def _axes_inside(proposals: Sequence[Proposal]) -> tuple[bool, bool, bool]:
    """Return for z, y and x whether every body ends inside its scan on one side at least."""
    inside = np.ones(3, bool)
    for proposal in proposals:
        tree = proposal.tissue_tree
        body = np.ones(proposal.n_supervoxels, bool)
        body[tree.leaf_order[: tree.n_background]] = False
        for axis in range(3):
            ends = (np.take(proposal.supervoxels, at, axis=axis) for at in (0, -1))
            if all(body[end].any() for end in ends):
                inside[axis] = False
    z, y, x = inside.tolist()
    return z, y, x
