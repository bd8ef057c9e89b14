"""Controller of the explain section."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.layers import (
    EXPLAINS,
    confidence_tuple,
    feature_colors_tuple,
    layer_facts,
    matching_grid_kwargs,
    similarity_tuple,
)
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.explanation_tasks import (
    Answer,
    ExplainRequest,
    Question,
    explain_body,
)
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.widgets.explain_section import ExplainSection
from napari_strata.gui.widgets.region_table import RegionTable

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class Explainer:
    """Answers the questions of the explain section about the region selected last.

    Keeps one map layer per question and scan.

    Parameters
    ----------
    section : ExplainSection
        Buttons and words.
    table : RegionTable
        Whose selection is explained.
    jobs : JobRunner
        Does the work outside the GUI thread.
    viewer : napari.viewer.Viewer
        Where the maps are shown.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    send_cut : callable
        Submits the slider's last cut, so that it comes before the question.
    """

    def __init__(
        self,
        section: ExplainSection,
        table: RegionTable,
        jobs: JobRunner,
        *,
        viewer: napari.viewer.Viewer,
        require_case: Callable[[], ScanCase],
        send_cut: Callable[[], None],
    ) -> None:
        self._section = section
        self._table = table
        self._jobs = jobs
        self._viewer = viewer
        self._require_case = require_case
        self._send_cut = send_cut
        self._stop_watching: Callable[[], None] = lambda: None
        section.asked.connect(self.ask)

    def ask(self, question: Question) -> None:
        """Answer a question in a thread, once the edits that were asked for are done."""
        self._send_cut()
        with notify_errors():
            case = self._require_case()
            if case.queue.is_busy:
                case.queue.submit(lambda: None, lambda _nothing: self._start(question))
            else:
                self._start(question)

    def _start(self, question: Question) -> None:
        with notify_errors():
            case = self._require_case()
            region = self._table.selected[-1] if self._table.selected else None
            if region is None and question in ("card", "similarity"):
                raise StrataError(
                    "Select a region to explain: click the scan, or the table."
                )
            work = case.work
            names = {row.id: row.name for row in work.regions}
            request = ExplainRequest(
                work.proposal,
                work.view.table.copy(),
                work.view.tree,
                region,
                question,
                names,
            )
            self._jobs.start(
                partial(explain_body, request),
                partial(self._show, case),
                place="explanation",
            )

    def selection_changed(self) -> None:
        """Remove the text: it describes another region, or the region before an edit."""
        self._stop_watching()
        self._stop_watching = lambda: None
        self._section.show_answer("")

    def _show(self, case: ScanCase, answer: Answer) -> None:
        if case.image not in self._viewer.layers or not case.is_shown:
            return
        self.selection_changed()
        if self._table.selected[-1:] == (answer.request.region,):
            self._section.show_answer(answer.text)
            self._watch(case)
        if answer.painted is not None:
            self._show_map(case, answer.request, answer.painted)

    def _watch(self, case: ScanCase) -> None:
        """Remove the text at the next change of the case."""
        case.changed.connect(self._on_changed)
        self._stop_watching = lambda: case.changed.disconnect(self._on_changed)

    def _on_changed(self, change: object) -> None:
        self.selection_changed()

    def _show_map(
        self, case: ScanCase, request: ExplainRequest, painted: NDArray[Any]
    ) -> None:
        grid_options = matching_grid_kwargs(
            case.image,
            case.work.proposal.volume.geometry,
            {"scan_id": case.image.unique_id},
        )
        if request.question == "features":
            map_tuple = feature_colors_tuple(
                painted, grid_options, name=f"{case.image.name} features"
            )
        elif request.question == "confidence":
            map_tuple = confidence_tuple(
                painted, grid_options, name=f"{case.image.name} confidence"
            )
        else:
            name = request.names.get(request.region or 0, "background")
            map_tuple = similarity_tuple(
                painted, grid_options, name=f"{case.image.name} like {name}"
            )
        layer = self._find_map(case, request.question)
        if layer is None:
            active = self._viewer.layers.selection.active
            layer = self._viewer.add_image(map_tuple[0], **map_tuple[1])
            self._viewer.layers.selection.active = active
        else:
            layer.data, layer.name, layer.visible = (
                map_tuple[0],
                map_tuple[1]["name"],
                True,
            )
            self._viewer.layers.move(
                self._viewer.layers.index(layer), len(self._viewer.layers)
            )

    def _find_map(
        self, case: ScanCase, question: Question
    ) -> napari.layers.Image | None:
        for layer in self._viewer.layers:
            facts = layer_facts(layer)
            if (
                facts.get(EXPLAINS) == question
                and facts.get("scan_id") == case.image.unique_id
            ):
                return layer
        return None
