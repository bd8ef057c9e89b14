"""Measures of regions, and agreement of labels with a reference."""

from napari_strata.measure.agreement import RegionAgreement, agree
from napari_strata.measure.overlap import Agreement, compare, join_by_overlap
from napari_strata.measure.regions import (
    RegionMeasure,
    measure_regions,
    require_same_grid,
)

__all__ = [
    "Agreement",
    "RegionAgreement",
    "RegionMeasure",
    "agree",
    "compare",
    "join_by_overlap",
    "measure_regions",
    "require_same_grid",
]
