"""Propose tissues on a real head MR and on a sample CT, from file to files.

Run by ``make demo``. It calls the same command that a person types, and writes
everything to out/demo/.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nilearn.datasets import load_mni152_template

ROOT = Path(__file__).parents[2]
OUT = ROOT / "out" / "demo"
STRATA = Path(sys.executable).with_name("strata")


@dataclass(frozen=True)
class Outputs:
    """The files that `strata propose` writes for one scan."""

    labels: Path
    table: Path
    sidecar: Path
    picture: Path

    @classmethod
    def of(cls, scan: Path) -> Outputs:
        """Return the names for a scan."""
        stem = str(OUT / f"{scan.name.removesuffix('.nii.gz')}_labels")
        return cls(
            *(Path(stem + suffix) for suffix in (".nii.gz", ".csv", ".json", ".png"))
        )

    def count_regions(self) -> int:
        """Count the rows of the region table."""
        with open(self.table, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))


def main() -> None:
    """Make the demo's files and say what they are."""
    OUT.mkdir(parents=True, exist_ok=True)
    head = OUT / "mni152_t1.nii.gz"
    print(
        "Taking the MNI152 T1 template at 1 mm from the nilearn package (an average of"
        " real heads, skull stripped).",
        flush=True,
    )
    load_mni152_template(resolution=1).to_filename(head)
    chest = ROOT / "sample_scans" / "chest_ct.nii.gz"

    seconds = {scan: propose(scan) for scan in (head, chest)}

    print("\nMade:")
    for scan, took in seconds.items():
        made = Outputs.of(scan)
        print(f"\n  {shown(scan)}: {made.count_regions()} tissues in {took:.0f} s")
        print(f"    {shown(made.labels):<44} labels on the scan's own grid")
        print(
            f"    {shown(made.table):<44} region table: volumes in mL, intensities,"
            " places"
        )
        print(
            f"    {shown(made.sidecar):<44} the same for programs, with settings,"
            " versions and timings"
        )
        print(f"    {shown(made.picture):<44} a page to look at")
    print("\nOpen one in napari, with Strata docked:")
    for scan in seconds:
        print(f"  {shown(STRATA)} view {shown(scan)}")
    print("\nResearch software: it proposes, a person decides.")


def propose(scan: Path) -> float:
    """Run `strata propose` on one scan; give the wall time in seconds."""
    made = Outputs.of(scan)
    words: list[str | Path] = [
        STRATA,
        "propose",
        scan,
        "-o",
        made.labels,
        "--tissues",
        "16",
        "--montage",
        made.picture,
    ]
    print(
        "\n$",
        shlex.join(shown(word) if isinstance(word, Path) else word for word in words),
        flush=True,
    )
    start = time.perf_counter()
    run = subprocess.run(words, check=False)
    if run.returncode:
        sys.exit(run.returncode)
    return time.perf_counter() - start


def shown(path: Path) -> str:
    """Return a path as it is typed from the project's folder."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    main()
