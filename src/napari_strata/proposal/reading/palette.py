"""Colours of a tree's regions: like intensities look alike, neighbours differ.

A region has the hue of its intensity, so left and right of one structure share a hue.
Shades tell touching regions apart. The colour belongs to the id and is the same in every
cut, as the larger part of a region that is split keeps its id.
"""

from __future__ import annotations

import colorsys
from bisect import bisect_right, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_strata.proposal.hierarchy.tree import Hierarchy

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class PaletteConstants:
    """Constants of the colours."""

    regions: int = 256
    """Ids that get a colour of their own; later ones have their usual colour."""
    darkest_hue: float = 0.68
    """Hue of the darkest region, blue; hues run over green and yellow to the brightest."""
    brightest_hue: float = 0.0
    """Hue of the brightest region, red."""
    shades: tuple[tuple[float, float], ...] = (
        (0.85, 0.95),
        (0.50, 1.00),
        (0.95, 0.65),
        (0.60, 0.80),
        (0.35, 0.90),
        (0.75, 0.50),
    )
    """Saturation and value of the shades that regions of one hue are told apart by."""


CONSTANTS = PaletteConstants()


def tree_colors(
    tree: Hierarchy,
    intensity: NDArray[np.floating],
    edges: NDArray[np.integer],
) -> tuple[Color, ...]:
    """Return the colours of the ids 1, 2, ... of a tree.

    Parameters
    ----------
    tree : Hierarchy
        The tree.
    intensity : (n,) float array
        Intensity of each supervoxel, in any unit.
    edges : (e, 2) integer array
        Pairs of touching supervoxels.
    """
    count = min(CONSTANTS.regions, tree.max_regions)
    if count < 1:
        return ()
    span = CONSTANTS.brightest_hue - CONSTANTS.darkest_hue
    place = _intensity_places(tree, intensity, count)
    hues = CONSTANTS.darkest_hue + span * place
    table = tree.cut(count)
    beside = _touching(table, edges, count)
    choices = np.array(
        [[colorsys.hsv_to_rgb(h, s, v) for s, v in CONSTANTS.shades] for h in hues]
    )
    chosen = np.zeros((count, 3))
    for number in range(count):
        others = [k for k in beside[number] if k < number]
        chosen[number] = choices[number, number % len(CONSTANTS.shades)]
        if others:
            apart = np.abs(choices[number][:, None] - chosen[others][None]).sum(axis=2)
            chosen[number] = choices[number, int(apart.min(axis=1).argmax())]
    return tuple(
        (int(red), int(green), int(blue))
        for red, green, blue in np.round(chosen * 255).tolist()
    )


def _intensity_places(
    tree: Hierarchy, intensity: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """Return where each id lies among the intensities of the body, (count,) in [0, 1].

    An id's intensity is the mean of the region as which it first appears. Places are even
    over the ids, so that hues are.
    """
    sums = np.concatenate([[0.0], np.cumsum(intensity[tree.leaf_order], dtype=float)])
    walls = [tree.n_background, tree.n_supervoxels]
    means = np.empty(count)
    for number, start in enumerate([walls[0], *tree.breaks[: count - 1].tolist()]):
        stop = walls[bisect_right(walls, start)]
        means[number] = (sums[stop] - sums[start]) / max(stop - start, 1)
        if number:
            insort(walls, start)
    order = means.argsort(kind="stable").argsort(kind="stable")
    return np.asarray(order / max(count - 1, 1), np.float64)


def _touching(
    table: NDArray[np.integer], edges: NDArray[np.integer], count: int
) -> list[list[int]]:
    """Return the touching ids of each id, from 0."""
    pairs = table[edges].astype(np.int64)
    pairs = pairs[(pairs > 0).all(axis=1) & (pairs[:, 0] != pairs[:, 1])] - 1
    codes = np.unique(np.sort(pairs, axis=1) @ np.array([count, 1]))
    found: list[list[int]] = [[] for _ in range(count)]
    for one, other in zip(*np.divmod(codes, count), strict=True):
        found[int(one)].append(int(other))
        found[int(other)].append(int(one))
    return found
