"""Why a voxel is in its region: figures that a person can check against what is seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.cli.command_line import main
from napari_strata.errors import RegionError
from napari_strata.explain import explain_voxel, uncertainty_map
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_proposal, phantom_truth

TRUTH = phantom_truth()


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return phantom_proposal()


def by_truth(proposal: Proposal) -> np.ndarray:
    votes = np.zeros((proposal.n_supervoxels, 6), int)
    np.add.at(votes, (proposal.supervoxels.ravel(), TRUTH.ravel()), 1)
    return votes.argmax(axis=1)


def deep_in(organ: int) -> tuple[int, ...]:
    return tuple(
        int(v)
        for v in np.unravel_index(
            ndi.distance_transform_edt(organ == TRUTH).argmax(), TRUTH.shape
        )
    )


def test_brightness_speaks_for_an_organ_of_its_own_brightness(
    proposal: Proposal,
) -> None:
    card = explain_voxel(proposal, by_truth(proposal), deep_in(4))
    assert card.region == 4
    assert card.runner_up not in (None, 4)
    assert card.likelihood > 0.9
    assert card.evidence.intensity > 0.5
    assert card.evidence.features == card.evidence.strokes == 0
    assert sum(
        abs(v) for v in (card.evidence.intensity, card.evidence.position)
    ) == pytest.approx(1)


def test_what_was_given_to_the_wrong_region_speaks_for_the_right_one(
    proposal: Proposal,
) -> None:
    table = by_truth(proposal)
    voxel = deep_in(3)
    table[proposal.supervoxels[voxel]] = 5
    card = explain_voxel(proposal, table, voxel)
    assert (card.region, card.runner_up) == (5, 3)
    assert card.likelihood < 0.5
    assert card.evidence.intensity < 0
    assert uncertainty_map(proposal, table)[card.supervoxel] == pytest.approx(
        1 - card.likelihood, abs=1e-5
    )


def test_uncertainty_is_low_inside_and_higher_for_what_lies_between(
    proposal: Proposal,
) -> None:
    table = by_truth(proposal)
    unsure = uncertainty_map(proposal, table)
    assert unsure.shape == (proposal.n_supervoxels,)
    assert unsure[proposal.supervoxels[deep_in(5)]] < 0.1
    assert not uncertainty_map(proposal, np.zeros_like(table)).any()


def test_strokes_and_the_way_a_voxel_came_to_its_region_are_told(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, regions=6)
    place = deep_in(2)
    work.scribble([place], region=30)
    work.scribble([deep_in(1)], region=31)
    work.paint([[0, 0, 0]], 31)
    assert work.view.origin_at(place) == "shown"
    assert work.view.origin_at((0, 0, 0)) == "painted"
    follows = np.argwhere(
        (work.labels == 30) & (proposal.supervoxels != proposal.supervoxels[place])
    )
    assert {work.view.origin_at(voxel) for voxel in follows} == {"taught"}
    card = explain_voxel(
        proposal, work.view.table, follows[0], strokes=work.view.stroked
    )
    assert card.region == 30
    assert (
        explain_voxel(
            proposal, work.view.table, place, strokes=work.view.stroked
        ).evidence.strokes
        > 0
    )
    assert (
        explain_voxel(
            proposal, work.view.table, (0, 0, 0), region=work.view.region_at((0, 0, 0))
        ).region
        == 31
    )
    work.rename(31, "rest")
    assert {
        work.view.origin_at(voxel) for voxel in np.argwhere(work.labels == 31)[::50]
    } <= {"shown", "taught", "edited", "painted"}
    assert Refinement(proposal, regions=6).view.origin_at(place) == "proposed"


def test_a_region_that_is_only_painted_is_not_said_to_be_likely(
    proposal: Proposal,
) -> None:
    work = Refinement(proposal, tissues=5)
    place, below = (
        deep_in(4),
        Refinement(proposal, tissues=5).view.region_at(deep_in(4)),
    )
    painted = work.paint([place])
    card = explain_voxel(proposal, work.view.table, place, region=painted)
    assert (card.region, card.runner_up, card.likelihood) == (painted, below, 0.0)


def test_a_voxel_outside_and_a_strange_table_are_refused(proposal: Proposal) -> None:
    for voxel in ((0, 0, 99), (-1, 0, 0), (0, 0)):
        with pytest.raises(RegionError, match="outside the scan"):
            explain_voxel(proposal, by_truth(proposal), voxel)
    with pytest.raises(RegionError, match="Take the table"):
        explain_voxel(proposal, np.zeros(3, int), (0, 0, 0))


def test_the_command_says_it_as_json(
    proposal: Proposal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Refinement(proposal, tissues=5)
    work.rename(work.view.region_at(deep_in(4)), "kidney")
    work.save(tmp_path / "case.strata")
    place = [str(v) for v in proposal.volume.geometry.world_from_voxel(deep_in(4))]
    assert main(["explain", str(tmp_path / "case.strata"), "--at", *place]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["origin"], said["voxel_zyx"]) == (
        "kidney",
        "edited",
        list(deep_in(4)),
    )
    assert set(said["evidence"]) == {"features", "intensity", "position", "strokes"}
    assert (
        main(
            ["explain", str(tmp_path / "case.strata"), "--region", str(said["region"])]
        )
        == 0
    )
    region = json.loads(capsys.readouterr().out)
    assert (region["id"], region["name"]) == (said["region"], "kidney")
    assert isinstance(region["neighbor_name"], str)
    for far in (["nan", "0", "0"], ["1e30", "0", "0"]):
        assert main(["explain", str(tmp_path / "case.strata"), "--at", *far]) == 2
        assert "mm lies outside the scan" in capsys.readouterr().err
    assert (
        main(["explain", str(tmp_path / "case.strata"), "--voxel", "0", "0", "99"]) == 2
    )
