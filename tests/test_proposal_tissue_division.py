"""Tissues with few borders: mixtures have no say, and tissues are sets of regions."""

import numpy as np
import pytest

from napari_strata.proposal.hierarchy.build_trees import (
    SmoothTissues,
    region_tree,
)
from napari_strata.proposal.hierarchy.tissue_division import (
    TissueInputs,
    divide_tissues,
    supervoxel_purity,
)
from napari_strata.proposal.supervoxels.context_features import (
    features_known_from_intensity,
)

SIDE = 12


def grid_contacts(side=SIDE):
    """Contacts of side^3 supervoxels in a cube."""
    number = np.arange(side**3).reshape(side, side, side)
    pairs = [
        np.stack([a.ravel(), b.ravel()], axis=1)
        for a, b in (
            (number[1:], number[:-1]),
            (number[:, 1:], number[:, :-1]),
            (number[:, :, 1:], number[:, :, :-1]),
        )
    ]
    edges = np.sort(np.concatenate(pairs), axis=1)
    return edges, np.full(len(edges), 9)


@pytest.fixture(scope="module")
def layers():
    """Dark and bright halves, a layer of mixtures between them, and a dark sheet."""
    values = np.zeros((SIDE, SIDE, SIDE), np.float32)
    values[6] = 0.4
    values[7:] = 1.0
    values[9] = 0.0
    noise = np.random.default_rng(0).normal(0, 0.03, values.shape)
    edges, faces = grid_contacts()
    intensity = (values + noise).astype(np.float32).ravel()
    body = np.ones(len(intensity), bool)
    purity = supervoxel_purity(intensity, edges, faces, body, 0.1)
    sizes = np.full(len(intensity), 27)
    return TissueInputs(intensity[:, None], sizes, purity, edges, faces)


def of_layer(table):
    return np.asarray(table).reshape(SIDE, -1)


def test_a_mixture_of_its_neighbours_is_impure_and_a_thin_sheet_is_not(layers):
    purity = of_layer(layers.purity).mean(axis=1)
    assert purity[6] < 0.7
    assert purity[9] > 0.9
    assert purity[2] > 0.9


def test_mixtures_join_one_side_and_a_thin_sheet_is_kept(layers):
    group = of_layer(divide_tissues(layers).coarse.cut(2))
    dark, bright = group[2, 0], group[11, 0]
    assert dark != bright
    assert (group[[7, 8, 10, 11]] == bright).all()
    assert (group[:6] == dark).all()
    assert (group[9] == dark).all()
    assert (group[6] == dark).all()


def test_every_number_of_tissues_is_made_and_finer_ones_lie_inside_coarser(layers):
    tree = SmoothTissues.of(layers, np.zeros(len(layers.sizes), bool)).tree()
    before = tree.cut(1)
    for n in (2, 3, 16, 100, 900):
        table = tree.cut(n)
        assert len(np.unique(table)) == n
        assert len(np.unique(np.stack([table, before]), axis=1).T) == n
        before = table


def test_tissues_are_sets_of_regions_of_a_fine_level(layers):
    nobody = np.zeros(len(layers.sizes), bool)
    tissues = SmoothTissues.of(layers, nobody).tree().cut(6)
    tree = region_tree(
        layers.vectors, layers.sizes, layers.edges, nobody, tissues=tissues
    )
    fine = [
        n
        for n in (8, 27, 64, 216, 400, 800)
        if len(np.unique(np.stack([tree.cut(n), tissues]), axis=1).T) == n
    ]
    assert fine[-1] == 800
    assert fine == [n for n in (8, 27, 64, 216, 400, 800) if n >= fine[0]]


def test_features_that_repeat_intensity_are_told_from_others():
    rng = np.random.default_rng(0)
    intensity, other, weights = rng.random(500), rng.random((500, 3)), np.ones(500)
    repeating = np.stack([intensity, 1 - intensity], axis=1)
    assert features_known_from_intensity(intensity, repeating, weights) > 0.99
    assert features_known_from_intensity(intensity, other, weights) < 0.1
    assert features_known_from_intensity(intensity, other[:, :0], weights) == 1.0
