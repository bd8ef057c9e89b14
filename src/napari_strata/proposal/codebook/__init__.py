"""Tissues that have the same number in every scan of a cohort."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("proposal.codebook")
