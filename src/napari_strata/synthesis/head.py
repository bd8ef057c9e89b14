"""A head: scalp, skull, folded cortex, white matter, deep nuclei, ventricles, cerebellum, eyes, airways, neck."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Anatomy, Canvas
from napari_strata.synthesis.fields import Grid

HEAD_EXTENT_MM = (150.0, 190.0, 200.0)
"""Rough size (left, front, up) of the head that is drawn around the origin."""


def draw_head(grid: Grid) -> Anatomy:
    """Draw a random head on a grid whose origin is the middle of the brain."""
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(2.5, 45.0)
    width, length, height = (grid.uniform(0.9, 1.1) * r for r in (66.0, 82.0, 66.0))
    radius = (width + length + height) / 3
    depth = (bent.ellipsoid((0, 0, 4), (width, length, height), 2.2) - 1.0) * radius
    _draw_face_and_neck(canvas, bent, width, length, height)
    _draw_layers(canvas, bent, depth)
    _draw_brain(canvas, bent, depth)
    _draw_deep(canvas, bent)
    _draw_cerebellum(canvas, bent)
    _draw_vessels(canvas, bent, depth)
    if grid.uniform() < 0.35:
        draw_lesion(canvas, bent, ("white matter", "cortex", "cerebellum white matter"))
    return canvas.finish("head")


def _draw_face_and_neck(canvas: Canvas, grid: Grid, width: float, length: float, height: float) -> None:
    face = grid.ellipsoid((0, 38, -48), (0.86 * width, 52, 62))
    neck = torch.hypot(grid.left / 56, (grid.front + 22) / 60)
    neck = torch.where(grid.up < -30, neck, torch.full_like(neck, 9.0))
    nose = grid.ellipsoid((0, 92, -42), (13, 16, 18))
    outside = torch.minimum(torch.minimum(face, neck), nose)
    canvas.draw("skin", "skin", outside < 1.0)
    canvas.draw("fat", "fat", outside < 0.965)
    muscle = grid.noise(11.0)
    canvas.draw("muscle", "muscle", (outside < 0.93) & (muscle > -0.55))
    canvas.draw("glands", "gland", (outside < 0.9) & (muscle < -1.1))
    jaw = torch.hypot(grid.left / 46, (grid.front - 42) / 46)
    canvas.draw("jaw", "bone", (jaw < 1.0) & (jaw > 0.78) & (grid.front > 30) & ((grid.up + 82).abs() < 11))
    canvas.draw("jaw marrow", "marrow", (jaw < 0.94) & (jaw > 0.84) & (grid.front > 30) & ((grid.up + 82).abs() < 7))
    fold = grid.mirrored()
    sinus = torch.minimum(fold.ellipsoid((20, 62, -50), (15, 16, 17)), fold.ellipsoid((6, 72, -38), (5, 24, 20)))
    canvas.draw("sinus wall", "bone", (sinus < 1.12) & (outside < 0.95))
    canvas.draw("sinuses", "air", (sinus < 1.0) & (outside < 0.95))
    throat = torch.hypot(grid.left / 12, (grid.front - 18) / 9)
    canvas.draw("throat", "air", (throat < 1.0) & (grid.up < -55))
    bone = torch.hypot(grid.left / 20, (grid.front + 18) / 15)
    level = torch.remainder(grid.up / 19.0, 1.0)
    canvas.draw("neck vertebrae", "bone", (bone < 1.0) & (grid.up < -62) & (level > 0.24))
    canvas.draw("vertebra marrow", "marrow", (bone < 0.8) & (grid.up < -62) & (level > 0.32) & (level < 0.92))
    canvas.draw("discs", "disc", (bone < 0.95) & (grid.up < -62) & (level <= 0.24))


def _draw_layers(canvas: Canvas, grid: Grid, depth: Tensor) -> None:
    scalp, skull = grid.uniform(3.5, 8.0), grid.uniform(4.0, 8.5)
    csf = grid.uniform(1.0, 3.5)
    above = (grid.up > -52) | (depth < 0)
    cap = torch.where(above, depth, torch.full_like(depth, 99.0))
    wobble = 0.8 * grid.noise(25.0)
    canvas.draw("skin", "skin", cap < csf + skull + scalp + 1.8)
    canvas.draw("scalp fat", "fat", cap < csf + skull + scalp + wobble)
    temporal = (grid.left.abs() > 48) & (grid.up < 14) & (grid.front > -30)
    canvas.draw("muscle", "muscle", temporal & (cap < csf + skull + scalp - 1.0))
    canvas.draw("skull", "bone", cap < csf + skull + 0.3 * wobble)
    canvas.draw("skull marrow", "marrow", (cap < csf + 0.72 * skull + wobble) & (cap > csf + 0.32 * skull))
    canvas.draw("dura", "vessel wall", cap < csf + 0.9)
    canvas.draw("outer csf", "csf", cap < csf)
    eyes = grid.mirrored().ellipsoid((31, 74, -18), (12, 12, 12))
    canvas.draw("orbit", "fat", (eyes < 1.55) & (cap > csf))
    canvas.draw("eyes", "eye", (eyes < 1.0) & (cap > csf))


def folded_shell(grid: Grid, depth: Tensor, *, length_mm: float, sulcus_mm: float, thickness_mm: float) -> tuple[Tensor, Tensor]:
    """Give a gyrified shell: where grey matter is, and where the white matter under it is.

    Sulci are the thin sheets in which a smooth field crosses zero; they sink the outer surface by up to `sulcus_mm`
    and, more broadly, the inner one too, so that a ribbon of about `thickness_mm` lines each of them.
    """
    ridge = grid.noise(length_mm)
    ridge = ridge + 0.35 * grid.noise(0.5 * length_mm)
    slope = max(2.0, 0.55 * length_mm)
    open_mm = grid.uniform(0.3, 1.1)
    narrow = torch.exp(-((ridge * slope / (open_mm + 0.5)) ** 2))
    wide = torch.exp(-((ridge * slope / (open_mm + 1.15 * thickness_mm)) ** 2))
    outer = depth + sulcus_mm * narrow
    inner = depth + thickness_mm + (sulcus_mm + 0.5 * thickness_mm) * wide
    return (outer < 0) & (inner >= 0), inner < 0


def _draw_brain(canvas: Canvas, grid: Grid, depth: Tensor) -> None:
    gap = torch.where(grid.up > -10, 2.2 - grid.left.abs(), torch.full_like(depth, -9.0))
    brain = torch.maximum(depth, gap)
    brain = torch.maximum(brain, (-34 - grid.up) + torch.where(grid.front > -20, 0.0, 16.0))
    grey, white = folded_shell(
        grid, brain, length_mm=grid.uniform(11, 16), sulcus_mm=grid.uniform(9, 18), thickness_mm=grid.uniform(2.2, 3.8)
    )
    callosum = grid.ellipsoid((0, 0, 16), (26, 36, 9))
    canvas.draw("cortex", "grey matter", grey)
    canvas.draw("white matter", "white matter", white | ((callosum < 1.0) & (depth < -12)))


def _draw_deep(canvas: Canvas, grid: Grid) -> None:
    fold = grid.mirrored()
    scale = grid.uniform(0.8, 1.25)
    canvas.draw("thalamus", "deep grey matter", fold.ellipsoid((11, -14, 4), (9, 14, 9)) < 1.0)
    canvas.draw("putamen", "deep grey matter", fold.ellipsoid((25, 8, 2), (6, 18, 11)) < 1.0)
    canvas.draw("pallidum", "deep grey matter", fold.ellipsoid((19, 3, 0), (4.5, 9, 7)) < 1.0)
    canvas.draw("caudate", "deep grey matter", fold.ellipsoid((13, 18, 10), (5, 14, 9)) < 1.0)
    canvas.draw("hippocampus", "grey matter", fold.ellipsoid((26, -18, -16), (6, 18, 6)) < 1.0)
    body = fold.ellipsoid((8 * scale, -4, 16), (5.5 * scale, 36, 8 * scale))
    horn = fold.ellipsoid((24, -38, 2), (6 * scale, 16 * scale, 8))
    third = grid.ellipsoid((0, -6, 2), (2.2 * scale, 15, 10))
    canvas.draw("ventricles", "csf", torch.minimum(torch.minimum(body, horn), third) < 1.0)
    stem = torch.hypot(grid.left / 13, (grid.front + 18 + 0.2 * grid.up) / 13)
    canvas.draw("brainstem", "white matter", (stem < 1.0) & (grid.up < -8) & (grid.up > -62))
    cord = torch.hypot(grid.left / 9, (grid.front + 34) / 9)
    canvas.draw("spinal canal", "csf", (cord < 1.0) & (grid.up < -58))
    canvas.draw("spinal cord", "white matter", (cord < 0.62) & (grid.up < -56))


def _draw_cerebellum(canvas: Canvas, grid: Grid) -> None:
    lobe = grid.mirrored().ellipsoid((20, -46, -38), (32, 28, 23))
    depth = (lobe - 1.0) * 27
    layer = torch.sin((grid.up + 0.35 * grid.front + 1.5 * grid.noise(16.0)) * (2 * torch.pi / grid.uniform(4.5, 7.0)))
    canvas.draw("outer csf", "csf", depth < 1.2)
    canvas.draw("cerebellum cortex", "grey matter", depth < 0)
    canvas.draw("cerebellum white matter", "white matter", (depth + 5 + 2.5 * layer < 0) & (lobe < 0.9))
    fourth = grid.ellipsoid((0, -32, -38), (5, 6, 12))
    canvas.draw("ventricles", "csf", fourth < 1.0)


def _draw_vessels(canvas: Canvas, grid: Grid, depth: Tensor) -> None:
    sinus = torch.hypot(grid.left / 4.5, (depth + 1.0) / 4.0)
    canvas.draw("venous sinus", "blood", (sinus < 1.0) & (grid.up > 20))
    first, second = grid.noise(24.0), grid.noise(24.0)
    tubes = torch.hypot(first, second) * 24.0 * 0.6
    canvas.draw("vessels", "blood", (tubes < grid.uniform(0.5, 1.1)) & (depth < 2.0))
    carotid = torch.hypot(grid.left.abs() - 27, grid.front - 4)
    canvas.draw("carotids", "blood", (carotid < 4.0) & (grid.up < -45))


def draw_lesion(canvas: Canvas, grid: Grid, hosts: tuple[str, ...]) -> None:
    """Draw a lesion with core, rim and oedema somewhere in the named structures, if they are in view."""
    places = torch.nonzero(canvas.inside(*hosts))
    if len(places) == 0:
        return
    z, y, x = places[grid.integer(0, len(places))].tolist()
    center = (float(grid.left[z, y, x]), float(grid.front[z, y, x]), float(grid.up[z, y, x]))
    size = grid.uniform(5, 20)
    radii = (size * grid.uniform(0.7, 1.3), size * grid.uniform(0.7, 1.3), size * grid.uniform(0.7, 1.3))
    shape = grid.ellipsoid(center, radii) + 0.16 * grid.noise(max(4.0, 0.7 * size))
    if grid.uniform() < 0.6:
        canvas.draw("oedema", "oedema", (shape < 1.0 + grid.uniform(0.3, 1.0)) & canvas.inside("white matter", "cerebellum white matter"))
    allowed = canvas.inside(*hosts, "oedema")
    canvas.draw("lesion rim", "lesion rim", (shape < 1.0) & allowed)
    if grid.uniform() < 0.7:
        canvas.draw("lesion core", "lesion core", (shape < grid.uniform(0.5, 0.85)) & allowed)
