"""Synthetic chest and abdomen.

It has body wall, ribs, spine, lungs with vessels, heart, liver, spleen, kidneys, gut and
great vessels.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Anatomy, Canvas
from napari_strata.synthesis.fields import Grid, radial
from napari_strata.synthesis.lesions import draw_lesions

TORSO_EXTENT_MM = (340.0, 230.0, 460.0)
"""Approximate size (left, front, up) of the torso in mm.

The origin is the middle of the diaphragm.
"""


def draw_torso(grid: Grid, *, lesions: bool = True) -> Anatomy:
    """Draw a random torso on a grid whose origin is the middle of the diaphragm.

    With `lesions` it may have some.
    """
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(5.0, 80.0)
    width, thick = grid.uniform(135, 175), grid.uniform(88, 120)
    body = (radial(bent.left / width, bent.front / thick) - 1.0) * thick
    fat = grid.uniform(4, 30)
    back = -max(0.36 * thick, thick - 0.6 * fat - 52)
    wall = _draw_body_wall(canvas, bent, body, fat)
    _draw_ribs(canvas, bent, wall)
    dome = _draw_diaphragm(canvas, bent, wall)
    canvas.zoom(bent, [(-160, 160), (-45, 120), (-999, -70)], _draw_gut, wall)
    canvas.zoom(
        bent,
        [(-70, 70), (-150, 10), (-999, 999)],
        partial(_draw_spine, back=back),
        body < -3.0,
    )
    canvas.zoom(bent, [(-150, 150), (-100, 100), (-60, 999)], _draw_lungs, wall, dome)
    canvas.zoom(bent, [(-45, 95), (-35, 90), (-25, 110)], _draw_heart)
    canvas.zoom(
        bent,
        [(-150, 140), (-100, 110), (-140, 40)],
        _draw_organs,
        (wall < -4) & (dome < 0.98),
    )
    canvas.zoom(bent, [(-105, 105), (-85, 10), (-180, -35)], _draw_kidneys)
    canvas.zoom(
        bent,
        [(-100, 100), (-90, 90), (-999, 999)],
        partial(_draw_great_vessels, back=back + 30),
    )
    canvas.zoom(bent, [(-140, 140), (-120, 80), (-999, -135)], _draw_pelvis)
    if lesions and grid.uniform() < 0.35:
        draw_lesions(
            canvas, bent, ("liver", "kidney cortex", "lungs", "spleen", "pancreas")
        )
    return canvas.finish("torso")


def _draw_body_wall(canvas: Canvas, grid: Grid, body: Tensor, fat: float) -> Tensor:
    muscle, skin = grid.uniform(8, 17), grid.uniform(1.5, 3.0)
    if grid.uniform() < 0.4:
        arms = (radial((grid.left.abs() - 215) / 38, (grid.front + 5) / 40) - 1.0) * 38
        for name, tissue, depth in (
            ("skin", "skin", 0.0),
            ("fat", "fat", 2.0),
            ("muscle", "muscle", 9.0),
            ("arm bone", "bone", 27.0),
        ):
            canvas.draw(name, tissue, arms < -depth)
    canvas.draw("skin", "skin", body < 0)
    canvas.draw("fat", "fat", body < -skin)
    inner = body + fat + 2.0 * grid.noise(40.0)
    layer = torch.remainder(-inner, muscle / 2.9)
    thin_fat = (
        (layer < grid.uniform(-0.8, 1.2) * (0.6 + 0.5 * grid.noise(50.0)))
        & (inner > -muscle)
        & (grid.left.abs() > 40)
    )
    canvas.draw("muscle", "muscle", (inner < 0) & ~thin_fat & (grid.noise(16.0) > -1.5))
    wall = inner + muscle
    canvas.draw("visceral fat", "fat", wall < -grid.uniform(0.5, 2.0))
    return wall


def _draw_ribs(canvas: Canvas, grid: Grid, wall: Tensor) -> None:
    chest = grid.up > -40 - 0.4 * grid.left.abs().clamp_max(90)
    angle = torch.atan2(grid.front, grid.left.abs())
    level = torch.remainder((grid.up + 26 * angle) / 27.0, 1.0) - 0.5
    tube = level.square() * (grid.uniform(1.8, 2.4) ** 2) + (wall / 6.0).square()
    side = chest & (grid.front < 75)
    canvas.draw("ribs", "bone", (tube < 0.28) & side)
    canvas.draw("rib marrow", "marrow", (tube < 0.1) & side)
    canvas.draw(
        "rib cartilage",
        "cartilage",
        (tube < 0.28) & chest & (grid.front >= 60) & (grid.left.abs() < 70),
    )
    sternum = radial(grid.left / 17, (wall + 1) / 6)
    front = (grid.front > 30) & (grid.up > -10)
    canvas.draw("sternum", "bone", (sternum < 1.0) & front)
    canvas.draw("sternum marrow", "marrow", (sternum < 0.72) & front)
    blade = grid.mirrored().ellipsoid((88, -78, 120), (40, 5, 55))
    canvas.draw(
        "shoulder blades", "bone", (blade + 0.2 * grid.noise(15.0) < 1.0) & (wall < 12)
    )


def _draw_diaphragm(canvas: Canvas, grid: Grid, wall: Tensor) -> Tensor:
    """Draw the diaphragm, and return its dome's normalised radius, below 1 in the abdomen."""
    dome = grid.ellipsoid((0, 0, -62), (175, 130, grid.uniform(72, 96)), whole=True)
    dome = torch.where(grid.up < -62, dome.clamp_max(0.5), dome)
    canvas.draw(
        "diaphragm",
        "muscle",
        (dome - 1.0).abs().mul(80).lt(grid.uniform(1.2, 2.5)) & (wall < -1),
    )
    return dome


def _draw_spine(canvas: Canvas, grid: Grid, inside: Tensor, *, back: float) -> None:
    fold = grid.mirrored()
    bodies = radial(grid.left / 21, (grid.front - back) / 17)
    level = torch.remainder(grid.up / 32.0, 1.0)
    waist = 1.0 + 0.1 * torch.cos((level - 0.2) * (2 * torch.pi / 0.8))
    psoas = radial(
        (fold.left - 34 + 0.08 * (grid.up + 110)) / 18, (grid.front - back) / 19
    )
    canvas.draw("psoas", "muscle", (psoas < 1.0) & (grid.up < -70))
    rear = radial((fold.left - 30) / 27, (grid.front - back + 38) / 20)
    canvas.draw("back fat", "fat", (rear < 1.06) & inside)
    canvas.draw(
        "back muscle",
        "muscle",
        (rear < 1.0) & inside & (grid.noise(9.0) > grid.uniform(-2.2, -0.9)),
    )
    canvas.draw("vertebrae", "bone", (bodies < waist) & (level > 0.2))
    canvas.draw(
        "vertebra marrow",
        "marrow",
        (bodies < 0.88 * waist) & (level > 0.25) & (level < 0.95),
    )
    canvas.draw("discs", "disc", (bodies < 1.02) & (level <= 0.2))
    canvas.draw(
        "disc core", "cartilage", (bodies < 0.6) & (level > 0.03) & (level <= 0.17)
    )
    arch = radial(grid.left / 16, (grid.front - back + 26) / 15)
    spine = radial(grid.left / 5, (grid.front - back + 46) / 20)
    wings = radial((grid.front - back + 28) / 6, (level - 0.62) * 32 / 8)
    bony = torch.minimum(
        torch.minimum(arch, spine), torch.where(fold.left < 40, wings, 9.0)
    )
    canvas.draw("vertebrae", "bone", (bony < 1.0) & inside & (level > 0.3))
    canvas.draw("spinal canal", "csf", arch < 0.66)
    canvas.draw("spinal cord", "white matter", (arch < 0.38) & (grid.up > -90))


def _draw_lungs(canvas: Canvas, grid: Grid, wall: Tensor, dome: Tensor) -> None:
    apart = grid.uniform(66, 76)
    space = (
        radial((grid.left.abs() - apart) / 60, grid.front / 88)
        + torch.relu(grid.up - 90).square() / 9000
    )
    lungs = (space < 1.0) & (wall < -5) & (dome > 1.03) & (grid.up > -60)
    canvas.draw("lungs", "lung", lungs)
    hilum = torch.sqrt(
        (grid.left.abs() - 34).square()
        + (grid.front + 4).square()
        + (grid.up - 55).square()
    )
    taper = (1.5 - hilum / 90.0).clamp(0.25, 1.4)
    tubes = torch.minimum(
        radial(grid.noise(30.0), grid.noise(30.0)) * 15.0,
        radial(grid.noise(14.0), grid.noise(14.0)) * 7.0,
    )
    canvas.draw(
        "lung vessels", "blood", lungs & (tubes < grid.uniform(1.2, 2.8) * taper)
    )
    airway = radial(grid.noise(32.0), grid.noise(32.0)) * 16.0 / taper.clamp_min(0.4)
    canvas.draw("bronchus wall", "mucosa", lungs & (airway < 3.0))
    canvas.draw("bronchi", "inner air", lungs & (airway < grid.uniform(1.4, 2.2)))
    fold = grid.mirrored()
    stem = fold.capsule((0, -12, 76), (34, -6, 50), 7.5, taper=0.75)
    trachea = torch.where(
        grid.up > 74, radial(grid.left / 9, (grid.front + 12) / 8), 9.0
    )
    pipe = torch.minimum(stem, trachea)
    canvas.draw("airway wall", "mucosa", pipe < 1.28)
    canvas.draw("airways", "inner air", pipe < 1.0)
    gullet = radial((grid.left - 4) / 9, (grid.front + 30) / 7)
    canvas.draw("gullet", "gut wall", (gullet < 1.0) & (grid.up > -10))
    canvas.draw(
        "gullet content",
        "inner air",
        (gullet < grid.uniform(0.1, 0.5)) & (grid.up > -10),
    )


def _draw_heart(canvas: Canvas, grid: Grid) -> None:
    heart = grid.ellipsoid((24, 28, 42), (54, 46, 50)) + 0.05 * grid.noise(30.0)
    canvas.draw("heart fat", "fat", heart < grid.uniform(1.04, 1.2))
    canvas.draw("heart muscle", "heart muscle", heart < 1.0)
    left = torch.minimum(
        grid.ellipsoid((44, 18, 36), (20, 20, 26)),
        grid.ellipsoid((20, -8, 60), (24, 16, 18)),
    )
    right = torch.minimum(
        grid.ellipsoid((0, 42, 40), (22, 20, 28)),
        grid.ellipsoid((-16, 18, 62), (16, 18, 20)),
    )
    canvas.draw("left heart chambers", "blood", left < 1.0)
    canvas.draw("right heart chambers", "venous blood", (right < 1.0) & (left > 1.15))
    ring = radial(grid.noise(22.0), grid.noise(22.0)) * 12.0
    canvas.draw("coronaries", "blood", (heart - 1.04).abs().lt(0.05) & (ring < 1.8))


def _draw_organs(canvas: Canvas, grid: Grid, inside: Tensor) -> None:
    wobble = 0.08 * grid.noise(50.0)
    size = grid.uniform(0.9, 1.12)
    liver = (
        torch.minimum(
            grid.ellipsoid((-68, 10, -52), (66 * size, 74, 76 * size)),
            grid.ellipsoid((0, 36, -34), (66 * size, 34, 40)),
        )
        + wobble
    )
    stomach = grid.ellipsoid((52, 26, -56), (42, 38, 46)) + 2.2 * wobble
    filled, level = grid.uniform(0.8, 0.93), grid.uniform(10, 70)
    canvas.draw("stomach wall", "gut wall", (stomach < 1.0) & inside)
    canvas.draw("stomach content", "gut content", (stomach < filled) & inside)
    canvas.draw(
        "stomach air", "inner air", (stomach < filled) & inside & (grid.front > level)
    )
    canvas.draw("liver", "liver", (liver < 1.0) & inside)
    hilum = torch.sqrt(
        (grid.left + 34).square() + (grid.front - 6).square() + (grid.up + 66).square()
    )
    taper = (1.5 - hilum / 80.0).clamp(0.3, 1.4)
    veins = radial(grid.noise(34.0), grid.noise(34.0)) * 17.0
    canvas.draw(
        "liver vessels",
        "venous blood",
        (liver < 0.92) & inside & (veins < grid.uniform(1.8, 4.2) * taper),
    )
    spleen = grid.ellipsoid((92, -34, -48), (32, 44, 50)) + wobble
    canvas.draw("spleen", "spleen", (spleen < 1.0) & inside & (stomach > 1.05))
    lobes = grid.noise(8.0)
    pancreas = (
        radial(
            (grid.front - 0.3 * grid.left.abs() + 4) / 13,
            (grid.up + 94 - 0.25 * grid.left) / 13,
        )
        + 0.08 * lobes
    )
    long = (grid.left > -36) & (grid.left < 70)
    canvas.draw(
        "pancreas",
        "pancreas",
        (pancreas < 1.0) & long & inside & (lobes > grid.uniform(-2.4, -1.0)),
    )
    gall = grid.ellipsoid((-46, 42, -94), (15, 22, 18))
    canvas.draw("gallbladder wall", "gut wall", (gall < 1.1) & inside)
    canvas.draw("gallbladder", "urine", (gall < 1.0) & inside)
    canvas.draw(
        "adrenals",
        "gland",
        (grid.mirrored().ellipsoid((42, -34, -62), (7, 13, 9)) < 1.0) & inside,
    )


def _draw_kidneys(canvas: Canvas, grid: Grid) -> None:
    size = grid.uniform(0.85, 1.15)
    tilted = grid.mirrored()
    kidneys = tilted.ellipsoid(
        (60, -38, -108), (26 * size, 27 * size, 52 * size)
    ) + 0.05 * grid.noise(30.0)
    canvas.draw("kidney fat", "fat", kidneys < 1.25)
    hollow = tilted.ellipsoid(
        (42, -32, -108), (17 * size, 11 * size, 19 * size)
    ) + 0.12 * grid.noise(9.0)
    kidney = (kidneys < 1.0) & (hollow > 1.0)
    canvas.draw("kidney cortex", "kidney cortex", kidney)
    canvas.draw(
        "kidney medulla",
        "kidney medulla",
        kidney & (kidneys < 0.76) & (grid.noise(13.0) > -0.45),
    )
    canvas.draw("kidney sinus fat", "fat", (kidneys < 1.0) & (hollow <= 1.0))
    canvas.draw(
        "kidney pelvis", "urine", (hollow < grid.uniform(0.2, 0.6)) & (kidneys < 1.0)
    )
    canvas.draw(
        "renal veins",
        "venous blood",
        tilted.capsule((12, -26, -104), (46, -32, -106), 5.0) < 1.0,
    )
    canvas.draw(
        "renal arteries",
        "blood",
        tilted.capsule((6, -32, -98), (48, -36, -101), 2.8) < 1.0,
    )


def _draw_gut(canvas: Canvas, grid: Grid, wall: Tensor) -> None:
    """Draw loops of small bowel in the abdomen, and the colon around them."""
    room = (
        (wall < -grid.uniform(3, 14))
        & (grid.up < -74)
        & (grid.front > -grid.uniform(20, 40))
    )
    loops = radial(grid.noise(26.0), grid.noise(26.0)) * 20.0
    packed, thick = grid.uniform(17, 32), grid.uniform(1.6, 4.5)
    canvas.draw("bowel wall", "gut wall", room & (loops < packed))
    fluid = room & (loops < packed - thick)
    canvas.draw(
        "bowel content",
        "gut content",
        fluid & (grid.noise(40.0) > grid.uniform(-2.0, 0.5)),
    )
    canvas.draw(
        "bowel air",
        "inner air",
        fluid
        & (loops < packed - thick - 1)
        & (grid.noise(45.0) > grid.uniform(1.0, 2.0)),
    )
    haustra = 1.0 + 0.12 * torch.sin(grid.noise(35.0) * 4.0)
    frame = (
        torch.maximum(grid.left.abs() - 4, (grid.up + 152).abs() + 8) - 100
    ).abs() / 22
    colon = radial(frame, (grid.front - grid.uniform(5, 20)) / 24) * haustra
    colon = torch.where(
        (grid.up < -76) & (wall < -3) & ((grid.up > -225) | (grid.left > 60)),
        colon,
        9.0,
    )
    canvas.draw("colon wall", "gut wall", colon < 1.0)
    canvas.draw("colon content", "stool", colon < 0.86)
    canvas.draw(
        "colon air",
        "inner air",
        (colon < 0.84) & (grid.noise(38.0) > grid.uniform(-0.3, 1.6)),
    )


def _draw_great_vessels(canvas: Canvas, grid: Grid, *, back: float) -> None:
    aorta = radial(grid.left - 10, grid.front - back)
    arch = radial(radial(grid.front - 12, grid.up - 100) - 32, grid.left - 10)
    arch = torch.where(grid.up > 98, arch, 99.0)
    artery = torch.minimum(torch.where(grid.up < 104, aorta, 99.0), arch)
    root = grid.capsule((14, 44, 102), (14, 26, 62), 12.0)
    canvas.draw("aorta wall", "vessel wall", (artery < 13) | (root < 1.12))
    canvas.draw("aorta", "blood", (artery < 11.5) | (root < 1.0))
    cava = radial((grid.left + 22) / 12, (grid.front - back - 4) / 10)
    upper = grid.capsule((-22, 16, 140), (-20, 18, 66), 9.0)
    canvas.draw(
        "vena cava", "venous blood", ((cava < 1.0) & (grid.up < 30)) | (upper < 1.0)
    )
    lungs = grid.mirrored().capsule((4, 8, 74), (44, -6, 58), 11.0, taper=0.6)
    canvas.draw("lung arteries", "venous blood", lungs < 1.0)
    portal = torch.minimum(
        grid.capsule((4, 2, -96), (-34, 6, -66), 6.5),
        grid.capsule((4, 2, -96), (84, -24, -60), 4.5, taper=0.7),
    )
    portal = torch.minimum(portal, grid.capsule((2, 10, -170), (2, 2, -96), 5.5))
    canvas.draw("portal vein", "venous blood", portal < 1.0)
    fork = grid.mirrored().capsule((6, back - 4, -178), (52, 8, -240), 7.0, taper=0.8)
    canvas.draw("iliac arteries", "blood", fork < 1.0)
    tubes = radial(grid.noise(30.0), grid.noise(30.0)) * 18.0
    canvas.draw(
        "mesenteric vessels",
        "venous blood",
        canvas.inside("visceral fat") & (tubes < 2.4) & (grid.up < -70),
    )


def _draw_pelvis(canvas: Canvas, grid: Grid) -> None:
    fold = grid.mirrored()
    wing = fold.ellipsoid((82, -26, -205), (16, 60, 46)) + 0.05 * grid.noise(25.0)
    canvas.draw(
        "buttocks", "muscle", fold.ellipsoid((70, -62, -240), (52, 30, 50)) < 1.0
    )
    canvas.draw("pelvis", "bone", wing < 1.0)
    canvas.draw("pelvis marrow", "marrow", wing < 0.84)
    hip = fold.ellipsoid((88, -4, -262), (24, 24, 24))
    canvas.draw("femur", "bone", hip < 1.0)
    canvas.draw("femur marrow", "marrow", hip < 0.88)
    bladder = grid.ellipsoid((0, 22, -236), (38, 32, grid.uniform(18, 34)))
    canvas.draw("bladder wall", "gut wall", bladder < 1.0)
    canvas.draw("bladder", "urine", bladder < grid.uniform(0.82, 0.93))
