"""A chest and abdomen: body wall, ribs, spine, lungs with vessels, heart, liver, spleen, kidneys, gut, great vessels."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Anatomy, Canvas
from napari_strata.synthesis.fields import Grid
from napari_strata.synthesis.head import draw_lesion

TORSO_EXTENT_MM = (340.0, 230.0, 460.0)
"""Rough size (left, front, up) of the torso that is drawn around the origin (the middle of the diaphragm)."""


def draw_torso(grid: Grid) -> Anatomy:
    """Draw a random torso on a grid whose origin is the middle of the diaphragm."""
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(5.0, 80.0)
    width, thick = grid.uniform(140, 175), grid.uniform(90, 120)
    body = (torch.hypot(bent.left / width, bent.front / thick) - 1.0) * thick
    wall = _draw_body_wall(canvas, bent, body)
    _draw_spine(canvas, bent, thick)
    _draw_lungs(canvas, bent, wall)
    _draw_heart(canvas, bent)
    _draw_organs(canvas, bent, wall)
    _draw_gut(canvas, bent, wall)
    _draw_great_vessels(canvas, bent, thick)
    _draw_pelvis(canvas, bent)
    if grid.uniform() < 0.35:
        draw_lesion(canvas, bent, ("liver", "kidney cortex", "lungs", "spleen"))
    return canvas.finish("torso")


def _draw_body_wall(canvas: Canvas, grid: Grid, body: Tensor) -> Tensor:
    fat, muscle = grid.uniform(6, 30), grid.uniform(9, 18)
    arms = (torch.hypot((grid.left.abs() - 215) / 38, (grid.front + 5) / 40) - 1.0) * 38
    if grid.uniform() < 0.4:
        for name, tissue, depth in (("skin", "skin", 0.0), ("fat", "fat", 2.0), ("muscle", "muscle", 9.0), ("arm bone", "bone", 27.0)):
            canvas.draw(name, tissue, arms < -depth)
    canvas.draw("skin", "skin", body < 0)
    canvas.draw("fat", "fat", body < -2.2)
    streaks = grid.noise(16.0)
    inner = body + fat + 2.0 * grid.noise(40.0)
    canvas.draw("muscle", "muscle", (inner < 0) & (streaks > -1.35))
    wall = inner + muscle
    chest = grid.up > -40
    angle = torch.atan2(grid.front, grid.left.abs())
    level = torch.remainder((grid.up + 26 * angle) / 27.0, 1.0)
    ribs = (wall.abs() < 5.0) & ((level - 0.5) ** 2 * 4 + (wall / 6.0) ** 2 < 0.28) & chest & (grid.front < 75)
    canvas.draw("visceral fat", "fat", wall < -2)
    canvas.draw("ribs", "bone", ribs)
    canvas.draw("rib marrow", "marrow", ribs & ((level - 0.5).abs() < 0.13) & (wall.abs() < 2.6))
    sternum = torch.hypot(grid.left / 17, (wall + 1) / 6)
    canvas.draw("sternum", "bone", (sternum < 1.0) & (grid.front > 30) & chest)
    canvas.draw("sternum marrow", "marrow", (sternum < 0.72) & (grid.front > 30) & chest)
    return wall


def _draw_spine(canvas: Canvas, grid: Grid, thick: float) -> None:
    back = -0.55 * thick
    bodies = torch.hypot(grid.left / 22, (grid.front - back) / 17)
    level = torch.remainder(grid.up / 32.0, 1.0)
    psoas = torch.hypot((grid.left.abs() - 34) / 18, (grid.front - back) / 19)
    canvas.draw("psoas", "muscle", (psoas < 1.0) & (grid.up < -70))
    rear = torch.hypot((grid.left.abs() - 30) / 26, (grid.front - back + 38) / 20)
    canvas.draw("back muscle", "muscle", rear < 1.0)
    canvas.draw("vertebrae", "bone", (bodies < 1.0) & (level > 0.2))
    canvas.draw("vertebra marrow", "marrow", (bodies < 0.86) & (level > 0.26) & (level < 0.94))
    canvas.draw("discs", "disc", (bodies < 0.97) & (level <= 0.2))
    arch = torch.hypot(grid.left / 16, (grid.front - back + 26) / 15)
    spine = torch.hypot(grid.left / 6, (grid.front - back + 46) / 20)
    canvas.draw("vertebrae", "bone", (torch.minimum(arch, spine) < 1.0) & (level > 0.3))
    canvas.draw("spinal canal", "csf", arch < 0.66)
    canvas.draw("spinal cord", "white matter", arch < 0.38)


def _draw_lungs(canvas: Canvas, grid: Grid, wall: Tensor) -> None:
    dome = grid.ellipsoid((0, 0, -60), (175, 130, 80)) > 1.0
    space = torch.hypot((grid.left.abs() - 72) / 58, grid.front / 85) + torch.relu(grid.up - 90).pow(2) / 9000
    lungs = (space < 1.0) & (wall < -5) & dome & (grid.up > -30)
    canvas.draw("lungs", "lung", lungs)
    first, second = grid.noise(30.0), grid.noise(30.0)
    thin, other = grid.noise(14.0), grid.noise(14.0)
    tubes = torch.minimum(torch.hypot(first, second) * 15.0, torch.hypot(thin, other) * 7.0)
    canvas.draw("lung vessels", "blood", lungs & (tubes < grid.uniform(1.0, 2.4)))
    airway = torch.hypot(grid.noise(34.0), grid.noise(34.0)) * 17.0
    canvas.draw("bronchi wall", "gut wall", lungs & (airway < 2.6))
    canvas.draw("bronchi", "air", lungs & (airway < 1.5))
    trachea = torch.hypot(grid.left / 9, (grid.front + 12) / 9)
    canvas.draw("trachea wall", "gut wall", (trachea < 1.2) & (grid.up > 70))
    canvas.draw("trachea", "air", (trachea < 1.0) & (grid.up > 70))


def _draw_heart(canvas: Canvas, grid: Grid) -> None:
    heart = grid.ellipsoid((24, 28, 42), (54, 46, 50)) + 0.05 * grid.noise(30.0)
    canvas.draw("heart fat", "fat", heart < 1.1)
    canvas.draw("heart muscle", "muscle", heart < 1.0)
    left = grid.ellipsoid((44, 18, 36), (20, 20, 26))
    right = grid.ellipsoid((0, 42, 40), (22, 20, 28))
    atria = torch.minimum(grid.ellipsoid((20, -8, 60), (24, 16, 18)), grid.ellipsoid((-16, 18, 62), (16, 18, 20)))
    canvas.draw("heart chambers", "blood", torch.minimum(torch.minimum(left, right), atria) < 1.0)


def _draw_organs(canvas: Canvas, grid: Grid, wall: Tensor) -> None:
    below = grid.ellipsoid((0, 0, -60), (175, 130, 82)) < 1.0
    inside = (wall < -4) & below
    wobble = 0.08 * grid.noise(50.0)
    liver = torch.minimum(grid.ellipsoid((-68, 10, -50), (66, 72, 72)), grid.ellipsoid((0, 36, -34), (64, 34, 38))) + wobble
    canvas.draw("liver", "liver", (liver < 1.0) & inside)
    tubes = torch.hypot(grid.noise(36.0), grid.noise(36.0)) * 18.0
    canvas.draw("liver vessels", "blood", (liver < 0.9) & inside & (tubes < grid.uniform(1.2, 3.0)))
    spleen = grid.ellipsoid((92, -34, -48), (30, 42, 46)) + wobble
    canvas.draw("spleen", "spleen", (spleen < 1.0) & inside)
    stomach = grid.ellipsoid((48, 28, -56), (40, 36, 40)) + 2 * wobble
    canvas.draw("stomach wall", "gut wall", (stomach < 1.0) & inside)
    canvas.draw("stomach content", "gut content", (stomach < 0.87) & inside)
    canvas.draw("stomach air", "air", (stomach < 0.87) & inside & (grid.front > grid.uniform(30, 60)))
    pancreas = torch.hypot((grid.front - 0.3 * grid.left.abs() + 4) / 12, (grid.up + 92) / 13)
    canvas.draw("pancreas", "gland", (pancreas < 1.0) & (grid.left > -36) & (grid.left < 62) & inside)
    gall = grid.ellipsoid((-46, 42, -92), (15, 22, 18))
    canvas.draw("gallbladder", "csf", (gall < 1.0) & inside)
    kidneys = grid.mirrored().ellipsoid((62, -38, -108), (25, 27, 48)) + 0.5 * wobble
    canvas.draw("kidney cortex", "kidney cortex", kidneys < 1.0)
    lobes = grid.noise(16.0)
    canvas.draw("kidney medulla", "kidney medulla", (kidneys < 0.74) & (lobes > -0.3))
    canvas.draw("kidney fat", "fat", kidneys < 0.36)
    adrenal = grid.mirrored().ellipsoid((42, -34, -62), (7, 13, 9))
    canvas.draw("adrenals", "gland", adrenal < 1.0)


def _draw_gut(canvas: Canvas, grid: Grid, wall: Tensor) -> None:
    room = canvas.inside("visceral fat") & (wall < -8) & (grid.up < -82) & (grid.front > -30)
    loops = torch.hypot(grid.noise(32.0), grid.noise(32.0)) * 24.0
    canvas.draw("gut wall", "gut wall", room & (loops < 17))
    canvas.draw("gut content", "gut content", room & (loops < 13.5))
    canvas.draw("gut air", "air", room & (loops < 13) & (grid.noise(45.0) > 1.0))


def _draw_great_vessels(canvas: Canvas, grid: Grid, thick: float) -> None:
    back = -0.55 * thick + 30
    aorta = torch.hypot(grid.left - 10, grid.front - back)
    canvas.draw("aorta wall", "vessel wall", aorta < 13)
    canvas.draw("aorta", "blood", aorta < 11.5)
    cava = torch.hypot((grid.left + 22) / 12, (grid.front - back - 4) / 10)
    canvas.draw("vena cava", "blood", (cava < 1.0) & (grid.up < 20))
    arch = torch.hypot(torch.hypot(grid.front - 12, grid.up - 100) - 32, grid.left - 10)
    canvas.draw("aorta", "blood", (arch < 12) & (grid.up > 100))
    tubes = torch.hypot(grid.noise(34.0), grid.noise(34.0)) * 20.0
    canvas.draw("mesenteric vessels", "blood", canvas.inside("visceral fat") & (tubes < 2.2))


def _draw_pelvis(canvas: Canvas, grid: Grid) -> None:
    wing = grid.mirrored().ellipsoid((82, -26, -205), (16, 60, 46)) + 0.05 * grid.noise(25.0)
    canvas.draw("pelvis", "bone", wing < 1.0)
    canvas.draw("pelvis marrow", "marrow", wing < 0.84)
    bladder = grid.ellipsoid((0, 22, -226), (36, 32, 30))
    canvas.draw("bladder wall", "gut wall", bladder < 1.0)
    canvas.draw("bladder", "csf", bladder < 0.9)
