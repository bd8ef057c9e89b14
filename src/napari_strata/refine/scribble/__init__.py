"""From a few strokes to every supervoxel: distances, dissimilarities, a classifier."""
