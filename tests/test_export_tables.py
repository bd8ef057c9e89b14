"""The region table as CSV and as rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from napari_strata.errors import WriteError
from napari_strata.export.base import ExportContext
from napari_strata.export.outputs import export_labels
from napari_strata.export.tables import is_table, table_columns, table_rows, write_table
from napari_strata.measure import RegionMeasure, agree, measure_regions
from napari_strata.volume import Geometry, Region, Segmentation, Volume


def measures() -> tuple[RegionMeasure, ...]:
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0], labels[1, 0] = 4, 9
    regions = (
        Region(4, 'left "lung", upper', (1, 2, 3)),
        Region(9, "Blutgefäß", (4, 5, 6)),
        Region(11, "empty", (7, 8, 9)),
    )
    geometry = Geometry.from_spacing(labels.shape, (10, 5, 2))
    return measure_regions(
        Segmentation(labels, regions, geometry),
        Volume(np.full(labels.shape, -812.5), geometry, "ct"),
    )


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_gives_back_names_volumes_and_places(tmp_path):
    write_table(measures(), tmp_path / "labels.csv", modality="ct")
    rows = read(tmp_path / "labels.csv")
    assert [row["name"] for row in rows] == ['left "lung", upper', "Blutgefäß", "empty"]
    assert [float(row["volume_ml"]) for row in rows] == [1.2, 0.4, 0]
    assert float(rows[0]["mean_hu"]) == -812.5
    assert [rows[1][f"{axis}_stop"] for axis in "zyx"] == ["2", "1", "4"]
    assert float(rows[1]["centroid_s_mm"]) == -5
    assert rows[2]["mean_hu"] == rows[2]["centroid_r_mm"] == ""


def test_only_ct_intensities_are_in_hu():
    assert "mean_hu" in table_columns("ct")
    assert "mean" in table_columns("mr")
    assert not [name for name in table_columns("mr") if "hu" in name]


def test_rows_are_valid_json_even_for_a_region_without_voxels():
    rows = json.loads(json.dumps(table_rows(measures(), "mr"), allow_nan=False))
    assert rows[2] == {**rows[2], "id": 11, "voxels": 0, "volume_ml": 0, "mean": None}


def test_a_table_without_regions_still_has_its_header(tmp_path):
    write_table((), tmp_path / "empty.csv", modality="mr")
    assert (tmp_path / "empty.csv").read_text().strip() == ",".join(table_columns("mr"))


def test_a_missing_folder_is_named_and_nothing_is_left(tmp_path):
    with pytest.raises(WriteError, match="nowhere"):
        write_table(measures(), tmp_path / "nowhere" / "labels.csv", modality="ct")
    assert list(tmp_path.iterdir()) == []


def test_tsv_and_parquet_say_what_the_csv_says(tmp_path):
    for suffix in ("csv", "tsv", "parquet"):
        write_table(measures(), tmp_path / f"labels.{suffix}", modality="ct")
    rows = read(tmp_path / "labels.csv")
    with open(tmp_path / "labels.tsv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file, delimiter="\t")) == rows
    table = parquet.read_table(tmp_path / "labels.parquet")
    assert table.column_names == list(rows[0])
    assert table.column("name").to_pylist() == [row["name"] for row in rows]
    assert table.column("volume_ml").to_pylist() == [
        float(row["volume_ml"]) for row in rows
    ]
    assert table.column("mean_hu").to_pylist() == [-812.5, -812.5, None]
    assert str(table.schema.field("id").type) == "int64"
    assert all(
        is_table(tmp_path / f"labels.{suffix}") for suffix in ("csv", "tsv", "parquet")
    )


def test_every_number_with_a_unit_says_it():
    for modality in ("ct", "mr"):
        units = {
            "volume_ml": "ml",
            "surface_mm2": "mm2",
            "centroid_a_mm": "mm",
            "box_s_max_mm": "mm",
        }
        assert all(
            name.endswith(unit) and name in table_columns(modality)
            for name, unit in units.items()
        )
    assert "mean" not in "".join(table_columns(None))


def test_a_table_of_an_earlier_version_is_known_and_another_file_is_not(tmp_path):
    (tmp_path / "old.csv").write_text(
        "id,name,voxels,volume_ml,mean,sd,centroid_r_mm\n"
    )
    (tmp_path / "patients.csv").write_text("id,name,age\n")
    (tmp_path / "other.parquet").write_bytes(b"PAR1 no")
    assert [
        is_table(tmp_path / name)
        for name in ("old.csv", "patients.csv", "other.parquet", "none.tsv")
    ] == [True, False, False, False]


def test_a_reference_adds_columns_and_the_regions_that_it_alone_has():
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[1:3, 1:4, 1:4] = 4
    other = labels.copy()
    other[1, 1, 1], other[0, 5, 5] = 0, 6
    geometry = Geometry.from_spacing(labels.shape, (3, 1, 1))
    ours, theirs = (
        Segmentation(labels, (Region(4, "cyst", (1, 2, 3)),), geometry),
        Segmentation(other, (), geometry),
    )
    cyst, alone = table_rows(
        measure_regions(ours), None, agree(ours, theirs, tolerance_mm=1.5)
    )
    assert (cyst["voxels"], cyst["reference_voxels"], cyst["dice"]) == (
        18,
        17,
        pytest.approx(34 / 35, abs=1e-5),
    )
    assert cyst["volume_difference_ml"] == pytest.approx(0.003)
    assert cyst["nsd_at_1.5mm"] <= 1
    assert (alone["id"], alone["name"], alone["voxels"], alone["reference_voxels"]) == (
        6,
        "region 6",
        0,
        1,
    )
    assert (alone["dice"], alone["hd95_mm"], alone["surface_mm2"]) == (0, None, None)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("a.nii.gz", ["a.csv", "a.json", "a.nii.gz"]),
        ("a.tsv", ["a.tsv"]),
        ("a.ply", ["a.ply"]),
    ],
)
def test_an_export_is_labels_with_sidecar_and_table_or_one_file(tmp_path, name, files):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:4, 1:4] = 4
    geometry = Geometry.from_spacing(labels.shape, (3, 1, 1))
    scan = Volume(np.full(labels.shape, 7.5), geometry)
    written = export_labels(
        Segmentation(labels, (), geometry),
        ExportContext(scan, np.full(labels.shape, 0.5)),
        tmp_path / name,
        {"seed": 3},
    )
    assert written == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    if name == "a.nii.gz":
        assert json.loads((tmp_path / "a.json").read_text())["seed"] == 3
        assert read(tmp_path / "a.csv")[0]["confidence"] == "0.5"
