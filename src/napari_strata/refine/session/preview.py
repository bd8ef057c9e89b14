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
from napari_strata.refine.state.assignment import Scope
from napari_strata.refine.state.proposal_index import Box


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
    """

    now: View
    then: View
    box: Box | None
    regions: tuple[int, ...]

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
    return Preview(now, then, changed_box(before, state, index), tuple(regions))
