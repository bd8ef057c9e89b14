"""From features to a proposal.

Supervoxels, their descriptors, two merge trees, and the codebook of a cohort.
"""
