"""The dock widget: scan, propose, granularity, region table, edit, explain, export.

From top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.layers import (
    is_scan,
    tell_assumed,
    volume_from_layer,
    what_to_do,
)
from napari_strata.gui.canvas.orientation import CanvasOrientation
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings
from napari_strata.gui.panel.editing import Editor, reported
from napari_strata.gui.panel.explaining import Explainer
from napari_strata.gui.panel.file_controller import FileController
from napari_strata.gui.panel.hover_card import HoverCard
from napari_strata.gui.panel.keys import bind_panel_keys
from napari_strata.gui.panel.layout import PanelLayout, single_shot
from napari_strata.gui.panel.recovery_banner import RecoveryController
from napari_strata.gui.panel.region_list import RegionListController
from napari_strata.gui.panel.review_navigator import ReviewNavigator
from napari_strata.gui.panel.view_controller import ViewController
from napari_strata.gui.preferences import autosave_folder
from napari_strata.gui.session.cursor import Cursor
from napari_strata.gui.session.followup import FollowUp
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.explanation_tasks import Question
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.worker import (
    Opened,
    ProposalRequest,
    Propose,
    propose_body,
)
from napari_strata.gui.widgets.dialogs import (
    ask_case_path,
    ask_open_path,
    ask_replace,
    ask_scan_folder,
    ask_scan_path,
    with_path,
)
from napari_strata.gui.widgets.help import HelpOverlay
from napari_strata.gui.widgets.icons import show_icons
from napari_strata.proposal.proposal import TreeName
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_REFRESH_MS = 120
_SLIDER_MS = 15


class StrataPanel(PanelLayout):
    """The Strata dock widget.

    It holds no algorithm: it shows the refinement's state and asks it for edits.

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
        self._propose = propose
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._job_image: napari.layers.Image | None = None
        self._cut_wanted: tuple[str, int] | None = None
        self.cases = OpenCases(viewer, self)
        self.jobs = JobRunner(self)
        self.orientation = CanvasOrientation(viewer)
        self._refresh_timer = single_shot(self, _REFRESH_MS, self.refresh)
        self._cut_timer = single_shot(self, _SLIDER_MS, self.cut_now)
        self._place_timer = single_shot(self, _REFRESH_MS, self._on_placed)
        self._place_hooks = ViewerBindings(viewer)
        self._make_parts(viewer)
        self._connect_sections()
        self._hooks = self._hang_on_viewer()
        self._list_scans()
        self.cases.adopt_marked()

    # What other code may ask of the panel

    @property
    def case(self) -> ScanCase | None:
        """The case of the scan in hand, None before a proposal."""
        return self.cases.of(self._image)

    @property
    def image(self) -> napari.layers.Image | None:
        """The scan in hand."""
        return self._image

    @property
    def volume(self) -> Volume | None:
        """What the scan in hand holds."""
        return self._volume

    @property
    def is_busy(self) -> bool:
        """Whether a job, or an edit of the scan in hand, is under way."""
        return self.jobs.is_running or (
            self.case is not None and self.case.queue.is_busy
        )

    @property
    def timers(self) -> tuple[QTimer, ...]:
        """What is put off by a moment: the slider's wish, and bringing the lists up to date."""
        return self._refresh_timer, self._cut_timer, self._place_timer

    def propose_with(self, propose: Propose | None) -> None:
        """Take another engine than `napari_strata.pipeline.propose`.

        None takes that one again.
        """
        self._propose = propose

    def choose_scan(self, image: napari.layers.Image | None) -> None:
        """Take another scan in hand."""
        if image != self._image:
            self.editor.drop_tools(self.case)
        self._watch_place(image)
        self._image = image
        self._volume = None
        with reported():
            self._volume = None if image is None else volume_from_layer(image)
        self.orientation.set_scan(image if self._volume is not None else None)
        self._list_scans(choose=False)
        self.viewing.follow(image, self._volume)
        self.looker.forget()
        if self.case is None:
            self.recovery.look(image, self._volume, autosave_folder())
        self.refresh()

    def start_proposal(self) -> None:
        """Propose regions for the scan in hand, in a thread."""
        if self._place_timer.isActive():
            self._on_placed()
        with reported():
            if self._volume is None or self._image is None:
                raise StrataError(
                    "Open a scan first: File > Open, File > Open Sample > Strata, or"
                    " drop a file on the canvas."
                )
            if (
                not self.jobs.is_running
                and self.case is not None
                and self.case.has_unsaved_edits
                and not ask_replace(self)
            ):
                return
            settings, run = self.proposing.settings()
            request = ProposalRequest(
                self._volume, settings, run, self.granularity.tree, self.granularity.n
            )
            tell_assumed(self._image, self._volume)
            self.jobs.start(
                partial(propose_body, request, propose=self._propose),
                partial(self._on_proposed, self._image),
            )
            self._job_image = self._image

    def adopt(
        self,
        image: napari.layers.Image,
        work: Refinement,
        labels: napari.layers.Labels | None = None,
    ) -> None:
        """Go on with a refinement of a scan.

        What was there before stays as a plain, hidden labels layer.

        `labels` is a layer that shows the refinement already, as the reader of case
        files adds it.
        """
        self.cases.adopt(image, work, labels)

    def edit(self, what: str) -> None:
        """Carry out "merge", "split", "update", "clear".

        "undo" or "redo" on the case in hand, after what is under way.
        """
        self._send_cut()
        self.editor.edit(what)

    def explain(self, question: Question) -> None:
        """Answer "card", "similarity", "confidence" or "features" of the selected region.

        In a thread.
        """
        self._after_edits(lambda: self.explainer.ask(question))

    def use_tool(self, tool: str) -> None:
        """Take "select", "scribble", "cut" or "paint" in hand."""
        self.editor.use_tool(tool)

    def settle(self) -> None:
        """Carry out and show what is still under way.

        Edits, the slider's last wish, and what the table shows of them.
        """
        self._send_cut()
        if (case := self.case) is not None:
            case.finish()

    def cut_now(self) -> None:
        """Ask for the slider's last wish.

        While an edit runs it waits, so that a drag never queues up.
        """
        case = self.case
        if case is None or self._cut_wanted is None:
            return
        if not case.queue.is_busy:
            self._send_cut()

    def export_to(self, path: Path) -> None:
        """Write the labels in hand, in a thread."""
        self._send_cut()
        self.filing.export_to(path)

    def save_to(self, path: Path) -> None:
        """Save the case in hand, in a thread."""
        self._send_cut()
        self.filing.save_to(path)

    def open_from(self, path: Path) -> None:
        """Open a case of the scan in hand, in a thread."""
        self.filing.open_case(path, self._image, self._volume)

    def click_region(self, region: int, add: bool = False) -> None:
        """Select a region that was clicked on the scan.

        Or add it to (take it from) the selection.
        """
        chosen = [one for one in self.table.selected if one != region] if add else []
        self.table.select(
            chosen if add and region in self.table.selected else [*chosen, region]
        )

    def toggle_lock(self) -> None:
        """Lock the selected regions, or unlock them where all of them are locked."""
        rows = [row for row in self.table.regions.rows if row.id in self.table.selected]
        if rows:
            self.table.asked.emit(
                "unlock" if all(row.locked for row in rows) else "lock",
                self.table.selected,
            )

    def compare(self) -> None:
        """Show the case in hand beside that of an earlier scan, with the change of volume."""
        with reported():
            case = self._require_case()
            others = [other for other in self.cases.shown if other is not case]
            if not others:
                raise StrataError(
                    "Open the other scan in this window too, and propose regions or"
                    " open its case there."
                )
            FollowUp(self._viewer, case, others, self).show()

    def show_help(self) -> None:
        """Show every key and mouse gesture."""
        HelpOverlay(self).show()

    def close_down(self) -> None:
        """Cancel what runs and take everything off the viewer but the layers.

        The panel is not used after that.
        """
        self._send_cut()
        self.jobs.cancel()
        self.viewing.close()
        self.hover.close()
        self._hooks.remove()
        self._place_hooks.remove()
        self.cases.close()
        self.granularity.forget_proposal()
        for timer in self.timers:
            timer.stop()

    def refresh(self) -> None:
        """Bring every section up to date with the case in hand."""
        self._refresh_timer.stop()
        case = self.case
        self.pointer.follow(self._image, self._volume, case)
        is_shown = case is not None and case.is_shown
        for part in (
            self.granularity,
            self.regions,
            self.look,
            self.edits,
            self.history,
            self.explaining,
        ):
            part.setEnabled(is_shown)
        self.export.show_work(is_shown, self._volume is not None)
        self.show_again.setVisible(case is not None and not case.is_shown)
        self.lister.show(case)
        if case is None:
            self.granularity.forget_proposal()
        else:
            self.granularity.show_proposal(case.work.proposal)
            if self._cut_wanted is None and not case.queue.is_busy:
                self.granularity.show_cut(
                    case.work.view.tree, case.work.view.granularity
                )

    # Building

    def _make_parts(self, viewer: napari.viewer.Viewer) -> None:
        require = self._require_case
        self.editor = Editor(
            self.edits,
            self.table,
            require_case=require,
            show=self.refresh,
            bind_keys=self._bind_layer_keys,
        )
        self.explainer = Explainer(
            self.explaining, self.table, self.jobs, viewer=viewer, require_case=require
        )
        self.filing = FileController(
            self.export, viewer, self.jobs, cases=self.cases, require_case=require
        )
        self.recovery = RecoveryController(self.recovery_card, self.jobs)
        self.lister = RegionListController(
            self.regions,
            self.history,
            self.edits,
            require_case=require,
            jump=self.editor.jump,
        )
        self.viewing = ViewController(
            self.scan,
            viewer,
            self.orientation,
            self.jobs,
            selected=lambda: self.table.selected,
            case=lambda: self.case,
        )
        self.looker = ReviewNavigator(
            self.look, viewer, require_case=require, select=self.click_region
        )
        self.hover = HoverCard(
            self, case=lambda: self.case, is_wanted=self.explaining.hover.isChecked
        )
        self.pointer = Cursor(
            lambda text: self.scan.readout.setText(text or " "), self.click_region
        )

    def _connect_sections(self) -> None:
        self.scan.scan_chosen.connect(self._on_scan_chosen)
        self.scan.open_file_asked.connect(
            lambda: with_path(ask_scan_path(self), self.filing.open_scan)
        )
        self.scan.open_folder_asked.connect(
            lambda: with_path(ask_scan_folder(self), self.filing.open_scan)
        )
        self.scan.compare_asked.connect(self.compare)
        self.scan.help_asked.connect(self.show_help)
        self.viewing.tool_taken.connect(lambda: self.editor.drop_tools(self.case))
        self.viewing.modality_changed.connect(lambda: self.choose_scan(self._image))
        self.proposing.propose_asked.connect(self.start_proposal)
        self.proposing.cancel_asked.connect(self.jobs.cancel)
        self.jobs.running_changed.connect(self.proposing.show_running)
        self.jobs.progressed.connect(self.proposing.show_step)
        self.granularity.cut_asked.connect(self._on_cut_asked)
        self.show_again.clicked.connect(self._on_show_again)
        self.table.selected_changed.connect(self._on_selected)
        self.recovery.resumed.connect(self._on_proposed)
        self.cases.adopted.connect(self._on_adopted)
        self.undocked.connect(self.close_down)
        self.edits.asked.connect(self.edit)
        self.edits.tool_chosen.connect(self.use_tool)
        self.edits.tool_asked.connect(self.editor.use_region_tool)
        self.edits.brush_changed.connect(self.editor.brush_changed)
        self.explaining.asked.connect(self.explain)
        self.export.export_asked.connect(
            lambda name: with_path(self.filing.ask_export(name), self.export_to)
        )
        self.export.save_asked.connect(
            lambda: with_path(ask_case_path(self, self._volume), self.save_to)
        )
        self.export.open_asked.connect(
            lambda: with_path(ask_open_path(self), self.open_from)
        )

    def _hang_on_viewer(self) -> ViewerBindings:
        viewer = self._viewer
        hooks = ViewerBindings(viewer)
        hooks.on_event(viewer.layers.events.inserted, self._on_layers)
        hooks.on_event(viewer.layers.events.removed, self._on_layers)
        hooks.on_mouse(viewer.mouse_drag_callbacks, self.viewing.on_drag)
        hooks.on_mouse(viewer.mouse_drag_callbacks, self.pointer.on_drag)
        hooks.on_mouse(viewer.mouse_move_callbacks, self.pointer.on_move)
        hooks.on_mouse(viewer.mouse_move_callbacks, self.hover.on_move)
        bind_panel_keys(hooks, viewer, self)
        show_icons({**self.edits.buttons, **self.export.buttons}, viewer, hooks)
        hooks.on_remove(self.orientation.close)
        self.destroyed.connect(hooks.remove)
        return hooks

    def _bind_layer_keys(
        self, layer: napari.layers.Layer, case: ScanCase | None = None
    ) -> None:
        """Bind the keys that napari's labels layers use for themselves.

        On our own layers only.
        """
        keys = {"Control-Z": "undo", "Control-Shift-Z": "redo", "M": "merge"}
        (case or self._require_case()).hooks.on_keys(
            layer, [(key, partial(self.edit, what)) for key, what in keys.items()]
        )

    # What happens in the viewer

    def _watch_place(self, image: napari.layers.Image | None) -> None:
        """Look anew at the scan in hand when somebody moves or scales its layer.

        Or gives it other data.
        """
        self._place_timer.stop()
        if image is self._image:
            return
        self._place_hooks.remove()
        if image is not None:
            for name in (
                "scale",
                "translate",
                "rotate",
                "shear",
                "affine",
                "units",
                "data",
            ):
                self._place_hooks.on_event(
                    getattr(image.events, name), self._on_placing
                )

    def _on_placing(self, event: object = None) -> None:
        self._place_timer.start()

    def _on_placed(self) -> None:
        self._place_timer.stop()
        if self._image is not None and self._image in self._viewer.layers:
            self.choose_scan(self._image)

    def _scans(self) -> list[napari.layers.Image]:
        return [layer for layer in self._viewer.layers if is_scan(layer)]

    def _list_scans(self, *, choose: bool = True) -> None:
        scans = self._scans()
        if choose and self._image not in scans:
            self.choose_scan(scans[-1] if scans else None)
            return
        current = scans.index(self._image) if self._image in scans else -1
        self.scan.show_scans(
            [layer.name for layer in scans], current, **what_to_do(self._viewer.layers)
        )

    def _on_layers(self, event: object = None) -> None:
        self.cases.drop_gone()
        for image in (self._job_image, self.filing.opening):
            if image is not None and image not in self._viewer.layers:
                self.jobs.cancel()
        self._list_scans()
        self.cases.adopt_marked()
        self._refresh_timer.start()

    def _on_adopted(self, case: ScanCase) -> None:
        case.changed.connect(lambda _change: self._refresh_timer.start())
        case.queue.idle.connect(self.cut_now)
        case.preview.shown_changed.connect(partial(self._on_preview, case))
        for layer in (case.labels, case.image):
            self._bind_layer_keys(layer, case)
        self.viewing.follow_case(case)
        self.choose_scan(case.image)

    def _on_preview(self, case: ScanCase, is_shown: bool) -> None:
        self.looker.leave()
        self.edits.show_preview(is_shown)
        case.accept_keys(
            is_shown,
            {
                "Space": partial(self.edit, "update"),
                "Escape": partial(self.edit, "clear"),
            },
        )

    # What a person does in the panel

    def _on_scan_chosen(self, row: int) -> None:
        scans = self._scans()
        if 0 <= row < len(scans):
            self.choose_scan(scans[row])

    def _on_proposed(self, image: napari.layers.Image, opened: Opened) -> None:
        self.editor.drop_tools(self.cases.of(image))
        self.cases.adopt(image, opened.work, made=opened.layer)

    def _on_cut_asked(self, tree: TreeName, n: int) -> None:
        if self.case is not None:
            self._cut_wanted = (tree, n)
            if not self._cut_timer.isActive():
                self._cut_timer.start()

    def _send_cut(self) -> None:
        wanted, self._cut_wanted = self._cut_wanted, None
        if wanted is not None and (case := self.case) is not None:
            case.submit(partial(case.work.cut, **{wanted[0]: wanted[1]}))

    def _after_edits(self, act: Callable[[], None]) -> None:
        """Do something once the edits that were asked for are done.

        At once where none is under way.
        """
        self._send_cut()
        if (case := self.case) is not None and case.queue.is_busy:
            case.queue.submit(lambda: None, lambda _nothing: act())
        else:
            act()

    def _on_show_again(self) -> None:
        if (case := self.case) is not None:
            case.show_again()
            self._bind_layer_keys(case.labels)
            self.refresh()

    def _on_selected(self, ids: Sequence[int]) -> None:
        self.edits.merge.setEnabled(len(ids) > 1)
        self.edits.split.setEnabled(bool(ids))
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
