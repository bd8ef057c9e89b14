"""Formats to and from Volume and Segmentation; the only place where axes are permuted."""
