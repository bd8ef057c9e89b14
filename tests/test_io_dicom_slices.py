"""DICOM series whose slices differ, lack something or lie beside other files.

Pydicom and SimpleITK are the oracles.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    RTStructureSetStorage,
)

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.errors import StrataError
from napari_strata.io.dicom.series import read_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
ROWS, COLUMNS, N = 7, 6, 5
RIGHT, DOWN = np.array([0.961, 0.277, 0.0]), np.array([-0.277, 0.961, 0.0])
AIR_AND_TISSUE = np.where(
    np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 3, 1060, 24
)
AIR_AND_TISSUE[3, 2] = 2000
"""A CT as it is stored: air, muscle and a bit of bone, 1024 above HU."""


def one_slice(k: int, stored: np.ndarray = AIR_AND_TISSUE, **tags: object) -> Dataset:
    """Make slice k of an oblique CT of 16 bits; a tag of None is left out."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
    (
        one.StudyInstanceUID,
        one.SeriesInstanceUID,
        one.FrameOfReferenceUID,
        one.Modality,
    ) = ("1.2", "1.2.3", "1.2.4", "CT")
    one.StudyDate = one.StudyTime = one.PatientBirthDate = one.PatientSex = (
        one.PatientID
    ) = one.PatientName = ""
    one.ImagePositionPatient = [
        f"{part:.3f}" for part in np.array([1.5, -20, 30]) + np.array([0, 0, 2.5]) * k
    ]
    one.ImageOrientationPatient, one.PixelSpacing = (
        [f"{part:.3f}" for part in (*RIGHT, *DOWN)],
        [0.9, 0.7],
    )
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = (
        ROWS,
        COLUMNS,
        1,
        "MONOCHROME2",
    )
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = (
        16,
        16,
        15,
        0,
    )
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    order = ">" if one.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    raw = stored.astype(f"{order}u{one.BitsAllocated // 8}").tobytes()
    one.PixelData = raw + b"\0" * (len(raw) % 2)
    one["PixelData"].VR = "OB" if one.BitsAllocated == 8 else "OW"
    return one


def save(folder: Path, *changed: Dataset, name: str = "IM{:04d}.dcm") -> Path:
    """Write a series; the slices given stand for the first ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(N):
        one = changed[k] if k < len(changed) else one_slice(k)
        one.save_as(folder / name.format(k + 1), enforce_file_format=True)
    return folder


def by_pydicom(folder: Path) -> np.ndarray:
    """Values (column, row, slice) as pydicom has them."""
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    return np.stack(
        [apply_modality_lut(one.pixel_array, one) for one in slices]
    ).transpose(2, 1, 0)


@pytest.mark.parametrize("seed", range(6))
def test_each_slice_is_read_by_its_own_header(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slices = []
    for k in range(N):
        allocated = int(rng.choice([8, 16, 32]))
        stored = int(rng.integers(allocated // 2, allocated + 1))
        slope, intercept = (
            (1, -1024)
            if seed % 2
            else (f"{rng.uniform(0.1, 3):.4f}", f"{rng.uniform(-9, 9):.3f}")
        )
        slices.append(
            one_slice(
                k,
                rng.integers(0, 2**allocated, (ROWS, COLUMNS)),
                **dict(
                    BitsAllocated=allocated,
                    BitsStored=stored,
                    HighBit=stored - 1,
                    PixelRepresentation=int(rng.integers(2)),
                ),
                **dict(RescaleSlope=slope, RescaleIntercept=intercept),
                syntax=rng.choice(
                    [
                        ExplicitVRLittleEndian,
                        ImplicitVRLittleEndian,
                        ExplicitVRBigEndian,
                        DeflatedExplicitVRLittleEndian,
                    ]
                ),
            )
        )
    folder = save(tmp_path / "ct", *slices)
    data, expected = read_dicom(folder, None).data, by_pydicom(folder)
    if seed % 2:
        assert data.dtype.kind == "i"
        np.testing.assert_array_equal(data, expected)
    else:
        np.testing.assert_allclose(
            data, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
        )


def test_values_and_place_are_simpleitks_on_an_ordinary_series(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = save(
        tmp_path / "ct",
        *(one_slice(k, rng.integers(0, 4096, (ROWS, COLUMNS))) for k in range(N)),
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image, ours = reader.Execute(), read_dicom(folder, None)
    np.testing.assert_array_equal(
        ours.data, sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    )
    for index in ((0, 0, 0), (COLUMNS - 1, ROWS - 1, N - 1)):
        lps = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(
            (ours.grid.affine @ (*index, 1))[:3] * (-1, -1, 1), lps, atol=1e-9
        )


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "MR_small_bigendian",
        "J2K_pixelrep_mismatch",
    ],
)
def test_compressed_slices_are_pydicoms(tmp_path: Path, name: str) -> None:
    one = pydicom.dcmread(get_testdata_file(f"{name}.dcm"))
    expected = apply_modality_lut(one.pixel_array, one).T
    for k in range(2):
        one.ImagePositionPatient, one.SOPInstanceUID = [0, 0, 3 * k], f"1.2.{k}"
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.save_as(tmp_path / f"{k}.dcm")
    data = read_dicom(tmp_path, None).data
    np.testing.assert_array_equal(data, np.stack([expected, expected], -1))


def wrapped(k: int, *fragments: bytes) -> Dataset:
    """Make a slice that says it is JPEG 2000."""
    one = one_slice(k, syntax=JPEG2000Lossless)
    one.PixelData = (
        encapsulate(list(fragments)) if fragments else b"\xfe\xff\x00\xe0\0\0\0\0"
    )
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    return one


def with_pixels(change: Callable[[bytes], bytes], **tags: object) -> Dataset:
    one = one_slice(0, **tags)
    one.PixelData = change(one.PixelData)
    return one


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (
            lambda: with_pixels(lambda raw: raw[:40]),
            "has 40 bytes of voxels where 7 rows, 6 columns and 16 bits ask for 84",
        ),
        (lambda: with_pixels(lambda raw: b""), "has 0 bytes of voxels"),
        (lambda: with_pixels(lambda raw: raw * 2), "its header does not fit"),
        (lambda: one_slice(0, Rows=None), "0 rows"),
        (lambda: one_slice(0, BitsStored=20), "20 of 16 bits"),
        (lambda: one_slice(0, NumberOfFrames=2), "multi-frame"),
        (
            lambda: one_slice(0, PhotometricInterpretation="PALETTE COLOR"),
            "colour image",
        ),
        (lambda: one_slice(0, RescaleSlope=0), "rescale slope of 0"),
        (
            lambda: one_slice(0, RescaleIntercept="inf"),
            "rescale intercept that is not a number",
        ),
        (
            lambda: one_slice(0, RescaleSlope=None, RescaleIntercept=None),
            "without the rescale to Hounsfield units",
        ),
        (lambda: wrapped(0), "holds no image"),
        (lambda: wrapped(0, b"ab" * 40), "damaged or cut short"),
    ],
)
def test_a_slice_that_lacks_something_is_refused_by_its_name(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damaged: Callable[[], Dataset],
    reason: str,
) -> None:
    folder, said = save(tmp_path / "ct", damaged()), []
    for _ in range(2):
        assert (
            main(
                [
                    "propose",
                    str(folder),
                    "--regions",
                    "4",
                    "-o",
                    str(tmp_path / "out.nii.gz"),
                ]
            )
            == 2
        )
        said.append(capsys.readouterr().err)
    assert reason in said[0]
    assert "IM0001.dcm" in said[0]
    assert said[0] == said[1]
    assert len(said[0].strip().splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["ct"]


def test_a_file_cut_anywhere_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "ct")
    whole = (folder / "IM0003.dcm").read_bytes()
    for left in (0, 10, 140, 400, 700, len(whole) - 60, len(whole) - 1):
        (folder / "IM0003.dcm").write_bytes(whole[:left])
        with pytest.raises(StrataError, match=r"IM0003\.dcm"):
            strata.read(folder)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("head", [b"", bytes(128) + b"DICM"], ids=["bare", "mark"])
def test_files_without_a_head_are_found(
    tmp_path: Path, syntax: str, head: bytes
) -> None:
    folder = save(
        tmp_path / "ct",
        *(one_slice(k, syntax=syntax) for k in range(N)),
        name="MR.1.2.276.{:04d}",
    )
    expected = by_pydicom(folder)
    for file in folder.iterdir():
        raw = file.read_bytes()
        start = 144 + int.from_bytes(raw[140:144], "little")
        file.write_bytes(head + raw[start:])
    np.testing.assert_array_equal(
        strata.read(folder).data, expected.transpose(2, 1, 0)[::-1]
    )
    assert strata.read(folder / "MR.1.2.276.0002").data.shape == (N, ROWS, COLUMNS)


@pytest.mark.parametrize(
    "text",
    [b"\x08\0 is no DICOM", b"\x08\0\x05\0" * 200, b"{}", b"\x02\0" + bytes(200)],
)
def test_other_files_are_no_dicom(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "other").write_bytes(text)
    save(tmp_path)
    assert strata.read(tmp_path).notes == ()


@pytest.mark.parametrize("place", ["ct", ""], ids=["beside", "above"])
def test_what_is_no_slice_is_left_out_and_told(tmp_path: Path, place: str) -> None:
    plain = strata.read(save(tmp_path / "study" / "ct")).data
    beside = tmp_path / "study" / place
    plan = one_slice(
        9,
        SOPClassUID=RTStructureSetStorage,
        Modality="RTSTRUCT",
        SeriesInstanceUID="1.9",
        Rows=None,
        Columns=None,
    )
    plan.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    del plan.PixelData
    plan.save_as(beside / "plan.dcm", enforce_file_format=True)
    (beside / "._IM0001.dcm").write_bytes(bytes.fromhex("00051607") + bytes(4092))
    (beside / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (beside / "notes.dcm").write_text("seen on Monday")
    shutil.copy(tmp_path / "study" / "ct" / "IM0002.dcm", beside / ".IM0002.dcm.Xy1")
    volume = strata.read(tmp_path / "study")
    np.testing.assert_array_equal(volume.data, plain)
    told = " ".join(volume.notes)
    for name in (
        "plan.dcm (RT Structure Set)",
        "._IM0001.dcm",
        "notes.dcm",
        ".IM0002.dcm.Xy1",
    ):
        assert name in told


def test_a_text_in_the_place_of_a_slice_is_a_lost_slice(tmp_path: Path) -> None:
    folder = save(tmp_path / "ct")
    (folder / "IM0005.dcm").write_text("<html>not found</html>")
    with pytest.raises(
        StrataError, match=r"IM0005\.dcm is named like the slices beside it"
    ):
        strata.read(folder)


def test_a_ct_without_rescale_is_hu_only_where_it_looks_like_it(tmp_path: Path) -> None:
    bare = {"RescaleSlope": None, "RescaleIntercept": None}
    stored = strata.read(
        save(tmp_path / "stored", *(one_slice(k, **bare) for k in range(N)))
    )
    hu = (AIR_AND_TISSUE - 1024).astype(np.uint16)
    signed = strata.read(
        save(
            tmp_path / "hu",
            *(one_slice(k, hu, PixelRepresentation=1, **bare) for k in range(N)),
        )
    )
    said_so = strata.read(
        save(tmp_path / "said", *(one_slice(k, RescaleIntercept=0) for k in range(N)))
    )
    assert [one.modality for one in (stored, signed, said_so)] == ["mr", "ct", "mr"]
    assert "no Hounsfield units" in stored.notes[0]
    assert "look like it" in signed.notes[0]
    assert "though the header says so" in said_so.notes[0]


def test_inverted_slices_are_as_stored_and_told(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "ct", one_slice(0, PhotometricInterpretation="MONOCHROME1")
    )
    image = read_dicom(folder, None)
    np.testing.assert_array_equal(image.data, by_pydicom(folder))
    assert image.notes == (
        "IM0001.dcm is meant to be shown inverted (MONOCHROME1); values are as stored.",
    )


def test_a_sloppy_high_bit_is_believed_only_where_the_voxels_agree(
    tmp_path: Path,
) -> None:
    twelve = {"BitsStored": 12, "HighBit": 15}
    low = strata.read(
        save(tmp_path / "low", *(one_slice(k, **twelve) for k in range(N)))
    )
    high = strata.read(
        save(
            tmp_path / "high",
            *(one_slice(k, AIR_AND_TISSUE << 4, **twelve) for k in range(N)),
        )
    )
    np.testing.assert_array_equal(low.data[0], AIR_AND_TISSUE - 1024)
    np.testing.assert_array_equal(high.data, low.data)


def test_a_dark_slice_has_its_values_in_the_bits_of_its_neighbours(
    tmp_path: Path,
) -> None:
    stored = [
        np.full_like(AIR_AND_TISSUE, 150),
        np.full_like(AIR_AND_TISSUE, 900),
        np.full_like(AIR_AND_TISSUE, 80),
    ]
    slices = [
        one_slice(k, values * 16, BitsStored=12, HighBit=15)
        for k, values in enumerate(stored)
    ]
    plain = [one_slice(k, values) for k, values in enumerate(stored)]
    found = strata.read(save(tmp_path / "upper", *slices)).data
    np.testing.assert_array_equal(
        found, strata.read(save(tmp_path / "plain", *plain)).data
    )


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_compressed_values_in_the_upper_bits_are_those_of_native_ones(
    tmp_path: Path, bits: int, signed: int
) -> None:
    pytest.importorskip("jpeg_ls")
    stored = (AIR_AND_TISSUE[..., None] + np.arange(N)) << (bits - 12)
    tags = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    slices = [one_slice(k, stored[..., k], **tags) for k in range(N)]
    for one in slices:
        one.compress(JPEGLSLossless, generate_instance_uid=False)
        one.BitsStored, one.HighBit = 12, 15
    found = strata.read(save(tmp_path / "packed", *slices)).data
    plain = [one_slice(k, stored[..., k] >> (bits - 12)) for k in range(N)]
    np.testing.assert_array_equal(
        found, strata.read(save(tmp_path / "plain", *plain)).data
    )


def test_values_partly_in_the_lower_bits_are_refused_or_told(tmp_path: Path) -> None:
    upper = {"BitsStored": 12, "HighBit": 15}
    folder = save(
        tmp_path / "mixed",
        *(
            one_slice(k, AIR_AND_TISSUE << (0 if k == 2 else 4), **upper)
            for k in range(N)
        ),
    )
    with pytest.raises(StrataError, match=r"IM0003\.dcm says by its high bit"):
        strata.read(folder)
    own = [one_slice(k, AIR_AND_TISSUE << 4, **upper) for k in range(2)]
    own += [one_slice(k, BitsStored=12, HighBit=11) for k in range(2, N)]
    np.testing.assert_array_equal(
        strata.read(save(tmp_path / "own", *own)).data[0], AIR_AND_TISSUE - 1024
    )
    dark = save(
        tmp_path / "dark",
        *(one_slice(k, AIR_AND_TISSUE // 20 * 16, **upper) for k in range(N)),
    )
    assert "fit the lower bits too" in " ".join(strata.read(dark).notes)


@pytest.mark.parametrize(
    "cosines",
    [
        (0.7, 0.7, 0, -0.7, 0.7, 0),
        (0.96, 0.28, 0, -0.27, 0.96, 0),
        (0.97, 0, 0, 0, 1, 0),
    ],
)
def test_directions_that_are_rounded_leave_the_spacing_as_the_header_has_it(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    wide = np.tile(AIR_AND_TISSUE, (1, 12))
    slices = [
        one_slice(k, wide, ImageOrientationPatient=list(cosines), Columns=wide.shape[1])
        for k in range(N)
    ]
    scan = strata.read(save(tmp_path / "ct", *slices))
    np.testing.assert_allclose(scan.spacing_zyx_mm, (2.5, 0.9, 0.7), rtol=1e-6)
    directions = scan.geometry.affine[:3, :3] / scan.spacing_zyx_mm
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert [note.split(" are rounded")[0] for note in scan.notes] == [
        "Directions of rows and columns"
    ]
    labels = (scan.data > 0).astype(np.uint8)
    made = strata.Segmentation(labels=labels, regions=(), geometry=scan.geometry)
    back = strata.read_labels(strata.write(made, tmp_path / "seg.dcm", scan=scan))
    np.testing.assert_allclose(
        back.geometry.affine[:3, :3], scan.geometry.affine[:3, :3], atol=1e-6
    )


def test_a_copy_of_a_slice_is_left_out_and_named(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "ct", *(one_slice(k, AIR_AND_TISSUE + k) for k in range(N))
    )
    expected = strata.read(folder)
    shutil.copy(folder / "IM0002.dcm", folder / "IM0002 (1).dcm")
    packed = one_slice(2, AIR_AND_TISSUE + 2)
    packed.compress(RLELossless, generate_instance_uid=False)
    packed.save_as(folder / "packed.dcm", enforce_file_format=True)
    found = strata.read(folder)
    np.testing.assert_array_equal(found.data, expected.data)
    assert any(
        "copies of other slices: IM0002.dcm, packed.dcm" in note for note in found.notes
    )
    one_slice(3, AIR_AND_TISSUE + 9).save_as(
        folder / "phase.dcm", enforce_file_format=True
    )
    with pytest.raises(StrataError, match=r"IM0004\.dcm and phase\.dcm"):
        strata.read(folder)


INVALID = {
    "PatientBirthDate": "ANONYMOUS",
    "StudyDate": "2020-01-02",
    "StudyTime": "25:61",
    "PatientSex": "MALE",
    "PatientAge": "45 years",
    "PatientName": "a^b^c^d^e^f^g",
    "PatientID": "p" * 80,
    "StudyID": "long" * 5,
}


def test_a_seg_on_invalid_values_leaves_them_empty_and_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    highdicom = pytest.importorskip("highdicom")
    with pydicom.config.disable_value_validation():
        save(
            tmp_path / "ct",
            *(
                one_slice(
                    k,
                    **INVALID,
                    SpecificCharacterSet="LATIN",
                    StudyInstanceUID="1.02.X",
                )
                for k in range(N)
            ),
        )
    scan = strata.read(tmp_path / "ct")
    labels = strata.Segmentation((scan.data > 0).astype(np.uint8), (), scan.geometry)
    seg = highdicom.seg.segread(strata.write(labels, tmp_path / "seg.dcm", scan=scan))
    told = " ".join(record.getMessage() for record in caplog.records)
    for name in INVALID:
        assert not seg.get(name), name
        assert name in told
    assert "SpecificCharacterSet" in told
    assert "StudyInstanceUID 1.02.X" in told
    assert seg.StudyInstanceUID == "1.02.X"
    np.testing.assert_array_equal(
        strata.read_labels(tmp_path / "seg.dcm", like=scan).labels, labels.labels
    )


def j2k_slice(
    k: int, bits: np.ndarray, *, data_signed: bool, **tags: object
) -> Dataset:
    """Make a JPEG 2000 slice from unsigned values, with the sign that its data state.

    Values of signed data are those given less half their range.
    """
    image = pytest.importorskip("PIL.Image")
    target = BytesIO()
    image.fromarray(bits).save(
        target, "JPEG2000", irreversible=False, num_resolutions=1, no_jp2=True
    )
    frame = bytearray(target.getvalue())
    frame[42] |= 0x80 * data_signed  # Ssiz, behind the markers SOC and SIZ
    tags = {"syntax": JPEG2000Lossless, "RescaleIntercept": 0, **tags}
    one = one_slice(k, bits, **tags)
    one.PixelData = encapsulate([bytes(frame)], has_bot=False)
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    return one


@pytest.mark.parametrize("header_signed", [False, True, None])
@pytest.mark.parametrize("data_signed", [False, True])
def test_jpeg_2000_whose_sign_is_not_that_of_the_header(
    tmp_path: Path, data_signed: bool, header_signed: bool | None
) -> None:
    """Values are those of GDCM or of the data's own sign, with a note, or are refused."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**16, (ROWS, COLUMNS)).astype(np.uint16)
    value = None if header_signed is None else int(header_signed)
    series = save(
        tmp_path / "series",
        *(
            j2k_slice(k, bits, data_signed=data_signed, PixelRepresentation=value)
            for k in range(N)
        ),
    )
    if data_signed and header_signed is False:
        with pytest.raises(StrataError, match=r"IM0001\.dcm says .* are unsigned, but"):
            strata.read(series)
        return
    read = read_dicom(series, None)
    notes = " ".join(read.notes)
    if header_signed == data_signed or header_signed is None:
        expected = bits.astype(int) - 2**15 * data_signed
    else:
        expected = bits.view(np.int16)
        assert "unsigned, read as signed as the header says" in notes
        by_gdcm = sitk.GetArrayFromImage(sitk.ReadImage(str(series / "IM0001.dcm")))
        np.testing.assert_array_equal(by_gdcm[0], expected)
    np.testing.assert_array_equal(read.data[:, :, 0], expected.T)
    assert ("without a pixel representation" in notes) == (header_signed is None)


def test_a_missing_pixel_representation_matters_only_where_values_differ_by_it(
    tmp_path: Path,
) -> None:
    plain = save(tmp_path / "plain")
    lost = [one_slice(k, PixelRepresentation=None) for k in range(N)]
    np.testing.assert_array_equal(
        strata.read(save(tmp_path / "lost", *lost)).data, strata.read(plain).data
    )
    stored = AIR_AND_TISSUE.astype(np.uint16)
    stored[2, 3] = 65000  # or -536
    lost[1] = one_slice(1, stored, PixelRepresentation=None)
    with pytest.raises(
        StrataError, match=r"IM0002\.dcm does not say whether .* signed"
    ):
        strata.read(save(tmp_path / "large", *lost))


@pytest.mark.parametrize(
    ("shift", "is_read"), [(0.05, True), (0.3, True), (0.5, False)]
)
def test_a_slice_shifted_within_its_plane_is_noted_or_refused(
    tmp_path: Path, shift: float, is_read: bool
) -> None:
    """Half a pixel (.45 mm) is the limit, however thick the slices are."""
    place = np.array([1.5, -20, 35]) + DOWN * shift
    position = [f"{part:.3f}" for part in place]
    slices = [one_slice(k) for k in range(N)]
    slices[2].ImagePositionPatient = position
    folder = save(tmp_path, *slices)
    if is_read:
        noted = "mm off an even grid" in " ".join(strata.read(folder).notes)
        assert noted == (shift > 0.05)
    else:
        with pytest.raises(StrataError, match=r"shifted sideways by up to 0\.\d+ mm"):
            strata.read(folder)
