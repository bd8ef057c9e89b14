"""Fit the confidence of proposals on labelled scans, and write its coefficients.

Prints the expected calibration error of every scan at every cut, with the shipped
coefficients, with the new ones, and with new ones fitted without the scan.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.confidence.examples import ScanExamples, scan_examples
from benchmarks.confidence.fit import (
    LEAST_COVERAGE,
    calibration_error,
    fit_confidence,
)
from benchmarks.encoder.scans import LabelledScan, mni152, pair, synthetic
from benchmarks.proposal.run import with_other

from napari_strata import __version__
from napari_strata.encoder.identity import encoder_hash
from napari_strata.proposal.confidence import (
    CUTS,
    PREDICTORS,
    ConfidenceFit,
    shipped_fit,
)

Errors = dict[str, dict[str, float]]
"""Calibration error by scan and cut."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.confidence", description=__doc__
    )
    parser.add_argument(
        "--scan",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "SCAN", "LABELS"),
        help="a scan with a reference; its eight largest classes count",
    )
    parser.add_argument(
        "--brain",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "SCAN", "LABELS"),
        help="the same, and what lies over 3 mm from every class is other",
    )
    parser.add_argument(
        "--no-mni152", action="store_true", help="leave nilearn's MNI152 out"
    )
    parser.add_argument(
        "--synthetic",
        type=int,
        default=0,
        metavar="COUNT",
        help="synthetic scans of each kind (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the proposals")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--examples",
        type=Path,
        default=Path("out/confidence"),
        help="folder; scans with examples there are not proposed again",
    )
    parser.add_argument(
        "-o", "--output", type=Path, help="confidence_fit.json to write"
    )
    return parser.parse_args(words)


def chosen_scans(arguments: argparse.Namespace) -> Iterator[LabelledScan]:
    """Make or read the scans that the command line names, one at a time."""
    if not arguments.no_mni152:
        yield mni152()
    for words in arguments.scan:
        yield pair(*words)
    for words in arguments.brain:
        yield with_other(pair(*words), 3.0)
    yield from synthetic(arguments.synthetic)


def collect(arguments: argparse.Namespace) -> list[ScanExamples]:
    """Collect the examples of all scans, from files where there are some."""
    arguments.examples.mkdir(parents=True, exist_ok=True)
    found = []
    for scan in chosen_scans(arguments):
        path = arguments.examples / f"{scan.name.replace(' ', '_')}.npz"
        if not path.exists():
            scan_examples(scan, seed=arguments.seed, threads=arguments.threads).save(
                path
            )
            print(f"{scan.name}: proposed", flush=True)
        found.append(ScanExamples.load(scan.name, path))
    return found


def errors_without(scans: list[ScanExamples]) -> Errors:
    """Return each scan's errors with coefficients that were fitted without it."""
    found: Errors = {}
    for scan in scans:
        others = [one for one in scans if one is not scan]
        found |= errors_with(fit_confidence(others), [scan])
    return found


def errors_with(fit: ConfidenceFit, scans: list[ScanExamples]) -> Errors:
    """Return the errors of scans with given coefficients."""
    return {
        scan.name: {
            cut: calibration_error(fit, one, cut) for cut, one in scan.cuts.items()
        }
        for scan in scans
    }


def markdown(scans: list[ScanExamples], columns: dict[str, Errors]) -> str:
    """Return a table: a row per scan, the errors of each fit at each cut."""
    cuts = [f"{tree} {n}" for tree, n in CUTS]
    lines = [
        "| scan | " + " | ".join(f"{fit}: {', '.join(cuts)}" for fit in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for scan in scans:
        mark = "" if scan.coverage >= LEAST_COVERAGE else " (not fitted on)"
        cells = [
            " ".join(f"{errors[scan.name][cut]:.3f}" for cut in cuts)
            for errors in columns.values()
        ]
        lines.append(f"| {scan.name}{mark} | " + " | ".join(cells) + " |")
    means = [
        " ".join(
            f"{sum(errors[scan.name][cut] for scan in scans) / len(scans):.3f}"
            for cut in cuts
        )
        for errors in columns.values()
    ]
    return "\n".join([*lines, "| mean | " + " | ".join(means) + " |"])


def document(
    fit: ConfidenceFit, scans: list[ScanExamples], without: Errors
) -> dict[str, object]:
    """Return what is written: coefficients, and where they come from."""
    return {
        "predictors": list(PREDICTORS),
        "weights": {tree: list(one) for tree, one in fit.weights.items()},
        "offsets": fit.offsets,
        "made_by": "python -m benchmarks.confidence",
        "version": __version__,
        "encoder_sha256": encoder_hash(None),
        "scans": [scan.name for scan in scans if scan.coverage >= LEAST_COVERAGE],
        "error_without_the_scan": {
            name: {cut: round(error, 3) for cut, error in one.items()}
            for name, one in without.items()
        },
    }


def main(words: list[str] | None = None) -> None:
    """Run the fit."""
    arguments = parse(words)
    scans = collect(arguments)
    fit, without = fit_confidence(scans), errors_without(scans)
    columns = {"fitted": errors_with(fit, scans), "without the scan": without}
    try:
        columns = {"shipped": errors_with(shipped_fit(), scans)} | columns
    except FileNotFoundError:
        print("There are no shipped coefficients to compare with.")
    print(markdown(scans, columns))
    if arguments.output:
        text = json.dumps(document(fit, scans, without), indent=2)
        arguments.output.write_text(text + "\n", encoding="utf-8")
        print(f"{arguments.output} written")
