"""Controller of the export section: writes and opens labels, cases and scans."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info

from napari_strata.errors import StrataError
from napari_strata.export.outputs import outputs_beside
from napari_strata.gui.canvas.layers import LayerTuple
from napari_strata.gui.canvas.scan_files import check_keeps_scans, open_scan_files
from napari_strata.gui.panel.scan_controller import ScanController
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.session.outside_edits import Absorbed
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.tasks.worker import (
    Opened,
    ScanChoices,
    export_body,
    load_body,
    save_body,
    scan_body,
)
from napari_strata.gui.widgets.dialogs import (
    ask_case_path,
    ask_choice,
    ask_open_path,
    ask_scan_folder,
    ask_scan_path,
    with_path,
)
from napari_strata.gui.widgets.export_dialog import (
    ExportChoice,
    ExportScopes,
    ask_export,
    check_format,
)
from napari_strata.gui.widgets.sections import ExportSection
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import LABEL_SUFFIXES
from napari_strata.volume import Progress

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class FileController:
    """Writes and opens files in a thread.

    Edits that are requested meanwhile wait until the file is written. The window stays
    usable.

    Parameters
    ----------
    section : ExportSection
        Shows what was written, or why nothing was.
    viewer : napari.viewer.Viewer
        Opened scans are added to it.
    jobs : JobRunner
        Runs jobs outside the GUI thread.
    cases : OpenCases
        Opened cases are added to them.
    scans : ScanController
        Has the scan in hand.
    selected : callable
        Returns the selected regions.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    send_cut : callable
        Submits the slider's last cut, so that the file holds it.
    """

    def __init__(
        self,
        section: ExportSection,
        viewer: napari.viewer.Viewer,
        jobs: JobRunner,
        *,
        cases: OpenCases,
        scans: ScanController,
        selected: Callable[[], Sequence[int]],
        require_case: Callable[[], ScanCase],
        send_cut: Callable[[], None],
    ) -> None:
        self._section = section
        self._viewer = viewer
        self._jobs = jobs
        self._cases = cases
        self._scans = scans
        self._selected = selected
        self._require_case = require_case
        self._send_cut = send_cut
        self.opening: napari.layers.Image | None = None
        self._writing: ScanCase | None = None
        jobs.running_changed.connect(self._on_running)
        section.export_asked.connect(
            lambda name: self._export_chosen(self.ask_export(name))
        )
        section.save_asked.connect(
            lambda: with_path(ask_case_path(section, scans.volume), self.save_to)
        )
        section.open_asked.connect(
            lambda: with_path(ask_open_path(section), self.open_case)
        )

    @property
    def is_writing(self) -> bool:
        """Whether a file is being written."""
        return self._writing is not None

    def ask_scan(self) -> None:
        """Ask for a scan file, and open it."""
        with_path(ask_scan_path(self._section), self.open_scan)

    def ask_folder(self) -> None:
        """Ask for a folder of DICOM files, and open it."""
        with_path(ask_scan_folder(self._section), self.open_scan)

    def ask_export(self, chosen_format: str) -> ExportChoice | None:
        """Ask what to export where; None if it is cancelled or cannot be written."""
        choice = None
        with self._notify_errors():
            case = self._require_case()
            work = case.work
            check_format(chosen_format, work.proposal.volume)
            shown = frozenset(row.id for row in work.regions) - case.painter.hidden
            scopes = ExportScopes(work.regions, frozenset(self._selected()), shown)
            choice = ask_export(
                self._section, work.proposal.volume, chosen_format, scopes
            )
        return choice

    def _export_chosen(self, choice: ExportChoice | None) -> None:
        if choice is not None:
            self.export_to(choice.path, choice.regions)

    def export_to(self, path: Path, regions: frozenset[int] | None = None) -> None:
        """Write the labels in hand, or some regions, in the format of the file's suffix."""

        def make_body(case: ScanCase) -> Callable[[Progress], Path]:
            check_keeps_scans(path, case.work.regions, open_scan_files(self._viewer))
            case.check_place()
            return partial(export_body, case.work, path, regions=regions)

        self._write(make_body, partial(self._on_exported, regions))

    def save_to(self, path: Path) -> None:
        """Save the case in hand."""

        def make_body(case: ScanCase) -> Callable[[Progress], Path]:
            check_keeps_scans(path, (), open_scan_files(self._viewer))
            return partial(save_body, case.work, path)

        self._write(make_body, self._on_saved)

    def open_case(self, path: Path) -> None:
        """Open a case of the scan in hand."""
        image, volume = self._scans.image, self._scans.volume
        with notify_errors():
            if volume is None or image is None:
                raise StrataError(
                    "Open the scan that the case belongs to first, or drop the case"
                    " file on the canvas."
                )
            self._jobs.start(
                partial(load_body, path, volume),
                partial(self._on_opened, image),
                place="export",
            )
            self.opening = image

    def open_scan(self, path: Path, **options: Any) -> None:
        """Read a scan and add it to the viewer; ask which one if there are several.

        `options` are those of `read`.
        """
        with notify_errors():
            self._jobs.start(
                partial(scan_body, path, options), partial(self._on_scan, path)
            )

    def _write(
        self,
        make_body: Callable[[ScanCase], Callable[[Progress], Path]],
        on_done: Callable[[ScanCase, tuple[str, ...], Path], None],
    ) -> None:
        """Write a file once all edits that were asked for are done.

        It includes what other tools wrote in the layer.
        """
        self._send_cut()
        with self._notify_errors():
            case = self._require_case()
            case.outside_edits.restore_shape()
            # The file contains all edits so far: the queue is paused before a later edit
            # starts.
            case.queue.submit(
                case.outside_edits.absorb,
                partial(self._begin, case, make_body, on_done),
                case.queue.resume,
                pauses=True,
            )

    def _begin(
        self,
        case: ScanCase,
        make_body: Callable[[ScanCase], Callable[[Progress], Path]],
        on_done: Callable[[ScanCase, tuple[str, ...], Path], None],
        absorbed: Absorbed,
    ) -> None:
        """Start to write the case as it is now.

        The queue is paused; it resumes when the file is written or cannot be started.
        """
        with self._notify_errors():
            try:
                case.outside_edits.show_absorbed(absorbed)
                history = case.work.history
                self._jobs.start(
                    make_body(case),
                    lambda written: on_done(case, history, written),
                    writes=True,
                    place="export",
                    on_fail=self._section.show_result,
                )
            except BaseException:
                case.queue.resume()
                raise
            self._writing = case
            self._section.show_result("")

    def _on_running(self, running: bool) -> None:
        if not running:
            self.opening = None
            written, self._writing = self._writing, None
            if written is not None:
                written.queue.resume()

    def _on_opened(self, image: napari.layers.Image, opened: Opened) -> None:
        self._cases.adopt(image, opened.work, layer_tuple=opened.layer)
        if (case := self._cases.of(image)) is not None:
            case.note_saved(opened.work.history)

    def _on_scan(self, path: Path, result: LayerTuple | ScanChoices) -> None:
        if isinstance(result, ScanChoices):
            options = ask_choice(self._section, path, result.options)
            if options is not None:
                self.open_scan(path, **options)
            return
        data, kwargs, _ = result
        self._scans.choose_and_show(self._viewer.add_image(data, **kwargs))

    def _on_exported(
        self,
        regions: frozenset[int] | None,
        case: ScanCase,
        history: tuple[str, ...],
        written: Path,
    ) -> None:
        has_table = outputs_beside(written).sidecar.exists()
        is_volume = file_suffix(written) in LABEL_SUFFIXES and has_table
        beside = ", with its region table beside it" if is_volume else ""
        rows = case.work.regions
        number = sum(row.id in regions for row in rows) if regions is not None else 0
        some = "" if regions is None else f"{number} of {len(rows)} regions to "
        self._report(f"Wrote {some}{written}{beside}.")

    def _on_saved(
        self, case: ScanCase, history: tuple[str, ...], written: Path
    ) -> None:
        case.note_saved(history)
        self._report(f"Saved {written}.")

    def _report(self, text: str) -> None:
        self._section.show_result(text)
        show_info(text)

    @contextmanager
    def _notify_errors(self) -> Generator[None]:
        """Show our own errors as a notification, and in the panel, where they stay."""
        with notify_errors():
            try:
                yield
            except StrataError as err:
                self._section.show_result(str(err))
                raise
