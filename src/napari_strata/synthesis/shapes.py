"""Bodies of no anatomy in particular: nested blobs, cells, tubes and shells whose tissues recur in many places."""

from __future__ import annotations

import torch

from napari_strata.synthesis.anatomy import TISSUES, Anatomy, Canvas
from napari_strata.synthesis.fields import Grid
from napari_strata.synthesis.head import folded_shell

SHAPES_EXTENT_MM = (120.0, 120.0, 120.0)
"""Rough size (left, front, up) of the body that is drawn around the origin."""


def draw_shapes(grid: Grid) -> Anatomy:
    """Draw a random body of nested, recurring shapes."""
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(6.0, 40.0)
    tissues = [TISSUES[grid.integer(1, len(TISSUES))] for _ in range(grid.integer(4, 9))]
    power = grid.uniform(1.6, 4.0)
    body = bent.ellipsoid((0, 0, 0), (grid.uniform(45, 75), grid.uniform(45, 75), grid.uniform(45, 75)), power)
    if grid.uniform() < 0.3:
        body = torch.zeros_like(body)
    canvas.draw("wrap 0", tissues[0], body < 1.0)
    for layer in range(grid.integer(0, 3)):
        canvas.draw(f"wrap {layer + 1}", tissues[(layer + 1) % len(tissues)], body < 0.95 - 0.06 * layer * grid.uniform(0.6, 1.4))
    inside = body < 0.85
    _draw_cells(canvas, bent, inside, tissues)
    _draw_blobs(canvas, bent, inside, tissues)
    if grid.uniform() < 0.5:
        depth = (bent.ellipsoid((0, 0, 0), (40, 40, 40)) - 1) * 40
        grey, white = folded_shell(
            bent, depth, length_mm=grid.uniform(8, 18), sulcus_mm=grid.uniform(5, 15), thickness_mm=grid.uniform(2, 5)
        )
        canvas.draw("folded shell", tissues[-1], grey & inside)
        canvas.draw("folded core", tissues[-2], white & inside)
    for number in range(grid.integer(0, 3)):
        tubes = torch.hypot(bent.noise(26.0), bent.noise(26.0)) * 14.0
        canvas.draw(f"tubes {number}", tissues[grid.integer(0, len(tissues))], (tubes < grid.uniform(0.8, 4.0)) & inside)
    return canvas.finish("shapes")


def _draw_cells(canvas: Canvas, grid: Grid, inside: torch.Tensor, tissues: list[str]) -> None:
    """Draw level sets of noise: a field of cells in which each tissue recurs."""
    field = grid.noise(grid.uniform(10.0, 40.0))
    bounds = sorted(grid.uniform(-1.3, 1.3) for _ in range(grid.integer(1, 4)))
    for number, bound in enumerate(bounds):
        canvas.draw(f"cells {number}", tissues[(number + 2) % len(tissues)], (field > bound) & inside)


def _draw_blobs(canvas: Canvas, grid: Grid, inside: torch.Tensor, tissues: list[str]) -> None:
    for number in range(grid.integer(3, 12)):
        center = (grid.uniform(-50, 50), grid.uniform(-50, 50), grid.uniform(-50, 50))
        size = grid.uniform(4, 26)
        radii = (size * grid.uniform(0.5, 1.5), size * grid.uniform(0.5, 1.5), size * grid.uniform(0.5, 1.5))
        source = grid.mirrored() if grid.uniform() < 0.3 else grid
        blob = source.ellipsoid(center, radii, grid.uniform(1.5, 4.0)) + 0.1 * grid.noise(12.0)
        canvas.draw(f"blob {number}", tissues[grid.integer(0, len(tissues))], (blob < 1.0) & inside)
        if grid.uniform() < 0.4:
            canvas.draw(f"blob core {number}", tissues[grid.integer(0, len(tissues))], (blob < grid.uniform(0.4, 0.85)) & inside)
