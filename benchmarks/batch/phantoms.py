"""Small scans of mixed sizes and formats, some of them broken in different ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_strata.io.files import write_scan
from napari_strata.volume import Geometry, Volume

_ORGANS = ((0.5, 0.5, 0.5, 0.46, 100), (0.5, 0.45, 0.3, 0.15, 300), (0.35, 0.72, 0.5, 0.14, 500), (0.65, 0.68, 0.66, 0.12, 800))


def phantom(side: int, *, ct: bool, inverted: bool, seed: int) -> Volume:
    """Make ellipsoids in a body in air, with noise."""
    shape = (max(12, 2 * side // 3), side, side + 4)
    grid = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"), axis=-1)
    data = np.zeros(shape)
    for *center, radius, value in _ORGANS:
        data[((grid - center) ** 2).sum(axis=-1) <= radius**2] = 1000 - value if inverted else value
    data += np.random.default_rng(seed).normal(0, 15, shape)
    if ct:
        data = np.where(data > 50, data / 4 - 60, -1000 + data / 10)
    return Volume(data.astype(np.int16), Geometry.from_spacing(shape, (3, 2, 2)), "ct" if ct else "mr")


def write_phantoms(folder: Path, count: int, *, broken: int = 0, sides: tuple[int, ...] = (18, 20, 24)) -> None:
    """Write scans as NIfTI, NRRD and MetaImage, CT and MR of two contrasts, of the sides given in turn; and broken ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        volume = phantom(sides[k % len(sides)], ct=k % 4 == 3, inverted=k % 4 == 1, seed=k)
        path = folder / f"scan-{k:03d}.nii.gz"
        write_scan(volume, path)
        if k % 5 in (2, 4):
            other = folder / f"scan-{k:03d}{'.nrrd' if k % 5 == 2 else '.mha'}"
            sitk.WriteImage(sitk.ReadImage(str(path)), str(other))
            path.unlink()
    for k in range(broken):
        _break(folder, k)


def _break(folder: Path, k: int) -> None:
    """Write a scan that cannot be used, each in another way."""
    whole = folder / "template.nii"
    write_scan(phantom(20, ct=False, inverted=False, seed=0), whole)
    data = bytearray(whole.read_bytes())
    whole.unlink()
    path = folder / f"broken-{k:02d}.nii"
    kind = k % 10
    if kind == 0:
        path.with_suffix(".nii.gz").write_bytes(b"no scan at all")
    elif kind == 1:
        path.write_bytes(bytes(data[: len(data) // 2]))
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        path.write_bytes(bytes(data[:352]) + bytes(len(data) - 352))  # every voxel 0
    elif kind == 4:
        data[40:42] = (4).to_bytes(2, "little")
        data[48:50] = (2).to_bytes(2, "little")
        path.write_bytes(bytes(data) + bytes(data[352:]))  # 4D
    elif kind == 5:
        data[280:328] = bytes(48)  # a singular affine
        path.write_bytes(bytes(data))
    elif kind == 6:
        path.with_suffix(".nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    elif kind == 7:
        path.with_suffix(".mha").write_bytes(b"ObjectType = Image\nNDims = 3\nElementDataFile = gone.raw\n")
    elif kind == 8:
        data[70:72] = (128).to_bytes(2, "little")  # RGB
        path.write_bytes(bytes(data))
    else:
        path.with_suffix(".mgz").write_bytes(b"\x1f\x8bnot gzip after all")
