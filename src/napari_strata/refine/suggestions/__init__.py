"""Where a person should look next, and why."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("refine.suggestions")
