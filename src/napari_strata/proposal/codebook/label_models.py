"""Bases of codebooks and teachings, and of the labels that they assign."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import Region, Segmentation, smallest_label_dtype


class LabelModel:
    """A model that assigns a region to every supervoxel, stored as one file."""

    __slots__ = ()

    def _to_bytes(self) -> bytes:
        """Return the content of the model's file."""
        raise NotImplementedError

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the labels."""
        return hashlib.sha256(self._to_bytes()).hexdigest()


class SupervoxelLabels:
    """Labels of the supervoxels of one proposal.

    Attributes
    ----------
    table : (n_supervoxels,) int32 array
        Region of each supervoxel.
    regions : tuple of Region
        Rows of the regions.
    """

    __slots__ = ()

    table: NDArray[np.int32]
    regions: tuple[Region, ...]

    def segmentation(self, proposal: Proposal) -> Segmentation:
        """Return the labels on the grid of the proposal they were made for."""
        dtype = smallest_label_dtype(int(self.table.max(initial=0)))
        return Segmentation(
            self.table.astype(dtype)[proposal.supervoxels],
            self.regions,
            proposal.volume.geometry,
        )
