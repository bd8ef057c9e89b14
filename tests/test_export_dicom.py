"""DICOM SEG: the same voxels at the same place, names, colours and references.

For pydicom and highdicom alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr._concepts_dict import concepts

import napari_strata as strata
from exported import REGIONS
from napari_strata.cli.command_line import main
from napari_strata.errors import GeometryError, ReadError, WriteError
from napari_strata.io.files import hash_file
from napari_strata.io.labels.terms import known_terms, term_of
from napari_strata.settings import ExportSettings
from napari_strata.volume import Geometry, Region, Segmentation
from test_io_dicom import N_COLUMNS, N_ROWS, N_SLICES, STEP, save_series, world_of


def segmented(
    folder: Path, *, step: tuple[float, float, float] = STEP
) -> tuple[strata.Volume, strata.Segmentation, NDArray[np.uint16]]:
    """Give a series, labels on it, and the same labels as (slice, row, column) of the series."""
    truth = np.zeros((N_SLICES, N_ROWS, N_COLUMNS), np.uint16)
    truth[1:4, 2:6, 1:3], truth[2, 1, 4], truth[2:4, 7, 0] = 3, 7, 300
    scan = strata.read(save_series(folder, step=step))
    return scan, Segmentation(truth[::-1].copy(), REGIONS, scan.geometry), truth


def stored_mask(path: Path, number: int) -> tuple[NDArray[np.bool_], pydicom.Dataset]:
    """Unpack one segment with pydicom alone, frame by frame, to.

    (slice, row, column) of the series by the frames' positions.
    """
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.reshape(-1, N_ROWS, N_COLUMNS)
    mask = np.zeros((N_SLICES, N_ROWS, N_COLUMNS), bool)
    for frame, groups in zip(
        frames, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            position = np.array(
                groups.PlanePositionSequence[0].ImagePositionPatient, float
            ) * (-1, -1, 1)
            at = [
                k
                for k in range(N_SLICES)
                if np.allclose(world_of(0, 0, k), position, atol=1e-4)
            ]
            mask[at[0]] = frame > 0
    return mask, dataset


def test_every_voxel_is_where_the_series_has_it(tmp_path: Path) -> None:
    scan, labels, truth = segmented(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    for number, label in enumerate((3, 7, 300), 1):
        mask, dataset = stored_mask(path, number)
        np.testing.assert_array_equal(mask, truth == label)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert [
        float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing
    ] == pytest.approx([0.9, 0.7])
    assert [
        float(part)
        for part in shared.PlaneOrientationSequence[0].ImageOrientationPatient
    ] == pytest.approx([0.96, 0.28, 0, -0.28, 0.96, 0])


def test_highdicom_reads_labels_in_place(tmp_path: Path) -> None:
    scan, labels, truth = segmented(tmp_path / "ct")
    volume = hd.seg.segread(
        strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    ).get_volume(combine_segments=True)
    for number, label in enumerate((3, 7, 300), 1):
        slice_row_column = np.argwhere(volume.array == number)
        lps = volume.map_indices_to_reference(slice_row_column)
        expected = [world_of(i, j, k) for k, j, i in np.argwhere(truth == label)]
        np.testing.assert_allclose(
            sorted((lps * (-1, -1, 1)).round(4).tolist()),
            sorted(np.round(expected, 4).tolist()),
            atol=1e-3,
        )


def test_segments_carry_names_codes_colours_and_their_region_id(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    dataset = pydicom.dcmread(strata.write(labels, tmp_path / "seg.dcm", scan=scan))
    kidney, vessel, plain = dataset.SegmentSequence
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == [
        region.name for region in REGIONS
    ]
    assert [one.TrackingID for one in dataset.SegmentSequence] == [
        "Strata region 3",
        "Strata region 7",
        "Strata region 300",
    ]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning) == (
        "SCT",
        "64033007",
        "Kidney",
    )
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert (
        vessel.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
        == plain.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
        == "Tissue"
    )
    assert hd.color.CIELabColor.from_dicom_value(
        kidney.RecommendedDisplayCIELabValue
    ).to_rgb() == pytest.approx((200, 30, 40), abs=1)


def test_the_series_is_referred_to(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    for file in (tmp_path / "ct").iterdir():
        one = pydicom.dcmread(file)
        one.FrameOfReferenceUID = "1.2.3.4"
        one.save_as(file)
    dataset = pydicom.dcmread(strata.write(labels, tmp_path / "seg.dcm", scan=scan))
    slices = [pydicom.dcmread(file) for file in (tmp_path / "ct").iterdir()]
    assert dataset.StudyInstanceUID == slices[0].StudyInstanceUID
    assert dataset.SeriesInstanceUID != slices[0].SeriesInstanceUID
    assert dataset.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    referred = dataset.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {
        one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence
    } == {one.SOPInstanceUID for one in slices}


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_labels_come_back_on_the_scans_grid(tmp_path: Path, kind: str) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    path = strata.write(
        labels,
        tmp_path / "seg.dcm",
        scan=scan,
        settings=ExportSettings(dicom_segments=kind),
    )
    back = strata.read_labels(path, like=scan)
    np.testing.assert_array_equal(back.labels, labels.labels)
    assert [(region.id, region.name) for region in back.regions] == [
        (region.id, region.name) for region in REGIONS
    ]
    assert all(
        np.abs(np.subtract(a.color, b.color)).max() <= 1
        for a, b in zip(back.regions, REGIONS, strict=True)
    )
    own = strata.read_labels(path)
    assert own.labels.shape[0] <= N_SLICES
    assert (own.labels == 3).sum() == (labels.labels == 3).sum()


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_tilted_gantry_comes_back_askew_as_it_was(tmp_path: Path, kind: str) -> None:
    scan, labels, truth = segmented(tmp_path / "ct", step=(0.0, 0.6, 2.5))
    path = strata.write(
        labels,
        tmp_path / "seg.dcm",
        scan=scan,
        settings=ExportSettings(dicom_segments=kind),
    )
    np.testing.assert_array_equal(
        strata.read_labels(path, like=scan).labels, labels.labels
    )
    own = strata.read_labels(path)
    center = own.geometry.world_from_voxel(np.argwhere(own.labels == 3).mean(axis=0))
    expected = np.mean(
        [world_of(i, j, k, (0.0, 0.6, 2.5)) for k, j, i in np.argwhere(truth == 3)],
        axis=0,
    )
    np.testing.assert_allclose(center, expected, atol=1e-3)


def foreign_seg(
    folder: Path, path: Path, pixels: NDArray[np.generic], kind: str
) -> None:
    """Write a SEG as another program would.

    Stacked segments (slice, row, column, segment), no colour, no tracking.
    """
    slices = sorted(
        (pydicom.dcmread(file) for file in folder.iterdir()),
        key=lambda one: one.ImagePositionPatient[2],
    )
    for one in slices:
        one.FrameOfReferenceUID, one.SliceThickness = "1.2.3.4", 2.5
        one.PatientID = one.PatientName = one.PatientBirthDate = one.PatientSex = (
            one.AccessionNumber
        ) = one.StudyID = ""
        one.StudyDate = one.StudyTime = ""
    segments = [
        hd.seg.SegmentDescription(
            n + 1,
            name,
            pydicom.sr.codedict.codes.SCT.Tissue,
            pydicom.sr.codedict.codes.SCT.Tissue,
            "MANUAL",
        )
        for n, name in enumerate(("first", "second"))
    ]
    uids = [hd.UID(), 7, hd.UID(), 1]
    hd.seg.Segmentation(
        slices, pixels, kind, segments, *uids, "maker", "model", "1", "0"
    ).save_as(path)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_overlapping_and_fractional_segs_of_others_are_read(
    tmp_path: Path, kind: str
) -> None:
    scan, _, _ = segmented(tmp_path / "ct")
    pixels = np.zeros(
        (N_SLICES, N_ROWS, N_COLUMNS, 2), np.uint8 if kind == "BINARY" else np.float32
    )
    pixels[1:4, 2:6, 1:4, 0] = 1
    pixels[2, 5:7, 3, 1] = 1 if kind == "BINARY" else 0.6
    if kind == "FRACTIONAL":
        pixels[0, 0, 0, 1] = 0.3
    foreign_seg(tmp_path / "ct", tmp_path / "seg.dcm", pixels, kind)
    found = strata.read_labels(tmp_path / "seg.dcm", like=scan)
    expected = np.zeros((N_SLICES, N_ROWS, N_COLUMNS), np.uint8)
    expected[pixels[..., 0] >= 0.5], expected[pixels[..., 1] >= 0.5] = 1, 2
    np.testing.assert_array_equal(found.labels, expected[::-1])
    assert [(region.id, region.name) for region in found.regions] == [
        (1, "first"),
        (2, "second"),
    ]


def of_frames(
    path: Path, made: Path, order: list[int], *, without: tuple[str, ...] = ()
) -> Path:
    """Write a SEG's frames again in another order.

    Or fewer of them, its measures without some tags.
    """
    dataset = pydicom.dcmread(path)
    frames, groups = dataset.pixel_array, list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = pydicom.pixels.pack_bits(frames[order].ravel())
    for name in without:
        delattr(
            dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], name
        )
    dataset.save_as(made)
    return made


def test_frames_left_out_or_in_any_order_lie_where_highdicom_has_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan, _, _ = segmented(tmp_path / "ct")
    pixels = np.zeros((N_SLICES, N_ROWS, N_COLUMNS, 2), np.uint8)
    pixels[0, 2:6, 1:4, 0], pixels[N_SLICES - 1, 1:3, 2:4, 0], pixels[1, 5:7, 3, 1] = (
        1,
        1,
        1,
    )
    foreign_seg(tmp_path / "ct", tmp_path / "seg.dcm", pixels, "BINARY")
    stored = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    expected = (pixels * np.array([1, 2], np.uint8)).max(axis=-1)[::-1]
    for order, without in (([2, 0, 1], ()), ([1, 2, 0], ("SpacingBetweenSlices",))):
        path = of_frames(
            tmp_path / "seg.dcm", tmp_path / "frames.dcm", order, without=without
        )
        np.testing.assert_array_equal(
            strata.read_labels(path, like=scan).labels, expected
        )
        own = strata.read_labels(path)
        for value in (1, 2):
            center = own.geometry.world_from_voxel(
                np.argwhere(own.labels == value).mean(axis=0)
            )
            theirs = stored.affine @ (
                *np.argwhere(stored.array == value).mean(axis=0),
                1,
            )
            np.testing.assert_allclose(center, theirs[:3] * (-1, -1, 1), atol=1e-3)
    assert "their thickness is taken" in caplog.text
    single = of_frames(
        tmp_path / "seg.dcm",
        tmp_path / "one.dcm",
        [0],
        without=("SpacingBetweenSlices", "SliceThickness"),
    )
    found = strata.read_labels(single, like=scan).labels
    (held,) = np.flatnonzero(found.any(axis=(1, 2)))
    np.testing.assert_array_equal(found[held], expected[held])
    with pytest.raises(
        ReadError, match=r"one slice, and does not say how thick it is.*--like SCAN"
    ):
        strata.read_labels(single)


def test_every_command_takes_a_seg_and_names_what_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    seg = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    full = strata.write(labels, tmp_path / "full.nii.gz")
    assert strata.read_labels(seg).labels.shape != labels.labels.shape
    for pair in ((seg, full), (full, seg)):
        assert main(["evaluate", *map(str, pair)]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["one_to_one_mean"] == 1
        assert "the rest is taken for background" in said.err
    few = ["--method", "gmm-mrf", "--supervoxels", "100", "--quiet", "--threads", "1"]
    assert (
        main(
            [
                "refine",
                str(tmp_path / "ct"),
                "--from-labels",
                str(seg),
                "-o",
                str(tmp_path / "start.nii.gz"),
                *few,
            ]
        )
        == 0
    )
    kept = strata.read_labels(tmp_path / "start.nii.gz").labels
    np.testing.assert_array_equal(
        kept[labels.labels > 0], labels.labels[labels.labels > 0]
    )
    assert (
        main(
            [
                "convert",
                str(seg),
                "--like",
                str(tmp_path / "ct"),
                "-o",
                str(tmp_path / "on.nii.gz"),
            ]
        )
        == 0
    )
    np.testing.assert_array_equal(
        strata.read_labels(tmp_path / "on.nii.gz").labels, labels.labels
    )
    capsys.readouterr()
    before = sorted(tmp_path.iterdir())
    for uid, says in (
        ("481.3", "RT structure set"),
        ("66.5", "surface segmentation"),
        ("88.33", "structured report"),
    ):
        dataset = pydicom.dcmread(seg)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
            f"1.2.840.10008.5.1.4.1.1.{uid}"
        )
        other = tmp_path / "ct" / "other.dcm"
        dataset.save_as(other)
        for words in (
            ["evaluate", str(other), str(full)],
            ["convert", str(other), "-o", str(tmp_path / "x.nii")],
        ):
            assert main(words) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert says in line
            assert str(other) in line
        other.unlink()
    assert sorted(tmp_path.iterdir()) == before


def test_a_seg_of_a_2d_image_or_a_slide_is_named_for_what_it_is(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    dataset = pydicom.dcmread(path)
    dataset.TotalPixelMatrixRows = dataset.TotalPixelMatrixColumns = 99
    dataset.save_as(path)
    with pytest.raises(ReadError, match="microscope slide"):
        strata.read_labels(path)
    del dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(ReadError, match="segmentation of a 2D image"):
        strata.read_labels(path)


def test_a_region_on_one_slice_is_in_its_place(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    single = np.where(labels.labels == 7, labels.labels, 0)
    path = strata.write(
        Segmentation(single, REGIONS, scan.geometry), tmp_path / "seg.dcm", scan=scan
    )
    np.testing.assert_array_equal(strata.read_labels(path, like=scan).labels, single)


def test_a_series_without_uids_is_mended_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_series(tmp_path / "ct")
    for file in (tmp_path / "ct").iterdir():
        dataset = pydicom.dcmread(file)
        instance = dataset.SOPInstanceUID
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = (
            dataset.SOPInstanceUID
        ) = dataset.SOPClassUID = ""
        del dataset.PatientID
        dataset.file_meta.MediaStorageSOPInstanceUID = instance
        dataset.save_as(file, enforce_file_format=False)
    scan = strata.read(tmp_path / "ct")
    labels = Segmentation((scan.data > 0).astype(np.uint8), (), scan.geometry)
    first = pydicom.dcmread(strata.write(labels, tmp_path / "a.dcm", scan=scan))
    second = pydicom.dcmread(strata.write(labels, tmp_path / "b.dcm", scan=scan))
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert {
        one.ReferencedSOPInstanceUID
        for one in first.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } > {instance}
    told, _ = [
        record.getMessage()
        for record in caplog.records
        if "anonymised" in record.getMessage()
    ]
    assert "its empty StudyInstanceUID and 2.25." in told


def test_what_is_no_dicom_series_or_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    with pytest.raises(WriteError, match="Give the folder of that series"):
        strata.write(labels, tmp_path / "seg.dcm")
    moved = Geometry(
        scan.geometry.shape_zyx,
        np.diag([1.0, 1, 1, 1]) @ scan.geometry.affine
        + np.eye(4)[:, [1, 2, 0, 3]] * 0.2,
    )
    with pytest.raises(GeometryError):
        strata.write(
            Segmentation(labels.labels, REGIONS, moved), tmp_path / "seg.dcm", scan=scan
        )
    with pytest.raises(WriteError, match="no region with voxels"):
        strata.write(
            Segmentation(labels.labels * np.uint16(0), REGIONS, scan.geometry),
            tmp_path / "seg.dcm",
            scan=scan,
        )
    assert not (tmp_path / "seg.dcm").exists()


def test_a_seg_in_the_folder_of_its_series_is_not_taken_for_a_scan(
    tmp_path: Path,
) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    known = hash_file(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "ct" / "seg.dcm", scan=scan)
    assert hash_file(tmp_path / "ct") == known
    np.testing.assert_array_equal(strata.read(tmp_path / "ct").data, scan.data)
    assert len(strata.list_series(tmp_path / "ct")) == 1
    with pytest.raises(ReadError, match="is a segmentation, not a scan"):
        strata.read(path)


def test_no_image_of_a_series_is_replaced_by_a_seg(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    image = next(
        path for path in sorted((tmp_path / "ct").iterdir()) if path.suffix == ".dcm"
    )
    before, other = image.read_bytes(), tmp_path / "other.dcm"
    other.write_bytes(before)
    for target in (image, other):
        with pytest.raises(WriteError, match="image of a series"):
            strata.write(labels, target, scan=scan)
        assert target.read_bytes() == before
    seg = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    # a segmentation may be written again
    assert strata.write(labels, seg, scan=scan) == seg


def test_a_damaged_seg_is_refused(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    whole = path.read_bytes()
    for left in (1500, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:left])
        with pytest.raises(
            ReadError, match=r"seg\.dcm is a DICOM SEG that was cut short"
        ) as told:
            strata.read_labels(path)
        assert "object has no attribute" not in str(told.value)


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None,
    reason="dicom3tools is not installed: sudo make system",
)
def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    said = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60
    ).stderr
    assert "Segmentation" in said
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_every_listed_code_is_one_of_dicoms() -> None:
    known = {
        (code, meaning.lower())
        for rows in concepts["SCT"].values()
        for code, (meaning, _) in rows.items()
    }
    others = {
        term.kind.value
        for term in known_terms()
        if (term.kind.value, term.kind.meaning.lower()) not in known
    }
    muscles, spine = (
        {"181674001", "78333006", "75297007", "68455001", "244849004"},
        {"65985001"},
    )
    assert others == {
        "110765007",
        "74281007",
        "67769002",
        "80621003",
        *muscles,
        *spine,
    }, "of TotalSegmentator's mapping; choroid plexus"
    assert {
        (term.category.value, term.category.meaning.lower()) for term in known_terms()
    } <= known
    assert len({term.kind.value for term in known_terms()}) == len(known_terms()), (
        "one code, one meaning"
    )


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("Left kidney", "Kidney", "Left"),
        ("kidney_right", "Kidney", "Right"),
        ("lungs", "Lung", None),
        ("heart_ventricle_left", "Left ventricle", None),
        ("grey matter 2", "Gray Matter", None),
        ("vertebrae_L1", "L1 vertebra", None),
        ("gluteus_maximus_left", "Gluteus maximus muscle", "Left"),
        ("left ventricle", "Tissue", None),
        ("liver cyst?", "Tissue", None),
        ("region 7", "Tissue", None),
        ("", "Tissue", None),
    ],
)
def test_names_are_coded_only_where_they_are_known(
    name: str, meaning: str, side: str | None
) -> None:
    term = term_of(name)
    assert (term.kind.meaning, term.side.meaning if term.side else None) == (
        meaning,
        side,
    )
    assert term.known == (meaning != "Tissue")


def test_long_names_and_backslashes_survive(tmp_path: Path) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    long = Region(
        3, "a very long name of a region, which " * 3 + "ends here", (1, 2, 3)
    )
    path = strata.write(
        labels.with_regions((long, Region(7, "a\\b", (9, 9, 9)))),
        tmp_path / "seg.dcm",
        scan=scan,
    )
    assert [region.name for region in strata.read_labels(path).regions] == [
        long.name,
        "a/b",
        "region 300",
    ]


def test_missing_extras_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, labels, _ = segmented(tmp_path / "ct")
    path = strata.write(labels, tmp_path / "seg.dcm", scan=scan)
    for name in ("highdicom", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(WriteError, match=r"napari-strata\[dicom\]"):
        strata.write(labels, tmp_path / "other.dcm", scan=scan)
    # pydicom alone reads it
    np.testing.assert_array_equal(
        strata.read_labels(path, like=scan).labels, labels.labels
    )
    with pytest.raises(WriteError, match=r"napari-strata\[parquet\]"):
        strata.write(labels, tmp_path / "t.parquet", scan=scan)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ct", "seg.dcm"]
