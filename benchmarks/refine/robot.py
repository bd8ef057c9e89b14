"""Measure refinement with the robot user: `python -m benchmarks.refine.robot --help`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.refine.heads import HEADS, TableClicks
from benchmarks.refine.robot_arms import actions_to, look_games
from benchmarks.refine.robot_scans import RobotScan, all_scans, proposed
from benchmarks.refine.robot_user import Game, Robot

from napari_strata.refine.session.refinement import Refinement

PARTS = ("product", "heads", "proposal", "looks")
_SHOWN = (0, 5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scan",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "SCAN", "LABELS"),
        help="a scan with a reference",
    )
    parser.add_argument(
        "--coarse", nargs="*", default=[], metavar="NAME", help="also at about 3 mm"
    )
    parser.add_argument(
        "--only-coarse", action="store_true", help="not at their own spacing"
    )
    parser.add_argument(
        "--no-mni152", action="store_true", help="without nilearn's MNI152 T1"
    )
    parser.add_argument(
        "--synthetic",
        type=int,
        default=0,
        metavar="N",
        help="N scans of each of five synthetic kinds",
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--heads",
        nargs="*",
        default=list(HEADS),
        metavar="NAME",
        help="heads to compare",
    )
    parser.add_argument("--clicks", type=int, default=20, help="further clicks")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/robot"),
        help="keeps each scan's proposal; the tables are added to robot.md in it",
    )
    arguments = parser.parse_args()
    scans = all_scans(
        arguments.scan,
        use_mni152=not arguments.no_mni152,
        synthetic_count=arguments.synthetic,
        coarse=arguments.coarse,
    )
    scans = [
        one
        for one in scans
        if not (arguments.only_coarse and one.name in arguments.coarse)
    ]
    for labelled in scans:
        scan = proposed(labelled, arguments.folder)
        for line in _lines(scan, arguments):
            print(line, flush=True)
            with (arguments.folder / "robot.md").open("a", encoding="utf-8") as table:
                table.write(line + "\n")


def _lines(scan: RobotScan, arguments: argparse.Namespace) -> Iterator[str]:
    parts, robot = arguments.parts.split(","), Robot(scan)
    yield (
        f"\n**{scan.name}**: {scan.proposal.n_supervoxels} supervoxels,"
        f" {len(robot.classes)} classes, best possible {scan.ceiling:.3f}\n"
    )
    if "product" in parts or "heads" in parts:
        yield (
            "| head | "
            + " | ".join(f"{k} clicks" for k in _SHOWN)
            + " | mean over clicks | largest fall | CPU ms per click |\n|"
            + "---|" * (len(_SHOWN) + 4)
        )
    if "product" in parts:
        work = Refinement(scan.proposal)

        def click(voxels: np.ndarray, region: int) -> np.ndarray:
            work.scribble(voxels, region=region)
            return work.labels

        yield _row(
            "`Refinement`, whole volume painted", robot.play(click, arguments.clicks)
        )
    for name in arguments.heads if "heads" in parts else ():
        yield _row(
            name, robot.play(TableClicks(scan, HEADS[name](scan)), arguments.clicks)
        )
    if "proposal" in parts:
        yield from actions_to(robot, 0.85)
    if "looks" in parts:
        yield from look_games(robot, arguments.clicks)


def _row(name: str, game: Game) -> str:
    scores = " | ".join(f"{game.at(k):.3f}" for k in _SHOWN)
    whole = np.mean([game.at(k) for k in range(_SHOWN[-1] + 1)])
    return (
        f"| {name} | {scores} | {whole:.3f} |"
        f" {game.largest_fall:.3f} |"
        f" {1000 * np.median(game.seconds[-10:]):.0f} |"
    )


if __name__ == "__main__":
    main()
