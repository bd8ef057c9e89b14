"""The region table's rows, as Qt asks for them; the columns are in `region_table_columns`."""

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
from napari_strata.gui.widgets.region_table_columns import (
    LOCK,
    NAME,
    REGION_COLUMNS,
    SHOWN,
    RegionRow,
)
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import Region

_Role = Qt.ItemDataRole


class RegionModel(QAbstractTableModel):
    """Rows of the region table.

    Edits are requested by signals, and shown after the refinement has made them.
    """

    rename_asked = Signal(int, str)
    lock_asked = Signal(int, bool)
    show_asked = Signal(int, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[Region, ...] = ()
        self._statistics: Mapping[int, RegionStatistics] = {}
        self._hidden: frozenset[int] = frozenset()
        self._partners: Mapping[int, int] = {}
        self._order: tuple[int, Qt.SortOrder] = NAME, Qt.SortOrder.AscendingOrder

    @property
    def rows(self) -> tuple[Region, ...]:
        """The regions shown."""
        return self._rows

    def show_regions(
        self,
        rows: tuple[Region, ...],
        statistics: Mapping[int, RegionStatistics],
        hidden: frozenset[int],
    ) -> None:
        """Show other rows, sorted.

        If the regions are the same, the view keeps its selection.
        """
        changed = statistics != self._statistics or hidden != self._hidden
        self._statistics, self._hidden = statistics, hidden
        rows = self._sorted(rows)
        before, now = [row.id for row in self._rows], [row.id for row in rows]
        if before == now:
            changed, self._rows = changed or rows != self._rows, rows
            if changed and rows:
                self.dataChanged.emit(
                    self.index(0, 0), self.index(len(rows) - 1, self.columnCount() - 1)
                )
        elif set(before) == set(now):
            self._put_in_order(rows)
        else:
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()

    @property
    def partners(self) -> Mapping[int, int]:
        """The mirror image of every region that has one, by id."""
        return self._partners

    def show_partners(self, partners: Mapping[int, int]) -> None:
        """Show other pairs of mirror images."""
        if partners == self._partners:
            return
        self._partners = partners
        self._put_in_order(self._sorted(self._rows))

    def sort(
        self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder
    ) -> None:
        """Sort by a column.

        Python sorts here with one key per row; Qt would ask for thousands of values.
        """
        self._order = column, order
        self._put_in_order(self._sorted(self._rows))

    def _sorted(self, rows: tuple[Region, ...]) -> tuple[Region, ...]:
        number, order = self._order
        if number < 0:
            return rows
        key = REGION_COLUMNS[number].sort_key
        return tuple(
            sorted(
                rows,
                key=lambda region: key(self._row(region)),
                reverse=order == Qt.SortOrder.DescendingOrder,
            )
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

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008
        """Return the number of regions."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008
        """Return the number of columns."""
        return len(REGION_COLUMNS)

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = _Role.DisplayRole
    ) -> Any:
        """Return a column's title or help."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == _Role.ToolTipRole:
            return REGION_COLUMNS[section].help
        return REGION_COLUMNS[section].header if role == _Role.DisplayRole else None

    def data(self, index: QModelIndex, role: int = _Role.DisplayRole) -> Any:
        """Return what a cell shows in a role."""
        region, column = self._rows[index.row()], REGION_COLUMNS[index.column()]
        if role == _Role.ToolTipRole:
            known = describe_name(region.name)
            source = f"; {known}" if known else ""
            return f"{region.name} (id {region.id}{source}). {column.help}"
        if column.kind == "check":
            is_locking = index.column() == LOCK
            is_on = region.locked if is_locking else region.id not in self._hidden
            state = Qt.CheckState.Checked if is_on else Qt.CheckState.Unchecked
            return state if role == _Role.CheckStateRole else None
        if column.kind == "color":
            return QColor(*region.color) if role == _Role.DecorationRole else None
        if column.kind == "number" and role == _Role.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        is_edit = role == _Role.EditRole and column.kind == "name"
        if role == _Role.DisplayRole or is_edit:
            return column.text(self._row(region))
        return None

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

    def _row(self, region: Region) -> RegionRow:
        statistics = self._statistics.get(region.id)
        return RegionRow(
            region,
            statistics,
            region.id in self._hidden,
            self._partners.get(region.id),
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
