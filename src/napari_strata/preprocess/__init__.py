"""Find the body, scale intensities to [0, 1], and resample to other grids."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("preprocess")
