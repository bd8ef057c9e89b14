"""The region table's columns and cells.

To add a column, add a row to `COLUMNS`, its text in `RegionModel.data` and its key in
`_sort_key`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_strata.gui.widgets.region_names import describe_name
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import Region

SHOWN, COLOR, NAME, VOLUME, MEAN, SD, CONFIDENCE, ACCEPTED, LOCK = range(9)
COLUMNS = 9
_HEADERS = ("", "", "Region", "mL", "Mean", "SD", "Sure", "OK", "Lock")
_TIPS = (
    "Whether the region is drawn",
    "Colour; double-click to change it",
    (
        "Name; double-click to rename the region, which also keeps it when the slider"
        " moves"
    ),
    "Volume in millilitres",
    "Mean brightness: HU for CT, the scan's own unit for MR",
    "Standard deviation of the brightness",
    "How sure the proposal is of it, from 0 to 1",
    "Accepted: somebody has looked at it and found it right (A)",
    "Locked regions are never changed, by machine or by brush",
)
_Role = Qt.ItemDataRole


class RegionModel(QAbstractTableModel):
    """Rows of the region table.

    Edits are requested by signal and appear once the refinement has made them.
    """

    rename_asked = Signal(int, str)
    lock_asked = Signal(int, bool)
    show_asked = Signal(int, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[Region, ...] = ()
        self._facts: Mapping[int, RegionStatistics] = {}
        self._hidden: frozenset[int] = frozenset()
        self._order: tuple[int, Qt.SortOrder] = NAME, Qt.SortOrder.AscendingOrder

    @property
    def rows(self) -> tuple[Region, ...]:
        """The regions shown."""
        return self._rows

    def show_regions(
        self,
        rows: tuple[Region, ...],
        facts: Mapping[int, RegionStatistics],
        hidden: frozenset[int],
    ) -> None:
        """Show other rows, sorted.

        The view keeps its selection as long as the regions stay the same.
        """
        changed = facts != self._facts or hidden != self._hidden
        self._facts, self._hidden = facts, hidden
        rows = self._sorted(rows)
        before, now = [row.id for row in self._rows], [row.id for row in rows]
        if before == now:
            changed, self._rows = changed or rows != self._rows, rows
            if changed and rows:
                self.dataChanged.emit(
                    self.index(0, 0), self.index(len(rows) - 1, COLUMNS - 1)
                )
        elif set(before) == set(now):
            self._put_in_order(rows)
        else:
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()

    def sort(
        self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder
    ) -> None:
        """Sort by a column.

        Python sorts here with one key per row; Qt would ask for thousands of values.
        """
        self._order = column, order
        self._put_in_order(self._sorted(self._rows))

    def _sorted(self, rows: tuple[Region, ...]) -> tuple[Region, ...]:
        column, order = self._order
        is_down = order == Qt.SortOrder.DescendingOrder
        return (
            tuple(
                sorted(
                    rows, key=lambda row: self._sort_key(row, column), reverse=is_down
                )
            )
            if column >= 0
            else rows
        )

    def _put_in_order(self, rows: tuple[Region, ...]) -> None:
        """Show the same regions in another order."""
        self.layoutAboutToBeChanged.emit()
        place = {row.id: number for number, row in enumerate(rows)}
        before = self.persistentIndexList()
        after = [
            self.index(place[self._rows[index.row()].id], index.column())
            for index in before
        ]
        self._rows = rows
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 (Qt's name and default)
        """Return the number of regions."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 (Qt's name and default)
        """Return the number of columns."""
        return COLUMNS

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = _Role.DisplayRole
    ) -> Any:
        """Return a column's title or help."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == _Role.ToolTipRole:
            return _TIPS[section]
        return _HEADERS[section] if role == _Role.DisplayRole else None

    def data(self, index: QModelIndex, role: int = _Role.DisplayRole) -> Any:
        """Return what a cell shows in a role."""
        region, column = self._rows[index.row()], index.column()
        if role == _Role.ToolTipRole:
            known = describe_name(region.name)
            return (
                f"{region.name} (id {region.id}{f'; {known}' if known else ''})."
                f" {_TIPS[column]}"
            )
        if column in (SHOWN, LOCK):
            is_on = region.locked if column == LOCK else region.id not in self._hidden
            return (_Role.CheckStateRole == role or None) and (
                Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked
            )
        if column == COLOR:
            return QColor(*region.color) if role == _Role.DecorationRole else None
        if column == NAME:
            return region.name if role in (_Role.DisplayRole, _Role.EditRole) else None
        if column == ACCEPTED:
            return (
                ("✓" if region.accepted else "") if role == _Role.DisplayRole else None
            )
        if role == _Role.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return self._number(region.id, column) if role == _Role.DisplayRole else None

    def setData(  # noqa: N802
        self, index: QModelIndex, value: Any, role: int = _Role.EditRole
    ) -> bool:
        """Ask for a new name, for a lock, or for a region to be shown."""
        region = self._rows[index.row()]
        if role == _Role.EditRole and index.column() == NAME:
            if str(value).strip() and str(value).strip() != region.name:
                self.rename_asked.emit(region.id, str(value).strip())
            return True
        if role == _Role.CheckStateRole and index.column() in (SHOWN, LOCK):
            asked = self.lock_asked if index.column() == LOCK else self.show_asked
            asked.emit(region.id, Qt.CheckState(value) == Qt.CheckState.Checked)
            return True
        return False

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return what can be done with a cell."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == NAME:
            flags |= Qt.ItemFlag.ItemIsEditable
        if index.column() in (SHOWN, LOCK):
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def _sort_key(self, region: Region, column: int) -> Any:
        facts = self._facts.get(region.id)
        if column in (SHOWN, LOCK):
            return int(region.locked if column == LOCK else region.id in self._hidden)
        if column in (COLOR, ACCEPTED):
            return region.id if column == COLOR else int(region.accepted)
        if column == NAME:
            # region 9 before region 10
            return "".join(
                part.rjust(8) if part.isdigit() else part
                for part in region.name.lower().split(" ")
            )
        if facts is None:
            return -1e9
        value = {
            VOLUME: facts.volume_ml,
            MEAN: facts.mean,
            SD: facts.sd,
            CONFIDENCE: facts.confidence,
        }[column]
        return -1e9 if value != value else value

    def _number(self, region: int, column: int) -> str | None:
        facts = self._facts.get(region)
        if facts is None:
            return None
        if column == VOLUME:
            return (
                f"{facts.volume_ml:.2f}"
                if facts.volume_ml < 10
                else f"{facts.volume_ml:.0f}"
            )
        if column == CONFIDENCE:
            return (
                ""
                if facts.confidence != facts.confidence
                else f"{facts.confidence:.2f}"
            )
        value = facts.mean if column == MEAN else facts.sd
        return (
            f"{value:.0f}"
            if abs(value) >= 10 or value == int(value)
            else f"{value:.2g}"
        )


class SortedRegions(QSortFilterProxyModel):
    """The rows whose name holds the filter's text, in the model's order."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFilterKeyColumn(NAME)
        self.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def sort(
        self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder
    ) -> None:
        """Let the model sort its rows."""
        if (model := self.sourceModel()) is not None:
            model.sort(column, order)
