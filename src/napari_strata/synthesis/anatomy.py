"""Which structure is where: a label map with a hierarchy compartment > tissue > structure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TISSUES = (
    "air", "skin", "fat", "muscle", "bone", "marrow", "csf", "grey matter", "white matter", "deep grey matter",
    "blood", "vessel wall", "lung", "liver", "spleen", "kidney cortex", "kidney medulla", "gut wall", "gut content",
    "gland", "disc", "eye", "lesion core", "lesion rim", "oedema",
    "stuff 1", "stuff 2", "stuff 3", "stuff 4", "stuff 5", "stuff 6", "stuff 7", "stuff 8",
)  # fmt: skip
"""Tissue names; a tissue's number is its place in this tuple, 0 is air."""

TISSUE_NUMBER = {name: number for number, name in enumerate(TISSUES)}


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A label map of structures and the tissue that each is made of.

    Parameters
    ----------
    structures : (z, y, x) uint8 tensor
        0 is air outside the body.
    tissue_of : tuple of int
        Tissue number of each structure.
    names : tuple of str
        Name of each structure.
    family : str
        "head", "torso" or "shapes".
    """

    structures: Tensor
    tissue_of: tuple[int, ...]
    names: tuple[str, ...]
    family: str

    @property
    def tissues(self) -> Tensor:
        """Tissue number of every voxel, (z, y, x) uint8."""
        table = torch.tensor(self.tissue_of, dtype=torch.uint8, device=self.structures.device)
        return table[self.structures.long()]


class Canvas:
    """Draws structures over one another, the last one on top.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels along z, y, x.
    device : torch.device
        Where to draw.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self.map = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._names = ["outside"]
        self._tissues = [0]

    def draw(self, name: str, tissue: str, where: Tensor) -> None:
        """Draw a structure where the boolean (z, y, x) tensor is True; drawing a name again adds to it."""
        if name not in self._names:
            self._names.append(name)
            self._tissues.append(TISSUE_NUMBER[tissue])
        self.map.masked_fill_(where, self._names.index(name))

    def inside(self, *names: str) -> Tensor:
        """Give where any of the named structures lies."""
        numbers = [self._names.index(name) for name in names if name in self._names]
        where = torch.zeros_like(self.map, dtype=torch.bool)
        for number in numbers:
            where |= self.map == number
        return where

    def finish(self, family: str) -> Anatomy:
        """Give the drawing as an Anatomy."""
        return Anatomy(self.map, tuple(self._tissues), tuple(self._names), family)
