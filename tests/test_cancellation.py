"""A proposal that nobody waits for any more stops soon, wherever it is."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from napari_strata import cancellation
from napari_strata.encoder import embed
from napari_strata.encoder.custom_network import open_encoder
from napari_strata.encoder.runtime.torch_runtime import TorchRuntime
from napari_strata.errors import Cancelled
from napari_strata.preprocess import intensity as preprocess
from napari_strata.preprocess.intensity import WorkingGrid, flatten_bias
from napari_strata.settings import ProposeSettings


class Leaver:
    """Takes so many reports of progress, then wants no more."""

    def __init__(self, patience: int) -> None:
        self.patience, self.reports = patience, []

    def __call__(self, done: int, total: int, stage: str) -> None:
        self.reports.append((done, total, stage))
        if len(self.reports) > self.patience:
            raise Cancelled("enough")


@pytest.fixture(autouse=True)
def always_asked(monkeypatch):
    monkeypatch.setattr(cancellation, "_PAUSE_S", -1.0)


def test_the_encoder_asks_between_its_layers_and_is_the_same_afterwards():
    intensity = np.random.default_rng(0).random((16, 16, 16), np.float32)
    grid, encoder = (
        WorkingGrid((slice(0, 16),) * 3, (16, 16, 16), (1.0, 1.0, 1.0)),
        TorchRuntime(open_encoder(None), device="cpu"),
    )
    whole = embed.embed_intensity(intensity, grid, encoder, settings=ProposeSettings())
    leaver = Leaver(patience=4)
    with pytest.raises(Cancelled), cancellation.progress_scope(leaver) as report:
        embed.embed_intensity(
            intensity,
            grid,
            encoder,
            settings=ProposeSettings(),
            on_progress=report,
        )
    assert leaver.reports == [(0, 1, "encoding")] * 5
    again = embed.embed_intensity(intensity, grid, encoder, settings=ProposeSettings())
    for one, other in zip(whole.levels, again.levels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_flattening_of_an_mr_stops_between_its_iterations():
    intensity = np.random.default_rng(0).random((40, 40, 40), np.float32)
    arguments = intensity, np.ones(intensity.shape, bool), np.array([4.0, 4.0, 4.0])
    with cancellation.progress_scope(Leaver(patience=3)) as report:
        report(0, 1, "finding the body")
        with pytest.raises(Cancelled):
            flatten_bias(*arguments)
    assert flatten_bias(*arguments).shape == intensity.shape


@pytest.fixture
def ctrl_c_counts():
    """Python's own answer to Ctrl+C; a process started in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_counts")
def test_ctrl_c_in_the_flattening_is_not_lost(monkeypatch):
    monkeypatch.setattr(
        preprocess, "raise_if_cancelled", lambda: signal.raise_signal(signal.SIGINT)
    )
    intensity = np.random.default_rng(0).random((40, 40, 40), np.float32)
    with pytest.raises(KeyboardInterrupt):
        flatten_bias(
            intensity, np.ones(intensity.shape, bool), np.array([4.0, 4.0, 4.0])
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_of_watched_work_nobody_is_asked():
    leaver = Leaver(patience=0)
    with pytest.raises(Cancelled), cancellation.progress_scope(leaver) as report:
        report(0, 1, "reading")
    cancellation.raise_if_cancelled()
    assert len(leaver.reports) == 1
