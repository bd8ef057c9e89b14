"""The sixth part: a page per scan that a person can judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from benchmarks.encoder.scans import OTHER, LabelledScan
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_strata.proposal.proposal import Proposal
from napari_strata.report import _FAINT, _INK, _PAPER, _PLANES, _crop, _text, _window
from napari_strata.volume import region_color

_WIDEST_PX, _TALLEST_PX, _GAP_PX, _MARGIN_PX, _HEAD_PX = 440, 560, 8, 20, 76
Kind = TypeVar("Kind", bound=np.generic)
_FINER = 2  # drawn this much finer and scaled down, so that outlines stay thin
_FILL, _TISSUES, _REGIONS = 0.5, 16, 100
_EDGE_COLOR, _OTHER_COLOR = (255, 214, 64), (70, 72, 80)
_UNSURE_TO_SURE = np.array(
    [(120, 20, 60), (225, 90, 50), (250, 205, 80), (120, 205, 120), (40, 150, 190)],
    np.float64,
)
_COLUMNS = (
    "scan",
    "reference",
    "supervoxels",
    f"{_TISSUES} tissues",
    f"{_REGIONS} regions",
    "confidence",
)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A slice of the part of the scan that is shown, and its size on the page."""

    axis: int
    crop: tuple[slice, slice, slice]
    at: int
    size_px: tuple[int, int]
    window: tuple[float, float]

    def cut(self, image: NDArray[Kind]) -> NDArray[Kind]:
        """Give the slice of an array on the scan's grid, as fine as it is drawn.

        Each pixel from the nearest voxel.
        """
        index = list(self.crop)
        index[self.axis] = slice(self.at, self.at + 1)
        plane = image[tuple(index)].squeeze(self.axis)
        wide, high = (n * _FINER for n in self.size_px)
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int)
            for n, m in zip((high, wide), plane.shape, strict=True)
        )
        return plane[np.ix_(rows, columns)]

    def grey(self, image: NDArray[np.generic]) -> NDArray[np.float64]:
        """Give the bare slice as colours, (y, x, 3)."""
        low, high = self.window
        shade = (
            np.clip((self.cut(image).astype(np.float64) - low) / (high - low), 0, 1)
            * 255
        )
        return np.repeat(shade[..., None], 3, axis=2)

    def picture(self, colors: NDArray[np.float64]) -> Image.Image:
        """Scale colours down to the page."""
        return Image.fromarray(colors.round().astype(np.uint8)).resize(
            self.size_px, Image.Resampling.BOX
        )


def draw_page(proposal: Proposal, scan: LabelledScan, path: Path) -> None:
    """Write a PNG: three planes through the middle of the body, each as scan, reference.

    Supervoxels, tissues, regions, confidence.

    Confidence goes from dark red (0) over yellow to blue (1). In the reference, "other"
    is grey and what is not scored bare.
    """
    views = list(_views(proposal))
    wide, high = (
        max(view.size_px[0] for view in views) + _GAP_PX,
        sum(view.size_px[1] + _GAP_PX for view in views),
    )
    page = Image.new(
        "RGB",
        (2 * _MARGIN_PX + len(_COLUMNS) * wide, _HEAD_PX + high + _MARGIN_PX),
        _PAPER,
    )
    draw = ImageDraw.Draw(page)
    body = proposal.region_tree.max_regions
    _text(
        draw,
        (_MARGIN_PX, 12),
        f"{scan.name}: {proposal.n_supervoxels} supervoxels, {body} of them in the"
        " body",
        20,
        _INK,
    )
    for column, name in enumerate(_COLUMNS):
        _text(draw, (_MARGIN_PX + column * wide, _HEAD_PX - 26), name, 15, _FAINT)
    top = _HEAD_PX
    for view in views:
        for column, picture in enumerate(_cells(view, proposal, scan)):
            page.paste(picture, (_MARGIN_PX + column * wide, top))
        top += view.size_px[1] + _GAP_PX
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def _views(proposal: Proposal) -> Iterator[_View]:
    body = proposal.tissues(1)
    window = _window(proposal.volume, body)
    crop = _crop(proposal.volume, body, window)
    size_mm = (
        np.array([part.stop - part.start for part in crop])
        * proposal.volume.spacing_zyx_mm
    )
    px_per_mm = min(_WIDEST_PX / max(size_mm[1:]), _TALLEST_PX / size_mm[0])
    for plane in _PLANES:
        down, across = (axis for axis in range(3) if axis != plane.axis)
        filled = np.count_nonzero(body.labels, axis=(down, across)).cumsum()
        size_px = (
            max(round(size_mm[across] * px_per_mm), 8),
            max(round(size_mm[down] * px_per_mm), 8),
        )
        yield _View(
            plane.axis,
            crop,
            int(np.searchsorted(filled, filled[-1] / 2)),
            size_px,
            window,
        )


def _cells(
    view: _View, proposal: Proposal, scan: LabelledScan
) -> Iterator[Image.Image]:
    grey = view.grey(proposal.volume.data)
    pieces = view.cut(proposal.supervoxels)
    tissues, regions = (
        proposal.tissue_tree.cut(_TISSUES)[pieces],
        proposal.region_tree.cut(_REGIONS)[pieces],
    )
    yield view.picture(grey)
    yield view.picture(_tinted(grey, view.cut(scan.reference)))
    yield view.picture(
        np.where(_outline(pieces)[..., None], np.array(_EDGE_COLOR, np.float64), grey)
    )
    yield view.picture(_tinted(grey, tissues))
    yield view.picture(_tinted(grey, regions))
    yield view.picture(
        np.where(
            (tissues > 0)[..., None],
            _ramp(proposal.confidence[pieces]),
            np.array(_PAPER, np.float64),
        )
    )


def _tinted(
    grey: NDArray[np.float64], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Lay the colours of labels (0 bare) over a slice, their outlines opaque."""
    colors = np.array(
        [region_color(i) for i in range(int(labels.max()) + 1)], np.float64
    )
    if len(colors) > OTHER:
        colors[OTHER] = _OTHER_COLOR
    opacity = (np.where(_outline(labels), 1.0, _FILL) * (labels > 0))[..., None]
    return grey * (1 - opacity) + colors[labels] * opacity


def _outline(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge


def _ramp(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colour values in [0, 1]."""
    place = np.clip(values, 0, 1) * (len(_UNSURE_TO_SURE) - 1)
    return np.stack(
        [
            np.interp(place, np.arange(len(_UNSURE_TO_SURE)), channel)
            for channel in _UNSURE_TO_SURE.T
        ],
        axis=-1,
    )
