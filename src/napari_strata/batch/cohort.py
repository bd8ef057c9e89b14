"""Two passes over a cohort: fit a codebook to a sample, then label every scan with it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.one_scan import proposal_of
from napari_strata.batch.outputs.names import (
    BIDS_LABELS_STEM,
    COHORT_CODEBOOK,
    LABELS_STEM,
)
from napari_strata.batch.outputs.results import ScanResult
from napari_strata.batch.recipe import Recipe
from napari_strata.batch.workers.local import FITTING, SAMPLING, Executor, LogEvent
from napari_strata.deprecated import moved_names
from napari_strata.errors import Cancelled, CodebookError, StrataError, WriteError
from napari_strata.export.outputs import read_sidecar
from napari_strata.io.files import read
from napari_strata.pipeline import encoder_in_use
from napari_strata.proposal.codebook.codebook import (
    Codebook,
    fewest_supervoxels,
    fit_codebook,
)
from napari_strata.proposal.codebook.cohort_table import CohortTable, cohort_table
from napari_strata.volume import Progress, no_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CohortTableResult:
    """What the codebook needs of a scan, or why it cannot be had."""

    table: CohortTable | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CohortTableTask:
    """Task of the first pass: propose a scan, keep what a codebook needs of it.

    Parameters
    ----------
    recipe : Recipe
        Its settings are used; its cut is not.
    """

    recipe: Recipe

    def __call__(
        self, scan: PlannedScan, on_progress: Progress = no_progress
    ) -> CohortTableResult:
        """Return the cohort table of a scan, or the reason why there is none."""
        try:
            volume = read(
                scan.path,
                index=scan.index,
                series=scan.series,
                modality=scan.modality or self.recipe.modality,
            )
            with threadpool_limits(self.recipe.threads):
                table = cohort_table(proposal_of(volume, self.recipe, on_progress))
        except Cancelled:
            raise
        except StrataError as err:
            return CohortTableResult(None, " ".join(str(err).split()))
        except MemoryError:
            return CohortTableResult(
                None, f"{scan.path} needs more memory than there is."
            )
        # the second pass fails too, and keeps the traceback
        except Exception as err:  # noqa: BLE001
            return CohortTableResult(
                None, f"Unexpected {type(err).__name__}: {' '.join(str(err).split())}."
            )
        n_supervoxels = int(table.body.sum())
        n_needed = fewest_supervoxels(self.recipe.n)
        if n_supervoxels < n_needed:
            return CohortTableResult(
                None,
                f"{scan.path} has {n_supervoxels} supervoxels in the body; a codebook of"
                f" {self.recipe.n} tissues needs {n_needed}.",
            )
        return CohortTableResult(table)


def sample_of(
    scans: Sequence[PlannedScan], count: int, seed: int
) -> tuple[PlannedScan, ...]:
    """Return scans drawn at random, the same ones for the same seed.

    Every subject is drawn once before any is drawn twice; the order is that of the
    scans.
    """
    shuffled = sorted(
        range(len(scans)),
        key=lambda k: hashlib.sha256(f"{seed}|{scans[k].id}".encode()).hexdigest(),
    )
    times_drawn: dict[str, int] = {}
    ranks: list[tuple[int, int, int]] = []
    for k in shuffled:
        subject = scans[k].subject or scans[k].id
        times_drawn[subject] = times_drawn.get(subject, 0) + 1
        ranks.append((times_drawn[subject], len(ranks), k))
    return tuple(scans[k] for k in sorted(k for _, _, k in sorted(ranks)[:count]))


def kept_codebook(
    folder: Path, recipe: Recipe, count: int, *, refit: bool = False
) -> Codebook | None:
    """Return the codebook that an earlier run fitted in this folder with this recipe.

    It is kept when scans are added later, so that they get the same tissues.

    Parameters
    ----------
    folder : Path
        Output folder.
    recipe : Recipe
        Its `n` is the number of tissues.
    count : int
        Number of scans to fit it to.
    refit : bool
        Whether a codebook that was fitted differently may be replaced.

    Returns
    -------
    Codebook or None
        None if a codebook has to be fitted.

    Raises
    ------
    CodebookError
        If the file there was not fitted by a batch, is damaged, or was fitted
        differently and `refit` is False: with another codebook every number would mean
        another tissue.
    """
    path = folder / COHORT_CODEBOOK
    if not path.is_file():
        return None
    codebook = Codebook.load(path)
    if not isinstance(codebook.about.get("batch"), dict):
        raise CodebookError(
            f"{path} was not fitted by a batch, and would be replaced. Move it, or use"
            " it with --codebook."
        )
    fitted, current = _codebook_record(codebook), _recipe_record(recipe, count)
    differences = [
        f"{key} {fitted[key]} (now {current[key]})"
        for key in current
        if key in fitted and fitted[key] != current[key]
    ]
    if not differences:
        return codebook
    if refit:
        return None
    raise CodebookError(
        f"{path} was fitted with {', '.join(differences)}. With another"
        " codebook every number would mean another tissue. Use the same values, choose"
        " another folder, or add --refit-codebook: a new codebook is then fitted, and"
        " all labels are made again with it."
    )


def _codebook_record(codebook: Codebook) -> dict[str, Any]:
    """Return how a codebook was fitted, with the keys of `_recipe_record`."""
    about = codebook.about
    batch, settings = about["batch"], about.get("settings")
    record = {
        "tissues": codebook.n,
        "seed": about.get("seed"),
        "sample": batch.get("sample"),
        "modality": batch.get("modality"),
    }
    return (
        record
        | {"encoder": _mark(codebook.weights_sha256)}
        | (settings if isinstance(settings, dict) else {})
    )


def _recipe_record(recipe: Recipe, count: int) -> dict[str, Any]:
    encoder = _mark(encoder_in_use(recipe.settings, recipe.weights))
    record = {
        "tissues": recipe.n,
        "seed": recipe.run.seed,
        "sample": count,
        "modality": recipe.modality,
        "encoder": encoder,
    }
    return record | recipe.settings.to_dict()


def _mark(sha256: str | None) -> str:
    return (sha256 or "none")[:12]


def archive_codebook(folder: Path) -> Path | None:
    """Rename the codebook in a folder, by its hash; return None if there is none.

    Raises
    ------
    WriteError
        If it cannot be renamed.
    """
    path = folder / COHORT_CODEBOOK
    if not path.is_file():
        return None
    kept = path.with_name(f"{path.stem}-{Codebook.load(path).sha256[:12]}{path.suffix}")
    try:
        path.rename(kept)
    except FileExistsError:  # Windows: the same codebook was renamed before
        path.unlink()
    except OSError as err:
        raise WriteError(
            f"Cannot rename {path}: {err.strerror}. Move it away."
        ) from err
    return kept


def cohort_codebook(
    chosen: Sequence[PlannedScan],
    folder: Path,
    recipe: Recipe,
    executor: Executor,
    *,
    count: int,
    log_event: LogEvent,
    on_progress: Progress,
) -> Codebook:
    """Fit a codebook to a sample of the scans, and save it in the folder.

    An earlier codebook there is renamed.

    Parameters
    ----------
    chosen : sequence of PlannedScan
        The sample; see `sample_of`. Scans that cannot be read are left out.
    folder : Path
        Output folder.
    recipe : Recipe
        Its `n` is the number of tissues.
    executor : Executor
        Runs the first pass.
    count : int
        Number of scans asked for; there may be fewer. See `kept_codebook`.
    log_event : callable
        Writes events to the log.
    on_progress : callable
        Called during the first pass.

    Raises
    ------
    CodebookError
        If no scan of the sample can be used, or it mixes CT and MR.
    WriteError
        If the codebook cannot be saved.
    """
    path = folder / COHORT_CODEBOOK
    tables: dict[int, CohortTable] = {}
    on_progress(0, len(chosen), SAMPLING)
    for outcome in executor.run(CohortTableTask(recipe), chosen, on_progress):
        result = outcome.value or CohortTableResult(None, outcome.reason)
        if result.table is None:
            log_event(
                "left out of the codebook",
                scan=chosen[outcome.number].id,
                reason=result.reason,
            )
            logger.warning(
                "%s is left out of the codebook: %s",
                chosen[outcome.number].id,
                result.reason,
            )
        else:
            tables[outcome.number] = result.table
    if not tables:
        raise CodebookError(
            f"None of the {len(chosen)} scans chosen for the codebook can be read."
            " Check the scans, or choose more."
        )
    on_progress(len(chosen), len(chosen), FITTING)
    order = sorted(tables)
    by_modality = {tables[k].modality: chosen[k] for k in order}
    if len(by_modality) > 1:
        raise CodebookError(
            "The scans chosen for the codebook are not of one kind:"
            f" {by_modality['ct'].path} is read as CT and {by_modality['mr'].path} as"
            " MR. Run CT and MR separately, into two folders, or set --modality for"
            " all."
        )
    with threadpool_limits(recipe.threads):
        fitted = fit_codebook(
            [tables[k] for k in order], tissues=recipe.n, seed=recipe.run.seed
        )
    batch = {
        "sample": count,
        "modality": recipe.modality,
        "scans": [chosen[k].id for k in order],
    }
    codebook = replace(fitted, about={**fitted.about, "batch": batch})
    earlier = archive_codebook(folder)
    if earlier is not None:
        log_event("earlier codebook put aside", path=str(earlier))
    codebook.save(path)
    log_event("codebook fitted", path=str(path), scans=batch["scans"])
    return codebook


def other_numbers(folder: Path, results: Sequence[ScanResult]) -> list[str]:
    """Return the names of labels in a folder that have another codebook's numbers.

    Labels of scans that are part of the run are not listed.

    Parameters
    ----------
    folder : Path
        Output folder.
    results : sequence of ScanResult
        Results of the run.
    """
    own = {result.outputs.sidecar for result in results}
    made = [
        result.outputs.sidecar
        for result in results
        if result.status != "failed" and result.measured is None
    ]
    documents = [read_sidecar(path) or {} for path in made]
    shared = {
        document["codebook"]["sha256"]
        for document in documents
        if "codebook" in document
    }
    if not shared:
        return []
    names = []
    for path in sorted(
        (
            *folder.rglob(f"*{LABELS_STEM}.json"),
            *folder.rglob(f"*{BIDS_LABELS_STEM}.json"),
        )
    ):
        if path not in own and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            codebook = (read_sidecar(path) or {}).get("codebook")
            if codebook and codebook.get("sha256") not in shared:
                names.append(path.stem)
    return names


__getattr__ = moved_names("batch.cohort")
