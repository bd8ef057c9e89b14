"""From a few strokes to all supervoxels: distances, dissimilarities, a classifier."""
