"""Cut a scan into supervoxels, and describe each by intensity, place and neighbours."""

from napari_strata.deprecated import moved_names

__getattr__ = moved_names("proposal.supervoxels")
