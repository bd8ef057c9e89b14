"""The dock widget: scan, propose, granularity, region table, edit, explain, export, from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info

from napari_strata.errors import StrataError
from napari_strata.gui.answers import Question
from napari_strata.gui.case import ScanCase, marked_work
from napari_strata.gui.dialogs import ask_case_path, ask_export_path, ask_open_path, ask_replace, with_path
from napari_strata.gui.editing import Editor, reported
from napari_strata.gui.explaining import Explainer
from napari_strata.gui.hooks import ViewerHooks
from napari_strata.gui.jobs import JobRunner
from napari_strata.gui.layers import METADATA_KEY, is_scan, layer_facts, volume_from_layer
from napari_strata.gui.layout import PanelLayout, single_shot
from napari_strata.gui.pointer import Pointer
from napari_strata.gui.view import CanvasOrientation
from napari_strata.gui.windows import contrast_limits, default_preset
from napari_strata.gui.worker import (
    ExportRequest,
    ProposalRequest,
    Propose,
    export_body,
    export_provenance,
    load_body,
    propose_body,
    save_body,
)
from napari_strata.proposal.proposal import TreeName
from napari_strata.refine.refinement import Change, Refinement
from napari_strata.volume import Modality, Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_REFRESH_MS = 120
_SLIDER_MS = 15


class StrataPanel(PanelLayout):
    """The Strata dock widget. It holds no algorithm: it shows the refinement's state and asks it for edits.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    propose : callable or None
        Stands in for `napari_strata.pipeline.propose`.
    """

    def __init__(self, viewer: napari.viewer.Viewer, *, propose: Propose | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._propose = propose
        self._cases: dict[napari.layers.Image, ScanCase] = {}
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._job_image: napari.layers.Image | None = None
        self._cut_wanted: tuple[str, int] | None = None
        self._saving = False
        self.jobs = JobRunner(self)
        self.orientation = CanvasOrientation(viewer)
        self._refresh_timer = single_shot(self, _REFRESH_MS, self.refresh)
        self._cut_timer = single_shot(self, _SLIDER_MS, self.cut_now)
        # napari tells of paint just before it writes the voxels, so they are looked for a moment later
        self._paint_timer = single_shot(self, 0, self._take_hand_paint)
        self.editor = Editor(self.edits, self.table, require_case=self._require_case, show=self.refresh, bind_keys=self._bind_edit_keys)
        self.explainer = Explainer(self.explaining, self.table, self.jobs, viewer=viewer, require_case=self._require_case)
        self.pointer = Pointer(lambda text: self.scan.readout.setText(text or " "), self.click_region)
        self._connect_sections()
        self._hooks = self._hang_on_viewer()
        self._list_scans()
        self._adopt_opened_cases()

    # What other code may ask of the panel

    @property
    def case(self) -> ScanCase | None:
        """The case of the scan in hand, None before a proposal."""
        return self._cases.get(self._image) if self._image is not None else None

    @property
    def image(self) -> napari.layers.Image | None:
        """The scan in hand."""
        return self._image

    def propose_with(self, propose: Propose | None) -> None:
        """Take another engine than `napari_strata.pipeline.propose`; None takes that one again."""
        self._propose = propose

    def choose_scan(self, image: napari.layers.Image | None) -> None:
        """Take another scan in hand."""
        if image != self._image:
            self.editor.drop_tools(self.case)
        self._image = image
        self._volume = None
        with reported():
            self._volume = None if image is None else volume_from_layer(image)
        self.orientation.set_scan(image if self._volume is not None else None)
        self._list_scans(choose=False)
        if self._volume is not None:
            self.scan.show_modality(self._volume.modality)
        self.refresh()

    def start_proposal(self) -> None:
        """Propose regions for the scan in hand, in a thread."""
        with reported():
            if self._volume is None or self._image is None:
                raise StrataError("Open a scan first: File > Open, File > Open Sample > Strata, or drop a file on the canvas.")
            if not self.jobs.is_running and self.case is not None and self.case.has_unsaved_edits and not ask_replace(self):
                return
            settings, run = self.proposing.settings()
            request = ProposalRequest(self._volume, settings, run, self.granularity.tree, self.granularity.n)
            image = self._image
            self.jobs.start(partial(propose_body, request, propose=self._propose), lambda work: self.adopt(image, work))
            self._job_image = image

    def adopt(self, image: napari.layers.Image, work: Refinement, labels: napari.layers.Labels | None = None) -> None:
        """Go on with a refinement of a scan; what was there before stays as a plain, hidden labels layer.

        `labels` is a layer that shows the refinement already, as the reader of case files adds it.
        """
        if image not in self._viewer.layers:
            return
        self.editor.drop_tools(self.case)
        before = self._cases.pop(image, None)
        if before is not None:
            before.close()
            if before.work is not work:
                before.unmark_layers()
            if before.is_shown:
                before.labels.name = f"{before.labels.name} (before)"
                before.labels.visible = False
        image.metadata[METADATA_KEY] = {**layer_facts(image), "work": work}
        case = ScanCase(self._viewer, image, work, self, labels)
        self._cases[image] = case
        self._watch(case)
        self._viewer.layers.selection.active = case.labels
        self.choose_scan(image)

    def edit(self, what: str) -> None:
        """Carry out "merge", "split", "update", "undo" or "redo" on the case in hand."""
        self.settle()
        self.editor.edit(what)

    def explain(self, question: Question) -> None:
        """Answer "card", "similarity", "confidence" or "features" of the selected region, in a thread."""
        self.settle()
        self.explainer.ask(question)

    def use_tool(self, tool: str) -> None:
        """Take "select", "scribble" or "paint" in hand."""
        self.editor.use_tool(tool)

    def settle(self) -> None:
        """Carry out what is still under way: voxels painted by hand, then the slider's last wish."""
        if self._paint_timer.isActive():
            self._paint_timer.stop()
            self._take_hand_paint()
        self.cut_now()

    def cut_now(self) -> None:
        """Carry out the slider's last wish, unless a case is being saved: then it waits."""
        if self._saving:
            self._cut_timer.start()
            return
        wanted, self._cut_wanted = self._cut_wanted, None
        case = self.case
        if wanted is not None and case is not None:
            tree, n = wanted
            with reported():
                case.work.cut(regions=n) if tree == "regions" else case.work.cut(tissues=n)

    def export_to(self, path: Path) -> None:
        """Write the labels in hand, in a thread."""
        with reported():
            case = self._require_case()
            self.settle()
            request = ExportRequest(case.work.segmentation, case.work.volume, path, export_provenance(case.work))
            self.jobs.start(partial(export_body, request), lambda written: show_info(f"Wrote {written}"), writes=True)

    def save_to(self, path: Path) -> None:
        """Save the case in hand, in a thread."""
        with reported():
            case = self._require_case()
            self.settle()
            self.jobs.start(partial(save_body, case.work, path), partial(self._on_saved, case, case.work.history), writes=True)
            self._saving = True

    def open_from(self, path: Path) -> None:
        """Open a case of the scan in hand, in a thread."""
        with reported():
            if self._volume is None or self._image is None:
                raise StrataError("Open the scan that the case belongs to first.")
            image = self._image
            self.jobs.start(partial(load_body, path, self._volume), partial(self._on_opened, image))
            self._job_image = image

    def click_region(self, region: int, add: bool = False) -> None:
        """Select a region that was clicked on the scan, or add it to (take it from) the selection."""
        chosen = [one for one in self.table.selected if one != region] if add else []
        self.table.select(chosen if add and region in self.table.selected else [*chosen, region])

    def close_down(self) -> None:
        """Cancel what runs and take everything off the viewer but the layers; the panel is not used after that."""
        self.settle()
        self.jobs.cancel()
        self._hooks.remove()
        for case in self._cases.values():
            case.close()
        self._cases.clear()
        for timer in (self._refresh_timer, self._cut_timer, self._paint_timer):
            timer.stop()

    def refresh(self) -> None:
        """Bring every section up to date with the case in hand."""
        case = self.case
        self.pointer.follow(self._image, self._volume, case)
        for part in (self.granularity, self.regions, self.edits, self.explaining, self.export.export, self.export.save):
            part.setEnabled(case is not None and case.is_shown)
        self.export.open.setEnabled(self._volume is not None)
        self.show_again.setVisible(case is not None and not case.is_shown)
        if case is None:
            self.table.show_regions((), {})
            self.edits.show_history("", "")
            return
        work = case.work
        self.table.show_regions(work.regions, case.volumes_ml() if case.is_shown else {})
        self.edits.show_history(work.history[-1] if work.history else "", work.undone[0] if work.undone else "")
        self.granularity.show_proposal(work.proposal)
        if self._cut_wanted is None:
            self.granularity.show_cut(work.tree, work.granularity)

    # Building

    def _connect_sections(self) -> None:
        self.scan.scan_chosen.connect(self._on_scan_chosen)
        self.scan.modality_chosen.connect(self._on_modality)
        self.scan.window_chosen.connect(self._on_window)
        self.scan.plane_asked.connect(self.orientation.show_plane)
        self.scan.volume_view_asked.connect(self.orientation.show_3d)
        self.proposing.propose_asked.connect(self.start_proposal)
        self.proposing.cancel_asked.connect(self.jobs.cancel)
        self.jobs.running_changed.connect(self.proposing.show_running)
        self.jobs.running_changed.connect(self._on_running)
        self.jobs.progressed.connect(self.proposing.show_step)
        self.granularity.cut_asked.connect(self._on_cut_asked)
        self.show_again.clicked.connect(self._on_show_again)
        self.table.rename_asked.connect(lambda region, name: self._on_row("rename", region, name))
        self.table.recolor_asked.connect(lambda region, rgb: self._on_row("recolor", region, rgb))
        self.table.lock_asked.connect(lambda region, locked: self._on_row("lock" if locked else "unlock", region))
        self.table.selected_changed.connect(self._on_selected)
        self.undocked.connect(self.close_down)
        self.edits.asked.connect(self.edit)
        self.edits.tool_chosen.connect(self.use_tool)
        self.edits.brush_changed.connect(self.editor.brush_changed)
        self.explaining.asked.connect(self.explain)
        self.export.export_asked.connect(lambda: with_path(ask_export_path(self, self._volume), self.export_to))
        self.export.save_asked.connect(lambda: with_path(ask_case_path(self, self._volume), self.save_to))
        self.export.open_asked.connect(lambda: with_path(ask_open_path(self), self.open_from))

    def _hang_on_viewer(self) -> ViewerHooks:
        viewer = self._viewer
        hooks = ViewerHooks(viewer)
        hooks.on_event(viewer.layers.events.inserted, self._on_layers)
        hooks.on_event(viewer.layers.events.removed, self._on_layers)
        hooks.on_mouse(viewer.mouse_drag_callbacks, self.pointer.on_drag)
        hooks.on_mouse(viewer.mouse_move_callbacks, self.pointer.on_move)
        keys = (("Shift-M", "merge"), ("Shift-D", "split"), ("Shift-U", "update"))
        hooks.on_keys(viewer, [(key, partial(self.edit, what)) for key, what in keys])
        hooks.on_keys(viewer, [("Shift-S", partial(self.use_tool, "scribble")), ("Shift-C", partial(self.use_tool, "select"))])
        hooks.on_remove(self.orientation.close)
        self.destroyed.connect(hooks.remove)
        return hooks

    def _watch(self, case: ScanCase) -> None:
        case.hooks.on_remove(case.work.on_change(self._on_change))
        case.hooks.on_event(case.labels.events.paint, self._on_hand_paint)
        for layer in (case.labels, case.image):
            self._bind_edit_keys(layer, case)

    def _bind_edit_keys(self, layer: napari.layers.Layer, case: ScanCase | None = None) -> None:
        keys = (("Control-Z", "undo"), ("Control-Shift-Z", "redo"))
        (case or self._require_case()).hooks.on_keys(layer, [(key, partial(self.edit, what)) for key, what in keys])

    # What happens in the viewer

    def _scans(self) -> list[napari.layers.Image]:
        return [layer for layer in self._viewer.layers if is_scan(layer)]

    def _list_scans(self, *, choose: bool = True) -> None:
        scans = self._scans()
        if choose and self._image not in scans:
            self.choose_scan(scans[-1] if scans else None)
            return
        self.scan.show_scans([layer.name for layer in scans], scans.index(self._image) if self._image in scans else -1)

    def _on_layers(self, event: object = None) -> None:
        for image in [image for image in self._cases if image not in self._viewer.layers]:
            self._cases.pop(image).close()
        if self._job_image is not None and self._job_image not in self._viewer.layers:
            self.jobs.cancel()
        self._list_scans()
        self._adopt_opened_cases()
        self._refresh_timer.start()

    def _adopt_opened_cases(self) -> None:
        """Take up what the reader of case files added, or an earlier panel left: a scan and labels that share a refinement."""
        owned = {case.work for case in self._cases.values()}
        for image, work, labels in marked_work(self._viewer.layers):
            if work not in owned:
                owned.add(work)
                self.adopt(image, work, labels)

    def _on_change(self, change: Change) -> None:
        self._refresh_timer.start()

    def _on_hand_paint(self, event: object = None) -> None:
        self._paint_timer.start()

    def _take_hand_paint(self) -> None:
        if self._saving:
            self._paint_timer.start(_REFRESH_MS)
            return
        with reported():
            if self.case is not None and self.case.is_shown:
                self.case.take_hand_paint()

    # What a person does in the panel

    def _on_scan_chosen(self, row: int) -> None:
        scans = self._scans()
        if 0 <= row < len(scans):
            self.choose_scan(scans[row])

    def _on_modality(self, modality: Modality) -> None:
        if self._image is not None:
            facts = layer_facts(self._image)
            self._image.metadata[METADATA_KEY] = {**facts, "modality": modality}
            self.choose_scan(self._image)
            self._on_window(default_preset(modality))

    def _on_window(self, preset: str) -> None:
        if self._image is not None and self._volume is not None:
            self._image.contrast_limits = contrast_limits(self._volume.data, self._volume.modality, preset)

    def _on_cut_asked(self, tree: TreeName, n: int) -> None:
        if self.case is not None:
            self._cut_wanted = (tree, n)
            if not self._cut_timer.isActive():
                self._cut_timer.start()

    def _on_running(self, running: bool) -> None:
        if not running:
            self._saving = False

    def _on_show_again(self) -> None:
        if (case := self.case) is not None:
            case.show_again()
            case.hooks.on_event(case.labels.events.paint, self._on_hand_paint)
            self._bind_edit_keys(case.labels)
            self.refresh()

    def _on_row(self, what: str, *args: object) -> None:
        with reported():
            getattr(self._require_case().work, what)(*args)

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
            raise StrataError("There are no regions to edit yet. Press Propose regions first.")
        if self._saving:
            raise StrataError("The case is being saved. Try again in a moment.")
        return case

    # Files

    def _on_saved(self, case: ScanCase, history: tuple[str, ...], written: Path) -> None:
        case.note_saved(history)
        show_info(f"Saved {written}")

    def _on_opened(self, image: napari.layers.Image, work: Refinement) -> None:
        self.adopt(image, work)
        if (case := self._cases.get(image)) is not None:
            case.note_saved(work.history)
