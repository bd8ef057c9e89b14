"""Bad NIfTI input: each is one line that names the file and says what to do.

Nothing else is printed.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import napari_strata as strata
from napari_strata.errors import ChoiceError, GeometryError, ReadError
from napari_strata.io.files import read

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="permissions do not bind root: run the tests as another user",
)


def save(
    path: Path, data: np.ndarray | None = None, *, patch: dict[int, bytes] | None = None
) -> Path:
    """Write a small scan, then put bytes over its header."""
    data = (
        np.random.default_rng(0).integers(0, 100, (6, 7, 8)).astype(np.int16)
        if data is None
        else data
    )
    nib.Nifti1Image(data, np.diag([1.0, 2, 3, 1])).to_filename(path)
    raw = bytearray(path.read_bytes())
    for offset, content in (patch or {}).items():
        raw[offset : offset + len(content)] = content
    path.write_bytes(raw)
    return path


def missing(folder: Path) -> Path:
    return folder / "nothing.nii.gz"


def empty(folder: Path) -> Path:
    (folder / "empty.nii.gz").write_bytes(b"")
    return folder / "empty.nii.gz"


def text(folder: Path) -> Path:
    (folder / "text.nii").write_text("not a scan at all\n" * 100)
    return folder / "text.nii"


def short_text(folder: Path) -> Path:
    (folder / "short.nii").write_text("hi")
    return folder / "short.nii"


def text_gz(folder: Path) -> Path:
    (folder / "text.nii.gz").write_bytes(gzip.compress(b"not a scan at all\n" * 100))
    return folder / "text.nii.gz"


def truncated_gz(folder: Path) -> Path:
    path = save(
        folder / "cut.nii.gz",
        np.random.default_rng(0).integers(0, 999, (16, 16, 16)).astype(np.int16),
    )
    path.write_bytes(path.read_bytes()[:3000])
    return path


def truncated_gz_in_the_header(folder: Path) -> Path:
    path = save(folder / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:40])
    return path


def truncated(folder: Path) -> Path:
    path = save(folder / "cut.nii")
    path.write_bytes(path.read_bytes()[:500])
    return path


def misnamed_gz(folder: Path) -> Path:
    return save(folder / "scan.nii.gz").rename(folder / "scan.nii")


def flat(folder: Path) -> Path:
    return save(folder / "flat.nii", np.ones((8, 8), np.int16))


def one_slice(folder: Path) -> Path:
    return save(folder / "thin.nii", np.arange(64, dtype=np.int16).reshape(8, 8, 1))


def four_d(folder: Path) -> Path:
    return save(folder / "fmri.nii", np.zeros((6, 7, 8, 5), np.int16))


def zero(folder: Path) -> Path:
    return save(folder / "zero.nii", np.zeros((6, 7, 8), np.int16))


def constant(folder: Path) -> Path:
    return save(folder / "seven.nii", np.full((6, 7, 8), 7, np.int16))


def all_nan(folder: Path) -> Path:
    return save(folder / "nan.nii", np.full((6, 7, 8), np.nan, np.float32))


def complex_voxels(folder: Path) -> Path:
    return save(folder / "complex.nii", np.ones((6, 7, 8), np.complex64))


def colour(folder: Path) -> Path:
    return save(
        folder / "rgb.nii",
        np.zeros((6, 7, 8), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])),
    )


def singular(folder: Path) -> Path:
    return save(
        folder / "scan.nii",
        patch={280: np.array([1, 0, 0, 0, 2, 0, 0, 0], "<f4").tobytes()},
    )


def nan_affine(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={280: np.array([np.nan], "<f4").tobytes()})


def bad_quaternion(folder: Path) -> Path:
    return save(
        folder / "scan.nii",
        patch={252: b"\1\0\0\0", 256: np.array([3, 3, 3], "<f4").tobytes()},
    )


def zero_zoom(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={80: np.array([1, 0, 1], "<f4").tobytes()})


def negative_zoom(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={80: np.array([1, -2, 1], "<f4").tobytes()})


def nan_zoom(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={88: np.array([np.nan], "<f4").tobytes()})


def enormous(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={42: np.array([10000] * 3, "<i2").tobytes()})


def too_large_for_its_bytes(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={42: np.array([1000] * 3, "<i2").tobytes()})


def too_large_for_its_gz(folder: Path) -> Path:
    path = too_large_for_its_bytes(folder)
    (folder / "scan.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    return folder / "scan.nii.gz"


def negative_size(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={42: np.array([-5], "<i2").tobytes()})


def many_dimensions(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={40: np.array([0], "<i2").tobytes()})


def unknown_type(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={70: np.array([999], "<i2").tobytes()})


def bad_offset(folder: Path) -> Path:
    return save(folder / "scan.nii", patch={108: np.array([np.nan], "<f4").tobytes()})


def bad_intercept(folder: Path) -> Path:
    return save(
        folder / "scan.nii", patch={112: np.array([2, np.inf], "<f4").tobytes()}
    )


def lone_header(folder: Path) -> Path:
    nib.Nifti1Pair(np.ones((6, 7, 8), np.int16), np.eye(4)).to_filename(
        folder / "scan.img"
    )
    (folder / "scan.img").unlink()
    return folder / "scan.hdr"


def analyze(folder: Path) -> Path:
    nib.AnalyzeImage(np.ones((6, 7, 8), np.int16), np.eye(4)).to_filename(
        folder / "scan.img"
    )
    return folder / "scan.hdr"


def unknown_suffix(folder: Path) -> Path:
    (folder / "scan.png").write_bytes(b"\x89PNG")
    return folder / "scan.png"


def no_suffix(folder: Path) -> Path:
    (folder / "scan").write_bytes(b"what is this")
    return folder / "scan"


def empty_folder(folder: Path) -> Path:
    (folder / "series").mkdir()
    return folder / "series"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (missing, ReadError, "There is no file"),
        (empty, ReadError, "empty file"),
        (text, ReadError, "not a NIfTI file"),
        (short_text, ReadError, "not a NIfTI file"),
        (text_gz, ReadError, "not a NIfTI file"),
        (truncated_gz, ReadError, "damaged or cut short"),
        (truncated_gz_in_the_header, ReadError, "damaged or cut short"),
        (truncated, ReadError, "cut short"),
        (misnamed_gz, ReadError, "Rename it to scan.nii.gz"),
        (flat, ReadError, r"2D image \(8 x 8\)"),
        (one_slice, ReadError, "one slice only"),
        (four_d, ChoiceError, r"holds 5 volumes; choose one with --index 0\.\.4"),
        (zero, ReadError, "every voxel is 0"),
        (constant, ReadError, "every voxel is 7"),
        (all_nan, ReadError, "every voxel is NaN"),
        (complex_voxels, ReadError, "real intensities"),
        (colour, ReadError, "colour"),
        (singular, GeometryError, "singular"),
        (nan_affine, GeometryError, "not a finite"),
        (bad_quaternion, GeometryError, "no rotation"),
        (zero_zoom, GeometryError, "voxel size of 1 x 0 x 1 mm"),
        (negative_zoom, GeometryError, "voxel size of 1 x -2 x 1 mm"),
        (nan_zoom, GeometryError, "voxel size of 1 x 2 x nan mm"),
        (enormous, ReadError, "10000 x 10000 x 10000 voxels, more than"),
        (too_large_for_its_bytes, ReadError, "cut short"),
        (too_large_for_its_gz, ReadError, "cut short"),
        (negative_size, ReadError, "header is damaged"),
        (many_dimensions, ReadError, "0 dimensions"),
        (unknown_type, ReadError, "unknown type 999"),
        (bad_offset, ReadError, "header is damaged"),
        (bad_intercept, ReadError, "scl_inter"),
        (lone_header, ReadError, "needs both files"),
        (analyze, ReadError, "left from right"),
        (unknown_suffix, ReadError, r"Strata reads \.nii, .* and DICOM folders"),
        (no_suffix, ReadError, "unknown kind"),
        (empty_folder, ReadError, "no DICOM images"),
    ],
)
def test_one_clear_line_and_nothing_else(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    error: type[Exception],
    message: str,
) -> None:
    path = make(tmp_path)
    capfd.readouterr()
    for reader in (strata.read, strata.read_labels):
        if reader is strata.read_labels and make in (zero, constant, one_slice, four_d):
            continue  # labels may be all alike, one slice, or a volume for each label
        with pytest.raises(error) as caught:
            reader(path)
        assert str(path.with_suffix("")) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")
    with pytest.raises(error, match=message):
        strata.read(path)
    assert capfd.readouterr() == ("", "")


def test_an_index_beyond_the_end_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(
        ChoiceError,
        match=r"has no volume 5: it holds 5; choose one with --index 0\.\.4",
    ):
        strata.read(four_d(tmp_path), index=5)
    with pytest.raises(ChoiceError, match="has no volume 1"):
        strata.read(save(tmp_path / "scan.nii"), index=1)
    with pytest.raises(
        ChoiceError, match=r"no DICOM series, so --series cannot choose"
    ):
        strata.read(tmp_path / "scan.nii", series="1.2")


def test_a_scan_is_no_label_file(tmp_path: Path) -> None:
    path = save(
        tmp_path / "scan.nii",
        np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32),
    )
    with pytest.raises(ReadError, match="not a label file"):
        strata.read_labels(path)


def test_empty_labels_are_labels(tmp_path: Path) -> None:
    labels = strata.read_labels(
        save(tmp_path / "labels.nii.gz", np.zeros((6, 7, 8), np.float32))
    )
    assert labels.regions == ()
    assert labels.labels.dtype == np.uint8


@NOT_ROOT
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii")
    path.chmod(0)
    with pytest.raises(ReadError, match="Permission denied"):
        strata.read(path)


@pytest.mark.parametrize(
    "line",
    ["CompressedData = True\nCompressedDataSize = 5\n", "CompressedData = True\n"],
)
def test_a_compressed_metaimage_with_too_few_voxels_is_refused_the_same_way_every_time(
    line, tmp_path
):
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType ="
        f" MET_UCHAR\n{line}ElementDataFile = LOCAL\n"
    )
    good = zlib.compress(bytes(range(64)))
    (tmp_path / "scan.mha").write_bytes(
        header.encode() + (good if "Size" in line else good[:-20])
    )
    for _ in range(2):
        with pytest.raises(
            ReadError,
            match=(
                r"scan\.mha (is cut short|is damaged|does not say how long its"
                r" compressed voxels are)"
            ),
        ):
            read(tmp_path / "scan.mha")


@pytest.mark.parametrize(("side", "far"), [(1e-9, 0.0), (1e30, 0.0), (1.0, 1e20)])
def test_sizes_and_places_that_no_scan_has_are_refused(side, far, tmp_path):
    affine = np.diag([side, 1.0, 1.0, 1.0])
    affine[0, 3] = far
    nib.save(
        nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), affine),
        tmp_path / "scan.nii",
    )
    with pytest.raises(GeometryError, match=r"scan\.nii .*Repair its header"):
        read(tmp_path / "scan.nii")
