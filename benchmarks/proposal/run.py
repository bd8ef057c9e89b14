"""Measure proposals on scans with a reference.

Keep the figures in a table, and draw a page per scan.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.encoder.scans import OTHER, LabelledScan, mni152, pair
from benchmarks.proposal.cuts import cut_figures
from benchmarks.proposal.methods import Block
from benchmarks.proposal.overlap import overlap
from benchmarks.proposal.pictures import draw_page
from benchmarks.proposal.reliability import confidence_figures
from benchmarks.proposal.scores import proposal_costs, proposal_figures
from benchmarks.proposal.stability import stability_figures
from benchmarks.proposal.supervoxels import compare_methods
from benchmarks.proposal.table import Row, markdown, merge, read_rows, write_rows
from scipy import ndimage

import napari_strata as strata
from napari_strata.encoder.runtime.select import open_runtime
from napari_strata.preprocess.body import body_mask
from napari_strata.preprocess.intensity import filter_threads
from napari_strata.proposal.proposal import Proposal
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Volume

PARTS = ("supervoxels", "proposal", "confidence", "stability", "cut", "pictures")
Figures = Iterable[tuple[str, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and with which settings, seed, threads.

    (0 takes every core) and weights (None: the shipped ones).
    """

    parts: tuple[str, ...]
    settings: ProposeSettings
    seed: int
    threads: int
    weights: Path | None

    def propose(self, volume: Volume) -> Proposal:
        """Make a proposal."""
        return strata.propose(
            volume,
            settings=self.settings,
            seed=self.seed,
            device="cpu",
            threads=self.threads,
            weights=self.weights,
        )


def measure(scan: LabelledScan, plan: Plan, folder: Path) -> Iterator[list[Row]]:
    """Measure one scan, part by part, and draw its page into the folder."""
    if "supervoxels" in plan.parts:
        with filter_threads(plan.threads):
            runtime = open_runtime(plan.weights, device="cpu", threads=plan.threads)
            block = Block.of(scan.volume, runtime, plan.settings, plan.seed)
            yield _rows(scan, "supervoxels", compare_methods(block, scan))
    if set(plan.parts) == {"supervoxels"}:
        return
    proposal = plan.propose(scan.volume)
    found = overlap(proposal.supervoxels, scan.reference, proposal.n_supervoxels)
    if "proposal" in plan.parts:
        yield _rows(scan, "proposal", proposal_figures(proposal, scan, found))
        yield _rows(
            scan,
            "proposal, size and time",
            [("proposal", proposal_costs(proposal, found))],
        )
    if "confidence" in plan.parts:
        yield _rows(scan, "confidence", confidence_figures(proposal, found))
    if "cut" in plan.parts:
        yield _rows(scan, "cut", cut_figures(proposal))
    if "pictures" in plan.parts:
        draw_page(proposal, scan, folder / f"{scan.name.replace(' ', '_')}.png")
    if "stability" in plan.parts:
        yield _rows(
            scan,
            "stability",
            stability_figures(proposal, body_mask(scan.volume), plan.propose),
        )


def _rows(scan: LabelledScan, part: str, figures: Figures) -> list[Row]:
    return [
        Row(scan.name, part, subject, name, value)
        for subject, of_subject in figures
        for name, value in of_subject.items()
    ]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proposal", description=__doc__
    )
    parser.add_argument(
        "--scan",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "SCAN", "LABELS"),
        help="a scan with a reference",
    )
    parser.add_argument(
        "--no-mni152", action="store_true", help="leave nilearn's MNI152 out"
    )
    parser.add_argument(
        "--other-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help=(
            "what lies farther than this from every class is other, if labels hold no"
            " 255 (default: not scored)"
        ),
    )
    parser.add_argument(
        "--only",
        default=",".join(PARTS),
        help="parts, separated by commas (default: %(default)s)",
    )
    pieces = ProposeSettings().supervoxels
    parser.add_argument(
        "--pieces",
        type=int,
        default=pieces,
        metavar="N",
        help="supervoxels to aim for (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="another encoder than the shipped one",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of every random choice (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; 0 takes every core (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/proposal"),
        help="folder; figures of earlier runs stay in its table",
    )
    return parser.parse_args(words)


def chosen_scans(arguments: argparse.Namespace) -> Iterator[LabelledScan]:
    """Make or read the scans that the command line names, one at a time."""
    if not arguments.no_mni152:
        yield mni152()
    for words in arguments.scan:
        yield with_other(pair(*words), arguments.other_mm)


def with_other(scan: LabelledScan, far_mm: float) -> LabelledScan:
    """Count what lies farther than `far_mm` from every class as "other", so that leaks cost.

    Not if there is any, or with 0.
    """
    if not far_mm or (scan.reference == OTHER).any():
        return scan
    reference = scan.reference.copy()
    reference[
        ndimage.distance_transform_edt(
            reference == 0, sampling=scan.volume.spacing_zyx_mm
        )
        > far_mm
    ] = OTHER
    return replace(scan, reference=reference)


def main(words: list[str] | None = None) -> None:
    """Run the bench; table and summary are written after each part of each scan."""
    arguments = parse(words)
    parts = tuple(arguments.only.split(","))
    if not set(parts) <= set(PARTS):
        raise SystemExit(f"--only takes {', '.join(PARTS)}, separated by commas.")
    plan = Plan(
        parts,
        ProposeSettings(supervoxels=arguments.pieces),
        arguments.seed,
        arguments.threads,
        arguments.weights,
    )
    table = arguments.output / "proposal.tsv"
    rows = read_rows(table)
    for scan in chosen_scans(arguments):
        begun = time.perf_counter()
        for new in measure(scan, plan, arguments.output):
            rows = merge(rows, new)
            write_rows(rows, table)
            (arguments.output / "proposal.md").write_text(
                markdown(rows), encoding="utf-8"
            )
            print(markdown(new), flush=True)
        print(f"{scan.name}: {time.perf_counter() - begun:.0f} s in all", flush=True)
