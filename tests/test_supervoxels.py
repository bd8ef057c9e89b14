"""Supervoxels, their descriptors and the two trees."""

import numpy as np
import pytest
from scipy import ndimage

from napari_strata.proposal.hierarchy.build_trees import region_tree, tissue_tree
from napari_strata.proposal.hierarchy.region_merging import SupervoxelGraph, merge_to
from napari_strata.proposal.supervoxels.boundary_refinement import (
    join_crumbs,
    refine_boundaries,
)
from napari_strata.proposal.supervoxels.clustering import (
    SupervoxelPlan,
    find_contacts,
    make_supervoxels,
)
from napari_strata.proposal.supervoxels.descriptors import (
    Pooler,
    boundary_step,
    sizes_and_centers,
)
from phantoms import phantom_truth, phantom_volume

SPACING = np.array([2.0, 1.0, 1.0])
TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels touch by faces, edges or corners."""


@pytest.fixture(scope="module")
def intensity():
    data = phantom_volume((24, 40, 40)).data
    return np.clip(data / 1000, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def truth():
    return phantom_truth((24, 40, 40))


@pytest.fixture(scope="module")
def labels(intensity, truth):
    return make_supervoxels(
        intensity[..., None], truth > 0, SPACING, SupervoxelPlan(target=400)
    )


def test_every_id_is_in_use_and_every_piece_is_connected(labels):
    n = int(labels.max()) + 1
    assert len(np.unique(labels)) == n
    for number, box in enumerate(ndimage.find_objects(labels + 1)):
        assert ndimage.label(labels[box] == number, TOUCHING)[1] == 1


def test_no_piece_crosses_the_edge_of_the_body(labels, truth):
    inside = np.bincount(labels.ravel(), weights=(truth > 0).ravel()) / np.bincount(
        labels.ravel()
    )
    assert set(np.unique(inside)) <= {0.0, 1.0}


def test_edges_lie_where_tissues_meet(labels, truth):
    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels.ravel(), truth.ravel()), 1)
    assert table.max(axis=1).sum() / labels.size > 0.97


def test_a_thin_plate_survives():
    intensity = np.full((24, 24, 24), 0.4, np.float32)
    intensity[:, 11:13] = 0.9
    labels = make_supervoxels(
        intensity[..., None],
        np.ones(intensity.shape, bool),
        np.ones(3),
        SupervoxelPlan(target=100),
    )
    plate = np.bincount(
        labels.ravel(), weights=(intensity == np.float32(0.9)).ravel()
    ) / np.bincount(labels.ravel())
    assert ((plate < 0.05) | (plate > 0.95)).mean() > 0.9


def test_the_same_seed_gives_the_same_pieces(intensity, truth, labels):
    again = make_supervoxels(
        intensity[..., None], truth > 0, SPACING, SupervoxelPlan(target=400)
    )
    assert np.array_equal(labels, again)


def test_crumbs_join_the_neighbour_most_like_them():
    labels = np.zeros((1, 1, 9), np.int32)
    labels[..., 4:], labels[..., 4:5] = 2, 1
    intensity = np.array([[[0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 0.9, 0.9, 0.9]]], np.float32)
    joined = join_crumbs(labels, intensity, np.ones(labels.shape, bool), 2)
    assert joined[0, 0, 4] == joined[0, 0, 5] != joined[0, 0, 3]


def test_contacts_count_shared_faces_and_the_step_across_them():
    labels = np.zeros((2, 2, 4), np.int32)
    labels[..., 2:] = 1
    intensity = np.where(labels == 1, 0.7, 0.2).astype(np.float32)
    contacts = find_contacts(labels, intensity)
    assert contacts.edges.tolist() == [[0, 1]]
    assert contacts.faces.tolist() == [4]
    assert contacts.step.tolist() == pytest.approx([0.5])
    assert boundary_step(contacts, 2) == pytest.approx([0.5, 0.5])


def test_pooling_agrees_with_a_plain_mean(labels):
    values = np.random.default_rng(0).normal(size=(*labels.shape, 3)).astype(np.float32)
    n = int(labels.max()) + 1
    pooled = Pooler(labels, n).mean(values)
    for channel in range(3):
        assert pooled[:, channel] == pytest.approx(
            ndimage.mean(values[..., channel], labels, np.arange(n)), abs=1e-4
        )


def test_centres_are_in_mm(labels):
    n = int(labels.max()) + 1
    plain = (
        np.array(ndimage.center_of_mass(np.ones(labels.shape), labels, np.arange(n)))
        * SPACING
    )
    sizes, centers = sizes_and_centers(labels, n, SPACING)
    assert sizes.tolist() == np.bincount(labels.ravel()).tolist()
    assert centers == pytest.approx(plain, abs=1e-3)


def test_regions_are_connected_and_tissues_recur(labels, intensity, truth):
    n = int(labels.max()) + 1
    contacts = find_contacts(labels, intensity)
    pooler = Pooler(labels, n)
    background = (
        np.bincount(labels.ravel(), weights=(truth == 0).ravel(), minlength=n) > 0
    )
    vectors = pooler.mean(intensity[..., None]) * 4
    regions = region_tree(vectors, pooler.counts, contacts.edges, background)
    for number in range(1, 13):
        assert ndimage.label((regions.cut(12) == number)[labels], TOUCHING)[1] == 1
    tissues = tissue_tree(vectors, pooler.counts, contacts.edges, background)
    table = tissues.cut(5)[labels]
    for organ in (2, 3):
        assert len(np.unique(np.median(table[truth == organ]))) == 1
        parts = ndimage.label(truth == organ)[0]
        assert np.median(table[parts == 1]) == np.median(table[parts == 2])


def test_regions_that_do_not_touch_are_joined_last():
    vectors = np.array([[0.0], [0.5], [0.0], [0.5]], np.float32)
    edges = np.array([[0, 1], [2, 3]], np.int32)
    tree = region_tree(vectors, np.ones(4, int), edges, np.zeros(4, bool))
    first, second, third, fourth = tree.cut(2)
    assert first == second != third == fourth


def test_pieces_from_a_coarser_grid_are_cut_at_the_body_and_whole():
    grid = np.indices((32, 32, 32)) - 15.5
    inside = (grid**2).sum(axis=0) < 12**2
    intensity = np.where(inside, 0.5 + 0.2 * (grid[0] > 0), 0.0).astype(np.float32)
    coarse = np.arange(8**3, dtype=np.int32).reshape(8, 8, 8)
    pieces = refine_boundaries(
        np.kron(coarse, np.ones((4, 4, 4), np.int32)), intensity, inside
    )
    share = np.bincount(pieces.ravel(), weights=inside.ravel()) / np.bincount(
        pieces.ravel()
    )
    assert set(np.unique(share)) == {0.0, 1.0}
    for number, box in enumerate(ndimage.find_objects(pieces + 1)):
        assert ndimage.label(pieces[box] == number, TOUCHING)[1] == 1


def test_features_that_are_no_numbers_are_refused_not_waited_for():
    graph = SupervoxelGraph(
        np.ones(3, np.float32),
        np.full((3, 1), np.nan, np.float32),
        np.array([[0, 1], [1, 2]], np.int32),
    )
    with pytest.raises(ValueError, match="a feature is NaN"):
        merge_to(graph, 1)
