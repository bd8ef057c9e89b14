"""Round trips of scans and labels through every format.

For whatever grids and values hypothesis thinks of.
"""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_strata.errors import ReadError
from napari_strata.io.files import (
    LABEL_SUFFIXES,
    SCAN_OUTPUTS,
    read,
    read_labels,
    write,
    write_scan,
)
from napari_strata.volume import Geometry, Segmentation, Volume, default_regions

ORDERS = [
    (order, signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]
LARGEST_IDS = {".mgh": 2**31 - 1, ".mgz": 2**31 - 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@st.composite
def affines(draw: st.DrawFn, *, shear: bool = False) -> NDArray[np.float64]:
    """Give an affine of one of the 48 orders of axes, straight or turned.

    With unequal spacings.
    """
    order, signs = draw(st.sampled_from(ORDERS))
    spacing = [draw(st.floats(0.01, 20).map(np.float32)) for _ in range(3)]
    matrix = np.zeros((3, 3))
    matrix[list(order), range(3)] = np.array(signs) * spacing
    if draw(st.booleans()):
        matrix = (
            nib.eulerangles.euler2mat(*(draw(st.floats(-0.7, 0.7)) for _ in range(3)))
            @ matrix
        )
    if shear and draw(st.booleans()):
        matrix[:, 1] += 0.2 * matrix[:, 0]
    return nib.affines.from_matvec(
        matrix, [draw(st.integers(-5000, 5000)) / 16 for _ in range(3)]
    )


SHAPES = st.tuples(*[st.integers(2, 6)] * 3)


def filled(kind: str, shape: tuple[int, ...], seed: int) -> NDArray[np.generic]:
    """Give values over the whole range of a type."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        data = (rng.normal(size=shape) * 10.0 ** rng.integers(-5, 6)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        data = rng.integers(
            limits.min, limits.max, shape, dtype.newbyteorder("="), endpoint=True
        ).astype(dtype)
    data.flat[0] = 0
    data.flat[1] = 1
    return data


def same_places(one: Geometry, other: Geometry, *, within: float = 1e-3) -> None:
    """Two geometries put every corner at the same place, as a part of a voxel."""
    corners = np.array(list(product(*((0, n - 1) for n in one.shape_zyx))))
    assert one.shape_zyx == other.shape_zyx
    apart = one.world_from_voxel(corners) - other.world_from_voxel(corners)
    assert (
        np.abs(apart).max()
        <= within * one.spacing_zyx_mm.min() + 1e-6 * np.abs(one.affine).max()
    )


@settings(max_examples=60)
@given(
    affine=affines(),
    shape=SHAPES,
    kind=st.sampled_from(["u1", "i2", "u2", "i4", "u4", "f4", "f8", "i1"]),
    suffix=st.sampled_from(SCAN_OUTPUTS),
    seed=st.integers(0, 99),
)
def test_scans_keep_values_and_places(
    folder: Path,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    kind: str,
    suffix: str,
    seed: int,
) -> None:
    data = filled(kind, shape, seed)
    path = write_scan(Volume(data, Geometry(shape, affine)), folder / f"scan{suffix}")
    first = read(path)
    index = np.argwhere(np.ones(first.data.shape, bool))
    world = first.geometry.world_from_voxel(index)
    source = (np.linalg.inv(affine) @ np.column_stack([world, np.ones(len(world))]).T)[
        :3
    ].T
    assert np.abs(source - np.rint(source)).max() < 1e-2
    np.testing.assert_array_equal(
        first.data.ravel(), data[tuple(np.rint(source).astype(int).T)]
    )
    assert first.data.dtype == data.dtype

    again = read(write_scan(first, folder / f"again{suffix}"))
    np.testing.assert_array_equal(again.data, first.data)
    same_places(first.geometry, again.geometry)


@settings(max_examples=60)
@given(
    affine=affines(shear=True),
    shape=SHAPES,
    kind=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"]),
    scale=st.sampled_from(
        [None, (1.0, 0.0), (0.5, -1000.0), (-2.0, 3.0), (0.0, 7.0), (float("nan"), 1.0)]
    ),
    unit=st.sampled_from(["mm", "micron", "meter", "unknown"]),
    codes=st.sampled_from([(1, 1), (0, 1), (2, 4), (1, 0), (0, 0)]),
    version=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_nifti_is_read_as_nibabel_reads_it(
    folder: Path,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    kind: str,
    scale: tuple[float, float] | None,
    unit: str,
    codes: tuple[int, int],
    version: int,
    seed: int,
) -> None:
    data = filled(kind, shape, seed)
    make = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = make.header_class(endianness=">" if kind[0] == ">" else "<")
    header.set_data_dtype(data.dtype)
    header.set_data_shape(shape)
    header.set_qform(affine, codes[0], strip_shears=True)
    header.set_sform(affine, codes[1])
    header.set_xyzt_units(unit)
    header["magic"], header["vox_offset"] = (
        (b"n+1", 352) if version == 1 else (b"n+2\0\r\n\x1a\n", 544)
    )
    if scale is not None:
        header["scl_slope"], header["scl_inter"] = scale
    path = folder / "nib.nii"
    path.write_bytes(header.binaryblock + bytes(4) + data.tobytes(order="F"))

    expected, found = nib.load(path), read(path)
    mm = {"micron": 0.001, "meter": 1000.0}.get(unit, 1.0)
    there = np.argwhere(np.ones(shape, bool))
    world = nib.affines.apply_affine(np.diag([mm, mm, mm, 1]) @ expected.affine, there)
    here = found.geometry.voxel_from_world(world)
    assert np.abs(here - np.rint(here)).max() < 1e-2
    values = np.asarray(expected.dataobj)[tuple(there.T)]
    np.testing.assert_allclose(
        found.data[tuple(np.rint(here).astype(int).T)], values, rtol=1e-6
    )

    if codes != (0, 0):  # labels carry the scan's own header
        labels = Segmentation(
            np.ones(found.data.shape, np.uint8), default_regions([1]), found.geometry
        )
        saved = nib.load(write(labels, folder / "labels.nii.gz", sidecar=False))
        np.testing.assert_array_equal(saved.affine, expected.affine)
        assert saved.header.get_xyzt_units()[0] == unit
        assert saved.shape == shape


@settings(max_examples=80)
@given(
    affine=affines(),
    shape=SHAPES,
    suffix=st.sampled_from(LABEL_SUFFIXES),
    ids=st.lists(
        st.one_of(st.integers(1, 300), st.integers(1, 2**32 - 1)),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    wide=st.booleans(),
    seed=st.integers(0, 99),
)
def test_labels_of_any_ids_come_back_from_every_format(
    folder: Path,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    suffix: str,
    ids: list[int],
    wide: bool,
    seed: int,
) -> None:
    ids = sorted({min(one, LARGEST_IDS.get(suffix, one)) for one in ids})
    labels = (
        np.random.default_rng(seed)
        .choice([0, *ids], shape)
        .astype(np.uint64 if wide else np.uint32)
    )
    geometry = Geometry(shape, affine)
    path = write(
        Segmentation(labels, default_regions(ids), geometry), folder / f"labels{suffix}"
    )
    found = read_labels(path)
    there = np.argwhere(np.ones(shape, bool))
    here = np.rint(
        found.geometry.voxel_from_world(geometry.world_from_voxel(there))
    ).astype(int)
    np.testing.assert_array_equal(found.labels[tuple(here.T)], labels[tuple(there.T)])
    assert found.labels.dtype.kind == "u"
    assert {row.id for row in found.regions} >= set(np.unique(labels)) - {0}


@settings(max_examples=60)
@given(
    shape=SHAPES,
    kind=st.sampled_from(["f4", "f8", "i2", "i4"]),
    top=st.integers(1, 500),
    off=st.sampled_from(
        [0.0, 1e-6, -3e-4, 9e-4, 0.02, 0.5, -1.0, -7.0, float("nan"), float("inf")]
    ),
    where=st.integers(0, 7),
    seed=st.integers(0, 99),
)
def test_labels_from_other_types_are_whole_or_refused_by_name(
    folder: Path,
    shape: tuple[int, int, int],
    kind: str,
    top: int,
    off: float,
    where: int,
    seed: int,
) -> None:
    whole = np.random.default_rng(seed).integers(0, top + 1, shape)
    whole.flat[where] = 0 if off < 0 else whole.flat[where]
    data = whole.astype(kind)
    if kind[0] == "i":
        off = round(off) if np.isfinite(off) else 0
    data.flat[where] = data.flat[where] + np.asarray(off, kind)
    path = folder / "other.nii"
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 2, 3, 1]), dtype=data.dtype), path)
    if abs(off) < 1e-3:
        found = read_labels(path)
        np.testing.assert_array_equal(
            np.sort(found.labels.ravel()), np.sort(whole.ravel())
        )
        return
    with pytest.raises(ReadError) as refused:
        read_labels(path)
    shown = f"{data.flat[where]:g}"
    assert str(path) in str(refused.value)
    assert shown in str(refused.value).replace("NaN", "nan")
