"""A case's edits on other proposals of its scan.

How many are lost, and how near the labels come to the case's.

    python -m benchmarks.refine.replay [SCAN TRUTH] [--regions 150]

A robot that knows the truth (of the sample head, unless others are given) merges,
names, scribbles, paints, smooths and locks every structure. Its edits are then replayed
on the same proposal, on one of another seed, on one with half as many supervoxels, and
on one by another method. `dice_to_case` is the mean over structures of the overlap of
what bears its name with what bore it in the case.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

import napari_strata as strata
from napari_strata.refine.session.replay import replay_edits
from napari_strata.refine.storage.case_file import CaseContents, read_case

SAMPLES = Path(__file__).parents[2] / "sample_scans"
SMALLEST_VOX = 1500
MOSTLY = 0.6


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Give the overlap of two masks."""
    return float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1))


def named(labels: strata.Segmentation, name: str) -> NDArray[np.bool_]:
    """Give the voxels of the regions of a name."""
    return np.isin(
        labels.labels, [region.id for region in labels.regions if region.name == name]
    )


def correct(
    work: strata.Refinement, truth: strata.Segmentation, structures: dict[int, str]
) -> None:
    """Do to every structure what a person would."""
    rng = np.random.default_rng(0)
    for number, (key, name) in enumerate(structures.items()):
        mask, labels = truth.labels == key, work.labels
        share = np.bincount(labels[mask], minlength=int(labels.max()) + 1) / np.maximum(
            np.bincount(labels.ravel()), 1
        )
        own = [region for region in np.flatnonzero(share > MOSTLY).tolist() if region]
        if len(own) > 1:
            work.merge(own)
        core = np.argwhere(ndi.binary_erosion(mask))
        core = core if len(core) else np.argwhere(mask)
        stroke = core[rng.choice(len(core), min(len(core), 25), replace=False)]
        region = work.scribble(stroke, region=own[0] if own else None, scope="here")
        work.rename(region, name)
        missed = np.argwhere(mask & (work.labels != region))
        if len(missed):
            work.paint(missed[:400], region)
        if number % 3 == 0:
            work.edits.smooth([region], sd_mm=2.0)
        if number % 4 == 0:
            work.lock(region)


def compared(
    case: CaseContents,
    saved: strata.Segmentation,
    proposal: strata.Proposal,
    names: list[str],
) -> dict[str, Any]:
    """Replay, and compare with the case."""
    begun = time.process_time()
    found = replay_edits(case, proposal)
    took, labels = time.process_time() - begun, found.segmentation
    overlaps = [dice(named(labels, name), named(saved, name)) for name in names]
    return {
        "supervoxels": proposal.n_supervoxels,
        "edits": len(found.steps),
        "lost": [
            f"{step.number}. {step.name[:60]}: {step.why[:100]}" for step in found.lost
        ],
        "dice_to_case": round(float(np.mean(overlaps)), 3),
        "lowest": round(min(overlaps), 3),
        "voxels_that_differ": int((labels.labels != saved.labels).sum()),
        "processor_s": round(took, 1),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", nargs="?", default=str(SAMPLES / "head_t1.nii.gz"))
    parser.add_argument(
        "truth", nargs="?", default=str(SAMPLES / "head_t1_truth.nii.gz")
    )
    parser.add_argument("--regions", type=int, default=150)
    asked = parser.parse_args()
    volume, truth = strata.read(asked.scan), strata.read_labels(asked.truth)
    sizes = np.bincount(truth.labels.ravel())
    structures = {
        region.id: region.name
        for region in truth.regions
        if region.id and sizes[region.id] > SMALLEST_VOX
    }
    base = strata.propose(volume, threads=1)
    work = strata.Refinement(base, regions=asked.regions)
    correct(work, truth, structures)
    with tempfile.TemporaryDirectory() as folder:
        work.save(Path(folder) / "case.strata")
        case = read_case(Path(folder) / "case.strata", volume)
    half = strata.ProposeSettings(supervoxels=base.n_supervoxels // 2)
    others = {
        "the same": base,
        "another seed": strata.propose(volume, threads=1, seed=1),
        "half the supervoxels": strata.propose(volume, threads=1, settings=half),
        "gmm-mrf": strata.propose(
            volume, threads=1, settings=strata.ProposeSettings(method="gmm-mrf")
        ),
    }
    names, saved = list(structures.values()), work.segmentation
    print(
        json.dumps(
            {
                name: compared(case, saved, proposal, names)
                for name, proposal in others.items()
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
