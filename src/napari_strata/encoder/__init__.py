"""The encoder: a MONAI network, trained without any human label.

Turns every voxel into a feature.
"""
