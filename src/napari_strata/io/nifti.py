"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz, .hdr/.img) through nibabel.

The raw header is checked before nibabel sees the file, because nibabel repairs bad
voxel sizes in silence; and it is kept, so that labels carry the scan's own sform,
qform, codes and units bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from napari_strata.errors import GeometryError, ReadError
from napari_strata.io.atomic import half_of_pair
from napari_strata.io.compressed import UNREADABLE, damaged, stored_voxels
from napari_strata.io.grid import (
    FileImage,
    check_shape,
    check_voxel_size,
    make_grid,
    pick_volume,
)
from napari_strata.volume import FileGrid

_GZIP = b"\x1f\x8b"
HIGHEST_GZIP_RATIO = 1100
"""Bytes that one byte of a gzip file can hold at most."""
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
_LABEL_INTENT = 1002
_FLAT = 1e-6
"""Volume of a voxel with edges of length 1 below which an affine is singular.

`Geometry` has the same limit.
"""
_SAME_SIZE = 0.01
_HIGHEST_CODE = 5
"""The last code of an sform or qform (NIFTI_XFORM_TEMPLATE_OTHER)."""
_ABSURD = 1e9
"""Largest plausible number in an sform.

A larger finite one means that the bytes of the header are damaged or shifted. The qform
is then unreliable too.
"""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the voxels lie in the file, all counts checked."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int


def read_nifti(
    path: Path, index: int | None, *, suffix: str, every: bool = False
) -> FileImage:
    """Read one 3D volume of a NIfTI file, or every volume of it.

    Parameters
    ----------
    path : Path
        The file; either one of a .hdr/.img pair.
    index : int or None
        Which volume of a 4D file.
    suffix : str
        The file's suffix in lower case.
    every : bool
        Give all volumes, as labels need them: voxels are (i, j, k, volume) then, may be
        one slice, and are scaled in float64.

    Returns
    -------
    FileImage
        Voxels in the file's own order: the native type, or float32 where scl_slope or
        scl_inter are set.

    Raises
    ------
    ReadError
        If the file is damaged, not NIfTI, or not a 3D scan of real numbers.
    ChoiceError
        If it holds several volumes and `index` does not choose one.
    GeometryError
        If the affine or a voxel size cannot be used.
    """
    source = str(path)
    header = _read_header(half_of_pair(path, ".hdr") if suffix == ".img" else path)
    layout = _layout(
        header, half_of_pair(path, ".img") if suffix == ".hdr" else path, thin=every
    )
    volume = 0 if every else pick_volume(source, math.prod(layout.shape[3:]), index)
    check_voxel_size(source, header["pixdim"][1:4].astype(np.float64))
    affine, notes = _affine(header, layout.shape, source)
    _check_codes(header, layout.shape, affine, source)
    i, j, k = layout.shape[:3]
    grid = make_grid(
        source,
        "nifti",
        (i, j, k),
        affine,
        header=bytes(header.binaryblock),
        suffix=suffix,
    )
    raw, more = stored_voxels(
        layout.path,
        layout.shape,
        layout.dtype,
        offset=layout.offset,
        volume=None if every else volume,
        is_last=True,
    )
    if every:
        volumes = raw.reshape(i, j, k, -1, order="F")
        data = _scaled_labels(volumes, header, source)
    else:
        data = _scaled(raw, header, source)
    return FileImage(data, grid, None, notes + more)


def nifti_shape(path: Path, *, suffix: str) -> tuple[int, ...]:
    """Return the voxels along i, j, k of one volume, from the header alone.

    Raises the errors of `read_nifti` for an invalid header.
    """
    header = _read_header(half_of_pair(path, ".hdr") if suffix == ".img" else path)
    return _layout(
        header, half_of_pair(path, ".img") if suffix == ".hdr" else path
    ).shape[:3]


def write_nifti(path: Path, labels: NDArray[np.generic], grid: FileGrid) -> None:
    """Write labels on the grid of the scan.

    Parameters
    ----------
    path : Path
        Ends in .nii or .nii.gz.
    labels : (i, j, k) unsigned integer array
        In the file's own order.
    grid : FileGrid
        From a NIfTI scan: its header is kept but for what describes intensities, and
        the code of an sform or qform that cannot be used. From another kind: its affine
        is stored as sform, and as qform where it has no shear.
    """
    header = (
        nib.Nifti1Header(endianness="<")
        if grid.header is None
        else _parse_header(grid.header)
    )
    if header is None:
        raise GeometryError(
            "The grid holds bytes that are no NIfTI header. Read the scan again."
        )
    header = header.as_byteswapped("<")
    if grid.header is None:
        has_qform = _is_shearless(grid.affine)
        header.set_data_shape(labels.shape)
        header.set_zooms(np.linalg.norm(grid.affine[:3, :3], axis=0))
        header.set_qform(grid.affine if has_qform else None, int(has_qform))
        header.set_sform(grid.affine, 1)
        header.set_xyzt_units("mm")
    else:
        _drop_unusable(header)
    _describe_labels(header, labels)
    # Header and voxels are written one after the other, because nibabel's image classes
    # would repair the header.
    with ImageOpener(str(path), "wb") as file:
        file.write(header.binaryblock)
        file.write(bytes(4))
        file.write(
            labels.astype(labels.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
        )


def write_nifti_scan(
    path: Path, data: NDArray[np.generic], affine: NDArray[np.float64]
) -> None:
    """Write a scan as NIfTI-1, in mm; a sheared grid gets an sform only.

    Parameters
    ----------
    path : Path
        Ends in .nii or .nii.gz.
    data : (i, j, k) array
        Integers or floats; 64-bit integers, which few programs read, are stored in the
        smallest type that holds them.
    affine : (4, 4) float64 array
        Index (i, j, k) -> RAS+ mm.
    """
    image = nib.Nifti1Image(_narrowed(data), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, int(_is_shearless(affine)))
    image.set_sform(affine, 1)
    nib.save(image, str(path))


def _narrowed(data: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return 64-bit integers in the smallest type that holds them exactly.

    Those beyond 32 bits become float64.
    """
    if data.dtype.kind not in "iu" or data.dtype.itemsize < 8:
        return data
    lowest, highest = int(data.min()), int(data.max())
    kinds: tuple[type[np.integer], ...] = (
        np.uint8,
        np.int16,
        np.uint16,
        np.int32,
        np.uint32,
    )
    fitting = (
        kind
        for kind in kinds
        if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max
    )
    return data.astype(next(fitting, np.float64))


def check_compression(path: Path) -> None:
    """Raise unless the file is gzip-compressed exactly when its name says so.

    Raises
    ------
    ReadError
        If name and content differ; the message says how to rename it.
    """
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    by_name = path.suffix.lower() in (".gz", ".mgz")
    if packed and not by_name:
        right = (
            f"{path.stem}.mgz" if path.suffix.lower() == ".mgh" else f"{path.name}.gz"
        )
        raise ReadError(
            f"{path} is gzip-compressed, which its name does not say. Rename it to"
            f" {right}."
        )
    if by_name and not packed:
        raise ReadError(
            f"{path} is not gzip-compressed, which its name promises. Download it"
            " again, or rename it to what it is."
        )


def _drop_unusable(header: nib.Nifti1Header) -> None:
    """Reset the code of an sform or qform that no program could use.

    This is done only if the other one can place the voxels.
    """
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is not None and qform is not None and not _is_usable(sform):
        header["sform_code"] = 0
    elif sform is not None and qform is None and int(header["qform_code"]) != 0:
        header["qform_code"] = 0


def _describe_labels(header: nib.Nifti1Header, labels: NDArray[np.generic]) -> None:
    """Change what the header says of intensities; leave all that says where the voxels lie."""
    header["magic"] = header.single_magic
    header["vox_offset"] = header["sizeof_hdr"] + 4
    header["cal_max"] = header["cal_min"] = 0
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["intent_code"], header["intent_name"] = _LABEL_INTENT, b""
    header["intent_p1"] = header["intent_p2"] = header["intent_p3"] = 0
    if isinstance(header, nib.Nifti2Header):
        header["eol_check"] = (13, 10, 26, 10)
    else:
        header["glmax"] = header["glmin"] = 0
    if not bytes(header["descrip"]).strip(b"\0 "):
        header["descrip"] = b"Labels made with Strata"
    pixdim = header["pixdim"].copy()
    header.set_data_dtype(labels.dtype)
    header.set_data_shape(labels.shape)
    header["pixdim"] = pixdim  # nibabel resets the axes that labels do not have


def _is_shearless(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-5))


def _read_header(path: Path) -> nib.Nifti1Header:
    if not path.exists():
        raise ReadError(
            f"{path} is missing: a .hdr/.img scan needs both files. Put them in one"
            " folder."
        )
    check_compression(path)
    try:
        with ImageOpener(str(path), "rb") as file:
            raw = file.read(540)
    except UNREADABLE as err:
        raise damaged(str(path)) from err
    header = _parse_header(raw)
    if header is None:
        if path.suffix.lower() == ".hdr" and 348 in (
            int.from_bytes(raw[:4], "little"),
            int.from_bytes(raw[:4], "big"),
        ):
            raise ReadError(
                f"{path} is an Analyze 7.5 file, which does not tell left from right."
                " Convert its source to NIfTI."
            )
        raise ReadError(
            f"{path} is not a NIfTI file, whatever its name says. Check that it is the"
            " right file, or export the scan again."
        )
    return header


def _parse_header(raw: bytes) -> nib.Nifti1Header | None:
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        size = int(np.frombuffer(raw[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size == 348 and len(raw) >= 348 and raw[344:347] in (b"n+1", b"ni1"):
            return nib.Nifti1Header(raw[:348], order, check=False)
        if size == 540 and len(raw) >= 540 and raw[4:7] in (b"n+2", b"ni2"):
            return nib.Nifti2Header(raw[:540], order, check=False)
    return None


def _layout(header: nib.Nifti1Header, path: Path, *, thin: bool = False) -> _Layout:
    source, dim = str(path), header["dim"]
    if not path.exists():
        raise ReadError(
            f"{path} is missing: a .hdr/.img scan needs both files. Put them in one"
            " folder."
        )
    if not 1 <= dim[0] <= 7:
        raise ReadError(
            f"{path} says that it has {dim[0]} dimensions: its header is damaged."
            " Export the scan again."
        )
    shape = tuple(int(n) for n in dim[1 : dim[0] + 1])
    check_shape(source, shape[:3], thin=thin)
    if min(shape) < 1:
        raise ReadError(
            f"{path} says that it has {shape} voxels: its header is damaged. Export the"
            " scan again."
        )
    dtype = _real_dtype(header, source)
    starts = float(header["vox_offset"])
    if not 0 <= starts < 2**40:
        raise ReadError(
            f"{path} says that its voxels start at byte {starts:g}: its header is"
            " damaged. Export the scan again."
        )
    single = bytes(header["magic"])[1:2] == b"+"
    earliest = int(header["sizeof_hdr"]) + 4 if single else 0
    if starts != int(starts) or 0 < starts < earliest:
        raise ReadError(
            f"{path} says that its voxels start at byte {starts:g}, which lies in its"
            " header: it is damaged. Export the scan again."
        )
    offset = int(starts) or earliest
    if single and not starts and _has_extension(path, earliest):
        raise ReadError(
            f"{path} does not say at which byte its voxels start (vox_offset 0), and has"
            " an extension before them. Export the scan again."
        )
    needed, size = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    most = size * HIGHEST_GZIP_RATIO if path.suffix.lower() == ".gz" else size
    if needed > most:
        raise ReadError(
            f"{path} is cut short: its header speaks of {needed:,} bytes, the file has"
            f" {size:,}. Copy or download it again."
        )
    return _Layout(path, shape + (1,) * (4 - len(shape)), dtype, offset)


def _has_extension(path: Path, behind: int) -> bool:
    """Return whether the four bytes before `behind` announce an extension."""
    try:
        with ImageOpener(str(path), "rb") as file:
            return file.read(behind)[-4:-3] not in (b"", b"\0")
    except UNREADABLE as err:
        raise damaged(str(path)) from err


def _real_dtype(header: nib.Nifti1Header, source: str) -> np.dtype[np.generic]:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as err:
        raise ReadError(
            f"{source} has voxels of unknown type {int(header['datatype'])}. Export it"
            " again as integers or floats."
        ) from err
    if dtype.names:
        raise ReadError(
            f"{source} is a colour (RGB) image. Strata needs one intensity per voxel:"
            " export the scan in grey values."
        )
    if dtype.kind not in "iuf":
        raise ReadError(
            f"{source} has {dtype} voxels. Strata needs real intensities: export the"
            " magnitude image."
        )
    return dtype


def _affine(
    header: nib.Nifti1Header, shape: tuple[int, ...], source: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine (i, j, k) -> RAS+ mm, and notes on how it was chosen.

    The sform is used if it has a code and is valid, else the qform.
    """
    header = header.copy()
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # what the standard says of any other value
    header.set_data_shape(shape[:3])
    mm = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    notes: tuple[str, ...] = ()
    if sform is not None and (np.abs(sform[np.isfinite(sform)]) > _ABSURD).any():
        raise GeometryError(
            f"{source} has an orientation (sform) with numbers of"
            f" {np.nanmax(np.abs(sform)):g}, which no scan has. Repair its header, or"
            " copy it again."
        )
    if sform is not None and not _is_usable(sform) and qform is not None:
        affine, notes = (
            qform,
            (
                (
                    "The header's sform is set but cannot be used (zeros, flat or no"
                    " numbers); the qform is used."
                ),
            ),
        )
    elif sform is not None:
        affine, notes = sform, _disputes(header, shape, sform, qform, mm)
    elif qform is not None:
        affine = qform
    elif int(header["qform_code"]) != 0:
        raise GeometryError(
            f"{source} has an orientation (qform) that is no rotation. Repair its"
            " header."
        )
    else:
        affine = header.get_base_affine()
        notes = (
            (
                "The header does not say how the patient lies (sform and qform codes"
                " are 0): left and right are a guess."
            ),
        )
    affine = np.asarray(affine, dtype=np.float64)
    if mm == 1:
        return affine, notes
    scale = np.diag([mm, mm, mm, 1.0])
    return scale @ affine, (
        *notes,
        f"The header gives lengths in units of {mm:g} mm; they were turned into mm.",
    )


def _check_codes(
    header: nib.Nifti1Header,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    source: str,
) -> None:
    """Refuse codes that NIfTI does not know, where the place depends on them.

    Some programs take such an sform or qform, others do not.

    Raises
    ------
    GeometryError
        If so.
    """
    unknown = [
        name
        for name in ("sform_code", "qform_code")
        if not 0 <= int(header[name]) <= _HIGHEST_CODE
    ]
    if not unknown:
        return
    without = header.copy()
    for name in unknown:
        without[name] = 0
    other, _ = _affine(without, shape, source)
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0).min()
    apart = np.abs(other - affine) * [*shape[:3], 1]
    if not (apart <= _SAME_SIZE * voxel_mm).all():
        told = " and ".join(f"{name} {int(header[name])}" for name in unknown)
        raise GeometryError(
            f"{source} has {told}, which NIfTI does not know: whether it says where the"
            " scan lies is unclear. Repair its header."
        )


def _qform(header: nib.Nifti1Header) -> NDArray[np.float64] | None:
    """Return the qform; None if its code is 0 or its quaternion is no rotation."""
    try:
        qform = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError):
        return None
    return qform if qform is not None and np.isfinite(qform).all() else None


def _is_usable(affine: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(lengths).all():
        return False
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) >= _FLAT)


def _disputes(
    header: nib.Nifti1Header,
    shape: tuple[int, ...],
    sform: NDArray[np.float64],
    qform: NDArray[np.float64] | None,
    mm: float,
) -> tuple[str, ...]:
    """Return notes on header fields that contradict the sform."""
    if not np.isfinite(sform).all():
        return ()
    sizes = header["pixdim"][1:4].astype(np.float64)
    if qform is None:
        if int(header["qform_code"]) != 0:
            return ("The header's qform is no rotation; the sform is used.",)
        by_sform = np.linalg.norm(sform[:3, :3], axis=0)
        if np.allclose(by_sform, sizes, rtol=_SAME_SIZE, atol=0):
            return ()
        said, used = (
            " x ".join(f"{mm * one:.4g}" for one in three)
            for three in (sizes, by_sform)
        )
        return (
            (
                f"The header's voxel sizes (pixdim: {said} mm) and its sform ({used}"
                " mm) disagree; the sform is used."
            ),
        )
    corners = np.array(
        [(*corner, 1) for corner in product(*((0, n - 1) for n in shape[:3]))]
    )
    apart = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    if apart < min(header.get_zooms()[:3]):
        return ()
    return (
        (
            f"The header's sform and qform disagree by up to {mm * apart:.1f} mm; the"
            " sform is used."
        ),
    )


def _scaled(
    raw: NDArray[Any], header: nib.Nifti1Header, source: str
) -> NDArray[np.generic]:
    slope, inter = _slope(header, source)
    if slope == 1 and inter == 0:
        return raw.astype(np.float64) if raw.dtype.itemsize > 8 else raw
    scaled = np.empty(raw.shape, np.float32, order="F")
    # infinite voxels are dealt with, and reported, after reading
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(raw.shape[2]):
            scaled[..., k] = raw[..., k] * np.float64(slope) + np.float64(inter)
    return scaled


def _scaled_labels(
    raw: NDArray[Any], header: nib.Nifti1Header, source: str
) -> NDArray[Any]:
    """Scale labels in float64: float32 would round large ones."""
    slope, inter = _slope(header, source)
    if slope == 1 and inter == 0:
        return raw
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.astype(np.float64) * slope + inter


def _slope(header: nib.Nifti1Header, source: str) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 if the header has no scale."""
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as err:
        raise ReadError(
            f"{source} has an intensity scale (scl_slope, scl_inter) that is no number."
            " Repair the header."
        ) from err
    return (1.0, 0.0) if slope is None else (float(slope), float(inter))
