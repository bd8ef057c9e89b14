"""The Strata dock widget: its sections, and the controllers that carry out what they ask."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_strata.errors import StrataError
from napari_strata.gui.actions import action_for, keys_for
from napari_strata.gui.canvas.layers import is_scan
from napari_strata.gui.canvas.orientation import take_over
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.keys.focus_keys import FocusKeys
from napari_strata.gui.keys.layer_keys import LayerKeys
from napari_strata.gui.keys.wheel import WheelGuard
from napari_strata.gui.panel.editing import Editor
from napari_strata.gui.panel.explaining import Explainer
from napari_strata.gui.panel.file_controller import FileController
from napari_strata.gui.panel.granularity_controller import GranularityController
from napari_strata.gui.panel.hover_card import HoverCard
from napari_strata.gui.panel.layout import PanelLayout
from napari_strata.gui.panel.proposal_controller import ProposalController
from napari_strata.gui.panel.recovery_banner import RecoveryController
from napari_strata.gui.panel.region_list import RegionListController
from napari_strata.gui.panel.review_navigator import ReviewNavigator
from napari_strata.gui.panel.scan_controller import ScanController
from napari_strata.gui.panel.view_controller import ViewController
from napari_strata.gui.preferences import autosave_folder
from napari_strata.gui.session.cursor import Cursor
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.session.selection_outline import SelectionOutline
from napari_strata.gui.tasks.closing import ClosingQuestion
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.timers import single_shot
from napari_strata.gui.tasks.worker import Propose
from napari_strata.gui.widgets.icons import show_icons

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari.viewer

_REFRESH_MS = 120
"""Delay before the lists are brought up to date, so that many changes are shown once."""


class StrataPanel(PanelLayout):
    """The Strata dock widget.

    It holds no algorithm: it shows the state of the refinement and asks it for edits.
    Each controller connects one part of the window to the case in hand.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    propose : callable or None
        Stands in for `napari_strata.pipeline.propose`.
    """

    def __init__(
        self, viewer: napari.viewer.Viewer, *, propose: Propose | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self.cases = OpenCases(viewer, self)
        self.jobs = JobRunner(self)
        self.orientation = take_over(viewer)
        self._refresh_timer = single_shot(self, _REFRESH_MS, self.refresh)
        self._make_controllers(propose)
        self._connect_parts()
        self._bindings = self._bind_to_viewer()
        WheelGuard(self)
        self.scans.list_scans()
        self.cases.adopt_marked()

    @property
    def case(self) -> ScanCase | None:
        """The case of the scan in hand, None before a proposal."""
        return self.cases.of(self.scans.image)

    @property
    def is_busy(self) -> bool:
        """Whether a job, or an edit of the scan in hand, is under way."""
        return self.jobs.is_running or (
            self.case is not None and self.case.queue.is_busy
        )

    @property
    def timers(self) -> tuple[QTimer, ...]:
        """The timers of the lists, the slider and a scan that was moved."""
        return self._refresh_timer, self.granularity.timer, self.scans.timer

    def settle(self) -> None:
        """Carry out and show every edit that was asked for, the slider's included."""
        self.granularity.send()
        if (case := self.case) is not None:
            case.finish()

    def refresh(self) -> None:
        """Bring every section up to date with the case in hand."""
        self._refresh_timer.stop()
        case, sections = self.case, self.sections
        self.canvas_cursor.follow(self.scans.image, self.scans.volume, case)
        is_shown = case is not None and case.is_shown
        self.outline.follow(case)
        for part in (
            sections.granularity,
            sections.regions,
            sections.review,
            sections.edit,
            sections.history,
            sections.explanation,
        ):
            part.setEnabled(is_shown)
        sections.export.enable(is_shown, self.scans.volume is not None)
        sections.show_again.setVisible(case is not None and not case.is_shown)
        self._region_list.show(case)
        self.granularity.show(case)

    def close_down(self) -> None:
        """Cancel running jobs, and remove everything from the viewer except the layers.

        The panel must not be used afterwards.
        """
        self.granularity.send()
        self.jobs.cancel()
        self.proposals.close()
        self.views.close()
        self.hover.close()
        self.outline.close()
        self.orientation.stay()
        self._bindings.remove()
        self.scans.close()
        self.cases.close()
        self.sections.granularity.forget_proposal()
        for timer in self.timers:
            timer.stop()

    # Building

    def _make_controllers(self, propose: Propose | None) -> None:
        sections, viewer, require = self.sections, self._viewer, self._require_case
        table = sections.regions.table
        self.scans = ScanController(
            sections.scan,
            viewer,
            self.orientation,
            before_change=self._before_scan_change,
            on_change=self._on_scan_change,
            show=lambda image: self.views.show_scan(image, self.scans.all),
        )
        self.granularity = GranularityController(
            sections.granularity, case=lambda: self.case
        )
        self.editor = Editor(
            sections.edit,
            table,
            require_case=require,
            send_cut=self.granularity.send,
            show=self.refresh,
        )
        self.proposals = ProposalController(
            sections, self.scans, self.cases, self.jobs, self.editor, propose=propose
        )
        self._make_views()

    def _make_views(self) -> None:
        sections, viewer, require = self.sections, self._viewer, self._require_case
        table = sections.regions.table
        self.explainer = Explainer(
            sections.explanation,
            table,
            self.jobs,
            viewer=viewer,
            require_case=require,
            send_cut=self.granularity.send,
        )
        self.files = FileController(
            sections.export,
            viewer,
            self.jobs,
            cases=self.cases,
            scans=self.scans,
            selected=lambda: table.selected,
            require_case=require,
            send_cut=self.granularity.send,
        )
        self._recovery = RecoveryController(sections.recovery, self.jobs)
        self._region_list = RegionListController(
            sections.regions,
            sections.history,
            sections.edit,
            require_case=require,
            jump=self.editor.jump_to_step,
        )
        self.views = ViewController(
            sections.scan,
            viewer,
            self.orientation,
            self.jobs,
            selected=lambda: table.selected,
            cases=self.cases,
            require_case=require,
        )
        self.review = ReviewNavigator(
            sections.review,
            viewer,
            require_case=require,
            select=table.click,
            on_place=lambda is_shown: self.keys.set_answer(
                "review" if is_shown else None
            ),
        )
        self.hover = HoverCard(
            self,
            case=lambda: self.case,
            is_enabled=sections.explanation.hover.isChecked,
        )
        self.outline = SelectionOutline(viewer, self.orientation.letters.note, self)
        self.canvas_cursor = Cursor(
            lambda text: sections.scan.readout.setText(text or " "), table.click
        )

    def _connect_parts(self) -> None:
        sections = self.sections
        for part in (
            sections.scan,
            sections.proposal,
            sections.explanation,
            sections.export,
        ):
            part.job.follow(self.jobs)
        self.jobs.running_changed.connect(sections.export.show_running)
        sections.scan.help_asked.connect(sections.show_help)
        sections.scan.open_file_asked.connect(self.files.ask_scan)
        sections.scan.open_folder_asked.connect(self.files.ask_folder)
        sections.show_again.clicked.connect(self._on_show_again)
        sections.regions.table.selected_changed.connect(self._on_selected)
        self.views.tool_taken.connect(lambda: self.editor.drop_tools(self.case))
        self.views.modality_changed.connect(self.scans.reload_now)
        self._recovery.resumed.connect(self.proposals.open)
        self.cases.adopted.connect(self._on_adopted)
        self.undocked.connect(self.close_down)

    def _bind_to_viewer(self) -> ViewerBindings:
        viewer, sections = self._viewer, self.sections
        bindings = ViewerBindings(viewer)
        bindings.on_event(viewer.layers.events.inserted, self._on_inserted)
        bindings.on_event(viewer.layers.events.removed, self._on_layers)
        bindings.on_mouse(viewer.mouse_drag_callbacks, self.views.on_drag)
        viewer.mouse_wheel_callbacks.insert(0, self.views.on_wheel)
        bindings.on_remove(
            lambda: viewer.mouse_wheel_callbacks.remove(self.views.on_wheel)
        )
        bindings.on_mouse(viewer.mouse_drag_callbacks, self.canvas_cursor.on_drag)
        bindings.on_mouse(viewer.mouse_move_callbacks, self.canvas_cursor.on_move)
        bindings.on_mouse(viewer.mouse_move_callbacks, self.hover.on_move)
        self.keys = LayerKeys(viewer, lambda when: keys_for(when, self))
        bindings.on_remove(self.keys.close)
        focus_keys = FocusKeys(
            self,
            lambda key: action_for(key, self, self.keys.answer),
            lambda: [] if self.views.planes is None else [self.views.planes],
        )
        bindings.on_remove(focus_keys.close)
        buttons = {**sections.edit.buttons, **sections.export.buttons}
        show_icons(buttons, viewer, bindings)
        bindings.on_remove(self.orientation.close)
        bindings.on_remove(self.outline.forget)
        bindings.on_event(viewer.dims.events.ndisplay, self._on_ndisplay)
        self.destroyed.connect(bindings.remove)
        ClosingQuestion(self, self.jobs, self.cases.count_unsaved)
        return bindings

    # What happens in the viewer

    def _before_scan_change(self) -> None:
        self.editor.drop_tools(self.case)

    def _on_scan_change(self) -> None:
        image, volume = self.scans.image, self.scans.volume
        self.views.follow(image, volume)
        self.review.forget()
        if self.case is None:
            self._recovery.look(image, volume, autosave_folder())
        self.refresh()

    def _on_inserted(self, event: Any) -> None:
        """Show a scan that was opened from a file, instead of the one before."""
        self._on_layers()
        layer, before = event.value, self.scans.image
        source = getattr(layer, "source", None)
        is_opened = source is not None and bool(source.path or source.sample)
        if is_opened and is_scan(layer) and len(self.scans.all) > 1:
            self.scans.choose_and_show(layer)
        elif is_opened and layer is before:
            self.sections.show_section("scan")

    def _on_layers(self, event: object = None) -> None:
        self.cases.drop_gone()
        for image in (self.proposals.image, self.files.opening):
            if image is not None and image not in self._viewer.layers:
                self.jobs.cancel()
        self.scans.list_scans()
        self.cases.adopt_marked()
        self._refresh_timer.start()

    def _on_adopted(self, case: ScanCase) -> None:
        case.changed.connect(lambda _change: self._refresh_timer.start())
        case.queue.idle.connect(self.granularity.send_when_idle)
        case.preview.effect_changed.connect(self.sections.edit.show_effect)
        case.preview.shown_changed.connect(partial(self._on_preview, case))
        for layer in (case.labels, case.image):
            self.keys.bind(layer)
            case.bindings.on_remove(partial(self.keys.release, layer))
        self.views.follow_case(case)
        self.scans.choose(case.image)
        self.sections.show_section("regions")

    def _on_preview(self, case: ScanCase, is_shown: bool) -> None:
        self.review.leave()
        self.sections.edit.show_preview(is_shown)
        self.keys.set_answer("preview" if is_shown else None)

    def _on_show_again(self) -> None:
        if (case := self.case) is not None:
            case.show_again()
            self.keys.bind(case.labels)
            self.refresh()

    def _on_ndisplay(self, event: object = None) -> None:
        self.outline.follow(self.case)

    def _on_selected(self, ids: Sequence[int]) -> None:
        self.outline.show(ids)
        self.sections.edit.merge.setEnabled(len(ids) > 1)
        self.sections.edit.split.setEnabled(bool(ids))
        if ids and self.case is not None and self.case.is_shown:
            self.case.labels.selected_label = ids[-1]
        self.editor.selection_changed()
        self.explainer.selection_changed()

    def _require_case(self) -> ScanCase:
        case = self.case
        if case is None or not case.is_shown:
            raise StrataError(
                "There are no regions to edit yet. Press Propose regions first."
            )
        return case
