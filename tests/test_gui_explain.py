"""Marks under the granularity slider, and the explain section: words, and maps as layers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer

from napari_strata.errors import Cancelled
from napari_strata.explain import feature_colors, similarity_map
from napari_strata.gui.canvas.layers import layer_facts
from napari_strata.gui.panel import hover_card as hovering
from napari_strata.gui.panel.panel import StrataPanel
from napari_strata.gui.tasks.explanation_tasks import (
    ExplainRequest,
    explain_body,
    explanation_text,
)
from napari_strata.volume import no_progress
from phantoms import phantom_proposal
from test_gui_panel import add_scan, messages, two_regions

pytestmark = pytest.mark.gui


def propose_with_features(volume, **_settings):
    proposal = phantom_proposal(volume)
    seen = np.random.default_rng(0).normal(size=(proposal.n_supervoxels, 6))
    descriptors = np.concatenate([seen, proposal.descriptors], axis=1).astype(
        np.float32
    )
    names = (*(f"feature 0.{k}" for k in range(6)), *proposal.descriptor_names)
    return replace(proposal, descriptors=descriptors, descriptor_names=names)


@pytest.fixture
def proposed(shared_viewer, qtbot):
    viewer = shared_viewer
    panel = StrataPanel(viewer, propose=propose_with_features)
    viewer.window.add_dock_widget(panel, name="Strata")
    notification_manager.records.clear()
    add_scan(viewer)
    panel.proposals.start()
    qtbot.waitUntil(lambda: panel.case is not None, timeout=20000)
    yield viewer, panel
    panel.jobs.cancel()
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)


def ask(panel, qtbot, question):
    panel.sections.explanation.buttons[question].click()
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20000)


def map_of(viewer, question):
    (found,) = [
        layer
        for layer in viewer.layers
        if layer_facts(layer).get("explains") == question
    ]
    return found


@pytest.mark.parametrize("tree", ["tissues", "regions"])
def test_a_click_on_a_mark_moves_slider_count_and_regions_there(proposed, tree):
    _, panel = proposed
    section = panel.sections.granularity
    (section.tissues if tree == "tissues" else section.regions).click()
    proposal = panel.case.work.proposal
    marks = tuple(sorted({*proposal.suggested(tree), proposal.as_proposed(tree)}))
    assert proposal.suggested(tree)
    assert tuple(section.marks.buttons) == marks
    before = None
    for mark in marks:
        section.marks.buttons[mark].click()
        panel.settle()
        assert (
            panel.case.work.view.tree,
            panel.case.work.view.granularity,
            section.count.value(),
        ) == (tree, mark, mark)
        assert before is None or section.slider.value() > before
        before = section.slider.value()
        assert [
            n for n, button in section.marks.buttons.items() if button.isChecked()
        ] == [mark]
        assert f"{mark} {tree}" in section.marks.buttons[mark].toolTip()
    section.count.setValue(marks[0] + 1)
    assert not any(
        button.isChecked()
        for n, button in section.marks.buttons.items()
        if n != marks[0] + 1
    )


def test_mark_buttons_stand_in_order_side_by_side(proposed):
    _, panel = proposed
    panel.sections.granularity.regions.click()
    boxes = [
        button.geometry()
        for button in panel.sections.granularity.marks.buttons.values()
    ]
    assert all(one.right() < other.left() for one, other in pairwise(boxes))
    assert boxes[-1].right() <= panel.sections.granularity.marks.width()


def test_why_says_what_holds_a_region_together(proposed, qtbot):
    _, panel = proposed
    region = two_regions(panel)[0]
    panel.sections.regions.table.select([region])
    ask(panel, qtbot, "card")
    text = panel.sections.explanation.answer.text()
    for word in (
        f"tissue {region}: ",
        "Similarity inside",
        "What separates them",
        "Coarser",
        "Finer",
    ):
        assert word in text
    panel.sections.regions.table.select([two_regions(panel)[1]])
    assert not panel.sections.explanation.answer.text()
    ask(panel, qtbot, "card")
    assert panel.sections.explanation.answer.text()
    panel.editor.edit("split")
    panel.settle()
    assert not panel.sections.explanation.answer.text()


def test_maps_lie_over_the_scan_and_are_no_scans(proposed, qtbot):
    viewer, panel = proposed
    work, image = panel.case.work, panel.scans.image
    region, other = two_regions(panel)
    panel.sections.regions.table.select([region])
    active = viewer.layers.selection.active
    for question in ("similarity", "confidence", "features"):
        ask(panel, qtbot, question)
        layer = map_of(viewer, question)
        np.testing.assert_allclose(layer.scale, image.scale)
        np.testing.assert_allclose(layer.translate, image.translate)
        np.testing.assert_allclose(layer.metadata["affine"], image.metadata["affine"])
        assert (layer.units, layer.axis_labels) == (image.units, image.axis_labels)
        assert viewer.layers[-1].name == layer.name
    pieces, proposal = work.proposal.supervoxels, work.proposal
    np.testing.assert_array_equal(
        map_of(viewer, "similarity").data,
        similarity_map(proposal, work.view.table, region)[pieces],
    )
    np.testing.assert_array_equal(
        map_of(viewer, "confidence").data, proposal.confidence[pieces]
    )
    np.testing.assert_allclose(
        map_of(viewer, "features").data / 255,
        feature_colors(proposal)[pieces],
        atol=0.003,
    )
    assert map_of(viewer, "features").rgb
    assert panel.sections.scan.scans.count() == 1
    assert panel.scans.image is image
    assert viewer.layers.selection.active == active
    count = len(viewer.layers)
    panel.sections.regions.table.select([other])
    ask(panel, qtbot, "similarity")
    assert len(viewer.layers) == count
    np.testing.assert_array_equal(
        map_of(viewer, "similarity").data,
        similarity_map(proposal, work.view.table, other)[pieces],
    )
    assert map_of(viewer, "similarity").name.endswith(f"tissue {other}")
    assert viewer.layers[-1].name == map_of(viewer, "similarity").name


def test_maps_of_the_whole_scan_need_no_region_and_the_others_ask_for_one(
    proposed, qtbot
):
    viewer, panel = proposed
    ask(panel, qtbot, "confidence")
    assert map_of(viewer, "confidence").visible
    assert not panel.sections.explanation.answer.text()
    panel.sections.explanation.buttons["card"].click()
    assert "Select a region" in messages()


def request(proposal, region, **changes):
    table = proposal.tissue_tree.cut(6)
    return replace(
        ExplainRequest(
            proposal,
            table,
            "tissues",
            region,
            "card",
            {k: f"tissue {k}" for k in range(1, 7)},
        ),
        **changes,
    )


def test_background_and_edited_regions_have_words_too():
    proposal = phantom_proposal()
    assert "background" in explanation_text(request(proposal, 0)).splitlines()[0]
    table = np.where(
        np.isin(proposal.tissue_tree.cut(6), (2, 5)), 2, proposal.tissue_tree.cut(6)
    )
    table[np.flatnonzero(table == 2)[::2]] = 9
    assert "smallest branch" in explanation_text(request(proposal, 9, table=table))


def test_painting_can_be_cancelled():
    def stop(done, total, stage):
        if stage.startswith("Painting") and done > 2:
            raise Cancelled("stop")

    asked = request(phantom_proposal(), 2, question="similarity")
    assert (
        explain_body(asked, no_progress).painted.shape
        == asked.proposal.supervoxels.shape
    )
    with pytest.raises(Cancelled):
        explain_body(asked, stop)


def test_a_cursor_that_rests_on_a_region_gets_an_explanation_only_where_that_was_asked_for(
    proposed, qtbot, monkeypatch
):
    viewer, panel = proposed
    panel.settle()
    told = []
    monkeypatch.setattr(
        hovering.QToolTip, "showText", lambda place, words, widget: told.append(words)
    )
    panel.hover.findChild(QTimer).setInterval(1)
    labels = panel.case.labels
    region = two_regions(panel)[0]

    def rest_on(voxel) -> None:
        place = tuple(labels.data_to_world(voxel))
        panel.hover.on_move(
            viewer,
            SimpleNamespace(position=place, view_direction=None, dims_displayed=[1, 2]),
        )

    inside = np.argwhere(np.asarray(labels.data) == region)[0]
    panel.case.go_to(inside)
    rest_on(inside)
    qtbot.wait(30)
    assert told == []
    panel.sections.explanation.hover.setChecked(True)
    rest_on(inside)
    qtbot.waitUntil(lambda: told != [], timeout=20000)
    name = next(row.name for row in panel.case.work.regions if row.id == region)
    assert told[0].startswith(f"{name}: ")
    assert not panel.jobs.is_running
    # the cursor went on before the words came: nothing is shown where it no longer is
    rest_on(inside)
    panel.hover.explain_now()
    rest_on(np.argwhere(np.asarray(labels.data) == 0)[0])
    qtbot.waitUntil(lambda: not panel.hover.is_working, timeout=20000)
    assert len(told) == 1
