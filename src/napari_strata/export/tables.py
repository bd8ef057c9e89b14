"""Write the region table as CSV, TSV or Parquet.

One row per region; each column's name ends with its unit.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext, ExportFormat, ExportRequest
from napari_strata.filenames import ESCAPED
from napari_strata.io.atomic import atomic_path, file_suffix
from napari_strata.measure import (
    RegionAgreement,
    RegionMeasure,
    agree,
    join_by_overlap,
    measure_regions,
)
from napari_strata.measure.exported_columns import (
    AGREEMENT_COLUMNS,
    EXPORTED_COLUMNS,
    LEADING_COLUMNS,
    Cell,
    region_columns,
)
from napari_strata.volume import Modality

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def table_columns(modality: Modality | None) -> tuple[str, ...]:
    """Return the names of the region table's columns.

    CT intensities are in HU and say so ("mean_hu"), MR ones have no unit ("mean");
    without a scan (None) there are none.
    """
    return tuple(column.name_for(modality) for column in region_columns(modality))


def agreement_columns(tolerance_mm: float) -> tuple[str, ...]:
    """Return the names of the columns that a reference adds.

    One of them names the tolerance ("nsd_at_2mm").
    """
    return tuple(
        column.name.format(tolerance=f"{tolerance_mm:g}")
        for column in AGREEMENT_COLUMNS
    )


def table_rows(
    measures: Sequence[RegionMeasure],
    modality: Modality | None,
    agreements: Sequence[RegionAgreement] = (),
) -> list[dict[str, Cell]]:
    """Return the region table as plain rows that JSON can hold.

    Parameters
    ----------
    measures : sequence of RegionMeasure
        Results of `measure_regions`.
    modality : {"ct", "mr"} or None
        Decides the units in the column names; None leaves the intensities out.
    agreements : sequence of RegionAgreement
        Results of `agree` for the same regions; regions that only the reference has get
        rows of their own, at the end.

    Returns
    -------
    list of dict
        One row per region, keyed by `table_columns` and `agreement_columns`: size,
        intensity statistics, centre of mass in RAS+ mm, the half open bounding box in
        array indices and the box in RAS+ mm. Numbers carry six digits; None where there
        is no such number (a region without voxels, an infinite distance).
    """
    columns = region_columns(modality)
    rows: list[dict[str, Cell]] = [
        {column.name_for(modality): column.cell(measure) for column in columns}
        for measure in measures
    ]
    if not agreements:
        return rows
    compared = {one.id: one for one in agreements}
    own = {measure.id for measure in measures}
    empty = dict.fromkeys(table_columns(modality))
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
    """Write the region table as CSV or TSV (UTF-8, decimal point) or Parquet, by suffix.

    Parameters
    ----------
    measures : sequence of RegionMeasure
        Results of `measure_regions`.
    path : str or Path
        Ends in .csv, .tsv or .parquet; it is written under a temporary name and then
        renamed.
    modality : {"ct", "mr"} or None
        Decides the units in the column names; None leaves the intensities out.
    agreements : sequence of RegionAgreement
        Results of `agree`; they add columns.

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
    """Check before any work that Parquet files can be written.

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
    """Return whether a file is a region table of this or an earlier version.

    It is recognised by its first columns.
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
    return _starts_like_table(header) and "centroid_r_mm" in header


def _agreement_cells(agreement: RegionAgreement | None) -> list[Cell]:
    if agreement is None:
        return [None] * len(AGREEMENT_COLUMNS)
    return [column.cell(agreement) for column in AGREEMENT_COLUMNS]


def _write_parquet(
    rows: list[dict[str, Cell]], columns: Sequence[str], path: Path
) -> None:
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"integer": pa.int64(), "number": pa.float64(), "text": pa.string()}
    whole = {
        column.name: column.kind
        for column in (*EXPORTED_COLUMNS, *AGREEMENT_COLUMNS)
        if column.kind != "number"
    }
    schema = pa.schema([(name, types[whole.get(name, "number")]) for name in columns])
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
    return _starts_like_table(names)


def _starts_like_table(names: Sequence[str]) -> bool:
    return tuple(names[: len(LEADING_COLUMNS)]) == LEADING_COLUMNS


def _check(path: Path, context: ExportContext) -> None:
    if file_suffix(path) == ".parquet":
        check_parquet()


def _stage_table(request: ExportRequest) -> None:
    segmentation, context = request.segmentation, request.context
    scan, reference, settings = context.scan, context.reference, request.settings
    if reference is not None and settings.match == "overlap":
        segmentation = join_by_overlap(segmentation, reference)
    measures = measure_regions(segmentation, scan, confidence=context.confidence)
    agreements = (
        ()
        if reference is None
        else agree(segmentation, reference, tolerance_mm=settings.tolerance_mm)
    )
    write_table(
        measures,
        request.together.file(request.path),
        modality=None if scan is None else scan.modality,
        agreements=agreements,
    )


MEASURES_TABLE = ExportFormat(
    "Table of measures",
    (".csv", ".tsv", ".parquet"),
    _stage_table,
    stem="measures",
    content="a table of measures",
    check=_check,
    is_ours=is_table,
)
"""Region tables; Parquet needs the extra `parquet`."""
