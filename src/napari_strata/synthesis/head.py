"""Synthetic head.

It has scalp, skull, folded cortex, white matter, deep nuclei, ventricles, cerebellum,
eyes, airways and neck.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_strata.synthesis.anatomy import Anatomy, Canvas
from napari_strata.synthesis.fields import Grid, radial
from napari_strata.synthesis.lesions import draw_lesions, draw_spots

HEAD_EXTENT_MM = (150.0, 190.0, 200.0)
"""Approximate size (left, front, up) of the head around the origin, in mm."""

INSIDE_SKULL = (
    "outer csf",
    "cortex",
    "white matter",
    "thalamus",
    "putamen",
    "pallidum",
    "caudate",
    "hippocampus",
    "amygdala",
    "ventricles",
    "brainstem",
    "cerebellum cortex",
    "cerebellum white matter",
    "vessels",
    "venous sinus",
    "white spots",
    "oedema",
    "lesion rim",
    "lesion core",
)
"""Structures that remain in a skull-stripped head."""


def draw_head(grid: Grid, *, lesions: bool = True) -> Anatomy:
    """Draw a random head on a grid whose origin is the middle of the brain.

    With `lesions` it may have some.
    """
    canvas = Canvas(grid.shape, grid.device)
    bent = grid.warped(2.5, 45.0)
    width, length, height = (grid.uniform(0.9, 1.1) * r for r in (66.0, 82.0, 66.0))
    radius = (width + length + height) / 3
    depth = (
        bent.ellipsoid((0, 0, 4), (width, length, height), whole=True) - 1.0
    ) * radius
    cranium = torch.maximum(depth, _skull_floor(bent) - bent.up)
    csf = grid.uniform(1.0, 3.0)
    _draw_face_and_neck(canvas, bent, width)
    canvas.zoom(bent, [(-70, 70), (-60, 110), (-999, -18)], _draw_face_bones)
    _draw_layers(canvas, bent, depth, cranium, csf)
    brain = _draw_brain(canvas, bent, cranium)
    canvas.zoom(bent, [(-42, 42), (-66, 44), (-999, 34)], _draw_deep)
    canvas.zoom(bent, [(-58, 58), (-82, -10), (-70, -14)], _draw_cerebellum, cranium)
    _draw_vessels(canvas, bent, depth, cranium)
    chance = grid.uniform()
    if lesions and chance < 0.4:
        draw_lesions(
            canvas,
            bent,
            ("white matter", "cortex", "cerebellum white matter", "thalamus"),
            brain=brain < 0,
        )
    if lesions and chance > 0.75:
        draw_spots(canvas, bent)
    return canvas.finish("head")


def _skull_floor(grid: Grid) -> Tensor:
    """Return the height of the skull base in mm.

    It is high over the eyes, lower under the temples, and lowest at the back.
    """
    front = torch.sigmoid((grid.front - grid.uniform(24, 34)) / 4.0)
    back = torch.sigmoid((-14.0 - grid.front) / 5.0)
    middle = -24.0 - 15.0 * torch.sigmoid((grid.left.abs() - 16.0) / 4.0)
    return (
        front * grid.uniform(-16, -8)
        + back * grid.uniform(-68, -58)
        + (1 - front - back) * middle
    )


def _draw_face_and_neck(canvas: Canvas, grid: Grid, width: float) -> None:
    face = grid.ellipsoid((0, 38, -48), (0.86 * width, 52, 62), whole=True)
    neck = radial(grid.left / 56, (grid.front + 22) / 60)
    neck = torch.where(grid.up < -30, neck, torch.full_like(neck, 9.0))
    nose = grid.ellipsoid((0, 92, -42), (13, 16, 18))
    outside = torch.minimum(torch.minimum(face, neck), nose)
    canvas.draw("skin", "skin", outside < 1.0)
    canvas.draw("fat", "fat", outside < 0.965)
    folded = grid.mirrored()
    muscle = grid.noise(11.0)
    canvas.draw(
        "muscle", "muscle", (outside < grid.uniform(0.82, 0.94)) & (muscle > -0.65)
    )
    canvas.draw(
        "glands",
        "gland",
        folded.ellipsoid((46, 4, -56), (11, 15, 20)) < 1.0 + 0.2 * muscle,
    )
    for side, front in ((30, -30), (14, -46), (40, -8)):
        cord = radial((folded.left - side) / 13, (grid.front - front) / 11)
        canvas.draw("neck muscle", "muscle", (cord < 1.0) & (grid.up < -52))
    canvas.draw("tongue", "muscle", grid.ellipsoid((0, 46, -78), (19, 26, 15)) < 1.0)


def _draw_face_bones(canvas: Canvas, grid: Grid) -> None:
    arch = radial(grid.left / 46, (grid.front - 42) / 46)
    for name, height, half in (("jaw", -88, 11), ("upper jaw", -64, 7)):
        near = (grid.front > 28) & ((grid.up - height).abs() < half)
        canvas.draw(name, "bone", (arch < 1.0) & (arch > 0.78) & near)
        canvas.draw(
            f"{name} marrow",
            "marrow",
            (arch < 0.94)
            & (arch > 0.84)
            & near
            & ((grid.up - height).abs() < half - 4),
        )
    fold = grid.mirrored()
    sinus = torch.minimum(
        fold.ellipsoid((22, 60, -46), (15, 16, 16)),
        fold.ellipsoid((7, 66, -36), (6, 26, 20)),
    )
    canvas.draw("sinus wall", "bone", sinus < 1.14)
    canvas.draw("mucosa", "mucosa", sinus < 1.0)
    canvas.draw(
        "sinuses",
        "inner air",
        (sinus < grid.uniform(0.7, 0.97)) & (grid.noise(9.0) > -1.2),
    )
    throat = radial(grid.left / 13, (grid.front - 16) / 10)
    canvas.draw("throat wall", "mucosa", (throat < 1.25) & (grid.up < -50))
    canvas.draw("throat", "inner air", (throat < 1.0) & (grid.up < -52))
    bone = radial(grid.left / 20, (grid.front + 18) / 15)
    level = torch.remainder(grid.up / 19.0, 1.0)
    low = grid.up < -66
    canvas.draw("neck vertebrae", "bone", (bone < 1.0) & low & (level > 0.24))
    canvas.draw(
        "vertebra marrow",
        "marrow",
        (bone < 0.8) & low & (level > 0.32) & (level < 0.92),
    )
    canvas.draw("discs", "disc", (bone < 0.95) & low & (level <= 0.24))
    arc = radial(grid.left / 17, (grid.front + 38) / 15)
    canvas.draw("neck vertebrae", "bone", (arc < 1.0) & low & (level > 0.4))


def _draw_layers(
    canvas: Canvas, grid: Grid, depth: Tensor, cranium: Tensor, csf: float
) -> None:
    scalp, skull = grid.uniform(3.5, 8.5), grid.uniform(4.0, 8.5)
    skin = grid.uniform(1.2, 2.4)
    above = (grid.up > -50 - 0.3 * grid.front) | (depth < 0)
    cap = torch.where(above, depth, torch.full_like(depth, 99.0))
    wobble = 0.8 * grid.noise(25.0)
    outer = csf + skull + scalp + skin
    canvas.draw("skin", "skin", cap < outer)
    canvas.draw("scalp fat", "fat", cap < outer - skin + wobble)
    canvas.draw(
        "scalp muscle", "muscle", cap < csf + skull + grid.uniform(0.0, 0.35) * scalp
    )
    temporal = (grid.left.abs() > 44) & (grid.up < 18) & (grid.front > -34)
    canvas.draw(
        "temporal muscle", "muscle", temporal & (cap < csf + skull + scalp - 1.0)
    )
    uneven = 1.4 * wobble
    canvas.draw("skull", "bone", cranium < csf + skull + uneven)
    canvas.draw(
        "skull marrow",
        "marrow",
        (cranium < csf + 0.72 * skull + uneven)
        & (cranium > csf + 0.3 * skull)
        & (wobble > -0.9),
    )
    petrous = grid.mirrored().ellipsoid((34, -20, -36), (20, 9, 8))
    canvas.draw("skull", "bone", petrous < 1.0)
    cells = grid.noise(5.0)
    canvas.draw(
        "mastoid cells",
        "inner air",
        (grid.mirrored().ellipsoid((50, -24, -44), (9, 12, 13)) < 1.0) & (cells > 0.2),
    )
    canvas.draw("dura", "dura", cranium < csf + 0.8)
    canvas.draw("outer csf", "csf", cranium < csf)
    canvas.zoom(grid, [(-58, 58), (10, 95), (-50, 0)], _draw_eyes)


def _draw_eyes(canvas: Canvas, grid: Grid) -> None:
    fold = grid.mirrored()
    eyes = fold.ellipsoid((31, 70, -24), (12, 12, 12))
    socket = fold.capsule((31, 66, -25), (15, 36, -24), 16.0, taper=0.35)
    canvas.draw("orbit", "fat", socket < 1.0)
    muscles = fold.capsule((31, 66, -25), (15, 36, -24), 12.5, taper=0.3)
    canvas.draw(
        "eye muscles",
        "muscle",
        (muscles < 1.0) & (muscles > 0.78) & (grid.noise(8.0) > 0.1),
    )
    canvas.draw(
        "optic nerves",
        "white matter",
        fold.capsule((29, 60, -24), (6, 18, -20), 2.4) < 1.0,
    )
    canvas.draw("sclera", "dura", eyes < 1.07)
    canvas.draw("eyes", "eye", eyes < 0.97)
    canvas.draw("lens", "lens", fold.ellipsoid((31, 79, -24), (4.5, 2.2, 4.5)) < 1.0)


@dataclass(frozen=True, slots=True)
class Folds:
    """Parameters of a folded shell, in mm.

    Parameters
    ----------
    length_mm : float
        Grid step of the noise that defines the folds, which are about twice as far
        apart.
    sulcus_mm : float
        Depth of the folds.
    thickness_mm : float
        Thickness of the ribbon.
    open_mm : float
        Half the width of a fold's gap.
    """

    length_mm: float
    sulcus_mm: float
    thickness_mm: float
    open_mm: float


def folded_shell(grid: Grid, depth: Tensor, folds: Folds) -> tuple[Tensor, Tensor]:
    """Return masks (z, y, x) of the ribbon of a folded shell and of the core under it.

    Folds are the thin sheets in which a smooth field crosses zero, down to a varying
    depth. The distance of a voxel to its nearest sheet is estimated as the field divided
    by its gradient. A ribbon of even thickness lines the outside and every sheet.
    """
    ridge = grid.noise(folds.length_mm)
    ridge.add_(grid.noise(0.55 * folds.length_mm), alpha=0.4)
    typical = 1.0 / folds.length_mm
    away = ridge.abs() / grid.slope(ridge).clamp_min(0.6 * typical)
    bottom = folds.sulcus_mm * (0.75 + 0.25 * grid.noise(1.6 * folds.length_mm))
    to_sheet = radial(away, torch.relu(-depth - bottom)) - folds.open_mm
    to_fluid = torch.minimum(-depth, to_sheet)
    inside = to_fluid > 0
    return inside & (to_fluid <= folds.thickness_mm), to_fluid > folds.thickness_mm


def _draw_brain(canvas: Canvas, grid: Grid, cranium: Tensor) -> Tensor:
    falx = torch.where(
        grid.up > -14,
        grid.uniform(0.6, 2.2) - grid.left.abs(),
        torch.full_like(cranium, -9.0),
    )
    tent = (
        -20.0
        - 0.16 * grid.left.abs()
        + 4.0 * torch.sigmoid((grid.front + 30) / 6)
        - grid.up
    )
    tent = torch.where(grid.front < -14, tent, torch.full_like(tent, -40.0))
    brain = torch.maximum(torch.maximum(cranium, falx), tent)
    fissure = 1.6 - (
        (grid.up + 4 - 0.3 * (grid.front - 10)).abs()
        + 0.8 * torch.relu(40 - grid.left.abs())
        + torch.relu((grid.front - 10).abs() - 26)
    )
    brain = torch.maximum(brain, fissure)
    folds = Folds(
        grid.uniform(6.0, 9.0),
        grid.uniform(12, 24),
        grid.uniform(2.4, 4.2),
        grid.uniform(0.05, 0.8),
    )
    grey, white = folded_shell(grid, brain, folds)
    callosum = (grid.capsule((0, 26, 12), (0, -34, 16), 9.0) < 1.0) | (
        grid.ellipsoid((0, 0, 15), (26, 36, 8)) < 1.0
    )
    deep = grid.mirrored().ellipsoid((19, 2, 4), (15, 30, 16)) < 1.0
    canvas.draw("cortex", "grey matter", grey)
    canvas.draw(
        "white matter", "white matter", white | ((callosum | deep) & (cranium < -12))
    )
    return brain


def _draw_deep(canvas: Canvas, grid: Grid) -> None:
    fold = grid.mirrored()
    scale = grid.uniform(0.7, 1.5)
    canvas.draw(
        "thalamus", "deep grey matter", fold.ellipsoid((11, -14, 4), (9, 14, 9)) < 1.0
    )
    canvas.draw(
        "putamen", "deep grey matter", fold.ellipsoid((25, 8, 2), (6, 18, 11)) < 1.0
    )
    canvas.draw(
        "pallidum", "deep grey matter", fold.ellipsoid((19, 3, 0), (4.5, 9, 7)) < 1.0
    )
    canvas.draw(
        "caudate", "deep grey matter", fold.ellipsoid((13, 18, 10), (5, 14, 9)) < 1.0
    )
    canvas.draw(
        "hippocampus",
        "grey matter",
        fold.capsule((22, 0, -18), (26, -32, -8), 6.0, taper=0.7) < 1.0,
    )
    canvas.draw(
        "amygdala", "deep grey matter", fold.ellipsoid((22, 5, -17), (7, 7, 7)) < 1.0
    )
    body = fold.capsule(
        (6 * scale, 28, 12), (9 * scale, -26, 17), 6.0 * scale, taper=1.1
    )
    horn = fold.capsule((10 * scale, -28, 14), (25, -52, 4), 6.5 * scale, taper=0.5)
    low = fold.capsule((24, -36, 4), (30, -4, -16), 3.6 * scale, taper=0.6)
    third = grid.ellipsoid((0, -6, 0), (2.0 * scale, 15, 11))
    canvas.draw(
        "ventricles",
        "csf",
        torch.minimum(torch.minimum(body, horn), torch.minimum(low, third)) < 1.0,
    )
    stem = radial(grid.left / 14, (grid.front + 17 + 0.2 * grid.up) / 13)
    canvas.draw(
        "brainstem", "white matter", (stem < 1.0) & (grid.up < -6) & (grid.up > -60)
    )
    cord = radial(grid.left / 9, (grid.front + 36) / 9)
    canvas.draw("spinal canal", "csf", (cord < 1.0) & (grid.up < -56))
    canvas.draw("spinal cord", "white matter", (cord < 0.62) & (grid.up < -54))


def _draw_cerebellum(canvas: Canvas, grid: Grid, cranium: Tensor) -> None:
    lobe = grid.mirrored().ellipsoid((20, -46, -42), (32, 30, 22))
    depth = torch.maximum((lobe - 1.0) * 26, cranium + 1.0)
    layer = torch.sin(
        (grid.up + 0.35 * grid.front + 1.5 * grid.noise(16.0))
        * (2 * torch.pi / grid.uniform(4.5, 7.0))
    )
    canvas.draw("outer csf", "csf", (depth < 1.2) & (cranium < 0))
    canvas.draw("cerebellum cortex", "grey matter", depth < 0)
    canvas.draw(
        "outer csf",
        "csf",
        (depth < 0) & (depth > -6) & (layer > grid.uniform(0.8, 1.1)),
    )
    canvas.draw(
        "cerebellum white matter",
        "white matter",
        (depth + 6 + 3.0 * layer < 0) & (lobe < 0.9),
    )
    fourth = grid.ellipsoid((0, -32, -38), (5, 5, 11))
    canvas.draw("ventricles", "csf", fourth < 1.0)


def _draw_vessels(canvas: Canvas, grid: Grid, depth: Tensor, cranium: Tensor) -> None:
    sinus = radial(grid.left / 4.5, (depth + 1.0) / 4.0)
    canvas.draw(
        "venous sinus", "venous blood", (sinus < 1.0) & (grid.up > 10) & (cranium < 3)
    )
    side = radial((grid.up + 22 + 0.1 * grid.left.abs()) / 4.0, (depth + 2.0) / 4.5)
    canvas.draw("venous sinus", "venous blood", (side < 1.0) & (grid.front < -22))
    tubes = radial(grid.noise(20.0), grid.noise(20.0)) * 12.0
    canvas.draw("vessels", "blood", (tubes < grid.uniform(0.5, 1.1)) & (cranium < 0))
    fold = grid.mirrored()
    canvas.draw(
        "carotids", "blood", fold.capsule((28, 2, -110), (24, -2, -52), 3.5) < 1.0
    )
    canvas.draw(
        "carotids", "blood", fold.capsule((24, -2, -52), (9, 8, -22), 2.8) < 1.0
    )
    canvas.draw(
        "jugular veins",
        "venous blood",
        fold.capsule((33, -6, -110), (30, -12, -50), 5.5, taper=0.8) < 1.0,
    )
