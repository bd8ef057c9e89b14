"""From the end of a stroke to the new edge on the visible slice.

From its acceptance to the labels, in the real window.

    xvfb-run -a -s "-screen 0 1920x1080x24" python -m benchmarks.gui.strokes SCAN
    [--proposal CASE] [--strokes 10]

Each stroke is of 20 voxels in the middle axial slice, for a new region. Four moments
are timed: the preview is written to the layer; the canvas has drawn it; after it was
accepted, the labels are written; the canvas has drawn those. Each is given by the
clock, and as processor time of the window's and the editing thread: what an idle
machine with a graphics card would take at most, were one to wait for the other all the
time. The process has threads that draw in software besides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gui.beat import Moment, pump
from benchmarks.gui.session import Session, prepared_napari, take_proposal_of
from qtpy.QtWidgets import QApplication

from napari_strata.gui.plugin.window import dock_panel as open_panel

LIMIT_S = 20.0


class Stopwatch:
    """Notes when labels and previews are written and when the canvas was drawn."""

    def __init__(self, session: Session) -> None:
        self.seen: dict[str, list[Moment]] = {"preview": [], "labels": [], "frame": []}
        session.case.preview.painted.connect(lambda: self._note("preview"))
        session.case.painter.painted.connect(lambda: self._note("labels"))
        for widget in QApplication.allWidgets():
            if widget.inherits("QOpenGLWidget"):
                widget.frameSwapped.connect(lambda: self._note("frame"))

    def _note(self, what: str) -> None:
        self.seen[what].append(Moment.now())

    def time(
        self, act: Callable[[], object], what: str
    ) -> tuple[Moment, Moment] | None:
        """Do something; give what passed until `what` was written, and until it was drawn.

        None where that does not come.
        """
        for moments in self.seen.values():
            moments.clear()
        began = Moment.now()
        act()
        until = time.perf_counter() + LIMIT_S
        while time.perf_counter() < until:
            pump(0.005)
            if self.seen[what]:
                written = self.seen[what][0]
                drawn = next(
                    (
                        frame
                        for frame in self.seen["frame"]
                        if frame.wall > written.wall
                    ),
                    None,
                )
                if drawn is not None:
                    return written.since(began), drawn.since(began)
        return None


def stroke(session: Session, rng: np.random.Generator) -> Callable[[], None]:
    """Choose a stroke somewhere in the body, and give what makes it, as the mouse does."""
    layer, labels = (
        session.case.brushes.scribble.layer,
        np.asarray(session.case.labels.data),
    )
    middle = labels.shape[0] // 2
    y, x = rng.choice(np.argwhere(labels[middle] > 0))
    across = np.clip(x + np.arange(20), 0, labels.shape[2] - 1)

    def make() -> None:
        with layer.block_history():
            for at in across.tolist():
                layer.paint((middle, int(y), at), layer.selected_label)

    return make


def measure(session: Session, strokes: int, seed: int) -> dict[str, list[Moment]]:
    """Stroke, look, accept; here and everywhere in turn.

    The first of each, in which napari makes layers, is left out.
    """
    panel, rng, watch = session.panel, np.random.default_rng(seed), Stopwatch(session)
    found: dict[str, list[Moment]] = {}
    for number in range(2 * strokes + 2):
        scope = ("here", "everywhere")[number % 2]
        panel.sections.edit.show_scope(scope)
        panel.sections.edit.show_target("new")
        panel.editor.use_tool("scribble")
        session.case.brushes.scribble.layer.brush_size = 1
        session.wait()
        for what, act in (
            ("preview", stroke(session, rng)),
            ("labels", panel.sections.edit.apply.click),
        ):
            passed = watch.time(act, what)
            session.wait()
            if passed is not None and number > 1:
                found.setdefault(f"{what} written, {scope}", []).append(passed[0])
                found.setdefault(f"{what} drawn, {scope}", []).append(passed[1])
    return found


def markdown(scan: Path, found: dict[str, list[Moment]]) -> str:
    """Write the table of one scan: medians, in ms."""
    heads = (
        "| | strokes | by the clock | window + edits | window | edits | process |",
        "|---|---|---|---|---|---|---|",
    )
    lines = [f"### {scan.name}", "", *heads]
    for what, passed in found.items():
        columns: Sequence[Callable[[Moment], float]] = (
            lambda one: one.wall,
            lambda one: one.own + one.edits,
            lambda one: one.own,
            lambda one: one.edits,
            lambda one: one.process,
        )
        medians = (
            1000 * statistics.median(column(one) for one in passed)
            for column in columns
        )
        lines.append(
            f"| {what} | {len(passed)} | "
            + " | ".join(f"{median:.0f}" for median in medians)
            + " |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument(
        "--proposal",
        type=Path,
        help="a case of the scan: its proposal is taken, not made",
    )
    parser.add_argument("--strokes", type=int, default=10, help="of each scope")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    napari: Any = prepared_napari()
    with tempfile.TemporaryDirectory() as folder:
        viewer = napari.Viewer()
        viewer.window.resize(1500, 940)
        session = Session(viewer, open_panel(viewer), Path(folder))
        session.open(arguments.scan)
        take_proposal_of(session.panel, arguments.proposal)
        session.propose()
        print(
            markdown(
                arguments.scan, measure(session, arguments.strokes, arguments.seed)
            )
        )
        viewer.close()


if __name__ == "__main__":
    main()
