"""Lesions with a core, a rim and oedema, and scattered spots in the white matter."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Canvas
from napari_strata.synthesis.fields import Grid

_SOFT_HOSTS = ("white matter", "cerebellum white matter")


def draw_lesions(
    canvas: Canvas, grid: Grid, hosts: tuple[str, ...], *, brain: Tensor | None = None
) -> None:
    """Draw one to four lesions in the named structures, if these are in view.

    Parameters
    ----------
    canvas, grid : Canvas, Grid
        The drawing and its grid.
    hosts : tuple of str
        Structures in which a lesion may lie.
    brain : (z, y, x) bool tensor, optional
        Mask of the brain, if lesions may extend from their host into all of it;
        otherwise they stay inside their hosts.
    """
    allowed = canvas.inside(*hosts)
    places = torch.nonzero(allowed)
    if len(places) == 0:
        return
    count = 1 if grid.uniform() < 0.7 else grid.integer(2, 5)
    for _ in range(count):
        z, y, x = places[grid.integer(0, len(places))].tolist()
        center = (
            float(grid.left[z, y, x]),
            float(grid.front[z, y, x]),
            float(grid.up[z, y, x]),
        )
        size = grid.uniform(4, 22) if count == 1 else grid.uniform(2.5, 8)
        _draw_one(canvas, grid, center, size, (allowed, brain))


def _draw_one(
    canvas: Canvas,
    grid: Grid,
    center: tuple[float, float, float],
    size: float,
    where: tuple[Tensor, Tensor | None],
) -> None:
    hosts, brain = where
    radii = (
        size * grid.uniform(0.7, 1.3),
        size * grid.uniform(0.7, 1.3),
        size * grid.uniform(0.7, 1.3),
    )
    shape = grid.ellipsoid(center, radii, whole=True) + grid.uniform(
        0.08, 0.25
    ) * grid.noise(max(3.0, 0.6 * size))
    allowed = hosts if brain is None else brain
    if brain is not None and grid.uniform() < 0.65:
        reach = (
            grid.uniform(10, 22)
            if grid.uniform() < 0.5
            else grid.uniform(0.3, 1.0) * size
        ) / size
        fingers = shape + 0.3 * grid.noise(9.0)
        canvas.draw(
            "oedema", "oedema", (fingers < 1.0 + reach) & canvas.inside(*_SOFT_HOSTS)
        )
    canvas.draw("lesion rim", "lesion rim", (shape < 1.0) & allowed)
    if grid.uniform() < 0.7:
        canvas.draw(
            "lesion core", "lesion core", (shape < grid.uniform(0.5, 0.88)) & allowed
        )


def draw_spots(canvas: Canvas, grid: Grid) -> None:
    """Draw small spots of oedema in the white matter, as in age or inflammation."""
    spots = grid.noise(grid.uniform(3.0, 8.0))
    canvas.draw(
        "white spots",
        "oedema",
        (spots > grid.uniform(1.5, 2.3)) & canvas.inside(*_SOFT_HOSTS),
    )
