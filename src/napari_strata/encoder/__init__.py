"""The encoder: a self-supervised MONAI network that computes a feature for every voxel."""
