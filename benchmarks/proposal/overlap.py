"""How pieces lie on a reference: the table that every figure about classes is made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.encoder.scans import OTHER
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Scored voxels of each piece in each class.

    Parameters
    ----------
    classes : tuple of int
        The reference's classes, "other" left out.
    counts : (piece, class + 1) int64 array
        Voxels; the last column is "other" (255).
    unscored : (piece,) int64 array
        Voxels that the reference does not score.
    """

    classes: tuple[int, ...]
    counts: NDArray[np.int64]
    unscored: NDArray[np.int64]

    @property
    def class_vox(self) -> NDArray[np.int64]:
        """Voxels of each class, (class,)."""
        return self.counts[:, :-1].sum(axis=0)

    def joined(self, groups: NDArray[np.integer]) -> Overlap:
        """Give the table of groups of pieces, `groups` (piece,) from 0."""
        table = np.zeros((int(groups.max()) + 1, self.counts.shape[1] + 1), np.int64)
        np.add.at(table, groups, np.column_stack([self.counts, self.unscored]))
        return Overlap(self.classes, table[:, :-1], table[:, -1])


def overlap(
    pieces: NDArray[np.integer], reference: NDArray[np.uint8], n: int
) -> Overlap:
    """Count the voxels of pieces 0 .. n - 1 in each class of a reference of the same shape.

    (0 not scored, 255 other).
    """
    present = np.unique(reference)
    classes = present[(present > 0) & (present < OTHER)]
    columns = len(classes) + 2
    column = np.full(OTHER + 1, columns - 1)
    column[classes] = np.arange(len(classes))
    column[OTHER] = len(classes)
    pairs = pieces.ravel().astype(np.int64) * columns + column[reference.ravel()]
    counts = np.bincount(pairs, minlength=n * columns).reshape(n, columns)
    return Overlap(tuple(classes.tolist()), counts[:, :-1], counts[:, -1])
