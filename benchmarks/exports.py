"""CPU seconds, size and peak memory of every export of a large label volume.

    python -m benchmarks.exports LABELS.nii.gz [--repeat 10] [--like DICOM_FOLDER]

LABELS is stacked `--repeat` times along z, every other time upside down, so that a
short scan stands for a long one; with `--like` (and no repeat) a DICOM SEG of it is
timed too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import napari_strata as strata
from napari_strata.settings import ExportSettings
from napari_strata.volume import Geometry, Segmentation, Volume

NAMES = ("a.nii.gz", "a.seg.nrrd", "a.stl", "a.ply", "a.obj", "a.tsv", "a.parquet")


def timed(name: str, action: Callable[[], object], path: Path | None = None) -> None:
    """Run once and print a row."""
    begun = time.process_time()
    action()
    size = f"{path.stat().st_size / 1e6:8.2f} MB" if path else " " * 11
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name:24s} {time.process_time() - begun:7.2f} CPU s {size}  peak"
        f" {peak:.1f} GB"
    )


def main() -> None:
    """Print a row per format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--like", type=Path)
    arguments = parser.parse_args()
    short = strata.read_labels(arguments.labels)
    data = np.concatenate(
        [short.labels[:: 1 - 2 * (n % 2)] for n in range(arguments.repeat)]
    )
    geometry = Geometry(
        data.shape,
        short.geometry.affine,
        short.geometry.file if arguments.repeat == 1 else None,
    )
    labels = Segmentation(data, short.regions, geometry)
    print(f"{data.shape} voxels, {len(labels.regions)} regions")
    scan = Volume(
        np.random.default_rng(0).integers(-1000, 1000, data.shape).astype(np.int16),
        geometry,
        "ct",
    )
    timed("measure", lambda: strata.measure_regions(labels, scan))
    moved = Segmentation(np.roll(data, 1, axis=2), short.regions, geometry)
    timed("agree with a reference", lambda: strata.agree(labels, moved))
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / name
            timed(name, lambda path=path: strata.write(labels, path), path)  # type: ignore[misc]
        timed(
            "read a.seg.nrrd", lambda: strata.read_labels(Path(folder) / "a.seg.nrrd")
        )
        if arguments.like and arguments.repeat == 1:
            series = strata.read(arguments.like)
            for kind in ("binary", "labelmap"):
                path, settings = (
                    Path(folder) / f"{kind}.dcm",
                    ExportSettings(dicom_segments=kind),
                )
                timed(
                    path.name,
                    lambda path=path, settings=settings: strata.write(
                        labels, path, scan=series, settings=settings
                    ),
                    path,
                )  # type: ignore[misc]
                timed(
                    f"read {path.name}",
                    lambda path=path: strata.read_labels(path, like=series),
                )  # type: ignore[misc]


if __name__ == "__main__":
    main()
