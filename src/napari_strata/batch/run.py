"""Propose regions for one scan after another; go on past failures, and pass over what is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_strata.batch.plan import PlannedScan
from napari_strata.errors import Cancelled, SettingsError, StrataError, WriteError
from napari_strata.export.outputs import Outputs, outputs_beside, read_sidecar, write_outputs
from napari_strata.io.files import hash_file, read
from napari_strata.pipeline import check_weights, encoder_in_use, propose
from napari_strata.proposal.codebook import Codebook, check_encoder
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Modality, Progress, no_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done with every scan of a batch.

    Parameters
    ----------
    tree : {"tissues", "regions"}
        Which tree is cut.
    n : int
        Into how many tissues or regions; at least 1.
    settings : ProposeSettings
        Knobs of the proposal.
    run : RunSettings
        Device, threads and seed.
    modality : {"ct", "mr"} or None
        How to read intensities, where the scans do not say.
    weights : Path or None
        Another encoder than the shipped one; see `propose`.
    codebook : Codebook or None
        Gives every scan the same tissue numbers; `tree` and `n` are then "tissues" and the codebook's.

    Raises
    ------
    SettingsError
        If `n` is less than 1, `tree` and `n` are not the codebook's, or weights are given to a method without an encoder.
    """

    tree: Literal["tissues", "regions"]
    n: int
    settings: ProposeSettings = field(default_factory=ProposeSettings)
    run: RunSettings = field(default_factory=RunSettings)
    modality: Modality | None = None
    weights: Path | None = None
    codebook: Codebook | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SettingsError(f"Asked for {self.n} {self.tree}. Ask for at least 1.")
        if self.codebook is not None and (self.tree, self.n) != ("tissues", self.codebook.n):
            raise SettingsError(f"Asked for {self.n} {self.tree}, but the codebook has {self.codebook.n} tissues. Ask for those.")
        check_weights(self.settings, self.weights)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What became of one scan.

    Parameters
    ----------
    scan : PlannedScan
        The scan.
    outputs : Outputs
        Its labels, sidecar and table; where `status` is "failed" they are missing, or left from an earlier run.
    status : {"done", "kept", "failed"}
        "kept": what an earlier run made still stands.
    reason : str
        Why it failed, in one line; "" otherwise.
    warning : str
        That it does not fit the codebook; "" otherwise.
    """

    scan: PlannedScan
    outputs: Outputs
    status: Literal["done", "kept", "failed"]
    reason: str = ""
    warning: str = ""


def run_batch(
    scans: Sequence[PlannedScan], folder: str | Path, recipe: Recipe, *, on_progress: Progress = no_progress
) -> tuple[ScanResult, ...]:
    """Propose regions for every scan, one after another in this process, and write them to a folder.

    Each scan gives ID_labels.nii.gz on its own grid, with ID_labels.json and ID_labels.csv. A scan is passed over where
    all three stand and the sidecar names the same file contents, settings, seed, weights, cut, modality and series.
    The device, the number of threads and Strata's version are not compared. Parallel and cluster runs come with a later
    version.

    Parameters
    ----------
    scans : sequence of PlannedScan
        From `plan_scans`.
    folder : str or Path
        Where the outputs go; it is made if need be.
    recipe : Recipe
        The same for all.
    on_progress : callable
        Called as (scans done, scans, "ID: stage"); raise `Cancelled` in it to stop. What is done stays.

    Returns
    -------
    tuple of ScanResult
        One per scan, in order. A scan that cannot be read, proposed or written is "failed", and the rest goes on.

    Raises
    ------
    WriteError
        If the folder cannot be made.
    WeightsError, SettingsError, CodebookError
        If the weights, the device or the codebook cannot be used for any scan.
    Cancelled
        From `on_progress`.
    """
    _check_encoder(recipe)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise WriteError(f"Cannot make the folder {target}: {err.strerror}. Choose another one.") from err
    results = []
    for number, scan in enumerate(scans):

        def show(done: int, total: int, stage: str, number: int = number, scan: PlannedScan = scan) -> None:
            if stage != "done":  # the proposal is, the scan is not
                on_progress(number, len(scans), f"{scan.id}: {stage}")

        show(0, 1, "looking for earlier results")
        results.append(_run_one(scan, outputs_beside(target / f"{scan.id}_labels.nii.gz"), recipe, show))
    on_progress(len(scans), len(scans), "done")
    return tuple(results)


def _check_encoder(recipe: Recipe) -> None:
    """Fail at once where every scan would, without loading torch for a method that has no encoder."""
    if recipe.settings.method != "gmm-mrf":
        from napari_strata.encoder.bring import open_encoder
        from napari_strata.encoder.network import pick_device

        open_encoder(recipe.weights)
        pick_device(recipe.run.device)
    if recipe.codebook is not None:
        check_encoder(recipe.codebook, encoder_in_use(recipe.settings, recipe.weights))


def _run_one(scan: PlannedScan, outputs: Outputs, recipe: Recipe, on_progress: Progress) -> ScanResult:
    try:
        if _stands(scan, outputs, recipe):
            return ScanResult(scan, outputs, "kept")
        warning = _make(scan, outputs, recipe, on_progress)
    except Cancelled:
        raise
    except StrataError as err:
        reason = " ".join(str(err).split())
    except MemoryError:
        reason = f"{scan.path} needs more memory than there is. Lower memory_gb or supervoxels, or run it on a larger machine."
    else:
        return ScanResult(scan, outputs, "done", warning=warning)
    logger.warning("%s failed: %s", scan.id, reason)
    return ScanResult(scan, outputs, "failed", reason)


def _asked(scan: PlannedScan, recipe: Recipe) -> dict[str, Any]:
    """Give what decides the labels besides the scan itself, as the sidecar keeps it."""
    batch: dict[str, Any] = {"id": scan.id, "series": scan.series, "modality": recipe.modality, "seed": recipe.run.seed}
    if recipe.codebook is not None:
        batch["codebook"] = recipe.codebook.sha256
    return {
        "settings": recipe.settings.to_dict(),
        "cut": {recipe.tree: recipe.n},
        "weights_sha256": encoder_in_use(recipe.settings, recipe.weights),
        "batch": batch,
    }


def _stands(scan: PlannedScan, outputs: Outputs, recipe: Recipe) -> bool:
    """Say whether an earlier run made just this, from the same file."""
    document = read_sidecar(outputs.sidecar)
    if document is None or not (outputs.labels.is_file() and outputs.table.is_file()):
        return False
    same = all(document.get(key) == value for key, value in _asked(scan, recipe).items())
    return same and bool(document["scan"]["sha256"] == hash_file(scan.path))


def _make(scan: PlannedScan, outputs: Outputs, recipe: Recipe, on_progress: Progress) -> str:
    """Propose one scan and write it; give the warning that it does not fit the codebook, or ""."""
    begun = time.perf_counter()
    on_progress(0, 1, "reading")
    volume = read(scan.path, series=scan.series, modality=recipe.modality)
    read_seconds = round(time.perf_counter() - begun, 2)
    proposal = propose(
        volume,
        settings=recipe.settings,
        seed=recipe.run.seed,
        device=recipe.run.device,
        threads=recipe.run.threads,
        weights=recipe.weights,
        on_progress=on_progress,
    )
    said = {**proposal.provenance, **_asked(scan, recipe), "seconds": {"read": read_seconds, **proposal.provenance["seconds"]}}
    warning = ""
    if recipe.codebook is not None:
        assigned = recipe.codebook.apply(proposal)
        segmentation = assigned.segmentation(proposal)
        said["codebook"] = {"sha256": recipe.codebook.sha256, **assigned.record()}
        warning = assigned.warning()
    else:
        segmentation = proposal.tissues(recipe.n) if recipe.tree == "tissues" else proposal.regions(recipe.n)
    on_progress(0, 1, "writing")
    write_outputs(segmentation, volume, outputs.labels, said)
    return warning
