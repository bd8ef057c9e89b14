"""Ward's tree in another process is the same tree."""

from __future__ import annotations

import numpy as np

from napari_strata.proposal.hierarchy import ward_subprocess as apart


def test_another_process_gives_the_same_tree_bit_by_bit(monkeypatch):
    monkeypatch.setattr(apart, "_WORTH_IT", 0)
    rng = np.random.default_rng(0)
    vectors, sizes = rng.normal(size=(40, 3)), rng.integers(1, 9, 40).astype(np.float64)
    edges = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    here = apart.ward_tree(vectors, sizes, edges)
    with apart.kept_responsive():
        there = apart.ward_tree(vectors, sizes, edges)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_no_process_can_be_started_it_runs_in_place(monkeypatch, caplog):
    monkeypatch.setattr(apart, "_WORTH_IT", 0)
    monkeypatch.setattr(apart, "__name__", "napari_strata.proposal.nowhere")
    vectors, sizes, edges = (
        np.arange(6.0).reshape(3, 2),
        np.ones(3),
        np.array([[0, 1], [1, 2]]),
    )
    with apart.kept_responsive():
        parents, _ = apart.ward_tree(vectors, sizes, edges)
    assert len(parents) == 5
    assert "may not answer" in caplog.text
