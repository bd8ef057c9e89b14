"""Merge trees over supervoxels: how they are built, stored and cut."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("proposal.hierarchy")
