"""Threads share the work of a proposal; what they compute does not depend on them."""

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.cancellation import progress_scope
from napari_strata.errors import Cancelled
from napari_strata.parallel import both, each, worker_threads
from napari_strata.proposal.hierarchy import divisive_clustering, region_merging
from napari_strata.proposal.hierarchy import tissue_division as tissues
from napari_strata.proposal.supervoxels import boundary_refinement as boundaries
from napari_strata.proposal.supervoxels.clustering import find_contacts
from napari_strata.proposal.supervoxels.descriptors import SmoothedIntensity
from napari_strata.proposal.supervoxels.oversegmentation import (
    grow_initial_segments,
    prepare_scan,
)
from napari_strata.volume import Geometry
from phantoms import phantom_volume

SETTINGS = strata.ProposeSettings(supervoxels=300)
TREE = ("leaf_order", "breaks", "heights", "background_breaks", "background_heights")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads):
    with worker_threads(threads):
        assert each(lambda k: k * k, range(50)) == [k * k for k in range(50)]
        assert each(str, []) == []
        assert both(lambda: 1, lambda: "two") == (1, "two")


def test_threads_are_used_once_and_not_again_inside_of_them():
    met = threading.Barrier(2, timeout=60)

    def names(_part):
        met.wait()  # both parts are at work at once
        own = threading.current_thread().name
        return {own, *each(lambda _k: threading.current_thread().name, range(4))}

    with worker_threads(2):
        assert [len(found) for found in each(names, range(2))] == [1, 1]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_a_part_is_raised_and_no_thread_is_left(threads):
    def fail_at(number):
        if number == 7:
            raise KeyError(number)
        return number

    with worker_threads(threads), pytest.raises(KeyError, match="7"):
        each(fail_at, range(1000))
    with worker_threads(threads), pytest.raises(KeyError, match="7"):
        both(lambda: 1, partial(fail_at, 7))
    assert not [t for t in threading.enumerate() if t.name.startswith("strata-")]


@pytest.mark.parametrize("threads", [1, 2])
def test_cancelling_ends_the_parts(threads, monkeypatch):
    monkeypatch.setattr("napari_strata.cancellation._PAUSE_S", -1.0)
    done = []

    def stop(_done, _total, _stage):
        if done:
            raise Cancelled("enough")

    def work():
        with progress_scope(stop) as report:
            report(0, 1, "parts")
            each(done.append, range(10**6))

    with worker_threads(threads), pytest.raises(Cancelled):
        work()
    assert len(done) < 10**6


def test_a_proposal_does_not_depend_on_the_number_of_threads(monkeypatch):
    # small phantoms are shared out as large scans are
    monkeypatch.setattr(region_merging, "_EDGES_AT_ONCE", 100)
    monkeypatch.setattr(boundaries, "_SLAB", 3)
    for module in (divisive_clustering, tissues):
        monkeypatch.setattr(module, "WORTH_THREADS", 2)
    volume = phantom_volume((24, 32, 32))
    one, many = (
        strata.propose(volume, settings=SETTINGS, device="cpu", threads=threads)
        for threads in (1, 3)
    )
    for name in ("supervoxels", "descriptors", "confidence", "edges"):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name
    for name in TREE:
        for tree in ("region_tree", "tissue_tree"):
            ours, theirs = getattr(one, tree), getattr(many, tree)
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_parts_labelled_in_two_halves_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    for shape in ((9, 7, 8), (4, 2, 2), (3, 5, 4), (1, 9, 9), (8, 1, 9)):
        labels = rng.integers(0, 3, shape).astype(np.int32)
        whole = boundaries._parts_of(labels)
        assert np.array_equal(boundaries.connected_parts(labels), whole), shape


def test_contacts_and_touching_pairs_agree_with_a_plain_loop():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, (5, 4, 6)).astype(np.int32)
    intensity = rng.random(labels.shape).astype(np.float32)
    plain: dict[tuple[int, int], list[float]] = {}
    for at in np.ndindex(labels.shape):
        for axis in range(3):
            other = tuple(k + (a == axis) for a, k in enumerate(at))
            if other[axis] < labels.shape[axis] and labels[at] != labels[other]:
                pair = tuple(sorted((int(labels[at]), int(labels[other]))))
                step = abs(float(intensity[at]) - float(intensity[other]))
                plain.setdefault(pair, []).append(step)
    contacts = find_contacts(labels, intensity)
    assert contacts.edges.tolist() == [list(pair) for pair in sorted(plain)]
    assert contacts.faces.tolist() == [len(plain[pair]) for pair in sorted(plain)]
    assert contacts.step == pytest.approx([np.mean(plain[p]) for p in sorted(plain)])
    assert np.array_equal(region_merging.touching_pairs(labels), contacts.edges)


def test_air_that_is_left_out_does_not_reach_the_body():
    padded = np.pad(phantom_volume((24, 32, 32)).data, 20, mode="reflect")
    inner = np.zeros(padded.shape, bool)
    inner[20:-20, 20:-20, 20:-20] = True
    padded = np.where(inner, padded, padded.min())
    volume = replace(
        phantom_volume((24, 32, 32)),
        data=padded,
        geometry=Geometry(padded.shape, np.diag([2.0, 1.0, 1.0, 1.0])),
    )
    prepared = prepare_scan(volume, SETTINGS)
    initial = grow_initial_segments(prepared, SETTINGS)
    assert initial.rank.size < padded.size
    whole = SmoothedIntensity.of(prepared.intensity, prepared.volume.spacing_zyx_mm)
    body = prepared.inside[initial.view]
    for name in ("near", "far"):
        seen = getattr(whole, name)[initial.view]
        assert np.array_equal(seen[body], getattr(initial.around, name)[body])
