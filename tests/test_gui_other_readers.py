"""Layers of other readers in a napari window: propose, look, File > Save and export."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_strata.gui.panel.panel import StrataPanel
from phantoms import phantom_volume, propose_phantom
from test_gui_placing import SCAN, TURN, as_napari_nifti

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(shared_viewer, qtbot):
    panel = StrataPanel(shared_viewer, propose=propose_phantom)
    shared_viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    yield panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.jobs.is_running, timeout=20000)


def propose(panel, qtbot) -> None:
    panel.sections.proposal.propose.click()
    qtbot.waitUntil(lambda: panel.case is not None and not panel.is_busy, timeout=20000)
    panel.settle()


def export(panel, qtbot, path) -> None:
    panel.files.export_to(path)
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)


def said() -> str:
    return " ".join(str(record.message) for record in notification_manager.records)


def test_save_and_export_over_a_layer_of_napari_nifti_lie_where_its_file_does(
    shared_viewer, panel, qtbot, tmp_path
):
    file = nib.Nifti1Image(
        phantom_volume().data.transpose(2, 1, 0)[::-1, ::-1],
        SCAN @ np.diag([-1.0, -1, 1, 1]),
    )
    layer = shared_viewer.add_layer(as_napari_nifti(file))
    propose(panel, qtbot)
    labels = panel.case.labels
    np.testing.assert_allclose(
        labels.data_to_world((3, 4, 5)), layer.data_to_world((3, 4, 5))
    )
    assert dict(panel.orientation.letters.shown) == {
        "left": "R",
        "right": "L",
        "top": "A",
        "bottom": "P",
    }
    labels.save(str(tmp_path / "saved.nii.gz"), plugin="napari-strata")
    export(panel, qtbot, tmp_path / "exported.nii.gz")
    for name in ("saved", "exported"):
        written = nib.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_allclose(written.affine, file.affine, atol=1e-4)
        found = nib.as_closest_canonical(written)
        np.testing.assert_array_equal(
            np.asarray(found.dataobj).transpose(2, 1, 0), panel.case.work.labels
        )
    volume_ml = sum(
        facts.volume_ml for region, facts in panel.case.statistics().items() if region
    )
    assert volume_ml == pytest.approx((panel.case.work.labels > 0).sum() * 4.5e-3)


def test_on_a_turned_layer_mouse_positions_edits_and_planes_meet_the_right_voxels(
    shared_viewer, panel, qtbot
):
    layer = shared_viewer.add_image(
        phantom_volume().data, scale=(2, 1, 1), rotate=TURN, units="mm", name="turned"
    )
    assert panel.scans.volume is not None
    for voxel in ((3, 4, 5), (20, 9, 30)):
        event = SimpleNamespace(position=layer.data_to_world(voxel))
        panel.canvas_cursor.on_move(shared_viewer, event)
        assert (
            panel.sections.scan.readout.text().split()[-1] == f"{layer.data[voxel]:.4g}"
        )
        point = panel.scans.volume.geometry.world_from_voxel(voxel)
        panel.views.go_to(" ".join(f"{value:.6f}" for value in point))
        # napari stops at whole steps
        np.testing.assert_allclose(
            shared_viewer.dims.point, layer.data_to_world(voxel), atol=1.1
        )
    propose(panel, qtbot)
    panel.sections.scan.buttons["planes"].click()
    first, second = [row.id for row in panel.case.work.regions][:2]
    panel.sections.regions.table.select([first, second])
    panel.editor.edit("merge")
    panel.settle()
    np.testing.assert_array_equal(panel.case.labels.data, panel.case.work.labels)
    for view in panel.views.planes.views:
        np.testing.assert_allclose(
            view.image.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3))
        )
        np.testing.assert_allclose(
            view.labels.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3))
        )


def test_a_layer_that_is_scaled_later_is_read_anew_and_not_exported_with_old_sizes(
    shared_viewer, panel, qtbot, tmp_path
):
    layer = shared_viewer.add_image(phantom_volume().data, name="bare")
    layer.scale = (3, 2, 2)
    propose(panel, qtbot)
    assert panel.case.work.proposal.volume.geometry.voxel_volume_mm3 == pytest.approx(
        12
    )
    assert "left and right are a guess" in said()
    layer.scale = (1, 1, 1)
    export(panel, qtbot, tmp_path / "labels.nii.gz")
    assert "'bare' was moved or scaled after its regions were made" in said()
    assert not list(tmp_path.iterdir())
    layer.scale = (3, 2, 2)
    export(panel, qtbot, tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(
        nib.load(tmp_path / "labels.nii.gz").header.get_zooms(), (2, 2, 3)
    )
