"""Jobs that run outside the GUI thread, as plain functions, and their progress (no Qt)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata.errors import Cancelled, ChoiceError
from napari_strata.export.base import ExportContext
from napari_strata.export.outputs import export_labels, only_regions
from napari_strata.filenames import printable
from napari_strata.gui.canvas.layers import LayerTuple, case_labels_tuple, image_tuple
from napari_strata.gui.tasks.compute import propose_for_window
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.session.recovery import Unfinished
from napari_strata.refine.session.refinement import Refinement
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Progress, Volume
from napari_strata.worker.tasks import PreparedProposal

Propose = Callable[..., Proposal | PreparedProposal]
"""Any function with the parameters of `napari_strata.pipeline.propose`."""


@dataclass(frozen=True, slots=True)
class ProgressStep:
    """Progress of a job: steps done, steps in all (0 if unknown), and the stage's name."""

    done: int = 0
    total: int = 0
    stage: str = ""


class JobProgress:
    """A progress callable that a worker thread writes, and the GUI thread reads and cancels."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._step = ProgressStep()

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Note the progress; raise `Cancelled` if the job was cancelled."""
        self._step = ProgressStep(done, total, stage)
        if self._cancelled.is_set():
            raise Cancelled("Cancelled; nothing was changed.")

    @property
    def step(self) -> ProgressStep:
        """The last progress noted."""
        return self._step

    @property
    def is_cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop the job at its next progress report.

        May be called from any thread, more than once.
        """
        self._cancelled.set()


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """A request for a proposal: scan and settings."""

    volume: Volume
    settings: ProposeSettings
    run: RunSettings
    tree: TreeName = "tissues"
    n: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A refinement with its labels layer, made outside the GUI thread.

    Parameters
    ----------
    work : Refinement
        What is edited, with its lookups made.
    layer : tuple
        Its labels as a layer tuple.
    """

    work: Refinement
    layer: LayerTuple


def opened(work: Refinement, on_progress: Progress) -> Opened:
    """Return a refinement with its lookups computed and its labels layer."""
    on_progress(1, 1, "Preparing the edits")
    work.view.prepare()
    on_progress(1, 1, "Painting the labels")
    return Opened(work, case_labels_tuple(work, name="regions"))


def propose_body(
    request: ProposalRequest, on_progress: Progress, *, propose: Propose | None = None
) -> Opened:
    """Return a new proposal as a refinement at the requested granularity.

    Parameters
    ----------
    request : ProposalRequest
        Scan and settings.
    on_progress : callable
        Raises `Cancelled` to stop.
    propose : callable or None
        Stands in for `propose_for_window`.
    """
    run = request.run
    found = (propose or propose_for_window)(
        request.volume,
        settings=request.settings,
        seed=run.seed,
        device=run.device,
        threads=run.threads,
        runtime=run.runtime,
        on_progress=on_progress,
    )
    on_progress(1, 1, "Cutting the tree")
    prepared = found if isinstance(found, PreparedProposal) else PreparedProposal(found)
    proposal = prepared.proposal
    n = proposal.as_proposed(request.tree) if request.n is None else request.n
    work = (
        Refinement(proposal, regions=n)
        if request.tree == "regions"
        else Refinement(proposal, tissues=n)
    )
    work.view.index.adopt_lookups(prepared.lookups)
    return opened(work, on_progress)


def export_body(
    work: Refinement,
    path: Path,
    on_progress: Progress,
    *,
    regions: Collection[int] | None = None,
) -> Path:
    """Write a case's labels in the format of the path's suffix.

    With `regions` only those are written. Returns the file's path, or the folder's if
    there are several files.

    Raises
    ------
    WriteError
        If it cannot be written; no file is left under a final name then.
    """
    on_progress(0, 1, f"Writing {printable(path.name)}")
    proposal = work.proposal
    known = ExportContext(
        work.proposal.volume, work.view.confidence[proposal.supervoxels]
    )
    segmentation = work.segmentation
    if regions is not None:
        segmentation = only_regions(segmentation, regions)
    return export_labels(
        segmentation, known, path, export_provenance(work), on_progress=on_progress
    )


def export_provenance(work: Refinement) -> dict[str, Any]:
    """Return the provenance of the labels: that of the proposal, the cut, and the edits."""
    return {
        **work.proposal.provenance,
        "tree": work.view.tree,
        "granularity": work.view.granularity,
        "edits": list(work.history),
    }


def resume_body(
    unfinished: Unfinished, volume: Volume, on_progress: Progress
) -> Opened:
    """Open unsaved work that was left behind."""
    on_progress(0, 1, "Opening the unfinished work")
    return opened(unfinished.resume(volume=volume), on_progress)


@dataclass(frozen=True, slots=True)
class ScanChoices:
    """The scans in a file or folder, each as a text and options of `read`."""

    options: tuple[tuple[str, Mapping[str, Any]], ...]


def scan_body(
    path: Path, options: Mapping[str, Any], on_progress: Progress
) -> LayerTuple | ScanChoices:
    """Read a scan as an image layer tuple.

    If the file holds several, return the choices instead. `options` are those of
    `read`.
    """
    from napari_strata.io.files import read

    on_progress(0, 0, f"Reading {printable(path.name)}")
    try:
        return image_tuple(read(path, **options))
    except ChoiceError as err:
        if not err.options:
            raise
        # napari would treat a returned exception as a raised one
        return ScanChoices(err.options)


def save_body(work: Refinement, path: Path, on_progress: Progress) -> Path:
    """Save a case and return its path."""
    on_progress(0, 1, f"Saving {printable(path.name)}")
    work.save(path)
    return path


def load_body(path: Path, volume: Volume, on_progress: Progress) -> Opened:
    """Open a case for the scan it was made on."""
    on_progress(0, 1, f"Opening {printable(path.name)}")
    return opened(Refinement.load(path, volume=volume), on_progress)
