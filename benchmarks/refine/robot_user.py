"""A robot that corrects.

One click per class and for the background, then always at the deepest point of the
largest wrong part.

A click is a ball of radius 2 voxels, cut off where its class ends. After the first
clicks the score is noted as "0 further clicks".
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from benchmarks.encoder.scans import OTHER
from benchmarks.refine.robot_scans import RobotScan
from numpy.typing import NDArray
from scipy import ndimage

RADIUS = 2
_EIGHTEEN = ndimage.generate_binary_structure(3, 1)

Clicked = Callable[[NDArray[np.int64], int], NDArray[np.integer]]
"""Takes voxels (n, 3) and a region, gives the labels of the whole scan."""


@dataclass(slots=True)
class Game:
    """How it went: mean Dice after 0, 1, 2 ... further clicks, processor seconds per click.

    Final Dice per class.
    """

    dice: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    by_class: dict[int, float] = field(default_factory=dict)

    def at(self, clicks: int) -> float:
        """Mean Dice after some further clicks; the last one where nothing was left to correct."""
        return self.dice[min(clicks, len(self.dice) - 1)]

    @property
    def largest_fall(self) -> float:
        """How much mean Dice one correct click cost at most; 0 if none did."""
        return max((a - b for a, b in itertools.pairwise(self.dice)), default=0.0)

    def until(self, dice: float) -> int | None:
        """Further clicks until a mean Dice, None if it was not reached."""
        reached = [k for k, value in enumerate(self.dice) if value >= dice]
        return reached[0] if reached else None


def region_of(value: int) -> int:
    """The region that a reference value is taught as: background is region 0."""
    return 0 if value == OTHER else int(value)


def dice_by_class(
    labels: NDArray[np.integer], reference: NDArray[np.uint8], classes: Sequence[int]
) -> NDArray[np.float64]:
    """Dice of each class over the scored voxels: what leaks into "other" counts against it."""
    scored = reference > 0
    said, true = labels[scored].astype(np.int64), reference[scored].astype(np.int64)
    said[said > OTHER] = OTHER
    table = np.bincount(said * 256 + true, minlength=256 * 256).reshape(256, 256)
    return np.array(
        [2 * table[c, c] / max(1, table[c].sum() + table[:, c].sum()) for c in classes]
    )


def deepest(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The voxel of a mask that is farthest from its outside.

    (the edge of the scan counts as outside).
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return np.array(np.unravel_index(depth.argmax(), mask.shape), np.int64)


def largest_part(
    mask: NDArray[np.bool_],
) -> tuple[int, NDArray[np.bool_], NDArray[np.int64]]:
    """Size, mask and corner of the largest connected part."""
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return 0, np.zeros((1, 1, 1), bool), np.zeros(3, np.int64)
    parts, count = ndimage.label(mask[box[0]], _EIGHTEEN)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    biggest = int(sizes.argmax())
    inner = ndimage.find_objects((parts == biggest).astype(np.uint8))[0]
    corner = np.array(
        [a.start + b.start for a, b in zip(box[0], inner, strict=True)], np.int64
    )
    return int(sizes[biggest]), parts[inner] == biggest, corner


def ball(center: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The voxels (n, 3) of a ball, as far as they are allowed."""
    steps = np.argwhere(np.ones((2 * RADIUS + 1,) * 3)) - RADIUS
    voxels = center + steps[(steps**2).sum(axis=1) <= RADIUS**2]
    voxels = voxels[((voxels >= 0) & (voxels < allowed.shape)).all(axis=1)]
    return voxels[allowed[tuple(voxels.T)]]


class Robot:
    """The robot on one scan.

    Parameters
    ----------
    scan : RobotScan
        What it looks at; it knows the reference.
    """

    def __init__(self, scan: RobotScan) -> None:
        self.scan = scan
        self.classes = [int(v) for v in scan.taught if v != OTHER]
        self.first = [
            (self._ball_in(scan.reference == value), region_of(value))
            for value in scan.taught
        ]

    def _ball_in(
        self, mask: NDArray[np.bool_], true: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        _, part, corner = largest_part(mask)
        return ball(corner + deepest(part), mask if true is None else true)

    def next_click(
        self, labels: NDArray[np.integer], among: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], int, int] | None:
        """Where it clicks next, for which region, and how many voxels are wrong there.

        None when nothing is wrong.

        With `among`, it looks only at what is missing of these classes.
        """
        reference, worst, found = self.scan.reference, 0, None
        taught = [value for value in self.scan.taught if not among or value in among]
        misses = [
            (reference == value) & (labels != region_of(value)) for value in taught
        ]
        for k in np.argsort([-int(miss.sum()) for miss in misses], kind="stable"):
            if misses[k].sum() <= worst:
                break
            size, part, corner = largest_part(misses[k])
            if size > worst:
                worst, found = size, (part, corner, taught[k])
        if found is None:
            return None
        part, corner, value = found
        return ball(corner + deepest(part), reference == value), region_of(value), worst

    def play(
        self,
        click: Clicked,
        clicks: int,
        labels: NDArray[np.integer] | None = None,
        enough: float = 2.0,
    ) -> Game:
        """Click first once per class.

        (unless labels to start from are given), then `clicks` further times, or until
        it is enough.
        """
        game = Game()
        for voxels, region in self.first if labels is None else []:
            labels = self._timed(game, click, voxels, region)
        for number in range(clicks + 1):
            by_class = dice_by_class(labels, self.scan.reference, self.classes)
            game.dice.append(float(by_class.mean()))
            game.by_class = dict(
                zip(self.classes, by_class.round(3).tolist(), strict=True)
            )
            wanted = (
                self.next_click(labels)
                if number < clicks and game.dice[-1] < enough
                else None
            )
            if wanted is None:
                break
            labels = self._timed(game, click, *wanted[:2])
        return game

    @staticmethod
    def _timed(
        game: Game, click: Clicked, voxels: NDArray[np.int64], region: int
    ) -> NDArray[np.integer]:
        begun = time.process_time()
        labels = click(voxels, region)
        game.seconds.append(time.process_time() - begun)
        return labels
