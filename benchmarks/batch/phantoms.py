"""Small scans of mixed sizes and formats, some of them broken in different ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from napari_strata.io.files import write_scan
from napari_strata.volume import Geometry, Volume

_ORGANS = (
    (0.5, 0.5, 0.5, 0.46, 100),
    (0.5, 0.45, 0.3, 0.15, 300),
    (0.35, 0.72, 0.5, 0.14, 500),
    (0.65, 0.68, 0.66, 0.12, 800),
)


def phantom(side: int, *, ct: bool, inverted: bool, seed: int) -> Volume:
    """Make ellipsoids in a body in air, with noise."""
    shape = (max(12, 2 * side // 3), side, side + 4)
    grid = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"), axis=-1
    )
    data = np.zeros(shape)
    for *center, radius, value in _ORGANS:
        data[((grid - center) ** 2).sum(axis=-1) <= radius**2] = (
            1000 - value if inverted else value
        )
    data += np.random.default_rng(seed).normal(0, 15, shape)
    if ct:
        data = np.where(data > 50, data / 4 - 60, -1000 + data / 10)
    return Volume(
        data.astype(np.int16),
        Geometry.from_spacing(shape, (3, 2, 2)),
        "ct" if ct else "mr",
    )


@dataclass(frozen=True)
class Kind:
    """What a scan of a mixed batch is like.

    Its longest side in voxels, its contrast and its file format.
    """

    side: int
    contrast: str
    format: str


CONTRASTS = ("mr", "mr inverted", "mr", "ct")
FORMATS = ("nii.gz", "nrrd", "mha", "nii", "mgz", "dicom")


def kind_of(k: int, sides: tuple[int, ...]) -> Kind:
    """Give what scan k is like.

    Contrasts in turn, each with every side, and formats across both.
    """
    turn = len(CONTRASTS) * len(sides)
    return Kind(
        sides[k // len(CONTRASTS) % len(sides)],
        CONTRASTS[k % len(CONTRASTS)],
        FORMATS[(k + k // turn) % len(FORMATS)],
    )


def write_phantoms(
    folder: Path, count: int, *, broken: int = 0, sides: tuple[int, ...] = (18, 20, 24)
) -> list[Path]:
    """Write scans of all kinds (see `kind_of`), and broken ones.

    Give the paths of the whole ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(count):
        kind = kind_of(k, sides)
        volume = phantom(
            kind.side,
            ct=kind.contrast == "ct",
            inverted=kind.contrast == "mr inverted",
            seed=k,
        )
        paths.append(_write(volume, folder / f"scan-{k:03d}", kind.format))
    for k in range(broken):
        _break(folder, k)
    return paths


def _write(volume: Volume, stem: Path, file_format: str) -> Path:
    """Write a scan in a format.

    Formats that Strata does not write come from other programs' libraries.
    """
    path = stem.with_name(f"{stem.name}.{file_format}")
    if file_format == "dicom":
        _write_series(volume, stem)
        return stem
    if file_format == "mgz":
        plain = stem.with_name(f"{stem.name}.nii")
        write_scan(volume, plain)
        image = nibabel.load(plain)
        nibabel.save(
            nibabel.MGHImage(np.asarray(image.dataobj).astype(np.int16), image.affine),
            path,
        )
        plain.unlink()
        return path
    return write_scan(volume, path)


def _write_series(volume: Volume, folder: Path) -> None:
    """Write a DICOM series, a file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = volume.spacing_zyx_mm[0]
    for k, plane in enumerate(volume.data[::-1]):
        image = sitk.GetImageFromArray(plane[None].astype(np.int16))
        image.SetSpacing(
            [
                float(step)
                for step in (volume.spacing_zyx_mm[2], volume.spacing_zyx_mm[1], depth)
            ]
        )
        kind, storage = ("CT", "2") if volume.modality == "ct" else ("MR", "4")
        tags = {
            "0008|0016": f"1.2.840.10008.5.1.4.1.1.{storage}",
            "0008|0018": f"1.2.826.0.1.{folder.name[-3:].lstrip('0') or '0'}.{k + 1}",
            "0008|0060": kind,
            "0020|000d": "1.2.826.0.9",
            "0020|000e": f"1.2.826.0.2.{folder.name[-3:].lstrip('0') or '0'}",
            "0020|0032": f"0\\0\\{float(depth) * k:g}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"slice-{k:03d}.dcm"))
        writer.Execute(image)


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
        path.with_suffix(".mha").write_bytes(
            b"ObjectType = Image\nNDims = 3\nElementDataFile = gone.raw\n"
        )
    elif kind == 8:
        data[70:72] = (128).to_bytes(2, "little")  # RGB
        path.write_bytes(bytes(data))
    else:
        path.with_suffix(".mgz").write_bytes(b"\x1f\x8bnot gzip after all")
