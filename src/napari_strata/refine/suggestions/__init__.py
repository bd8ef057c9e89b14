"""Suggestions of places to review, with reasons."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("refine.suggestions")
