"""Tissues are divided from the top down."""

import numpy as np
import pytest

from napari_strata.proposal.hierarchy.divisive_clustering import divide


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Six groups of points in four dimensions, from 20 to 400 points each."""
    rng = np.random.default_rng(3)
    sizes = np.array([400, 200, 100, 60, 40, 20])
    centers = 3 * rng.normal(size=(6, 4))
    truth = np.repeat(np.arange(6), sizes)
    return (centers[truth] + 0.1 * rng.normal(size=(len(truth), 4))).astype(
        np.float32
    ), truth


def _same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        len(np.unique(np.stack([one, other]), axis=1).T)
        == len(np.unique(one))
        == len(np.unique(other))
    )


def test_groups_that_lie_apart_are_found(blobs):
    vectors, truth = blobs
    found = divide(vectors, np.ones(len(vectors)), 6)
    assert _same_partition(found.group, truth)
    assert len(found.origin) == len(found.gain) == 5


def test_the_order_of_the_vectors_and_a_little_noise_do_not_matter(blobs):
    vectors, _ = blobs
    rng = np.random.default_rng(5)
    order = rng.permutation(len(vectors))
    noisy = vectors + 0.02 * rng.normal(size=vectors.shape).astype(np.float32)
    for groups in (2, 3, 4, 6):
        first = divide(vectors, np.ones(len(vectors)), groups).group
        assert _same_partition(
            divide(vectors[order], np.ones(len(vectors)), groups).group, first[order]
        )
        assert _same_partition(
            divide(noisy, np.ones(len(vectors)), groups).group, first
        )


def test_more_groups_part_what_fewer_held_together(blobs):
    vectors, _ = blobs
    coarse, fine = (
        divide(vectors, np.ones(len(vectors)), groups).group for groups in (4, 5)
    )
    pairs = np.unique(np.stack([fine, coarse]), axis=1)
    assert pairs.shape[1] == 5
    assert len(np.unique(pairs[1])) == 4


def test_a_heavy_point_counts_as_many(blobs):
    vectors = np.array([[0.0], [1.0], [10.0], [11.0], [30.0]], np.float32)
    intensity = divide(vectors, np.array([1, 1, 1, 1, 1]), 2).group
    heavy = divide(vectors, np.array([100, 100, 100, 100, 1]), 2).group
    assert _same_partition(intensity, np.array([0, 0, 0, 0, 1]))
    assert _same_partition(heavy, np.array([0, 0, 1, 1, 1]))


def test_like_vectors_are_not_told_apart():
    same = divide(np.ones((50, 3), np.float32), np.ones(50), 8)
    two = divide(
        np.repeat([[0.0, 1.0], [1.0, 0.0]], 10, axis=0).astype(np.float32),
        np.ones(20),
        8,
    )
    one = divide(np.ones((1, 3), np.float32), np.ones(1), 8)
    assert same.group.max() == one.group.max() == 0
    assert _same_partition(two.group, np.repeat([0, 1], 10))
