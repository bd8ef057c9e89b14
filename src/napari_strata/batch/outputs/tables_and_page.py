"""What a batch writes once all its scans are done: the tables, and the page made from them.

Outputs of a single scan are in `batch/one_scan.py`. The description of a BIDS derivative
data set is written before the first scan, by `run_batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_strata.batch.inputs.discovery import SkippedPath
from napari_strata.batch.outputs.page import write_page
from napari_strata.batch.outputs.results import ScanResult
from napari_strata.batch.outputs.tables import Collected, collect


def write_tables_and_page(
    results: Sequence[ScanResult],
    folder: str | Path,
    skipped: Sequence[SkippedPath] = (),
) -> tuple[Collected, Path]:
    """Write the tables and the page of a batch; return the tables, and the page's path.

    To add an output of the whole batch, write it here, and name its file in `names.py`.
    Call it under `only_writer`, so that no other batch writes meanwhile.

    Parameters
    ----------
    results : sequence of ScanResult
        From `run_batch`. Scans of earlier batches in the same folder are left out.
    folder : str or Path
        Folder of the outputs; earlier tables and an earlier page are replaced.
    skipped : sequence of SkippedPath
        What the search skipped, for failures.tsv.

    Raises
    ------
    WriteError
        If a file cannot be written, or another batch is writing to the folder.
    """
    tables = collect(results, folder, skipped)
    return tables, write_page(tables, folder)
