"""Find the body, scale intensities to [0, 1], and resample to other grids."""
