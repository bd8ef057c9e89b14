"""DICOM series and single slices, each slice by its own header."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("io.dicom")
