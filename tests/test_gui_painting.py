"""When edits are drawn.

On the plane on screen, beside layers of four axes, in the colours of the table; and
what is refused.
"""

from __future__ import annotations

import numpy as np
import pytest

from napari_strata.gui.session import (
    labels_painter as painter,
)
from napari_strata.gui.session import (
    stroke_preview as previewing,
)
from napari_strata.refine.session.refinement import Refinement
from test_gui_desk import proposed  # noqa: F401 (a fixture)
from test_gui_panel import messages, shown, two_regions

pytestmark = pytest.mark.gui


def test_beside_a_layer_of_four_axes_an_edit_and_a_preview_are_drawn_to_the_end(
    proposed,  # noqa: F811
    monkeypatch,
    qtbot,
):
    viewer, panel = proposed
    case = panel.case
    monkeypatch.setattr(painter, "SLAB_VOXELS", 2000)
    monkeypatch.setattr(previewing, "_AT_ONCE_VOXELS", 0)
    viewer.add_image(np.zeros((3, *case.labels.data.shape), np.float32), visible=False)
    first, second = two_regions(panel)
    voxels = np.argwhere(shown(panel) == first)
    drawn: list[bool] = []
    case.painter.painted.connect(
        lambda: drawn.append(bool((case.labels.data == case.work.labels).all()))
    )
    case.submit(lambda: case.work.merge([first, second]))
    qtbot.waitUntil(
        lambda: not case.queue.is_busy and case.painter.is_settled, timeout=5000
    )
    assert drawn[-1]

    written: list[int] = []
    case.preview.painted.connect(
        lambda: written.append(np.count_nonzero(case.preview.layer.data))
    )
    other = next(row.id for row in case.work.regions if row.id != first)
    case.preview.show([(voxels[:40], other)], "everywhere", over=case.labels)
    qtbot.waitUntil(
        lambda: case.preview.is_shown and case.preview.is_settled, timeout=5000
    )
    assert written[-1] == np.count_nonzero(case.preview.layer.data) > 0


def test_a_colour_that_comes_back_by_redo_is_drawn(proposed):  # noqa: F811
    _, panel = proposed
    work = Refinement(panel.case.work.proposal, tissues=4)
    (made,) = work.split(work.regions[0].id)
    work.edits.recolor(made, (255, 0, 0))
    work.undo()
    work.undo()
    panel.cases.adopt(panel.scans.image, work)
    panel.editor.jump_to_step(2)
    assert (shown(panel) == made).any()
    np.testing.assert_allclose(panel.case.labels.get_color(made)[:3], (1, 0, 0))


def test_painting_on_a_locked_region_is_refused_and_taken_off_the_screen(
    proposed,  # noqa: F811
):
    _, panel = proposed
    locked, other = two_regions(panel)
    panel.case.work.lock(locked)
    before = shown(panel).copy()
    panel.case.labels.brush_size = 1
    panel.case.labels.paint(tuple(np.argwhere(before == locked)[0]), other)
    np.testing.assert_array_equal(shown(panel), before)
    assert "lock" in messages()
