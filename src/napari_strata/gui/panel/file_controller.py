"""What the export section does: labels and cases to files, and back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.layers import LayerTuple
from napari_strata.gui.panel.editing import reported
from napari_strata.gui.panel.exporting import ask_export_path, check_format
from napari_strata.gui.plugin.writers import check_scans_stay, open_files
from napari_strata.gui.session.open_cases import OpenCases
from napari_strata.gui.session.scan_case import Absorbed, ScanCase
from napari_strata.gui.tasks.jobs import JobRunner
from napari_strata.gui.tasks.worker import (
    Opened,
    Several,
    export_body,
    load_body,
    save_body,
    scan_body,
)
from napari_strata.gui.widgets.dialogs import ask_choice
from napari_strata.gui.widgets.sections import ExportSection
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import LABEL_SUFFIXES
from napari_strata.volume import Progress, Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer


class FileController:
    """Writes and opens files in a thread.

    Edits asked for meanwhile wait for the file, not the person.

    Parameters
    ----------
    section : ExportSection
        Is told what became of it.
    viewer : napari.viewer.Viewer
        Where a scan goes that was opened.
    jobs : JobRunner
        Does the work outside the GUI thread.
    cases : Cases
        Where a case goes that was opened.
    require_case : callable
        Gives the case in hand, or raises `StrataError`.
    """

    def __init__(
        self,
        section: ExportSection,
        viewer: napari.viewer.Viewer,
        jobs: JobRunner,
        *,
        cases: OpenCases,
        require_case: Callable[[], ScanCase],
    ) -> None:
        self._section = section
        self._viewer = viewer
        self._jobs = jobs
        self._cases = cases
        self._require_case = require_case
        self.opening: napari.layers.Image | None = None
        self._held: ScanCase | None = None
        jobs.running_changed.connect(self._on_running)

    @property
    def is_writing(self) -> bool:
        """Whether a file is being written."""
        return self._held is not None

    def ask_export(self, chosen_format: str) -> Path | None:
        """Ask where the labels in hand go.

        None where that was left, or where the format cannot be written.
        """
        path = None
        with self._reported():
            work = self._require_case().work
            check_format(chosen_format, work.proposal.volume)
            path = ask_export_path(
                self._section, work.proposal.volume, chosen_format, work.regions
            )
        return path

    def export_to(self, path: Path) -> None:
        """Write the labels in hand, in the format that the name ends in."""

        def body_of(case: ScanCase) -> Callable[[Progress], Path]:
            check_scans_stay(path, case.work.regions, open_files(self._viewer))
            case.check_place()
            return partial(export_body, case.work, path)

        self._write(body_of, self._on_exported)

    def save_to(self, path: Path) -> None:
        """Save the case in hand."""

        def body_of(case: ScanCase) -> Callable[[Progress], Path]:
            check_scans_stay(path, (), open_files(self._viewer))
            return partial(save_body, case.work, path)

        self._write(body_of, self._on_saved)

    def open_case(
        self, path: Path, image: napari.layers.Image | None, volume: Volume | None
    ) -> None:
        """Open a case of a scan."""
        with reported():
            if volume is None or image is None:
                raise StrataError(
                    "Open the scan that the case belongs to first, or drop the case"
                    " file on the canvas."
                )
            self._jobs.start(
                partial(load_body, path, volume), partial(self._on_opened, image)
            )
            self.opening = image

    def open_scan(self, path: Path, **options: Any) -> None:
        """Read a scan and add it to the viewer.

        Asks which one where there are several (`options` of `read`).
        """
        with reported():
            self._jobs.start(
                partial(scan_body, path, options), partial(self._on_scan, path)
            )

    def _write(
        self,
        body_of: Callable[[ScanCase], Callable[[Progress], Path]],
        on_done: Callable[[ScanCase, tuple[str, ...], Path], None],
    ) -> None:
        """Write a file once all edits that were asked for are done.

        With what other tools wrote in the layer.
        """
        with self._reported():
            case = self._require_case()
            case.keep_our_array()
            # what is written is what stood there when it was asked for: the queue is
            # paused before a later edit starts
            case.queue.submit(
                case.absorb,
                partial(self._begin, case, body_of, on_done),
                case.queue.resume,
                pauses=True,
            )

    def _begin(
        self,
        case: ScanCase,
        body_of: Callable[[ScanCase], Callable[[Progress], Path]],
        on_done: Callable[[ScanCase, tuple[str, ...], Path], None],
        absorbed: Absorbed,
    ) -> None:
        """Start to write what stands there.

        The queue is paused, and goes on when that is done or cannot be started.
        """
        with self._reported():
            try:
                case.show_absorbed(absorbed)
                history = case.work.history
                self._jobs.start(
                    body_of(case),
                    lambda written: on_done(case, history, written),
                    writes=True,
                    on_fail=self._section.show_result,
                )
            except BaseException:
                case.queue.resume()
                raise
            self._held = case
            self._section.show_result("")

    def _on_running(self, running: bool) -> None:
        if not running:
            self.opening = None
            held, self._held = self._held, None
            if held is not None:
                held.queue.resume()

    def _on_opened(self, image: napari.layers.Image, opened: Opened) -> None:
        self._cases.adopt(image, opened.work, made=opened.layer)
        if (case := self._cases.of(image)) is not None:
            case.note_saved(opened.work.history)

    def _on_scan(self, path: Path, made: LayerTuple | Several) -> None:
        if isinstance(made, Several):
            options = ask_choice(self._section, path, made.options)
            if options is not None:
                self.open_scan(path, **options)
            return
        data, kwargs, _ = made
        self._viewer.add_image(data, **kwargs)

    def _on_exported(
        self, case: ScanCase, history: tuple[str, ...], written: Path
    ) -> None:
        beside = (
            ", with its region table beside it"
            if file_suffix(written) in LABEL_SUFFIXES
            else ""
        )
        self._tell(f"Wrote {written}{beside}.")

    def _on_saved(
        self, case: ScanCase, history: tuple[str, ...], written: Path
    ) -> None:
        case.note_saved(history)
        self._tell(f"Saved {written}.")

    def _tell(self, what: str) -> None:
        self._section.show_result(what)
        show_info(what)

    @contextmanager
    def _reported(self) -> Generator[None]:
        """Turn our own errors into a notification, and say the same in the panel.

        Where it stays.
        """
        with reported():
            try:
                yield
            except StrataError as err:
                self._section.show_result(str(err))
                raise
