"""The tools of the More menu, as plain calls of the refinement (no Qt)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from napari_strata.errors import StrataError
from napari_strata.refine.session.refinement import Refinement

GROW_MM = 1.0
"""Step of Grow and Shrink, in mm: about one voxel of a usual scan."""
ISLAND_ML = 0.5
"""Parts below this volume, in mL, are removed as islands; the menu names the number."""


def region_tool(
    tool: str, work: Refinement, regions: Sequence[int]
) -> Callable[[], object]:
    """Return the call that applies a tool of `edit_section.TOOLS` to some regions.

    Raises
    ------
    StrataError
        If too few regions are selected.
    """
    if not regions:
        raise StrataError("Select a region first: click the scan, or the table.")
    if tool == "swap":
        if len(regions) != 2:
            raise StrataError("Select exactly two regions to swap.")
        return partial(work.edits.swap, regions[0], regions[1])
    if tool in ("delete", "smooth"):
        return partial(
            work.edits.delete if tool == "delete" else work.edits.smooth, list(regions)
        )
    one_by_one: dict[str, Callable[[int], object]] = {
        "accept": work.accept,
        "grow": lambda region: work.edits.grow(region, GROW_MM),
        "shrink": lambda region: work.edits.shrink(region, GROW_MM),
        "fill_holes": work.edits.fill_holes,
        "keep_largest": work.edits.keep_largest,
        "remove_islands": lambda region: work.edits.remove_islands(
            region, smaller_than_ml=ISLAND_ML
        ),
        "split_parts": work.edits.split_parts,
        "mirror": work.edits.mirror,
    }
    return partial(_each, one_by_one[tool], tuple(regions))


def _each(edit: Callable[[int], object], regions: Sequence[int]) -> None:
    for region in regions:
        edit(region)
