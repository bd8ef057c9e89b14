"""Layers of napari, their placement, orientation on the canvas, and window presets."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("gui.canvas")
