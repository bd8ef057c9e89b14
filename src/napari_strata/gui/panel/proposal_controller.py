"""Controller of the Propose button."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.layers import warn_assumptions
from napari_strata.gui.panel.editing import Editor
from napari_strata.gui.panel.layout import PanelSections
from napari_strata.gui.panel.scan_controller import ScanController
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.tasks.compute import drop_worker, keep_worker
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.worker import (
    Opened,
    ProposalRequest,
    Propose,
    propose_body,
)
from napari_strata.gui.widgets.dialogs import ask_replace

if TYPE_CHECKING:
    import napari.layers


class ProposalController(QObject):
    """Proposes regions of the scan in hand, in a worker process, and opens a case with them.

    Parameters
    ----------
    sections : PanelSections
        Settings and progress.
    scans : ScanController
        Has the scan in hand.
    cases : OpenCases
        Where the new case goes.
    jobs : JobRunner
        Runs the proposal.
    editor : Editor
        Its tools are put down before the new case opens.
    propose : callable or None
        Stands in for `propose_for_window`, which computes in a worker process. With
        it, no process is started.
    """

    def __init__(
        self,
        sections: PanelSections,
        scans: ScanController,
        cases: OpenCases,
        jobs: JobRunner,
        editor: Editor,
        *,
        propose: Propose | None = None,
    ) -> None:
        super().__init__(sections)
        self._sections = sections
        self._scans = scans
        self._cases = cases
        self._jobs = jobs
        self._editor = editor
        self._propose = propose
        self._image: napari.layers.Image | None = None
        if propose is None:
            keep_worker(id(self))
            sections.destroyed.connect(partial(drop_worker, id(self)))
        sections.proposal.propose_asked.connect(self.start)
        jobs.running_changed.connect(sections.proposal.show_running)

    @property
    def image(self) -> napari.layers.Image | None:
        """The layer of the scan that was proposed for last."""
        return self._image

    def propose_with(self, propose: Propose | None) -> None:
        """Use another function than `propose_for_window`; None restores it."""
        self._propose = propose

    def close(self) -> None:
        """Let the worker process go, if no other window needs it."""
        drop_worker(id(self))

    def start(self) -> None:
        """Propose regions for the scan in hand."""
        self._scans.reload()
        with notify_errors():
            image, volume = self._scans.image, self._scans.volume
            if volume is None or image is None:
                raise StrataError(
                    "Open a scan first: File > Open, File > Open Sample > Strata, or"
                    " drop a file on the canvas."
                )
            if not self._may_replace_edits(image):
                return
            settings, run = self._sections.proposal.settings()
            granularity = self._sections.granularity
            request = ProposalRequest(
                volume, settings, run, granularity.tree, granularity.chosen_n
            )
            warn_assumptions(image, volume)
            self._jobs.start(
                partial(propose_body, request, propose=self._propose),
                partial(self.open, image),
                place="proposal",
            )
            self._image = image

    def open(self, image: napari.layers.Image, opened: Opened) -> None:
        """Open a case that was made or restored in a thread."""
        self._editor.drop_tools(self._cases.of(image))
        self._cases.adopt(image, opened.work, layer_tuple=opened.layer)

    def _may_replace_edits(self, image: napari.layers.Image) -> bool:
        case = self._cases.of(image)
        return (
            self._jobs.is_running
            or case is None
            or not case.has_unsaved_edits
            or ask_replace(self._sections)
        )
