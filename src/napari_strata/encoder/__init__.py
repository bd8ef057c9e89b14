"""The encoder: a MONAI network, trained without any human label, that turns every voxel into a feature."""
