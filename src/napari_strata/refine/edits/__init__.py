"""Edits as records: each takes a state and returns the next one."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("refine.edits")
