"""A bench for proposals: supervoxels, trees, confidence, stability and cuts, against references that the proposal never sees."""
