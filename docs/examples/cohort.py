"""A cohort from Python: find scans, fit a codebook, make tables and a page, read volumes.

    python docs/examples/cohort.py SCANS... -o OUT --tissues 16 --codebook-from 20

SCANS are files, folders, BIDS data sets, globs or a list (CSV). Run it again after
adding scans: only the new ones are computed.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from napari_strata.batch.inputs.plan import plan_scans
from napari_strata.batch.outputs.tables_and_page import write_tables_and_page
from napari_strata.batch.run import Recipe, ScanResult, run_batch
from napari_strata.settings import BatchSettings, ProposeSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cohort and print the median volume of each tissue over the scans that fit."""
    parser = argparse.ArgumentParser(description="A cohort from Python.")
    parser.add_argument("scans", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tissues", type=int, default=16)
    parser.add_argument("--codebook-from", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0, help="1 needs no Dask")
    parser.add_argument("--method", default="strata")
    asked = parser.parse_args(argv)

    scans = plan_scans(asked.scans, leave_out=asked.output)
    recipe = Recipe(
        "tissues", asked.tissues, settings=ProposeSettings(method=asked.method)
    )
    results = run_batch(
        scans,
        asked.output,
        recipe,
        settings=BatchSettings(workers=asked.workers),
        codebook_from=asked.codebook_from,
        on_result=print_result,
    )
    tables, page = write_tables_and_page(results, asked.output)
    print(f"Look at {page} before you trust a number.")
    for region, volumes in volumes_by_region(tables.volumes).items():
        print(
            f"{region}: {statistics.median(volumes):.1f} mL, the median of"
            f" {len(volumes)} scans"
        )


def print_result(result: ScanResult) -> None:
    """Print the outcome of a scan."""
    print(
        f"{result.scan.id}: {result.status} {result.reason or result.warning}".rstrip()
    )


def volumes_by_region(table: Path) -> dict[str, list[float]]:
    """Return the volumes of each region, only of scans that fit the codebook."""
    by_region: dict[str, list[float]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["fits"] == "yes":
                by_region.setdefault(row["region"], []).append(float(row["volume_ml"]))
    return by_region


# workers are separate processes, and must not start it again
if __name__ == "__main__":
    main()
