"""Pictures of a scan with its regions: a page with a legend, and thumbnails."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_strata.errors import WriteError
from napari_strata.io.atomic import atomic_path
from napari_strata.measure import require_same_grid
from napari_strata.volume import BACKGROUND, Segmentation, Volume, region_color

# layout of the page, in pixels
_CELL_PX = 280  # widest slice
_TALLEST_PX = 420  # a long body is scaled down to it
_GAP_PX = 6
_MARGIN_PX = 24
_LEGEND_PX = 270
_LEGEND_ROW_PX = 24
_TITLE_PX = 76
_ROW_TITLE_PX = 30
_NOTE_PX = 34
_LOWEST_PX = 480  # height of the page at least, for the legend
_LOWEST_ROW_PX = 68  # height of a row at least, for its directions
_PAPER, _INK, _FAINT = (16, 17, 20), (236, 237, 240), (150, 154, 162)
_FILL_OPACITY, _OUTLINE_OPACITY, _THUMBNAIL_OPACITY = 0.45, 1.0, 0.15
_FINER = 2
"""Regions are drawn this much finer and scaled down: thin and smooth outlines."""
_BODY_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Slices are taken where this share of the labelled volume lies below."""
_STRAY_SHARE = 0.002
"""Slices with a smaller share of visible voxels are cropped: noise, not body."""
_VISIBLE_SHARE = 0.2
"""Share of the window above black from which an unlabelled voxel counts as visible."""
_CT_BLACK_HU, _CT_WHITE_HU = -200.0, (250.0, 600.0)
"""CT window: black below soft tissue; white between bone marrow and contrast agent."""
_NOTE = "Proposed by Strata. Research software: it proposes, a person decides."


@dataclass(frozen=True, slots=True)
class _Plane:
    """A row of the page: slices along one axis.

    `edges` are the patient's directions at left, right, top and bottom; `poles` the two
    directions along the axis.
    """

    name: str
    axis: int
    edges: str
    poles: str


_PLANES = (
    _Plane("Axial", 0, "RLAP", "SI"),
    _Plane("Coronal", 1, "RLSI", "AP"),
    _Plane("Sagittal", 2, "APSI", "RL"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Palette:
    """Colour, name and volume of each label in the scan, in order of id."""

    ids: NDArray[np.unsignedinteger]
    colors: NDArray[np.uint8]
    names: tuple[str, ...]
    volumes_ml: NDArray[np.float64]

    @classmethod
    def of(cls, segmentation: Segmentation) -> _Palette:
        ids, voxels = np.unique(segmentation.labels, return_counts=True)
        table = {region.id: region for region in segmentation.regions}
        known = [table.get(i) for i in ids.tolist()]
        colors = [
            row.color if row else region_color(i)
            for i, row in zip(ids.tolist(), known, strict=True)
        ]
        names = tuple(
            row.name if row else f"region {i}"
            for i, row in zip(ids.tolist(), known, strict=True)
        )
        return cls(
            ids,
            np.array(colors, np.uint8).reshape(-1, 3),
            names,
            voxels * segmentation.geometry.voxel_volume_mm3 / 1000,
        )

    def paint(self, labels: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
        return self.colors[np.searchsorted(self.ids, labels)]


def montage(volume: Volume, segmentation: Segmentation, path: str | Path) -> None:
    """Write a PNG page of axial, coronal and sagittal slices with the regions on them.

    Each row starts with the bare scan at the middle slice. Slices are upright, true to
    scale in mm, and in the radiological convention: the patient's left is on the right
    in axial and coronal slices. The legend names the largest regions with their volumes
    in mL.

    Parameters
    ----------
    volume : Volume
        The scan.
    segmentation : Segmentation
        Labels on the same grid.
    path : str or Path
        Where the picture goes; must end in ".png".

    Raises
    ------
    GeometryError
        If the two grids differ.
    WriteError
        If the name does not end in ".png" or the file cannot be written.
    """
    require_same_grid(segmentation.geometry, volume.geometry, "The labels", "the scan")
    if Path(path).suffix.lower() != ".png":
        raise WriteError(
            f"The montage is a PNG picture, but {path} does not end in .png. Choose"
            " another name."
        )
    page = _draw_page(_Scene.of(volume, segmentation))
    with atomic_path(path) as unfinished:
        page.save(unfinished, format="PNG")


def thumbnail(
    volume: Volume, segmentation: Segmentation, *, side_px: int = 150
) -> Image.Image:
    """Return a small picture: the middle slice of each plane with regions' outlines.

    Axial, coronal and sagittal side by side, upright, true to scale in mm and in the
    radiological convention, as in `montage`.

    Parameters
    ----------
    volume, segmentation : Volume, Segmentation
        On one grid.
    side_px : int
        Each slice fits a square of this side.

    Raises
    ------
    GeometryError
        If the two grids differ.
    """
    require_same_grid(segmentation.geometry, volume.geometry, "The labels", "the scan")
    scene = _Scene.of(volume, segmentation)
    strip = Image.new("RGB", (3 * side_px, side_px), _PAPER)
    for number, plane in enumerate(_PLANES):
        places = scene.slices(plane)
        picture = scene.contours(plane, places[len(places) // 2], side_px - 2)
        strip.paste(
            picture,
            (
                number * side_px + (side_px - picture.width) // 2,
                (side_px - picture.height) // 2,
            ),
        )
    return strip


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """The part of the scan with the body, its regions, and the window of grey values."""

    volume: Volume
    segmentation: Segmentation
    palette: _Palette
    window: tuple[float, float]
    crop: tuple[slice, slice, slice]

    @classmethod
    def of(cls, volume: Volume, segmentation: Segmentation) -> _Scene:
        window = _window(volume, segmentation)
        return cls(
            volume,
            segmentation,
            _Palette.of(segmentation),
            window,
            _crop(volume, segmentation, window),
        )

    def size_px(self, plane: _Plane) -> tuple[int, int]:
        """Return width and height of a plane's slices, on one mm scale for the page."""
        z, y, x = (
            (part.stop - part.start) * float(mm)
            for part, mm in zip(self.crop, self.volume.spacing_zyx_mm, strict=True)
        )
        px_per_mm = min(_CELL_PX / max(x, y), _TALLEST_PX / z)
        high, wide = [mm for axis, mm in enumerate((z, y, x)) if axis != plane.axis]
        return max(round(wide * px_per_mm), 8), max(round(high * px_per_mm), 8)

    def slices(self, plane: _Plane) -> list[int]:
        """Return slices at fixed shares of the labelled volume, or of the whole scan."""
        across = tuple(axis for axis in range(3) if axis != plane.axis)
        filled = np.count_nonzero(self.segmentation.labels, axis=across).cumsum()
        if filled[-1] == 0:
            filled = np.arange(1, len(filled) + 1)
        return [
            int(np.searchsorted(filled, share * filled[-1])) for share in _BODY_SHARES
        ]

    def grey(self, plane: _Plane, at: int, size_px: tuple[int, int]) -> Image.Image:
        """Draw a slice of the bare scan at a width and height."""
        low, high = self.window
        plain = self._cut(self.volume.data, plane, at).astype(np.float64)
        grey = np.clip((plain - low) / (high - low), 0, 1) * 255
        picture = Image.fromarray(grey.round().astype(np.uint8))
        return picture.resize(size_px, Image.Resampling.BICUBIC).convert("RGB")

    def regions(self, plane: _Plane, at: int) -> Image.Image:
        """Draw a slice of the scan with the regions tinted and outlined."""
        return self._outlined(
            plane, at, self.size_px(plane), fill=_FILL_OPACITY, thick=1
        )

    def contours(self, plane: _Plane, at: int, side_px: int) -> Image.Image:
        """Draw a slice in a small square, with outlines of one pixel."""
        width, height = self.size_px(plane)
        scale = side_px / max(width, height)
        size = max(round(width * scale), 2), max(round(height * scale), 2)
        return self._outlined(plane, at, size, fill=_THUMBNAIL_OPACITY, thick=_FINER)

    def _outlined(
        self,
        plane: _Plane,
        at: int,
        size_px: tuple[int, int],
        *,
        fill: float,
        thick: int,
    ) -> Image.Image:
        """Draw a slice, tinted with opacity `fill`, outlines `thick` fine pixels wide."""
        finer = size_px[0] * _FINER, size_px[1] * _FINER
        scan = np.asarray(self.grey(plane, at, finer), dtype=np.float64)
        labels = self._cut(self.segmentation.labels, plane, at)
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int)
            for n, m in zip(scan.shape, labels.shape, strict=False)
        )
        labels = labels[np.ix_(rows, columns)]
        outline = np.zeros(labels.shape, bool)
        for step in range(1, thick + 1):
            outline[:-step] |= labels[:-step] != labels[step:]
            outline[:, :-step] |= labels[:, :-step] != labels[:, step:]
        opacity = (np.where(outline, _OUTLINE_OPACITY, fill) * (labels != BACKGROUND))[
            ..., None
        ]
        mixed = scan * (1 - opacity) + self.palette.paint(labels) * opacity
        return Image.fromarray(mixed.round().astype(np.uint8)).resize(
            size_px, Image.Resampling.BOX
        )

    def _cut(self, array: NDArray[Any], plane: _Plane, at: int) -> NDArray[Any]:
        index = list(self.crop)
        index[plane.axis] = slice(at, at + 1)
        return array[tuple(index)].squeeze(plane.axis)


def _window(volume: Volume, segmentation: Segmentation) -> tuple[float, float]:
    """Return the intensities shown as black and white.

    MR: percentiles of the body. CT: soft tissue, and contrast agent if there is any.
    """
    body = volume.data[segmentation.labels != BACKGROUND]
    low, high = np.percentile(
        (body if body.size else volume.data).astype(np.float32), [0.5, 99.5]
    ).tolist()
    if volume.modality == "ct":
        return _CT_BLACK_HU, float(np.clip(high, *_CT_WHITE_HU))
    return low, max(high, low + 1e-6)


def _crop(
    volume: Volume, segmentation: Segmentation, window: tuple[float, float]
) -> tuple[slice, slice, slice]:
    """Return the box without air: what is labelled, or bright enough to be seen."""
    low, high = window
    data: NDArray[Any] = volume.data
    seen = (segmentation.labels != BACKGROUND) | (
        data > low + _VISIBLE_SHARE * (high - low)
    )
    parts = []
    for axis, length in enumerate(seen.shape):
        share = seen.mean(axis=tuple(other for other in range(3) if other != axis))
        kept = np.flatnonzero(share > _STRAY_SHARE)
        first, last = (kept[0], kept[-1]) if len(kept) else (0, length - 1)
        margin = 2 + length // 40
        parts.append(
            slice(max(int(first) - margin, 0), min(int(last) + 1 + margin, length))
        )
    return parts[0], parts[1], parts[2]


def _draw_page(scene: _Scene) -> Image.Image:
    sizes = [scene.size_px(plane) for plane in _PLANES]
    column_px = max(width for width, _ in sizes) + _GAP_PX
    legend_left = _MARGIN_PX + (len(_BODY_SHARES) + 1) * column_px + 4 * _GAP_PX
    height = (
        _TITLE_PX
        + sum(
            max(row_px, _LOWEST_ROW_PX) + _ROW_TITLE_PX + _GAP_PX for _, row_px in sizes
        )
        + _NOTE_PX
    )
    page = Image.new("RGB", (legend_left + _LEGEND_PX, max(height, _LOWEST_PX)), _PAPER)
    draw = ImageDraw.Draw(page)
    _draw_title(draw, scene)
    top = _TITLE_PX
    for plane, (_, row_px) in zip(_PLANES, sizes, strict=True):
        _draw_row(page, scene, plane, top, column_px)
        top += _ROW_TITLE_PX + max(row_px, _LOWEST_ROW_PX) + _GAP_PX
    _draw_legend(draw, scene.palette, left=legend_left, bottom=page.height - _NOTE_PX)
    _text(draw, (_MARGIN_PX, page.height - _NOTE_PX + 10), _NOTE, 13, _FAINT)
    return page


def _draw_row(
    page: Image.Image, scene: _Scene, plane: _Plane, top: int, column_px: int
) -> None:
    """Draw one plane: its name, the bare middle slice, then slices with regions."""
    draw = ImageDraw.Draw(page)
    _text(draw, (_MARGIN_PX, top + 6), plane.name, 15, _INK)
    places = scene.slices(plane)
    middle = places[len(places) // 2]
    pictures = [
        scene.grey(plane, middle, scene.size_px(plane)),
        *(scene.regions(plane, at) for at in places),
    ]
    for column, (picture, at) in enumerate(
        zip(pictures, [middle, *places], strict=True)
    ):
        left = (
            _MARGIN_PX
            + column * column_px
            + (2 * _GAP_PX if column else 0)
            + (column_px - _GAP_PX - picture.width) // 2
        )
        row_px = max(picture.height, _LOWEST_ROW_PX)
        box = (
            left,
            top + _ROW_TITLE_PX,
            left + picture.width,
            top + _ROW_TITLE_PX + row_px,
        )
        page.paste(picture, (left, box[1] + (row_px - picture.height) // 2))
        _text(
            draw, (box[0] + 4, box[3] - 18), _place(scene.volume, plane, at), 12, _INK
        )
        if column == 0:
            _draw_edges(draw, box, plane.edges)


def _place(volume: Volume, plane: _Plane, at: int) -> str:
    """Return where the middle of a slice lies in the patient, such as "S 12 mm"."""
    center = (np.array(volume.data.shape) - 1) / 2
    center[plane.axis] = at
    along = {"RL": 0, "AP": 1, "SI": 2}[plane.poles]
    mm = float(volume.geometry.world_from_voxel(center)[along])
    return f"{plane.poles[0] if mm >= 0 else plane.poles[1]} {abs(mm):.0f} mm"


def _draw_title(draw: ImageDraw.ImageDraw, scene: _Scene) -> None:
    volume = scene.volume
    voxels = " x ".join(str(n) for n in reversed(volume.data.shape))
    spacing = " x ".join(f"{mm:.3g}" for mm in reversed(volume.spacing_zyx_mm.tolist()))
    regions = np.count_nonzero(scene.palette.ids)
    _text(draw, (_MARGIN_PX, 16), volume.name, 22, _INK)
    _text(
        draw,
        (_MARGIN_PX, 48),
        f"{volume.modality.upper()}, {voxels} voxels of {spacing} mm, {regions}"
        " regions",
        14,
        _FAINT,
    )


def _draw_edges(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], edges: str
) -> None:
    left, top, right, bottom = box
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    places = (
        (left + 4, middle_y, "lm"),
        (right - 4, middle_y, "rm"),
        (middle_x, top + 3, "mt"),
        (middle_x, bottom - 3, "mb"),
    )
    for letter, (x, y, anchor) in zip(edges, places, strict=True):
        draw.text(
            (x, y),
            letter,
            _INK,
            ImageFont.load_default(15),
            anchor=anchor,
            stroke_width=2,
            stroke_fill=_PAPER,
        )


def _draw_legend(
    draw: ImageDraw.ImageDraw, palette: _Palette, *, left: int, bottom: int
) -> None:
    """List the largest regions, as many as fit, with their colours and volumes."""
    shown = np.flatnonzero(palette.ids != BACKGROUND)
    shown = shown[np.argsort(-palette.volumes_ml[shown], kind="stable")]
    room = (bottom - _TITLE_PX - _ROW_TITLE_PX) // _LEGEND_ROW_PX - 1
    heading = "Largest regions" if len(shown) > room else "Regions"
    _text(
        draw, (left, _TITLE_PX + 6), heading if len(shown) else "No regions", 15, _INK
    )
    right, y = left + _LEGEND_PX - _MARGIN_PX, _TITLE_PX + _ROW_TITLE_PX
    for k in shown[:room].tolist():
        draw.rounded_rectangle(
            (left, y + 3, left + 14, y + 17), 3, fill=tuple(palette.colors[k].tolist())
        )
        size = f"{palette.volumes_ml[k]:,.1f} mL"
        font = ImageFont.load_default(14)
        _text(
            draw,
            (left + 24, y + 2),
            _shorten(
                draw, palette.names[k], right - left - 34 - draw.textlength(size, font)
            ),
            14,
            _INK,
        )
        draw.text((right, y + 2), size, _FAINT, font, anchor="ra")
        y += _LEGEND_ROW_PX
    if len(shown) > room:
        rest = shown[room:]
        _text(
            draw,
            (left, y + 2),
            f"and {len(rest)} more, {palette.volumes_ml[rest].sum():,.1f} mL",
            14,
            _FAINT,
        )


def _shorten(draw: ImageDraw.ImageDraw, name: str, width: float) -> str:
    font, name = ImageFont.load_default(14), _plain(name)
    if draw.textlength(name, font) <= width:
        return name
    while name and draw.textlength(name + "...", font) > width:
        name = name[:-1]
    return name + "..."


def _plain(text: str) -> str:
    """Return a name in the letters of Pillow's own font: the same on every machine."""
    return (
        unicodedata.normalize("NFKD", text.replace("ß", "ss"))
        .encode("ascii", "ignore")
        .decode()
        or "?"
    )


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    color: tuple[int, int, int],
) -> None:
    draw.text(
        place,
        _plain(text),
        color,
        ImageFont.load_default(size),
        stroke_width=1,
        stroke_fill=_PAPER,
    )
