"""The dock widget, and the controllers that connect its widgets with the open scan."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("gui.panel")
