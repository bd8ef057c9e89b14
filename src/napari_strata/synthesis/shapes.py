"""Random bodies without anatomy: nested blobs, cells, tubes and shells.

Their tissues recur in many places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import TISSUES, Anatomy, Canvas
from napari_strata.synthesis.fields import Grid, Point, radial
from napari_strata.synthesis.head import Folds, folded_shell

SHAPES_EXTENT_MM = (120.0, 120.0, 120.0)
"""Approximate size (left, front, up) of the body around the origin, in mm."""


class _Palette:
    """A few tissues for each of the five nested parts; no tissue is used in two of them."""

    def __init__(self, grid: Grid) -> None:
        order = torch.randperm(
            len(TISSUES) - 1, generator=grid.generator, device=grid.device
        ).tolist()
        names = [TISSUES[1 + number] for number in order]
        self._of = {
            part: [names.pop() for _ in range(grid.integer(1, 4))]
            for part in ("wrap", "cells", "blobs", "shell", "tubes")
        }

    def tissue(self, part: str, number: int) -> str:
        """Return the tissue of the nth structure of a part; tissues recur."""
        return self._of[part][number % len(self._of[part])]


def draw_shapes(grid: Grid, *, lesions: bool = True) -> Anatomy:
    """Draw a random body of nested, recurring shapes.

    `lesions` is unused; it matches the signature of the other families.
    """
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(6.0, 40.0)
    palette = _Palette(grid)
    power = grid.uniform(1.6, 4.0)
    body = bent.ellipsoid(
        (0, 0, 0),
        (grid.uniform(45, 75), grid.uniform(45, 75), grid.uniform(45, 75)),
        power,
        whole=True,
    )
    if grid.uniform() < 0.3:
        body = torch.zeros_like(body)
    canvas.draw("wrap 0", palette.tissue("wrap", 0), body < 1.0, compartment="wrap")
    for layer in range(grid.integer(0, 3)):
        inner = body < 0.95 - 0.06 * layer * grid.uniform(0.6, 1.4)
        canvas.draw(
            f"wrap {layer + 1}",
            palette.tissue("wrap", layer + 1),
            inner,
            compartment="wrap",
        )
    inside = body < 0.85
    _draw_cells(canvas, bent, inside, palette)
    _draw_blobs(canvas, bent, inside, palette)
    if grid.uniform() < 0.5:
        _draw_shell(canvas, bent, inside, palette)
    _draw_tubes(canvas, bent, inside, palette)
    if grid.uniform() < 0.35:
        _draw_tree(canvas, bent, inside, palette)
    if grid.uniform() < 0.3:
        _draw_row(canvas, bent, inside, palette)
    return canvas.finish("shapes")


def _draw_cells(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    """Draw cells as level sets of noise, with recurring tissues."""
    field = grid.noise(grid.uniform(7.0, 30.0))
    bounds = sorted(grid.uniform(-1.3, 1.3) for _ in range(grid.integer(1, 4)))
    for number, bound in enumerate(bounds):
        canvas.draw(
            f"cells {number}",
            palette.tissue("cells", number),
            (field > bound) & inside,
            compartment="cells",
        )


def _draw_blobs(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    for number in range(grid.integer(3, 11)):
        center = (grid.uniform(-50, 50), grid.uniform(-50, 50), grid.uniform(-50, 50))
        size = grid.uniform(4, 26)
        radii = (
            size * grid.uniform(0.5, 1.5),
            size * grid.uniform(0.5, 1.5),
            size * grid.uniform(0.5, 1.5),
        )
        source = grid.mirrored() if grid.uniform() < 0.3 else grid
        blob = source.ellipsoid(
            center, radii, grid.uniform(1.5, 4.0)
        ) + 0.1 * grid.noise(12.0)
        tissue = palette.tissue("blobs", grid.integer(0, 6))
        canvas.draw(
            f"blob {number}", tissue, (blob < 1.0) & inside, compartment="blobs"
        )
        if grid.uniform() < 0.4:
            tissue = palette.tissue("blobs", grid.integer(0, 6))
            core = (blob < grid.uniform(0.4, 0.85)) & inside
            canvas.draw(f"blob core {number}", tissue, core, compartment="blobs")


def _draw_shell(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    size = grid.uniform(25, 50)
    depth = (
        grid.ellipsoid(
            (grid.uniform(-15, 15), grid.uniform(-15, 15), 0), (size, size, size)
        )
        - 1
    ) * size
    folds = Folds(
        grid.uniform(5, 13),
        grid.uniform(5, 18),
        grid.uniform(2, 5),
        grid.uniform(0.0, 1.2),
    )
    ribbon, core = folded_shell(grid, depth, folds)
    canvas.draw(
        "folded shell", palette.tissue("shell", 0), ribbon & inside, compartment="shell"
    )
    canvas.draw(
        "folded core", palette.tissue("shell", 1), core & inside, compartment="shell"
    )


def _draw_tubes(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    for number in range(grid.integer(0, 3)):
        tubes = radial(grid.noise(22.0), grid.noise(22.0)) * 13.0
        radius = grid.uniform(1.0, 4.5)
        canvas.draw(
            f"tubes {number}",
            palette.tissue("tubes", number),
            (tubes < radius) & inside,
            compartment="tubes",
        )
        if grid.uniform() < 0.4:
            canvas.draw(
                f"tube cores {number}",
                palette.tissue("tubes", number + 1),
                (tubes < 0.6 * radius) & inside,
                compartment="tubes",
            )


def _draw_tree(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    """Draw a tree of tapering tubes that branch three times."""
    nearest = torch.full_like(grid.left, 9.0)
    tips: list[tuple[Point, Point, float]] = [
        ((0.0, grid.uniform(-20, 20), -55.0), (0.0, 0.0, 1.0), grid.uniform(3.5, 7.0))
    ]
    for _ in range(3):
        grown: list[tuple[Point, Point, float]] = []
        for start, heading, radius in tips:
            length = radius * grid.uniform(4, 7)
            end = (
                start[0] + heading[0] * length,
                start[1] + heading[1] * length,
                start[2] + heading[2] * length,
            )
            nearest = torch.minimum(
                nearest, grid.capsule(start, end, radius, taper=0.8)
            )
            for _ in range(2):
                turn = [h + grid.uniform(-0.9, 0.9) for h in heading]
                size = max(math.hypot(*turn), 1e-3)
                grown.append(
                    (
                        end,
                        (turn[0] / size, turn[1] / size, turn[2] / size),
                        0.74 * radius,
                    )
                )
        tips = grown
    canvas.draw(
        "tree wall",
        palette.tissue("tubes", 1),
        (nearest < 1.0) & inside,
        compartment="tubes",
    )
    canvas.draw(
        "tree",
        palette.tissue("tubes", 2),
        (nearest < grid.uniform(0.6, 0.9)) & inside,
        compartment="tubes",
    )


def _draw_row(canvas: Canvas, grid: Grid, inside: Tensor, palette: _Palette) -> None:
    """Draw a row of similar bodies with discs between them and a canal, like a spine."""
    radius, pitch, gap = (
        grid.uniform(8, 20),
        grid.uniform(10, 32),
        grid.uniform(0.15, 0.4),
    )
    off = grid.uniform(-30, 30)
    rod = radial(grid.left - off, grid.front) / radius
    level = torch.remainder(grid.up / pitch, 1.0)
    canvas.draw(
        "row",
        palette.tissue("blobs", 0),
        (rod < 1.0) & (level > gap) & inside,
        compartment="blobs",
    )
    canvas.draw(
        "row discs",
        palette.tissue("blobs", 1),
        (rod < 0.95) & (level <= gap) & inside,
        compartment="blobs",
    )
    canal = radial(grid.left - off, grid.front + 1.35 * radius) / (0.4 * radius)
    canvas.draw(
        "row canal",
        palette.tissue("blobs", 2),
        (canal < 1.0) & inside,
        compartment="blobs",
    )
