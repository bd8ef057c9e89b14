"""A robot that edits at random, the same way for the same seed.

What its work looks like as one string.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from napari_strata.errors import EditError
from napari_strata.refine.session.refinement import Refinement


def random_edit(work: Refinement, rng: np.random.Generator) -> bool:
    """Make one random edit, undo, redo or jump; gives False where it was refused."""
    shape = work.proposal.supervoxels.shape
    ids = [row.id for row in work.regions] or [1]
    one, two = (int(i) for i in rng.choice(ids, 2))
    spot = rng.integers(0, shape, (int(rng.integers(1, 40)), 3))
    near = np.clip(spot[:1] + rng.integers(-2, 3, (30, 3)), 0, np.array(shape) - 1)
    target = [one, 0, None][int(rng.integers(3))]
    length = float(rng.uniform(1, 4))
    points = work.proposal.volume.geometry.world_from_voxel(spot[:3])
    edits: list[Callable[[], object]] = [
        lambda: work.cut(regions=int(rng.integers(0, 60))),
        lambda: work.cut(tissues=int(rng.integers(0, 12))),
        lambda: work.merge([one, two]),
        lambda: work.split(one, into=int(rng.integers(2, 4))),
        lambda: work.split(one, tree="tissues"),
        lambda: work.edits.split_parts(one, smallest_ml=0.01),
        lambda: work.edits.split_plane(one, points[0], rng.normal(size=3)),
        lambda: work.edits.split_line(one, points, (0, 0, 1)),
        lambda: work.edits.assign_at(spot[:5], target),
        lambda: work.rename(one, f"name {rng.integers(9)}"),
        lambda: work.scribble(near, region=target, scope="here"),
        lambda: work.scribble(near, region=target, scope="everywhere"),
        lambda: work.scribble(near[:9], region=two, scope="here"),
        lambda: work.paint(spot, target),
        lambda: work.edits.swap(one, two),
        lambda: work.edits.delete(one),
        lambda: work.edits.fill_holes(one),
        lambda: work.edits.keep_largest(one),
        lambda: work.edits.remove_islands(one, smaller_than_ml=0.05),
        lambda: work.edits.smooth([one], sd_mm=length / 2),
        lambda: work.edits.grow(one, length),
        lambda: work.edits.shrink(one, length),
        lambda: work.edits.mirror(
            one, target=target, point_ras_mm=points[0], normal_ras=rng.normal(size=3)
        ),
        work.undo,
        work.undo,
        work.redo,
        lambda: work.steps.jump(
            int(rng.integers(max(0, len(work.history) - 4), len(work.history) + 1))
        ),
    ]
    try:
        edits[int(rng.integers(len(edits)))]()
    except EditError:
        return False
    return True


def digest(work: Refinement) -> str:
    """Give a hash of all that a person could notice.

    Labels, rows, history, and the id that comes next.
    """
    labels = work.labels.astype(np.uint32)
    text = repr(
        (
            work.history,
            work.steps.undone,
            work.regions,
            work.view.next_id,
            work.view.tree,
            work.view.granularity,
        )
    )
    return hashlib.sha256(labels.tobytes() + text.encode()).hexdigest()
