"""From features to a proposal: supervoxels, their descriptors, two merge trees, and the codebook of a cohort."""
