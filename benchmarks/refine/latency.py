"""How long a person waits for an edit, an undo and a picture.

How much an edit costs in memory and on the disk.

python -m benchmarks.refine.latency CASE    a case of a 256^3 head: `strata propose HEAD
-o L.nii.gz --regions 100 --case CASE`

Medians, wall and processor time in ms. On a shared machine read the processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_strata.errors import EditError
from napari_strata.refine.session.edit_session import Change
from napari_strata.refine.session.refinement import Refinement


class Watch:
    """Collects wall and processor milliseconds under names."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, float]]] = {}

    def time(self, name: str, work: Callable[[], object]) -> None:
        """Time one call; a refused edit does not count."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            work()
        except EditError:
            return
        self.seen.setdefault(name, []).append(
            (
                (time.perf_counter() - wall) * 1000,
                (time.process_time() - processor) * 1000,
            )
        )

    def medians(self) -> dict[str, dict[str, float]]:
        """Give the medians and the slowest."""
        found = {}
        for name, times in self.seen.items():
            walls, processor = zip(*times, strict=True)
            found[name] = {
                "n": len(times),
                "wall": round(statistics.median(walls), 1),
                "processor": round(statistics.median(processor), 1),
                "worst processor": round(max(processor), 1),
            }
        return found


def ball(center: np.ndarray, shape: tuple[int, ...], radius: int = 2) -> np.ndarray:
    """Give the voxels of a small ball."""
    offsets = (
        np.argwhere(
            ((np.indices((2 * radius + 1,) * 3) - radius) ** 2).sum(axis=0) <= radius**2
        )
        - radius
    )
    return np.clip(center + offsets, 0, np.array(shape) - 1)


def measure(case: Path, strokes: int, seed: int) -> dict[str, object]:
    """Stroke, look, undo and edit regions.

    Each with every edit on the disk before its call returns.
    """
    rng, watch = np.random.default_rng(seed), Watch()
    work = Refinement.load(case)
    heard: list[Change] = []
    work.steps.on_change(heard.append)
    shape = work.proposal.supervoxels.shape
    body = np.argwhere(work.proposal.regions(100).labels[::4, ::4, ::4] > 0) * 4
    whole = tuple(slice(0, n) for n in shape)
    with tempfile.TemporaryDirectory() as folder:
        journal = work.storage.begin_autosave(folder)
        work.scribble(ball(body[0], shape), region=200)
        work.undo()
        before, begun = os.path.getsize(journal), len(work.history)
        for i in range(strokes):
            center = body[int(rng.integers(len(body)))]
            voxels, region = ball(center, shape), 200 + i % 8
            slab = slice(int(center[0]), int(center[0]) + 1), whole[1], whole[2]
            for scope in ("here", "everywhere"):

                def stroke(
                    scope: str = scope,
                    voxels: np.ndarray = voxels,
                    region: int = region,
                    slab: tuple[slice, ...] = slab,
                ) -> None:
                    work.scribble(voxels, region=region, scope=scope)  # type: ignore[arg-type]
                    _ = work.regions, work.view.labels_in(slab)  # type: ignore[arg-type]

                watch.time(f"stroke {scope}: table and visible slice", stroke)
                watch.time(
                    f"stroke {scope}: then all labels that changed",
                    lambda: heard[-1].box and work.view.labels_in(heard[-1].box),
                )
                watch.time("labels of the whole volume", lambda: work.labels)
                watch.time("undo", work.undo)
                watch.time("redo", work.redo)
                if scope == "here":
                    work.undo()
        _time_region_edits(work, watch)
        steps = len(work.history) - begun
        packed = [len(step.packed) for step in work._session.journal.done[begun:]]
        disk = os.path.getsize(journal) - before
        work.steps.jump(0)
        watch.time("jump to the last step", lambda: work.steps.jump(begun + steps))
        watch.time("jump to the start", lambda: work.steps.jump(0))
        work.storage.end_autosave()
    return {
        "supervoxels": work.proposal.n_supervoxels,
        "shape": list(shape),
        "ms": watch.medians(),
        "bytes per step in memory": {
            "median": int(statistics.median(packed)),
            "largest": max(packed),
        },
        "bytes per step on the disk, undo and redo included": disk // steps,
    }


def _time_region_edits(work: Refinement, watch: Watch) -> None:
    """Time one call of each edit of regions, and its undo."""
    edits: dict[str, Callable[[], object]] = {
        "grow 2 mm": lambda: work.edits.grow(200, 2),
        "shrink 1 mm": lambda: work.edits.shrink(200, 1),
        "smooth one region": lambda: work.edits.smooth([201], sd_mm=1),
        "smooth all regions": lambda: work.edits.smooth(sd_mm=1),
        "keep largest": lambda: work.edits.keep_largest(202),
        "fill holes": lambda: work.edits.fill_holes(203),
        "mirror": lambda: work.edits.mirror(204),
        "split into parts": lambda: work.edits.split_parts(205, smallest_ml=0.5),
        "swap": lambda: work.edits.swap(200, 201),
        "merge": lambda: work.merge([206, 207]),
        "cut": lambda: work.cut(regions=150),
    }
    for name, edit in edits.items():
        steps = len(work.history)
        watch.time(name, edit)
        if len(work.history) > steps:
            watch.time(f"undo {name}", work.undo)
            work.redo()


def memory_per_edit(case: Path, strokes: int, seed: int) -> dict[str, float]:
    """Give what the process keeps per stroke, by Python's own count of allocations."""
    rng = np.random.default_rng(seed)
    work = Refinement.load(case)
    shape = work.proposal.supervoxels.shape
    body = np.argwhere(work.proposal.regions(100).labels[::4, ::4, ::4] > 0) * 4
    work.scribble(ball(body[0], shape), region=200)
    tracemalloc.start()
    begun = tracemalloc.get_traced_memory()[0]
    for i in range(strokes):
        work.scribble(
            ball(body[int(rng.integers(len(body)))], shape), region=200 + i % 8
        )
    grown = tracemalloc.get_traced_memory()[0] - begun
    tracemalloc.stop()
    return {"strokes": strokes, "kB per stroke": round(grown / strokes / 1000, 1)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    figures = measure(asked.case, asked.strokes, asked.seed)
    figures["memory"] = memory_per_edit(asked.case, asked.strokes, asked.seed)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
