"""The proposal bench: what its figures mean."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip(
    "benchmarks.proposal", reason="the benchmarks are only in the repository"
)

from benchmarks.encoder.scans import OTHER, LabelledScan
from benchmarks.proposal import run
from benchmarks.proposal.cuts import cut_figures
from benchmarks.proposal.edges import (
    achievable_accuracy,
    boundary_recall,
    strict_accuracy,
    undersegmentation_error,
)
from benchmarks.proposal.methods import METHODS, Block, grid_steps, tidy
from benchmarks.proposal.nodes import best_node_dice, tree_runs
from benchmarks.proposal.overlap import Overlap, overlap
from benchmarks.proposal.pictures import draw_page
from benchmarks.proposal.reliability import confidence_figures, reliability
from benchmarks.proposal.scores import proposal_costs, proposal_figures
from benchmarks.proposal.stability import small_changes, stability_figures
from benchmarks.proposal.supervoxels import matched, piece_figures
from benchmarks.proposal.table import Row, markdown, merge, read_rows, write_rows
from PIL import Image

from napari_strata.proposal.hierarchy.tree import hierarchy_from_merges
from napari_strata.settings import ProposeSettings
from phantoms import phantom_proposal, phantom_truth, phantom_volume

SHAPE = (16, 20, 24)
SPACING = np.array([2.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def scan():
    """Organs 2-5 of a phantom as classes, air as other, the rest of the body not scored."""
    truth = phantom_truth(SHAPE)
    reference = np.array([OTHER, 0, 2, 3, 4, 5], np.uint8)[truth]
    return LabelledScan("phantom", phantom_volume(SHAPE), reference)


@pytest.fixture(scope="module")
def proposal(scan):
    return phantom_proposal(scan.volume)


@pytest.fixture(scope="module")
def found(scan, proposal):
    return overlap(proposal.supervoxels, scan.reference, proposal.n_supervoxels)


@pytest.fixture(scope="module")
def block():
    truth, data = phantom_truth(SHAPE), phantom_volume(SHAPE).data / 1000
    blurred = data + np.random.default_rng(0).normal(0, 0.02, data.shape)
    channels = np.stack([np.clip(data, 0, 1), blurred, blurred], axis=-1).astype(
        np.float32
    )
    box = (slice(None), slice(None), slice(None))
    return Block(channels, truth > 0, box, SPACING, ProposeSettings(supervoxels=300))


def halves():
    """A row of eight voxels: four of class 1, two of class 2, one not scored, one other."""
    return np.array([1, 1, 1, 1, 2, 2, 0, OTHER], np.uint8).reshape(1, 1, 8)


def pieces(*numbers):
    return np.array(numbers).reshape(1, 1, len(numbers))


def leaves(counts):
    """A table of pieces that the reference scores everywhere, the last column other."""
    return Overlap(
        tuple(range(1, len(counts[0]))),
        np.array(counts),
        np.zeros(len(counts), np.int64),
    )


def tree_over(merges, n, background=0):
    """A tree over pieces: `background` of them apart, then the merges of the others in order."""
    fore, back = np.arange(background, n), np.arange(background)
    back_merges = [(0, 1)] if background == 2 else []
    return hierarchy_from_merges(
        fore,
        np.array(merges),
        np.arange(1.0, len(merges) + 1),
        back,
        np.array(back_merges),
        np.ones(len(back_merges)),
        np.ones(n, int),
    )


def test_every_voxel_of_a_piece_is_counted_once():
    table = overlap(pieces(0, 0, 1, 1, 1, 2, 2, 2), halves(), 3)
    assert table.classes == (1, 2)
    assert table.counts.tolist() == [[2, 0, 0], [2, 1, 0], [0, 1, 1]]
    assert table.unscored.tolist() == [0, 0, 1]
    joined = table.joined(np.array([1, 0, 1]))
    assert joined.counts.tolist() == [[2, 1, 0], [2, 1, 1]]
    assert joined.unscored.tolist() == [0, 1]


def test_pieces_within_one_class_each_reach_everything():
    table = overlap(pieces(0, 0, 1, 1, 2, 2, 3, 4), halves(), 5)
    assert achievable_accuracy(table) == strict_accuracy(table) == 1.0
    assert undersegmentation_error(table) == 0.0


def test_a_piece_over_an_edge_costs_what_it_holds_beyond():
    table = overlap(pieces(0, 0, 1, 1, 1, 2, 2, 2), halves(), 3)
    assert achievable_accuracy(table) == pytest.approx(5 / 6)
    assert strict_accuracy(table) == pytest.approx(5 / 6)
    # class 1: piece 1 leaks 1; class 2: piece 1 and piece 2 leak 1 each
    assert undersegmentation_error(table) == pytest.approx(3 / 6)


def test_a_piece_mostly_outside_is_lost_only_to_the_strict_figure():
    table = overlap(
        pieces(0, 0, 0, 0, 0, 1, 2, 2),
        np.array([1, 1, 0, 0, 0, 1, 1, 1], np.uint8).reshape(1, 1, 8),
        3,
    )
    assert achievable_accuracy(table) == 1.0
    assert strict_accuracy(table) == pytest.approx(3 / 5)


def test_recall_is_one_where_pieces_end_with_classes_and_a_voxel_off_is_near():
    reference = np.repeat([1, 2], 6).astype(np.uint8).reshape(1, 1, 12)
    exact = boundary_recall(np.repeat([0, 1], 6).reshape(1, 1, 12), reference)
    assert (exact.exact, exact.within_one) == (1.0, 1.0)
    assert exact.exact_by_chance == pytest.approx(1 / 11)
    assert exact.within_one_by_chance == pytest.approx(3 / 12)
    beside = boundary_recall(np.repeat([0, 1], [7, 5]).reshape(1, 1, 12), reference)
    assert (beside.exact, beside.within_one) == (0.0, 1.0)
    far = boundary_recall(np.repeat([0, 1], [8, 4]).reshape(1, 1, 12), reference)
    assert (far.exact, far.within_one) == (0.0, 0.0)


def test_the_end_of_a_class_counts_against_what_is_not_scored_but_other_has_no_edges_of_its_own():
    assert boundary_recall(pieces(0, 0, 0, 0, 1, 1, 2, 2), halves()).exact == 1.0
    assert boundary_recall(pieces(0, 0, 0, 0, 1, 1, 1, 2), halves()).exact == 0.5


def test_runs_are_the_nodes_that_the_merges_made():
    rng = np.random.default_rng(0)
    for background in (0, 2):
        n, m = 12, 12 - background
        nodes, merges, members = (
            list(range(m)),
            [],
            {k: {k + background} for k in range(m)},
        )
        while len(nodes) > 1:
            one, two = (nodes.pop(rng.integers(len(nodes))) for _ in range(2))
            merges.append((one, two))
            nodes.append(m + len(merges) - 1)
            members[nodes[-1]] = members[one] | members[two]
        tree = tree_over(merges, n, background)
        runs = tree_runs(tree)
        found = [
            frozenset(tree.leaf_order[a:b].tolist())
            for a, b in zip(runs.start, runs.stop, strict=True)
        ]
        assert len(found) == 2 * m - 1
        assert set(found) == {frozenset(held) for held in members.values()}


def test_the_best_node_of_a_tree_that_knows_the_classes_is_perfect():
    table = leaves([[5, 0, 0], [7, 0, 0], [0, 3, 0], [0, 4, 0], [0, 0, 9]])
    knowing = tree_over([(0, 1), (2, 3), (5, 6), (7, 4)], 5)
    assert best_node_dice(knowing, table).tolist() == [1.0, 1.0]
    mixing = tree_over([(0, 2), (1, 3), (5, 6), (7, 4)], 5)
    assert best_node_dice(mixing, table) == pytest.approx(
        [2 * 12 / (19 + 12), 2 * 4 / (4 + 7)]
    )


def test_classes_in_the_background_are_out_of_every_nodes_reach():
    table = leaves([[6, 0], [0, 8], [5, 0], [1, 0]])
    assert best_node_dice(tree_over([(0, 1)], 4, background=2), table) == pytest.approx(
        [2 * 6 / (6 + 12)]
    )


def test_figures_of_a_proposal_agree_with_its_regions(scan, proposal, found):
    figures = dict(proposal_figures(proposal, scan, found))
    assert list(figures)[:2] == ["tissues 8", "tissues 16"]
    for name in (
        "tissues 16",
        "regions 200",
        "best node of tissues",
        "best node of regions",
    ):
        classes = [
            value for key, value in figures[name].items() if key.startswith("class ")
        ]
        assert len(classes) == 4
        assert figures[name]["mean Dice"] == pytest.approx(np.mean(classes))
    assert (
        figures["regions 200"]["mean Dice"] >= figures["regions 50"]["mean Dice"] > 0.8
    )
    costs = proposal_costs(proposal, found)
    assert costs["in the body"] < costs["supervoxels"] == proposal.n_supervoxels


def test_a_bin_that_says_nine_of_ten_holds_nine_of_ten():
    sure = np.repeat([0.95, 0.55], [10, 4])
    right = np.array([1] * 9 + [0] + [1, 1, 0, 0], bool)
    figures = reliability(sure, right, np.ones(14, int))
    assert figures["0.9-1.0"] == pytest.approx(0.9)
    assert figures["0.5-0.6"] == pytest.approx(0.5)
    assert np.isnan(figures["0.7-0.8"])
    assert figures["calibration error"] == pytest.approx(0.05)
    assert figures["share in 0.9-1.0"] == pytest.approx(10 / 14)
    heavy = reliability(sure, right, np.where(right, 3, 1))
    assert heavy["0.9-1.0"] == pytest.approx(27 / 28)


def test_confidence_is_asked_at_all_cuts_and_leaves_out_what_is_not_scored(
    proposal, found
):
    figures = dict(confidence_figures(proposal, found))
    assert [name for name in figures if name.endswith("by voxels")] == [
        "tissues 8, by voxels",
        "tissues 16, by voxels",
        "regions 50, by voxels",
        "regions 100, by voxels",
    ]
    for subject, shares in figures.items():
        assert sum(
            value for name, value in shares.items() if name.startswith("share in")
        ) == pytest.approx(1)
        is_fine = subject.startswith(("tissues 16", "regions 100"))
        assert shares["right"] > (0.8 if is_fine else 0.7)


def test_small_changes_are_small_and_a_flip_is_undone(scan):
    inside = phantom_truth(SHAPE) > 0
    for change in small_changes(scan.volume, inside):
        back = change.undo(change.volume.data)
        assert np.corrcoef(back[inside], scan.volume.data[inside])[0, 1] > 0.97, (
            change.name
        )
        assert change.flipped == (change.name == "flip")


def test_a_proposal_that_follows_the_scan_is_stable(scan, proposal):
    inside = phantom_truth(SHAPE) > 0
    figures = dict(
        stability_figures(
            proposal, inside, lambda volume: phantom_proposal(scan.volume)
        )
    )
    cuts = ("tissues 4", "tissues 16", "regions 100")
    assert figures["noise"] == {
        f"{where}, {cut}": 1.0 for where in ("ARI", "whole image") for cut in cuts
    }
    assert figures["flip"]["ARI, tissues 16"] < 1.0


def test_cuts_are_timed_for_both_trees(proposal):
    figures = dict(cut_figures(proposal))
    assert list(figures) == ["tissues", "regions"]
    assert all(
        0 < of_tree["table, median ms"] <= of_tree["table, most ms"]
        for of_tree in figures.values()
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_fills_the_body_with_connected_pieces_that_follow_the_organs(
    block, name
):
    truth = phantom_truth(SHAPE)
    found = tidy(METHODS[name](block), block.inside)
    assert ((found > 0) == block.inside).all()
    assert len(np.unique(found)) == found.max() + 1
    figures = piece_figures(found, np.where(truth == 0, OTHER, truth).astype(np.uint8))
    assert 100 < figures["pieces"] < 2000
    assert figures["ASA"] > 0.9
    assert figures["recall, exact"] > figures["by chance, exact"]


def test_a_method_that_gives_too_many_pieces_is_asked_for_fewer(block):
    asked = []

    row = np.ones((1, 1, 6000), bool)

    def doubling(block):
        asked.append(block.settings.supervoxels)
        return np.arange(row.size).reshape(row.shape) * (2 * asked[-1]) // row.size

    assert matched(doubling, replace(block, inside=row)).pieces.max() == 300
    assert asked == [300, 150]


def test_cells_are_as_cubic_in_mm_as_voxels_allow(block):
    assert grid_steps(block, int(block.inside.sum()) // 32) == (2, 4, 4)


def test_a_page_shows_three_planes(scan, proposal, tmp_path):
    draw_page(proposal, scan, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        colors = np.asarray(page)
    assert colors.shape[1] > colors.shape[0] / 2
    assert colors.std(axis=2).max() > 50


def test_a_table_takes_new_figures_of_a_part_and_keeps_the_others(tmp_path):
    path = tmp_path / "table.tsv"
    old = [
        Row("ct", "cut", "regions", "ms", 2.0),
        Row("ct", "supervoxels", "slic", "ASA", 0.9),
        Row("ct", "supervoxels", "gone", "ASA", 0.8),
    ]
    write_rows(old, path)
    rows = merge(
        read_rows(path),
        [
            Row("ct", "supervoxels", "slic", "ASA", 0.95),
            Row("ct", "supervoxels", "strata", "ASA", float("nan")),
        ],
    )
    assert [(row.subject, row.value) for row in rows[:2]] == [
        ("regions", 2.0),
        ("slic", 0.95),
    ]
    assert "| slic | 0.950 |\n| strata |  |" in markdown(rows)


def test_far_voxels_become_other_only_where_nothing_is(scan):
    bare = LabelledScan(
        "bare",
        scan.volume,
        np.where(scan.reference == OTHER, 0, scan.reference).astype(np.uint8),
    )
    far = run.with_other(bare, 4.0).reference
    assert (far == OTHER).any()
    assert ((far == OTHER) <= (bare.reference == 0)).all()
    assert run.with_other(scan, 4.0) is scan
    assert run.with_other(bare, 0.0) is bare


def test_an_unknown_part_is_refused():
    with pytest.raises(SystemExit, match="--only takes"):
        run.main(["--only", "supervoxel"])
