"""Merge trees over supervoxels: how they are built, stored and cut."""
