"""The region table for a spreadsheet or a script: one row per region, the unit in each column's name."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from napari_strata.io.atomic import atomic_path
from napari_strata.measure import RegionMeasure
from napari_strata.volume import Modality

Cell = int | float | str | None
"""A value of the table; None where a region without voxels has no statistic."""

_INTENSITIES = ("mean", "sd", "minimum", "p5", "median", "p95", "maximum")
_PLACES = ("centroid_r_mm", "centroid_a_mm", "centroid_s_mm", "z_start", "y_start", "x_start", "z_stop", "y_stop", "x_stop")


def table_columns(modality: Modality) -> tuple[str, ...]:
    """Name the columns of the region table: CT intensities are in HU and say so ("mean_hu"), MR ones have no unit ("mean")."""
    unit = "_hu" if modality == "ct" else ""
    return ("id", "name", "voxels", "volume_ml", *(name + unit for name in _INTENSITIES), *_PLACES)


def table_rows(measures: Sequence[RegionMeasure], modality: Modality) -> list[dict[str, Cell]]:
    """Give the region table as plain rows, fit for JSON.

    Parameters
    ----------
    measures : sequence of RegionMeasure
        What `measure_regions` gives.
    modality : {"ct", "mr"}
        Decides the units in the column names.

    Returns
    -------
    list of dict
        One row per region, keyed by `table_columns`: size, intensity statistics, centre of mass in RAS+ mm and the half
        open bounding box in array indices. Numbers carry six digits; None where a region has no voxel.
    """
    columns = table_columns(modality)
    return [dict(zip(columns, _cells(measure), strict=True)) for measure in measures]


def _cells(measure: RegionMeasure) -> list[Cell]:
    numbers = [measure.volume_ml, *(getattr(measure, name) for name in _INTENSITIES), *measure.centroid_ras_mm]
    box = (*measure.box_start_zyx, *measure.box_stop_zyx)
    return [measure.id, measure.name, measure.voxels, *(None if math.isnan(x) else float(f"{x:.6g}") for x in numbers), *box]


def write_table(measures: Sequence[RegionMeasure], path: str | Path, *, modality: Modality) -> None:
    """Write the region table as CSV (UTF-8, comma, decimal point).

    Parameters
    ----------
    measures : sequence of RegionMeasure
        What `measure_regions` gives.
    path : str or Path
        The file; it is written under a temporary name and then renamed.
    modality : {"ct", "mr"}
        Decides the units in the column names.

    Raises
    ------
    WriteError
        If the file cannot be written; nothing stands under its name then.
    """
    with atomic_path(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table_columns(modality), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table_rows(measures, modality))


def is_table(path: str | Path) -> bool:
    """Say whether a CSV file is a region table, by its first line."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return tuple(header) in {table_columns("ct"), table_columns("mr")}
