"""The columns of exported tables of regions: name, unit, type and value of each.

To add a column, add it to `EXPORTED_COLUMNS` or `AGREEMENT_COLUMNS`. A value that is not
measured yet is first a field of `RegionMeasure` (`measure/regions.py`). Files (CSV, TSV,
Parquet, JSON) and the tables of a batch choose from these. The columns that the window
shows are in `gui/widgets/region_table_columns.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from napari_strata.deprecated import moved_names
from napari_strata.measure.agreement import RegionAgreement
from napari_strata.measure.regions import RegionMeasure
from napari_strata.volume import Modality

Cell = int | float | str | None
"""A table value; None where there is no such number (a region without voxels)."""

DIGITS = 6
"""Significant digits of measures in files: more than any scan's precision supports."""


@dataclass(frozen=True, slots=True)
class ExportedColumn:
    """One column of an exported table of regions.

    Parameters
    ----------
    name : str
        Name in files, with the unit as its end ("volume_ml"). "{tolerance}" stands for
        the tolerance in mm.
    unit : str
        Unit as BIDS writes it: "mm", "mL", "1" for a number without a unit, "" for text
        and for intensities, whose unit is the scan's.
    kind : {"integer", "number", "text"}
        Type of the values.
    value : callable
        Returns the value from the region's measures.
    is_intensity : bool
        Whether the value has the scan's unit: "_hu" is added to the name for CT, and
        the column is left out where there is no scan.
    """

    name: str
    unit: str
    kind: Literal["integer", "number", "text"]
    value: Callable[[Any], Cell]
    is_intensity: bool = False

    def name_for(self, modality: Modality | None) -> str:
        """Return the column's name for a scan of a modality."""
        return (
            f"{self.name}_hu" if self.is_intensity and modality == "ct" else self.name
        )

    def cell(self, measures: RegionMeasure | RegionAgreement) -> Cell:
        """Return the value for a file: numbers with `DIGITS` digits, None if not finite."""
        value = self.value(measures)
        if value is None or self.kind != "number":
            return value
        number = float(value)
        return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None


def _attribute(
    name: str, unit: str, kind: Literal["integer", "number", "text"]
) -> ExportedColumn:
    return ExportedColumn(name, unit, kind, attrgetter(name))


def _intensity(name: str) -> ExportedColumn:
    return ExportedColumn(name, "", "number", attrgetter(name), is_intensity=True)


def _component(name: str, unit: str, attribute: str, index: int) -> ExportedColumn:
    """Return a column for one component of a measure that is a tuple."""
    values = attrgetter(attribute)
    kind: Literal["integer", "number"] = "number" if unit == "mm" else "integer"
    return ExportedColumn(name, unit, kind, lambda measure: values(measure)[index])


EXPORTED_COLUMNS: tuple[ExportedColumn, ...] = (
    _attribute("id", "1", "integer"),
    _attribute("name", "", "text"),
    _attribute("voxels", "1", "integer"),
    _attribute("volume_ml", "mL", "number"),
    _attribute("surface_mm2", "mm^2", "number"),
    _intensity("mean"),
    _intensity("sd"),
    _intensity("minimum"),
    _intensity("p5"),
    _intensity("p25"),
    _intensity("median"),
    _intensity("p75"),
    _intensity("p95"),
    _intensity("maximum"),
    *(
        _component(f"centroid_{axis}_mm", "mm", "centroid_ras_mm", index)
        for index, axis in enumerate("ras")
    ),
    *(
        _component(f"{axis}_{end}", "1", f"box_{end}_zyx", index)
        for end in ("start", "stop")
        for index, axis in enumerate("zyx")
    ),
    *(
        _component(f"box_{axis}_{end}_mm", "mm", f"box_{end}_ras_mm", index)
        for end in ("min", "max")
        for index, axis in enumerate("ras")
    ),
    _attribute("confidence", "1", "number"),
)
"""Columns of every region table, in the order of the files."""

AGREEMENT_COLUMNS: tuple[ExportedColumn, ...] = (
    _attribute("reference_voxels", "1", "integer"),
    _attribute("dice", "1", "number"),
    _attribute("hd95_mm", "mm", "number"),
    ExportedColumn("nsd_at_{tolerance}mm", "1", "number", attrgetter("nsd")),
    _attribute("volume_difference_ml", "mL", "number"),
    _attribute("volume_difference_percent", "%", "number"),
)
"""Columns that a comparison with reference labels adds, in the order of the files."""

LEADING_COLUMNS = tuple(column.name for column in EXPORTED_COLUMNS[:4])
"""The first columns of every version's table, by which a file is recognised."""


def region_columns(modality: Modality | None) -> tuple[ExportedColumn, ...]:
    """Return the columns of the region table of a scan.

    If there is no scan (None), the intensity columns are left out.
    """
    return tuple(
        column for column in EXPORTED_COLUMNS if modality or not column.is_intensity
    )


__getattr__ = moved_names("measure.exported_columns")
