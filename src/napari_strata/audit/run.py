"""Audit label maps of a scan: every structure, and where maps disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_strata.audit.border import Border, Box, ScanBorders
from napari_strata.audit.score import SUSPICIONS, deviations, measures
from napari_strata.audit.shape import Shape, measure_shape
from napari_strata.audit.sides import Side, sides
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.history.initial_state import check_grid
from napari_strata.volume import Segmentation, pack_labels

FEWEST_VOXELS = 20
"""Structures with fewer voxels are counted, not measured."""
SWAPPED = 8.0
"""Score of a structure on the wrong side, in standard deviations."""
_AROUND = 3
"""Voxels around a structure that its measures look at."""


@dataclass(frozen=True, slots=True)
class StructureAudit:
    """A second opinion on one structure.

    Parameters
    ----------
    labels : str
        Which label map it is in.
    id, name : int, str
        As in its table.
    voxels : int
        Its size.
    score : float
        How suspicious it is: sum over its measures, in standard deviations above what
        is usual. Larger is worse; it is no probability.
    reasons : tuple of str
        Why, the strongest first; empty if nothing stands out.
    center_ras_mm : tuple of 3 float
        Where to look: its centre, or its oddest slice.
    border, shape : Border, Shape or None
        The measures; None for a structure of a few voxels.
    side : Side or None
        Its partner on the other side, if the names tell.
    """

    labels: str
    id: int
    name: str
    voxels: int
    score: float
    reasons: tuple[str, ...]
    center_ras_mm: tuple[float, float, float]
    border: Border | None
    shape: Shape | None
    side: Side | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A structure that two label maps draw differently.

    Parameters
    ----------
    name : str
        Its name in both.
    first, second : str
        The label maps.
    dice : float
        Their overlap, 0 to 1.
    supported : str
        The map whose border follows the scan better; "" if neither clearly does.
    """

    name: str
    first: str
    second: str
    dice: float
    supported: str


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A structure with its measures."""

    id: int
    name: str
    mask: NDArray[np.bool_]
    box: Box
    center_ras_mm: NDArray[np.float64]
    border: Border | None
    shape: Shape | None

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))


AGREE = 0.95
"""Dice above which two maps agree on a structure."""
CLEARLY = 0.03
"""Difference of edge shares from which one map is supported."""


def audit_labels(
    proposal: Proposal, maps: Sequence[tuple[str, Segmentation]]
) -> tuple[list[StructureAudit], list[Disagreement]]:
    """Return a second opinion on label maps, without a reference.

    Parameters
    ----------
    proposal : Proposal
        Of the scan.
    maps : sequence of (str, Segmentation)
        Label maps on the scan's grid, with their names.

    Returns
    -------
    structures : list of StructureAudit
        The most suspicious first.
    disagreements : list of Disagreement
        Of structures with the same name in two maps, the largest first.

    Raises
    ------
    GeometryError
        If labels lie on another grid.
    """
    borders = ScanBorders(proposal)
    found = {}
    for name, labels in maps:
        check_grid(proposal.volume.geometry, labels.geometry)
        found[name] = _structures(labels, borders, proposal)
    audits = [one for name in found for one in _audits(name, found[name], proposal)]
    audits.sort(key=lambda one: -one.score)
    names = list(found)
    different = [
        one
        for number, first in enumerate(names)
        for second in names[number + 1 :]
        for one in _disagreements(first, second, found[first], found[second])
    ]
    return audits, sorted(different, key=lambda one: one.dice)


def _structures(
    labels: Segmentation, borders: ScanBorders, proposal: Proposal
) -> list[_Found]:
    ids, packed = pack_labels(labels.labels)
    names = {row.id: row.name for row in labels.regions}
    result: list[_Found] = []
    for key, place in zip(ids, ndi.find_objects(packed), strict=True):
        box = _wider(place, packed.shape)
        mask: NDArray[np.bool_] = np.equal(packed[box], len(result) + 1)
        is_large = np.count_nonzero(mask) >= FEWEST_VOXELS
        middle = np.argwhere(mask).mean(axis=0) + [part.start for part in box]
        result.append(
            _Found(
                key,
                names.get(key, f"region {key}"),
                mask,
                box,
                proposal.volume.geometry.world_from_voxel(middle),
                borders.along(mask, box) if is_large else None,
                measure_shape(mask) if is_large else None,
            )
        )
    return result


def _wider(place: Box, shape: tuple[int, ...]) -> Box:
    a, b, c = (
        slice(max(0, part.start - _AROUND), min(size, part.stop + _AROUND))
        for part, size in zip(place, shape, strict=True)
    )
    return a, b, c


def _audits(
    labels: str, found: Sequence[_Found], proposal: Proposal
) -> list[StructureAudit]:
    """Return the second opinion on all structures of a map."""
    measured = [one for one in found if one.border and one.shape]
    table = deviations(
        [
            measures(one.border, one.shape)
            for one in measured
            if one.border and one.shape
        ]
    )
    away = dict(zip((one.id for one in measured), table, strict=True))
    partners = sides(
        {one.id: one.name for one in found},
        {one.id: one.center_ras_mm for one in found},
        {one.id: float(one.voxels) for one in found},
    )
    result = []
    for one in found:
        values = away.get(one.id, np.zeros(len(SUSPICIONS)))
        side = partners.get(one.id)
        strongest = [number for number in np.argsort(-values) if values[number] > 1]
        reasons = [SUSPICIONS[number].reason for number in strongest]
        score = float(values.sum())
        if side is not None and side.is_swapped:
            reasons.insert(0, "lies on the other side than its name says")
            score += SWAPPED
        result.append(
            StructureAudit(
                labels,
                one.id,
                one.name,
                one.voxels,
                round(score, 2),
                tuple(reasons),
                _where(one, strongest, proposal),
                one.border,
                one.shape,
                side,
            )
        )
    return result


_ODD_SLICE = next(
    number for number, one in enumerate(SUSPICIONS) if "slice" in one.reason
)


def _where(
    found: _Found, strongest: Sequence[int], proposal: Proposal
) -> tuple[float, float, float]:
    """Return where a person should look: the centre, or the odd slice's."""
    point = found.center_ras_mm
    if found.shape and strongest and strongest[0] == _ODD_SLICE:
        axis, index = found.shape.odd_slice_at
        plane = np.argwhere(np.take(found.mask, index, axis=axis)).mean(axis=0)
        middle = np.insert(plane, axis, index) + [part.start for part in found.box]
        point = proposal.volume.geometry.world_from_voxel(middle)
    x, y, z = (round(float(value), 1) for value in point)
    return x, y, z


def _disagreements(
    first: str, second: str, one: Sequence[_Found], other: Sequence[_Found]
) -> list[Disagreement]:
    """Return the structures of the same name that two maps draw differently."""
    by_name = {found.name.lower(): found for found in other}
    result = []
    for mine in one:
        theirs = by_name.get(mine.name.lower())
        if theirs is None:
            continue
        dice = 2 * _shared(mine, theirs) / (mine.voxels + theirs.voxels)
        if dice >= AGREE:
            continue
        supported = ""
        if mine.border and theirs.border:
            lead = mine.border.edge_share - theirs.border.edge_share
            if abs(lead) >= CLEARLY:
                supported = first if lead > 0 else second
        result.append(Disagreement(mine.name, first, second, round(dice, 3), supported))
    return result


def _shared(one: _Found, other: _Found) -> int:
    """Return the number of voxels in both structures."""
    starts = [max(a.start, b.start) for a, b in zip(one.box, other.box, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one.box, other.box, strict=True)]
    if any(stop <= start for start, stop in zip(starts, stops, strict=True)):
        return 0
    parts = []
    for found in (one, other):
        own = tuple(
            slice(start - part.start, stop - part.start)
            for start, stop, part in zip(starts, stops, found.box, strict=True)
        )
        parts.append(found.mask[own])
    return int(np.count_nonzero(parts[0] & parts[1]))
