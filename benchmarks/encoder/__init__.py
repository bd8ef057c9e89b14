"""A fair bench for encoders: probe, clustering and stability of several feature sets on the same voxels."""
