"""The export section: every format from the window, read back by programs that are not ours.

What is refused in words.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import trimesh
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDialogButtonBox,
    QLineEdit,
)

from napari_strata.export.formats import FORMATS_BY_NAME
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.widgets import export_dialog
from napari_strata.gui.widgets.export_dialog import ExportDialog
from napari_strata.io.files import read, read_labels, write_scan
from phantoms import phantom_volume, propose_phantom
from test_gui_panel import add_scan, shown
from test_io_dicom import save_series

pytestmark = pytest.mark.gui


def desk(make_napari_viewer_proxy, qtbot, scan: Path) -> StrataPanel:
    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    add_scan(viewer, read(scan))
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None and not panel.is_busy, timeout=20000)
    return panel


def told(panel) -> str:
    return panel.sections.export.result.toolTip()


def export(panel, qtbot, path: Path) -> Path:
    panel.files.export_to(path)
    qtbot.waitUntil(lambda: not panel.is_busy and bool(told(panel)), timeout=20000)
    return path


def test_every_format_from_the_window_is_right_for_other_programs(
    make_napari_viewer_proxy, qtbot, tmp_path
):
    panel = desk(make_napari_viewer_proxy, qtbot, save_series(tmp_path / "ct"))
    region = panel.case.work.paint(np.argwhere(np.ones((3, 4, 2))) + 1)
    panel.case.work.rename(region, "Left kidney")
    mask = shown(panel) == region
    table = {row.id: row.name for row in panel.case.work.regions}

    on_grid = np.asarray(nib.load(export(panel, qtbot, tmp_path / "a.nii.gz")).dataobj)
    assert (on_grid == region).sum() == mask.sum()
    assert (
        told(panel)
        == f"Wrote {tmp_path / 'a.nii.gz'}, with its region table beside it."
    )

    slicer = sitk.ReadImage(export(panel, qtbot, tmp_path / "slicer.seg.nrrd"))
    scan = sitk.ReadImage(
        sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    )
    np.testing.assert_allclose(
        slicer.TransformIndexToPhysicalPoint((1, 2, 3)),
        scan.TransformIndexToPhysicalPoint((1, 2, 3)),
        atol=1e-4,
    )
    assert (sitk.GetArrayFromImage(slicer) == region).sum() == mask.sum()
    assert "Left kidney" in [
        slicer.GetMetaData(key)
        for key in slicer.GetMetaDataKeys()
        if key.endswith("_Name")
    ]

    series = pydicom.dcmread(
        next((tmp_path / "ct").iterdir()), stop_before_pixels=True
    ).SeriesInstanceUID
    dicom = pydicom.dcmread(export(panel, qtbot, tmp_path / "a.dcm"))
    assert dicom.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    number = next(
        one.SegmentNumber
        for one in dicom.SegmentSequence
        if one.SegmentLabel == "Left kidney"
    )
    frames = [
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for groups in dicom.PerFrameFunctionalGroupsSequence
    ]
    assert (
        dicom.pixel_array.reshape(len(frames), -1)[np.equal(frames, number)].sum()
        == mask.sum()
    )

    middle_lps = nib.affines.apply_affine(
        nib.load(tmp_path / "a.nii.gz").affine,
        np.argwhere(on_grid == region).mean(axis=0),
    ) * (-1, -1, 1)
    export(panel, qtbot, tmp_path / "{name}.stl")
    for name in ("Left_kidney.stl", "a.obj", "a.ply"):
        mesh = trimesh.load(
            (
                tmp_path / name
                if name[0] == "L"
                else export(panel, qtbot, tmp_path / name)
            ),
            force="mesh",
        )
        assert mesh.is_watertight, name
        if name[0] == "L":
            np.testing.assert_allclose(mesh.bounds.mean(axis=0), middle_lps, atol=0.1)

    rows = (
        line.split('"')[1]
        for line in export(panel, qtbot, tmp_path / "a.label").read_text().splitlines()
        if '"' in line
    )
    assert {"Clear Label", *table.values()} == set(rows)

    for name, delimiter in (("b.csv", ","), ("b.tsv", "\t")):
        with export(panel, qtbot, tmp_path / name).open(newline="") as file:
            found = {
                row["name"]: row for row in csv.DictReader(file, delimiter=delimiter)
            }
        assert int(found["Left kidney"]["voxels"]) == mask.sum()
        assert 0 < float(found["Left kidney"]["confidence"]) <= 1
        assert "mean_hu" in found["Left kidney"]


def test_what_cannot_be_written_is_one_sentence_in_the_panel(
    make_napari_viewer_proxy, qtbot, tmp_path, monkeypatch
):
    scan = write_scan(phantom_volume(), tmp_path / "scan.nii.gz")
    panel = desk(make_napari_viewer_proxy, qtbot, scan)
    before = scan.read_bytes()
    second = write_scan(phantom_volume(seed=2), tmp_path / "second.nii.gz")
    add_scan(panel.case._viewer, read(second))
    monkeypatch.setattr(
        export_dialog.ExportDialog,
        "exec",
        lambda *_: pytest.fail("asked for a name all the same"),
    )

    panel.sections.export.export_asked.emit("DICOM segmentation")
    assert "is none. Open the folder of the series" in told(panel)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "highdicom", None)
        panel.sections.export.export_asked.emit("DICOM segmentation")
        assert "install napari-strata[dicom]" in told(panel)

    for path, words in (
        (scan, "would be replaced"),
        (second, "would be replaced"),
        (tmp_path / "a.png", "the name must end in"),
        (tmp_path / "nowhere" / "a.stl", "does not exist"),
    ):
        panel.sections.export.show_result("")
        export(panel, qtbot, path)
        assert words in told(panel)
        assert told(panel) in " ".join(
            str(record.message) for record in notification_manager.records
        )
    (tmp_path / "theirs.csv").write_text("name,age\n")
    export(panel, qtbot, tmp_path / "theirs.csv")
    assert "is not Strata's" in told(panel)
    panel.case.work.edits.delete([row.id for row in panel.case.work.regions])
    export(panel, qtbot, tmp_path / "a.stl")
    assert "no region with voxels" in told(panel)
    assert scan.read_bytes() == before
    left = {
        path.name
        for path in tmp_path.iterdir()
        if not path.name.startswith(("scan.nii.gz.", ".strata"))
    }
    assert left == {"scan.nii.gz", "second.nii.gz", "theirs.csv"}


def in_the_dialog(act) -> list[str]:
    """Let a person act in the export dialog that opens next; return what they saw."""
    seen: list[str] = []

    def when_open() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, ExportDialog):
            QTimer.singleShot(50, when_open)
            return
        QTimer.singleShot(5000, dialog.reject)
        act(dialog)
        seen.append(dialog.scope.currentText())
        buttons = dialog.findChild(QDialogButtonBox)
        save = buttons.button(QDialogButtonBox.StandardButton.Save)
        QTest.mouseClick(save, Qt.MouseButton.LeftButton)

    QTimer.singleShot(0, when_open)
    return seen


def choose_format(dialog, name: str) -> None:
    box = dialog.findChild(QComboBox, "fileTypeCombo")
    for _ in range(list(FORMATS_BY_NAME).index(name)):
        QTest.keyClick(box, Qt.Key.Key_Down)


def type_name(dialog, name: str) -> None:
    line = dialog.findChild(QLineEdit, "fileNameEdit")
    line.setText(name)  # typed, it would open a list of completions over the button


def test_the_dialog_offers_every_format_and_says_which_regions_it_writes(
    make_napari_viewer_proxy, qtbot, tmp_path, monkeypatch
):
    panel = desk(make_napari_viewer_proxy, qtbot, save_series(tmp_path / "ct"))
    for number in range(5):
        panel.case.work.paint(
            np.argwhere(np.ones((2, 2, 1))) + np.array((1, 1, number + 1))
        )
    panel.settle()
    total = len(panel.case.work.regions)
    offered = [
        action.text() for action in panel.sections.export.formats.menu().actions()
    ]
    assert [text.split(" (")[0] for text in offered] == list(FORMATS_BY_NAME)
    out = tmp_path / "results"
    out.mkdir()

    seen = in_the_dialog(lambda dialog: type_name(dialog, str(out / "none_named.stl")))
    panel.sections.export.formats.menu().actions()[
        offered.index("Surfaces (.stl, .obj, .ply)")
    ].trigger()
    qtbot.waitUntil(lambda: "none_named.stl" in told(panel), timeout=20000)
    assert seen == [f"all: {total} of {total} regions"]

    ids = [row.id for row in panel.case.work.regions]
    panel.case.work.rename(ids[0], "liver")
    panel.case.work.rename(ids[1], "spleen")
    panel.sections.regions.table.asked.emit("hide", (ids[2],))
    panel.sections.regions.table.select([ids[3]])
    for scope, name, count in (
        ("", "DICOM segmentation", 2),
        ("", "Surfaces", 2),
        ("", "NIfTI labels", total),
        ("", "Table of measures", total),
        ("selected", "NIfTI labels", 1),
        ("shown", "3D Slicer segmentation", total - 1),
        ("all", "DICOM segmentation", total),
    ):
        ending = FORMATS_BY_NAME[name].suffixes[0]
        file = f"{scope or 'usual'}_{name.split()[0]}{ending}"

        def act(dialog, scope=scope, name=name, file=file) -> None:
            assert dialog.directory().path() == str(out), "the folder is remembered"
            if scope:
                dialog.scope.setCurrentIndex(dialog.scope.findData(scope))
                dialog.scope.activated.emit(dialog.scope.currentIndex())
            choose_format(dialog, name)
            type_name(dialog, file)

        seen = in_the_dialog(act)
        QTest.mouseClick(panel.sections.export.export, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda file=file: file in told(panel), timeout=20000)
        assert seen[0].endswith(f"{count} of {total} regions"), file
    segments = pydicom.dcmread(out / "usual_DICOM.dcm").SegmentSequence
    assert [one.SegmentLabel for one in segments] == ["liver", "spleen"]
    assert len(pydicom.dcmread(out / "all_DICOM.dcm").SegmentSequence) == total
    written = read_labels(out / "selected_NIfTI.nii.gz")
    assert set(np.unique(written.labels)) == {0, ids[3]}
    np.testing.assert_array_equal(written.labels > 0, shown(panel) == ids[3])
    with (out / "usual_Table.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == total

    asked = []
    monkeypatch.setattr(
        export_dialog.QMessageBox,
        "question",
        lambda *given: asked.append(given[2]) or given[3].__class__.No,
    )
    in_the_dialog(lambda dialog: type_name(dialog, "usual_Table.csv"))
    panel.sections.export.export.click()
    assert asked == [f"usual_Table.csv is already in {out}. Replace?"]
    assert not panel.jobs.is_running


def test_a_second_format_beside_the_first_is_written_and_shares_its_names(
    make_napari_viewer_proxy, qtbot, tmp_path
):
    scan = write_scan(phantom_volume(), tmp_path / "scan.nii.gz")
    panel = desk(make_napari_viewer_proxy, qtbot, scan)
    panel.case.work.rename(panel.case.work.regions[0].id, "liver")
    for name in ("head.nii.gz", "head.seg.nrrd", "head.nrrd", "head.mha"):
        export(panel, qtbot, tmp_path / name)
        assert "liver" in [row.name for row in read_labels(tmp_path / name).regions]
    assert not list(tmp_path.glob(".*"))
    assert not list(tmp_path.glob("*strata-journal*")), "unfinished work lies elsewhere"


@pytest.mark.parametrize(
    ("typed", "format_", "expected"),
    [
        ("scan_labels.nii.gz", "NIfTI labels", "scan_labels.nii.gz"),
        ("scan_labels.nii.gz", "3D Slicer segmentation", "scan_labels.seg.nrrd"),
        ("other.stl", "NIfTI labels", "other.stl"),
        ("patient.2024", "NIfTI labels", "patient.2024.nii.gz"),
        ("a.nii", "NIfTI labels", "a.nii"),
        ("a", "Surfaces", "a.stl"),
    ],
)
def test_an_ending_that_was_typed_says_the_format_else_the_list_does(
    typed, format_, expected
):
    assert export_dialog.chosen_path(
        Path(typed), Path("scan_labels.nii.gz"), format_
    ) == Path(expected)
