"""Time, memory and agreement of `strata propose` on the MNI152 T1 at 1 mm that nilearn ships."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
from scipy import ndimage

import napari_strata as strata
from napari_strata.measure import compare
from napari_strata.volume import Segmentation, default_regions

STRATA = Path(sys.executable).with_name("strata")
OTHER = 255
"""Reference value of voxels more than 3 mm outside the brain: regions that leak there pay."""


def reference(folder: Path) -> Segmentation:
    """Make the reference: 1 CSF, 2 grey, 3 white inside nilearn's brain mask.

    255 beyond 3 mm; 0 between, not scored.
    """
    maps = []
    for name, load in (
        ("mask", load_mni152_brain_mask),
        ("gm", load_mni152_gm_template),
        ("wm", load_mni152_wm_template),
    ):
        load(resolution=1).to_filename(folder / f"{name}.nii.gz")
        maps.append(strata.read(folder / f"{name}.nii.gz"))
    brain, grey, white = (
        volume.data.astype(np.float64) / volume.data.max() for volume in maps
    )
    inside = brain > 0
    shares = np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
    labels = np.where(inside, 1 + shares.argmax(axis=0), 0).astype(np.uint8)
    labels[ndimage.distance_transform_edt(~inside) > 3] = OTHER
    return Segmentation(labels, default_regions((1, 2, 3, OTHER)), maps[0].geometry)


def run(words: list[str]) -> dict[str, float]:
    """Run a command; give wall seconds.

    Processor seconds and peak memory in GB of the process.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    wall, after = (
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(wall, 1),
        "processor_s": round(used, 1),
        "peak_gb": round(after.ru_maxrss / 1e6, 2),
    }


def main() -> None:
    """Print the figures as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan, labels = folder / "mni152_t1.nii.gz", folder / "labels.nii.gz"
        load_mni152_template(resolution=1).to_filename(scan)
        figures: dict[str, object] = {"help": run([str(STRATA), "--help"])}
        figures["propose"] = run(
            [
                str(STRATA),
                "propose",
                str(scan),
                "-o",
                str(labels),
                "--tissues",
                "16",
                "--quiet",
                *sys.argv[1:],
            ]
        )
        scores = compare(
            strata.read_labels(labels), reference(folder), ignore=(0,), other=(OTHER,)
        )
        figures["many_to_one"] = {
            name: round(scores.many_to_one[k], 3)
            for k, name in ((1, "CSF"), (2, "grey"), (3, "white"))
        }
        figures["many_to_one_mean"] = round(scores.many_to_one_mean, 3)
        figures["stages_s"] = json.loads((folder / "labels.json").read_text())[
            "seconds"
        ]
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
