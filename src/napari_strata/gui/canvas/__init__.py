"""What napari draws: layers, their place in the world, orientation, window presets."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("gui.canvas")
