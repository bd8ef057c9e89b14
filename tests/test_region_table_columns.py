"""Columns of the window's region table, without a window."""

from napari_strata.gui.widgets.region_table_columns import (
    PAIR,
    REGION_COLUMNS,
    RegionRow,
)
from napari_strata.volume import Region


def test_sorting_by_pair_brings_mirror_images_together():
    partners = {2: 9, 9: 2, 3: 5, 5: 3}
    rows = [
        RegionRow(Region(k, f"region {k}", (0, 0, 0)), None, False, partners.get(k))
        for k in range(1, 10)
    ]
    column = REGION_COLUMNS[PAIR]
    ordered = [row.region.id for row in sorted(rows, key=column.sort_key)]
    assert ordered[:4] == [2, 9, 3, 5]
    assert [column.text(row) for row in rows[:3]] == ["", "9", "5"]
