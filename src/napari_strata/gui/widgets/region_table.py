"""The region table: sorting, selecting, and commands for names, colours, locks and display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qtpy.QtCore import (
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPoint,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QCompleter,
    QHeaderView,
    QLineEdit,
    QMenu,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_strata.gui.widgets.region_model import RegionModel, SortedRegions
from napari_strata.gui.widgets.region_names import suggested_names
from napari_strata.gui.widgets.region_table_columns import (
    COLOR,
    LOCK,
    NAME,
    REGION_COLUMNS,
    SHOWN,
)
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import Region

_CHECK_STYLE = (
    "QTableView::indicator { width: 11px; height: 11px; border: 1px solid #8a8f98;"
    " border-radius: 2px; }QTableView::indicator:checked { background: #e0a030;"
    " border-color: #e0a030; }"
)
"""Check boxes that can be seen in napari's dark and light themes."""


class NameDelegate(QStyledItemDelegate):
    """Completes names while they are typed."""

    def __init__(
        self,
        names: Callable[[QModelIndex], Sequence[str]],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._names = names

    def createEditor(  # noqa: N802
        self, parent: QWidget | None, option: QStyleOptionViewItem, index: QModelIndex
    ) -> QWidget | None:
        """Return a line edit that suggests names."""
        line = QLineEdit(parent)
        completer = QCompleter(list(self._names(index)), line)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setMaxVisibleItems(12)
        popup = completer.popup()
        if popup is not None:  # as wide as its words, not as the column
            room = 2 * popup.verticalScrollBar().sizeHint().width()
            popup.setMinimumWidth(popup.sizeHintForColumn(0) + room)
        line.setCompleter(completer)
        return line


class RegionTable(QTableView):
    """The region table with sorting and multiple selection."""

    rename_asked = Signal(int, str)
    lock_asked = Signal(int, bool)
    show_asked = Signal(int, bool)
    recolor_asked = Signal(int, tuple)
    asked = Signal(str, tuple)
    """Emitted with a command and its regions.

    The command is "jump", "solo", "show_all", "hide", "lock" or "unlock".
    """
    selected_changed = Signal(tuple)
    """Ids of the selected regions, in the order they were selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.regions = RegionModel(self)
        self.sorted = SortedRegions(self)
        self.sorted.setSourceModel(self.regions)
        self.setModel(self.sorted)
        self.setSortingEnabled(True)
        self.sortByColumn(NAME, Qt.SortOrder.AscendingOrder)
        self.setItemDelegateForColumn(
            NAME,
            NameDelegate(self._names_for, self),
        )
        self.side_of: Callable[[int], str] = lambda _region: ""
        """Returns the side of a region, "left", "right" or "", whose names come first."""
        self._renamed: tuple[int, str] | None = None
        self._selected: list[int] = []
        self._filling = False
        self._set_appearance()
        self.regions.rename_asked.connect(self._on_rename)
        self.regions.lock_asked.connect(self.lock_asked)
        self.regions.show_asked.connect(self.show_asked)
        self.doubleClicked.connect(self._on_double_click)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._on_menu)
        self.selectionModel().selectionChanged.connect(self._on_selection)

    @property
    def selected(self) -> tuple[int, ...]:
        """Ids of the selected regions, first selected first."""
        return tuple(self._selected)

    def show_regions(
        self,
        rows: tuple[Region, ...],
        statistics: Mapping[int, RegionStatistics],
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        """Show other rows; the selection is kept as far as the regions still exist."""
        present = {row.id for row in rows}
        kept = [region for region in self._selected if region in present]
        self._filling = True
        self.regions.show_regions(rows, statistics, hidden)
        self._filling = False
        self.select(kept)
        if self._renamed is not None and self._renamed in [
            (row.id, row.name) for row in rows
        ]:
            self._scroll_to(self._renamed[0])
            self._renamed = None

    def _scroll_to(self, region: int) -> None:
        for number, row in enumerate(self.regions.rows):
            if row.id == region:
                source = self.regions.index(number, NAME)
                self.scrollTo(self.sorted.mapFromSource(source))

    def _on_rename(self, region: int, name: str) -> None:
        self._renamed = region, name
        self.rename_asked.emit(region, name)

    def _names_for(self, index: QModelIndex) -> list[str]:
        in_use = (row.name for row in self.regions.rows if row.is_named)
        return suggested_names(in_use, side=self.side_of(self._region_at(index).id))

    def filter_names(self, text: str) -> None:
        """Show only the regions whose name holds a text; the selection stays."""
        self._filling = True
        self.sorted.setFilterFixedString(text)
        self._filling = False

    def select(self, ids: list[int] | tuple[int, ...]) -> None:
        """Select regions and scroll to the last of them."""
        place = {row.id: number for number, row in enumerate(self.regions.rows)}
        chosen = [region for region in ids if region in place]
        selection = QItemSelection()
        for region in chosen:
            left = self.sorted.mapFromSource(self.regions.index(place[region], 0))
            right = self.sorted.mapFromSource(
                self.regions.index(place[region], len(REGION_COLUMNS) - 1)
            )
            selection.select(left, right)
        self._filling = True
        self.selectionModel().select(
            selection, QItemSelectionModel.SelectionFlag.ClearAndSelect
        )
        self._filling = False
        changed, self._selected = self._selected != chosen, chosen
        if changed:
            if chosen:
                self.scrollTo(
                    self.sorted.mapFromSource(
                        self.regions.index(place[chosen[-1]], NAME)
                    )
                )
            self.selected_changed.emit(self.selected)

    def click(self, region: int, add: bool = False) -> None:
        """Select a region that was clicked on the scan.

        With `add` it is added to the selection, or taken out if it is selected.
        """
        others = [one for one in self._selected if one != region] if add else []
        is_removed = add and region in self._selected
        self.select(others if is_removed else [*others, region])

    def toggle_lock(self) -> None:
        """Lock the selected regions, or unlock them if all of them are locked."""
        rows = [row for row in self.regions.rows if row.id in self._selected]
        if rows:
            command = "unlock" if all(row.locked for row in rows) else "lock"
            self.asked.emit(command, self.selected)

    def menu(self) -> QMenu | None:
        """Return the menu of the selected regions, None if none is selected."""
        ids = self.selected
        if not ids:
            return None
        menu = QMenu(self)
        several = len(ids) > 1
        entries = (
            ("jump", "Jump to it"),
            ("solo", "Show only these" if several else "Show only this"),
            ("hide", "Hide"),
            ("show_all", "Show all"),
            ("lock", "Lock"),
            ("unlock", "Unlock"),
        )
        for what, text in entries:
            menu.addAction(text, lambda what=what: self.asked.emit(what, ids))
        partners = [
            self.regions.partners[region]
            for region in ids
            if region in self.regions.partners
        ]
        if partners:
            both = list(dict.fromkeys([*ids, *partners]))
            menu.addAction("Select its mirror image too", lambda: self.select(both))
        menu.addSeparator()
        menu.addAction("Rename…", self.rename_last)
        menu.addAction("Colour…", lambda: self._ask_color(ids[-1]))
        return menu

    def rename_last(self) -> None:
        """Start editing the name of the region selected last."""
        place = {row.id: number for number, row in enumerate(self.regions.rows)}
        if self._selected:
            self.edit(
                self.sorted.mapFromSource(
                    self.regions.index(place[self._selected[-1]], NAME)
                )
            )

    def keyboardSearch(self, search: str | None) -> None:  # noqa: N802 (Qt's name)
        """Do nothing: a letter would move the selection, and with it the strokes."""

    def _set_appearance(self) -> None:
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(18)
        for number, column in enumerate(REGION_COLUMNS):
            if column.width is None:
                header.setSectionResizeMode(number, QHeaderView.ResizeMode.Stretch)
            else:
                header.setSectionResizeMode(number, QHeaderView.ResizeMode.Fixed)
                self.setColumnWidth(number, column.width)
        self.setStyleSheet(_CHECK_STYLE)
        self.setToolTip(
            "Click to select, Ctrl or Shift for several. Or click a region on the scan."
            " Right-click for more."
        )

    def _region_at(self, index: QModelIndex) -> Region:
        return self.regions.rows[self.sorted.mapToSource(index).row()]

    def _on_double_click(self, index: QModelIndex) -> None:
        if index.column() == COLOR:
            self._ask_color(self._region_at(index).id)
        elif index.column() not in (NAME, SHOWN, LOCK):
            self.asked.emit("jump", (self._region_at(index).id,))

    def _ask_color(self, region: int) -> None:
        row = next(row for row in self.regions.rows if row.id == region)
        color = QColorDialog.getColor(QColor(*row.color), self, f"Colour of {row.name}")
        if color.isValid():
            self.recolor_asked.emit(region, (color.red(), color.green(), color.blue()))

    def _on_menu(self, point: QPoint) -> None:
        menu = self.menu()
        if menu is not None:
            menu.popup(self.viewport().mapToGlobal(point))

    def _on_selection(self) -> None:
        if self._filling:
            return
        now = {
            self._region_at(index).id for index in self.selectionModel().selectedRows()
        }
        kept = [region for region in self._selected if region in now]
        self._selected = kept + sorted(now - set(kept))
        self.selected_changed.emit(self.selected)
