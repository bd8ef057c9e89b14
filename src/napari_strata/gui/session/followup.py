"""Two time points side by side, with the volume changes of regions of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFormLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_strata.gui.canvas.canvas import grid_of
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.refine.state.statistics import RegionStatistics
from napari_strata.volume import Region

if TYPE_CHECKING:
    import napari.viewer

_HEADERS = ("Region", "Before (mL)", "After (mL)", "Change (mL)", "Change (%)")


@dataclass(frozen=True, slots=True)
class VolumeChange:
    """Volumes of a region at two time points, in mL.

    `percent` is NaN if the region had no volume before.
    """

    name: str
    before_ml: float
    after_ml: float

    @property
    def change_ml(self) -> float:
        """Change of volume, in mL."""
        return self.after_ml - self.before_ml

    @property
    def percent(self) -> float:
        """Change of volume, in percent of the earlier volume."""
        return 100 * self.change_ml / self.before_ml if self.before_ml else float("nan")


def volume_changes(
    before: tuple[Sequence[Region], Mapping[int, RegionStatistics]],
    after: tuple[Sequence[Region], Mapping[int, RegionStatistics]],
) -> list[VolumeChange]:
    """Return the volume changes of regions of the same name.

    The volumes of several regions with one name are added.

    Parameters
    ----------
    before, after : (rows, statistics by id)
        The two time points.
    """
    volumes = []
    for rows, facts in (before, after):
        by_name: dict[str, float] = {}
        for row in rows:
            by_name[row.name] = by_name.get(row.name, 0.0) + (
                facts[row.id].volume_ml if row.id in facts else 0.0
            )
        volumes.append(by_name)
    return [
        VolumeChange(name, volumes[0][name], volumes[1][name])
        for name in volumes[0]
        if name in volumes[1]
    ]


class FollowUp(QDialog):
    """Compares the case in hand with that of another scan in the viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where both scans are.
    after : ScanCase
        The case in hand.
    others : sequence of ScanCase
        What it can be compared with.
    parent : QWidget
        The panel.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        after: ScanCase,
        others: Sequence[ScanCase],
        parent: QWidget,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Strata: two time points")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(560, 420)
        self._viewer, self._after, self._others = viewer, after, list(others)
        self.choice = QComboBox()
        self.choice.addItems([case.image.name for case in others])
        self.table = QTableWidget(0, len(_HEADERS))
        self.table.setHorizontalHeaderLabels(_HEADERS)
        self.table.horizontalHeader().setSectionResizeMode(
            0, QHeaderView.ResizeMode.Stretch
        )
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        form, column = QFormLayout(), QVBoxLayout(self)
        form.addRow("Before", self.choice)
        form.addRow("After", QLabel(after.image.name))
        column.addLayout(form)
        column.addWidget(
            QLabel(
                "Regions with one name in both; give them the same names, or use a"
                " codebook."
            )
        )
        column.addWidget(self.table)
        self.choice.currentIndexChanged.connect(self.compare)
        self.finished.connect(self._put_back)
        self.compare()

    def compare(self) -> None:
        """Show both scans side by side, and the table."""
        before = self._others[max(self.choice.currentIndex(), 0)]
        side_by_side(self._viewer, before, self._after)
        changes = volume_changes(
            *((case.work.regions, case.statistics()) for case in (before, self._after))
        )
        self.table.setRowCount(len(changes))
        for number, change in enumerate(changes):
            figures = (
                f"{change.before_ml:.2f}",
                f"{change.after_ml:.2f}",
                f"{change.change_ml:+.2f}",
                f"{change.percent:+.1f}",
            )
            for column, text in enumerate((change.name, *figures)):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.table.setItem(number, column, item)

    def _put_back(self) -> None:
        grid_of(self._viewer).enabled = False


def side_by_side(
    viewer: napari.viewer.Viewer, before: ScanCase, after: ScanCase
) -> None:
    """Put two scans with their regions in two cells of napari's grid, the earlier one left."""
    layers = viewer.layers
    pairs = [before.image, before.labels, after.image, after.labels]
    for layer in layers:
        layer.visible = layer in pairs
    for layer in pairs:
        layers.move(layers.index(layer), len(layers))
    grid = grid_of(viewer)
    grid.shape, grid.stride, grid.enabled = (1, 2), -2, True
    viewer.fit_to_view()
