"""What is in the regions, and how well labels agree with a reference."""

from napari_strata.measure.agreement import RegionAgreement, agree
from napari_strata.measure.overlap import Agreement, compare
from napari_strata.measure.regions import RegionMeasure, measure_regions, require_same_grid

__all__ = ["Agreement", "RegionAgreement", "RegionMeasure", "agree", "compare", "measure_regions", "require_same_grid"]
