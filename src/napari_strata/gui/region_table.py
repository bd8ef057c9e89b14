"""The region table: colour, name, lock and volume of each region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QTableView, QWidget

from napari_strata.volume import Region

COLOR, NAME, VOLUME, LOCK = range(4)
_HEADERS = ("", "Region", "mL", "Lock")
_LOCK_STYLE = (
    "QTableView::indicator { width: 11px; height: 11px; border: 1px solid #8a8f98; border-radius: 2px; }"
    "QTableView::indicator:checked { background: #e0a030; border-color: #e0a030; }"
)
"""Check boxes that can be seen in napari's dark and light themes."""
_TIPS = (
    "Colour; double-click to change it",
    "Name; double-click to rename the region, which also keeps it when the slider moves",
    "Volume in millilitres",
    "Locked regions are never changed, by machine or by brush",
)


class RegionModel(QAbstractTableModel):
    """Rows of the region table; edits are asked for by signal and show once the refinement has made them."""

    rename_asked = Signal(int, str)
    lock_asked = Signal(int, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[Region, ...] = ()
        self._volumes_ml: Mapping[int, float] = {}

    @property
    def rows(self) -> tuple[Region, ...]:
        """The regions shown."""
        return self._rows

    def show_regions(self, rows: tuple[Region, ...], volumes_ml: Mapping[int, float]) -> None:
        """Show other rows; the view keeps its selection where only values changed."""
        same_ids = [row.id for row in rows] == [row.id for row in self._rows]
        if not same_ids:
            self.beginResetModel()
        self._rows, self._volumes_ml = rows, volumes_ml
        if not same_ids:
            self.endResetModel()
        elif rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(_HEADERS) - 1))

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 (Qt's name and default)
        """Count the regions."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 (Qt's name and default)
        """Count the columns."""
        return len(_HEADERS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        """Give a column's title or help."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return _TIPS[section]
        return _HEADERS[section] if role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Give what a cell shows in a role."""
        region, column = self._rows[index.row()], index.column()
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"Region id {region.id}. {_TIPS[column]}"
        if column == COLOR:
            if role == Qt.ItemDataRole.DecorationRole:
                return QColor(*region.color)
            return region.id if role == Qt.ItemDataRole.UserRole else None
        if column == NAME:
            shown = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole)
            return region.name if role in shown else region.id if role == Qt.ItemDataRole.UserRole else None
        if column == VOLUME:
            return self._volume(region.id, role)
        if role == Qt.ItemDataRole.CheckStateRole:
            return Qt.CheckState.Checked if region.locked else Qt.CheckState.Unchecked
        return int(region.locked) if role == Qt.ItemDataRole.UserRole else None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:  # noqa: N802
        """Ask for a new name or lock."""
        region = self._rows[index.row()]
        if role == Qt.ItemDataRole.EditRole and index.column() == NAME:
            if str(value).strip() and str(value).strip() != region.name:
                self.rename_asked.emit(region.id, str(value).strip())
            return True
        if role == Qt.ItemDataRole.CheckStateRole and index.column() == LOCK:
            self.lock_asked.emit(region.id, Qt.CheckState(value) == Qt.CheckState.Checked)
            return True
        return False

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Say what can be done with a cell."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == NAME:
            flags |= Qt.ItemFlag.ItemIsEditable
        if index.column() == LOCK:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def _volume(self, region: int, role: int) -> Any:
        volume = self._volumes_ml.get(region)
        if role == Qt.ItemDataRole.UserRole:
            return -1.0 if volume is None else volume
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role != Qt.ItemDataRole.DisplayRole or volume is None:
            return None
        return f"{volume:.2f}" if volume < 10 else f"{volume:.0f}"


class RegionTable(QTableView):
    """The region table with sorting and multiple selection."""

    rename_asked = Signal(int, str)
    lock_asked = Signal(int, bool)
    recolor_asked = Signal(int, tuple)
    selected_changed = Signal(tuple)
    """Ids of the selected regions, in the order they were selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.regions = RegionModel(self)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.regions)
        self._sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self.setModel(self._sorted)
        self.setSortingEnabled(True)
        self.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
        self._selected: list[int] = []
        self._filling = False
        self._set_looks()
        self.regions.rename_asked.connect(self.rename_asked)
        self.regions.lock_asked.connect(self.lock_asked)
        self.doubleClicked.connect(self._on_double_click)
        self.selectionModel().selectionChanged.connect(self._on_selection)

    @property
    def selected(self) -> tuple[int, ...]:
        """Ids of the selected regions, first selected first."""
        return tuple(self._selected)

    def show_regions(self, rows: tuple[Region, ...], volumes_ml: Mapping[int, float]) -> None:
        """Show other rows, with the selection kept as far as the regions still exist."""
        present = {row.id for row in rows}
        kept = [region for region in self._selected if region in present]
        self._filling = True
        self.regions.show_regions(rows, volumes_ml)
        self._filling = False
        self.select(kept)

    def select(self, ids: list[int] | tuple[int, ...]) -> None:
        """Select regions and scroll to the last of them."""
        wanted = [region for region in ids if any(row.id == region for row in self.regions.rows)]
        place = {row.id: number for number, row in enumerate(self.regions.rows)}
        selection = QItemSelection()
        for region in wanted:
            left = self._sorted.mapFromSource(self.regions.index(place[region], 0))
            right = self._sorted.mapFromSource(self.regions.index(place[region], LOCK))
            selection.select(left, right)
        self._filling = True
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        self._filling = False
        changed, self._selected = self._selected != wanted, wanted
        if wanted:
            self.scrollTo(self._sorted.mapFromSource(self.regions.index(place[wanted[-1]], NAME)))
        if changed:
            self.selected_changed.emit(self.selected)

    def _set_looks(self) -> None:
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setShowGrid(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((COLOR, 26), (VOLUME, 60), (LOCK, 44)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, width)
        self.setStyleSheet(_LOCK_STYLE)
        self.setToolTip("Click to select, Ctrl or Shift for several. Or click a region on the scan.")

    def _on_double_click(self, index: QModelIndex) -> None:
        if index.column() != COLOR:
            return
        region = self.regions.rows[self._sorted.mapToSource(index).row()]
        color = QColorDialog.getColor(QColor(*region.color), self, f"Colour of {region.name}")
        if color.isValid():
            self.recolor_asked.emit(region.id, (color.red(), color.green(), color.blue()))

    def _on_selection(self) -> None:
        if self._filling:
            return
        rows = {self._sorted.mapToSource(index).row() for index in self.selectionModel().selectedRows()}
        now = {self.regions.rows[row].id for row in sorted(rows)}
        kept = [region for region in self._selected if region in now]
        self._selected = kept + sorted(now - set(kept))
        self.selected_changed.emit(self.selected)
