"""Drive the real plugin and save what the window shows, for the guide and to be looked at.

xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py docs/images \
        --ct sample_scans/chest_ct.nii.gz --thick sample_scans/thick_t2.nii.gz

The head is the MNI152 T1 template from the nilearn package. Regions get the names that
a person would give them. The script cannot see, so it takes them from nilearn's maps of
grey and white matter, and stops if what it named does not overlap with them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.settings import get_settings
from nilearn.datasets import (
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtCore import QCoreApplication, QElapsedTimer, QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget

import napari_strata as strata
from napari_strata.gui.canvas.window_presets import CT_WINDOWS_HU
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.plugin.window import dock_panel, open_viewer
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.worker import Propose
from napari_strata.gui.widgets.help import HelpOverlay, note_tour_seen
from napari_strata.io.files import write_scan
from napari_strata.volume import Geometry, Volume

WINDOW = (1500, 940)
SAVED_WIDTH = 1100
JOB_LIMIT_S = 1800
NAPARI_DOCKS = ("layer controls", "layer list")
CT_SHOWN = ("Soft tissue", "Lung", "Bone", "Liver")
TISSUES = 16
"""Granularity from which a person merges the tissues that belong together."""
LEAST_DICE = 0.85
"""Least overlap of a named tissue with nilearn's map; below it the picture would not be true."""
VENTRICLES = (
    "L 12 P 14 S 24",
    "R 12 P 14 S 24",
    "L 15 P 30 S 18",
    "R 15 P 30 S 18",
    "L 8 A 5 S 18",
    "R 8 A 5 S 18",
)
"""Places inside the two lateral ventricles of MNI152, as the panel writes them."""
FISSURES = (
    *("L 0 A 30 S 32", "L 0 P 58 S 30", "L 0 A 45 S 10", "L 0 A 10 I 14"),
    *("L 0 P 40 S 0", "L 0 A 0 S 40", "L 0 P 30 S 45", "L 0 A 32 S 14"),
)
"""Places in the CSF between the hemispheres and under the brain.

The first strokes reach too.
"""
VENTRICLE_COLOR = (230, 60, 230)
VENTRICLES_ML = (8, 50)
"""Volume that the ventricles of an adult may have together."""
MOST_TISSUE = 0.3
"""Largest share of the ventricles that nilearn's maps may call grey or white matter."""


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

    def __init__(
        self, scan: Path, out: Path, *, propose: Propose | None = None
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.takes_all = False
        self.viewer = open_viewer(scan)
        self.viewer.window.resize(*WINDOW)
        self.panel: StrataPanel = dock_panel(self.viewer)
        if propose is not None:
            self.panel.proposals.propose_with(propose)
        self.image = self.viewer.layers[0]
        self.viewer.canvas.overlays.scale_bar.visible = True
        settle(0.5)
        self.viewer.fit_to_view()

    @property
    def case(self) -> ScanCase:
        """The case in hand."""
        case = self.panel.case
        if case is None:
            sys.exit("no proposal was made; see the message above")
        return case

    def wait(self) -> None:
        """Wait until nothing is under way, and all of it is shown."""
        wait_for(lambda: not self.panel.is_busy)
        settle(0.5)
        wait_for(
            lambda: (
                not self.panel.is_busy
                and self.case.painter.is_settled
                and self.case.preview.is_settled
            )
        )

    def shoot(
        self, name: str, *, canvas_only: bool = False, only_to_look_at: bool = False
    ) -> np.ndarray:
        """Save the window, or give the canvas."""
        settle(1.0)
        if only_to_look_at and not self.takes_all:
            return np.zeros((0, 0, 3), np.uint8)
        picture = np.asarray(
            self.viewer.screenshot(canvas_only=canvas_only, flash=False)
        )[..., :3]
        if not canvas_only:
            save(picture, self.out / f"{name}.png")
        return picture

    def propose(self) -> None:
        """Propose, with a picture of the progress."""
        self.panel.sections.proposal.propose.click()
        settle(1.5)
        self.shoot("progress", only_to_look_at=True)
        wait_for(lambda: self.panel.case is not None and not self.panel.is_busy)
        self.wait()

    def three_planes(self) -> None:
        """Show the regions in three planes with a crosshair."""
        self.panel.sections.scan.buttons["planes"].setChecked(True)
        self.panel.views.go_to("L 20 P 15 S 10")
        self.wait()
        settle(1.5)
        self.shoot("three_planes")
        self.panel.sections.scan.buttons["planes"].setChecked(False)

    def name_tissues(self, maps: dict[str, NDArray[np.bool_]]) -> None:
        """Merge and name the tissues, as a person does who looks at them.

        Parameters
        ----------
        maps : dict of (z, y, x) bool arrays
            Where each named tissue is; a tissue of the proposal gets the name of the
            map that holds most of it.
        """
        self.case_cut(TISSUES)
        labels = np.asarray(self.case.labels.data)
        groups: dict[str, list[int]] = {name: [] for name in maps}
        for region in np.unique(labels[labels > 0]):
            mine = labels == region
            groups[max(maps, key=lambda name: float(maps[name][mine].mean()))].append(
                int(region)
            )
        for name, regions in groups.items():
            if len(regions) > 1:
                self.panel.sections.regions.table.select(regions)
                self.panel.sections.edit.merge.click()
                self.wait()
            self.panel.sections.regions.table.rename_asked.emit(regions[0], name)
            self.wait()
            self.require_overlap(
                name, np.asarray(self.case.labels.data) == regions[0], maps[name]
            )
            if name != "CSF":
                self.panel.sections.regions.table.lock_asked.emit(regions[0], True)
                self.wait()

    def case_cut(self, n: int) -> None:
        """Move the slider."""
        self.panel.sections.granularity.count.setValue(n)
        self.wait()

    def require_overlap(
        self, name: str, region: NDArray[np.bool_], truth: NDArray[np.bool_]
    ) -> None:
        """Stop if a region is not what it is called; what no map tells of is not checked."""
        dice = 2 * float((region & truth).sum()) / float(region.sum() + truth.sum())
        print(f"{name}: Dice {dice:.3f}")
        if name != "CSF" and dice < LEAST_DICE:
            sys.exit(
                f"{name} overlaps only {dice:.2f} with its map; the picture would not"
                " be true"
            )

    def correct(self, maps: dict[str, NDArray[np.bool_]]) -> None:
        """Stroke the ventricles out of the CSF, look at the preview, take it.

        Show the history.
        """
        csf = next(row.id for row in self.case.work.regions if row.name == "CSF")
        self.stroke_at(VENTRICLES, "new")
        self.panel.ensureWidgetVisible(self.panel.sections.history)
        self.shoot("preview")
        self.take()
        # the strokes reached into the fissures too: those go back to the CSF
        self.panel.sections.regions.table.select([csf])
        self.stroke_at(FISSURES, "selected")
        self.take()
        self.panel.views.go_to(VENTRICLES[-1])
        self.wait()
        ventricles = max(row.id for row in self.case.work.regions)
        self.panel.sections.regions.table.rename_asked.emit(ventricles, "ventricles")
        self.panel.sections.regions.table.recolor_asked.emit(
            ventricles, VENTRICLE_COLOR
        )
        self.wait()
        found = np.asarray(self.case.labels.data) == ventricles
        ml = (
            found.sum()
            * self.case.work.proposal.volume.geometry.voxel_volume_mm3
            / 1000
        )
        tissue = float((found & ~maps["CSF"]).sum() / found.sum())
        print(
            f"ventricles: {ml:.1f} mL, {tissue:.0%} of it grey or white matter in"
            " nilearn's maps"
        )
        if not VENTRICLES_ML[0] <= ml <= VENTRICLES_ML[1] or tissue > MOST_TISSUE:
            sys.exit(
                "what was stroked is not the ventricles; the picture would not be true"
            )
        self.panel.sections.regions.table.select([ventricles])
        self.panel.sections.history.expand()
        settle(0.3)
        self.panel.ensureWidgetVisible(self.panel.sections.history)
        self.shoot("after_scribbles")
        self.panel.sections.history.collapse()

    def stroke_at(self, places: tuple[str, ...], target: str) -> None:
        """Draw strokes at places, for a new region or the selected one; wait for the preview."""
        self.panel.sections.edit.show_target(target)
        self.panel.sections.edit.show_scope("here")
        self.panel.sections.edit.tools["scribble"].click()
        for place in places:
            self.panel.views.go_to(place)
            self.stroke_here()
        self.wait()

    def take(self) -> None:
        """Take the preview."""
        self.panel.sections.edit.apply.click()
        self.panel.sections.edit.tools["select"].click()
        self.wait()

    def window(self) -> None:
        """Show the whole window with three planes and the named regions, for the README."""
        for layer in [layer for layer in self.viewer.layers if " like " in layer.name]:
            self.viewer.layers.remove(layer)
        self.panel.sections.scan.buttons["planes"].setChecked(True)
        self.panel.views.go_to("L 12 P 15 S 18")
        self.wait()
        settle(1.5)
        # napari's own docks give their room to the scan
        docks = [
            dock
            for dock in self.viewer.window._qt_window.findChildren(QDockWidget)
            if dock.windowTitle() in NAPARI_DOCKS
        ]
        for dock in docks:
            dock.hide()
        settle(1.0)
        self.viewer.fit_to_view()
        self.shoot("window")
        for dock in docks:
            dock.show()
        self.panel.sections.scan.buttons["planes"].setChecked(False)

    def explain(self) -> None:
        """Ask why a region is one."""
        self.panel.sections.regions.table.select(self.regions_in_the_middle()[:1])
        for question in ("card", "similarity"):
            self.panel.sections.explanation.buttons[question].click()
            self.wait()
        self.shoot("explain")
        # back to the regions, as a person goes on correcting
        self.panel.sections.show_section("regions")
        self.viewer.layers[-1].visible = False

    def look(self) -> None:
        """Go to a place worth a look, with regions as outlines."""
        self.panel.sections.regions.outline.setChecked(True)
        self.panel.sections.review.next.click()
        self.wait()
        self.panel.ensureWidgetVisible(self.panel.sections.review)
        self.shoot("look_next", only_to_look_at=True)
        self.panel.sections.regions.outline.setChecked(False)
        self.panel.review.forget()

    def cut(self) -> None:
        """Draw a line across a region with the mouse, and take the cut back."""
        self.panel.sections.regions.table.select(self.regions_in_the_middle()[:1])
        self.panel.sections.edit.tools["cut"].click()
        self.panel.ensureWidgetVisible(self.panel.sections.edit)
        canvas = next(
            widget
            for widget in QApplication.allWidgets()
            if isinstance(widget, QOpenGLWidget) and widget.isVisible()
        )
        middle = QPoint(canvas.width() // 2, canvas.height() // 2)
        QTest.mousePress(
            canvas, Qt.MouseButton.LeftButton, pos=middle - QPoint(30, 260)
        )
        for step in range(1, 14):
            QTest.mouseMove(canvas, middle - QPoint(30, 260) + QPoint(5, 40) * step)
            settle(0.05)
        self.shoot("cut")
        QTest.mouseRelease(
            canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(35, 260)
        )
        self.wait()
        self.shoot("cut_done", only_to_look_at=True)
        if not self.case.work.history[-1].endswith("along a line"):
            sys.exit("the line did not part the region")
        self.panel.editor.undo()
        self.panel.sections.edit.tools["select"].click()
        self.wait()

    def surfaces(self) -> None:
        """Show white matter and ventricles as surfaces."""
        named = [
            row.id
            for row in self.case.work.regions
            if row.name in ("white_matter", "ventricles")
        ]
        self.panel.sections.regions.table.select(named)
        self.panel.sections.scan.buttons["surfaces"].click()
        self.wait()
        self.image.visible = False
        # drawn last and without depth, so that the ventricles can be seen through it
        outer = self.viewer.layers["white_matter surface"]
        self.viewer.layers.move(
            self.viewer.layers.index(outer), len(self.viewer.layers)
        )
        outer.blending, outer.opacity = "translucent_no_depth", 0.5
        self.shoot("surfaces")
        self.image.visible = True
        for layer in [
            layer for layer in self.viewer.layers if layer.name.endswith(" surface")
        ]:
            self.viewer.layers.remove(layer)
        self.case.labels.visible = True
        self.panel.orientation.show_plane("axial")

    def keys(self) -> None:
        """Show the list of keys."""
        overlay = HelpOverlay(self.panel)
        overlay.show()
        settle(0.5)
        grab(overlay, self.out / "keys.png")
        overlay.close()

    def export(self) -> None:
        """Export, open the file again, and look whether it lies where it lay."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.nii.gz"
            self.panel.files.export_to(path)
            self.wait()
            self.shoot("exported", only_to_look_at=True)
            before = np.asarray(self.case.labels.data)
            (layer,) = self.viewer.open(str(path), plugin="napari-strata")
            if not (
                np.array_equal(np.asarray(layer.data), before)
                and np.allclose(layer.extent.world, self.case.labels.extent.world)
            ):
                sys.exit("the exported labels do not lie where they lay on the screen")
            self.viewer.layers.remove(layer)

    def light_theme(self) -> None:
        """Show the light theme."""
        self.viewer.theme = "light"
        self.panel.orientation.show_plane("coronal")
        self.shoot("light_theme", only_to_look_at=True)
        self.viewer.theme = "dark"

    def regions_in_the_middle(self) -> list[int]:
        """Return the regions of the slice on screen, largest first."""
        index = self.slice_index()
        labels = self.case.work.view.labels_in(
            (slice(index, index + 1), *self.case.painter.whole_box[1:])
        )
        counts = np.bincount(labels.ravel())
        counts[0] = 0
        return [int(number) for number in np.argsort(-counts) if counts[number]][:4]

    def slice_index(self) -> int:
        """Return the axial slice on screen."""
        return round(float(self.case.labels.world_to_data(self.viewer.dims.point)[0]))

    def stroke_here(self) -> None:
        """Draw a short stroke from front to back with napari's brush.

        Around the place on screen.
        """
        layer = self.viewer.layers.selection.active
        z, y, x = (
            round(float(i))
            for i in self.case.labels.world_to_data(self.viewer.dims.point)
        )
        with layer.block_history():
            for step in range(-4, 5):
                layer.paint((z, y + step, x), layer.selected_label)


def save(picture: np.ndarray, path: Path) -> None:
    """Save a picture no wider than the guide shows it."""
    image = Image.fromarray(picture)
    if image.width > SAVED_WIDTH:
        image = image.resize(
            (SAVED_WIDTH, round(image.height * SAVED_WIDTH / image.width)),
            Image.Resampling.LANCZOS,
        )
    image.save(path, optimize=True)
    print(path.name)


def grab(widget: QWidget, path: Path) -> None:
    """Save one widget."""
    widget.grab().save(str(path))
    print(path.name)


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


def maps_of_mni152(scan: Path) -> dict[str, NDArray[np.bool_]]:
    """Return where the tissues of MNI152 are, on the scan's grid, from nilearn's maps."""
    found = {}
    for name, load in (
        ("white_matter", load_mni152_wm_template),
        ("gray_matter", load_mni152_gm_template),
    ):
        path = scan.with_name(f"{name}.nii.gz")
        load(resolution=1).to_filename(path)
        found[name] = np.asarray(strata.read(path).data) >= 0.5
    inside = np.asarray(strata.read(scan).data) > 0
    return {**found, "CSF": inside & ~found["white_matter"] & ~found["gray_matter"]}


def make_head(
    out: Path, folder: Path, *, propose: Propose | None = None, takes_all: bool = False
) -> Path:
    """Take the whole tour of a head."""
    scan = folder / "mni152_t1.nii.gz"
    load_mni152_template(resolution=1).to_filename(scan)
    maps = maps_of_mni152(scan)
    tour = Tour(scan, out, propose=propose)
    tour.takes_all = takes_all
    tour.shoot("axial")
    tour.propose()
    tour.three_planes()
    tour.explain()
    tour.look()
    tour.cut()
    tour.name_tissues(maps)
    tour.correct(maps)
    tour.window()
    tour.surfaces()
    tour.keys()
    tour.export()
    tour.light_theme()
    # nothing of the tour is to be offered when the scan is opened again
    tour.case.work.storage.end_autosave()
    tour.viewer.close()
    return scan


def make_windows(scan: Path, out: Path) -> None:
    """Show a CT in four windows."""
    tour = Tour(scan, out)
    # where there are lungs, liver and bone
    tour.viewer.dims.set_current_step(0, round(0.3 * tour.image.data.shape[0]))
    shots: list[np.ndarray] = []
    # the panel may still settle its width between two of them
    while len({shot.shape for shot in shots}) != 1:
        shots = []
        for name in CT_SHOWN:
            tour.panel.views.show_window_number(1 + list(CT_WINDOWS_HU).index(name))
            (
                tour.viewer.canvas.overlays.text.text,
                tour.viewer.canvas.overlays.text.visible,
            ) = (name, True)
            shots.append(tour.shoot(name, canvas_only=True))
    save(
        np.vstack([np.hstack(shots[:2]), np.hstack(shots[2:])]), out / "ct_windows.png"
    )
    tour.viewer.close()


def make_view(scan: Path, out: Path, name: str) -> None:
    """Show a scan in its three planes."""
    tour = Tour(scan, out)
    tour.panel.sections.scan.buttons["planes"].setChecked(True)
    settle(1.5)
    tour.shoot(name)
    tour.viewer.close()


def make_oblique(scan: Path, out: Path, folder: Path) -> None:
    """Show the same scan as if the patient had lain aslant.

    The affine is turned by 20 degrees about two axes.
    """
    volume = strata.read(scan)
    turn = np.deg2rad(20)
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    )
    about_z = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.array(volume.geometry.affine)
    affine[:3] = about_z @ about_x @ affine[:3]
    tilted = Volume(
        np.asarray(volume.data),
        Geometry(volume.geometry.shape_zyx, affine),
        volume.modality,
        name="oblique",
    )
    make_view(write_scan(tilted, folder / "oblique.nii.gz"), out, "oblique")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--ct", type=Path, help="a CT, shown in four windows")
    parser.add_argument(
        "--thick", type=Path, help="a scan with thick slices, shown to scale"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also the pictures that the guide does not show",
    )
    arguments = parser.parse_args()
    note_tour_seen()
    get_settings().application.confirm_close_window = False
    with tempfile.TemporaryDirectory() as folder:
        head = make_head(arguments.out, Path(folder), takes_all=arguments.all)
        make_oblique(head, arguments.out, Path(folder))
    if arguments.ct is not None:
        make_windows(arguments.ct, arguments.out)
    if arguments.thick is not None:
        make_view(arguments.thick, arguments.out, "thick_slices")


if __name__ == "__main__":
    main()
