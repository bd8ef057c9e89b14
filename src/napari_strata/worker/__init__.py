"""Long computations in a process of their own, for programs with a window (no Qt, no napari)."""
