"""The page over a batch, in a real browser where there is one; and how progress is told."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from benchmarks.batch.page import drawn, fake_batch

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.outlier_scores import outlier_scores
from napari_strata.batch.outputs.results import ScanResult
from napari_strata.batch.outputs.tables_and_page import write_tables_and_page
from napari_strata.cli.batch_progress import BatchProgress, duration
from napari_strata.export.outputs import outputs_beside


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_tables_and_page(fake_batch(folder, 60), folder)[1]


class Reader(HTMLParser):
    """Collects what the page would load, and its data."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts = 0
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag, attrs):
        self.loaded += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action")
        ]
        self.scripts += tag == "script"
        self._in_data = dict(attrs).get("id") == "data"

    def handle_data(self, data):
        self.data += data if self._in_data else ""

    def handle_endtag(self, tag):
        self._in_data = False


def test_the_page_is_one_file_that_loads_nothing_and_holds_every_scan(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.loaded == ["data:,"]
    assert reader.scripts == 2  # the failures' reasons end scripts, if they are let
    data = json.loads(reader.data)
    assert len(data["scans"]) == 60
    assert all(
        one["image"].startswith("data:image/webp;base64,")
        for one in data["scans"]
        if not one["failed"]
    )
    assert sum(one["failed"] for one in data["scans"]) == 10
    assert data["versions"]["napari-strata"]
    assert data["settings"][0]["scans"] == 50


@pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="Chromium is not installed: sudo make system",
)
def test_a_browser_draws_it_without_a_word_and_without_the_network(page, tmp_path):
    figures = drawn(shutil.which("chromium") or "", page, tmp_path / "page.png")
    assert figures["drawn_ms"] is not None
    assert figures["rows_drawn"] == 50
    assert figures["console"] == []
    assert figures["hosts_asked_beyond_those_of_an_empty_page"] == []


def document(ml: float, confidence: float = 0.7, modality: str = "mr") -> dict:
    return {
        "scan": {"modality": modality},
        "quality": {"labelled_ml": ml, "confidence": confidence},
        "regions": [],
    }


def test_the_scan_unlike_the_others_is_the_outlier_and_says_by_what():
    cohort = (
        [document(1000 + 10 * k) for k in range(8)]
        + [document(300)]
        + [document(5000, modality="ct")]
    )
    found = outlier_scores(cohort)
    assert [odd.is_outlier for odd in found] == [False] * 8 + [True, False]
    assert found[8].reason == "labelled mL 300, usually 1.03e+03"
    assert found[9].score is None  # one CT has nothing to be compared with
    assert all(odd.score is None for odd in outlier_scores(cohort[:3]))


def test_progress_tells_how_many_are_done_and_when_the_rest_will_be(capsys):
    now = [0.0]
    show = BatchProgress(10, clock=lambda: now[0])
    scan = PlannedScan("a", Path("a.nii"))
    outputs = outputs_beside("a_labels.nii.gz")
    now[0] = 30  # workers start
    for status in ("kept", "kept", "done", "failed"):
        if status == "done":
            show(2, 10, "a")
        now[0] += 60 if status != "kept" else 0
        show.add_result(ScanResult(scan, outputs, status, seconds=60.0))
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "[4/10, 1 failed, 2 min, about 6 min left] a: failed in 60 s"
    assert [duration(seconds) for seconds in (5, 89, 600, 11_100)] == [
        "5 s",
        "89 s",
        "10 min",
        "3 h 05 min",
    ]
