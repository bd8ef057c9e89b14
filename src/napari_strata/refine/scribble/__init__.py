"""Classification of all supervoxels from a few strokes."""
