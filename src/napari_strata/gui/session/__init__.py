"""A scan that is open in the window: its refinement, layers and pending edits."""
