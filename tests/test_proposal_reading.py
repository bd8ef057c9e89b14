"""Outliers, pairs and confidence per cut, on a symmetric phantom with a lesion."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

import napari_strata as strata
from napari_strata.proposal.cut_confidence import CutConfidence
from napari_strata.proposal.reading.coarse_grid import coarse_grid
from napari_strata.proposal.reading.mirror_pairs import find_pairs, partners
from napari_strata.volume import Geometry, Volume
from phantoms import ball, phantom_proposal

SHAPE = (40, 44, 48)
KIDNEYS = ((25, 25, 11), (23, 25, 36))
"""Middles of two organs, the one on the right a little lower."""
LESION = (26, 12, 17)


def symmetric_volume():
    """Return a body with fat, lungs, a spine and kidneys, and a lesion on one side."""
    grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
    middle = np.array([19.5, 21.5, 23.5])
    depth = (((grid - middle) / (18, 20, 22)) ** 2).sum(axis=-1)
    data = np.where(depth <= 1, 700.0, 0.0)
    data[depth <= 0.7] = 100.0
    data[ball(SHAPE, (19.5, 34, 23.5), 4)] = 500.0
    for side in (11, 36):
        data[ball(SHAPE, (12, 20, side), 5)] = 500.0
    for place in KIDNEYS:
        data[ball(SHAPE, place, 5)] = 300.0
    data[ball(SHAPE, LESION, 4)] = 900.0
    data += np.random.default_rng(0).normal(0, 12, SHAPE)
    geometry = Geometry.from_spacing(SHAPE, (2.0, 2.0, 2.0))
    return Volume(data.astype(np.float32), geometry, "mr", name="symmetric")


@pytest.fixture(scope="module")
def proposal():
    return phantom_proposal(symmetric_volume())


def test_the_lesion_is_the_first_outlier(proposal):
    first, *others = proposal.outliers(4)
    found = np.isin(proposal.supervoxels, first.supervoxels)
    lesion = ball(SHAPE, LESION, 4)
    dice = 2 * (found & lesion).sum() / (found.sum() + lesion.sum())
    assert dice > 0.8
    assert found[first.voxel_zyx]
    assert first.volume_ml == pytest.approx(found.sum() * 8 / 1000)
    assert first.reasons
    assert first.sentence.startswith("Unlike the rest: ")
    for other in others:
        assert other.score <= first.score
        assert not np.isin(other.supervoxels, first.supervoxels).any()


def test_outliers_do_not_depend_on_the_side_that_comes_first(proposal):
    volume = proposal.volume
    flipped = Volume(
        np.ascontiguousarray(volume.data[:, :, ::-1]), volume.geometry, "mr"
    )
    first = phantom_proposal(flipped).outliers(1)[0]
    assert first.volume_ml == pytest.approx(proposal.outliers(1)[0].volume_ml, rel=0.1)


def test_no_outliers_are_asked_for_or_to_be_had(proposal):
    assert proposal.outliers(0) == ()
    assert len(proposal.outliers(3)) <= 3


def test_the_plane_of_symmetry_is_the_bodys(proposal):
    plane = proposal.symmetry().plane
    assert plane.is_clear
    assert abs(plane.normal_zyx[2]) > 0.99
    middle = np.array([[39.0, 43.0, 47.0]])
    assert np.abs(plane.mirrored(middle) - middle).max() < 3.0


def test_two_kidneys_become_a_pair(proposal):
    table = proposal.region_tree.cut(12)
    right, left = (int(table[proposal.supervoxels[place]]) for place in KIDNEYS)
    assert left != right
    pairs = find_pairs(proposal.symmetry(), table)
    assert partners(pairs).get(left) == right
    pair = next(one for one in pairs if left in (one.left, one.right))
    assert (pair.left, pair.right) == (left, right)
    assert proposal.pairs(12) == pairs


def test_nothing_is_a_pair_where_there_is_no_symmetry():
    rng = np.random.default_rng(3)
    data = rng.normal(0, 12, SHAPE).astype(np.float32)
    for intensity in (100.0, 300.0, 500.0, 700.0, 900.0) * 4:
        place = tuple(rng.uniform((8, 8, 8), (32, 36, 40)))
        data[ball(SHAPE, place, 8)] = intensity
    geometry = Geometry.from_spacing(SHAPE, (2.0, 2.0, 2.0))
    assert phantom_proposal(Volume(data, geometry, "mr")).pairs(20) == ()


def test_a_small_body_is_looked_at_as_closely(proposal):
    body = np.ones(proposal.n_supervoxels, bool)
    coarse = [
        coarse_grid(proposal.supervoxels, np.full(3, size), body, ml)
        for size, ml in ((2.0, 600.0), (0.2, 0.6))
    ]
    assert np.array_equal(coarse[0].supervoxels, coarse[1].supervoxels)
    voxel = coarse[0].scan_voxel(coarse[0].inside[100])
    assert proposal.supervoxels[voxel] == coarse[0].supervoxels.ravel()[100]


def test_confidence_between_two_cuts_lies_between_theirs():
    values = np.array([[0.5, 0.7, 0.9], [0.2, 0.4, 0.8]], np.float16)
    sure = CutConfidence((("tissues", 8), ("tissues", 32), ("regions", 100)), values)
    assert sure.at("tissues", 16) == pytest.approx([0.6, 0.3], abs=1e-3)
    assert sure.at("tissues", 2) == pytest.approx([0.5, 0.2], abs=1e-3)
    assert sure.at("tissues", 500) == pytest.approx([0.7, 0.4], abs=1e-3)
    assert sure.at("regions", 7) == pytest.approx([0.9, 0.8], abs=1e-3)
    with pytest.raises(ValueError, match="do not fit"):
        CutConfidence((("tissues", 8),), values)


def test_a_proposal_without_cuts_has_one_confidence(proposal):
    assert np.array_equal(proposal.confidence_at("tissues", 5), proposal.confidence)


def test_a_person_is_led_to_the_lesion_first_until_it_is_accepted(proposal):
    work = strata.Refinement(proposal, regions=12)
    first, *_ = places = work.view.places_to_review(6)
    assert first.kind == "outlier"
    assert first.reason.startswith("Unlike the rest: ")
    assert first.region == work.view.region_at(first.voxel_zyx)
    assert len(places) == 6
    work.edits.assign_at([first.voxel_zyx], first.region)
    assert first.voxel_zyx not in [
        place.voxel_zyx for place in work.view.places_to_review(6)
    ]


def test_a_case_knows_pairs_and_confidence_of_its_cut(proposal, tmp_path):
    sure = np.random.default_rng(1).uniform(0, 1, (proposal.n_supervoxels, 2))
    cuts = CutConfidence((("regions", 5), ("regions", 50)), sure.astype(np.float16))
    work = strata.Refinement(replace(proposal, cut_confidence=cuts), regions=12)
    assert work.view.pairs() == partners(proposal.pairs(12))
    table = work.view.table
    known = cuts.at("regions", 12)
    sizes = work.view.index.sizes_vox
    region = int(table.max())
    expected = np.average(known[table == region], weights=sizes[table == region])
    assert work.view.statistics()[region].confidence == pytest.approx(expected)
    work.save(tmp_path / "a.strata")
    kept = strata.Refinement.load(tmp_path / "a.strata").proposal.cut_confidence
    assert kept.cuts == cuts.cuts
    assert np.array_equal(kept.values, cuts.values)


def test_like_intensities_look_alike_and_neighbours_differ(proposal):
    colors = proposal.colors("tissues")
    assert proposal.tissues(5).regions[2].color == colors[2]
    assert [row.color for row in proposal.tissues(9).regions][:5] == list(colors[:5])
    hues = [colorsys.rgb_to_hsv(*color)[0] for color in colors]
    table = proposal.tissue_tree.cut(len(colors))
    means = [proposal.descriptors[table == k + 1, 0].mean() for k in range(len(colors))]
    assert spearmanr(hues, means).statistic < -0.9

    colors = proposal.colors("regions")
    table = proposal.region_tree.cut(len(colors))[proposal.edges]
    inner = table[(table > 0).all(axis=1) & (table[:, 0] != table[:, 1])] - 1
    apart = np.abs(np.diff(np.array(colors)[inner], axis=1)).sum(axis=(1, 2))
    assert np.mean(apart > 60) > 0.97


def test_colours_of_a_case_stay_with_edits(proposal, tmp_path):
    work = strata.Refinement(proposal, regions=6)
    before = {row.id: row.color for row in work.regions}
    assert tuple(before.values()) == proposal.colors("regions")[:6]
    expected = {row.id: row.color for row in work.view.state.expected_rows()}
    work.edits.cut(regions=20)
    after = {row.id: row.color for row in work.regions}
    assert after == before | {k: expected[k] for k in range(7, 21)}
    work.rename(3, "liver")
    work.lock(4)
    assert {row.id: row.color for row in work.regions} == after
    work.save(tmp_path / "a.strata")
    again = strata.Refinement.load(tmp_path / "a.strata")
    assert {row.id: row.color for row in again.regions} == after
    work.steps.jump(0)
    assert {row.id: row.color for row in work.regions} == before
