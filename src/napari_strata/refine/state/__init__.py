"""What a case is at one moment: which supervoxel belongs to which region, and painted voxels."""
