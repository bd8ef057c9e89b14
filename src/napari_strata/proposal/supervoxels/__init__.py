"""Cut a scan into supervoxels, and describe each by intensity, place and neighbours."""
