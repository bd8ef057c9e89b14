"""Label files, 3D Slicer and ITK-SNAP.

The same voxels at the same place, with names and colours, for independent readers.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import napari_strata as strata
from exported import GRIDS, REGIONS, Case, make_case
from napari_strata.errors import Cancelled, GeometryError, ReadError, WriteError
from napari_strata.export.base import ExportContext
from napari_strata.export.files import write_together
from napari_strata.export.itksnap import read_description
from napari_strata.preprocess.regrid import labels_on_grid
from napari_strata.volume import Geometry, Region, Segmentation


@pytest.fixture(params=GRIDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(tmp_path, request.param)


def nrrd_fields(path: Path) -> dict[str, str]:
    """Read the header of an NRRD file without any library."""
    head = path.read_bytes().split(b"\n\n", 1)[0].decode("utf-8")
    return dict(line.split(":=", 1) for line in head.splitlines() if ":=" in line)


def test_slicer_finds_every_voxel_name_and_colour(case: Case, tmp_path: Path) -> None:
    path = strata.write(case.segmentation, tmp_path / "labels.seg.nrrd")
    image = sitk.ReadImage(str(path))
    found = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    np.testing.assert_array_equal(found, case.truth)
    for index in ((0, 0, 0), (21, 0, 3), (2, 16, 14)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(
            lps * (-1, -1, 1), (case.affine @ (*index, 1))[:3], atol=1e-4
        )
    fields = nrrd_fields(path)
    assert [fields[f"Segment{n}_Name"] for n in range(3)] == [
        region.name for region in REGIONS
    ]
    assert [int(fields[f"Segment{n}_LabelValue"]) for n in range(3)] == [3, 7, 300]
    assert [float(part) for part in fields["Segment0_Color"].split()] == pytest.approx(
        [200 / 255, 30 / 255, 40 / 255], abs=1e-5
    )
    assert "~SCT^64033007^Kidney~SCT^7771000^Left~" in fields["Segment0_Tags"]
    assert "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~" in fields["Segment2_Tags"]
    spans = [
        np.flatnonzero((case.truth == 7).any(axis=tuple({0, 1, 2} - {axis})))
        for axis in range(3)
    ]
    assert fields["Segment1_Extent"] == " ".join(
        f"{span[0]} {span[-1]}" for span in spans
    )


def test_seg_nrrd_comes_back_with_names_colours_and_locks(
    case: Case, tmp_path: Path
) -> None:
    locked = (*REGIONS[:2], Region(300, "region 300", (255, 255, 0), locked=True))
    path = strata.write(
        case.segmentation.with_regions(locked), tmp_path / "labels.seg.nrrd"
    )
    back = strata.read_labels(path)
    np.testing.assert_array_equal(back.labels, case.segmentation.labels)
    np.testing.assert_allclose(
        back.geometry.affine, case.segmentation.geometry.affine, atol=1e-5
    )
    assert back.regions == locked
    assert sorted(
        file.name for file in tmp_path.iterdir() if "labels" in file.name
    ) == ["labels.seg.nrrd"]


def test_a_region_without_a_row_or_without_voxels_is_a_segment_too(
    tmp_path: Path,
) -> None:
    case = make_case(tmp_path)
    table = (REGIONS[0], Region(9, "gone", (1, 2, 3)))
    back = strata.read_labels(
        strata.write(
            case.segmentation.with_regions(table), tmp_path / "labels.seg.nrrd"
        )
    )
    assert [region.id for region in back.regions] == [3, 7, 9, 300]
    assert back.regions[1].name == "region 7"


def slicer_layers(path: Path) -> None:
    """Write what 3D Slicer saves for segments that overlap.

    A list of layers, both with label value 1.
    """
    head = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        "sizes: 2 4 3 2",
        "space directions: none (2,0,0) (0,2,0) (0,0,5)",
        "kinds: list domain domain domain",
        "encoding: gzip",
        "space origin: (-10,20,30)",
    ]
    for n, (name, color) in enumerate((("first", "1 0 0"), ("second", "0 0.501961 0"))):
        head += [
            f"Segment{n}_ID:=s{n}",
            f"Segment{n}_Name:={name}",
            f"Segment{n}_Color:={color}",
        ]
        head += [f"Segment{n}_Layer:={n}", f"Segment{n}_LabelValue:=1"]
    layers = np.zeros((2, 3, 4, 2), np.uint8)  # k, j, i, layer
    layers[0, :, :, 0] = 1
    layers[:, 1, 2, 1] = 1
    path.write_bytes(
        "\n".join(head).encode() + b"\n\n" + gzip.compress(layers.tobytes())
    )


def test_overlapping_segments_of_slicer_are_laid_over_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slicer_layers(tmp_path / "layers.seg.nrrd")
    found = strata.read_labels(tmp_path / "layers.seg.nrrd")
    assert [(region.id, region.name, region.color) for region in found.regions] == [
        (1, "first", (255, 0, 0)),
        (2, "second", (0, 128, 0)),
    ]
    assert [(found.labels == n).sum() for n in (1, 2)] == [11, 2]
    assert "1 voxels lie in several segments" in caplog.text
    center = found.geometry.world_from_voxel(
        np.argwhere(found.labels == 2).mean(axis=0)
    )
    # LPS (-10 + 2 * 2, 20 + 2, 30 + 2.5)
    np.testing.assert_allclose(center, (6, -22, 32.5))


def test_voxels_that_no_segment_lists_are_kept_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case(tmp_path)
    path = strata.write(case.segmentation, tmp_path / "labels.seg.nrrd")
    image, forgetful = sitk.ReadImage(str(path)), tmp_path / "forgetful.seg.nrrd"
    for key in image.GetMetaDataKeys():
        if key.startswith("Segment1_"):
            image.EraseMetaData(key)
    sitk.WriteImage(image, str(forgetful))
    found = strata.read_labels(forgetful)
    np.testing.assert_array_equal(found.labels, case.segmentation.labels)
    assert {region.id: region.name for region in found.regions} == {
        3: "Left kidney",
        7: "region 7",
        300: "region 300",
    }
    assert "they are kept as regions 7" in caplog.text


def test_an_accepted_region_is_completed_in_slicer(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    regions = (replace(REGIONS[0], accepted=True), *REGIONS[1:])
    path = strata.write(
        case.segmentation.with_regions(regions), tmp_path / "labels.seg.nrrd"
    )
    assert "Segmentation.Status:completed" in nrrd_fields(path)["Segment0_Tags"]
    assert strata.read_labels(path).regions == regions


def test_seg_nrrd_is_not_taken_for_a_scan(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    path = strata.write(case.segmentation, tmp_path / "labels.seg.nrrd")
    with pytest.raises(ReadError, match="is a segmentation, not a scan"):
        strata.read(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ReadError, match=r"labels\.seg\.nrrd"):
        strata.read_labels(path)


def test_label_volumes_take_the_scans_own_header(case: Case, tmp_path: Path) -> None:
    back = strata.read_labels(
        strata.write(case.segmentation, tmp_path / "labels.seg.nrrd")
    )
    path = strata.write(back, tmp_path / "labels.nii.gz", scan=case.scan)
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), case.truth)
    assert image.affine.tobytes() == nib.load(tmp_path / "scan.nii.gz").affine.tobytes()
    assert strata.read_labels(path).regions == REGIONS


def test_itk_snap_gets_one_row_per_label(case: Case, tmp_path: Path) -> None:
    quoted = (*REGIONS[:2], Region(300, 'the "spot"', (1, 2, 3)))
    path = strata.write(
        case.segmentation.with_regions(quoted), tmp_path / "labels.label"
    )
    rows = [
        line.split(None, 7)
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert [[int(part) for part in row[:4]] for row in rows] == [
        [0, 0, 0, 0],
        [3, 200, 30, 40],
        [7, 0, 90, 255],
        [300, 1, 2, 3],
    ]
    assert [row[7] for row in rows[1:]] == [
        '"Left kidney"',
        '"Blutgefäß, rechts"',
        "\"the 'spot'\"",
    ]
    assert [region.name for region in read_description(path)] == [
        "Left kidney",
        "Blutgefäß, rechts",
        "the 'spot'",
    ]


def test_a_wrong_label_description_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.label").write_text("# fine\n1 2 3\n")
    with pytest.raises(ReadError, match="Line 2 of"):
        read_description(tmp_path / "x.label")


def test_labels_cropped_and_flipped_go_back_exactly(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    scan = case.segmentation
    inner = (slice(1, None), slice(2, None), slice(None, None, -1))
    to_inner = np.eye(4)
    to_inner[0, 3], to_inner[1, 3] = 1, 2
    to_inner[2, 2], to_inner[2, 3] = -1, scan.labels.shape[2] - 1
    cropped = Segmentation(
        scan.labels[inner],
        REGIONS,
        Geometry(scan.labels[inner].shape, scan.geometry.affine @ to_inner),
    )
    expected = scan.labels.copy()
    expected[:1], expected[:, :2] = 0, 0
    back = labels_on_grid(cropped, scan.geometry)
    np.testing.assert_array_equal(back.labels, expected)
    assert back.regions == REGIONS
    assert "resampled" not in caplog.text


def test_labels_on_another_grid_keep_their_place_and_volume(case: Case) -> None:
    fine = Geometry.from_spacing((140, 140, 140), (0.4, 0.4, 0.4))
    affine = fine.affine.copy()
    affine[:3, 3] += case.center_mm(3) + 0.13  # no voxel's centre on another's edge
    there = labels_on_grid(case.segmentation, Geometry(fine.shape_zyx, affine))
    moved = there.geometry.world_from_voxel(np.argwhere(there.labels == 3).mean(axis=0))
    np.testing.assert_allclose(moved, case.center_mm(3), atol=0.4 / 2)
    assert (there.labels == 3).sum() * 0.064e-3 == pytest.approx(
        case.volume_ml(3), rel=0.02
    )


def test_labels_of_another_patient_are_refused_and_lost_regions_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case(tmp_path)
    away = case.segmentation.geometry.affine.copy()
    away[0, 3] += 500
    with pytest.raises(GeometryError, match="wholly outside"):
        labels_on_grid(
            case.segmentation, Geometry(case.segmentation.labels.shape, away)
        )
    labels_on_grid(
        case.segmentation,
        Geometry(
            (4, 4, 4), case.segmentation.geometry.affine @ np.diag([4.0, 4, 4, 1])
        ),
    )
    assert "on another grid, so resampled" in caplog.text
    assert "1 regions lie outside the new grid and are lost: 300" in caplog.text
    assert (
        "1 regions are too small for the new grid's voxels and are lost: 7"
        in caplog.text
    )


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(WriteError, match="refers to the DICOM series"):
        write_together(
            case.segmentation,
            [tmp_path / "a.nii.gz", tmp_path / "a.dcm"],
            known=ExportContext(case.scan),
        )
    with pytest.raises(WriteError, match="does not exist"):
        write_together(
            case.segmentation,
            [tmp_path / "a.nii.gz", tmp_path / "a.obj", tmp_path / "nowhere" / "a.csv"],
        )
    with pytest.raises(WriteError, match=r"must end in \.nii"):
        write_together(case.segmentation, [tmp_path / "a.nii.gz", tmp_path / "a.docx"])
    with pytest.raises(WriteError, match="is the scan itself"):
        strata.write(case.segmentation, tmp_path / "scan.nii.gz", scan=case.scan)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_scan_is_known_however_it_is_given(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    sure = np.full(case.segmentation.labels.shape, 0.5)
    path = strata.write(
        case.segmentation,
        tmp_path / "t.csv",
        scan=case.scan,
        known=ExportContext(confidence=sure),
    )
    assert {"mean_hu", "confidence"} <= set(
        path.read_text(encoding="utf-8").splitlines()[0].split(",")
    )
    with pytest.raises(WriteError, match="two scans"):
        strata.write(
            case.segmentation,
            path,
            scan=case.scan,
            known=ExportContext(strata.read(tmp_path / "scan.nii.gz")),
        )


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    case = make_case(tmp_path)

    def stop(done: int, total: int, stage: str) -> None:
        if done == 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        write_together(
            case.segmentation,
            [tmp_path / "a.nii.gz", tmp_path / "{id}.stl"],
            on_progress=stop,
        )
    assert not [
        path
        for path in tmp_path.iterdir()
        if path.name.startswith(("a.", ".strata", "3."))
    ]
