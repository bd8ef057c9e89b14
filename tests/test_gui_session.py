"""A whole session through the real widgets, on a phantom.

What is exported equals the same steps in Python.
"""

from __future__ import annotations

import numpy as np
import pytest

from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.io.files import read_labels, write_scan
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_volume
from test_gui_panel import propose_phantom

session_module = pytest.importorskip(
    "benchmarks.gui.session", reason="the benchmarks are only in the repository"
)

pytestmark = pytest.mark.gui


def test_a_session_exports_what_the_same_steps_give_in_python(
    make_napari_viewer_proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(session_module, "QUIET_S", 0.02)
    scan = write_scan(phantom_volume(), tmp_path / "scan.nii.gz")
    viewer = make_napari_viewer_proxy()
    panel = StrataPanel(viewer, propose=propose_phantom)
    viewer.window.add_dock_widget(panel, name="Strata")
    session = session_module.Session(viewer, panel, tmp_path)
    session.open(scan)
    session.propose()
    proposal = session.case.work.proposal
    session.slide(5)
    session.table_edits()
    session.scribble("here")
    session.scribble("everywhere")
    session.history(undo=6, redo=4)
    session.look()
    session.explain()
    labels, case = session.export()
    work = Refinement(proposal, tissues=8)
    for act in session.script:
        act(work)
    exported = read_labels(labels)
    np.testing.assert_array_equal(exported.labels, work.labels)
    assert exported.regions == work.segmentation.regions
    assert session.case.work.history == work.history
    session.reopen(case, scan)
    np.testing.assert_array_equal(np.asarray(session.case.labels.data), work.labels)
    assert session.case.work.history == work.history
