"""The gallery: a contact sheet of synthetic scans, for visual inspection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from napari_strata.errors import SettingsError
from napari_strata.synthesis import artefacts
from napari_strata.synthesis.anatomy import COMPARTMENTS, TISSUES, Anatomy
from napari_strata.synthesis.appearance import CONTRASTS, Contrast
from napari_strata.synthesis.fields import Grid, blur, make_grid
from napari_strata.synthesis.head import INSIDE_SKULL
from napari_strata.synthesis.synthesiser import Family, Synthesiser, SyntheticScan
from napari_strata.volume import region_color

_TILE, _GAP, _CAPTION, _COLUMNS = 112, 6, 14, 6
_WHOLE: dict[Family, tuple[float, tuple[float, float, float]]] = {
    "head": (2.3, (0.0, 2.0, -8.0)),
    "torso": (4.2, (0.0, 0.0, -60.0)),
    "shapes": (1.6, (0.0, 0.0, 0.0)),
}
"""Voxel size in mm, and centre as (left, front, up) in mm, of a view of the whole body."""
_WHOLE_SHAPE = (88, 96, 96)

Picture = NDArray[np.uint8]

_SHOWN: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "soft": lambda image, _: blur(image, (0.75, 0.75, 0.75)),
    "thick": lambda image, _: artefacts.thicken(image, axis=0, factor=6),
    "jumps": lambda image, grid: artefacts.slice_jumps(
        image, grid, axis=0, strength=0.12
    ),
    "gamma": lambda image, _: artefacts.gamma(image, 1.55),
    "bias": lambda image, grid: image * artefacts.bias_field(grid, strength=0.6),
    "ringing": lambda image, _: artefacts.ringing(image, keep=0.55),
    "motion": lambda image, grid: artefacts.motion(image, grid),
    "noise": lambda image, grid: artefacts.rician(image, grid, sigma=0.08),
    "crop": lambda image, grid: image * (grid.up < 40),
}
"""How an artefact is shown on an MR image, strong enough to see."""
_SHOWN_CT: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "noise": lambda image, grid: artefacts.ct_noise(image, grid, sigma_hu=40.0),
    "metal": lambda image, grid: image + artefacts.metal_streaks(image, grid),
    "window": lambda image, grid: artefacts.soft_window(image, grid),
}


def draw_gallery(
    synthesiser: Synthesiser, *, seed: int = 0, count: int = 12
) -> Image.Image:
    """Draw a contact sheet of random blocks, all contrasts of one body, and all artefacts.

    Parameters
    ----------
    synthesiser : Synthesiser
        The synthesiser to show. Blocks have its shape, and what it leaves out is not
        shown.
    seed : int
        The same seed gives the same sheet.
    count : int
        Random blocks to show, 1 to 240.

    Returns
    -------
    PIL.Image.Image
        RGB. Each block is shown as its middle axial slice beside the tissues in colour.

    Raises
    ------
    SettingsError
        If `count` is outside its limits.
    """
    if not 1 <= count <= 240:
        raise SettingsError(
            f"A gallery of {count} blocks cannot be drawn. Ask for 1 to 240."
        )
    family = next(
        name
        for name, chance in synthesiser.families.items()
        if chance > 0 and name not in synthesiser.without
    )
    sections = [
        (
            "Random blocks: image and tissues",
            [_block(synthesiser.make(number)) for number in range(seed, seed + count)],
        ),
        ("One block, two renderings, and its compartments", _views(synthesiser, seed)),
        (f"One {family} in every contrast", _contrasts(synthesiser, family, seed)),
        ("Every fault alone, strong", _faults(synthesiser, family, seed)),
    ]
    width = _COLUMNS * (2 * _TILE + _GAP) + _GAP
    rows: list[Picture] = []
    for title, cells in sections:
        rows.append(_text(title, width, 22, size=15))
        rows += [
            _row(cells[start : start + _COLUMNS], width)
            for start in range(0, len(cells), _COLUMNS)
        ]
    return Image.fromarray(np.concatenate(rows))


def _block(scan: SyntheticScan) -> Picture:
    middle = scan.image.shape[0] // 2
    spacing = " x ".join(f"{s:.1f}" for s in scan.spacing_mm)
    caption = f"{scan.anatomy.family}, {scan.contrast}, {spacing} mm"
    return _cell(
        caption,
        _grey(scan.image, middle, is_ct=scan.is_ct),
        _colours(scan.anatomy.tissues, middle, len(TISSUES)),
    )


def _views(synthesiser: Synthesiser, seed: int) -> list[Picture]:
    cells = []
    for number in range(seed, seed + 2):
        first, second = synthesiser.make_views(number, 2)
        middle = first.image.shape[0] // 2
        greys = [
            _grey(scan.image, middle, is_ct=scan.is_ct) for scan in (first, second)
        ]
        cells.append(_cell(f"{first.contrast} and {second.contrast}", *greys))
        parts = _colours(first.anatomy.compartments, middle, len(COMPARTMENTS))
        cells.append(
            _cell(
                "tissues and compartments",
                _colours(first.anatomy.tissues, middle, len(TISSUES)),
                parts,
            )
        )
    return cells


def _contrasts(synthesiser: Synthesiser, family: Family, seed: int) -> list[Picture]:
    cells, up, front = [], 40, _WHOLE_SHAPE[1] // 2
    for contrast in (name for name in CONTRASTS if name not in synthesiser.without):
        scan = _whole(synthesiser, family, contrast, seed)
        cells.append(
            _cell(
                contrast,
                _grey(scan.image, up, is_ct=scan.is_ct),
                _grey(scan.image, front, is_ct=scan.is_ct, axis=1),
            )
        )
    labels = scan.anatomy.tissues
    cells.append(
        _cell(
            "tissues",
            _colours(labels, up, len(TISSUES)),
            _colours(labels, front, len(TISSUES), axis=1),
        )
    )
    return cells


def _whole(
    synthesiser: Synthesiser, family: Family, contrast: Contrast, seed: int
) -> SyntheticScan:
    step, center = _WHOLE[family]
    plain = ("jumps", "ringing", "motion", "metal", "gamma")
    maker = replace(
        synthesiser,
        shape=_WHOLE_SHAPE,
        without=tuple({*synthesiser.without, *plain} - {family}),
    )
    return maker.make_whole(
        seed,
        family=family,
        contrast=contrast,
        spacing_mm=(step, step, step),
        center_mm=center,
    )


def _faults(synthesiser: Synthesiser, family: Family, seed: int) -> list[Picture]:
    """Return pictures of a clean image and of each artefact; CT artefacts on a CT."""
    clean = replace(
        synthesiser, without=tuple({*synthesiser.without, *artefacts.FAULTS})
    )
    step, center = _WHOLE[family]
    grid = make_grid(
        _WHOLE_SHAPE,
        (step, step, step),
        center,
        torch.Generator(synthesiser.device).manual_seed(seed),
    )
    mr, ct = (_whole(clean, family, contrast, seed) for contrast in ("t1", "ct"))
    cells = []
    for fault, spoil in _SHOWN.items():
        if fault not in synthesiser.without:
            pair = [
                _grey(image, _WHOLE_SHAPE[1] // 2, is_ct=False, axis=1)
                for image in (mr.image, spoil(mr.image, grid))
            ]
            cells.append(_cell(f"{fault} (t1)", *pair))
    if family == "head" and "strip" not in synthesiser.without:
        cells.append(_cell("strip (t1)", *_stripped(mr.image, mr.anatomy)))
    for fault, spoil in _SHOWN_CT.items():
        if fault not in synthesiser.without:
            spoilt = spoil(ct.image, grid)
            # The slice with the largest change, air left out.
            worst = int(
                ((spoilt - ct.image).abs() * (ct.image > -500)).sum((1, 2)).argmax()
            )
            cells.append(
                _cell(
                    f"{fault} (ct)",
                    *(_grey(image, worst, is_ct=True) for image in (ct.image, spoilt)),
                )
            )
    return cells


def _stripped(image: Tensor, anatomy: Anatomy) -> tuple[Picture, Picture]:
    middle = image.shape[1] // 2
    pair = [
        _grey(shown, middle, is_ct=False, axis=1)
        for shown in (image, image * anatomy.inside(INSIDE_SKULL))
    ]
    return pair[0], pair[1]


def _grey(image: Tensor, index: int, *, is_ct: bool, axis: int = 0) -> Picture:
    data = image.select(axis, index).cpu().numpy()
    low, high = (
        (-200.0, 300.0)
        if is_ct
        else (float(v) for v in np.percentile(image.cpu().numpy(), (0.5, 99.7)))
    )
    bright = np.clip((data - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=-1)


def _colours(labels: Tensor, index: int, count: int, *, axis: int = 0) -> Picture:
    table = np.array(
        [(0, 0, 0)] + [region_color(number) for number in range(1, count)],
        dtype=np.uint8,
    )
    coloured: Picture = table[labels.select(axis, index).cpu().numpy()]
    return coloured


def _cell(caption: str, left: Picture, right: Picture) -> Picture:
    pair = np.concatenate([_fit(left), _fit(right)], axis=1)
    return np.concatenate([_text(caption, pair.shape[1], _CAPTION, size=10), pair])


def _fit(picture: Picture) -> Picture:
    """Scale a slice to fit a square tile, and centre it there."""
    scale = _TILE / max(picture.shape[:2])
    size = (
        max(1, round(picture.shape[1] * scale)),
        max(1, round(picture.shape[0] * scale)),
    )
    tile = Image.new("RGB", (_TILE, _TILE))
    tile.paste(
        Image.fromarray(picture).resize(size, Image.Resampling.NEAREST),
        ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2),
    )
    return np.asarray(tile)


def _row(cells: list[Picture], width: int) -> Picture:
    row = np.full((cells[0].shape[0] + _GAP, width, 3), 40, dtype=np.uint8)
    for number, cell in enumerate(cells):
        left = _GAP + number * (cell.shape[1] + _GAP)
        row[: cell.shape[0], left : left + cell.shape[1]] = cell
    return row


def _text(text: str, width: int, height: int, *, size: int) -> Picture:
    strip = Image.new("RGB", (width, height), (40, 40, 40))
    ImageDraw.Draw(strip).text(
        (_GAP, 0), text, fill=(235, 235, 235), font=ImageFont.load_default(size)
    )
    return np.asarray(strip)
