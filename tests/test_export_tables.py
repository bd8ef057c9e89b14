"""The region table as CSV and as rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from napari_strata.errors import WriteError
from napari_strata.export.tables import table_columns, table_rows, write_table
from napari_strata.measure import RegionMeasure, measure_regions
from napari_strata.volume import Geometry, Region, Segmentation, Volume


def measures() -> tuple[RegionMeasure, ...]:
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0], labels[1, 0] = 4, 9
    regions = (Region(4, 'left "lung", upper', (1, 2, 3)), Region(9, "Blutgefäß", (4, 5, 6)), Region(11, "empty", (7, 8, 9)))
    geometry = Geometry.from_spacing(labels.shape, (10, 5, 2))
    return measure_regions(Segmentation(labels, regions, geometry), Volume(np.full(labels.shape, -812.5), geometry, "ct"))


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
