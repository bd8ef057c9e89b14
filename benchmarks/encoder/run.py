"""Measure feature sets on scans, and keep the figures in a table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.encoder import baselines, cluster, probe, stability
from benchmarks.encoder.baselines import FeatureSet, Reader
from benchmarks.encoder.scans import LabelledScan, mni152, pair, synthetic
from benchmarks.encoder.table import Row, markdown, merge, read_rows, write_rows
from benchmarks.encoder.working import Voxels, WorkingScan, draw_voxels
from numpy.typing import NDArray

from napari_strata.preprocess.body import body_mask
from napari_strata.settings import ProposeSettings

Named = list[tuple[str, slice]]
PARTS = ("probe", "cluster", "stability")
_SHOWN = ("probe 20", "many-to-one 16", "cosine, bias", "cosine, resample")
BASELINES: dict[str, Callable[[], FeatureSet]] = {
    "intensity": baselines.intensity,
    "brightness": baselines.brightness,
    "filters": baselines.filter_bank,
    "random": baselines.random_network,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: parts of the bench, over how many seeds.

    Whether parts of a network get rows, on which grid; with which numbers.
    """

    parts: tuple[str, ...]
    seeds: int
    probe_seeds: int
    levels: bool
    settings: ProposeSettings
    per_class: tuple[int, ...] = probe.PER_CLASS
    clusters: tuple[int, ...] = cluster.CLUSTERS


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A scan made ready for every feature set.

    Its voxels, and its changed copies on their own working grids.
    """

    name: str
    working: WorkingScan
    voxels: Voxels
    changed: tuple[tuple[str, WorkingScan, NDArray[np.float64]], ...]

    @classmethod
    def of(cls, scan: LabelledScan, plan: Plan) -> Bench:
        """Prepare a scan; nothing here depends on the feature set."""
        inside = body_mask(scan.volume)
        working = WorkingScan.of(scan.volume, plan.settings, inside)
        voxels = draw_voxels(scan, working)
        changed = []
        if "stability" in plan.parts:
            places = working.scan_points(voxels.body)
            for change in stability.changes(scan.volume, inside):
                other = WorkingScan.of(change.volume, plan.settings)
                changed.append(
                    (change.name, other, other.working_points(change.place(places)))
                )
        return cls(scan.name, working, voxels, tuple(changed))


def measure(features: FeatureSet, bench: Bench, plan: Plan) -> Iterator[Row]:
    """Measure one feature set on one scan."""
    read = features.open(bench.working)
    sets = [(features.name, slice(None))]
    if plan.levels:
        sets += [
            (f"{features.name}, {part}", columns) for part, columns in features.parts
        ]
    if "probe" in plan.parts:
        yield from _probe_rows(read, sets, bench, plan)
    if "cluster" in plan.parts:
        yield from _cluster_rows(read, sets, bench, plan)
    if "stability" in plan.parts:
        yield from _stability_rows(features, read, sets, bench, plan)


def _probe_rows(read: Reader, sets: Named, bench: Bench, plan: Plan) -> Iterator[Row]:
    voxels = bench.voxels
    intensity = baselines.intensity().open(bench.working)
    taught, probed = read(voxels.taught), read(voxels.probed)
    more = [2 * intensity(points) for points in (voxels.taught, voxels.probed)]
    for name, columns in sets:
        teach, rest = (
            np.concatenate(pair, axis=1)
            for pair in ((taught[:, columns], more[0]), (probed[:, columns], more[1]))
        )
        for per_class in plan.per_class:
            scores = [
                probe.probe_score(
                    teach,
                    voxels.taught_class,
                    rest,
                    voxels.probed_class,
                    per_class=per_class,
                    seed=seed,
                )
                for seed in range(plan.probe_seeds)
            ]
            yield _row(name, bench.name, f"probe {per_class}", scores)


def _cluster_rows(read: Reader, sets: Named, bench: Bench, plan: Plan) -> Iterator[Row]:
    whole = read(bench.voxels.clustered)
    for name, columns in sets:
        for clusters in plan.clusters:
            found = [
                cluster.cluster(whole[:, columns], clusters, seed)
                for seed in range(plan.seeds)
            ]
            scores = [
                cluster.cluster_score(labels, bench.voxels.clustered_class)
                for labels in found
            ]
            yield _row(
                name,
                bench.name,
                f"many-to-one {clusters}",
                [score.many_to_one for score in scores],
            )
            yield _row(
                name, bench.name, f"ARI {clusters}", [score.ari for score in scores]
            )


def _stability_rows(
    features: FeatureSet, read: Reader, sets: Named, bench: Bench, plan: Plan
) -> Iterator[Row]:
    before = read(bench.voxels.body)
    first = {name: _clusterings(before[:, columns], plan) for name, columns in sets}
    for change, other, places in bench.changed:
        after = features.open(other)(places)
        for name, columns in sets:
            yield _row(
                name,
                bench.name,
                f"cosine, {change}",
                [stability.mean_cosine(before[:, columns], after[:, columns])],
            )
            second = _clusterings(after[:, columns], plan)
            scores = [
                stability.adjusted_rand(one, two)
                for one, two in zip(first[name], second, strict=True)
            ]
            yield _row(name, bench.name, f"ARI at 10, {change}", scores)


def _clusterings(values: NDArray[np.float32], plan: Plan) -> list[NDArray[np.int32]]:
    return [
        cluster.cluster(values, stability.CLUSTERS, seed) for seed in range(plan.seeds)
    ]


def _row(features: str, scan: str, measure: str, scores: list[float]) -> Row:
    return Row(features, scan, measure, float(np.mean(scores)), float(np.std(scores)))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoder", description=__doc__
    )
    parser.add_argument(
        "--weights",
        nargs="*",
        default=[],
        metavar="NAME=PATH",
        help="encoder weights to measure",
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
        "--synthetic",
        type=int,
        default=0,
        metavar="N",
        help="held-out synthetic scans of each kind (default: none)",
    )
    parser.add_argument(
        "--baselines",
        default=",".join(BASELINES),
        help="which, separated by commas, or none (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        default=",".join(PARTS),
        help="parts, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="seeds of k-means per figure (default: %(default)s)",
    )
    parser.add_argument(
        "--probe-seeds",
        type=int,
        default=10,
        help="draws of labelled voxels per figure (default: %(default)s)",
    )
    parser.add_argument(
        "--per-class",
        type=int,
        nargs="+",
        default=probe.PER_CLASS,
        help="labelled voxels per class (default: 5 20 100)",
    )
    parser.add_argument(
        "--clusters",
        type=int,
        nargs="+",
        default=cluster.CLUSTERS,
        help="of k-means (default: 6 10 16)",
    )
    parser.add_argument(
        "--levels",
        action="store_true",
        help="rows for each level of a network too, and for its brightness codes",
    )
    parser.add_argument(
        "--working-mvox",
        type=float,
        default=6.0,
        help="most voxels (millions) of the working grid (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/encoder.tsv"),
        help="table; rows of earlier runs stay in it",
    )
    parser.add_argument(
        "--markdown", type=Path, help="write all rows of the table as Markdown too"
    )
    return parser.parse_args(words)


def chosen_sets(arguments: argparse.Namespace) -> list[FeatureSet]:
    """Make the feature sets that the command line names."""
    names = [
        name for name in arguments.baselines.split(",") if name not in ("", "none")
    ]
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise SystemExit(
            f"No such baseline: {', '.join(unknown)}. Choose from"
            f" {', '.join(BASELINES)}."
        )
    sets = [BASELINES[name]() for name in names]
    for word in arguments.weights:
        name, _, path = word.rpartition("=")
        sets.append(baselines.trained(name or Path(path).stem, Path(path)))
    return sets


def chosen_scans(arguments: argparse.Namespace) -> Iterator[LabelledScan]:
    """Make or read the scans that the command line names, one at a time."""
    if not arguments.no_mni152:
        yield mni152()
    for words in arguments.scan:
        yield pair(*words)
    yield from synthetic(arguments.synthetic)


def main(words: list[str] | None = None) -> None:
    """Run the bench; the table is written after each feature set of each scan."""
    arguments = parse(words)
    parts = tuple(arguments.only.split(","))
    if not set(parts) <= set(PARTS):
        raise SystemExit(f"--only takes {', '.join(PARTS)}, separated by commas.")
    settings = ProposeSettings(working_mvox=arguments.working_mvox)
    numbers = (tuple(arguments.per_class), tuple(arguments.clusters))
    plan = Plan(
        parts,
        arguments.seeds,
        arguments.probe_seeds,
        arguments.levels,
        settings,
        *numbers,
    )
    sets = chosen_sets(arguments)
    rows = read_rows(arguments.output)
    for scan in chosen_scans(arguments):
        bench = Bench.of(scan, plan)
        for features in sets:
            begun = time.process_time()
            new = list(measure(features, bench, plan))
            rows = merge(rows, new)
            write_rows(rows, arguments.output)
            shown = [
                f"{row.measure} {row.value:.3f}"
                for row in new
                if row.features == features.name and row.measure in _SHOWN
            ]
            print(
                f"{scan.name:<28} {features.name:<20} {'; '.join(shown)} "
                f" ({time.process_time() - begun:.1f} CPU s)",
                flush=True,
            )
        if arguments.markdown:
            arguments.markdown.write_text(markdown(rows), encoding="utf-8")
