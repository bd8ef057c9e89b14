"""A fair bench for encoders.

Probe, clustering and stability of several feature sets on the same voxels.
"""
