"""A linear probe on the encoder's features: 20 labelled voxels per class, mean Dice over classes on the rest."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import napari_strata as strata
from napari_strata.encoder.network import StrataEncoder
from napari_strata.encoder.weights import write_weights
from napari_strata.preprocess import body_mask, brightness, resample

PER_CLASS, SEEDS, CLASSES, MOST_VOXELS = 20, 3, 8, 200_000


def probe(features: NDArray[np.float32], classes: NDArray[np.integer], seed: int) -> float:
    """Fit on 20 voxels per class and give the mean Dice over classes on the others."""
    rng = np.random.default_rng(seed)
    taught = np.concatenate([rng.permutation(np.flatnonzero(classes == c))[:PER_CLASS] for c in np.unique(classes)])
    model = LogisticRegression(C=10, max_iter=500).fit(features[taught], classes[taught])
    rest = np.setdiff1d(np.arange(len(classes)), taught)
    rest = rng.permutation(rest)[:MOST_VOXELS]
    found, truth = model.predict(features[rest]), classes[rest]
    return float(np.mean([2 * ((found == c) & (truth == c)).sum() / ((found == c).sum() + (truth == c).sum()) for c in np.unique(truth)]))


def main() -> None:
    """Print a row per scan and feature set; arguments are pairs SCAN LABELS."""
    with tempfile.TemporaryDirectory() as name:
        random = Path(name) / "random.safetensors"
        torch.manual_seed(0)
        write_weights(StrataEncoder(), random, {"step": 0})
        for scan, labels in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
            rows(scan, labels, random)


def rows(scan: str, labels: str, random: Path) -> None:
    """Print the rows of one scan: its largest classes, on the encoder's working grid."""
    volume, truth = strata.read(scan), strata.read_labels(labels).labels
    sizes = np.bincount(truth.ravel())[1:]
    truth = np.where(np.isin(truth, np.argsort(-sizes)[:CLASSES] + 1), truth, 0)
    for title, weights in (("shipped", None), ("random", random)):
        features = strata.embed(volume, weights=weights)
        grid = features.grid
        picks = [((np.arange(m) + 0.5) * n / m).astype(int) for m, n in zip(grid.shape_zyx, grid.box_shape, strict=True)]
        classes = truth[grid.box][np.ix_(*picks)]
        kept = classes > 0
        light = brightness(volume.data, volume.modality, inside=body_mask(volume))
        column = 2 * resample(np.ascontiguousarray(light[grid.box]), grid.shape_zyx)[kept][:, None]
        levels = [features.at_level(k)[kept] for k in range(len(features.levels))]
        sets = {"brightness": [column]} if title == "shipped" else {}
        sets |= {f"{title} level {k}": [level, column] for k, level in enumerate(levels)} | {f"{title} all": [*levels, column]}
        for what, parts in sets.items():
            scores = [probe(np.concatenate(parts, axis=1), classes[kept], seed) for seed in range(SEEDS)]
            print(f"{volume.name:<16} {what:<18} {np.mean(scores):.3f}", flush=True)


if __name__ == "__main__":
    main()
