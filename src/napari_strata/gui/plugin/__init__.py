"""What napari's manifest names: readers, writers, commands and widgets."""
