"""The window, the command line and Python propose the same labels."""

from __future__ import annotations

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.gui.canvas.layers import image_tuple
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.io.files import write_scan
from phantoms import phantom_volume

pytestmark = pytest.mark.gui


def test_window_command_and_python_give_the_same_labels(
    make_napari_viewer_proxy, qtbot, tmp_path
):
    path = write_scan(
        phantom_volume((16, 20, 24), (3.0, 2.0, 2.0)), tmp_path / "scan.nii.gz"
    )
    out = tmp_path / "labels.nii.gz"
    assert (
        main(["propose", str(path), "-o", str(out), "--tissues", "12", "--quiet"]) == 0
    )
    volume = strata.read(path)
    python = strata.propose(volume).tissues(12).labels

    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Strata")
    data, kwargs, _ = image_tuple(volume)
    viewer.add_image(data, **kwargs)
    panel.sections.granularity.tissues.click()
    panel.sections.proposal.propose.click()
    qtbot.waitUntil(
        lambda: panel.case is not None and not panel.jobs.is_running, timeout=120_000
    )
    opened_on = panel.case.work.proposal.as_proposed("tissues")
    assert panel.sections.granularity.count.value() == opened_on
    panel.sections.granularity.count.setValue(12)
    panel.settle()
    panel.case.painter.finish()

    assert np.array_equal(python, strata.read_labels(out).labels)
    assert np.array_equal(python, np.asarray(panel.case.labels.data))
