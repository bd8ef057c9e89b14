"""The command `strata explain`: why a voxel or a region is what it is, as JSON."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.cli.terminal import print_json
from napari_strata.errors import RegionError
from napari_strata.filenames import CASE_SUFFIX
from napari_strata.volume import BACKGROUND

if TYPE_CHECKING:
    from napari_strata.refine.session.refinement import Refinement


def add_command(commands: Any) -> None:
    """Add `explain` to the command line."""
    parser = commands.add_parser(
        "explain",
        help="explain why a voxel or a region of a case is what it is, as JSON",
    )
    parser.add_argument(
        "case", type=Path, help=f"case ({CASE_SUFFIX}); the scan is not needed"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--at",
        type=float,
        nargs=3,
        metavar=("R", "A", "S"),
        help="a point in RAS+ mm",
    )
    what.add_argument(
        "--voxel",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="a voxel; the axes point to Inferior, Posterior and Left",
    )
    what.add_argument("--region", type=int, metavar="ID", help="a region")
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace) -> None:
    from napari_strata.explain import explain_region, explain_voxel
    from napari_strata.refine.session.refinement import Refinement

    work = Refinement.load(arguments.case)
    names = {row.id: row.name for row in work.regions} | {BACKGROUND: "background"}
    if arguments.region is not None:
        region_card = explain_region(work.proposal, work.view.table, arguments.region)
        neighbor = region_card.neighbor
        print_json(
            {
                **asdict(region_card),
                "name": names.get(region_card.id),
                "neighbor_name": None if neighbor is None else names.get(neighbor),
            }
        )
        return
    voxel = arguments.voxel or _voxel_at(work, arguments.at)
    region, origin = work.view.region_at(voxel), work.view.origin_at(voxel)
    card = explain_voxel(
        work.proposal, work.view.table, voxel, region=region, strokes=work.view.stroked
    )
    runner_up = card.runner_up
    print_json(
        {
            **asdict(card),
            "name": names.get(region),
            "origin": origin,
            "runner_up_name": None if runner_up is None else names.get(runner_up),
        }
    )


def _voxel_at(work: Refinement, point_ras_mm: list[float]) -> list[int]:
    """Return the voxel (z, y, x) that holds a point in RAS+ mm."""
    voxel = np.rint(work.proposal.volume.geometry.voxel_from_world(point_ras_mm))
    if not (
        np.isfinite(voxel).all()
        and (voxel >= 0).all()
        and (voxel < work.proposal.volume.geometry.shape_zyx).all()
    ):
        raise RegionError(
            f"{tuple(point_ras_mm)} mm lies outside the scan. Give a point inside it as"
            " --at R A S."
        )
    return [int(index) for index in voxel]
