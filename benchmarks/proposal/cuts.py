"""The fifth part: how long a cut takes, as a table and painted on all voxels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from napari_strata.proposal.proposal import Proposal

FEWEST, MOST, TRIED = 2, 500, 24


def cut_figures(proposal: Proposal) -> Iterator[tuple[str, dict[str, float]]]:
    """Give, for each tree, the milliseconds of a cut's table and of all its labels.

    Over n from 2 to 500.

    Labels are made by `Proposal.tissues` and `Proposal.regions`, with the table of
    regions and all.
    """
    for name, paint in (("tissues", proposal.tissues), ("regions", proposal.regions)):
        tree = proposal.tissue_tree if name == "tissues" else proposal.region_tree
        numbers = np.unique(
            np.geomspace(FEWEST, max(min(MOST, tree.max_regions), FEWEST), TRIED)
            .round()
            .astype(int)
        ).tolist()
        tables, labels = (
            [_milliseconds(work, n) for n in numbers] for work in (tree.cut, paint)
        )
        yield (
            name,
            {
                "table, median ms": float(np.median(tables)),
                "table, most ms": max(tables),
                "labels, median ms": float(np.median(labels)),
                "labels, most ms": max(labels),
                "voxels, millions": proposal.supervoxels.size / 1e6,
            },
        )


def _milliseconds(work: Callable[[int], object], n: int) -> float:
    begun = time.perf_counter()
    work(n)
    return 1000 * (time.perf_counter() - begun)
