"""What adapting the encoder to unlabelled scans of a new kind is worth.

What it costs on the kinds it knew.

    python -m benchmarks.adapt WEIGHTS.safetensors [--minutes 2] [--threads 2] [--base
    900000000]

The new kind is thick-slice heads (1x1x6 mm) in inverted contrast; for a fair figure the
weights come from a pretraining without both (`strata pretrain --without
thick,inverted`). The figures are means over 3 seeds of a logistic regression (C = 10)
on 20 labelled voxels per tissue, on features + 2 x brightness: mean Dice on the rest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.encoder.probe import probe
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.encoder.adapt import adapt
from napari_strata.errors import AdaptError
from napari_strata.settings import AdaptSettings
from napari_strata.synthesis.synthesiser import Synthesiser
from napari_strata.volume import Geometry, Volume

SLICES, CLASSES, VOXELS, SEEDS = 6, 8, 40_000, 3
KNOWN = (
    ("head", "t1"),
    ("head", "t2"),
    ("head", "flair"),
    ("torso", "ct"),
    ("torso", "t1"),
    ("shapes", "random"),
)
SIZES_MM = {"head": 2.0, "torso": 3.5, "shapes": 2.0}


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A scan with the tissue of every voxel, 0 outside."""

    name: str
    volume: Volume
    tissues: NDArray[np.integer]


def thick_inverted(seed: int) -> Known:
    """Make a head of 1 mm in inverted contrast and average 6 slices to one."""
    scan = Synthesiser((144, 176, 144)).make_whole(
        seed, family="head", contrast="inverted", spacing_mm=(1.0, 1.0, 1.0)
    )
    image = scan.image.numpy().reshape(-1, SLICES, 176, 144).mean(axis=1)
    tissues = scan.anatomy.tissues.numpy().reshape(-1, SLICES, 176, 144)[:, SLICES // 2]
    geometry = Geometry.from_spacing(image.shape, (float(SLICES), 1.0, 1.0))
    return Known(
        f"inverted {seed}",
        Volume((1000 * image).astype(np.float32), geometry, "mr"),
        tissues,
    )


def known_kinds(seed: int) -> Iterator[Known]:
    """Make scans of the kinds that the pretraining held."""
    for number, (family, contrast) in enumerate(KNOWN):
        step = SIZES_MM[family]
        scan = Synthesiser((96, 96, 96)).make_whole(
            seed + number, family=family, contrast=contrast, spacing_mm=(step,) * 3
        )
        data = scan.image.numpy() if scan.is_ct else 1000 * scan.image.numpy()
        volume = Volume(
            data.astype(np.float32),
            Geometry.from_spacing(data.shape, (step,) * 3),
            "ct" if scan.is_ct else "mr",
        )
        yield Known(f"{family} {contrast}", volume, scan.anatomy.tissues.numpy())


def score(known: Known, weights: Path | None) -> float:
    """Embed a scan and probe its largest tissues on the working grid."""
    features = strata.embed(known.volume, weights=weights)
    grid = features.grid
    picks = [
        ((np.arange(m) + 0.5) * n / m).astype(int)
        for m, n in zip(grid.shape_zyx, grid.box_shape, strict=True)
    ]
    tissues = known.tissues[grid.box][np.ix_(*picks)]
    largest = np.argsort(-np.bincount(tissues.ravel())[1:])[:CLASSES] + 1
    kept = np.flatnonzero(np.isin(tissues.ravel(), largest))
    kept = np.random.default_rng(0).permutation(kept)[:VOXELS]
    rows = np.concatenate(
        [
            features.data.reshape(features.n_channels, -1).T[kept],
            2 * features.intensity.ravel()[kept, None],
        ],
        axis=1,
    )
    return float(
        np.mean([probe(rows, tissues.ravel()[kept], seed) for seed in range(SEEDS)])
    )


def main() -> None:
    """Print a row per scan: before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--minutes", type=float, default=AdaptSettings().minutes)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=int, default=900_000_000)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    given = [thick_inverted(words.base + number) for number in range(3)]
    others = [thick_inverted(words.base + 10 + number) for number in range(3)]
    old = list(known_kinds(words.base + 100))
    with tempfile.TemporaryDirectory() as folder:
        after, begun = Path(folder) / "adapted.safetensors", time.monotonic()
        settings = AdaptSettings(minutes=words.minutes)
        try:
            report = adapt(
                [one.volume for one in given],
                after,
                settings=settings,
                weights=words.weights,
                threads=words.threads,
            )
        except AdaptError as err:
            raise SystemExit(
                f"{err}\n{err.table}\n(so nothing rises and nothing falls)"
            ) from err
        print(
            f"{report.table()}\n{report.summary()}; {time.monotonic() - begun:.0f} s"
            " with what torch loads\n",
            flush=True,
        )
        for title, scans in (
            ("adapted to", given),
            ("same kind, not seen", others),
            ("known kinds", old),
        ):
            changes = []
            for known in scans:
                pair = [score(known, path) for path in (words.weights, after)]
                changes.append(pair)
                print(
                    f"{title:<20} {known.name:<20} {pair[0]:.3f} -> {pair[1]:.3f}",
                    flush=True,
                )
            first, last = np.mean(changes, axis=0)
            print(
                f"{title:<20} {'mean':<20} {first:.3f} -> {last:.3f}"
                f" ({last - first:+.3f})\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
