"""Drive the real plugin on a scan and save what the window shows, for the guide and to be looked at.

Run it under a display, for example: xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py SCAN docs/images
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.settings import get_settings
from qtpy.QtCore import QCoreApplication, QElapsedTimer
from scipy import ndimage as ndi

from napari_strata.gui.case import ScanCase
from napari_strata.gui.contributions import open_viewer, panel
from napari_strata.gui.panel import StrataPanel
from napari_strata.gui.worker import Propose

WINDOW = (1500, 940)
JOB_LIMIT_S = 1800


class Tour:
    """Walks through the plugin on one scan.

    Parameters
    ----------
    scan : Path
        What is opened.
    out : Path
        Folder for the pictures.
    propose : callable or None
        Stands in for the pipeline where a quick look is enough.
    """

    def __init__(self, scan: Path, out: Path, *, propose: Propose | None = None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.viewer = open_viewer(scan)
        self.viewer.window.resize(*WINDOW)
        self.panel: StrataPanel = panel(self.viewer)
        if propose is not None:
            self.panel.propose_with(propose)
        self.image = self.viewer.layers[0]
        self.viewer.canvas.overlays.scale_bar.visible = True
        settle(0.5)

    @property
    def case(self) -> ScanCase:
        """The case in hand."""
        case = self.panel.case
        if case is None:
            sys.exit("no proposal was made; see the message above")
        return case

    def shoot(self, name: str) -> None:
        """Save the whole window."""
        settle(1.0)
        self.viewer.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)
        print(f"{name}.png")

    def planes(self) -> None:
        """Show the scan in its three planes and in 3D."""
        for plane in ("axial", "coronal", "sagittal"):
            self.panel.orientation.show_plane(plane)  # type: ignore[arg-type]
            self.shoot(plane)
        self.panel.orientation.show_3d()
        self.shoot("volume")
        self.panel.orientation.show_plane("axial")

    def propose(self) -> None:
        """Propose, with a picture of the progress."""
        self.panel.proposing.propose.click()
        settle(0.3)
        self.shoot("progress")
        wait_for(lambda: not self.panel.is_busy)

    def granularities(self) -> None:
        """Show three granularities."""
        for name, tree, n in (("coarse", "tissues", 4), ("medium", "tissues", 12), ("fine", "regions", 150)):
            button = self.panel.granularity.tissues if tree == "tissues" else self.panel.granularity.regions
            button.click()
            self.panel.granularity.count.setValue(n)
            self.shoot(f"proposal_{name}")
        self.panel.granularity.tissues.click()
        self.panel.granularity.count.setValue(8)

    def correct(self) -> None:
        """Merge, scribble and undo, with the panel's own buttons."""
        settle(0.5)
        middle = self.regions_in_the_middle()
        self.panel.table.select(middle[:2])
        self.shoot("before_merge")
        self.panel.edits.merge.click()
        self.shoot("after_merge")
        self.stroke(middle[2])
        self.shoot("strokes")
        self.panel.edits.apply.click()
        self.panel.edits.tools["select"].click()
        self.shoot("after_scribbles")
        for _ in range(2):
            self.panel.edits.undo.click()
        self.shoot("after_undo")

    def explain(self) -> None:
        """Ask why a region is one, with each map."""
        self.panel.table.select(self.regions_in_the_middle()[:1])
        for question, button in self.panel.explaining.buttons.items():
            button.click()
            wait_for(lambda: not self.panel.is_busy)
            self.shoot(f"explain_{question}")
            if question != "card":
                self.viewer.layers[-1].visible = False

    def regions_in_the_middle(self) -> list[int]:
        """Give the regions on screen, largest first."""
        labels = np.asarray(self.case.labels.data)[self.slice_index()]
        counts = np.bincount(labels.ravel())
        counts[0] = 0
        return [int(number) for number in np.argsort(-counts) if counts[number]][:4]

    def slice_index(self) -> int:
        """Give the axial slice on screen."""
        return round(float(self.case.labels.world_to_data(self.viewer.dims.point)[0]))

    def stroke(self, region: int) -> None:
        """Make a new region from a stroke of napari's brush across part of a region."""
        self.panel.edits.show_target("new")
        self.panel.edits.tools["scribble"].click()
        layer = self.viewer.layers.selection.active
        index = self.slice_index()
        inside = np.asarray(self.case.labels.data)[index] == region
        # the place deepest inside the region
        depth = ndi.distance_transform_edt(inside)
        down, across = np.unravel_index(int(depth.argmax()), depth.shape)
        reach = int(depth.max())
        for step in range(-reach, reach + 1):
            layer.paint((index, int(down), int(across) + step), layer.selected_label)

    def export(self) -> None:
        """Export and open the file again."""
        path = self.out / "labels.nii.gz"
        self.panel.export_to(path)
        wait_for(lambda: not self.panel.is_busy)
        self.case.labels.visible = False
        self.viewer.open(str(path), plugin="napari-strata")
        self.panel.orientation.show_plane("coronal")
        self.shoot("exported_opened_again")

    def light(self) -> None:
        """Show the light theme."""
        self.viewer.theme = "light"
        self.panel.orientation.show_plane("axial")
        self.shoot("light_theme")
        self.viewer.theme = "dark"


def settle(seconds: float) -> None:
    """Let Qt work for a while."""
    timer = QElapsedTimer()
    timer.start()
    while timer.elapsed() < seconds * 1000:
        QCoreApplication.processEvents()


def wait_for(done: Callable[[], bool]) -> None:
    """Let Qt work until a job is done."""
    timer = QElapsedTimer()
    timer.start()
    while not done():
        QCoreApplication.processEvents()
        if timer.elapsed() > JOB_LIMIT_S * 1000:
            sys.exit("the job did not end")


def make_screenshots(scan: Path, out: Path, *, propose: Propose | None = None) -> None:
    """Take the whole tour."""
    get_settings().application.confirm_close_window = False
    tour = Tour(scan, out, propose=propose)
    tour.planes()
    tour.propose()
    tour.granularities()
    tour.explain()
    tour.correct()
    tour.export()
    tour.light()
    tour.viewer.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, help="a scan file or a DICOM folder")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    make_screenshots(arguments.scan, arguments.out)


if __name__ == "__main__":
    main()
