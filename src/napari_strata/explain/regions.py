"""Explain a region: what unites it, and what separates it from its most similar neighbour.

Everything is computed from the proposal's table of supervoxels, so an answer takes
milliseconds and follows every edit. It shows what the proposal saw, not what the tissue
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import RegionError, SettingsError
from napari_strata.proposal.methods.registry import method_names
from napari_strata.proposal.proposal import Proposal, TreeName

EvidenceGroup = Literal["features", "intensity", "position"]

_PRIOR_SUPERVOXELS = 1.0
"""Weight, in supervoxels, of the body's variance (1) against a region's own."""
_TELLING_COLUMNS = 5
"""Descriptors named in an explanation: as many as a person reads."""
_COLOR_PERCENTILES = (1, 99)
"""Percentiles over the body between which a colour goes from none to full."""


@dataclass(frozen=True, slots=True)
class EvidenceSplit:
    """Share of each group of descriptors in a separation.

    Shares sum to 1, or are zeros if nothing separates.

    Parameters
    ----------
    features : float
        Encoder features.
    intensity : float
        Intensity inside, around, and across the boundary.
    position : float
        Position in the scan.
    """

    features: float
    intensity: float
    position: float


@dataclass(frozen=True, slots=True)
class TellingColumn:
    """One descriptor in which a region and its neighbour differ.

    Parameters
    ----------
    name : str
        The descriptor's name, for example "brightness mean".
    difference_sd : float
        Region minus neighbour, in standard deviations inside the two.
    """

    name: str
    difference_sd: float

    @property
    def title(self) -> str:
        """Name to show: files keep the name that intensity had in earlier versions."""
        return self.name.replace("brightness", "intensity")


@dataclass(frozen=True, slots=True)
class RegionCard:
    """Explanation of a region and of what separates it from a neighbour.

    Parameters
    ----------
    id : int
        The region; 0 is background.
    n_supervoxels, voxels : int
        Its size. Hand-painted voxels are not in a table of supervoxels, and do not
        count.
    volume_ml : float
        Volume in mL.
    confidence : float
        The proposal's confidence in [0, 1], averaged over the region's voxels.
    similarity : float
        How much its own supervoxels look like its prototype, in [0, 1]: what makes it
        one.
    neighbor : int or None
        The touching region most similar to it (it can be 0); None where no other
        region touches it.
    neighbor_similarity : float
        How much that region's supervoxels look like this region's prototype, in [0, 1];
        0 without a neighbour.
    evidence : EvidenceSplit
        What separates the two.
    telling : tuple of TellingColumn
        The descriptors that separate them most, the most telling first.
    """

    id: int
    n_supervoxels: int
    voxels: int
    volume_ml: float
    confidence: float
    similarity: float
    neighbor: int | None
    neighbor_similarity: float
    evidence: EvidenceSplit
    telling: tuple[TellingColumn, ...]


@dataclass(frozen=True, slots=True)
class MergeStep:
    """One merge on a region's way to the whole body.

    Parameters
    ----------
    n : int
        The finest cut in which the two are one.
    region : int
        Their id in that cut.
    joined : int
        The id, in the cut at n + 1, of what the region joins with.
    joined_ml, volume_ml : float
        Volume in mL of what it joins with, and of the two together.
    height : float
        Merge height: how unlike the two are, in the tree's own unit.
    """

    n: int
    region: int
    joined: int
    joined_ml: float
    volume_ml: float
    height: float


@dataclass(frozen=True, slots=True)
class MergePath:
    """Coarser and finer cuts of a region when the slider moves.

    Parameters
    ----------
    tree : {"regions", "tissues"}
        The tree that was asked.
    region : int
        The id that the smallest branch holding the region has in the tree's cuts.
    volume_ml : float
        Volume of that branch in mL.
    share : float
        How much of that branch's volume is the region's: 1 for a region as a cut gives
        it, less after edits.
    whole_at : int
        The finest cut in which the branch is one.
    parts_at : int or None
        The coarsest cut that parts it; None for a single supervoxel.
    steps : tuple of MergeStep
        The merges that swallow it, the finest first; the last one gives the whole body.
    """

    tree: TreeName
    region: int
    volume_ml: float
    share: float
    whole_at: int
    parts_at: int | None
    steps: tuple[MergeStep, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Crowd:
    """Supervoxels: rows (k, d) or (k,), and weights (k,) by size that sum to k."""

    rows: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.weights @ self.rows / len(self.rows)

    @property
    def spread(self) -> NDArray[np.float64]:
        """Return the weighted sum of squares about the mean."""
        return self.weights @ (self.rows - self.mean) ** 2


def explain_region(
    proposal: Proposal, table: NDArray[np.integer], region: int
) -> RegionCard:
    """Explain a region and what separates it from its most similar touching region.

    The evidence is counted per group of descriptors along the line between the two
    regions' means: the squared difference of means over the pooled variance inside the
    two (Fisher's criterion on a fixed direction, so that redundant columns count once),
    divided by the sum over groups.

    Parameters
    ----------
    proposal : Proposal
        What the table speaks of.
    table : (n_supervoxels,) integer array
        The region of each supervoxel: `Hierarchy.cut(n)` or `Refinement.view.table`.
    region : int
        An id in the table; 0 asks about background.

    Returns
    -------
    RegionCard
        The answer, for a person to judge.

    Raises
    ------
    RegionError
        If no supervoxel belongs to the region, or the table is not one of this
        proposal.
    """
    members = _members(proposal, table, region)
    sizes = _sizes_vox(proposal)
    alike = _similarity(proposal, sizes, members)
    neighbor, neighbor_alike = _most_alike_neighbor(
        proposal, table, region, alike, sizes
    )
    evidence = EvidenceSplit(0.0, 0.0, 0.0)
    telling: tuple[TellingColumn, ...] = ()
    if neighbor is not None:
        sides = (
            _crowd(proposal, sizes, members),
            _crowd(proposal, sizes, np.flatnonzero(table == neighbor)),
        )
        evidence, telling = _evidence(proposal, *sides), _telling(proposal, *sides)
    voxels = int(sizes[members].sum())
    return RegionCard(
        id=int(region),
        n_supervoxels=len(members),
        voxels=voxels,
        volume_ml=voxels * proposal.volume.geometry.voxel_volume_mm3 / 1000.0,
        confidence=float(
            np.average(proposal.confidence[members], weights=sizes[members])
        ),
        similarity=float(np.average(alike[members], weights=sizes[members])),
        neighbor=neighbor,
        neighbor_similarity=neighbor_alike,
        evidence=evidence,
        telling=telling,
    )


def similarity_map(
    proposal: Proposal, table: NDArray[np.integer], region: int
) -> NDArray[np.float32]:
    """Return how similar every supervoxel is to a region's prototype.

    The prototype is the region's mean; distances are in the region's own standard
    deviations, so a region of varied texture tolerates more than a uniform one.
    Features and intensity count half each; position does not count, so that similar
    tissue shows wherever it lies.

    Parameters
    ----------
    proposal, table, region
        As for `explain_region`, which raises the same errors.

    Returns
    -------
    (n_supervoxels,) float32 array
        In [0, 1], 1 at the prototype; `similarity[proposal.supervoxels]` is the map
        over voxels. Not calibrated.
    """
    return _similarity(
        proposal, _sizes_vox(proposal), _members(proposal, table, region)
    )


def merge_path(
    proposal: Proposal, table: NDArray[np.integer], region: int, tree: TreeName
) -> MergePath | None:
    """Return a region's path through a tree.

    It lists the successively coarser regions that contain it, and the cut that splits it.

    Parameters
    ----------
    proposal, table, region
        As for `explain_region`, which raises the same errors.
    tree : {"regions", "tissues"}
        The tree to follow it through; best the one that the table was cut from.

    Returns
    -------
    MergePath or None
        None for background, which no cut moves.
    """
    members = _members(proposal, table, region)
    hierarchy = proposal.tree(tree)
    line = hierarchy.lineage(members)
    if line is None:
        return None
    sizes = _sizes_vox(proposal)
    before = np.append(0, np.cumsum(sizes[hierarchy.leaf_order]))
    inside = np.intersect1d(members, hierarchy.leaf_order[line.begin : line.end])
    voxel_ml = proposal.volume.geometry.voxel_volume_mm3 / 1000.0
    node = grown = int(before[line.end] - before[line.begin])
    steps = []
    for join in line.joins:
        joined = int(before[join.end] - before[join.begin])
        grown += joined
        steps.append(
            MergeStep(
                join.n,
                join.region,
                join.joined,
                joined * voxel_ml,
                grown * voxel_ml,
                join.height,
            )
        )
    parts_at = line.whole_at + 1 if line.end - line.begin > 1 else None
    return MergePath(
        tree,
        line.region,
        node * voxel_ml,
        float(sizes[inside].sum() / node),
        line.whole_at,
        parts_at,
        tuple(steps),
    )


def feature_colors(proposal: Proposal) -> NDArray[np.float32]:
    """Return a colour for every supervoxel: similar features have similar colours.

    Red, green and blue are the first three principal components of the feature
    descriptors over the body, each spread between its 1st and 99th percentile there; a
    component's largest loading is positive, so that the same proposal always has the
    same colours. Colours of two scans cannot be compared.

    Returns
    -------
    (n_supervoxels, 3) float32 array
        RGB in [0, 1]; `colors[proposal.supervoxels]` is the image (z, y, x, 3). A
        component that does not vary is 0.5.

    Raises
    ------
    SettingsError
        If the proposal was made without features.
    """
    columns = descriptor_groups(proposal)["features"]
    if not len(columns):
        raise SettingsError(
            "This proposal holds no features to colour by. Propose with the method"
            f" {method_names(needs_encoder=True)}."
        )
    rows = proposal.descriptors[:, columns].astype(np.float64)
    tree = proposal.region_tree
    body = tree.leaf_order[tree.n_background :] if tree.max_regions else tree.leaf_order
    rows -= rows[body].mean(axis=0)
    _, axes = np.linalg.eigh(rows[body].T @ rows[body])
    axes = axes[:, ::-1][:, :3]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    shades = rows @ axes
    low, high = np.percentile(shades[body], _COLOR_PERCENTILES, axis=0)
    varies = high - low > 1e-9
    colors = np.full((len(rows), 3), 0.5, np.float32)
    spread = np.clip((shades - low) / np.where(varies, high - low, 1.0), 0.0, 1.0)
    colors[:, : axes.shape[1]] = np.where(varies, spread, 0.5)
    return colors


def _members(
    proposal: Proposal, table: NDArray[np.integer], region: int
) -> NDArray[np.intp]:
    if table.shape != (proposal.n_supervoxels,):
        raise RegionError(
            f"The table has shape {table.shape} but the proposal has"
            f" {proposal.n_supervoxels} supervoxels. Take the table from this"
            " proposal's trees or its refinement."
        )
    members = np.flatnonzero(table == region)
    if not len(members):
        raise RegionError(
            f"No supervoxel belongs to region {region}. Choose another; hand-painted"
            " voxels do not count."
        )
    return members


def _sizes_vox(proposal: Proposal) -> NDArray[np.int64]:
    return np.bincount(proposal.supervoxels.ravel(), minlength=proposal.n_supervoxels)


def _crowd(
    proposal: Proposal, sizes: NDArray[np.int64], members: NDArray[np.intp]
) -> _Crowd:
    weights = sizes[members] * (len(members) / sizes[members].sum())
    return _Crowd(proposal.descriptors[members].astype(np.float64), weights)


def descriptor_groups(proposal: Proposal) -> dict[EvidenceGroup, NDArray[np.intp]]:
    """Return the columns of each group of descriptors, by their names.

    Columns that are neither features nor positions are intensity.
    """
    found: dict[EvidenceGroup, list[int]] = {
        "features": [],
        "intensity": [],
        "position": [],
    }
    for column, name in enumerate(proposal.descriptor_names):
        group: EvidenceGroup = (
            "features"
            if name.startswith("feature")
            else "position"
            if name.startswith("position")
            else "intensity"
        )
        found[group].append(column)
    return {group: np.array(columns, np.intp) for group, columns in found.items()}


def _similarity(
    proposal: Proposal, sizes: NDArray[np.int64], members: NDArray[np.intp]
) -> NDArray[np.float32]:
    crowd = _crowd(proposal, sizes, members)
    squares = (proposal.descriptors - crowd.mean.astype(np.float32)) ** 2 / _variance(
        crowd
    ).astype(np.float32)
    visible_groups = [
        columns
        for name, columns in descriptor_groups(proposal).items()
        if name != "position" and len(columns)
    ]
    distance = np.mean(
        [squares[:, columns].mean(axis=1) for columns in visible_groups], axis=0
    )
    return np.exp(-0.5 * distance).astype(np.float32)


def _most_alike_neighbor(
    proposal: Proposal,
    table: NDArray[np.integer],
    region: int,
    alike: NDArray[np.float32],
    sizes: NDArray[np.int64],
) -> tuple[int | None, float]:
    """Return the touching region most similar to the prototype, and its similarity."""
    ends = table[proposal.edges]
    touching = np.unique(ends[(ends == region).any(axis=1)])
    touching = touching[touching != region]
    if not len(touching):
        return None, 0.0
    total = np.bincount(table, weights=alike * sizes)
    mean = (total / np.maximum(np.bincount(table, weights=sizes), 1))[touching]
    return int(touching[mean.argmax()]), float(mean.max())


def _separation(one: _Crowd, other: _Crowd, columns: NDArray[np.intp]) -> float:
    """Return Fisher's criterion along the line between the means.

    This is the squared difference of means over the pooled variance.
    """
    step = (one.mean - other.mean)[columns]
    length = float(np.linalg.norm(step))
    if length == 0.0:
        return 0.0
    direction = step / length
    along = [
        _Crowd(crowd.rows[:, columns] @ direction, crowd.weights)
        for crowd in (one, other)
    ]
    return length**2 / float(_variance(*along))


def _variance(*crowds: _Crowd) -> NDArray[np.float64]:
    """Return the pooled variance per column inside several groups of supervoxels."""
    squares = np.sum([crowd.spread for crowd in crowds], axis=0)
    return (squares + _PRIOR_SUPERVOXELS) / (
        sum(len(crowd.rows) for crowd in crowds) + _PRIOR_SUPERVOXELS
    )


def _evidence(proposal: Proposal, one: _Crowd, other: _Crowd) -> EvidenceSplit:
    found = {
        name: _separation(one, other, columns)
        for name, columns in descriptor_groups(proposal).items()
    }
    total = sum(found.values()) or 1.0
    return EvidenceSplit(**{name: value / total for name, value in found.items()})


def _telling(
    proposal: Proposal, one: _Crowd, other: _Crowd
) -> tuple[TellingColumn, ...]:
    difference = (one.mean - other.mean) / np.sqrt(_variance(one, other))
    best = np.argsort(-np.abs(difference), kind="stable")[:_TELLING_COLUMNS]
    return tuple(
        TellingColumn(proposal.descriptor_names[k], float(difference[k]))
        for k in best.tolist()
    )
