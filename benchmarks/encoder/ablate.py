"""Which choices of the recipe matter.

Many short trainings that see the same synthetic scans, measured by the bench.

    python -m benchmarks.encoder.ablate --scan ct SERIES_FOLDER LABELS.nii.gz --folder
    out/ablation

The scans of every step are made once and kept in the folder; each variant is trained on
them, in another order for another seed. A variant that is trained or measured is not
trained or measured again, and one that was interrupted goes on, so the command can be
stopped and given again, and `--variants` can grow.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.encoder import run
from benchmarks.encoder.table import Row, read_rows
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from napari_strata.encoder.identity import read_recipe
from napari_strata.encoder.pretraining.patches import make_batch
from napari_strata.encoder.pretraining.pretrain import LOSSES, pretrain
from napari_strata.encoder.pretraining.tasks import Batch
from napari_strata.settings import RECIPES, PretrainSettings
from napari_strata.synthesis.synthesiser import Synthesiser

ANATOMIES, VIEWS, PATCH_VOX = 2, 2, 48
"""What is kept of every step; a variant takes as many of these as it asks for."""
_NO_PAINTING = {
    "inpaint_weight": 0.0,
    "next_slice_weight": 0.0,
    "masked_share": 0.0,
    "next_slice_share": 0.0,
}
_TWO_VIEWS = {"batch": ANATOMIES // 2, "views": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "recipe, seed 1": {"seed": 1},
    "recipe, seed 2": {"seed": 2},
    "contrast only": _NO_PAINTING,
    "finest level only": {"contrast_levels": "finest"},
    "temperature 0.07": {"temperature": 0.07},
    "temperature 0.3": {"temperature": 0.3},
    "inpainting only": {
        "contrast_weight": 0.0,
        "inpaint_weight": 1.0,
        "next_slice_weight": 0.0,
        "next_slice_share": 0.0,
    },
    "next slice only": {
        "contrast_weight": 0.0,
        "inpaint_weight": 0.0,
        "next_slice_weight": 1.0,
        "next_slice_share": 1.0,
    },
    "two views": _TWO_VIEWS,
    "two views, agreement": {**_TWO_VIEWS, "agreement_weight": 0.5},
    "half width": {"width": 8},
    "SegResNet": {"network": "segresnet"},
    "width 24": {"width": 24},
    "half resolution": {"network": "light"},
    "coarse tissues": {"coarse_labels": "tissue"},
    "24 channels": {"channels": 24},
}
"""What each variant changes of the recipe."""
OWN_SPREAD = ("recipe", "recipe, seed 1", "recipe, seed 2")
_STABILITY_MVOX = "2"


class StoredBatches(Dataset[Batch]):
    """The scans of every step, read back from a folder.

    Another seed takes the steps in another order.

    Parameters
    ----------
    folder : Path
        Where `store_scans` put them.
    settings : PretrainSettings
        `steps`, `batch`, `views`, `coarse_labels` and `seed` are used.
    """

    def __init__(self, folder: Path, settings: PretrainSettings) -> None:
        self.folder, self.settings = folder, settings
        order = np.arange(settings.steps)
        self.order = (
            np.random.default_rng(settings.seed).permutation(order)
            if settings.seed
            else order
        )

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: int) -> Batch:
        kept = load_file(_scans_of(self.folder, int(self.order[step])))
        anatomies, views = self.settings.batch, self.settings.views
        image = kept["image"][:anatomies, :views].float()
        tissue = kept["tissue"][:anatomies].long()
        other = (
            tissue
            if self.settings.coarse_labels == "tissue"
            else kept["structure"][:anatomies].long()
        )
        ids = tuple(tuple(own) for own in kept["looks"][:anatomies, :views].tolist())
        return Batch(
            image.reshape(-1, 1, *image.shape[2:]),
            (tissue, tissue, other, other),
            ids,
        )


def _scans_of(folder: Path, step: int) -> Path:
    return folder / f"step{step:04d}.safetensors"


def store_scans(folder: Path, steps: int) -> None:
    """Make the scans of every step that the folder lacks.

    Two anatomies in two views, brightness as float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    synthesiser = Synthesiser((PATCH_VOX,) * 3)
    for step in range(steps):
        path = _scans_of(folder, step)
        if path.exists():
            continue
        batch = make_batch(
            synthesiser,
            list(range(step * ANATOMIES, (step + 1) * ANATOMIES)),
            views=VIEWS,
        )
        tensors = {
            "image": (
                batch.image.reshape(ANATOMIES, VIEWS, *batch.image.shape[2:]).half()
            ),
            "tissue": batch.labels[0].to(torch.uint8),
            "structure": batch.labels[-1].to(torch.uint8),
            "looks": torch.tensor(batch.clean_image_ids, dtype=torch.uint8),
        }
        save_file(tensors, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def recipe_of(variant: str, steps: int) -> PretrainSettings:
    """Give the shipped weights' recipe, in short, with what a variant changes."""
    return replace(
        RECIPES["v1"],
        **{
            "patch_vox": PATCH_VOX,
            "batch": ANATOMIES,
            "steps": steps,
            **VARIANTS[variant],
        },
    )


def weights_of(folder: Path, variant: str) -> Path:
    """Give where a variant's weights are."""
    return (
        folder
        / "weights"
        / f"{variant.replace(', ', '-').replace(' ', '-')}.safetensors"
    )


def train(folder: Path, variant: str, steps: int, threads: int) -> Path:
    """Train a variant, or the rest of it, and say how long it took."""
    path, settings = weights_of(folder, variant), recipe_of(variant, steps)
    if path.exists() and read_recipe(path).get("step") == steps:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    begun, last = time.process_time(), [""]

    def note(done: int, total: int, stage: str) -> None:
        last[0] = stage

    pretrain(
        path,
        settings,
        device="cpu",
        threads=threads,
        batches=StoredBatches(folder / "scans", settings),
        on_progress=note,
    )
    print(
        f"{variant:<24} {steps} steps in {time.process_time() - begun:.0f} CPU s:"
        f" {last[0]}",
        flush=True,
    )
    return path


def measure(folder: Path, variants: list[str], scans: list[list[str]]) -> None:
    """Measure what is trained and not yet measured.

    Probe and clusters on the encoder's own grid, stability on a coarser one.
    """
    words = [word for scan in scans for word in ("--scan", *scan)]
    for name, more in (
        (
            "quality",
            ["--only", "probe,cluster", "--per-class", "20", "--clusters", "16"],
        ),
        (
            "stability",
            ["--only", "stability", "--seeds", "1", "--working-mvox", _STABILITY_MVOX],
        ),
    ):
        table = folder / f"{name}.tsv"
        known = {row.features for row in read_rows(table)}
        new = [
            f"{variant}={weights_of(folder, variant)}"
            for variant in variants
            if variant not in known
        ]
        lacking = [
            key
            for key, shown in (("intensity", "intensity"), ("random", "random network"))
            if shown not in known
        ]
        if new or lacking:
            run.main(
                [
                    *more,
                    *words,
                    "--baselines",
                    ",".join(lacking) or "none",
                    "--weights",
                    *new,
                    "-o",
                    str(table),
                ]
            )


def summary(rows: list[Row], columns: dict[str, tuple[str, str]]) -> str:
    """Write a line per feature set, and under them the spread of the recipe over its seeds.

    Parameters
    ----------
    rows : list of Row
        From the bench.
    columns : dict of str to (scan, start of the measure)
        Measures that begin alike are averaged: "cosine" over all changes of a scan.
    """
    found: dict[str, list[float | None]] = {
        name: [] for name in dict.fromkeys(row.features for row in rows)
    }
    for name, cells in found.items():
        for scan, start in columns.values():
            values = [
                row.value
                for row in rows
                if (row.features, row.scan) == (name, scan)
                and row.measure.startswith(start)
            ]
            cells.append(float(np.mean(values)) if values else None)
    lines = [f"| features | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(map(_cell, cells))} |" for name, cells in found.items()
    ]
    own = [found[name] for name in OWN_SPREAD if name in found]
    if len(own) > 1:
        spread = [
            None if None in column else float(np.std(column, ddof=1))
            for column in zip(*own, strict=True)
        ]
        lines.append(
            f"| *sd over {len(own)} seeds of the recipe* |"
            f" {' | '.join(map(_cell, spread))} |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def tables(folder: Path) -> str:
    """Give the tables of what is measured so far, as Markdown."""
    quality, stability = (
        read_rows(folder / f"{name}.tsv") for name in ("quality", "stability")
    )
    scans = list(dict.fromkeys(row.scan for row in quality))
    changed = [
        (scan, kind)
        for scan in dict.fromkeys(row.scan for row in stability)
        for kind in ("cosine", "ARI")
    ]
    parts = [
        (
            "Probe, 20 voxels per class",
            quality,
            {scan: (scan, "probe 20") for scan in scans},
        ),
        (
            "k-means 16, many-to-one Dice",
            quality,
            {scan: (scan, "many-to-one 16") for scan in scans},
        ),
        (
            "Stability, mean over the changes",
            stability,
            {f"{scan}, {kind}": (scan, kind) for scan, kind in changed},
        ),
    ]
    return "\n".join(
        f"### {title}\n\n{summary(rows, columns)}" for title, rows, columns in parts
    )


def main() -> None:
    """Make the scans, train the variants, measure them, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/ablation"),
        help="scans, weights and tables (default: %(default)s)",
    )
    parser.add_argument(
        "--variants",
        nargs="*",
        default=list(VARIANTS),
        choices=list(VARIANTS),
        help="which (default: all)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=200,
        help="of every variant; a folder holds one number only (default: %(default)s)",
    )
    parser.add_argument(
        "--scan",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "SCAN", "LABELS"),
        help="measure on it too",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="of each training (default: %(default)s)"
    )
    parser.add_argument("--only-train", action="store_true", help="measure nothing yet")
    words = parser.parse_args()
    begun = time.process_time()
    store_scans(words.folder / "scans", words.steps)
    print(
        f"scans of {words.steps} steps: {time.process_time() - begun:.0f} CPU s; losses"
        f" are {', '.join(LOSSES)}",
        flush=True,
    )
    for variant in words.variants:
        train(words.folder, variant, words.steps, words.threads)
    if not words.only_train:
        measure(words.folder, words.variants, words.scan)
        (words.folder / "ablation.md").write_text(
            tables(words.folder), encoding="utf-8"
        )
        print(tables(words.folder))


if __name__ == "__main__":
    main()
