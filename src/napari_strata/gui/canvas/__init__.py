"""What napari draws: layers, their place in the world, orientation, window presets."""
