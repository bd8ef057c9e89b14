"""Preview of strokes. Nothing is changed or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.refine.edits.strokes import Scribble, previewed_result
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.edit_session import changed_box
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.session.view import View
from napari_strata.refine.state.assignment import Scope, State, supervoxel_table
from napari_strata.refine.state.fragments import roots, supervoxel_sizes
from napari_strata.refine.state.proposal_index import Box, ProposalIndex


@dataclass(frozen=True, slots=True)
class StrokeEffect:
    """What a stroke would take beside itself, in numbers.

    Parameters
    ----------
    volume_ml : float
        Volume that would change to the stroke's region.
    mean, spread : float or None
        Mean and standard deviation of intensity in it; None without the scan's voxels,
        or if nothing is taken.
    stroke_mean, stroke_spread : float or None
        The same for the voxels of the stroke.
    reach : Reach or None
        How far it went; None for scope "everywhere".
    """

    volume_ml: float
    mean: float | None
    spread: float | None
    stroke_mean: float | None
    stroke_spread: float | None
    reach: Reach | None

    @property
    def parts_from_stroke(self) -> bool:
        """Whether it takes another intensity than the stroke has.

        The means differ by more than a standard deviation of what is stroked or taken,
        whichever is larger.
        """
        if self.mean is None or self.stroke_mean is None:
            return False
        spread = max(self.spread or 0.0, self.stroke_spread or 0.0)
        return abs(self.mean - self.stroke_mean) > _PARTED_SD * spread

    def __str__(self) -> str:
        """Return for example "+12.3 mL, mean 139 (stroke 140), within 10 mm"."""
        text = f"+{self.volume_ml:.1f} mL"
        if self.mean is not None and self.stroke_mean is not None:
            text += f", mean {self.mean:.4g} (stroke {self.stroke_mean:.4g})"
        return text if self.reach is None else f"{text}, within {self.reach.mm:g} mm"


_PARTED_SD = 1.0
"""Difference of means, in standard deviations, from which a preview warns."""


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """Labels before and after some strokes.

    Parameters
    ----------
    now, then : View
        The case before the strokes and after them.
    box : tuple of 3 slices or None
        The part of the scan (z, y, x) in which labels would change; None if none would.
    regions : tuple of int
        The region of each stroke.
    effect : StrokeEffect
        What the last stroke would take.
    """

    now: View
    then: View
    box: Box | None
    regions: tuple[int, ...]
    effect: StrokeEffect

    def changes_in(self, box: Box) -> NDArray[np.unsignedinteger]:
        """Return the new label plus 1 of each voxel in a box, 0 for an unchanged voxel.

        Parameters
        ----------
        box : tuple of 3 slices
            Part of the scan along z, y, x, in steps of one.
        """
        then = self.then.labels_in(box)
        changed: NDArray[np.unsignedinteger] = np.where(
            self.now.labels_in(box) != then, then.astype(np.uint32) + 1, 0
        )
        return changed


def preview_strokes(
    work: Refinement,
    strokes: Sequence[tuple[ArrayLike, int | None]],
    *,
    scope: Scope,
    reach: Reach | None = None,
) -> Preview:
    """Return the result of strokes applied in order, as `Refinement.scribble` would.

    Parameters
    ----------
    work : Refinement
        The case; it is not changed.
    strokes : sequence of ((n, 3) integer array, int or None)
        Voxels (z, y, x) of each stroke and its region; None creates one.
    scope : {"everywhere", "here"}
        How far they spread.
    reach : Reach, optional
        How far "here" goes.

    Raises
    ------
    EditError
        If one of them cannot be applied.
    """
    now, reach = work.view, reach or Reach()
    index, before = now.index, now.state
    state, regions, found = before, [], []
    for voxels, region in strokes:
        points = index.ras_mm(index.flat_voxels(voxels))
        scribble = Scribble(
            points,
            state.next_id if region is None else int(region),
            scope,
            reach=(reach.mm, reach.tolerance_sd),
        )
        outcome = previewed_result(scribble, state, index) or scribble.apply(
            state, index
        )
        found.append((state, scribble, outcome))
        state = outcome.state
        regions.append(outcome.ids[0])
    index.previewed = tuple(found)
    then = View(index, state)
    last = found[-1][0], state, index.flat_voxels(strokes[-1][0]), regions[-1]
    effect = _effect(index, *last, reach if scope == "here" else None)
    box = changed_box(before, state, index)
    return Preview(now, then, box, tuple(regions), effect)


def _effect(
    index: ProposalIndex,
    before: State,
    after: State,
    voxels: NDArray[np.int64],
    region: int,
    reach: Reach | None,
) -> StrokeEffect:
    """Return what a stroke takes; of a cut supervoxel, the intensity is that of the whole."""
    old, new = supervoxel_table(before, index), supervoxel_table(after, index)
    old = np.concatenate([old, np.full(len(new) - len(old), -1, old.dtype)])
    taken = np.flatnonzero((old != new) & (new == region))
    sizes = supervoxel_sizes(after, index)[taken].astype(np.float64)
    volume = index.proposal.volume
    voxel_ml = float(np.prod(volume.spacing_zyx_mm)) / 1000
    volume_ml = float(sizes.sum()) * voxel_ml
    if not index.has_scan:
        return StrokeEffect(volume_ml, None, None, None, None, reach)
    zyx = np.unravel_index(voxels, index.proposal.supervoxels.shape)
    stroked = np.asarray(volume.data[zyx], np.float64)
    stroke = float(stroked.mean()), float(stroked.std())
    whole = roots(after, index, taken)
    if not len(whole) or not sizes.sum():
        return StrokeEffect(volume_ml, None, None, *stroke, reach)
    shift, sums, squares = index.intensity_sums
    count = index.sizes_vox[whole]
    mean = float(np.average(sums[whole] / count, weights=sizes))
    square = float(np.average(squares[whole] / count, weights=sizes))
    spread = float(np.sqrt(max(square - mean**2, 0.0)))
    return StrokeEffect(volume_ml, shift + mean, spread, *stroke, reach)
