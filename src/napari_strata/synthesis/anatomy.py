"""Anatomy as a label map with the hierarchy compartment > tissue > structure."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_strata.errors import SettingsError
from napari_strata.synthesis.fields import Box, Grid

TISSUES = (
    "air",
    "skin",
    "fat",
    "muscle",
    "bone",
    "marrow",
    "csf",
    "grey matter",
    "white matter",
    "deep grey matter",
    "blood",
    "vessel wall",
    "lung",
    "liver",
    "spleen",
    "kidney cortex",
    "kidney medulla",
    "gut wall",
    "gut content",
    "gland",
    "disc",
    "eye",
    "lesion core",
    "lesion rim",
    "oedema",
    "stuff 1",
    "stuff 2",
    "stuff 3",
    "stuff 4",
    "stuff 5",
    "stuff 6",
    "stuff 7",
    "stuff 8",
    "inner air",
    "mucosa",
    "pancreas",
    "heart muscle",
    "venous blood",
    "urine",
    "stool",
    "dura",
    "lens",
    "cartilage",
)
"""Tissue names; a tissue's number is its index here, 0 is air outside the body."""

TISSUE_NUMBER = {name: number for number, name in enumerate(TISSUES)}

COMPARTMENTS = (
    "air",
    "body wall",
    "skeleton",
    "brain",
    "fluid",
    "vessels",
    "airways and lungs",
    "organs",
    "gut",
    "lesion",
    "wrap",
    "cells",
    "blobs",
    "shell",
    "tubes",
)
"""Compartment names; a compartment's number is its index, 0 is air outside the body.

The last five are used by the family "shapes".
"""

_TISSUES_IN = {
    "air": ("air",),
    "body wall": ("skin", "fat", "muscle", "cartilage"),
    "skeleton": ("bone", "marrow", "disc"),
    "brain": ("grey matter", "white matter", "deep grey matter"),
    "fluid": ("csf", "eye", "lens", "urine"),
    "vessels": ("blood", "venous blood", "vessel wall", "heart muscle", "dura"),
    "airways and lungs": ("inner air", "lung", "mucosa"),
    "organs": (
        "liver",
        "spleen",
        "kidney cortex",
        "kidney medulla",
        "gland",
        "pancreas",
    ),
    "gut": ("gut wall", "gut content", "stool"),
    "lesion": ("lesion core", "lesion rim", "oedema"),
}
COMPARTMENT_OF_TISSUE = {
    tissue: compartment
    for compartment, tissues in _TISSUES_IN.items()
    for tissue in tissues
}
"""The compartment of each tissue of a head or torso; shapes group tissues at random."""


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A label map of structures, with the tissue and the compartment of each structure.

    Parameters
    ----------
    structures : (z, y, x) uint8 tensor
        0 is air outside the body.
    tissue_of, compartment_of : tuple of int
        Tissue and compartment number of each structure. Structures of the same tissue
        are in the same compartment.
    names : tuple of str
        Name of each structure.
    family : str
        "head", "torso" or "shapes".
    """

    structures: Tensor
    tissue_of: tuple[int, ...]
    compartment_of: tuple[int, ...]
    names: tuple[str, ...]
    family: str

    @property
    def tissues(self) -> Tensor:
        """Tissue number of every voxel, (z, y, x) uint8."""
        return self._look_up(self.tissue_of)

    @property
    def compartments(self) -> Tensor:
        """Compartment number of every voxel, (z, y, x) uint8."""
        return self._look_up(self.compartment_of)

    def inside(self, names: tuple[str, ...]) -> Tensor:
        """Return the mask (z, y, x) of the named structures."""
        table = torch.tensor(
            [name in names for name in self.names], device=self.structures.device
        )
        return look_up(table, self.structures)

    def within(self, where: Tensor) -> Anatomy:
        """Return the anatomy with everything outside a (z, y, x) mask removed."""
        return replace(self, structures=self.structures * where)

    def every_second(self, axes: tuple[int, ...]) -> Anatomy:
        """Return the anatomy with every second voxel along the given axes."""
        steps = tuple(slice(None, None, 2 if axis in axes else 1) for axis in range(3))
        return replace(self, structures=self.structures[steps].contiguous())

    def _look_up(self, numbers: tuple[int, ...]) -> Tensor:
        table = torch.tensor(numbers, dtype=torch.uint8, device=self.structures.device)
        return look_up(table, self.structures)


def look_up(table: Tensor, numbers: Tensor) -> Tensor:
    """Return the entry of a table (n,) for every voxel's number (z, y, x) uint8."""
    return table.index_select(0, numbers.flatten().int()).view(numbers.shape)


class Canvas:
    """A label map on which structures are drawn; later ones cover earlier ones.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels along z, y, x.
    device : torch.device
        Where to draw.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self._strokes = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._structure_of_stroke = [0]
        self._names = ["outside"]
        self._tissues = [0]
        self._compartments = {0: 0}

    def draw(
        self, name: str, tissue: str, where: Tensor, *, compartment: str | None = None
    ) -> None:
        """Draw a structure in a (z, y, x) mask; drawing the same name again adds to it.

        The compartment is that of the tissue if not given. The first drawing of a
        tissue sets the compartment of the whole tissue.

        Raises
        ------
        SettingsError
            After 254 drawings.
        """
        if len(self._structure_of_stroke) > 254:
            raise SettingsError(
                f"A canvas takes 254 drawings; {name!r} is one too many. Join some"
                " before drawing them."
            )
        if name not in self._names:
            number = TISSUE_NUMBER[tissue]
            self._names.append(name)
            self._tissues.append(number)
            name_of_compartment = (
                compartment
                if compartment is not None
                else COMPARTMENT_OF_TISSUE[tissue]
            )
            self._compartments.setdefault(
                number, COMPARTMENTS.index(name_of_compartment)
            )
        self._structure_of_stroke.append(self._names.index(name))
        stroke = len(self._structure_of_stroke) - 1
        # Strokes are numbered upward, so that painting over is a maximum (far faster
        # than a masked fill).
        torch.maximum(
            self._strokes, where.view(torch.uint8) * stroke, out=self._strokes
        )

    def inside(self, *names: str) -> Tensor:
        """Return the mask (z, y, x) of the named structures."""
        chosen = [
            self._names[structure] in names for structure in self._structure_of_stroke
        ]
        table = torch.tensor(chosen, device=self._strokes.device)
        return look_up(table, self._strokes)

    def zoom(
        self, grid: Grid, box: Box, draw: Callable[..., None], *fields: Tensor
    ) -> None:
        """Call `draw(canvas, grid, *fields)` on the part of the block that overlaps a box.

        The box is (low, high) in mm along left, front and up. `fields` are (z, y, x)
        tensors that are cropped in the same way. Without overlap nothing is called.
        """
        window = grid.window(box)
        if all(along.stop > along.start for along in window):
            part = copy(self)  # shares the lists, so that names and numbers continue
            part._strokes = self._strokes[window]
            draw(part, grid.cut(window), *(values[window] for values in fields))

    def finish(self, family: str) -> Anatomy:
        """Return the drawing as an `Anatomy`."""
        table = torch.tensor(
            self._structure_of_stroke, dtype=torch.uint8, device=self._strokes.device
        )
        compartments = tuple(self._compartments[tissue] for tissue in self._tissues)
        return Anatomy(
            look_up(table, self._strokes),
            tuple(self._tissues),
            compartments,
            tuple(self._names),
            family,
        )
