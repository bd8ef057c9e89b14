"""Explanations: what makes a region one region, and why a voxel is in its region.

Figures come from the proposal's table of supervoxels, for people to judge.
"""

from napari_strata.explain.regions import (
    EvidenceSplit,
    MergePath,
    MergeStep,
    RegionCard,
    TellingColumn,
    explain_region,
    feature_colors,
    merge_path,
    similarity_map,
)
from napari_strata.explain.voxels import (
    VoxelCard,
    VoxelEvidence,
    explain_voxel,
    uncertainty_map,
)

__all__ = [
    "EvidenceSplit",
    "MergePath",
    "MergeStep",
    "RegionCard",
    "TellingColumn",
    "VoxelCard",
    "VoxelEvidence",
    "explain_region",
    "explain_voxel",
    "feature_colors",
    "merge_path",
    "similarity_map",
    "uncertainty_map",
]
