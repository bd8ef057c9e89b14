"""Proposals: supervoxels, their descriptors, two merge trees, and cohort codebooks."""
