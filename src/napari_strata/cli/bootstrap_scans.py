"""Scans of a folder as bootstrapped anatomies for `strata pretrain --scans`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_strata.cli.terminal import line_ended, print_skipped, progress
from napari_strata.errors import StrataError, WeightsError
from napari_strata.filenames import printable
from napari_strata.settings import RunSettings

if TYPE_CHECKING:
    from napari_strata.batch.inputs.scans import PlannedScan
    from napari_strata.encoder.pretraining.bootstrap import (
        BootstrappedPatches,
        BootstrappedScan,
    )

ANATOMIES_SUFFIX = ".anatomies"
"""Folder beside the weights that keeps the anatomies of the scans."""


def bootstrapped_patches(
    paths: Sequence[str], output: Path, *, threads: int = 0
) -> BootstrappedPatches:
    """Propose regions for each scan, keep them beside the weights, and cut patches from them.

    Scans that were prepared by an earlier run are not proposed again. A scan that cannot
    be read or proposed is left out with a note.

    Parameters
    ----------
    paths : sequence of str
        Scans, folders and lists, as for `strata batch`.
    output : Path
        Weights file of the run.
    threads : int
        CPU threads; 0 takes every core.

    Raises
    ------
    WeightsError
        If no scan can be used, or the run at `output` was begun with other scans.
    """
    from napari_strata.batch.inputs.plan import plan_batch
    from napari_strata.encoder.pretraining.bootstrap import (
        BootstrappedPatches,
        BootstrappedScan,
    )

    folder = output.with_suffix(ANATOMIES_SUFFIX)
    plan = plan_batch(list(paths))
    print_skipped(plan.skipped)
    named = {scan.id: folder / f"{scan.id}.npz" for scan in plan.scans}
    kept = set(folder.glob("*.npz"))
    if output.with_suffix(".state").exists() and kept != set(named.values()):
        raise WeightsError(
            f"{printable(output)} was begun with other scans, see {printable(folder)}."
            " Give the same ones to go on, or another output to start afresh."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for scan in plan.scans:
        path = named[scan.id]
        if not path.exists():
            try:
                _bootstrap(scan, threads).save(path)
            except StrataError as err:
                print(f"note: {printable(scan.path)}: {err}", file=sys.stderr)
    found = [path for path in sorted(named.values()) if path.exists()]
    if not found:
        raise WeightsError(
            "None of the scans can be used for pretraining. The notes above say why."
        )
    return BootstrappedPatches([BootstrappedScan.load(path) for path in found])


def _bootstrap(scan: PlannedScan, threads: int) -> BootstrappedScan:
    """Read and propose a scan."""
    from napari_strata.encoder.pretraining.bootstrap import (
        COARSER_CUTS,
        STRUCTURES,
        TISSUE_CLASSES,
        BootstrappedScan,
    )
    from napari_strata.io.files import read
    from napari_strata.pipeline import propose_with
    from napari_strata.settings import ProposeSettings

    print(printable(scan.path))
    settings = ProposeSettings()
    volume = read(
        scan.path, series=scan.series, index=scan.index, modality=scan.modality
    )
    with line_ended(progress(False)) as show:
        proposal = propose_with(
            volume, settings, RunSettings(threads=threads), on_progress=show
        )
    most = proposal.region_tree.max_regions
    return BootstrappedScan.prepare(
        volume,
        proposal.regions(min(STRUCTURES, most)).labels,
        proposal.tissues(min(TISSUE_CLASSES, most)).labels,
        [proposal.regions(n).labels for n in COARSER_CUTS if n < min(STRUCTURES, most)],
        name=scan.id,
        settings=settings,
    )
