"""A person's session through the real widgets.

With the longest time that the window did not answer in each step.

    xvfb-run -a -s "-screen 0 1920x1080x24" python -m benchmarks.gui.session SCAN [SCAN
    ...] [--markdown OUT]

A heartbeat of 5 ms runs in the GUI thread. What is reported per step is the longest gap
between two beats: by the clock; without the time in which that thread was ready and
other programs had the processors; and its own processor time. At the end the labels
that were exported are compared with those of the same steps in plain Python.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from benchmarks.gui.beat import Heartbeat, pump
from qtpy.QtCore import QThreadPool

from napari_strata.gui.canvas.layers import is_scan
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.plugin.window import dock_panel as open_panel
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.widgets.help import note_tour_seen
from napari_strata.io.files import read_labels
from napari_strata.refine.session.refinement import Refinement

QUIET_S = 0.25
LIMIT_S = 1800


@dataclass(slots=True)
class Row:
    """What one step took: seconds until all of it was shown.

    The longest gaps between two beats, see `Heartbeat`, in ms.
    """

    step: str
    seconds: float
    block_ms: float
    held_ms: float
    own_ms: float
    note: str = ""


@dataclass
class Session:
    """Drives one panel and notes what plain Python would have to do for the same labels.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The window.
    panel : StrataPanel
        Docked in it.
    folder : Path
        For the files that it writes.
    """

    viewer: Any
    panel: StrataPanel
    folder: Path
    rows: list[Row] = field(default_factory=list)
    script: list[Callable[[Refinement], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.beat = Heartbeat()

    @property
    def case(self) -> ScanCase:
        """The case in hand."""
        assert self.panel.case is not None
        return self.panel.case

    def is_busy(self) -> bool:
        """Say whether anything is still under way or still to be shown."""
        case = self.panel.case
        busy = self.panel.is_busy or any(
            timer.isActive() for timer in self.panel.timers
        )
        return busy or (
            case is not None
            and not (case.painter.is_settled and case.preview.is_settled)
        )

    @contextmanager
    def step(self, name: str, note: str = ""):
        """Measure one step until it is quiet."""
        pump(0.05)
        self.beat.reset()
        began = time.perf_counter()
        yield
        ended = self.wait()
        gaps = (
            1000 * gap
            for gap in (self.beat.worst, self.beat.worst_held, self.beat.worst_own)
        )
        self.rows.append(Row(name, ended - began, *gaps, note))

    def wait(self) -> float:
        """Let the window work until nothing is under way; give when that was."""
        began = quiet = time.perf_counter()
        while time.perf_counter() - quiet < QUIET_S:
            pump(0.01)
            if self.is_busy():
                quiet = time.perf_counter()
            if time.perf_counter() - began > LIMIT_S:
                raise TimeoutError("The step did not end.")
        return quiet

    def open(self, scan: Path) -> None:
        """Read a scan in the thread and show it; the first draw is napari's."""
        count = len(self.viewer.layers)
        with self.step("open", "napari's first draw in it"):
            self.panel.files.open_scan(scan)
            while len(self.viewer.layers) == count:
                pump(0.01)

    def propose(self) -> None:
        """Propose eight tissues."""
        with self.step("propose", "napari's first draw of the labels in it"):
            self.panel.sections.granularity.count.setValue(8)
            self.panel.sections.proposal.propose.click()
            self.wait()
        self.script.clear()

    def cancel(self) -> None:
        """Propose again and cancel after a while.

        The answer is the time until the window says so.
        """
        self.panel.sections.proposal.propose.click()
        pump(1.0)
        with self.step("cancel a proposal"):
            began = time.perf_counter()
            self.panel.sections.proposal.cancel.click()
            while self.panel.jobs.is_running:
                pump(0.002)
            answer = time.perf_counter() - began
        self.rows[-1].note = f"answered after {1000 * answer:.0f} ms"

    def slide(self, positions: int = 40) -> None:
        """Drag the granularity slider, as fast as the mouse comes."""
        updates = []
        self.case.painter.painted.connect(lambda: updates.append(time.perf_counter()))
        slider = self.panel.sections.granularity.slider
        with self.step("slide"):
            for position in np.linspace(30, 240, positions).astype(int).tolist():
                slider.setValue(position)
                pump(0.025)
            drag_s = positions * 0.025
            seen = len(updates)
        n = self.case.work.view.granularity
        self.rows[
            -1
        ].note = f"{seen / drag_s:.0f} updates of the visible slice per second"
        self.script.append(lambda work: work.cut(tissues=n))

    def edit(
        self, name: str, ask: Callable[[], object], same: Callable[[Refinement], object]
    ) -> None:
        """Ask for an edit, and note what it is in Python."""
        with self.step(name):
            ask()
        self.script.append(same)

    def table_edits(self) -> None:
        """Rename, colour, lock, merge and split, with the table and the buttons."""
        panel, ids = self.panel, self.ids()
        first, second, third, fourth = ids[:4]
        name, color = "left lung, my own name", (10, 200, 30)
        self.edit(
            "rename",
            lambda: panel.sections.regions.table.rename_asked.emit(first, name),
            lambda work: work.rename(first, name),
        )
        self.edit(
            "colour",
            lambda: panel.sections.regions.table.recolor_asked.emit(second, color),
            lambda work: work.edits.recolor(second, color),
        )
        self.edit(
            "lock",
            lambda: panel.sections.regions.table.lock_asked.emit(fourth, True),
            lambda work: work.lock(fourth),
        )
        panel.sections.regions.table.select([second, third])
        self.edit(
            "merge",
            panel.sections.edit.merge.click,
            lambda work: work.merge([second, third]),
        )
        panel.sections.regions.table.select([second])
        self.edit(
            "split",
            panel.sections.edit.split.click,
            lambda work: work.split(second, into=2),
        )

    def scribble(self, scope: str) -> None:
        """Stroke over part of a region for a new one, look at the preview, accept."""
        panel, case = self.panel, self.case
        panel.sections.edit.show_scope(scope)
        panel.sections.edit.show_target("new")
        with self.step(f"take the brush ({scope})"):
            panel.sections.edit.tools["scribble"].click()
        voxels = self.stroke_voxels()
        layer = case.brushes.scribble.layer
        layer.brush_size = 1
        shown: list[float] = []
        case.preview.painted.connect(lambda: shown.append(time.perf_counter()))
        with self.step(f"stroke and preview ({scope})"):
            began = time.perf_counter()
            with layer.block_history():
                for voxel in voxels:
                    layer.paint(tuple(voxel), layer.selected_label)
        self.rows[-1].note = (
            f"preview after {1000 * (shown[0] - began):.0f} ms"
            if shown
            else "nothing would change"
        )
        painted: list[float] = []
        case.painter.painted.connect(lambda: painted.append(time.perf_counter()))
        with self.step(f"scribble {scope}"):
            began = time.perf_counter()
            panel.sections.edit.apply.click()
        self.rows[-1].note = (
            f"new edge on the visible slice after {1000 * (painted[0] - began):.0f} ms"
            if painted
            else ""
        )
        self.script.append(lambda work: work.scribble(voxels, scope=scope))
        panel.editor.use_tool("select")

    def history(self, undo: int = 10, redo: int = 5) -> None:
        """Undo and redo, one press after the other."""
        undo = min(undo, len(self.case.work.history))
        for name, count, button, same in (
            (f"undo {undo}", undo, self.panel.sections.edit.undo, Refinement.undo),
            (f"redo {redo}", redo, self.panel.sections.edit.redo, Refinement.redo),
        ):
            with self.step(name):
                for _ in range(count):
                    button.click()
                    pump(0.02)
            self.script += [same] * count

    def look(self) -> None:
        """Jump to three places worth a look, and accept the last."""
        for number in range(3):
            with self.step(f"next place {number + 1}"):
                self.panel.sections.review.next.click()
        place = self.panel.review.here
        if place is not None:
            voxel, region = place.voxel_zyx, place.region
            with self.step("accept it"):
                self.panel.sections.review.accept.click()
            self.script.append(lambda work: work.edits.assign_at([voxel], region))

    def explain(self) -> None:
        """Ask why a region is one, and where the scan looks like it."""
        self.panel.sections.regions.table.select(self.ids()[:1])
        for question in ("card", "similarity"):
            with self.step(f"explain: {question}"):
                self.panel.sections.explanation.buttons[question].click()

    def export(self) -> tuple[Path, Path]:
        """Export the labels and save the case."""
        labels, case = self.folder / "labels.nii.gz", self.folder / "case.strata"
        with self.step("export"):
            self.panel.files.export_to(labels)
        with self.step("save the case"):
            self.panel.files.save_to(case)
        return labels, case

    def reopen(self, case: Path, scan: Path) -> None:
        """Close the scan, open it again and go on with the case."""
        with self.step("close the scan"):
            self.viewer.layers.clear()
        self.open(scan)
        with self.step("reopen the case", "napari's first draw of the labels in it"):
            self.panel.files.open_case(case)

    def ids(self) -> list[int]:
        """Give the regions, largest first, unlocked."""
        sizes, free = (
            self.case.work.view.sizes_vox,
            {row.id for row in self.case.work.regions if not row.locked},
        )
        return sorted(
            (one for one in sizes if one in free), key=lambda one: -sizes[one]
        )

    def stroke_voxels(self) -> np.ndarray:
        """Give a row of voxels in the largest unlocked region on the slice on screen."""
        labels = np.asarray(self.case.labels.data)
        index = round(float(self.case.labels.world_to_data(self.viewer.dims.point)[0]))
        ids = [one for one in self.ids() if (labels[index] == one).sum() > 8]
        rows = np.argwhere(labels[index] == ids[0])
        y = rows[len(rows) // 2][0]
        across = rows[rows[:, 0] == y][:30, 1]
        return np.stack(
            [np.full(len(across), index), np.full(len(across), y), across], axis=1
        )


def run_session(session: Session, scan: Path, made: Path | None) -> bool:
    """Carry out the whole session.

    Say whether exported labels are those of the same steps in Python.
    """
    session.open(scan)
    take_proposal_of(session.panel, made)
    session.propose()
    proposal = session.case.work.proposal
    session.slide()
    session.table_edits()
    session.scribble("here")
    session.scribble("everywhere")
    session.history()
    session.look()
    session.explain()
    labels, case = session.export()
    work = Refinement(proposal, tissues=8)
    for act in session.script:
        act(work)
    exported = read_labels(labels)
    same = (
        bool(np.array_equal(exported.labels, work.labels))
        and exported.regions == work.segmentation.regions
    )
    session.panel.proposals.propose_with(None)
    session.cancel()
    session.reopen(case, scan)
    return same and bool(
        np.array_equal(np.asarray(session.case.labels.data), work.labels)
    )


def take_proposal_of(panel: StrataPanel, made: Path | None) -> None:
    """Let the panel take a case's proposal instead of making one, where a case is given."""
    if made is not None:
        proposal = Refinement.load(made).proposal
        panel.proposals.propose_with(
            lambda volume, **_how: replace(proposal, volume=volume)
        )


def markdown(scan: Path, rows: list[Row], same: bool) -> str:
    """Write the table of one scan."""
    lines = [
        f"### {scan.name}",
        "",
        (
            "| step | done after (s) | longest block (ms) | other programs left out"
            " (ms) | window's own (ms) | |"
        ),
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.step} | {row.seconds:.2f} | {row.block_ms:.0f} | {row.held_ms:.0f} |"
        f" {row.own_ms:.0f} | {row.note} |"
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            (
                "Exported labels and reopened case equal those of the same steps in"
                f" Python: {'yes' if same else 'NO'}."
            ),
            "",
        ]
    )


def prepared_napari() -> ModuleType:
    """Import napari for a session that nobody watches.

    No tour, no question when its window closes.
    """
    import napari
    from napari.settings import get_settings

    note_tour_seen()
    get_settings().application.confirm_close_window = False
    return napari


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scan", type=Path, nargs="+", help="a scan file or a DICOM folder"
    )
    parser.add_argument(
        "--proposal",
        type=Path,
        action="append",
        default=[],
        help="a case of each scan: its proposal is taken, not made",
    )
    parser.add_argument("--markdown", type=Path, help="where the tables go too")
    arguments = parser.parse_args()
    napari = prepared_napari()
    tables = []
    for scan, made in zip_longest(arguments.scan, arguments.proposal):
        with tempfile.TemporaryDirectory() as folder:
            viewer = napari.Viewer()
            viewer.window.resize(1500, 940)
            session = Session(viewer, open_panel(viewer), Path(folder))
            same = run_session(session, scan, made)
            tables.append(markdown(scan, session.rows, same))
            print(tables[-1], flush=True)
            assert any(is_scan(layer) for layer in viewer.layers)
            # a proposal that was let go ends by itself; napari waits for it when it
            # quits, and so does this
            QThreadPool.globalInstance().waitForDone(120_000)
            viewer.close()
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
