"""Which structure is where: a label map with a hierarchy compartment > tissue > structure."""

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
"""Tissue names; a tissue's number is its place in this tuple, 0 is air outside the body."""

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
"""Compartment names; a compartment's number is its place, 0 is air outside the body.

The last five are for shapes.
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
"""The compartment of each tissue of a body; shapes group their tissues anew each time."""


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A label map of structures.

    The tissue that each is made of and the compartment that each tissue is in.

    Parameters
    ----------
    structures : (z, y, x) uint8 tensor
        0 is air outside the body.
    tissue_of, compartment_of : tuple of int
        Tissue and compartment number of each structure; structures of one tissue share
        their compartment.
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
        """Return where any of the named structures lies, (z, y, x) bool."""
        table = torch.tensor(
            [name in names for name in self.names], device=self.structures.device
        )
        return look_up(table, self.structures)

    def within(self, where: Tensor) -> Anatomy:
        """Return the same anatomy with nothing outside the boolean (z, y, x) tensor."""
        return replace(self, structures=self.structures * where)

    def every_second(self, axes: tuple[int, ...]) -> Anatomy:
        """Return every second voxel along the named axes."""
        steps = tuple(slice(None, None, 2 if axis in axes else 1) for axis in range(3))
        return replace(self, structures=self.structures[steps].contiguous())

    def _look_up(self, numbers: tuple[int, ...]) -> Tensor:
        table = torch.tensor(numbers, dtype=torch.uint8, device=self.structures.device)
        return look_up(table, self.structures)


def look_up(table: Tensor, numbers: Tensor) -> Tensor:
    """Return the table's row of every voxel: table (n,), numbers (z, y, x) uint8."""
    return table.index_select(0, numbers.flatten().int()).view(numbers.shape)


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
        self._strokes = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._structure_of_stroke = [0]
        self._names = ["outside"]
        self._tissues = [0]
        self._compartments = {0: 0}

    def draw(
        self, name: str, tissue: str, where: Tensor, *, compartment: str | None = None
    ) -> None:
        """Draw a structure where the boolean (z, y, x) tensor is True.

        Drawing a name again adds to it.

        The compartment is the tissue's own unless given; the first drawing of a tissue
        decides for all of it.

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
            found = (
                compartment
                if compartment is not None
                else COMPARTMENT_OF_TISSUE[tissue]
            )
            self._compartments.setdefault(number, COMPARTMENTS.index(found))
        self._structure_of_stroke.append(self._names.index(name))
        stroke = len(self._structure_of_stroke) - 1
        # Strokes are numbered upward, so that painting over is a maximum (far faster
        # than a masked fill).
        torch.maximum(
            self._strokes, where.view(torch.uint8) * stroke, out=self._strokes
        )

    def inside(self, *names: str) -> Tensor:
        """Return where any of the named structures lies, (z, y, x) bool."""
        wanted = [
            self._names[structure] in names for structure in self._structure_of_stroke
        ]
        table = torch.tensor(wanted, device=self._strokes.device)
        return look_up(table, self._strokes)

    def zoom(
        self, grid: Grid, box: Box, draw: Callable[..., None], *fields: Tensor
    ) -> None:
        """Call `draw(canvas, grid, *fields)` on the part of the block that can meet a box.

        If there is any.

        The box is (low, high) in mm along left, front and up; `fields` are (z, y, x)
        tensors that are cut alike.
        """
        window = grid.window(box)
        if all(along.stop > along.start for along in window):
            part = copy(self)  # shares the lists, so that names and numbers go on
            part._strokes = self._strokes[window]
            draw(part, grid.cut(window), *(values[window] for values in fields))

    def finish(self, family: str) -> Anatomy:
        """Return the drawing as an Anatomy."""
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
