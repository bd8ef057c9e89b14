"""The region table for a spreadsheet or a script.

One row per region, the unit in each column's name.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from napari_strata.errors import WriteError
from napari_strata.filenames import ESCAPED
from napari_strata.io.atomic import atomic_path, file_suffix
from napari_strata.measure import RegionAgreement, RegionMeasure
from napari_strata.volume import Modality

Cell = int | float | str | None
"""A value of the table; None where a region without voxels has no statistic."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Endings of region tables; Parquet needs the extra `parquet`."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FIRST = ("id", "name", "voxels", "volume_ml")
_INTENSITIES = ("mean", "sd", "minimum", "p5", "p25", "median", "p75", "p95", "maximum")
_PLACES = (
    "centroid_r_mm",
    "centroid_a_mm",
    "centroid_s_mm",
    "z_start",
    "y_start",
    "x_start",
    "z_stop",
    "y_stop",
    "x_stop",
)
_BOX = tuple(f"box_{axis}_{end}_mm" for end in ("min", "max") for axis in "ras")
_WHOLE = (
    "id",
    "voxels",
    "z_start",
    "y_start",
    "x_start",
    "z_stop",
    "y_stop",
    "x_stop",
    "reference_voxels",
)
_TEXT = ("name",)


def table_columns(modality: Modality | None) -> tuple[str, ...]:
    """Name the columns of the region table.

    CT intensities are in HU and say so ("mean_hu"), MR ones have no unit ("mean");
    without a scan (None) there are none.
    """
    unit = "_hu" if modality == "ct" else ""
    seen = tuple(name + unit for name in _INTENSITIES) if modality else ()
    return (*_FIRST, "surface_mm2", *seen, *_PLACES, *_BOX, "confidence")


def agreement_columns(tolerance_mm: float) -> tuple[str, ...]:
    """Name the columns that a reference adds; the tolerance stands in a name ("nsd_at_2mm")."""
    return (
        "reference_voxels",
        "dice",
        "hd95_mm",
        f"nsd_at_{tolerance_mm:g}mm",
        "volume_difference_ml",
        "volume_difference_percent",
    )


def table_rows(
    measures: Sequence[RegionMeasure],
    modality: Modality | None,
    agreements: Sequence[RegionAgreement] = (),
) -> list[dict[str, Cell]]:
    """Give the region table as plain rows, fit for JSON.

    Parameters
    ----------
    measures : sequence of RegionMeasure
        What `measure_regions` gives.
    modality : {"ct", "mr"} or None
        Decides the units in the column names; None leaves the intensities out.
    agreements : sequence of RegionAgreement
        What `agree` gives for the same regions; regions that only the reference has get
        rows of their own, at the end.

    Returns
    -------
    list of dict
        One row per region, keyed by `table_columns` and `agreement_columns`: size,
        intensity statistics, centre of mass in RAS+ mm, the half open bounding box in
        array indices and the box in RAS+ mm. Numbers carry six digits; None where there
        is no such number (a region without voxels, an infinite distance).
    """
    columns = table_columns(modality)
    rows = [
        dict(zip(columns, _cells(measure, modality), strict=True))
        for measure in measures
    ]
    if not agreements:
        return rows
    compared = {one.id: one for one in agreements}
    own = {measure.id for measure in measures}
    empty = dict.fromkeys(columns)
    rows += [
        {**empty, "id": one.id, "name": one.name, "voxels": 0, "volume_ml": 0.0}
        for one in agreements
        if one.id not in own
    ]
    added = agreement_columns(agreements[0].tolerance_mm)
    return [
        {
            **row,
            **dict(
                zip(
                    added,
                    _agreement_cells(compared.get(int(row["id"] or 0))),
                    strict=True,
                )
            ),
        }
        for row in rows
    ]


def write_table(
    measures: Sequence[RegionMeasure],
    path: str | Path,
    *,
    modality: Modality | None,
    agreements: Sequence[RegionAgreement] = (),
) -> None:
    """Write the region table as CSV or TSV (UTF-8, decimal point) or Parquet, as the name ends.

    Parameters
    ----------
    measures : sequence of RegionMeasure
        What `measure_regions` gives.
    path : str or Path
        Ends in .csv, .tsv or .parquet; it is written under a temporary name and then
        renamed.
    modality : {"ct", "mr"} or None
        Decides the units in the column names; None leaves the intensities out.
    agreements : sequence of RegionAgreement
        What `agree` gives; adds columns.

    Raises
    ------
    WriteError
        If the file cannot be written, or pyarrow is missing for Parquet; nothing stands
        under its name then.
    """
    rows = table_rows(measures, modality, agreements)
    columns = (
        *table_columns(modality),
        *(agreement_columns(agreements[0].tolerance_mm) if agreements else ()),
    )
    suffix = file_suffix(path)
    if suffix == ".parquet":
        with atomic_path(path) as unfinished:
            _write_parquet(rows, columns, unfinished)
        return
    with (
        atomic_path(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors=ESCAPED) as file,
    ):
        writer = csv.DictWriter(
            file, columns, delimiter=_DELIMITERS.get(suffix, ","), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def check_parquet() -> None:
    """Say early that Parquet cannot be written here.

    Raises
    ------
    WriteError
        If pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as err:
        raise WriteError(
            "Parquet needs pyarrow: install napari-strata[parquet], or write .tsv or"
            " .csv instead."
        ) from err


def is_table(path: str | Path) -> bool:
    """Say whether a file is a region table, of this or an earlier version.

    By its first columns.
    """
    file = Path(path)
    if file_suffix(file) == ".parquet":
        return _is_parquet_table(file)
    try:
        with open(file, newline="", encoding="utf-8") as text:
            header = next(
                csv.reader(text, delimiter=_DELIMITERS.get(file_suffix(file), ",")), []
            )
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return tuple(header[: len(_FIRST)]) == _FIRST and "centroid_r_mm" in header


def _cells(measure: RegionMeasure, modality: Modality | None) -> list[Cell]:
    seen = [getattr(measure, name) for name in _INTENSITIES] if modality else []
    size = [
        _number(x)
        for x in (
            measure.volume_ml,
            measure.surface_mm2,
            *seen,
            *measure.centroid_ras_mm,
        )
    ]
    box = (*measure.box_start_zyx, *measure.box_stop_zyx)
    ends = [_number(x) for x in (*measure.box_min_ras_mm, *measure.box_max_ras_mm)]
    sure = None if measure.confidence is None else _number(measure.confidence)
    return [measure.id, measure.name, measure.voxels, *size, *box, *ends, sure]


def _agreement_cells(one: RegionAgreement | None) -> list[Cell]:
    if one is None:
        return [None] * len(agreement_columns(0))
    scores = (
        one.dice,
        one.hd95_mm,
        one.nsd,
        one.volume_difference_ml,
        one.volume_difference_percent,
    )
    return [one.reference_voxels, *map(_number, scores)]


def _number(value: float) -> float | None:
    """Round to six digits; None for what is no finite number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _write_parquet(
    rows: list[dict[str, Cell]], columns: Sequence[str], path: Path
) -> None:
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        **dict.fromkeys(columns, pa.float64()),
        **dict.fromkeys(_WHOLE, pa.int64()),
        **dict.fromkeys(_TEXT, pa.string()),
    }
    schema = pa.schema([(name, kinds[name]) for name in columns])
    with path.open("wb") as file:  # opened here: pyarrow takes no name that is not text
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def _is_parquet_table(path: Path) -> bool:
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            names = pq.read_schema(file).names
    except (OSError, pa.ArrowInvalid):
        return False
    return tuple(names[: len(_FIRST)]) == _FIRST
