"""A bench for proposals.

Supervoxels, trees, confidence, stability and cuts, against references that the proposal
never sees.
"""
