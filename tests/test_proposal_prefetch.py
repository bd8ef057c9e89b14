"""Pieces that start in a thread beside the encoder."""

import threading

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.cancellation import raise_if_cancelled
from napari_strata.errors import Cancelled, GeometryError
from napari_strata.proposal.supervoxels import prefetch as module
from napari_strata.proposal.supervoxels.prefetch import Prefetch
from napari_strata.volume import no_progress
from phantoms import phantom_volume

SETTINGS = strata.ProposeSettings(supervoxels=300)


def threads_ahead():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("strata-prefetch")
    ]


def test_beside_the_encoder_or_after_it_the_pieces_are_the_same():
    volume = phantom_volume((24, 32, 32))
    with (
        Prefetch(volume, SETTINGS) as beside,
        Prefetch(volume, SETTINGS, threads=1) as after,
    ):
        one, other = (
            beside.initial_segments(no_progress),
            after.initial_segments(no_progress),
        )
    assert np.array_equal(one.segments.segment, other.segments.segment)
    assert np.array_equal(one.segments.graph.vectors, other.segments.graph.vectors)
    assert not threads_ahead()


def test_stopping_stops_the_thread_too(monkeypatch):
    begun, asked = threading.Event(), []

    def grow_for_ever(sight, settings):
        begun.set()
        while True:
            raise_if_cancelled()

    monkeypatch.setattr(module, "grow_initial_segments", grow_for_ever)

    def stop_once_it_grows(done, total, stage):
        asked.append(stage)
        if begun.is_set():
            raise Cancelled("enough")

    with Prefetch(phantom_volume(), SETTINGS) as prefetch, pytest.raises(Cancelled):
        prefetch.initial_segments(stop_once_it_grows)
    assert not threads_ahead()
    assert set(asked) == {"supervoxels"}


def test_what_goes_wrong_in_the_thread_is_told():
    in_metres = phantom_volume(spacing_zyx_mm=(0.001, 0.001, 0.001))
    with (
        Prefetch(in_metres, SETTINGS) as prefetch,
        pytest.raises(GeometryError, match="voxel size"),
    ):
        prefetch.prepared_scan(no_progress)
    assert not threads_ahead()
