"""State of a case: the region of each supervoxel, and painted voxels."""
